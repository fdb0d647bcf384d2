use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustls_pki_types::CertificateDer;
use tokio::time;
use tonic::{
    Status,
    body::Body,
    client::GrpcService,
    codegen::{Bytes, StdError},
};
use tulle_api::identity::{CertifyRequest, CertifyResponse, identity_client::IdentityClient};
use tulle_core::Id;
use tulle_tls::CredentialsError;

use crate::key::Key;

/// A call that takes longer is made anew, with the token read again.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// What calls are made over: the identity service's channel. A name for what the generated
/// clients ask of it.
pub trait Channel:
    GrpcService<
        Body,
        Error: Into<StdError> + Send,
        ResponseBody: tonic::codegen::Body<Data = Bytes, Error: Into<StdError> + Send>
                          + Send
                          + 'static,
        Future: Send,
    > + Clone
    + Send
    + Sync
    + 'static
{
}

impl<C> Channel for C where
    C: GrpcService<
            Body,
            Error: Into<StdError> + Send,
            ResponseBody: tonic::codegen::Body<Data = Bytes, Error: Into<StdError> + Send>
                              + Send
                              + 'static,
            Future: Send,
        > + Clone
        + Send
        + Sync
        + 'static
{
}

/// Why there is no new certificate; all of these are tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertifyError {
    #[error("cannot read the token {path}: {source}", path = path.display())]
    Token { path: PathBuf, source: io::Error },
    #[error("the token {path} is empty", path = path.display())]
    EmptyToken { path: PathBuf },
    #[error("the identity service did not answer within {CALL_TIMEOUT:?}")]
    Silent,
    #[error("the identity service answered {code:?}: {message}", code = .0.code(), message = .0.message())]
    Answered(Status),
    #[error("the answer says no time, or one that is past, until which the certificate is valid")]
    ValidUntil,
    #[error(transparent)]
    Unusable(#[from] CredentialsError),
}

/// A certificate as it was issued.
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    /// The leaf first.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) valid_until: SystemTime,
}

/// Ask once.
pub(crate) async fn certify<C: Channel>(
    channel: C,
    name: &Id,
    token_file: &Path,
    key: &Key,
) -> Result<Certificate, CertifyError> {
    let request = CertifyRequest {
        identity: name.as_str().to_owned(),
        token: token(token_file).await?,
        certificate_signing_request: key.signing_request().to_vec(),
    };
    let mut client = IdentityClient::new(channel);
    let answer = time::timeout(CALL_TIMEOUT, client.certify(request)).await;
    let answer = answer
        .map_err(|_| CertifyError::Silent)?
        .map_err(CertifyError::Answered)?;
    certificate(answer.into_inner(), SystemTime::now())
}

/// The file is read for every call, since it is replaced long before the token expires.
async fn token(path: &Path) -> Result<Vec<u8>, CertifyError> {
    let token = tokio::fs::read(path)
        .await
        .map_err(|source| CertifyError::Token {
            path: path.to_owned(),
            source,
        })?;
    let token = token.trim_ascii();
    if token.is_empty() {
        return Err(CertifyError::EmptyToken {
            path: path.to_owned(),
        });
    }
    Ok(token.to_vec())
}

fn certificate(answer: CertifyResponse, now: SystemTime) -> Result<Certificate, CertifyError> {
    let valid_until = answer
        .valid_until
        .and_then(|time| SystemTime::try_from(time).ok())
        .filter(|time| *time > now)
        .ok_or(CertifyError::ValidUntil)?;
    let leaf = std::iter::once(answer.leaf_certificate);
    let chain = leaf
        .chain(answer.intermediate_certificates)
        .map(CertificateDer::from)
        .collect();
    Ok(Certificate { chain, valid_until })
}

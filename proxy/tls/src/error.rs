use std::{io, sync::Arc, time::Duration};

use rustls::{AlertDescription, CertificateError};
use tulle_core::{Id, Reason};

/// Why there is no mesh TLS on a connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The server proved a name, and it is not the expected one.
    #[error("the server is not {expected}")]
    IdentityMismatch {
        /// Who was meant.
        expected: Id,
    },
    /// The peer's certificate does not lead to our roots, is not valid now, or is of a kind
    /// that the mesh does not use.
    #[error("the peer's certificate is not trusted: {0}")]
    Untrusted(CertificateError),
    /// The peer refused us, our certificate most likely.
    #[error("the peer refused the TLS handshake: {0:?}")]
    Refused(AlertDescription),
    /// The peer does not speak the mesh's TLS.
    #[error("TLS handshake failed: {0}")]
    Protocol(rustls::Error),
    /// The handshake did not end in time.
    #[error("TLS handshake not finished within {0:?}")]
    Timeout(Duration),
    /// The connection broke.
    #[error("connection lost in the TLS handshake: {0}")]
    Io(io::Error),
    /// The server is the expected one and does not take a transport header.
    #[error("the server does not take a transport header")]
    NoTransportHeader,
    /// Discovery named a server that no `ClientHello` can ask for.
    #[error("{0} is not a server name")]
    BadServerName(Arc<str>),
    /// There is no certificate yet, and this needs one.
    #[error("no certificate to present")]
    NoCertificate,
}

impl TlsError {
    /// The stable code.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::IdentityMismatch { .. } => Reason::IdentityMismatch,
            _ => Reason::TlsFailed,
        }
    }

    /// The metric label, as the stock proxy has it for the kinds that it tells apart.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::IdentityMismatch { .. } => "identity_mismatch",
            Self::Untrusted(_) => "untrusted",
            Self::Refused(_) => "refused",
            Self::Protocol(_) => "protocol",
            Self::Timeout(_) => "timeout",
            Self::Io(_) => "io",
            Self::NoTransportHeader => "no_transport_header",
            Self::BadServerName(_) => "bad_server_name",
            Self::NoCertificate => "no_certificate",
        }
    }
}

/// The verifier's word for a certificate that is fine and proves another name: inside of
/// rustls only its own errors travel.
#[derive(Debug, thiserror::Error)]
#[error("the certificate does not name {0}")]
pub(crate) struct WrongName(pub Id);

impl WrongName {
    pub(crate) fn into_rustls(self) -> rustls::Error {
        CertificateError::Other(rustls::OtherError(Arc::new(self))).into()
    }
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(CertificateError::Other(other)) => {
                match other.0.downcast_ref::<WrongName>() {
                    Some(WrongName(expected)) => Self::IdentityMismatch {
                        expected: expected.clone(),
                    },
                    None => Self::Untrusted(CertificateError::Other(other)),
                }
            }
            rustls::Error::InvalidCertificate(error) => Self::Untrusted(error),
            rustls::Error::AlertReceived(alert) => Self::Refused(alert),
            error => Self::Protocol(error),
        }
    }
}

impl From<io::Error> for TlsError {
    fn from(error: io::Error) -> Self {
        match error.downcast::<rustls::Error>() {
            Ok(error) => error.into(),
            Err(error) => Self::Io(error),
        }
    }
}

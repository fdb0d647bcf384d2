use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tulle_core::Id;

/// Why there is no key; the proxy cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// A file is there and cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// `key.p8` is something else.
    #[error("{path} is not a P-256 key in PKCS#8 DER: {source}", path = path.display())]
    NotAKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rcgen::Error,
    },
    /// No signing request can be made for the name.
    #[error("cannot ask for a certificate for {name}: {source}")]
    Request {
        /// The name.
        name: Id,
        /// What is wrong with it.
        source: rcgen::Error,
    },
}

/// The key, and the request for a certificate of it.
pub(crate) struct Key {
    private: PrivateKeyDer<'static>,
    signing_request: Vec<u8>,
}

impl Key {
    /// What lies in the directory, or else a new one in memory.
    pub(crate) fn load_or_make(dir: Option<&Path>, name: &Id) -> Result<Self, KeyError> {
        let file = |name: &str| dir.map(|dir| dir.join(name));
        let Some((path, der)) = read(file("key.p8"))? else {
            let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|source| {
                KeyError::Request {
                    name: name.clone(),
                    source,
                }
            })?;
            return Self::requested(pair.serialize_der(), &pair, name);
        };
        let pkcs8 = PrivatePkcs8KeyDer::from(der.as_slice());
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, &PKCS_ECDSA_P256_SHA256)
            .map_err(|source| KeyError::NotAKey { path, source })?;
        match read(file("csr.der"))? {
            Some((_, signing_request)) => Ok(Self {
                private: private(der),
                signing_request,
            }),
            None => Self::requested(der, &pair, name),
        }
    }

    fn requested(der: Vec<u8>, pair: &KeyPair, name: &Id) -> Result<Self, KeyError> {
        let refused = |source| KeyError::Request {
            name: name.clone(),
            source,
        };
        let mut params = CertificateParams::new([name.as_str().to_owned()]).map_err(refused)?;
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, name.as_str());
        let request = params.serialize_request(pair).map_err(refused)?;
        Ok(Self {
            private: private(der),
            signing_request: request.der().to_vec(),
        })
    }

    pub(crate) fn private(&self) -> PrivateKeyDer<'static> {
        self.private.clone_key()
    }

    /// DER.
    pub(crate) fn signing_request(&self) -> &[u8] {
        &self.signing_request
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

fn private(der: Vec<u8>) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(der.into())
}

/// A file's content; none where there is no file.
fn read(path: Option<PathBuf>) -> Result<Option<(PathBuf, Vec<u8>)>, KeyError> {
    let Some(path) = path else { return Ok(None) };
    match fs::read(&path) {
        Ok(content) => Ok(Some((path, content))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(KeyError::Read { path, source }),
    }
}

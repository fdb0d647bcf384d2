use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use parking_lot::Mutex;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::{ResolvesClientCert, Resumption},
    crypto::{CryptoProvider, GetRandomFailed, KeyProvider, SecureRandom, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::{CertifiedKey, SigningKey, SingleCertAndKey},
    time_provider::{DefaultTimeProvider, TimeProvider},
    version::TLS13,
};
use tulle_core::{Id, TlsTarget};
use tulle_transport::header;

use crate::{
    sessions::Sessions,
    verify::{ALGORITHMS, ServerVerifier, proves},
};

/// Endpoints whose sessions are remembered; past it all are forgotten, which costs each one
/// full handshake.
const MAX_ENDPOINTS: usize = 4096;

/// Why these are no credentials.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// The trust bundle is not PEM, or holds something that is no root.
    #[error("the trust bundle is not usable: {0}")]
    Roots(String),
    /// The chain holds no certificate.
    #[error("the certificate chain is empty")]
    EmptyChain,
    /// The private key is not a P-256 key, or belongs to another certificate.
    #[error("the private key is not usable: {0}")]
    Key(String),
    /// The certificate is fine and names somebody else.
    #[error("the certificate does not name {0}")]
    WrongName(Id),
    /// No peer with these roots would accept the certificate.
    #[error("the certificate does not verify against the trust bundle: {0}")]
    Untrusted(rustls::Error),
    /// The cryptographic library failed.
    #[error("cannot set up TLS: {0}")]
    Library(rustls::Error),
}

/// One certificate, the roots that it was issued under, and everything that TLS made of them.
pub struct Credentials {
    name: Option<Id>,
    pub(crate) server: Option<Server>,
    roots: Arc<RootCertStore>,
    presented: Arc<dyn ResolvesClientCert>,
    provider: Arc<CryptoProvider>,
    pub(crate) clock: Arc<dyn TimeProvider>,
    endpoints: Mutex<HashMap<(SocketAddr, TlsTarget), Arc<Endpoint>>>,
}

/// The accepting half.
pub(crate) struct Server {
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) verifier: Arc<dyn ClientCertVerifier>,
}

/// The connecting half, for one endpoint.
pub(crate) struct Endpoint {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) verifier: Arc<ServerVerifier>,
    pub(crate) sessions: Arc<Sessions>,
}

impl Credentials {
    /// Credentials to accept and connect with. They are checked as a peer would check them,
    /// so what is made here works against every peer with the same roots.
    ///
    /// # Errors
    ///
    /// See [`CredentialsError`].
    pub fn new(
        name: &Id,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        roots_pem: &str,
    ) -> Result<Self, CredentialsError> {
        Self::with_clock(name, chain, key, roots_pem, Arc::new(DefaultTimeProvider))
    }

    /// Credentials to connect with before there is a certificate: the server is verified, and
    /// sees nobody.
    ///
    /// # Errors
    ///
    /// [`CredentialsError::Roots`].
    pub fn anonymous(roots_pem: &str) -> Result<Self, CredentialsError> {
        Ok(Self {
            name: None,
            server: None,
            roots: Arc::new(roots(roots_pem)?),
            presented: Arc::new(Nobody),
            provider: Arc::new(provider()),
            clock: Arc::new(DefaultTimeProvider),
            endpoints: Mutex::default(),
        })
    }

    /// Whom these credentials prove; nobody where they are anonymous.
    #[must_use]
    pub const fn name(&self) -> Option<&Id> {
        self.name.as_ref()
    }

    pub(crate) fn with_clock(
        name: &Id,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        roots_pem: &str,
        clock: Arc<dyn TimeProvider>,
    ) -> Result<Self, CredentialsError> {
        let provider = Arc::new(provider());
        let roots = Arc::new(roots(roots_pem)?);
        let (leaf, intermediates) = chain.split_first().ok_or(CredentialsError::EmptyChain)?;
        let now = clock.current_time().unwrap_or_else(UnixTime::now);
        if !proves(leaf, name) {
            return Err(CredentialsError::WrongName(name.clone()));
        }
        ServerVerifier::new(Arc::clone(&roots), name.clone())
            .verify(leaf, intermediates, now)
            .map_err(CredentialsError::Untrusted)?;

        let key = provider
            .key_provider
            .load_private_key(key)
            .map_err(|error| CredentialsError::Key(error.to_string()))?;
        if key.choose_scheme(&ALGORITHMS.supported_schemes()).is_none() {
            return Err(CredentialsError::Key("not a P-256 key".to_owned()));
        }
        let certified = CertifiedKey::new(chain, key);
        certified
            .keys_match()
            .map_err(|error| CredentialsError::Key(error.to_string()))?;
        let presented = Arc::new(SingleCertAndKey::from(certified));

        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
                .allow_unauthenticated()
                .clear_root_hint_subjects()
                .build()
                .map_err(|error| CredentialsError::Roots(error.to_string()))?;
        let mut config =
            ServerConfig::builder_with_details(Arc::clone(&provider), Arc::clone(&clock))
                .with_protocol_versions(&[&TLS13])
                .map_err(CredentialsError::Library)?
                .with_client_cert_verifier(Arc::clone(&verifier))
                .with_cert_resolver(Arc::clone(&presented) as _);
        config.alpn_protocols = vec![header::ALPN.to_vec()];
        // Tickets that carry the session, readable by this process alone and only as long as
        // these credentials live: nothing is stored per client.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(CredentialsError::Library)?;
        config.send_tls13_tickets = 1;

        Ok(Self {
            name: Some(name.clone()),
            server: Some(Server {
                config: Arc::new(config),
                verifier,
            }),
            roots,
            presented,
            provider,
            clock,
            endpoints: Mutex::default(),
        })
    }

    /// What connects to this endpoint, made on first use.
    pub(crate) fn endpoint(
        &self,
        addr: SocketAddr,
        target: &TlsTarget,
    ) -> Result<Arc<Endpoint>, rustls::Error> {
        let key = (addr, target.clone());
        let mut endpoints = self.endpoints.lock();
        if let Some(endpoint) = endpoints.get(&key) {
            return Ok(Arc::clone(endpoint));
        }
        if endpoints.len() >= MAX_ENDPOINTS {
            endpoints.clear();
        }
        let endpoint = Arc::new(self.make_endpoint(target)?);
        endpoints.insert(key, Arc::clone(&endpoint));
        Ok(endpoint)
    }

    fn make_endpoint(&self, target: &TlsTarget) -> Result<Endpoint, rustls::Error> {
        let verifier = Arc::new(ServerVerifier::new(
            Arc::clone(&self.roots),
            target.id.clone(),
        ));
        let sessions = Arc::new(Sessions::default());
        let mut config =
            ClientConfig::builder_with_details(Arc::clone(&self.provider), Arc::clone(&self.clock))
                .with_protocol_versions(&[&TLS13])?
                .dangerous()
                .with_custom_certificate_verifier(Arc::clone(&verifier) as _)
                .with_client_cert_resolver(Arc::clone(&self.presented));
        config.resumption = Resumption::store(Arc::clone(&sessions) as _);
        Ok(Endpoint {
            config: Arc::new(config),
            verifier,
            sessions,
        })
    }
}

impl std::fmt::Debug for Credentials {
    /// Only the name: nothing here may reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Presents no certificate.
#[derive(Debug)]
struct Nobody;

impl ResolvesClientCert for Nobody {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _schemes: &[rustls::SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// The stock proxy's profile: AES-128 first, since it is the fastest and as good; hybrid
/// post-quantum key exchange first. Nothing is taken from the library's own provider: that
/// would link every algorithm there is into each proxy's memory.
fn provider() -> CryptoProvider {
    use aws_lc_rs::{cipher_suite, kx_group};

    CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![
            kx_group::X25519MLKEM768,
            kx_group::X25519,
            kx_group::SECP256R1,
            kx_group::SECP384R1,
        ],
        signature_verification_algorithms: ALGORITHMS,
        secure_random: &Library,
        key_provider: &Library,
    }
}

/// What is negotiated, and by what, under the labels of the stock proxy's `rustls_info`.
#[must_use]
pub fn facts() -> [(&'static str, String); 5] {
    let provider = provider();
    let list = |names: Vec<String>| names.into_iter().map(|name| name + ",").collect();
    let suites = provider.cipher_suites.iter();
    let groups = provider.kx_groups.iter();
    [
        (
            "tls_suites",
            list(suites.map(|suite| format!("{:?}", suite.suite())).collect()),
        ),
        (
            "tls_kx_groups",
            list(groups.map(|group| format!("{:?}", group.name())).collect()),
        ),
        ("tls_rand", "AwsLcRs".to_owned()),
        ("tls_key_provider", "AwsLcRs".to_owned()),
        ("tls_fips", provider.fips().to_string()),
    ]
}

/// What the provider asks of the library besides algorithms.
#[derive(Debug)]
struct Library;

impl SecureRandom for Library {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        ::aws_lc_rs::rand::fill(bytes).map_err(|_| GetRandomFailed)
    }
}

impl KeyProvider for Library {
    fn load_private_key(
        &self,
        key: PrivateKeyDer<'static>,
    ) -> Result<Arc<dyn SigningKey>, rustls::Error> {
        aws_lc_rs::sign::any_ecdsa_type(&key)
    }
}

fn roots(pem: &str) -> Result<RootCertStore, CredentialsError> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let root = root.map_err(|error| CredentialsError::Roots(error.to_string()))?;
        roots
            .add(root)
            .map_err(|error| CredentialsError::Roots(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(CredentialsError::Roots("no certificate in it".to_owned()));
    }
    Ok(roots)
}

//! Certificates for tests: an authority, and what it issues.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, SanType,
    SignatureAlgorithm,
};
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime},
    time_provider::TimeProvider,
};
use tulle_core::{Id, TlsTarget};

use crate::{Credentials, CredentialsError};

pub(crate) const WEB: &str = "web.shop.serviceaccount.identity.linkerd.cluster.local";
pub(crate) const CLIENT: &str = "client.shop.serviceaccount.identity.linkerd.cluster.local";

pub(crate) const HOUR: i64 = 3600;

static AUTHORITIES: AtomicI64 = AtomicI64::new(0);

/// A root, of a name of its own.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

/// What a certificate says.
pub(crate) struct Leaf {
    pub(crate) names: Vec<SanType>,
    pub(crate) common_name: Option<&'static str>,
    /// Seconds from now.
    pub(crate) valid: (i64, i64),
    pub(crate) algorithm: &'static SignatureAlgorithm,
}

impl Leaf {
    pub(crate) fn dns(name: &str) -> Self {
        Self::names(vec![SanType::DnsName(name.try_into().unwrap())])
    }

    pub(crate) fn names(names: Vec<SanType>) -> Self {
        Self {
            names,
            common_name: None,
            valid: (-HOUR, HOUR),
            algorithm: &rcgen::PKCS_ECDSA_P256_SHA256,
        }
    }
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let number = AUTHORITIES.fetch_add(1, Ordering::Relaxed);
        params
            .distinguished_name
            .push(DnType::CommonName, format!("root {number}"));
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    pub(crate) fn issue(
        &self,
        leaf: Leaf,
    ) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate_for(leaf.algorithm).unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = leaf.names;
        params.distinguished_name = DistinguishedName::new();
        if let Some(name) = leaf.common_name {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.not_before = at(leaf.valid.0).into();
        params.not_after = at(leaf.valid.1).into();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )
    }

    pub(crate) fn credentials(&self, name: &str) -> Arc<Credentials> {
        Arc::new(self.try_credentials(name, Leaf::dns(name)).unwrap())
    }

    pub(crate) fn try_credentials(
        &self,
        name: &str,
        leaf: Leaf,
    ) -> Result<Credentials, CredentialsError> {
        let (chain, key) = self.issue(leaf);
        Credentials::new(&Id::new(name), chain, key, &self.pem)
    }

    pub(crate) fn credentials_at(&self, name: &str, leaf: Leaf, clock: &Clock) -> Arc<Credentials> {
        let (chain, key) = self.issue(leaf);
        let clock = Arc::new(clock.clone());
        Arc::new(Credentials::with_clock(&Id::new(name), chain, key, &self.pem, clock).unwrap())
    }
}

pub(crate) fn target(name: &str) -> TlsTarget {
    TlsTarget {
        server_name: name.into(),
        id: Id::new(name),
    }
}

/// A clock that is set by hand, in seconds from now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock(Arc<AtomicI64>);

impl Clock {
    pub(crate) fn set(&self, seconds: i64) {
        self.0.store(seconds, Ordering::Relaxed);
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let time = at(self.0.load(Ordering::Relaxed));
        Some(UnixTime::since_unix_epoch(
            time.duration_since(SystemTime::UNIX_EPOCH).unwrap(),
        ))
    }
}

fn at(seconds: i64) -> SystemTime {
    let now = SystemTime::now();
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 {
        now - distance
    } else {
        now + distance
    }
}

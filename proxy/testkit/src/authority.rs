use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer};
use tulle_api::identity::{CertifyRequest, CertifyResponse};

/// A trust anchor and the issuer that it signed.
#[derive(Debug)]
pub struct Authority {
    root: CertifiedIssuer<'static, KeyPair>,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// A new one, with keys of its own.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "the parameters are constants")]
    pub fn new(name: &str) -> Self {
        let root = CertifiedIssuer::self_signed(authority(name), key()).expect("constant");
        let issuer = authority(&format!("{name} issuer"));
        let issuer = CertifiedIssuer::signed_by(issuer, key(), &root).expect("constant");
        Self { root, issuer }
    }

    /// The anchor, as the environment carries it.
    #[must_use]
    pub fn roots_pem(&self) -> String {
        self.root.pem()
    }

    /// The certificate that signs leaves.
    #[must_use]
    pub fn issuer_der(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }

    /// What the identity service answers.
    ///
    /// # Panics
    ///
    /// When the request holds no signing request that can be read.
    #[must_use]
    pub fn certify(&self, request: &CertifyRequest, lifetime: Duration) -> CertifyResponse {
        let der = CertificateSigningRequestDer::from(request.certificate_signing_request.clone());
        let mut wanted = CertificateSigningRequestParams::from_der(&der).expect("a CSR");
        let now = SystemTime::now();
        leaf_profile(&mut wanted.params, now, lifetime);
        let leaf = wanted.signed_by(&self.issuer).expect("a P-256 key");
        CertifyResponse {
            leaf_certificate: leaf.der().to_vec(),
            intermediate_certificates: vec![self.issuer.der().to_vec()],
            valid_until: Some((now + lifetime).into()),
        }
    }

    /// A certificate chain and key for a name, without the service between.
    #[must_use]
    #[expect(
        clippy::missing_panics_doc,
        reason = "only a name that is no DNS name fails"
    )]
    pub fn issue(
        &self,
        name: &str,
        lifetime: Duration,
    ) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = key();
        let mut params = CertificateParams::new([name.to_owned()]).expect("a DNS name");
        leaf_profile(&mut params, SystemTime::now(), lifetime);
        let leaf = params.signed_by(&key, &self.issuer).expect("constant");
        (
            vec![leaf.der().clone(), self.issuer_der()],
            PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )
    }
}

fn key() -> KeyPair {
    KeyPair::generate().expect("P-256 is always there")
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// As the stock identity service issues them, 10 s of skew included.
fn leaf_profile(params: &mut CertificateParams, now: SystemTime, lifetime: Duration) {
    params.not_before = (now - Duration::from_secs(10)).into();
    params.not_after = (now + lifetime).into();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
}

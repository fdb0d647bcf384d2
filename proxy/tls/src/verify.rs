//! What a certificate must be to prove a name in the mesh: a chain of P-256 keys and SHA-256
//! signatures to one of our roots, valid now, with the exact name among its DNS or URI
//! subject alternative names. The common name and wildcards prove nothing.
//!
//! The same check runs in a full handshake and over the remembered chain of a resumed one.

use std::sync::Arc;

use rustls::{
    DigitallySignedStruct, Error, PeerIncompatible, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use tulle_core::Id;

use crate::error::WrongName;

/// The only signatures in the mesh, on certificates as in handshakes.
pub(crate) static ALGORITHMS: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[webpki::aws_lc_rs::ECDSA_P256_SHA256],
    mapping: &[(
        SignatureScheme::ECDSA_NISTP256_SHA256,
        &[webpki::aws_lc_rs::ECDSA_P256_SHA256],
    )],
};

/// Verifies servers, each against the one name that it must prove.
#[derive(Debug)]
pub(crate) struct ServerVerifier {
    roots: Arc<RootCertStore>,
    expected: Id,
}

impl ServerVerifier {
    pub(crate) const fn new(roots: Arc<RootCertStore>, expected: Id) -> Self {
        Self { roots, expected }
    }

    pub(crate) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(leaf)?,
            &self.roots,
            intermediates,
            now,
            ALGORITHMS.all,
        )?;
        if proves(leaf, &self.expected) {
            return Ok(());
        }
        Err(WrongName(self.expected.clone()).into_rustls())
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(leaf, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signature, &ALGORITHMS)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ALGORITHMS.supported_schemes()
    }
}

/// Whether the certificate names exactly this.
pub(crate) fn proves(leaf: &CertificateDer<'_>, id: &Id) -> bool {
    let Ok(leaf) = webpki::EndEntityCert::try_from(leaf) else {
        return false;
    };
    if id.is_uri() {
        leaf.valid_uri_names().any(|name| name == id.as_str())
    } else {
        exact_dns_names(&leaf).any(|name| name.eq_ignore_ascii_case(id.as_str()))
    }
}

/// The first name that the certificate proves; none where it has only others than DNS and
/// URI.
pub(crate) fn first_name(leaf: &CertificateDer<'_>) -> Option<Id> {
    let leaf = webpki::EndEntityCert::try_from(leaf).ok()?;
    let dns = exact_dns_names(&leaf).next();
    dns.or_else(|| leaf.valid_uri_names().next()).map(Id::new)
}

fn exact_dns_names<'a>(leaf: &'a webpki::EndEntityCert<'a>) -> impl Iterator<Item = &'a str> {
    leaf.valid_dns_names().filter(|name| !name.contains('*'))
}

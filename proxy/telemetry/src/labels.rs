use std::net::SocketAddr;

use tulle_core::{ClientTls, Endpoint, NoTls};
use tulle_metrics::Labels;

/// `target_addr`, `target_ip`, `target_port`.
#[must_use]
pub fn target_labels(labels: &Labels, target: SocketAddr) -> Labels {
    labels
        .with("target_addr", &target.to_string())
        .with("target_ip", &target.ip().to_string())
        .with("target_port", &target.port().to_string())
}

/// How the client of an accepted connection is authenticated.
#[must_use]
pub fn client_tls_labels(labels: &Labels, tls: &ClientTls) -> Labels {
    match tls {
        ClientTls::None(why) => no_tls(labels, *why),
        ClientTls::Established { client_id } => labels
            .with("tls", "true")
            .with("client_id", client_id.as_ref().map_or("", |id| id.as_str())),
        ClientTls::Opaque { sni } => labels.with("tls", "opaque").with("sni", sni),
    }
}

/// How an endpoint is authenticated.
#[must_use]
pub fn endpoint_tls_labels(labels: &Labels, endpoint: &Endpoint) -> Labels {
    match &endpoint.tls {
        Some(target) => labels
            .with("tls", "true")
            .with("server_id", target.id.as_str()),
        None => no_tls(labels, NoTls::NotProvidedByServiceDiscovery),
    }
}

fn no_tls(labels: &Labels, why: NoTls) -> Labels {
    labels
        .with("tls", "no_identity")
        .with("no_tls_reason", why.label())
}

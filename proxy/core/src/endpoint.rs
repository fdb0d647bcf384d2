use std::{net::SocketAddr, sync::Arc};

use crate::Id;

/// Metric labels, sorted by key.
pub type Labels = Arc<[(Arc<str>, Arc<str>)]>;

/// One address that can answer, as discovery described it. Two that compare equal are the
/// same endpoint: connections and load estimates carry over from one update to the next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Where the application listens.
    pub addr: SocketAddr,
    /// Absent: plaintext.
    pub tls: Option<TlsTarget>,
    /// What its proxy speaks.
    pub hint: Hint,
    /// Connect to this port of the endpoint instead and begin with a transport header. Only
    /// set where `tls` is.
    pub transport_port: Option<u16>,
    /// Replaces the request's authority and becomes the name in the transport header.
    pub authority_override: Option<Arc<str>>,
    /// Set and address labels merged, without the `dst_` prefix.
    pub labels: Labels,
}

impl Endpoint {
    /// An endpoint of which nothing but its address is known.
    #[must_use]
    pub fn plain(addr: SocketAddr) -> Self {
        Self {
            addr,
            tls: None,
            hint: Hint::Unknown,
            transport_port: None,
            authority_override: None,
            labels: Arc::new([]),
        }
    }
}

/// Whom to expect at the other end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TlsTarget {
    /// The SNI to send.
    pub server_name: Arc<str>,
    /// What the certificate must prove.
    pub id: Id,
}

/// What the endpoint's proxy speaks on this port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hint {
    /// Nothing is known: send what the client sent.
    Unknown,
    /// HTTP/2, so HTTP/1 may be carried over it.
    H2,
    /// It takes the port for opaque: do not upgrade.
    Opaque,
}

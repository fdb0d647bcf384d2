use crate::Id;

/// What is known of the client of an accepted connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ClientTls {
    /// Plaintext.
    None(NoTls),
    /// Mesh TLS, terminated here.
    Established {
        /// Absent where the client sent no certificate.
        client_id: Option<Id>,
    },
    /// TLS that is not the mesh's and passes through untouched.
    Opaque {
        /// What the client asked for; empty where it named nothing.
        sni: String,
    },
}

impl ClientTls {
    /// The identity that the client has proved.
    #[must_use]
    pub const fn client_id(&self) -> Option<&Id> {
        match self {
            Self::Established { client_id } => client_id.as_ref(),
            _ => None,
        }
    }
}

/// Why a connection carries no mesh TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoTls {
    /// It never left this host.
    Loopback,
    /// The port's policy forbids looking at the bytes.
    PortSkipped,
    /// The client did not begin with a `ClientHello`.
    NotFromRemote,
    /// Discovery named no identity for the endpoint.
    NotProvidedByServiceDiscovery,
}

impl NoTls {
    /// The metric label `no_tls_reason`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::PortSkipped => "port_skipped",
            Self::NotFromRemote => "no_tls_from_remote",
            Self::NotProvidedByServiceDiscovery => "not_provided_by_service_discovery",
        }
    }
}

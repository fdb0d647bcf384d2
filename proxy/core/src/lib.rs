//! The words that every other crate uses: who is speaking, in which direction, and why
//! something was refused. No I/O and no policy here.

mod access_format;
mod default_policy;
mod endpoint;
mod id;
mod reason;
mod tls_state;

pub use access_format::AccessFormat;
pub use default_policy::DefaultPolicy;
pub use endpoint::{Endpoint, Hint, Labels, TlsTarget};
pub use id::Id;
pub use reason::{Phase, Reason, Refusal};
pub use tls_state::{ClientTls, NoTls};

/// Which half of the proxy something belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the network to the application.
    Inbound,
    /// From the application to the network.
    Outbound,
}

impl Direction {
    /// The metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

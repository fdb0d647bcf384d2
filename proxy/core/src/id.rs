use std::{fmt, sync::Arc};

/// A name that a peer proves with its certificate: DNS-like
/// (`web.shop.serviceaccount.identity.linkerd.cluster.local`) or a SPIFFE URI.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(Arc<str>);

impl Id {
    /// Take a name over; DNS names are compared in lower case, so they are stored so.
    #[must_use]
    pub fn new(name: &str) -> Self {
        if name.contains("://") {
            Self(name.into())
        } else {
            Self(name.to_ascii_lowercase().into())
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is a URI and not a DNS name.
    #[must_use]
    pub fn is_uri(&self) -> bool {
        self.0.contains("://")
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Id({})", self.0)
    }
}

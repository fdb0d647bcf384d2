/// Whom a port lets in where the control plane has no policy for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DefaultPolicy {
    /// Nobody.
    Deny,
    /// Mesh identities from any network.
    AllAuthenticated,
    /// Everybody.
    #[default]
    AllUnauthenticated,
    /// Mesh identities from the cluster's networks.
    ClusterAuthenticated,
    /// Everybody in the cluster's networks.
    ClusterUnauthenticated,
    /// Everybody, and whom a stricter policy would refuse is logged.
    Audit,
}

impl DefaultPolicy {
    /// The name, as in annotations, environment and metric labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::AllAuthenticated => "all-authenticated",
            Self::AllUnauthenticated => "all-unauthenticated",
            Self::ClusterAuthenticated => "cluster-authenticated",
            Self::ClusterUnauthenticated => "cluster-unauthenticated",
            Self::Audit => "audit",
        }
    }

    /// The policy of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [
            Self::Deny,
            Self::AllAuthenticated,
            Self::AllUnauthenticated,
            Self::ClusterAuthenticated,
            Self::ClusterUnauthenticated,
            Self::Audit,
        ]
        .into_iter()
        .find(|policy| policy.name() == name)
    }

    /// Whether the cluster's networks must be known for it to mean anything.
    #[must_use]
    pub const fn needs_cluster_networks(self) -> bool {
        matches!(
            self,
            Self::ClusterAuthenticated | Self::ClusterUnauthenticated | Self::Audit
        )
    }
}

use std::{sync::Arc, time::Duration};

use ipnet::IpNet;
use tulle_config::{Backoff, Config, Ports, StreamLimits, Suffix};
use tulle_policy::inbound::ServerPolicy;

use crate::destination::Subject;

/// What of the configuration is needed to ask.
pub(crate) struct Settings {
    pub(crate) workload: String,
    pub(crate) context: String,
    profile_networks: Vec<IpNet>,
    profile_suffixes: Vec<Suffix>,
    default_policy: Arc<ServerPolicy>,
    opaque_default_policy: Arc<ServerPolicy>,
    opaque_ports: Ports,
    pub(crate) policy_limits: StreamLimits,
    pub(crate) destination_limits: StreamLimits,
    pub(crate) inbound_backoff: Backoff,
    pub(crate) outbound_backoff: Backoff,
    /// How soon a question that was useless may be put again.
    pub(crate) idle: Duration,
}

impl Settings {
    pub(crate) fn new(config: &Config) -> Self {
        let default = |opaque| {
            let inbound = &config.inbound;
            let networks = &inbound.cluster_networks;
            Arc::new(ServerPolicy::default_for(
                inbound.default_policy,
                networks,
                opaque,
            ))
        };
        let limits = |loopback| {
            if loopback {
                StreamLimits::default()
            } else {
                config.control_streams
            }
        };
        Self {
            workload: config.policy_workload.clone(),
            context: config.destination_context.clone(),
            profile_networks: config.profile_networks.clone(),
            profile_suffixes: config.profile_suffixes.clone(),
            default_policy: default(false),
            opaque_default_policy: default(true),
            opaque_ports: config.inbound.opaque_ports.clone(),
            policy_limits: limits(config.policy.loopback),
            destination_limits: limits(config.destination.loopback),
            inbound_backoff: config.inbound.connect_backoff,
            outbound_backoff: config.outbound.connect_backoff,
            idle: config.outbound.discovery_idle,
        }
    }

    /// Whether the destination service may know something about it.
    pub(crate) fn has_profile(&self, subject: &Subject) -> bool {
        match subject {
            Subject::Addr(addr) => {
                let mut networks = self.profile_networks.iter();
                networks.any(|network| network.contains(&addr.ip()))
            }
            Subject::Name(name) => {
                let host = name.rsplit_once(':').map_or(&**name, |(host, _)| host);
                self.profile_suffixes
                    .iter()
                    .any(|suffix| suffix.contains(host))
            }
        }
    }

    /// The policy of a port of which the control plane says that it knows nothing.
    pub(crate) fn default_policy(&self, port: u16) -> Arc<ServerPolicy> {
        let opaque = self.opaque_ports.contains(port);
        Arc::clone(if opaque {
            &self.opaque_default_policy
        } else {
            &self.default_policy
        })
    }
}

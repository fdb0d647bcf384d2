use std::sync::Arc;

use tokio::runtime::Handle;
use tulle_config::{Config, HostPort};
use tulle_discovery::{ControlChannel, Dial, DialError, Dialed, Discovery};
use tulle_metrics::Registry;

/// What a shard needs that never hears of a control plane.
#[derive(Debug)]
pub struct Alone {
    /// The defaults.
    pub config: Arc<Config>,
    /// Empty.
    pub registry: Registry,
    /// Knows nothing and never will.
    pub discovery: Discovery,
}

impl Alone {
    /// Must be called in a runtime.
    ///
    /// # Panics
    ///
    /// Where the configuration asks for more than it did when this was written.
    #[must_use]
    pub fn new() -> Self {
        let lookup = |name: &str| match name.trim_start_matches("LINKERD2_PROXY_") {
            "DESTINATION_SVC_ADDR" | "POLICY_SVC_ADDR" | "IDENTITY_SVC_ADDR" => Some("[::1]:1"),
            "POLICY_WORKLOAD" | "IDENTITY_TOKEN_FILE" | "IDENTITY_LOCAL_NAME" => Some("x"),
            "IDENTITY_TRUST_ANCHORS" => Some("-----BEGIN CERTIFICATE-----"),
            _ => None,
        };
        let config = Config::from_env(|name| lookup(name).map(str::to_owned));
        let config = config.expect("all that is required is there");
        let addr = HostPort {
            host: "nowhere".into(),
            port: 1,
        };
        let (registry, runtime) = (Registry::new(), Handle::current());
        let channel = ControlChannel::new(&addr, Nowhere, config.outbound.client_h2, &runtime);
        Self {
            discovery: Discovery::over(&config, channel.clone(), channel, &registry, &runtime),
            config: Arc::new(config),
            registry,
        }
    }
}

impl Default for Alone {
    fn default() -> Self {
        Self::new()
    }
}

struct Nowhere;

impl Dial for Nowhere {
    async fn dial(&self) -> Result<Dialed, DialError> {
        std::future::pending().await
    }
}

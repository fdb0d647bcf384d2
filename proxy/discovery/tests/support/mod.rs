//! A proxy's discovery, connected in memory to a control plane that the test plays.

use std::collections::HashMap;

use tokio::runtime::Handle;
use tulle_config::{ClientH2, Config, HostPort};
use tulle_discovery::{ControlChannel, Dial, DialError, Dialed, Discovery};
use tulle_metrics::Registry;
use tulle_testkit::ControlPlane;

struct InMemory(ControlPlane);

impl Dial for InMemory {
    async fn dial(&self) -> Result<Dialed, DialError> {
        Ok(Dialed {
            io: Box::new(self.0.connect()?),
            usable: None,
        })
    }
}

fn config(extra: &[(&str, &str)]) -> Config {
    let mut variables: HashMap<&str, &str> = [
        ("DESTINATION_SVC_ADDR", "control:1"),
        ("DESTINATION_SVC_NAME", "control"),
        ("POLICY_SVC_ADDR", "control:1"),
        ("POLICY_SVC_NAME", "control"),
        ("IDENTITY_SVC_ADDR", "127.0.0.1:8080"),
        ("POLICY_WORKLOAD", "workload"),
        ("DESTINATION_CONTEXT", "context"),
        ("DESTINATION_PROFILE_NETWORKS", "10.0.0.0/8"),
        ("IDENTITY_TOKEN_FILE", "/token"),
        ("IDENTITY_TRUST_ANCHORS", "-----BEGIN CERTIFICATE-----"),
        ("IDENTITY_LOCAL_NAME", "web.shop"),
    ]
    .into();
    variables.extend(extra.iter().copied());
    let lookup =
        |name: &str| Some((*variables.get(name.strip_prefix("LINKERD2_PROXY_")?)?).to_owned());
    Config::from_env(lookup).expect("a valid configuration")
}

/// Discovery over one channel; `extra` are variables of the configuration.
pub fn discovery(plane: &ControlPlane, extra: &[(&str, &str)]) -> Discovery {
    let addr = HostPort {
        host: "control".into(),
        port: 1,
    };
    let windows = ClientH2 {
        initial_stream_window: 65_535,
        initial_connection_window: 1 << 20,
    };
    let runtime = Handle::current();
    let channel = ControlChannel::new(&addr, InMemory(plane.clone()), windows, &runtime);
    Discovery::over(
        &config(extra),
        channel.clone(),
        channel,
        &Registry::new(),
        &runtime,
    )
}

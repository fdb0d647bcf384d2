use std::{net::SocketAddr, sync::Arc};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tulle_config::{Config, ControlAddr};
use tulle_metrics::{Gauge, Labels, Registry};
use tulle_policy::inbound::ServerPolicy;
use tulle_tls::{Credentials, CredentialsError, Store};
use tulle_transport::ConnectOptions;

use crate::{
    ControlChannel, Endpoints, NetDial, OutboundState, Publisher, View,
    cache::{Cache, Watch},
    destination::Subject,
    settings::Settings,
    view, watches,
};

/// Subjects of a kind that stay watched while nobody uses them.
const MAX_IDLE: usize = 4096;

/// What is known of one of the workload's ports.
#[derive(Clone, Debug)]
pub enum ServerState {
    /// Nothing yet.
    Pending,
    /// Whom it lets in.
    Known(Arc<ServerPolicy>),
}

/// What is known of the endpoints of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointsState {
    /// Nothing yet.
    Pending,
    /// All of them; possibly none.
    Known(Endpoints),
}

/// Answers what the control plane says about ports, destinations and names. Clones are the
/// same discovery; every thread may ask.
///
/// A subject is watched from the first time that it is asked for. It stays watched, so that
/// it is still known when the control plane is away later; of those that nobody holds a view
/// of, 4,096 of each kind stay. Asking is cheap (one lock, one look-up) but not free: it is
/// for connections, and a request reads the view that its connection holds.
#[derive(Clone)]
pub struct Discovery(Arc<Inner>);

struct Inner {
    runtime: Handle,
    settings: Arc<Settings>,
    policy: ControlChannel,
    destination: ControlChannel,
    servers: Subjects<u16, ServerState>,
    outbound: Subjects<SocketAddr, OutboundState>,
    named: Subjects<Arc<str>, OutboundState>,
    endpoints: Subjects<Arc<str>, EndpointsState>,
    /// Held so that they are watched for ever.
    named_ports: Vec<View<ServerState>>,
}

impl Discovery {
    /// Watch the ports that the configuration names, over connections of the control runtime,
    /// and be ready for questions.
    #[must_use]
    pub fn spawn(config: &Config, store: &Store, registry: &Registry, runtime: &Handle) -> Self {
        let channel = |addr: &ControlAddr| {
            let dial = NetDial::new(addr, connect_options(config), store);
            ControlChannel::new(&addr.addr, dial, config.outbound.client_h2, runtime)
        };
        let policy = channel(&config.policy);
        let same = config.policy == config.destination;
        let destination = if same {
            policy.clone()
        } else {
            channel(&config.destination)
        };
        Self::over(config, policy, destination, registry, runtime)
    }

    /// The same over channels that exist.
    #[must_use]
    pub fn over(
        config: &Config,
        policy: ControlChannel,
        destination: ControlChannel,
        registry: &Registry,
        runtime: &Handle,
    ) -> Self {
        let mut inner = Inner {
            runtime: runtime.clone(),
            settings: Arc::new(Settings::new(config)),
            policy,
            destination,
            servers: Subjects::new(registry, "port"),
            outbound: Subjects::new(registry, "destination"),
            named: Subjects::new(registry, "name"),
            endpoints: Subjects::new(registry, "endpoints"),
            named_ports: Vec::new(),
        };
        inner.named_ports = config
            .inbound
            .ports
            .iter()
            .map(|port| inner.server(*port))
            .collect();
        Self(Arc::new(inner))
    }

    /// The policy of one of the workload's ports.
    #[must_use]
    pub fn server(&self, port: u16) -> View<ServerState> {
        self.0.server(port)
    }

    /// Where traffic to an address goes.
    #[must_use]
    pub fn outbound(&self, addr: SocketAddr) -> View<OutboundState> {
        let inner = &*self.0;
        inner.destination_of(&inner.outbound, &addr, || Subject::Addr(addr))
    }

    /// Where requests for a name go, which is given as `name:port`.
    #[must_use]
    pub fn named(&self, authority: &Arc<str>) -> View<OutboundState> {
        let inner = &*self.0;
        let subject = || Subject::Name(Arc::clone(authority));
        inner.destination_of(&inner.named, authority, subject)
    }

    /// The endpoints of a name, as policies give it.
    #[must_use]
    pub fn endpoints(&self, path: &Arc<str>) -> View<EndpointsState> {
        let Inner {
            runtime,
            destination,
            settings,
            ..
        } = &*self.0;
        self.0
            .endpoints
            .get(path, EndpointsState::Pending, runtime, |publisher| {
                let settings = Arc::clone(settings);
                watches::endpoints(Arc::clone(path), destination.clone(), settings, publisher)
            })
    }

    /// Wait until the policy of every port that the configuration names is known: before that
    /// the proxy is not ready.
    pub async fn ready(&self) {
        for port in &self.0.named_ports {
            port.until(|state| matches!(state, ServerState::Known(_)).then_some(()))
                .await;
        }
    }
}

impl std::fmt::Debug for Discovery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Discovery")
            .field("ports", &self.0.servers.len())
            .field("destinations", &self.0.outbound.len())
            .field("names", &self.0.endpoints.len())
            .finish_non_exhaustive()
    }
}

impl Inner {
    fn destination_of<K>(
        &self,
        subjects: &Subjects<K, OutboundState>,
        key: &K,
        subject: impl FnOnce() -> Subject,
    ) -> View<OutboundState>
    where
        K: Clone + Eq + std::hash::Hash,
    {
        subjects.get(key, OutboundState::Pending, &self.runtime, |publisher| {
            watches::outbound(
                subject(),
                self.policy.clone(),
                self.destination.clone(),
                Arc::clone(&self.settings),
                publisher,
            )
        })
    }

    fn server(&self, port: u16) -> View<ServerState> {
        let Self {
            runtime,
            policy,
            settings,
            ..
        } = self;
        self.servers
            .get(&port, ServerState::Pending, runtime, |publisher| {
                watches::port(port, policy.clone(), Arc::clone(settings), publisher)
            })
    }
}

/// Everything of one kind that is watched.
struct Subjects<K, T> {
    watched: Gauge,
    cache: Mutex<Cache<K, T>>,
}

impl<K, T> Subjects<K, T>
where
    K: Clone + Eq + std::hash::Hash,
    T: Send + Sync + 'static,
{
    fn new(registry: &Registry, kind: &str) -> Self {
        let watched = registry.gauge(
            "tulle_discovery_watches",
            "Subjects that the control plane is asked about",
            &Labels::none().with("kind", kind),
        );
        Self {
            watched,
            cache: Mutex::new(Cache::new(MAX_IDLE)),
        }
    }

    fn get<F>(
        &self,
        key: &K,
        pending: T,
        runtime: &Handle,
        watch: impl FnOnce(Publisher<T>) -> F,
    ) -> View<T>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut cache = self.cache.lock();
        let found = cache.get(key, || {
            let (publisher, view) = view(pending);
            (view, Watch(runtime.spawn(watch(publisher)).abort_handle()))
        });
        #[expect(clippy::cast_precision_loss, reason = "they are few")]
        self.watched.set(cache.len() as f64);
        found
    }

    fn len(&self) -> usize {
        self.cache.lock().len()
    }
}

/// The channel to the identity service: without a certificate at first, with one as soon as
/// there is one.
///
/// # Errors
///
/// Where the trust anchors cannot be used.
pub fn identity_channel(
    config: &Config,
    store: &Store,
    runtime: &Handle,
) -> Result<ControlChannel, CredentialsError> {
    let anonymous = Arc::new(Credentials::anonymous(&config.identity.trust_anchors_pem)?);
    let addr = &config.identity.server;
    let dial = NetDial::before_certified(addr, connect_options(config), store, anonymous);
    Ok(ControlChannel::new(
        &addr.addr,
        dial,
        config.outbound.client_h2,
        runtime,
    ))
}

/// A channel to a service beside the control plane, such as a collector of traces.
#[must_use]
pub fn side_channel(
    config: &Config,
    addr: &ControlAddr,
    store: &Store,
    runtime: &Handle,
) -> ControlChannel {
    let dial = NetDial::new(addr, connect_options(config), store);
    ControlChannel::new(&addr.addr, dial, config.outbound.client_h2, runtime)
}

/// The pings of the connection find a dead peer; the kernel need not look as well.
fn connect_options(config: &Config) -> ConnectOptions {
    ConnectOptions {
        timeout: config.outbound.connect_timeout,
        keepalive: None,
        user_timeout: config.outbound.connect_user_timeout,
        mark: config.mark,
    }
}

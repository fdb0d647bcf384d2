use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    rc::{Rc, Weak},
    sync::Arc,
};

use ahash::RandomState;
use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};
use tokio::time::Instant;
use tulle_config::Config;
use tulle_core::{ClientTls, Direction, Endpoint, NoTls, Reason, Refusal};
use tulle_discovery::Discovery;
use tulle_http::{Trigger, http1::Http1Options, http2::Http2Options};
use tulle_metrics::{Labels, Registry};
use tulle_policy::{Backend, BackendKind};
use tulle_tap::Taps;
use tulle_telemetry::{
    ConnectionMetrics, InFlight, Refusals, client_tls_labels, endpoint_tls_labels, target_labels,
};
use tulle_tls::Store;
use tulle_trace::Tracer;
use tulle_transport::ServerFirst;

use crate::{
    balancer::{Balancer, Use},
    destination::Destination,
    loops,
    node::Node,
};

/// Destinations of which a shard keeps routes and connections.
const MAX_DESTINATIONS: usize = 4096;

/// What the composition root hands in.
pub struct Parts {
    /// Settings.
    pub config: Arc<Config>,
    /// Where metrics are registered.
    pub registry: Registry,
    /// This proxy's certificate.
    pub store: Store,
    /// Destinations and policies.
    pub discovery: Discovery,
    /// Says when to end.
    pub drain: Trigger,
    /// HTTP/2 towards those who connect.
    pub http2: Http2Options,
    /// How many shards there are.
    pub shards: usize,
    /// Who watches requests.
    pub taps: Taps,
    /// Takes part in traces.
    pub tracer: Tracer,
}

/// Those of one backend, by what it is used for.
type Balancers = Vec<(Use, Weak<Balancer>)>;

/// The outbound half of one worker.
pub struct Shard {
    pub(crate) config: Arc<Config>,
    pub(crate) registry: Registry,
    pub(crate) store: Store,
    pub(crate) discovery: Discovery,
    pub(crate) drain: Trigger,
    pub(crate) server_first: RefCell<ServerFirst>,
    pub(crate) in_flight: InFlight,
    pub(crate) shards: usize,
    pub(crate) refusals: Refusals,
    /// Mirrored requests on their way.
    pub(crate) copies: Cell<usize>,
    pub(crate) http1: Http1Options,
    pub(crate) http2: Http2Options,
    pub(crate) taps: Taps,
    pub(crate) tracer: Tracer,
    random: RefCell<SmallRng>,
    destinations: RefCell<HashMap<SocketAddr, Rc<Destination>, RandomState>>,
    named: RefCell<HashMap<Arc<str>, Rc<Destination>, RandomState>>,
    balancers: RefCell<HashMap<Arc<Backend>, Balancers, RandomState>>,
    accepted: RefCell<HashMap<SocketAddr, Rc<ConnectionMetrics>, RandomState>>,
    labels: Labels,
}

impl Shard {
    /// Build the half; nothing is opened yet.
    #[must_use]
    pub fn new(parts: Parts) -> Rc<Self> {
        let Parts {
            config,
            registry,
            store,
            discovery,
            drain,
            http2,
            shards,
            taps,
            tracer,
        } = parts;
        Rc::new(Self {
            in_flight: InFlight::new(config.outbound.max_in_flight, shards),
            shards,
            refusals: Refusals::new(&registry, Direction::Outbound),
            copies: Cell::new(0),
            http1: Http1Options::default(),
            http2,
            taps,
            tracer,
            config,
            registry,
            store,
            discovery,
            drain,
            server_first: RefCell::default(),
            random: RefCell::new(SmallRng::from_os_rng()),
            destinations: RefCell::default(),
            named: RefCell::default(),
            balancers: RefCell::default(),
            accepted: RefCell::default(),
            labels: Labels::none().with("direction", Direction::Outbound.label()),
        })
    }

    /// Do not use an endpoint for a while after it could not be reached.
    pub(crate) fn put_aside(&self, node: &Node, refusal: &Refusal) {
        node.failure.replace(Some(refusal.clone()));
        let until = node.missed(self.random(), Instant::now());
        let wait = until.saturating_duration_since(Instant::now());
        tracing::debug!(endpoint = %node.endpoint.addr, ?wait, %refusal, "endpoint put aside");
    }

    pub(crate) fn random(&self) -> u64 {
        self.random.borrow_mut().random()
    }

    /// Refuse what would come back to this proxy.
    pub(crate) fn refuse_loop(&self, target: SocketAddr) -> Result<(), Refusal> {
        let own = self.config.outbound.listen.contains(&target);
        if own || target.ip().is_loopback() {
            return Err(loops());
        }
        Ok(())
    }

    /// Whether a name is one that the control plane may know.
    pub(crate) fn is_service(&self, host: &str) -> bool {
        let suffixes = &self.config.profile_suffixes;
        host.parse::<IpAddr>().is_err() && suffixes.iter().any(|suffix| suffix.contains(host))
    }

    /// The labels of everything that this half counts.
    pub(crate) const fn labels(&self) -> &Labels {
        &self.labels
    }

    pub(crate) fn destination(self: &Rc<Self>, target: SocketAddr) -> Rc<Destination> {
        let mut destinations = self.destinations.borrow_mut();
        if let Some(known) = destinations.get(&target) {
            known.want();
            return known.clone();
        }
        if destinations.len() >= MAX_DESTINATIONS {
            // Those that a connection is using are kept by it.
            destinations.retain(|_, destination| Rc::strong_count(destination) > 1);
        }
        let destination = Rc::new(Destination::new(self, target));
        destinations.insert(target, destination.clone());
        destination
    }

    /// The destination of requests for `name:port`.
    pub(crate) fn named(self: &Rc<Self>, authority: &str, port: u16) -> Rc<Destination> {
        let mut named = self.named.borrow_mut();
        if let Some(known) = named.get(authority) {
            known.want();
            return known.clone();
        }
        if named.len() >= MAX_DESTINATIONS {
            named.retain(|_, destination| Rc::strong_count(destination) > 1);
        }
        let authority: Arc<str> = authority.into();
        let destination = Rc::new(Destination::named(self, &authority, port));
        named.insert(authority, destination.clone());
        destination
    }

    /// The balancer of a backend for a use of it. Those that compare equal share one, so that
    /// a policy that changes elsewhere costs no connection.
    pub(crate) fn balancer(
        self: &Rc<Self>,
        backend: &Arc<Backend>,
        used: Use,
        labels: &Labels,
    ) -> Option<Rc<Balancer>> {
        let known = self.balancers.borrow().get(backend).and_then(|all| {
            let same = all.iter().find(|(of, _)| *of == used);
            same.and_then(|(_, balancer)| balancer.upgrade())
        });
        if known.is_some() {
            return known;
        }
        let balancer = Rc::new(match &backend.kind {
            BackendKind::Forward(endpoint) => {
                Balancer::fixed(self, &Arc::new(endpoint.clone()), used, labels)
            }
            BackendKind::Balance { path, ewma } => {
                Balancer::watched(self, path, *ewma, used, labels)
            }
            BackendKind::Fail => return None,
        });
        let mut balancers = self.balancers.borrow_mut();
        balancers.retain(|_, all| {
            all.retain(|(_, balancer)| balancer.strong_count() > 0);
            !all.is_empty()
        });
        let all = balancers.entry(backend.clone()).or_default();
        all.push((used, Rc::downgrade(&balancer)));
        Some(balancer)
    }

    /// The labels of what is counted per endpoint.
    pub(crate) fn endpoint_labels(
        &self,
        endpoint: &Endpoint,
        authority: Option<&Arc<str>>,
    ) -> Labels {
        let mut labels = self.labels.clone();
        if let Some(authority) = authority {
            labels = labels.with("authority", authority);
        }
        let labels = endpoint_tls_labels(&target_labels(&labels, endpoint.addr), endpoint);
        labels.with_all(
            endpoint
                .labels
                .iter()
                .map(|(key, value)| (format!("dst_{key}"), value)),
        )
    }

    /// Count a connection that was refused.
    pub(crate) fn connection_refused(
        &self,
        refusal: &Refusal,
        client: SocketAddr,
        target: SocketAddr,
    ) {
        self.refusals.note(refusal, Some(client), target);
        if let Some(error) = refusal.reason.error() {
            let labels = target_labels(&self.labels, target).with("error", error);
            let (name, help) = ("outbound_tcp_errors", "Connections that ended in an error.");
            self.registry.counter(name, help, &labels).inc();
        }
    }

    /// Count a request that was refused.
    pub(crate) fn request_refused(&self, refusal: &Refusal, target: SocketAddr) {
        self.refusals.note(refusal, None, target);
        let error = match refusal.reason {
            Reason::IdentityRequired => Some("identity required"),
            Reason::Timeout => Some("response timeout"),
            reason => reason.error(),
        };
        if let Some(error) = error {
            let labels = Labels::none().with("error", error);
            let (name, help) = ("outbound_http_errors", "Requests that ended in an error.");
            self.registry.counter(name, help, &labels).inc();
        }
    }

    pub(crate) fn accepted_metrics(&self, target: SocketAddr) -> Rc<ConnectionMetrics> {
        let mut accepted = self.accepted.borrow_mut();
        if let Some(known) = accepted.get(&target) {
            return known.clone();
        }
        if accepted.len() >= MAX_DESTINATIONS {
            accepted.clear();
        }
        let labels = target_labels(&self.labels.with("peer", "src"), target);
        let labels = client_tls_labels(&labels, &ClientTls::None(NoTls::Loopback));
        let metrics = ConnectionMetrics::new(&self.registry, &labels);
        accepted.insert(target, metrics.clone());
        metrics
    }
}

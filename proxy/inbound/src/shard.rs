use std::{cell::RefCell, collections::HashMap, net::SocketAddr, rc::Rc, sync::Arc};

use ahash::RandomState;
use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};
use tokio::time::Instant;
use tulle_config::Config;
use tulle_core::{ClientTls, Direction, Id, Refusal};
use tulle_discovery::Discovery;
use tulle_http::{Trigger, http1::Http1Options, http2::Http2Options};
use tulle_metrics::{Labels, Registry};
use tulle_tap::Taps;
use tulle_telemetry::{AccessLog, InFlight, Refusals, target_labels};
use tulle_tls::Store;
use tulle_trace::Tracer;
use tulle_transport::{Header, ServerFirst, Session};

use crate::port::Port;

/// Ports of which a shard keeps policy and connections. A workload has few; a scanner that
/// tries them all is not allowed to make us remember more.
const MAX_PORTS: usize = 1024;

/// What the composition root hands in.
pub struct Parts {
    /// Settings.
    pub config: Arc<Config>,
    /// Where metrics are registered.
    pub registry: Registry,
    /// This proxy's certificate.
    pub store: Store,
    /// Policies.
    pub discovery: Discovery,
    /// Says when to end.
    pub drain: Trigger,
    /// HTTP/2 towards those who connect.
    pub http2: Http2Options,
    /// How many shards there are.
    pub shards: usize,
    /// What limits of requests count from: the same for all shards.
    pub epoch: Instant,
    /// Where each request has a line; absent: nowhere.
    pub access_log: Option<AccessLog>,
    /// Who watches requests.
    pub taps: Taps,
    /// Takes part in traces.
    pub tracer: Tracer,
}

/// The inbound half of one worker.
pub struct Shard {
    pub(crate) config: Arc<Config>,
    pub(crate) registry: Registry,
    pub(crate) store: Store,
    pub(crate) discovery: Discovery,
    pub(crate) drain: Trigger,
    pub(crate) server_first: RefCell<ServerFirst>,
    pub(crate) in_flight: InFlight,
    pub(crate) refusals: Refusals,
    pub(crate) epoch: Instant,
    pub(crate) access_log: Option<AccessLog>,
    pub(crate) http1: Http1Options,
    pub(crate) http2: Http2Options,
    pub(crate) taps: Taps,
    pub(crate) tracer: Tracer,
    random: RefCell<SmallRng>,
    ports: RefCell<HashMap<SocketAddr, Rc<Port>, RandomState>>,
    pub(crate) labels: Labels,
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
            epoch,
            access_log,
            taps,
            tracer,
        } = parts;
        Rc::new(Self {
            in_flight: InFlight::new(config.inbound.max_in_flight, shards),
            refusals: Refusals::new(&registry, Direction::Inbound),
            epoch,
            access_log,
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
            ports: RefCell::default(),
            labels: Labels::none().with("direction", Direction::Inbound.label()),
        })
    }

    pub(crate) fn random(&self) -> u64 {
        self.random.borrow_mut().random()
    }

    pub(crate) fn port(self: &Rc<Self>, target: SocketAddr) -> Rc<Port> {
        let mut ports = self.ports.borrow_mut();
        if let Some(known) = ports.get(&target) {
            return known.clone();
        }
        if ports.len() >= MAX_PORTS {
            // Those that a connection is using are kept by it.
            ports.retain(|_, port| Rc::strong_count(port) > 1);
        }
        let port = Rc::new(Port::new(self, target));
        ports.insert(target, port.clone());
        port
    }

    /// Count a connection that was refused, or closed, as a whole.
    pub(crate) fn connection_refused(
        &self,
        refusal: &Refusal,
        client: SocketAddr,
        target: SocketAddr,
    ) {
        self.refusals.note(refusal, Some(client), target);
        if let Some(error) = refusal.reason.error() {
            let labels = target_labels(&self.labels, target).with("error", error);
            let (name, help) = ("inbound_tcp_errors", "Connections that ended in an error.");
            self.registry.counter(name, help, &labels).inc();
        }
    }

    /// Count a connection that began with a transport header.
    pub(crate) fn announced(&self, header: &Header, tls: &ClientTls) {
        let session = match header.session {
            Session::Http1 => "http/1",
            Session::Http2 => "http/2",
            Session::Opaque => "",
        };
        let labels = Labels::none()
            .with("session_protocol", session)
            .with("target_port", &header.port.to_string())
            .with("target_name", &header.name)
            .with("client_id", tls.client_id().map_or("", Id::as_str));
        let name = "inbound_tcp_transport_header_connections";
        let help = "Connections that began with a transport header.";
        self.registry.counter(name, help, &labels).inc();
    }
}

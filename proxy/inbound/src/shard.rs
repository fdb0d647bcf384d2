use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
};

use ahash::RandomState;
use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};
use tulle_config::Config;
use tulle_core::{Direction, Refusal};
use tulle_discovery::Discovery;
use tulle_http::{Trigger, http1::Http1Options, http2::Http2Options};
use tulle_metrics::{Counter, Labels, Registry};
use tulle_tls::Store;
use tulle_transport::ServerFirst;

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
}

/// The inbound half of one worker.
pub struct Shard {
    pub(crate) config: Arc<Config>,
    pub(crate) registry: Registry,
    pub(crate) store: Store,
    pub(crate) discovery: Discovery,
    pub(crate) drain: Trigger,
    pub(crate) server_first: RefCell<ServerFirst>,
    pub(crate) in_flight: Cell<usize>,
    pub(crate) http1: Http1Options,
    pub(crate) http2: Http2Options,
    random: RefCell<SmallRng>,
    ports: RefCell<HashMap<SocketAddr, Rc<Port>, RandomState>>,
    refusals: RefCell<HashMap<&'static str, Counter>>,
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
        } = parts;
        Rc::new(Self {
            http1: Http1Options::default(),
            http2,
            config,
            registry,
            store,
            discovery,
            drain,
            server_first: RefCell::default(),
            in_flight: Cell::new(0),
            random: RefCell::new(SmallRng::from_os_rng()),
            ports: RefCell::default(),
            refusals: RefCell::default(),
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

    /// Count a refusal.
    pub(crate) fn refused(&self, refusal: &Refusal) {
        let mut refusals = self.refusals.borrow_mut();
        let code = refusal.reason.code();
        let counter = refusals.entry(code).or_insert_with(|| {
            self.registry.counter(
                "tulle_refusals",
                "Requests and connections refused by this proxy.",
                &self.labels.with("reason", code),
            )
        });
        counter.inc();
    }
}

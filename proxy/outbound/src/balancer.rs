//! The endpoints behind one backend, and the choice among them.
//!
//! An endpoint whose connection failed is not ready until its back-off ends. While none is
//! ready, requests wait; after the fail-fast time they are refused at once, until one is
//! ready again. Endpoints that stay the same from one update to the next keep their
//! connections and their load estimate.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

use tokio::time::Instant;
use tulle_balance::{Backoff, Candidate, ConnectGate, FailFast, Load, Verdict, pick};
use tulle_core::{Endpoint, Reason, Refusal};
use tulle_discovery::{EndpointsState, View};
use tulle_http::pool::Pool;
use tulle_metrics::{Counter, Gauge, Labels};
use tulle_policy::Ewma;
use tulle_telemetry::RequestMetrics;

use crate::{Shard, connector::Connector};

/// One endpoint as this shard uses it.
pub(crate) struct Node {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) connector: Connector,
    pub(crate) http: Pool<Connector>,
    pub(crate) load: Load,
    pub(crate) gate: ConnectGate,
    pub(crate) requests: RequestMetrics,
}

impl Candidate for Node {
    fn ready(&self, now: Instant) -> bool {
        self.gate.open(now)
    }

    fn cost(&self, now: Instant) -> f64 {
        self.load.cost(now)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.http.close();
    }
}

/// The endpoints of one backend.
pub(crate) struct Balancer {
    shard: Rc<Shard>,
    source: Source,
    ewma: Ewma,
    nodes: RefCell<Vec<Rc<Node>>>,
    fail_fast: FailFast,
    metrics: BalancerMetrics,
}

/// Where the endpoints come from.
enum Source {
    Fixed,
    Watched {
        view: View<EndpointsState>,
        /// For the label `authority`.
        name: Arc<str>,
        /// The generation that was taken over last.
        taken: Cell<u64>,
    },
}

impl Balancer {
    /// Follow the endpoints of a name.
    pub(crate) fn watched(shard: &Rc<Shard>, name: &Arc<str>, ewma: Ewma, labels: &Labels) -> Self {
        let source = Source::Watched {
            view: shard.discovery.endpoints(name),
            name: name.clone(),
            taken: Cell::new(0),
        };
        Self::new(shard, source, ewma, labels, Vec::new())
    }

    /// Always the same endpoint.
    pub(crate) fn fixed(shard: &Rc<Shard>, endpoint: &Arc<Endpoint>, labels: &Labels) -> Self {
        let ewma = Ewma::default();
        let nodes = vec![Rc::new(node(shard, endpoint, None, ewma))];
        Self::new(shard, Source::Fixed, ewma, labels, nodes)
    }

    fn new(
        shard: &Rc<Shard>,
        source: Source,
        ewma: Ewma,
        labels: &Labels,
        nodes: Vec<Rc<Node>>,
    ) -> Self {
        Self {
            metrics: BalancerMetrics::new(shard, labels, nodes.len()),
            shard: shard.clone(),
            source,
            ewma,
            nodes: RefCell::new(nodes),
            fail_fast: FailFast::new(shard.config.outbound.failfast),
        }
    }

    /// Whether a request would be refused at once.
    pub(crate) fn failing(&self) -> bool {
        self.fail_fast.failing(Instant::now())
    }

    /// Choose a ready endpoint, waiting for one if need be.
    ///
    /// # Errors
    /// `fail_fast` or `no_endpoints` where none has been ready for the fail-fast time.
    pub(crate) async fn choose(&self) -> Result<Rc<Node>, Refusal> {
        loop {
            self.take_update();
            let now = Instant::now();
            let chosen = {
                let nodes = self.nodes.borrow();
                pick(&nodes, self.shard.random(), now).map(|index| nodes[index].clone())
            };
            match (self.fail_fast.observe(chosen.is_some(), now), chosen) {
                (_, Some(node)) => return Ok(node),
                (Verdict::Wait(until), None) => self.wait(until, now).await,
                (_, None) => {
                    self.metrics.failed_fast.inc();
                    return Err(self.refusal());
                }
            }
        }
    }

    /// Wait until something may have become ready.
    async fn wait(&self, deadline: Instant, now: Instant) {
        let opens = {
            let nodes = self.nodes.borrow();
            nodes
                .iter()
                .filter_map(|node| node.gate.opens_at(now))
                .min()
        };
        let until = opens.map_or(deadline, |at| at.min(deadline));
        match &self.source {
            Source::Fixed => tokio::time::sleep_until(until).await,
            Source::Watched { view, taken, .. } => {
                tokio::select! {
                    () = tokio::time::sleep_until(until) => {}
                    _ = view.next_generation(taken.get()) => {}
                }
            }
        }
    }

    fn refusal(&self) -> Refusal {
        let none = self.nodes.borrow().is_empty();
        let reason = if none {
            Reason::NoEndpoints
        } else {
            Reason::FailFast
        };
        Refusal::new(reason, "service in fail-fast")
    }

    /// Take over what discovery has published since the last time.
    fn take_update(&self) {
        let Source::Watched { view, taken, name } = &self.source else {
            return;
        };
        let generation = view.generation();
        if generation == taken.replace(generation) {
            return;
        }
        if let EndpointsState::Known(endpoints) = &*view.get() {
            self.replace(endpoints, name);
        }
    }

    fn replace(&self, endpoints: &[Arc<Endpoint>], name: &Arc<str>) {
        let mut old = self.nodes.take();
        let nodes: Vec<Rc<Node>> = endpoints
            .iter()
            .map(
                |endpoint| match old.iter().position(|node| node.endpoint == *endpoint) {
                    Some(index) => old.swap_remove(index),
                    None => Rc::new(node(&self.shard, endpoint, Some(name), self.ewma)),
                },
            )
            .collect();
        // Requests in flight keep their node; its idle connections end now.
        for gone in &old {
            gone.http.close();
        }
        self.metrics.endpoints(nodes.len());
        self.nodes.replace(nodes);
    }
}

fn node(shard: &Rc<Shard>, endpoint: &Arc<Endpoint>, name: Option<&Arc<str>>, ewma: Ewma) -> Node {
    let labels = shard.endpoint_labels(endpoint, name);
    let connector = Connector::new(shard, endpoint, &labels);
    let outbound = &shard.config.outbound;
    let backoff = &outbound.connect_backoff;
    Node {
        http: connector.pool(),
        connector,
        load: Load::new(ewma.rtt, ewma.decay, Instant::now()),
        gate: ConnectGate::new(Backoff::new(backoff.min, backoff.max, backoff.jitter)),
        requests: RequestMetrics::new(&shard.registry, labels),
        endpoint: endpoint.clone(),
    }
}

struct BalancerMetrics {
    ready: Gauge,
    failed_fast: Counter,
}

impl BalancerMetrics {
    fn new(shard: &Shard, labels: &Labels, endpoints: usize) -> Self {
        let metrics = Self {
            ready: shard.registry.gauge(
                "outbound_http_balancer_endpoints",
                "Endpoints by state.",
                &labels.with("endpoint_state", "ready"),
            ),
            failed_fast: shard.registry.counter(
                "outbound_http_balancer_queue_gate_timeout",
                "Requests refused because no endpoint was ready for the fail-fast time.",
                labels,
            ),
        };
        metrics.endpoints(endpoints);
        metrics
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "endpoints are counted in thousands"
    )]
    fn endpoints(&self, count: usize) {
        self.ready.set(count as f64);
    }
}

impl Drop for BalancerMetrics {
    fn drop(&mut self) {
        self.ready.set(0.0);
    }
}

//! The endpoints behind one backend, and the choice among them.
//!
//! An endpoint whose connection failed is not ready until its back-off ends, and whoever
//! comes then tries it. While none is ready, requests wait, no more of them than the queue
//! holds; after the fail-fast time they are refused at once, until one has been reached
//! again: an endpoint that may only be tried again does not end that time, or requests to
//! one that is gone would wait for ever. Endpoints that stay the same from one update to the
//! next keep their connections and their load estimate.

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
    /// Who waits for an endpoint.
    waiting: Cell<usize>,
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
            waiting: Cell::new(0),
        }
    }

    /// Whether a request would be refused at once. While another backend takes its requests
    /// nobody chooses from this one, so what has changed is looked for here.
    pub(crate) fn failing(&self) -> bool {
        let now = Instant::now();
        if !self.fail_fast.failing(now) {
            return false;
        }
        self.take_update();
        !self.nodes.borrow().iter().any(|node| node.ready(now))
    }

    /// Choose a ready endpoint, waiting for one if need be, as one of at most `queue`.
    ///
    /// # Errors
    /// `fail_fast` or `no_endpoints` where none has been ready for the fail-fast time,
    /// `overloaded` where too many wait already.
    pub(crate) async fn choose(&self, queue: usize) -> Result<Rc<Node>, Refusal> {
        let mut place = None;
        loop {
            self.take_update();
            let now = Instant::now();
            let chosen = {
                let nodes = self.nodes.borrow();
                pick(&nodes, self.shard.random(), now).map(|index| nodes[index].clone())
            };
            let reached = chosen
                .as_deref()
                .is_some_and(|node| self.reached(node, now));
            match (self.fail_fast.observe(reached, now), chosen) {
                (_, Some(node)) => return Ok(node),
                (Verdict::Wait(until), None) => {
                    if place.is_none() {
                        place = Some(Place::take(&self.waiting, queue)?);
                    }
                    self.wait(until, now).await;
                }
                (_, None) => {
                    self.metrics.failed_fast.inc();
                    return Err(self.refusal());
                }
            }
        }
    }

    /// Whether this ready node, or another one, was there when it was tried last.
    fn reached(&self, node: &Node, now: Instant) -> bool {
        let reached = |node: &Node| node.ready(now) && !node.gate.doubtful();
        reached(node) || self.nodes.borrow().iter().any(|node| reached(node))
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
        // Between the two sets there may have been others: how long there has been nobody
        // ready is counted anew.
        self.fail_fast.observe(true, Instant::now());
        self.metrics.endpoints(nodes.len());
        self.nodes.replace(nodes);
    }
}

/// A place among those who wait, given back when it is dropped.
struct Place<'a>(&'a Cell<usize>);

impl<'a> Place<'a> {
    fn take(waiting: &'a Cell<usize>, queue: usize) -> Result<Self, Refusal> {
        if waiting.get() >= queue {
            return Err(Refusal::new(Reason::QueueFull, "service unavailable"));
        }
        waiting.set(waiting.get() + 1);
        Ok(Self(waiting))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tulle_http::{DrainSignal, http2::Http2Options};
    use tulle_testkit::Alone;
    use tulle_tls::Store;

    use super::*;
    use crate::Parts;

    fn shard() -> Rc<Shard> {
        let Alone {
            config,
            registry,
            discovery,
        } = Alone::new();
        Shard::new(Parts {
            discovery,
            config,
            registry,
            store: Store::new(),
            drain: DrainSignal::new().0,
            http2: Http2Options::default(),
            shards: 1,
        })
    }

    fn gone(shard: &Rc<Shard>) -> Balancer {
        let endpoint = Endpoint::plain(([127, 0, 0, 1], 1).into());
        Balancer::fixed(shard, &Arc::new(endpoint), &Labels::none())
    }

    /// Choose and fail to connect until that is over.
    async fn request(shard: &Rc<Shard>, balancer: &Balancer) -> Refusal {
        loop {
            match balancer.choose(1).await {
                Ok(node) => shard.put_aside(&node, &Refusal::new(Reason::ConnectFailed, "gone")),
                Err(refusal) => return refusal,
            }
        }
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn requests_to_an_endpoint_that_is_gone_fail_after_the_fail_fast_time() {
        let shard = shard();
        let balancer = gone(&shard);
        let start = Instant::now();

        let refusal = request(&shard, &balancer).await;

        assert_eq!(refusal.reason, Reason::FailFast);
        let waited = start.elapsed();
        assert!(
            (Duration::from_secs(3)..Duration::from_millis(3100)).contains(&waited),
            "{waited:?}"
        );
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn a_balancer_that_fails_fast_is_tried_again_when_a_back_off_ends() {
        let shard = shard();
        let balancer = gone(&shard);
        request(&shard, &balancer).await;
        assert!(balancer.failing());

        tokio::time::sleep(Duration::from_secs(10)).await;

        assert!(!balancer.failing());
        let node = balancer.choose(1).await.unwrap();
        node.gate.succeeded();
        balancer.choose(1).await.unwrap();
        assert!(!balancer.fail_fast.failing(Instant::now()));
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn no_more_requests_wait_than_the_queue_holds() {
        let shard = shard();
        let balancer = gone(&shard);

        let (first, second) = tokio::join!(request(&shard, &balancer), request(&shard, &balancer));

        assert_eq!(first.reason, Reason::FailFast);
        assert_eq!(second.reason, Reason::QueueFull);
        assert_eq!(balancer.waiting.get(), 0);
    }
}

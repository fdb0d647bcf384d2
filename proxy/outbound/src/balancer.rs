//! The endpoints behind one backend, and the choice among them.
//!
//! An endpoint whose connection failed, or whose breaker is open, is not ready until its
//! back-off ends, and whoever comes then tries it. While none is ready, requests wait, no more of them than the queue
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
use tulle_balance::{Candidate, FailFast, Verdict, pick};
use tulle_core::{Endpoint, Phase, Reason, Refusal};
use tulle_discovery::{EndpointsState, View};
use tulle_metrics::{Counter, Gauge, Histogram, Labels};
use tulle_policy::{Ewma, FailureAccrual};

use crate::{
    Shard,
    node::{Health, Judging, Node},
};

/// What is balanced; each has numbers and loads of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// Requests.
    Http,
    /// Connections.
    Tcp,
    /// Connections by the name that their clients ask for.
    Tls,
}

impl Traffic {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Http => "outbound_http",
            Self::Tcp => "outbound_tcp",
            Self::Tls => "outbound_tls",
        }
    }
}

/// What a backend is used for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Use {
    pub(crate) traffic: Traffic,
    pub(crate) accrual: Option<FailureAccrual>,
}

/// The endpoints of one backend.
pub(crate) struct Balancer {
    shard: Rc<Shard>,
    source: Source,
    judging: Judging,
    nodes: RefCell<Vec<Rc<Node>>>,
    health: Rc<Health>,
    fail_fast: FailFast,
    /// Requests are refused at once, as far as the numbers say.
    shut: Cell<bool>,
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
    pub(crate) fn watched(
        shard: &Rc<Shard>,
        name: &Arc<str>,
        ewma: Ewma,
        used: Use,
        labels: &Labels,
    ) -> Self {
        let source = Source::Watched {
            view: shard.discovery.endpoints(name),
            name: name.clone(),
            taken: Cell::new(0),
        };
        Self::new(shard, source, ewma, used, labels)
    }

    /// Always the same endpoint.
    pub(crate) fn fixed(
        shard: &Rc<Shard>,
        endpoint: &Arc<Endpoint>,
        used: Use,
        labels: &Labels,
    ) -> Self {
        let balancer = Self::new(shard, Source::Fixed, Ewma::default(), used, labels);
        balancer.replace(std::slice::from_ref(endpoint), None);
        balancer
    }

    fn new(shard: &Rc<Shard>, source: Source, ewma: Ewma, used: Use, labels: &Labels) -> Self {
        let Use { traffic, accrual } = used;
        let outbound = &shard.config.outbound;
        let fail_fast = match traffic {
            Traffic::Http => outbound.failfast,
            Traffic::Tcp | Traffic::Tls => outbound.tcp_failfast,
        };
        Self {
            metrics: BalancerMetrics::new(shard, traffic.prefix(), labels),
            health: Health::new(shard, traffic.prefix(), labels, accrual.is_some()),
            shard: shard.clone(),
            source,
            judging: Judging { ewma, accrual },
            nodes: RefCell::default(),
            fail_fast: FailFast::new(fail_fast),
            shut: Cell::new(false),
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
        self.metrics.requests.inc();
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
            let verdict = self.fail_fast.observe(reached, now);
            if reached == self.shut.get() {
                self.turn(verdict);
            }
            match (verdict, chosen) {
                (_, Some(node)) => {
                    let waited = place.map_or(0.0, |place: Place| place.waited(now));
                    self.metrics.latency.observe(waited);
                    return Ok(node);
                }
                (Verdict::Wait(until), None) => {
                    if place.is_none() {
                        place = Some(Place::take(self, queue, now)?);
                    }
                    self.wait(until, now).await;
                }
                (_, None) => return Err(self.refusal()),
            }
        }
    }

    /// A ready endpoint besides this one, if there is one.
    pub(crate) fn other_than(&self, last: &Rc<Node>) -> Option<Rc<Node>> {
        self.take_update();
        let nodes = self.nodes.borrow();
        let others: Vec<&Rc<Node>> = nodes
            .iter()
            .filter(|node| !Rc::ptr_eq(node, last))
            .collect();
        let index = pick(&others, self.shard.random(), Instant::now())?;
        Some(others[index].clone())
    }

    /// Count that requests are refused at once from now on, or no longer.
    #[cold]
    fn turn(&self, verdict: Verdict) {
        let shut = match verdict {
            Verdict::Fail => true,
            Verdict::Send => false,
            Verdict::Wait(_) => return,
        };
        if self.shut.replace(shut) != shut {
            let metrics = &self.metrics;
            if shut { &metrics.shut } else { &metrics.opened }.inc();
        }
    }

    /// Whether this ready node, or another one, was there when it was tried last.
    fn reached(&self, node: &Node, now: Instant) -> bool {
        let reached = |node: &Node| node.ready(now) && !node.doubtful();
        reached(node) || self.nodes.borrow().iter().any(|node| reached(node))
    }

    /// Wait until something may have become ready.
    async fn wait(&self, deadline: Instant, now: Instant) {
        let opens = {
            let nodes = self.nodes.borrow();
            nodes.iter().filter_map(|node| node.opens_at(now)).min()
        };
        let until = opens.map_or(deadline, |at| at.min(deadline));
        let updated = async {
            match &self.source {
                Source::Fixed => std::future::pending().await,
                Source::Watched { view, taken, .. } => view.next_generation(taken.get()).await,
            }
        };
        tokio::select! {
            () = tokio::time::sleep_until(until) => {}
            () = self.health.changed.notified() => {}
            _ = updated => {}
        }
    }

    /// Why nobody was ready for the whole time. An endpoint that is there and does not prove
    /// its name is the cause itself: waiting for it would not have helped.
    fn refusal(&self) -> Refusal {
        const WORDS: &str = "service in fail-fast";
        let nodes = self.nodes.borrow();
        if nodes.is_empty() {
            return Refusal::new(Reason::NoEndpoints, WORDS);
        }
        let mut unreached = nodes.iter().filter(|node| node.gate.doubtful());
        let failure = unreached.find_map(|node| node.failure.borrow().clone());
        let Some(failure) = failure else {
            let message = if nodes.iter().any(|node| node.tripped()) {
                "service in fail-fast: its endpoints are left out for their failures"
            } else {
                WORDS
            };
            return Refusal::new(Reason::FailFast, message);
        };
        let reason = match failure.reason.phase() {
            Phase::Tls => failure.reason,
            _ => Reason::FailFast,
        };
        let mut refusal = Refusal::new(reason, format!("{WORDS}: {failure}"));
        refusal.status = Some(Reason::FailFast.status());
        refusal
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
            self.replace(endpoints, Some(name));
        }
    }

    fn replace(&self, endpoints: &[Arc<Endpoint>], name: Option<&Arc<str>>) {
        let mut old = self.nodes.take();
        let nodes: Vec<Rc<Node>> = endpoints
            .iter()
            .map(|endpoint| {
                let known = old.iter().position(|node| node.endpoint == *endpoint);
                if let Some(index) = known {
                    return old.swap_remove(index);
                }
                self.metrics.added.inc();
                let (shard, health) = (&self.shard, &self.health);
                Rc::new(Node::new(shard, endpoint, name, self.judging, health))
            })
            .collect();
        // Requests in flight keep their node; its idle connections end now.
        for gone in &old {
            gone.http.close();
            gone.leave();
            self.metrics.removed.inc();
        }
        // Between the two sets there may have been others: how long there has been nobody
        // ready is counted anew.
        self.fail_fast.observe(true, Instant::now());
        self.health.count(nodes.len());
        #[expect(
            clippy::cast_precision_loss,
            reason = "endpoints are counted in thousands"
        )]
        self.metrics.endpoints.set(nodes.len() as f64);
        self.nodes.replace(nodes);
    }
}

/// A place among those who wait, given back when it is dropped.
struct Place<'a> {
    balancer: &'a Balancer,
    since: Instant,
}

impl<'a> Place<'a> {
    fn take(balancer: &'a Balancer, queue: usize, since: Instant) -> Result<Self, Refusal> {
        let waiting = balancer.waiting.get();
        if waiting >= queue {
            return Err(Refusal::new(Reason::QueueFull, "service unavailable"));
        }
        balancer.waiting.set(waiting + 1);
        balancer.metrics.length.inc();
        Ok(Self { balancer, since })
    }

    fn waited(&self, now: Instant) -> f64 {
        now.saturating_duration_since(self.since).as_secs_f64()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let waiting = &self.balancer.waiting;
        waiting.set(waiting.get() - 1);
        self.balancer.metrics.length.dec();
    }
}

/// Bounds of the time that a request waits for an endpoint, the stock proxy's.
const WAIT_SECONDS: &[f64] = &[0.0005, 0.005, 0.05, 0.5, 1.0, 3.0];

struct BalancerMetrics {
    endpoints: Gauge,
    added: Counter,
    removed: Counter,
    requests: Counter,
    length: Gauge,
    latency: Histogram,
    opened: Counter,
    shut: Counter,
}

impl BalancerMetrics {
    fn new(shard: &Shard, prefix: &str, labels: &Labels) -> Self {
        let registry = &shard.registry;
        let name = |name: &str| format!("{prefix}_balancer_{name}");
        let updates = |op| {
            let help = "Endpoints that came and went.";
            registry.counter(&name("p2c_updates"), help, &labels.with("op", op))
        };
        Self {
            endpoints: registry.gauge(&name("p2c_endpoints"), "Endpoints to choose from.", labels),
            added: updates("Add"),
            removed: updates("Remove"),
            requests: registry.counter(
                &name("queue_requests"),
                "Requests, or connections, that wanted an endpoint.",
                labels,
            ),
            length: registry.gauge(&name("queue_length"), "How many wait for one.", labels),
            latency: registry.histogram(
                &name("queue_latency_seconds"),
                "Seconds that they waited for one.",
                WAIT_SECONDS,
                labels,
            ),
            opened: registry.counter(
                &name("queue_gate_open"),
                "How often an endpoint ended the time of failing at once.",
                labels,
            ),
            shut: registry.counter(
                &name("queue_gate_shut"),
                "How often requests began to fail at once, no endpoint being ready.",
                labels,
            ),
        }
    }
}

impl Drop for BalancerMetrics {
    fn drop(&mut self) {
        self.endpoints.set(0.0);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tulle_http::{DrainSignal, http2::Http2Options};
    use tulle_testkit::Alone;
    use tulle_tls::Store;

    use super::*;
    use crate::{Parts, node::Attempt};

    const HTTP: Use = Use {
        traffic: Traffic::Http,
        accrual: None,
    };

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
            taps: tulle_tap::Taps::default(),
            tracer: tulle_trace::Tracer::default(),
        })
    }

    fn gone(shard: &Rc<Shard>) -> Balancer {
        let endpoint = Endpoint::plain(([127, 0, 0, 1], 1).into());
        Balancer::fixed(shard, &Arc::new(endpoint), HTTP, &Labels::none())
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
        node.reached();
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

    const BREAKS: Use = Use {
        traffic: Traffic::Http,
        accrual: Some(FailureAccrual::Consecutive {
            max_failures: 2,
            backoff: tulle_policy::Backoff {
                min: Duration::from_secs(1),
                max: Duration::from_secs(10),
                jitter: 0.0,
            },
        }),
    };

    fn watched(shard: &Rc<Shard>, used: Use, ewma: Ewma) -> Balancer {
        let name: Arc<str> = "web:80".into();
        let balancer = Balancer::watched(shard, &name, ewma, used, &Labels::none());
        let endpoints = [1, 2].map(|port| {
            let endpoint = Endpoint::plain(([127, 0, 0, 1], port).into());
            Arc::new(endpoint)
        });
        balancer.replace(&endpoints, Some(&name));
        balancer
    }

    /// Send a request to this endpoint, or to whichever, and take its answer in.
    async fn answer(balancer: &Balancer, status: u16) -> u16 {
        let attempt = Attempt::start(balancer.choose(1).await.unwrap());
        let response = http::Response::builder().status(status);
        let response = response.body(tulle_http::Body::empty()).unwrap();
        let facts = tulle_telemetry::ResponseFacts::of(&response);
        attempt.answered(&response, facts);
        let took = Duration::from_millis(1);
        attempt.node.load.observe(took, Instant::now());
        let end = tulle_http::End::Complete { trailers: None };
        attempt.ended(facts.end(&end), &end);
        attempt.node.endpoint.addr.port()
    }

    fn shown(shard: &Shard, line: &str) -> bool {
        shard.registry.render().lines().any(|shown| shown == line)
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn an_endpoint_whose_breaker_opened_gets_nothing_until_a_probe_succeeds() {
        let shard = shard();
        let balancer = watched(&shard, BREAKS, Ewma::default());
        let mut failures = 0;
        while failures < 2 {
            let bad = balancer.nodes.borrow()[0].endpoint.addr;
            let attempt = Attempt::start(balancer.choose(1).await.unwrap());
            if attempt.node.endpoint.addr == bad {
                attempt.lost();
                failures += 1;
            }
        }

        for _ in 0..50 {
            assert_eq!(answer(&balancer, 200).await, 2);
        }

        assert!(shown(&shard, "tulle_breaker_open 1"));
        assert!(shown(
            &shard,
            r#"tulle_breaker_transitions_total{to="open"} 1"#
        ));
        assert!(shown(
            &shard,
            r#"outbound_http_balancer_endpoints{endpoint_state="pending"} 1"#
        ));
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut used = [0; 2];
        for _ in 0..50 {
            used[usize::from(answer(&balancer, 200).await) - 1] += 1;
        }
        assert!(used.iter().all(|used| *used > 5), "{used:?}");
        assert!(shown(&shard, "tulle_breaker_open 0"));
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn a_success_of_the_probe_wakes_those_who_wait() {
        let shard = shard();
        let endpoint = Arc::new(Endpoint::plain(([127, 0, 0, 1], 1).into()));
        let balancer = Balancer::fixed(&shard, &endpoint, BREAKS, &Labels::none());
        answer(&balancer, 500).await;
        answer(&balancer, 500).await;
        let start = Instant::now();

        let probe = Attempt::start(balancer.choose(1).await.unwrap());
        let (waited, ()) = tokio::join!(balancer.choose(1), async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            probe.spoke();
        });

        assert!(waited.is_ok());
        let waited = start.elapsed();
        assert!((1500..1510).contains(&waited.as_millis()), "{waited:?}");
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn a_probe_that_is_given_up_leaves_its_turn_to_the_next() {
        let shard = shard();
        let endpoint = Arc::new(Endpoint::plain(([127, 0, 0, 1], 1).into()));
        let balancer = Balancer::fixed(&shard, &endpoint, BREAKS, &Labels::none());
        answer(&balancer, 500).await;
        answer(&balancer, 500).await;

        drop(Attempt::start(balancer.choose(1).await.unwrap()));

        answer(&balancer, 200).await;
        assert!(shown(&shard, "tulle_breaker_open 0"));
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn an_endpoint_that_answers_429_is_avoided_for_as_long_as_it_asks() {
        let shard = shard();
        let ewma = Ewma {
            penalty: Some(tulle_policy::Penalty {
                penalty: Duration::from_secs(5),
                max_retry_after: Duration::from_mins(5),
                decay: Duration::from_secs(10),
            }),
            ..Ewma::default()
        };
        let balancer = watched(&shard, HTTP, ewma);

        let shed = answer(&balancer, 429).await;

        for _ in 0..50 {
            assert_ne!(answer(&balancer, 200).await, shed);
        }
        tokio::time::sleep(Duration::from_mins(5)).await;
        let mut again = 0;
        for _ in 0..50 {
            again += u32::from(answer(&balancer, 200).await == shed);
        }
        assert!(again > 5, "{again}");
    }
}

//! One endpoint as a shard uses it, and whether it may be used.
//!
//! Two doors stand before it: the gate, closed while it cannot be connected to, and where the
//! policy wants one the breaker, closed while its answers are bad. An endpoint behind either
//! is *pending* in the numbers until it has been reached, or has answered well, again; those
//! who wait for the balancer are woken then.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{sync::Notify, time::Instant};
use tulle_balance::{
    Backoff, Breaker, BreakerState, Candidate, ConnectGate, Load, Outcome, SuccessRate, Trip,
};
use tulle_core::{Endpoint, Id, Refusal};
use tulle_http::{End, Response, pool::Pool};
use tulle_metrics::{Counter, Gauge, Labels};
use tulle_policy::{Ewma, FailureAccrual, Penalty};
use tulle_telemetry::{Ended, RequestMetrics, ResponseFacts};

use crate::{
    Shard,
    connector::Connector,
    judge::{penalised, retry_after, throttled},
};

/// How a policy wants endpoints to be judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Judging {
    pub(crate) ewma: Ewma,
    pub(crate) accrual: Option<FailureAccrual>,
}

/// One endpoint as this shard uses it.
pub(crate) struct Node {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) connector: Connector,
    pub(crate) http: Pool<Connector>,
    pub(crate) load: Load,
    pub(crate) gate: ConnectGate,
    pub(crate) requests: RequestMetrics,
    /// Why it could not be reached when it was tried last in vain.
    pub(crate) failure: RefCell<Option<Refusal>>,
    judge: Option<Box<Judge>>,
    health: Rc<Health>,
    standing: Cell<Standing>,
}

/// How an endpoint counts in its balancer's numbers.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Standing {
    pending: bool,
    open: bool,
    /// Not at all: it does not belong to the balancer any more.
    gone: bool,
}

/// What is kept where the policy wants answers to be judged.
struct Judge {
    breaker: Option<Breaker>,
    counts_throttling: bool,
    respects_hints: bool,
    penalty: Option<Penalty>,
}

/// How the endpoints of a balancer are.
pub(crate) struct Health {
    /// One of them may be usable again.
    pub(crate) changed: Notify,
    all: Cell<usize>,
    pending: Cell<usize>,
    open: Cell<usize>,
    metrics: HealthMetrics,
}

struct HealthMetrics {
    ready: Gauge,
    pending: Gauge,
    breakers: Option<BreakerMetrics>,
}

struct BreakerMetrics {
    open: Gauge,
    opened: Counter,
    closed: Counter,
}

impl Candidate for Node {
    fn ready(&self, now: Instant) -> bool {
        self.gate.open(now) && self.breaker().is_none_or(|breaker| breaker.ready(now))
    }

    fn cost(&self, now: Instant) -> f64 {
        self.load.cost(now)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.http.close();
        self.leave();
    }
}

impl Node {
    pub(crate) fn new(
        shard: &Rc<Shard>,
        endpoint: &Arc<Endpoint>,
        name: Option<&Arc<str>>,
        judging: Judging,
        health: &Rc<Health>,
    ) -> Self {
        let now = Instant::now();
        let labels = shard.endpoint_labels(endpoint, name);
        let connector = Connector::new(shard, endpoint, &labels);
        let backoff = &shard.config.outbound.connect_backoff;
        let Ewma {
            rtt,
            decay,
            penalty,
        } = judging.ewma;
        let load = Load::new(rtt, decay, now);
        Self {
            http: connector.pool(),
            connector,
            load: match penalty {
                Some(penalty) => load.with_penalty(penalty.decay, now),
                None => load,
            },
            gate: ConnectGate::new(Backoff::new(backoff.min, backoff.max, backoff.jitter)),
            requests: RequestMetrics::new(&shard.registry, labels),
            failure: RefCell::default(),
            judge: Judge::new(judging, now).map(Box::new),
            endpoint: endpoint.clone(),
            health: health.clone(),
            standing: Cell::default(),
        }
    }

    fn breaker(&self) -> Option<&Breaker> {
        self.judge.as_ref()?.breaker.as_ref()
    }

    /// Whether it was not there, or answered badly, when it was tried last.
    pub(crate) fn doubtful(&self) -> bool {
        self.gate.doubtful() || self.tripped()
    }

    /// Whether it is left out for what it answered.
    pub(crate) fn tripped(&self) -> bool {
        self.breaker()
            .is_some_and(|breaker| breaker.state() != BreakerState::Closed)
    }

    /// The identity that connections to it are checked for.
    pub(crate) fn identity(&self) -> Option<&Id> {
        if self.connector.is_local() {
            return None;
        }
        self.endpoint.tls.as_ref().map(|tls| &tls.id)
    }

    /// When it may be tried again, where that is later and known.
    pub(crate) fn opens_at(&self, now: Instant) -> Option<Instant> {
        let breaker = self.breaker().and_then(|breaker| breaker.opens_at(now));
        self.gate.opens_at(now).max(breaker)
    }

    /// It was connected to.
    pub(crate) fn reached(&self) {
        if self.gate.doubtful() {
            self.gate.succeeded();
            self.checked();
        }
    }

    /// It could not be connected to. Returns when it may be tried again.
    pub(crate) fn missed(&self, random: u64, now: Instant) -> Instant {
        let until = self.gate.failed(random, now);
        self.checked();
        until
    }

    /// It belongs to its balancer no more, and to those numbers neither.
    pub(crate) fn leave(&self) {
        let gone = Standing {
            gone: true,
            ..Standing::default()
        };
        self.health.differs(self.standing.replace(gone), gone);
    }

    /// Something about it has changed.
    fn checked(&self) {
        let before = self.standing.get();
        if !before.gone {
            let now = Standing {
                pending: self.doubtful(),
                open: self.tripped(),
                gone: false,
            };
            self.standing.set(now);
            self.health.differs(before, now);
        }
        self.health.changed.notify_waiters();
    }

    fn end(&self, breaker: &Breaker, outcome: Outcome, probe: bool) {
        let now = Instant::now();
        let Some(state) = breaker.end(outcome, probe, rand::random(), now) else {
            return;
        };
        let endpoint = self.endpoint.addr;
        match state {
            BreakerState::Open(until) => {
                let wait = until.saturating_duration_since(now);
                tracing::info!(%endpoint, ?wait, "endpoint left out for its failures");
            }
            BreakerState::Closed | BreakerState::Probing => {
                tracing::info!(%endpoint, "endpoint taken in again");
            }
        }
        self.health.transition(state);
        self.checked();
    }
}

impl Judge {
    /// Nothing where nothing is to be judged, so that a request has one thing to look at.
    fn new(judging: Judging, now: Instant) -> Option<Self> {
        let Judging { ewma, accrual } = judging;
        if accrual.is_none() && ewma.penalty.is_none() {
            return None;
        }
        let unified = matches!(accrual, Some(FailureAccrual::Unified { .. }));
        let respects = matches!(
            accrual,
            Some(FailureAccrual::Unified {
                respect_retry_after: true,
                ..
            })
        );
        Some(Self {
            breaker: accrual.map(|accrual| breaker(accrual, now)),
            counts_throttling: unified,
            respects_hints: respects,
            penalty: ewma.penalty,
        })
    }
}

fn breaker(accrual: FailureAccrual, now: Instant) -> Breaker {
    let (trip, backoff) = match accrual {
        FailureAccrual::Consecutive {
            max_failures,
            backoff,
        } => {
            let consecutive = Some(max_failures.max(1));
            let rate = None;
            (Trip { consecutive, rate }, backoff)
        }
        FailureAccrual::Unified {
            success_rate_threshold: threshold,
            decay: window,
            min_requests,
            max_consecutive_failures,
            backoff,
            ..
        } => {
            let rate = SuccessRate {
                threshold,
                window,
                min_requests,
            };
            let trip = Trip {
                consecutive: Some(max_consecutive_failures).filter(|most| *most > 0),
                rate: Some(rate).filter(|rate| rate.threshold > 0.0),
            };
            (trip, backoff)
        }
    };
    let backoff = Backoff::new(backoff.min, backoff.max, backoff.jitter.into());
    Breaker::new(trip, backoff, now)
}

impl Health {
    pub(crate) fn new(shard: &Shard, prefix: &str, labels: &Labels, breaks: bool) -> Rc<Self> {
        let registry = &shard.registry;
        let endpoints = |state| {
            registry.gauge(
                &format!("{prefix}_balancer_endpoints"),
                "Endpoints by state.",
                &labels.with("endpoint_state", state),
            )
        };
        let transitions = |to| {
            registry.counter(
                "tulle_breaker_transitions",
                "How often circuit breakers opened for failures and closed again.",
                &labels.with("to", to),
            )
        };
        Rc::new(Self {
            changed: Notify::new(),
            all: Cell::new(0),
            pending: Cell::new(0),
            open: Cell::new(0),
            metrics: HealthMetrics {
                ready: endpoints("ready"),
                pending: endpoints("pending"),
                breakers: breaks.then(|| BreakerMetrics {
                    open: registry.gauge(
                        "tulle_breaker_open",
                        "Endpoints that are left out for their failures.",
                        labels,
                    ),
                    opened: transitions("open"),
                    closed: transitions("closed"),
                }),
            },
        })
    }

    /// So many endpoints there are now.
    pub(crate) fn count(&self, all: usize) {
        self.all.set(all);
        self.show();
    }

    fn differs(&self, before: Standing, now: Standing) {
        let shift = |count: &Cell<usize>, before: bool, now: bool| {
            count.set((count.get() + usize::from(now)).saturating_sub(usize::from(before)));
        };
        shift(&self.pending, before.pending, now.pending);
        shift(&self.open, before.open, now.open);
        if before != now {
            self.show();
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "endpoints are counted in thousands"
    )]
    fn show(&self) {
        let (all, pending) = (self.all.get(), self.pending.get());
        self.metrics.ready.set(all.saturating_sub(pending) as f64);
        self.metrics.pending.set(pending as f64);
        if let Some(breakers) = &self.metrics.breakers {
            breakers.open.set(self.open.get() as f64);
        }
    }

    fn transition(&self, now: BreakerState) {
        if let Some(metrics) = &self.metrics.breakers {
            match now {
                BreakerState::Closed => metrics.closed.inc(),
                BreakerState::Open(_) | BreakerState::Probing => metrics.opened.inc(),
            }
        }
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        self.open.set(0);
        self.count(0);
    }
}

/// One request at an endpoint: counts towards its load until it is dropped, and is its probe
/// where there has to be one.
pub(crate) struct Attempt {
    pub(crate) node: Rc<Node>,
    verdict: Cell<Verdict>,
}

/// What this request has told about its endpoint.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Awaited { probe: bool },
    Given,
}

impl Attempt {
    pub(crate) fn start(node: Rc<Node>) -> Self {
        node.load.start();
        node.requests.begin();
        let probe = node
            .breaker()
            .is_some_and(|breaker| breaker.begin(Instant::now()));
        Self {
            node,
            verdict: Cell::new(Verdict::Awaited { probe }),
        }
    }

    /// The head of the response is here.
    pub(crate) fn answered(&self, response: &Response, facts: ResponseFacts) {
        self.node.reached();
        if let Some(judge) = &self.node.judge {
            self.judge_head(judge, response, facts);
        }
    }

    #[cold]
    fn judge_head(&self, judge: &Judge, response: &Response, facts: ResponseFacts) {
        let (status, grpc) = (facts.status, facts.grpc_status);
        let hint = retry_after(status, grpc, response.headers(), SystemTime::now());
        if let Some(penalty) = judge.penalty
            && penalised(status, grpc)
        {
            let asked = hint.unwrap_or_default().min(penalty.max_retry_after);
            self.node
                .load
                .punish(penalty.penalty.max(asked), Instant::now());
        }
        let so_far = facts.so_far();
        if so_far.failure || (judge.counts_throttling && throttled(so_far)) {
            self.fail(hint.filter(|_| judge.respects_hints));
        }
    }

    /// The endpoint broke the exchange off.
    pub(crate) fn lost(&self) {
        self.fail(None);
    }

    /// The first data is here. A stream may go on for hours, and a probe that began one has
    /// shown enough.
    pub(crate) fn spoke(&self) {
        if self.verdict.get() == (Verdict::Awaited { probe: true }) {
            self.give(Outcome::Success);
        }
    }

    /// The response is over.
    pub(crate) fn ended(&self, ended: Ended, end: &End<'_>) {
        let Some(judge) = &self.node.judge else {
            return;
        };
        if ended.failure || (judge.counts_throttling && throttled(ended)) {
            self.fail(None);
        } else if !matches!(end, End::Dropped) {
            self.give(Outcome::Success);
        }
    }

    fn fail(&self, retry_after: Option<Duration>) {
        self.give(Outcome::Failure { retry_after });
    }

    fn give(&self, outcome: Outcome) {
        if let Verdict::Awaited { probe } = self.verdict.replace(Verdict::Given)
            && let Some(breaker) = self.node.breaker()
        {
            self.node.end(breaker, outcome, probe);
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.node.load.finish();
        if self.verdict.get() == (Verdict::Awaited { probe: true })
            && let Some(breaker) = self.node.breaker()
        {
            breaker.abandon(Instant::now());
            self.node.checked();
        }
    }
}

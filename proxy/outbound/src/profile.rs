//! What the routes of a service profile count, and how much they may try again.

use std::{cell::OnceCell, rc::Rc, sync::Arc, time::Duration};

use http::HeaderValue;
use tokio::time::Instant;
use tulle_http::Request;
use tulle_metrics::{Counter, Labels};
use tulle_policy::outbound::{Profile, ProfileRoute};
use tulle_telemetry::{ACTUAL, Ended, PROFILE, RequestMetrics};

use crate::{Shard, budget::Budget, retry::Event};

/// The header that tells the other side which profile a request went by.
const CANONICAL: &str = "l5d-dst-canonical";

/// One route of a profile, as a shard uses it.
pub(crate) struct Profiled {
    route: Arc<ProfileRoute>,
    /// All routes of the profile share it; none where it has no legal one.
    budget: Option<Rc<Budget>>,
    name: Option<HeaderValue>,
    requests: RequestMetrics,
    actual: RequestMetrics,
    retryable: OnceCell<(Counter, Counter)>,
    labels: Labels,
    shard: Rc<Shard>,
}

/// What a profile's routes may try again together, on one shard of several.
pub(crate) fn budget(profile: &Profile, shards: usize) -> Option<Rc<Budget>> {
    let budget = profile.budget?;
    #[expect(clippy::cast_precision_loss, reason = "a few shards")]
    let per_second = budget.per_second / shards.max(1) as f64;
    let budget = Budget::new(budget.ratio, per_second, budget.window, Instant::now());
    Some(Rc::new(budget))
}

impl Profiled {
    pub(crate) fn new(
        shard: &Rc<Shard>,
        route: &Arc<ProfileRoute>,
        budget: Option<Rc<Budget>>,
    ) -> Self {
        let labels = shard.labels().with("dst", &route.dst).with_all(
            route
                .labels
                .iter()
                .map(|(key, value)| (format!("rt_{key}"), value)),
        );
        Self {
            budget,
            name: HeaderValue::from_str(&route.dst).ok(),
            requests: RequestMetrics::of(&PROFILE, &shard.registry, labels.clone()),
            actual: RequestMetrics::of(&ACTUAL, &shard.registry, labels.clone()),
            retryable: OnceCell::new(),
            labels,
            shard: shard.clone(),
            route: route.clone(),
        }
    }

    /// A request begins.
    pub(crate) fn begin(&self, request: &mut Request, now: Instant) {
        self.requests.begin();
        if let Some(budget) = &self.budget {
            budget.request(now);
        }
        if let Some(name) = &self.name {
            request.headers_mut().insert(CANONICAL, name.clone());
        }
    }

    /// The request is given to an endpoint.
    pub(crate) fn attempt(&self) {
        self.actual.begin();
    }

    /// What a response is by the route's own classes.
    pub(crate) fn judged(&self, ended: Ended) -> Ended {
        match self.route.is_failure(ended.status) {
            // A response that broke off is a failure whatever its head said.
            Some(failure) if ended.error.is_empty() => Ended { failure, ..ended },
            _ => ended,
        }
    }

    /// A try is over.
    pub(crate) fn tried(&self, ended: Ended, took: Duration) {
        self.actual.end(self.judged(ended), took);
    }

    /// The request is over.
    pub(crate) fn end(&self, ended: Ended, latency: Duration) {
        self.requests.end(self.judged(ended), latency);
    }

    /// How long a request may wait for its response.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.route.timeout
    }

    /// Whether the budget has another try, which it loses.
    pub(crate) fn may_try(&self, now: Instant) -> bool {
        self.budget.as_ref().is_some_and(|budget| budget.take(now))
    }

    pub(crate) fn note(&self, event: Event) {
        if !self.route.is_retryable() {
            return;
        }
        let (retryable, no_budget) = self.retryable.get_or_init(|| {
            let counter = |labels: &Labels| {
                let help = "Failures that a profile allows to be tried again.";
                let registry = &self.shard.registry;
                registry.counter("route_retryable", help, labels)
            };
            let skipped = self.labels.with("skipped", "no_budget");
            (counter(&self.labels), counter(&skipped))
        });
        match event {
            Event::Again => retryable.inc(),
            Event::Budget => no_budget.inc(),
            Event::Succeeded | Event::Limit | Event::Overflow => {}
        }
    }
}

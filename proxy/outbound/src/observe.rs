use std::{cell::Cell, net::SocketAddr, rc::Rc};

use tokio::time::Instant;
use tulle_http::{BodyError, End, Observer};
use tulle_telemetry::{ResponseFacts, Slot};

use crate::{Shard, destination::RouteMetrics, node::Attempt, profile::Profiled};

/// Follows a response to its end.
pub(crate) struct Following {
    pub(crate) arrived: Instant,
    pub(crate) sent: Instant,
    pub(crate) facts: ResponseFacts,
    pub(crate) attempt: Attempt,
    pub(crate) metrics: Rc<RouteMetrics>,
    pub(crate) profile: Option<Rc<Profiled>>,
    pub(crate) first_data: Cell<Option<Instant>>,
    /// Who counts it if the response is ended by us.
    pub(crate) service: (Rc<Shard>, SocketAddr),
    pub(crate) _slot: Slot,
}

impl Following {
    /// The estimate is completed by the first data of the response, not by its head: a head
    /// may be ready long before the work is done.
    fn first(&self, now: Instant) -> Instant {
        self.first_data.get().unwrap_or_else(|| {
            self.first_data.set(Some(now));
            self.attempt.node.load.observe(now - self.sent, now);
            self.attempt.spoke();
            now
        })
    }
}

impl Observer for Following {
    fn data(&self, _bytes: usize) {
        if self.first_data.get().is_none() {
            self.first(Instant::now());
        }
    }

    fn end(&self, end: End<'_>) {
        let now = Instant::now();
        let first = self.first(now);
        let mut ended = self.facts.end(&end);
        if let End::Failed(BodyError::Refused(refusal)) = end {
            let (shard, target) = &self.service;
            shard.refusals.note(refusal, None, *target);
        }
        if let Some(profile) = &self.profile {
            ended = profile.judged(ended);
            profile.tried(ended, now - self.sent);
            profile.end(ended, first - self.arrived);
        }
        self.attempt.ended(ended, &end);
        self.attempt.node.requests.end(ended, first - self.arrived);
        self.metrics.route.end(ended, now - self.arrived);
        self.metrics.backend.end(ended, now - self.sent);
    }
}

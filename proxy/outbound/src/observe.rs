use std::{cell::Cell, rc::Rc};

use tokio::time::Instant;
use tulle_http::{End, Observer};
use tulle_telemetry::ResponseFacts;

use crate::{Shard, balancer::Node, destination::RouteMetrics};

/// A slot among the requests in flight, given back when it is dropped.
pub(crate) struct Slot(Rc<Shard>);

impl Slot {
    /// Take a slot; none is left where the proxy carries as much as it may.
    pub(crate) fn take(shard: &Rc<Shard>) -> Option<Self> {
        let taken = shard.in_flight.get();
        if taken >= shard.config.outbound.max_in_flight {
            return None;
        }
        shard.in_flight.set(taken + 1);
        Some(Self(shard.clone()))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
    }
}

/// One request at an endpoint: counts towards its load until it is dropped.
pub(crate) struct InFlight(pub(crate) Rc<Node>);

impl InFlight {
    pub(crate) fn start(node: Rc<Node>) -> Self {
        node.load.start();
        node.requests.begin();
        Self(node)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.load.finish();
    }
}

/// Follows a response to its end.
pub(crate) struct Following {
    pub(crate) arrived: Instant,
    pub(crate) sent: Instant,
    pub(crate) facts: ResponseFacts,
    pub(crate) in_flight: InFlight,
    pub(crate) metrics: Rc<RouteMetrics>,
    pub(crate) first_data: Cell<Option<Instant>>,
    pub(crate) _slot: Slot,
}

impl Following {
    /// The estimate is completed by the first data of the response, not by its head: a head
    /// may be ready long before the work is done.
    fn first(&self, now: Instant) -> Instant {
        self.first_data.get().unwrap_or_else(|| {
            self.first_data.set(Some(now));
            self.in_flight.0.load.observe(now - self.sent, now);
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
        let ended = self.facts.end(&end);
        self.in_flight.0.requests.end(ended, first - self.arrived);
        self.metrics.route.end(ended, now - self.arrived);
        self.metrics.backend.end(ended, now - self.sent);
    }
}

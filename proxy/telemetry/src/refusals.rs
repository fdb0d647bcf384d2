use std::{cell::RefCell, collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use ahash::RandomState;
use tokio::time::Instant;
use tulle_core::{Direction, Reason, Refusal};
use tulle_metrics::{Counter, Labels, Registry};

/// One refusal in that time is written to the log for each reason and resource; the others
/// are counted only. Who is refused on purpose must not be able to fill a disk.
const NOTICE: Duration = Duration::from_secs(1);

/// More kinds of refusals than this, and their handles are made anew now and then.
const MAX_KINDS: usize = 1024;

/// Counts the refusals of one half of a shard, and writes them to the log.
#[derive(Debug)]
pub struct Refusals {
    registry: Registry,
    direction: Direction,
    kinds: RefCell<HashMap<Key, Kind, RandomState>>,
}

/// With the resource.
type Key = (Reason, Option<Arc<str>>);

#[derive(Debug)]
struct Kind {
    counter: Counter,
    noticed: Option<Instant>,
}

impl Refusals {
    /// No refusal yet.
    #[must_use]
    pub fn new(registry: &Registry, direction: Direction) -> Self {
        Self {
            registry: registry.clone(),
            direction,
            kinds: RefCell::default(),
        }
    }

    /// A request or a connection was refused, or a connection was closed.
    pub fn note(&self, refusal: &Refusal, client: Option<SocketAddr>, target: SocketAddr) {
        let now = Instant::now();
        let silent = {
            let mut kinds = self.kinds.borrow_mut();
            if kinds.len() >= MAX_KINDS {
                kinds.clear();
            }
            let key = (refusal.reason, refusal.resource.clone());
            let kind = kinds.entry(key).or_insert_with(|| self.kind(refusal));
            kind.counter.inc();
            let silent = kind.noticed.is_some_and(|last| now < last + NOTICE);
            if !silent {
                kind.noticed = Some(now);
            }
            silent
        };
        if silent {
            return;
        }
        tracing::info!(
            reason = refusal.reason.code(),
            hop = self.direction.label(),
            phase = refusal.reason.phase().name(),
            resource = refusal.resource.as_deref().unwrap_or_default(),
            client = client.map(tracing::field::display),
            %target,
            %refusal,
            "refused"
        );
    }

    fn kind(&self, refusal: &Refusal) -> Kind {
        let labels = Labels::none()
            .with("direction", self.direction.label())
            .with("reason", refusal.reason.code())
            .with("phase", refusal.reason.phase().name())
            .with("resource", refusal.resource.as_deref().unwrap_or_default());
        Kind {
            counter: self.registry.counter(
                "tulle_refusals",
                "Requests and connections refused by this proxy.",
                &labels,
            ),
            noticed: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_counted_by_reason_phase_and_resource() {
        let registry = Registry::new();
        let refusals = Refusals::new(&registry, Direction::Inbound);
        let refusal = Refusal::new(Reason::Unauthorized, "no").by(&"Server/members");
        let target = ([10, 0, 0, 1], 80).into();

        refusals.note(&refusal, None, target);
        refusals.note(&refusal, None, target);

        let line = "tulle_refusals_total{direction=\"inbound\",phase=\"policy\",\
                    reason=\"unauthorized\",resource=\"Server/members\"} 2\n";
        assert!(registry.render().contains(line), "{}", registry.render());
    }
}

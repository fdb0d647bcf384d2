//! How many second tries there may be.
//!
//! A part of the requests of the last seconds, so that tries never multiply the load of a
//! service that fails; and always a few, or a service with little traffic would have none.

use std::{cell::RefCell, time::Duration};

use tokio::time::Instant;

const SLOTS: usize = 10;

/// Counts requests and tries over a sliding window. One per destination and shard.
#[derive(Debug)]
pub(crate) struct Budget {
    ratio: f64,
    /// Tries in a window that need no requests.
    reserve: f64,
    slot: Duration,
    window: RefCell<Window>,
}

#[derive(Debug)]
struct Window {
    slots: [Slot; SLOTS],
    at: usize,
    /// When the slot in use is over.
    until: Instant,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    requests: u64,
    tries: u64,
}

impl Budget {
    /// `ratio` tries per request and `per_second` in any case, both over `window`.
    pub(crate) fn new(ratio: f64, per_second: f64, window: Duration, now: Instant) -> Self {
        let slot = (window / 10).max(Duration::from_millis(1));
        Self {
            ratio,
            reserve: per_second * window.as_secs_f64(),
            slot,
            window: RefCell::new(Window {
                slots: [Slot::default(); SLOTS],
                at: 0,
                until: now + slot,
            }),
        }
    }

    /// That of tries which nobody asked for: a fifth of the requests, and one a second.
    pub(crate) fn by_default(now: Instant) -> Self {
        Self::new(0.2, 1.0, Duration::from_secs(10), now)
    }

    /// Count a request.
    pub(crate) fn request(&self, now: Instant) {
        let mut window = self.window.borrow_mut();
        window.turn(self.slot, now);
        let at = window.at;
        window.slots[at].requests += 1;
    }

    /// Take one try out of the budget; false where nothing is left.
    #[expect(clippy::cast_precision_loss, reason = "counts of some seconds")]
    pub(crate) fn take(&self, now: Instant) -> bool {
        let mut window = self.window.borrow_mut();
        window.turn(self.slot, now);
        let requests: u64 = window.slots.iter().map(|slot| slot.requests).sum();
        let tries: u64 = window.slots.iter().map(|slot| slot.tries).sum();
        let allowed = self.reserve + self.ratio * requests as f64;
        if (tries + 1) as f64 > allowed {
            return false;
        }
        let at = window.at;
        window.slots[at].tries += 1;
        true
    }
}

impl Window {
    fn turn(&mut self, slot: Duration, now: Instant) {
        if now >= self.until {
            self.forget(slot, now);
        }
    }

    #[cold]
    fn forget(&mut self, slot: Duration, now: Instant) {
        for _ in 0..SLOTS {
            if now < self.until {
                return;
            }
            self.at = (self.at + 1) % SLOTS;
            self.slots[self.at] = Slot::default();
            self.until += slot;
        }
        // Nothing happened for longer than the window.
        if now >= self.until {
            self.until = now + slot;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);

    #[test]
    fn a_fifth_of_the_requests_may_be_tried_again() {
        let now = Instant::now();
        let budget = Budget::new(0.2, 0.0, WINDOW, now);
        for _ in 0..100 {
            budget.request(now);
        }

        let taken = (0..100).filter(|_| budget.take(now)).count();

        assert_eq!(taken, 20);
    }

    #[test]
    fn a_quiet_destination_has_a_reserve_that_comes_back() {
        let now = Instant::now();
        let budget = Budget::by_default(now);
        budget.request(now);

        assert_eq!((0..100).filter(|_| budget.take(now)).count(), 10);
        assert!(!budget.take(now + WINDOW / 2));
        assert_eq!(
            (0..100).filter(|_| budget.take(now + WINDOW * 2)).count(),
            10
        );
    }

    proptest! {
        /// Whatever the order of events: no more than the ratio of what the window holds, and
        /// the reserve.
        #[test]
        fn tries_never_exceed_the_budget(events in proptest::collection::vec((0_u64..400, any::<bool>()), 1..400)) {
            let begin = Instant::now();
            let budget = Budget::new(0.2, 0.5, WINDOW, begin);
            let mut now = begin;
            let (mut requests, mut tries) = (Vec::new(), Vec::new());

            for (wait, request) in events {
                now += Duration::from_millis(wait);
                if request {
                    budget.request(now);
                    requests.push(now);
                    continue;
                }
                if !budget.take(now) {
                    continue;
                }
                tries.push(now);
                // A slot is forgotten as a whole, so the window may be shorter by one slot.
                let within = |events: &[Instant], window: Duration| {
                    events.iter().filter(|at| now - **at < window).count()
                };
                let short = WINDOW * 9 / 10;
                #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
                let allowed = 5.0 + 0.2 * within(&requests, WINDOW) as f64;
                #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
                let used = within(&tries, short) as f64;
                prop_assert!(used <= allowed, "{used} of {allowed}");
            }
        }
    }
}

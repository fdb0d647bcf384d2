//! When to stop waiting for a ready endpoint.
//!
//! While none is ready, requests wait, for the time that a restart of one needs. When that
//! time is over, those that wait and those that come fail at once, because a queue behind a
//! service that is gone only ties up its clients. The first ready endpoint ends that.

use std::{cell::Cell, time::Duration};

use tokio::time::Instant;

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// An endpoint is ready: send it.
    Send,
    /// None is ready: wait for one, at most until then.
    Wait(Instant),
    /// None has been ready for too long: refuse.
    Fail,
}

/// Since when a balancer has had no ready endpoint.
#[derive(Debug)]
pub struct FailFast {
    after: Duration,
    unready_since: Cell<Option<Instant>>,
}

impl FailFast {
    /// A balancer that fails fast after that long without a ready endpoint.
    #[must_use]
    pub const fn new(after: Duration) -> Self {
        Self {
            after,
            unready_since: Cell::new(None),
        }
    }

    /// Take in whether an endpoint is ready now, and say what becomes of a request.
    ///
    /// To be called with every request, and when the set of endpoints or one of them changes:
    /// the time without one begins with the first call that says so.
    pub fn observe(&self, any_ready: bool, now: Instant) -> Verdict {
        if any_ready {
            self.unready_since.set(None);
            return Verdict::Send;
        }
        let since = self.unready_since.get().unwrap_or(now);
        self.unready_since.set(Some(since));
        let until = since + self.after;
        if now < until {
            Verdict::Wait(until)
        } else {
            Verdict::Fail
        }
    }

    /// Whether requests fail at once, as far as the last observation goes.
    #[must_use]
    pub fn failing(&self, now: Instant) -> bool {
        self.unready_since
            .get()
            .is_some_and(|since| now >= since + self.after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_secs(3);

    #[test]
    fn a_ready_endpoint_is_used() {
        let fail_fast = FailFast::new(AFTER);

        assert_eq!(fail_fast.observe(true, Instant::now()), Verdict::Send);
    }

    #[test]
    fn without_one_requests_wait_and_then_fail_at_once() {
        let now = Instant::now();
        let fail_fast = FailFast::new(AFTER);

        assert_eq!(fail_fast.observe(false, now), Verdict::Wait(now + AFTER));
        assert_eq!(
            fail_fast.observe(false, now + AFTER / 2),
            Verdict::Wait(now + AFTER)
        );
        assert!(!fail_fast.failing(now + AFTER / 2));

        assert_eq!(fail_fast.observe(false, now + AFTER), Verdict::Fail);
        assert_eq!(fail_fast.observe(false, now + 10 * AFTER), Verdict::Fail);
        assert!(fail_fast.failing(now + AFTER));
    }

    #[test]
    fn the_first_ready_endpoint_ends_it() {
        let now = Instant::now();
        let fail_fast = FailFast::new(AFTER);
        fail_fast.observe(false, now);
        assert_eq!(fail_fast.observe(false, now + AFTER), Verdict::Fail);

        assert_eq!(fail_fast.observe(true, now + 2 * AFTER), Verdict::Send);

        assert!(!fail_fast.failing(now + 2 * AFTER));
        let again = now + 3 * AFTER;
        assert_eq!(
            fail_fast.observe(false, again),
            Verdict::Wait(again + AFTER)
        );
    }
}

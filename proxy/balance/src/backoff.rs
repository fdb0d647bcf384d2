use std::{cell::Cell, time::Duration};

use tokio::time::Instant;

/// How long to wait after the first, second … failure in a row: twice as long each time, from
/// `min` to `max`, and up to `jitter` times that on top, so that those who failed together do
/// not come back together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    jitter: f64,
}

impl Backoff {
    /// `jitter` is a ratio: 0.5 makes a wait up to half as long again.
    #[must_use]
    pub const fn new(min: Duration, max: Duration, jitter: f64) -> Self {
        Self { min, max, jitter }
    }

    /// The longest wait, jitter apart.
    #[must_use]
    pub fn max(&self) -> Duration {
        self.max.max(self.min)
    }

    /// The wait after `failures` failures in a row, which is at least 1. `random` is uniformly
    /// distributed. Never longer than `max` by more than the jitter.
    #[must_use]
    pub fn wait(&self, failures: u32, random: u64) -> Duration {
        let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
        let base = self.min.saturating_mul(doubled).min(self.max());
        #[expect(clippy::cast_precision_loss, reason = "a fraction need not be exact")]
        let fraction = random as f64 / u64::MAX as f64;
        let jitter = Duration::try_from_secs_f64(base.as_secs_f64() * self.jitter * fraction);
        base.saturating_add(jitter.unwrap_or(Duration::ZERO))
    }
}

/// Whether an endpoint may be connected to: not while it waits after a failure.
///
/// The gate opens by itself when the wait is over; whoever comes then is the one who tries.
#[derive(Debug)]
pub struct ConnectGate {
    backoff: Backoff,
    failures: Cell<u32>,
    closed_until: Cell<Option<Instant>>,
}

impl ConnectGate {
    /// An open gate.
    #[must_use]
    pub const fn new(backoff: Backoff) -> Self {
        Self {
            backoff,
            failures: Cell::new(0),
            closed_until: Cell::new(None),
        }
    }

    /// Whether the last attempt failed: an open gate says then that it may be tried again, and
    /// not that somebody is there.
    #[must_use]
    pub const fn doubtful(&self) -> bool {
        self.failures.get() > 0
    }

    /// The endpoint could not be connected to. Returns when it may be tried again.
    ///
    /// A failure while the gate is closed belongs to an attempt that began before it closed:
    /// ten attempts that fail together are one failure, not a wait of a thousand times `min`.
    pub fn failed(&self, random: u64, now: Instant) -> Instant {
        if let Some(until) = self.closed_until.get()
            && now < until
        {
            return until;
        }
        self.failures.set(self.failures.get().saturating_add(1));
        let until = now + self.backoff.wait(self.failures.get(), random);
        self.closed_until.set(Some(until));
        until
    }

    /// The endpoint was connected to: the next failure is a first one.
    pub fn succeeded(&self) {
        self.failures.set(0);
        self.closed_until.set(None);
    }

    /// Whether the endpoint may be connected to.
    #[must_use]
    pub fn open(&self, now: Instant) -> bool {
        self.closed_until.get().is_none_or(|until| now >= until)
    }

    /// When the gate opens, where it is closed.
    #[must_use]
    pub fn opens_at(&self, now: Instant) -> Option<Instant> {
        self.closed_until.get().filter(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn waits_double_up_to_the_longest() {
        let backoff = Backoff::new(100 * MS, 500 * MS, 0.0);

        let waits: Vec<_> = (1..=5)
            .map(|failures| backoff.wait(failures, u64::MAX))
            .collect();

        assert_eq!(waits, [100 * MS, 200 * MS, 400 * MS, 500 * MS, 500 * MS]);
    }

    #[test]
    fn a_gate_is_closed_for_the_wait_and_then_open() {
        let now = Instant::now();
        let gate = ConnectGate::new(Backoff::new(100 * MS, 500 * MS, 0.0));
        assert!(gate.open(now));

        let until = gate.failed(0, now);

        assert_eq!(until, now + 100 * MS);
        assert!(!gate.open(now + 99 * MS));
        assert_eq!(gate.opens_at(now + 99 * MS), Some(until));
        assert!(gate.open(until));
        assert_eq!(gate.opens_at(until), None);
    }

    #[test]
    fn attempts_that_fail_together_are_one_failure() {
        let now = Instant::now();
        let gate = ConnectGate::new(Backoff::new(100 * MS, 500 * MS, 0.0));

        for _ in 0..10 {
            assert_eq!(gate.failed(0, now), now + 100 * MS);
        }
        assert_eq!(gate.failed(0, now + 100 * MS), now + 300 * MS);
    }

    #[test]
    fn a_success_opens_the_gate_and_forgets_the_failures() {
        let now = Instant::now();
        let gate = ConnectGate::new(Backoff::new(100 * MS, 500 * MS, 0.0));
        gate.failed(0, now);
        gate.failed(0, now + 100 * MS);

        gate.succeeded();

        assert!(gate.open(now + 100 * MS));
        assert_eq!(gate.failed(0, now + 200 * MS), now + 300 * MS);
    }

    proptest! {
        #[test]
        fn a_wait_is_between_the_shortest_and_the_longest_with_jitter(
            min in 0_u32..10_000, more in 0_u32..100_000, jitter in 0.0..100.0_f64,
            failures in any::<u32>(), random in any::<u64>(),
        ) {
            let (min, max) = (min * MS, (min + more) * MS);

            let wait = Backoff::new(min, max, jitter).wait(failures, random);

            prop_assert!(wait >= min);
            prop_assert!(wait.as_secs_f64() <= max.as_secs_f64() * (1.0 + jitter) + 1e-6);
        }
    }
}

//! When an endpoint is left out for what it answers, and when it comes back.
//!
//! *Closed*: every outcome counts, and failures trip it: so many in a row, or too small a part
//! of successes in a window. *Open*: nothing is sent for the back-off, which is longer each
//! time, and outcomes of requests that were sent before say nothing. Then one *probe* is let
//! through: its success closes the breaker and forgets everything, its failure opens it again.
//! A probe that ends without an outcome leaves its turn to the next request.

use std::{cell::Cell, time::Duration};

use tokio::time::Instant;

use crate::Backoff;

/// What trips a breaker; either suffices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trip {
    /// So many failures in a row.
    pub consecutive: Option<u32>,
    /// Too few successes.
    pub rate: Option<SuccessRate>,
}

/// A part of successes below which an endpoint is left out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SuccessRate {
    /// Between 0 and 1.
    pub threshold: f64,
    /// How long an outcome counts.
    pub window: Duration,
    /// Fewer outcomes in the window say nothing.
    pub min_requests: u32,
}

/// How a request ended, as far as the endpoint is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Well, or not by the endpoint's fault.
    Success,
    /// Badly; the endpoint may have said for how long it wants to be left alone.
    Failure {
        /// What it said, where that is to be respected. Never longer than the longest back-off.
        retry_after: Option<Duration>,
    },
}

/// Whether an endpoint may be used, and what that is known from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// It is used.
    Closed,
    /// It is not, until then; whoever comes after that is the probe.
    Open(Instant),
    /// One request tries it.
    Probing,
}

/// The breaker of one endpoint, seen from one shard.
#[derive(Debug)]
pub struct Breaker {
    trip: Trip,
    backoff: Backoff,
    state: Cell<BreakerState>,
    /// Failures in a row while closed.
    failures: Cell<u32>,
    /// How often it opened since it was closed last.
    opened: Cell<u32>,
    window: Window,
}

impl Breaker {
    /// A closed breaker.
    #[must_use]
    pub fn new(trip: Trip, backoff: Backoff, now: Instant) -> Self {
        Self {
            trip,
            backoff,
            state: Cell::new(BreakerState::Closed),
            failures: Cell::new(0),
            opened: Cell::new(0),
            window: Window::new(trip.rate.map_or(Duration::ZERO, |rate| rate.window), now),
        }
    }

    /// Whether a request may be sent.
    #[must_use]
    pub fn ready(&self, now: Instant) -> bool {
        match self.state.get() {
            BreakerState::Closed => true,
            BreakerState::Open(until) => now >= until,
            BreakerState::Probing => false,
        }
    }

    /// What it is.
    #[must_use]
    pub const fn state(&self) -> BreakerState {
        self.state.get()
    }

    /// When a probe may be sent, where that is later.
    #[must_use]
    pub fn opens_at(&self, now: Instant) -> Option<Instant> {
        match self.state.get() {
            BreakerState::Open(until) if until > now => Some(until),
            _ => None,
        }
    }

    /// A request is sent; return whether it is the probe. [`Self::end`] or, without an outcome,
    /// [`Self::abandon`] follows.
    pub fn begin(&self, now: Instant) -> bool {
        let probe = matches!(self.state.get(), BreakerState::Open(until) if now >= until);
        if probe {
            self.state.set(BreakerState::Probing);
        }
        probe
    }

    /// Take an outcome in; return the new state where it is another one.
    pub fn end(
        &self,
        outcome: Outcome,
        probe: bool,
        random: u64,
        now: Instant,
    ) -> Option<BreakerState> {
        match (self.state.get(), outcome) {
            (BreakerState::Closed, Outcome::Success) => {
                self.failures.set(0);
                if self.trip.rate.is_some() {
                    self.window.add(true, now);
                }
                None
            }
            (BreakerState::Closed, Outcome::Failure { retry_after }) => {
                self.failures.set(self.failures.get().saturating_add(1));
                if self.trip.rate.is_some() {
                    self.window.add(false, now);
                }
                self.trips(now).then(|| self.open(retry_after, random, now))
            }
            (BreakerState::Probing, Outcome::Success) if probe => {
                self.failures.set(0);
                self.opened.set(0);
                self.window.clear(now);
                self.state.set(BreakerState::Closed);
                Some(BreakerState::Closed)
            }
            (BreakerState::Probing, Outcome::Failure { retry_after }) if probe => {
                Some(self.open(retry_after, random, now))
            }
            // Sent before it opened: known already.
            _ => None,
        }
    }

    /// The probe has ended and told nothing; the next request is one.
    pub fn abandon(&self, now: Instant) {
        if self.state.get() == BreakerState::Probing {
            self.state.set(BreakerState::Open(now));
        }
    }

    fn trips(&self, now: Instant) -> bool {
        let failures = self.failures.get();
        let in_a_row = self.trip.consecutive.is_some_and(|most| failures >= most);
        in_a_row
            || self.trip.rate.is_some_and(|rate| {
                let (successes, all) = self.window.count(now);
                all >= rate.min_requests && f64::from(successes) < rate.threshold * f64::from(all)
            })
    }

    fn open(&self, retry_after: Option<Duration>, random: u64, now: Instant) -> BreakerState {
        self.opened.set(self.opened.get().saturating_add(1));
        let wait = self.backoff.wait(self.opened.get(), random);
        let asked = retry_after.unwrap_or_default().min(self.backoff.max());
        let state = BreakerState::Open(now + wait.max(asked));
        self.state.set(state);
        state
    }
}

/// Buckets of a window; each is forgotten as a whole.
const BUCKETS: u32 = 10;

/// Outcomes of the last while.
#[derive(Debug)]
struct Window {
    bucket: Duration,
    /// Successes and all, oldest overwritten.
    counts: [Cell<(u32, u32)>; BUCKETS as usize],
    /// The bucket in use, and when it began.
    current: Cell<(usize, Instant)>,
}

impl Window {
    fn new(length: Duration, now: Instant) -> Self {
        Self {
            bucket: length / BUCKETS,
            counts: Default::default(),
            current: Cell::new((0, now)),
        }
    }

    fn add(&self, success: bool, now: Instant) {
        self.advance(now);
        let count = &self.counts[self.current.get().0];
        let (successes, all) = count.get();
        let successes = successes.saturating_add(u32::from(success));
        count.set((successes, all.saturating_add(1)));
    }

    fn count(&self, now: Instant) -> (u32, u32) {
        self.advance(now);
        let counts = self.counts.iter().map(Cell::get);
        counts.fold((0, 0), |(successes, all), (more, of)| {
            (
                u32::saturating_add(successes, more),
                u32::saturating_add(all, of),
            )
        })
    }

    fn clear(&self, now: Instant) {
        for count in &self.counts {
            count.set((0, 0));
        }
        self.current.set((0, now));
    }

    /// Go on to the bucket that `now` belongs to; what is passed over is empty.
    fn advance(&self, now: Instant) {
        let (mut index, mut begun) = self.current.get();
        if now.saturating_duration_since(begun) >= 2 * BUCKETS * self.bucket {
            return self.clear(now);
        }
        while !self.bucket.is_zero() && now >= begun + self.bucket {
            index = (index + 1) % self.counts.len();
            begun += self.bucket;
            self.counts[index].set((0, 0));
        }
        self.current.set((index, begun));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: Duration = Duration::from_secs(1);
    const FAILURE: Outcome = Outcome::Failure { retry_after: None };

    fn breaker(trip: Trip, now: Instant) -> Breaker {
        Breaker::new(trip, Backoff::new(S, 60 * S, 0.0), now)
    }

    fn after(failures: u32, now: Instant) -> Breaker {
        let trip = Trip {
            consecutive: Some(failures),
            rate: None,
        };
        breaker(trip, now)
    }

    fn below(threshold: f64, min_requests: u32, now: Instant) -> Breaker {
        let rate = SuccessRate {
            threshold,
            window: 10 * S,
            min_requests,
        };
        let trip = Trip {
            consecutive: None,
            rate: Some(rate),
        };
        breaker(trip, now)
    }

    /// Send and end one request.
    fn ended(breaker: &Breaker, outcome: Outcome, now: Instant) -> Option<BreakerState> {
        let probe = breaker.begin(now);
        breaker.end(outcome, probe, 0, now)
    }

    #[test]
    fn so_many_failures_in_a_row_open_it() {
        let now = Instant::now();
        let breaker = after(3, now);

        let states: Vec<_> = [
            FAILURE,
            FAILURE,
            Outcome::Success,
            FAILURE,
            FAILURE,
            FAILURE,
        ]
        .into_iter()
        .map(|outcome| ended(&breaker, outcome, now))
        .collect();

        let open = Some(BreakerState::Open(now + S));
        assert_eq!(states, [None, None, None, None, None, open]);
        assert!(!breaker.ready(now));
        assert_eq!(breaker.opens_at(now), Some(now + S));
    }

    #[test]
    fn after_the_back_off_one_probe_is_let_through_and_its_success_closes_it() {
        let now = Instant::now();
        let breaker = after(1, now);
        ended(&breaker, FAILURE, now);
        let later = now + S;
        assert!(breaker.ready(later));

        assert!(breaker.begin(later));
        assert!(!breaker.ready(later));
        let closed = breaker.end(Outcome::Success, true, 0, later);

        assert_eq!(closed, Some(BreakerState::Closed));
        assert!(breaker.ready(later));
        assert_eq!(
            ended(&breaker, FAILURE, later),
            Some(BreakerState::Open(later + S))
        );
    }

    #[test]
    fn a_probe_that_fails_opens_it_for_twice_as_long() {
        let now = Instant::now();
        let breaker = after(1, now);
        ended(&breaker, FAILURE, now);

        let again = ended(&breaker, FAILURE, now + S);

        assert_eq!(again, Some(BreakerState::Open(now + 3 * S)));
    }

    #[test]
    fn an_abandoned_probe_leaves_its_turn_to_the_next_request() {
        let now = Instant::now();
        let breaker = after(1, now);
        ended(&breaker, FAILURE, now);
        assert!(breaker.begin(now + S));

        breaker.abandon(now + 2 * S);

        assert!(breaker.ready(now + 2 * S));
        assert!(breaker.begin(now + 2 * S));
    }

    #[test]
    fn what_was_sent_before_it_opened_says_nothing() {
        let now = Instant::now();
        let breaker = after(1, now);
        ended(&breaker, FAILURE, now);

        assert_eq!(breaker.end(FAILURE, false, 0, now), None);
        assert_eq!(breaker.end(Outcome::Success, false, 0, now), None);
        assert!(breaker.begin(now + S));
        assert_eq!(breaker.end(Outcome::Success, false, 0, now + S), None);

        assert_eq!(breaker.state(), BreakerState::Probing);
    }

    #[test]
    fn the_endpoint_may_ask_for_a_longer_back_off_up_to_the_longest() {
        let now = Instant::now();
        for (asked, waits) in [(0, 1), (30, 30), (3600, 60)] {
            let breaker = after(1, now);
            let retry_after = Some(asked * S);

            let state = ended(&breaker, Outcome::Failure { retry_after }, now);

            assert_eq!(state, Some(BreakerState::Open(now + waits * S)));
        }
    }

    #[test]
    fn too_small_a_part_of_successes_opens_it_once_there_are_enough() {
        let now = Instant::now();
        let breaker = below(0.5, 4, now);

        assert_eq!(ended(&breaker, FAILURE, now), None);
        assert_eq!(ended(&breaker, FAILURE, now), None);
        assert_eq!(ended(&breaker, Outcome::Success, now), None);
        let state = ended(&breaker, FAILURE, now);

        assert_eq!(state, Some(BreakerState::Open(now + S)));
    }

    #[test]
    fn what_is_older_than_the_window_is_forgotten() {
        let now = Instant::now();
        let breaker = below(0.5, 3, now);
        ended(&breaker, FAILURE, now);
        ended(&breaker, FAILURE, now);

        assert_eq!(ended(&breaker, FAILURE, now + 10 * S), None);
        assert_eq!(ended(&breaker, FAILURE, now + 10 * S), None);
        assert!(ended(&breaker, FAILURE, now + 18 * S).is_some());
    }

    proptest! {
        /// Against the plainest telling: every outcome with the number of its bucket.
        #[test]
        fn the_window_holds_the_last_ten_buckets(
            events in proptest::collection::vec((0_u64..30_000, any::<bool>()), 0..80)
        ) {
            let start = Instant::now();
            let window = Window::new(10 * S, start);
            let (mut at, mut seen) = (0, Vec::new());
            let mut epoch = 0;
            for (pause, success) in events {
                at += pause;
                let now = start + Duration::from_millis(at);
                // After twice the window without a word it begins anew.
                if at - epoch >= 20_000 + (seen.last().map_or(0, |(bucket, _)| *bucket) * 1_000) {
                    seen.clear();
                    epoch = at;
                }
                window.add(success, now);
                seen.push(((at - epoch) / 1_000, success));

                let last = (at - epoch) / 1_000;
                let kept: Vec<_> = seen.iter().filter(|(bucket, _)| bucket + 10 > last).collect();
                let successes = kept.iter().filter(|(_, success)| *success).count();

                let (counted, all) = window.count(now);
                prop_assert_eq!((counted as usize, all as usize), (successes, kept.len()));
            }
        }

        #[test]
        fn at_most_one_probe_is_under_way_and_an_open_breaker_lets_nothing_through(
            steps in proptest::collection::vec((0_u8..4, 0_u64..4_000, any::<u64>()), 0..200)
        ) {
            let start = Instant::now();
            let breaker = Breaker::new(
                Trip { consecutive: Some(2), rate: None },
                Backoff::new(S, 8 * S, 0.5),
                start,
            );
            let (mut now, mut probes, mut normal) = (start, 0, 0);
            for (step, pause, random) in steps {
                now += Duration::from_millis(pause);
                match step {
                    0 if breaker.ready(now) => {
                        if breaker.begin(now) { probes += 1 } else { normal += 1 }
                    }
                    1 if probes > 0 => {
                        probes -= 1;
                        breaker.end(Outcome::Success, true, random, now);
                    }
                    2 if probes > 0 => {
                        probes -= 1;
                        breaker.abandon(now);
                    }
                    3 if normal > 0 => {
                        normal -= 1;
                        breaker.end(FAILURE, false, random, now);
                    }
                    _ => {}
                }
                prop_assert!(probes <= 1);
                prop_assert_eq!(probes == 1, breaker.state() == BreakerState::Probing);
                if let Some(at) = breaker.opens_at(now) {
                    prop_assert!(!breaker.ready(now));
                    prop_assert!(at - now <= 12 * S);
                }
            }
        }
    }
}

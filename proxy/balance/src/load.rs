//! How expensive an endpoint is at the moment.
//!
//! A slower answer than the estimate replaces it at once, a faster one pulls it down with the
//! time constant `decay`: an endpoint that becomes slow is avoided with its first slow answer
//! and has to earn its way back. The estimate also falls while nothing is observed, so that an
//! endpoint that was avoided is tried again some time. The cost is the estimate times what is
//! in flight, the request to be placed included.
//!
//! An endpoint that fails fast looks cheap and would draw everything to itself. Where the
//! policy wants it, a failure makes an endpoint cost at least a penalty, which fades with a
//! time constant of its own and which no success takes away.

use std::{cell::Cell, time::Duration};

use tokio::time::Instant;

/// The load of one endpoint, seen from one shard: peak-sensitive moving average of the round
/// trip time, and requests in flight.
#[derive(Debug)]
pub struct Load {
    /// Seconds, as of `observed`.
    estimate: Cell<f64>,
    observed: Cell<Instant>,
    decay: f64,
    in_flight: Cell<u32>,
    /// Absent where failures are not to cost anything.
    penalty: Option<Box<Penalty>>,
}

/// The least that an endpoint costs after a failure.
#[derive(Debug)]
struct Penalty {
    /// Seconds, as of `since`.
    floor: Cell<f64>,
    since: Cell<Instant>,
    decay: f64,
}

impl Load {
    /// An endpoint of which nothing is known but a guess.
    #[must_use]
    pub const fn new(seed: Duration, decay: Duration, now: Instant) -> Self {
        Self {
            estimate: Cell::new(seed.as_secs_f64()),
            observed: Cell::new(now),
            decay: decay.as_secs_f64(),
            in_flight: Cell::new(0),
            penalty: None,
        }
    }

    /// The same, to be penalised for failures by [`Self::punish`].
    #[must_use]
    pub fn with_penalty(self, decay: Duration, now: Instant) -> Self {
        let penalty = Penalty {
            floor: Cell::new(0.0),
            since: Cell::new(now),
            decay: decay.as_secs_f64(),
        };
        Self {
            penalty: Some(Box::new(penalty)),
            ..self
        }
    }

    /// A request, or connection, was given to the endpoint. One [`Self::finish`] follows.
    pub fn start(&self) {
        self.in_flight.set(self.in_flight.get().saturating_add(1));
    }

    /// It is over, whatever way it ended.
    pub fn finish(&self) {
        debug_assert!(self.in_flight.get() > 0, "finished more often than started");
        self.in_flight.set(self.in_flight.get().saturating_sub(1));
    }

    /// Take in how long the endpoint needed: for HTTP until the first data of the response, for
    /// TCP until the connection ended.
    pub fn observe(&self, rtt: Duration, now: Instant) {
        let rtt = rtt.as_secs_f64();
        let estimate = if rtt > self.estimate.get() {
            rtt
        } else {
            let weight = self.weight(now);
            self.estimate.get() * weight + rtt * (1.0 - weight)
        };
        self.estimate.set(estimate);
        self.observed.set(now.max(self.observed.get()));
    }

    /// Take in a failure that counts as a round trip of this length at least. It has an effect
    /// only [`Self::with_penalty`].
    pub fn punish(&self, least: Duration, now: Instant) {
        if let Some(penalty) = &self.penalty {
            let floor = penalty.floor(now).max(least.as_secs_f64());
            penalty.floor.set(floor);
            penalty.since.set(now.max(penalty.since.get()));
        }
    }

    /// What the next request would cost here, in seconds; only the comparison means something.
    #[must_use]
    pub fn cost(&self, now: Instant) -> f64 {
        let in_flight = f64::from(self.in_flight.get()) + 1.0;
        let estimate = self.estimate.get() * self.weight(now);
        let least = self
            .penalty
            .as_ref()
            .map_or(0.0, |penalty| penalty.floor(now));
        estimate.max(least) * in_flight
    }

    /// Requests, or connections, that have begun and not ended.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.get()
    }

    fn weight(&self, now: Instant) -> f64 {
        weight(self.observed.get(), now, self.decay)
    }
}

impl Penalty {
    fn floor(&self, now: Instant) -> f64 {
        self.floor.get() * weight(self.since.get(), now, self.decay)
    }
}

/// How much of a value is left after the time since it was taken.
fn weight(taken: Instant, now: Instant, decay: f64) -> f64 {
    let elapsed = now.saturating_duration_since(taken).as_secs_f64();
    if elapsed > 0.0 && decay > 0.0 {
        exp_minus(elapsed / decay)
    } else if elapsed > 0.0 {
        0.0
    } else {
        1.0
    }
}

/// e to the power of `-x`, for an `x` that is not negative, to nine digits and more. It is the
/// one thing that the proxy would need the system's mathematical library for, which costs each
/// process 300 KiB.
fn exp_minus(x: f64) -> f64 {
    const INVERSE: [f64; 7] = [1.0 / 7.0, 1.0 / 6.0, 0.2, 0.25, 1.0 / 3.0, 0.5, 1.0];
    if x > 700.0 {
        return 0.0;
    }
    // Halved until the series is short, and squared as often afterwards.
    let (mut y, mut halvings) = (x, 0_u32);
    while y > 0.03125 {
        y *= 0.5;
        halvings += 1;
    }
    let mut power = INVERSE
        .iter()
        .fold(1.0, |sum, inverse| 1.0 - y * inverse * sum);
    for _ in 0..halvings {
        power *= power;
    }
    power
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: Duration = Duration::from_millis(30);
    const DECAY: Duration = Duration::from_secs(10);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_decay_is_that_of_the_exponential_function() {
        for step in 0..10_000_u32 {
            let x = f64::from(step) * 0.003;

            let (ours, exact) = (exp_minus(x), (-x).exp());

            assert!((ours - exact).abs() <= 1e-9 * exact, "{x}: {ours} {exact}");
        }
        assert!(exp_minus(1e9) < f64::MIN_POSITIVE);
    }

    #[test]
    fn a_slower_answer_takes_effect_at_once() {
        let now = Instant::now();
        let load = Load::new(SEED, DECAY, now);

        load.observe(ms(500), now + ms(500));

        assert!((load.cost(now + ms(500)) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn a_faster_answer_pulls_the_estimate_down_with_the_decay() {
        let now = Instant::now();
        let load = Load::new(ms(1_000), DECAY, now);

        load.observe(ms(0), now + DECAY);

        assert!((load.cost(now + DECAY) - (-1.0_f64).exp()).abs() < 1e-9);
    }

    #[test]
    fn an_estimate_fades_while_nothing_is_observed() {
        let now = Instant::now();
        let load = Load::new(ms(1_000), DECAY, now);

        assert!((load.cost(now + 2 * DECAY) - (-2.0_f64).exp()).abs() < 1e-9);
    }

    #[test]
    fn requests_in_flight_multiply_the_cost() {
        let now = Instant::now();
        let load = Load::new(SEED, DECAY, now);
        let alone = load.cost(now);

        load.start();
        load.start();
        assert!((load.cost(now) - 3.0 * alone).abs() < 1e-9);

        load.finish();
        load.finish();
        assert!((load.cost(now) - alone).abs() < 1e-9);
        assert_eq!(load.in_flight(), 0);
    }

    #[test]
    fn a_failure_costs_at_least_the_penalty_which_no_success_takes_away() {
        let now = Instant::now();
        let load = Load::new(SEED, DECAY, now).with_penalty(DECAY, now);

        load.punish(ms(5_000), now);
        load.observe(ms(1), now);

        assert!((load.cost(now) - 5.0).abs() < 1e-9);
        assert!((load.cost(now + DECAY) - 5.0 * (-1.0_f64).exp()).abs() < 1e-9);
    }

    #[test]
    fn without_a_penalty_a_failure_costs_nothing() {
        let now = Instant::now();
        let load = Load::new(SEED, DECAY, now);
        let before = load.cost(now);

        load.punish(ms(5_000), now);

        assert!((load.cost(now) - before).abs() < 1e-9);
    }

    #[test]
    fn a_clock_that_another_task_read_earlier_does_no_harm() {
        let now = Instant::now() + DECAY;
        let load = Load::new(SEED, DECAY, now);

        load.observe(
            ms(10),
            now.checked_sub(ms(5)).expect("later than the epoch"),
        );

        assert!(load.cost(now).is_finite());
        assert!(load.cost(now) > 0.0);
    }
}

//! How expensive an endpoint is at the moment.
//!
//! A slower answer than the estimate replaces it at once, a faster one pulls it down with the
//! time constant `decay`: an endpoint that becomes slow is avoided with its first slow answer
//! and has to earn its way back. The estimate also falls while nothing is observed, so that an
//! endpoint that was avoided is tried again some time. The cost is the estimate times what is
//! in flight, the request to be placed included.

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

    /// What the next request would cost here, in seconds; only the comparison means something.
    #[must_use]
    pub fn cost(&self, now: Instant) -> f64 {
        let in_flight = f64::from(self.in_flight.get()) + 1.0;
        self.estimate.get() * self.weight(now) * in_flight
    }

    /// Requests, or connections, that have begun and not ended.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.get()
    }

    /// How much of the estimate is left after the time since it was made.
    fn weight(&self, now: Instant) -> f64 {
        let elapsed = now
            .saturating_duration_since(self.observed.get())
            .as_secs_f64();
        if elapsed > 0.0 && self.decay > 0.0 {
            (-elapsed / self.decay).exp()
        } else if elapsed > 0.0 {
            0.0
        } else {
            1.0
        }
    }
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

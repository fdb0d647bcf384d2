//! When each request is due.
//!
//! With a rate, arrivals are Poisson and do not wait for anybody: each is put in a queue, from which
//! connections take in the order in which they became free, so that all of them are used. Without a rate
//! a request is due as soon as its connection is free.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io,
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::SmallRng};
use tokio::{sync::Semaphore, time::Instant};

use crate::timer::Timer;

/// Hands out due requests.
pub struct Schedule {
    arrivals: RefCell<VecDeque<Instant>>,
    /// One permit per arrival in the queue; in a closed loop, one per connection and for ever.
    due: Semaphore,
    open: bool,
    left: Cell<u64>,
}

impl Schedule {
    /// Make a schedule for an open or a closed loop, of at most `requests`.
    pub fn new(open: bool, requests: Option<u64>) -> Self {
        Self {
            arrivals: RefCell::default(),
            due: Semaphore::new(0),
            open,
            left: Cell::new(requests.unwrap_or(u64::MAX)),
        }
    }

    /// Let a closed loop begin.
    pub fn begin(&self, connections: usize) {
        self.due.add_permits(connections);
    }

    /// Return when the next request was due, as soon as there is one; none after the end.
    pub async fn next(&self) -> Option<Instant> {
        let permit = self.due.acquire().await.ok()?;
        let left = self.left.get();
        if left == 0 {
            return None;
        }
        self.left.set(left - 1);
        if self.open {
            permit.forget();
            self.arrivals.borrow_mut().pop_front()
        } else {
            Some(Instant::now())
        }
    }

    /// Let nothing more be due; return how many arrivals nobody was free for.
    pub fn end(&self) -> usize {
        self.due.close();
        std::mem::take(&mut *self.arrivals.borrow_mut()).len()
    }

    /// Let requests arrive, for ever.
    pub async fn pace(&self, arrivals: Arrivals) -> io::Result<()> {
        let timer = Timer::new()?;
        for moment in arrivals {
            timer.until(moment).await?;
            self.arrivals.borrow_mut().push_back(moment);
            self.due.add_permits(1);
        }
        Ok(())
    }
}

/// A Poisson process: the moments at which requests arrive.
pub struct Arrivals {
    next: Instant,
    rate: f64,
    random: SmallRng,
}

impl Arrivals {
    /// Begin at a moment, with so many per second.
    pub fn new(begin: Instant, rate: f64, seed: u64) -> Self {
        Self {
            next: begin,
            rate,
            random: SmallRng::seed_from_u64(seed),
        }
    }
}

impl Iterator for Arrivals {
    type Item = Instant;

    fn next(&mut self) -> Option<Instant> {
        self.next += gap(self.random.random(), self.rate);
        Some(self.next)
    }
}

/// Return the time to the next arrival, from a number in [0, 1).
fn gap(uniform: f64, rate: f64) -> Duration {
    Duration::from_secs_f64(-(1.0 - uniform).ln() / rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn arrivals_have_the_mean_and_the_spread_of_a_poisson_process() {
        let begin = Instant::now();
        let moments: Vec<Instant> = Arrivals::new(begin, 2_000.0, 7).take(40_000).collect();

        let per_10_ms = (0..2_000_u32).map(|slot| {
            let from = begin + Duration::from_millis(10) * slot;
            let to = from + Duration::from_millis(10);
            let count = moments.iter().filter(|at| (from..to).contains(at)).count();
            f64::from(u32::try_from(count).unwrap())
        });
        let counts: Vec<f64> = per_10_ms.take(1_900).collect();
        let mean = counts.iter().sum::<f64>() / 1_900.0;
        let variance = counts
            .iter()
            .map(|count| (count - mean).powi(2))
            .sum::<f64>()
            / 1_900.0;

        assert!((mean - 20.0).abs() < 0.5, "{mean}");
        assert!((variance / mean - 1.0).abs() < 0.1, "{variance}");
    }

    #[test]
    fn the_gap_follows_the_exponential_distribution() {
        assert_eq!(gap(0.0, 1_000.0), Duration::ZERO);
        let median = gap(0.5, 1_000.0).as_secs_f64();
        assert!((median - 0.000_693_147).abs() < 1e-8, "{median}");
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn an_arrival_that_waited_keeps_the_moment_at_which_it_was_due() {
        let schedule = Schedule::new(true, None);
        let due = Instant::now();
        schedule.arrivals.borrow_mut().push_back(due);
        schedule.due.add_permits(1);
        tokio::time::advance(Duration::from_secs(1)).await;

        assert_eq!(schedule.next().await, Some(due));
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn a_schedule_by_number_ends_by_number() {
        let schedule = Schedule::new(false, Some(2));
        schedule.begin(1);

        assert!(schedule.next().await.is_some());
        assert!(schedule.next().await.is_some());
        assert!(schedule.next().await.is_none());
    }
}

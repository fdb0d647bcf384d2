use std::time::Duration;

/// Pauses between attempts. They double; each is cut by up to a half at random, so that
/// proxies which lost their control plane together don't come back together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pauses {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Pauses {
    pub(crate) const fn new(min: Duration, max: Duration) -> Self {
        Self {
            min,
            max,
            next: min,
        }
    }

    /// The next pause; `random` is at least 0 and below 1.
    pub(crate) fn next(&mut self, random: f64) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.max);
        pause.mul_f64(1.0 - random / 2.0)
    }

    pub(crate) const fn reset(&mut self) {
        self.next = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew_after_a_reset() {
        let mut pauses = Pauses::new(Duration::from_millis(100), Duration::from_millis(350));

        let millis: Vec<_> = (0..4).map(|_| pauses.next(0.0).as_millis()).collect();
        assert_eq!(millis, [100, 200, 350, 350]);

        pauses.reset();
        assert_eq!(pauses.next(0.5), Duration::from_millis(75));
    }
}

//! What was measured, kept exactly: one number per answer, sorted at the end.

use std::{fmt::Write as _, time::Duration};

use tokio::time::Instant;

/// Answers and failures of the requests that were due in the measured time.
#[derive(Default)]
pub struct Record {
    begin: Option<Instant>,
    end: Option<Instant>,
    latencies: Vec<u32>,
    bytes: u64,
    errors: u64,
    last: Option<Instant>,
    silence: Duration,
    first_error: Option<String>,
}

impl Record {
    /// What is due from now on counts.
    pub fn begin(&mut self, now: Instant) {
        self.begin = Some(now);
        self.last = Some(now);
    }

    /// What is due from now on does not count.
    pub fn end(&mut self, now: Instant) {
        self.end = Some(now);
    }

    /// A request was answered.
    pub fn answered(&mut self, due: Instant, now: Instant, bytes: usize) {
        if let Some(last) = self.last.filter(|_| self.end.is_none()) {
            self.silence = self.silence.max(now.saturating_duration_since(last));
            self.last = Some(now);
        }
        if self.counts(due) {
            self.bytes += bytes as u64;
            let tenths = now.saturating_duration_since(due).as_nanos() / 100;
            self.latencies
                .push(u32::try_from(tenths).unwrap_or(u32::MAX));
        }
    }

    /// A request was not answered.
    pub fn failed(&mut self, due: Instant, error: &dyn std::fmt::Display) {
        if self.counts(due) {
            self.errors += 1;
            self.first_error.get_or_insert_with(|| error.to_string());
        }
    }

    /// Requests were due that no connection was free for.
    pub fn unsent(&mut self, count: usize) {
        self.errors += count as u64;
        if count > 0 {
            self.first_error
                .get_or_insert_with(|| "no connection was free until the end".to_owned());
        }
    }

    fn counts(&self, due: Instant) -> bool {
        self.begin.is_some_and(|begin| due >= begin) && self.end.is_none_or(|end| due < end)
    }

    /// Return the measurement as a line of JSON.
    pub fn summary(mut self) -> String {
        self.latencies.sort_unstable();
        let seconds = match (self.begin, self.end) {
            (Some(begin), Some(end)) => (end - begin).as_secs_f64(),
            _ => 0.0,
        };
        let requests = self.latencies.len();
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
        let (per_s, bytes_per_s) = if seconds > 0.0 {
            (requests as f64 / seconds, self.bytes as f64 / seconds)
        } else {
            (0.0, 0.0)
        };
        let mut line = format!(
            "{{\"requests\":{requests},\"errors\":{},\"seconds\":{seconds:.6},\"requests_per_s\":{per_s:.1},\
             \"bytes_per_s\":{bytes_per_s:.0},\"longest_silence_ms\":{:.1}",
            self.errors,
            self.silence.as_secs_f64() * 1e3,
        );
        for (name, part) in [
            ("p50", 0.5),
            ("p90", 0.9),
            ("p99", 0.99),
            ("p999", 0.999),
            ("max", 1.0),
        ] {
            let value = quantile(&self.latencies, part);
            let _ = write!(line, ",\"{name}_us\":{:.1}", f64::from(value) / 10.0);
        }
        // 1 s more than anybody's patience in the cells; the slow back end is measured against it.
        let quick = self
            .latencies
            .partition_point(|tenths| *tenths <= 1_000_000);
        let _ = write!(line, ",\"within_100_ms\":{quick}");
        if let Some(error) = self.first_error {
            let _ = write!(
                line,
                ",\"first_error\":{:?}",
                error.replace(|c: char| !c.is_ascii(), "?")
            );
        }
        line.push('}');
        line
    }
}

/// Return the smallest value that at least this part of all values does not exceed; 0 without values.
fn quantile(sorted: &[u32], part: f64) -> u32 {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank among far fewer than 2^52"
    )]
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_a_value_that_was_measured() {
        let sorted: Vec<u32> = (1..=100).collect();

        assert_eq!(quantile(&sorted, 0.5), 50);
        assert_eq!(quantile(&sorted, 0.99), 99);
        assert_eq!(quantile(&sorted, 1.0), 100);
        assert_eq!(quantile(&[7], 0.5), 7);
        assert_eq!(quantile(&[], 0.5), 0);
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn only_what_was_due_in_the_measured_time_counts() {
        let mut record = Record::default();
        let early = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        let begin = Instant::now();
        record.begin(begin);
        tokio::time::advance(Duration::from_secs(1)).await;
        record.end(Instant::now());

        record.answered(early, begin, 1);
        record.answered(begin, begin + Duration::from_millis(3), 10);
        record.answered(Instant::now(), Instant::now(), 100);

        let summary = record.summary();
        assert!(
            summary.starts_with("{\"requests\":1,\"errors\":0,\"seconds\":1.000000"),
            "{summary}"
        );
        assert!(summary.contains("\"p50_us\":3000.0"), "{summary}");
    }
}

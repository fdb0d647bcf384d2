use std::time::Duration;

use crate::{parse, reader::Reader};

/// Pauses between attempts: they double from `min` to `max`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// The first pause.
    pub min: Duration,
    /// The longest pause.
    pub max: Duration,
    /// The share of a pause by which it is varied at random.
    pub jitter: f64,
}

impl Backoff {
    pub(crate) fn read(reader: &mut Reader<'_>, side: &str, max: Duration) -> Self {
        let min_name = format!("{side}_CONNECT_EXP_BACKOFF_MIN");
        let backoff = Self {
            min: reader.or(&min_name, Duration::from_millis(100), parse::duration),
            max: reader.or(
                &format!("{side}_CONNECT_EXP_BACKOFF_MAX"),
                max,
                parse::duration,
            ),
            jitter: reader.or(
                &format!("{side}_CONNECT_EXP_BACKOFF_JITTER"),
                0.1,
                parse::fraction,
            ),
        };
        if backoff.min > backoff.max || backoff.min.is_zero() {
            reader.mistake(
                &min_name,
                "must be above 0 and not longer than the longest pause",
            );
        }
        backoff
    }
}

use crate::{parse, reader::Reader};

/// How many shards to run; the machine's size is not known here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Workers {
    fixed: Option<usize>,
    min: usize,
    max: Option<usize>,
    max_ratio: Option<f64>,
}

impl Workers {
    /// This many, whatever the machine has.
    #[must_use]
    pub const fn exactly(count: usize) -> Self {
        Self {
            fixed: Some(count),
            min: 1,
            max: None,
            max_ratio: None,
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            fixed: reader.optional("TULLE_PROXY_WORKERS", parse::count),
            min: reader.or("CORES_MIN", 1, parse::count),
            max: reader
                .optional("CORES_MAX", parse::count)
                .or_else(|| reader.optional("CORES", parse::count)),
            max_ratio: reader.optional("CORES_MAX_RATIO", parse::fraction),
        }
    }

    /// The number of shards on a machine with this many processors: at least the minimum,
    /// never more than there are processors, unless it was fixed by name.
    #[must_use]
    pub fn count(&self, processors: usize) -> usize {
        let processors = processors.max(1);
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a float cast saturates, and processors are few"
        )]
        let by_ratio = |ratio: f64| (processors as f64 * ratio).round() as usize;
        self.fixed.unwrap_or_else(|| {
            let wanted = self
                .max
                .or_else(|| self.max_ratio.map(by_ratio))
                .unwrap_or(1);
            wanted.max(self.min).clamp(1, processors)
        })
    }
}

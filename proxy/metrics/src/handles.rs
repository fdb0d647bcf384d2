use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// A number that only grows.
///
/// Clones share one cell, and a cell has one writing thread: two threads that count on clones
/// of one handle lose counts. Any thread may read.
#[derive(Clone, Debug)]
pub struct Counter(pub(crate) Arc<AtomicU64>);

impl Counter {
    /// Count one.
    #[inline]
    pub fn inc(&self) {
        self.add(1);
    }

    /// Count several.
    #[inline]
    pub fn add(&self, count: u64) {
        self.0
            .store(self.0.load(Relaxed).wrapping_add(count), Relaxed);
    }

    /// What this cell has counted.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that goes up and down. One writing thread per cell, as with [`Counter`].
#[derive(Clone, Debug)]
pub struct Gauge(pub(crate) Arc<AtomicU64>);

impl Gauge {
    /// Replace the value.
    #[inline]
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Relaxed);
    }

    /// Add one.
    #[inline]
    pub fn inc(&self) {
        self.set(self.get() + 1.0);
    }

    /// Take one away.
    #[inline]
    pub fn dec(&self) {
        self.set(self.get() - 1.0);
    }

    /// This cell's value.
    #[must_use]
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Relaxed))
    }
}

/// How observations spread over fixed buckets. One writing thread per cell, as with
/// [`Counter`].
#[derive(Clone, Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    /// One count per bound, one for what is above all of them, and the bits of the sum.
    pub(crate) cells: Arc<[AtomicU64]>,
}

impl Histogram {
    pub(crate) fn new(bounds: &'static [f64]) -> Self {
        debug_assert!(bounds.is_sorted(), "the bounds of a histogram ascend");
        Self {
            bounds,
            cells: (0..bounds.len() + 2).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Take one observation in. NaN would spoil the sum for ever and is left out.
    #[inline]
    pub fn observe(&self, value: f64) {
        if value.is_nan() {
            return;
        }
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        let [counts @ .., sum] = &*self.cells else {
            return;
        };
        let count = &counts[bucket];
        count.store(count.load(Relaxed).wrapping_add(1), Relaxed);
        sum.store(
            (f64::from_bits(sum.load(Relaxed)) + value).to_bits(),
            Relaxed,
        );
    }
}

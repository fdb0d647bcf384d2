//! Which series exist, and what becomes of a cell whose handle is dropped.
//!
//! The registry and the handles share a cell. Once only the registry holds it, nobody can
//! write to it any more: what it counted moves into the series' settled value and the cell is
//! freed, so that memory follows the series and not the number of connections there ever were.
//! A settled count is a part of the sum for as long as the series exists. A settled gauge
//! counts only while no handle of the series lives: it says what was last known, and would
//! otherwise be added to what its successor says.
//!
//! Labels whose values a stranger chooses (a port, the name that a TLS client asks for) must not
//! be able to fill the memory, nor a big system the store that scrapes it. So there is a
//! ceiling on the series of a process; what comes above it is counted in one more series of
//! its family, labelled `overflow="true"`, and the sum over a family stays exact.
//!
//! The registry's locks are taken when a handle is made and when the text is rendered, never
//! when something is counted; rendering holds one family at a time.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{Counter, Gauge, Histogram, Labels, text};

/// Enough for a proxy that speaks to a thousand endpoints, at 20 MiB of memory; a histogram
/// is as many series as it has lines.
const MAX_SERIES: usize = 50_000;

/// From how many cells on a series looks for dropped ones whenever a handle is made.
const FIRST_SWEEP: usize = 8;

/// What a value means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// All series of a process. Clones are the same registry.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    families: Mutex<BTreeMap<Box<str>, Arc<Family>>>,
    /// Of all families, without those above the ceiling.
    series: AtomicUsize,
    ceiling: AtomicUsize,
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl Registry {
    /// A registry without any series.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            families: Mutex::default(),
            series: AtomicUsize::new(0),
            ceiling: AtomicUsize::new(MAX_SERIES),
        }))
    }

    /// Have at most so many series, and one for what overflows in each family.
    pub fn limit(&self, series: usize) {
        self.0.ceiling.store(series, Relaxed);
    }

    /// A counter with a cell of its own. `name` is without `_total`.
    #[must_use]
    pub fn counter(&self, name: &str, help: &str, labels: &Labels) -> Counter {
        let counter = Counter(Arc::default());
        self.add(
            name,
            help,
            Sort::Counter,
            labels,
            Cell::One(counter.0.clone()),
        );
        counter
    }

    /// A gauge with a cell of its own; it begins at 0.
    #[must_use]
    pub fn gauge(&self, name: &str, help: &str, labels: &Labels) -> Gauge {
        let gauge = Gauge(Arc::default());
        self.add(name, help, Sort::Gauge, labels, Cell::One(gauge.0.clone()));
        gauge
    }

    /// A histogram with cells of its own. `bounds` ascend, without the infinite one.
    #[must_use]
    pub fn histogram(
        &self,
        name: &str,
        help: &str,
        bounds: &'static [f64],
        labels: &Labels,
    ) -> Histogram {
        let histogram = Histogram::new(bounds);
        let cell = Cell::Many(histogram.cells.clone());
        self.add(name, help, Sort::Histogram(bounds), labels, cell);
        histogram
    }

    /// A series without labels whose value is asked for when the text is rendered.
    pub fn sampled(
        &self,
        name: &str,
        help: &str,
        kind: Kind,
        sample: impl Fn() -> f64 + Send + Sync + 'static,
    ) {
        let sort = match kind {
            Kind::Counter => Sort::Counter,
            Kind::Gauge => Sort::Gauge,
        };
        let family = self.family(name, help, sort);
        *family.sample.lock() = Some(Box::new(sample));
    }

    /// Drop every series of which no handle lives and whose value has not changed for `idle`.
    ///
    /// A change is noticed at the first call after it, so this is to be called about as often
    /// as the text is rendered.
    pub fn retain(&self, idle: Duration, now: Instant) {
        for (_, family) in self.families() {
            let mut all = family.series.lock();
            let before = all.len();
            all.retain(|_, series| series.retained(&family.sort, idle, now));
            let gone = (before - all.len()) * family.sort.lines();
            self.0.series.fetch_sub(gone, Relaxed);
            let mut overflow = family.overflow.lock();
            if overflow
                .as_mut()
                .is_some_and(|series| !series.retained(&family.sort, idle, now))
            {
                *overflow = None;
            }
        }
        self.0.families.lock().retain(|_, family| {
            Arc::strong_count(family) > 1
                || family.sample.lock().is_some()
                || !family.series.lock().is_empty()
                || family.overflow.lock().is_some()
        });
    }

    /// All series in Prometheus' text format, families and series in the order of their names.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = String::new();
        for (name, family) in self.families() {
            // A sample can be slow (it reads /proc), so it is taken before anything is locked
            // that making a handle needs.
            let sampled = family.sample.lock().as_ref().map(|sample| sample());
            let mut series = family.series.lock();
            let mut overflow = family.overflow.lock();
            if series.is_empty() && overflow.is_none() && sampled.is_none() {
                continue;
            }
            text::head(&mut out, &name, &family.help, &family.sort);
            if let Some(value) = sampled {
                text::number(&mut out, &name, &family.sort, "", value);
            }
            for series in series.values_mut().chain(overflow.as_mut()) {
                let total = series.total(&family.sort);
                text::value(&mut out, &name, &family.sort, &series.labels, &total);
            }
        }
        out.push_str("# EOF\n");
        out
    }

    fn families(&self) -> Vec<(Box<str>, Arc<Family>)> {
        self.0
            .families
            .lock()
            .iter()
            .map(|(name, family)| (name.clone(), family.clone()))
            .collect()
    }

    fn family(&self, name: &str, help: &str, sort: Sort) -> Arc<Family> {
        let mut families = self.0.families.lock();
        if let Some(family) = families.get(name) {
            if family.sort == sort {
                return family.clone();
            }
            // Two crates that own one name are a bug of ours; the second one's numbers are not
            // shown rather than mixed with the first one's.
            debug_assert!(false, "{name} is registered as two kinds of metric");
            return Arc::new(Family::new(help, sort));
        }
        let family = Arc::new(Family::new(help, sort));
        families.insert(name.into(), family.clone());
        family
    }

    fn add(&self, name: &str, help: &str, sort: Sort, labels: &Labels, cell: Cell) {
        let family = self.family(name, help, sort);
        let mut all = family.series.lock();
        if let Some(series) = all.get_mut(labels) {
            series.add(&family.sort, cell);
            return;
        }
        let lines = family.sort.lines();
        if self.0.series.fetch_add(lines, Relaxed) + lines <= self.0.ceiling.load(Relaxed) {
            all.insert(labels.clone(), Series::new(&family.sort, labels, cell));
            return;
        }
        self.0.series.fetch_sub(lines, Relaxed);
        match &mut *family.overflow.lock() {
            Some(series) => series.add(&family.sort, cell),
            none => {
                let labels = Labels::none().with("overflow", "true");
                *none = Some(Series::new(&family.sort, &labels, cell));
            }
        }
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registry")
            .field(&self.0.families.lock().len())
            .finish()
    }
}

/// How a family's cells are read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Sort {
    Counter,
    Gauge,
    Histogram(&'static [f64]),
}

impl Sort {
    /// How many lines a series of this sort is.
    const fn lines(&self) -> usize {
        match self {
            Self::Counter | Self::Gauge => 1,
            // The bounds, the infinite one, sum and count.
            Self::Histogram(bounds) => bounds.len() + 3,
        }
    }
}

/// What a series adds up to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Total {
    Count(u64),
    Value(f64),
    /// Not cumulated; the last one is what lies above all bounds.
    Buckets {
        counts: Box<[u64]>,
        sum: f64,
    },
}

impl Total {
    fn zero(sort: &Sort) -> Self {
        match sort {
            Sort::Counter => Self::Count(0),
            Sort::Gauge => Self::Value(0.0),
            Sort::Histogram(bounds) => Self::Buckets {
                counts: vec![0; bounds.len() + 1].into(),
                sum: 0.0,
            },
        }
    }

    fn add(&mut self, cell: &Cell) {
        match (self, cell) {
            (Self::Count(count), Cell::One(cell)) => {
                *count = count.wrapping_add(cell.load(Relaxed));
            }
            (Self::Value(value), Cell::One(cell)) => *value += f64::from_bits(cell.load(Relaxed)),
            (Self::Buckets { counts, sum }, Cell::Many(cells)) => {
                for (count, cell) in counts.iter_mut().zip(&**cells) {
                    *count = count.wrapping_add(cell.load(Relaxed));
                }
                if let Some(last) = cells.last() {
                    *sum += f64::from_bits(last.load(Relaxed));
                }
            }
            _ => {}
        }
    }
}

enum Cell {
    One(Arc<AtomicU64>),
    Many(Arc<[AtomicU64]>),
}

impl Cell {
    /// Whether no handle can write any more. `get_mut` also makes the last write visible, which
    /// looking at the count alone would not.
    fn dropped(&mut self) -> bool {
        match self {
            Self::One(cell) => Arc::get_mut(cell).is_some(),
            Self::Many(cells) => Arc::get_mut(cells).is_some(),
        }
    }
}

type Sample = Box<dyn Fn() -> f64 + Send + Sync>;

struct Family {
    help: Box<str>,
    sort: Sort,
    series: Mutex<BTreeMap<Labels, Series>>,
    /// Of all that is above the ceiling; locked after `series`.
    overflow: Mutex<Option<Series>>,
    sample: Mutex<Option<Sample>>,
}

impl Family {
    fn new(help: &str, sort: Sort) -> Self {
        Self {
            help: help.into(),
            sort,
            series: Mutex::default(),
            overflow: Mutex::default(),
            sample: Mutex::default(),
        }
    }
}

struct Series {
    labels: Box<str>,
    settled: Total,
    cells: Vec<Cell>,
    sweep_at: usize,
    /// The value when it was last looked at, and when it was first found to be that.
    seen: Option<(Total, Instant)>,
}

impl Series {
    fn new(sort: &Sort, labels: &Labels, cell: Cell) -> Self {
        Self {
            labels: labels.text().into(),
            settled: Total::zero(sort),
            cells: vec![cell],
            sweep_at: FIRST_SWEEP,
            seen: None,
        }
    }

    fn add(&mut self, sort: &Sort, cell: Cell) {
        if self.cells.len() >= self.sweep_at {
            self.sweep(sort);
            self.sweep_at = FIRST_SWEEP.max(2 * self.cells.len());
        }
        self.cells.push(cell);
    }

    fn sweep(&mut self, sort: &Sort) {
        let mut gone = Total::zero(sort);
        let mut any_gone = false;
        self.cells.retain_mut(|cell| {
            let dropped = cell.dropped();
            if dropped {
                any_gone = true;
                match sort {
                    Sort::Gauge => gone.add(cell),
                    Sort::Counter | Sort::Histogram(_) => self.settled.add(cell),
                }
            }
            !dropped
        });
        if *sort == Sort::Gauge && any_gone {
            self.settled = gone;
        }
    }

    fn total(&mut self, sort: &Sort) -> Total {
        self.sweep(sort);
        let mut total = if *sort == Sort::Gauge && !self.cells.is_empty() {
            Total::zero(sort)
        } else {
            self.settled.clone()
        };
        for cell in &self.cells {
            total.add(cell);
        }
        total
    }

    fn retained(&mut self, sort: &Sort, idle: Duration, now: Instant) -> bool {
        let total = self.total(sort);
        let since = match &self.seen {
            Some((seen, since)) if *seen == total => *since,
            _ => {
                self.seen = Some((total, now));
                now
            }
        };
        !self.cells.is_empty() || now.saturating_duration_since(since) < idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: &[f64] = &[1.0, 2.5];

    fn labels() -> Labels {
        Labels::none().with("direction", "inbound")
    }

    #[test]
    fn equal_series_of_two_handles_are_one_line() {
        let registry = Registry::new();
        let one = registry.counter("requests", "Requests.", &labels());
        let other = registry.counter("requests", "Requests.", &labels());

        one.add(2);
        other.inc();

        assert_eq!(
            registry.render(),
            "# HELP requests_total Requests.\n# TYPE requests_total counter\n\
             requests_total{direction=\"inbound\"} 3\n# EOF\n"
        );
    }

    #[test]
    fn above_the_ceiling_a_family_has_one_series_more_and_its_sum_stays_exact() {
        let registry = Registry::new();
        registry.limit(10);

        for number in 0..100 {
            let labels = labels().with("sni", &number.to_string());
            registry.counter("requests", "Requests.", &labels).inc();
            registry.gauge("open", "Open.", &labels).set(1.0);
        }

        let text = registry.render();
        assert!(
            text.contains("requests_total{overflow=\"true\"} 95\n"),
            "{text}"
        );
        assert_eq!(
            text.lines().filter(|line| line.ends_with("} 1")).count(),
            10
        );
    }

    #[test]
    fn a_histogram_is_as_many_series_as_it_has_lines() {
        let registry = Registry::new();
        registry.limit(5);

        for number in 0..3 {
            let labels = labels().with("sni", &number.to_string());
            registry
                .histogram("ms", "Latency.", BOUNDS, &labels)
                .observe(1.0);
        }

        let text = registry.render();
        assert!(
            text.contains("ms_count{direction=\"inbound\",sni=\"0\"} 1\n"),
            "{text}"
        );
        assert!(text.contains("ms_count{overflow=\"true\"} 2\n"), "{text}");
    }

    #[test]
    fn series_that_have_gone_make_room() {
        let registry = Registry::new();
        registry.limit(1);
        let idle = Duration::from_mins(10);
        let start = Instant::now();
        registry.counter("one", "One.", &labels()).inc();
        registry.counter("other", "Other.", &labels()).inc();
        registry.retain(idle, start);

        registry.retain(idle, start + idle);
        assert_eq!(registry.render(), "# EOF\n");

        registry.counter("other", "Other.", &labels()).inc();
        assert!(
            registry
                .render()
                .contains("other_total{direction=\"inbound\"} 1\n")
        );
    }

    #[test]
    fn what_a_dropped_handle_counted_stays() {
        let registry = Registry::new();
        for _ in 0..100 {
            registry.counter("requests", "Requests.", &labels()).add(2);
        }
        let live = registry.counter("requests", "Requests.", &labels());
        live.inc();

        assert!(registry.render().contains("} 201\n"));
        assert!(registry.render().contains("} 201\n"));
    }

    #[test]
    fn many_handles_of_one_series_leave_few_cells_behind() {
        let registry = Registry::new();
        for _ in 0..1_000 {
            registry.counter("requests", "Requests.", &labels()).inc();
        }

        let family = registry.family("requests", "Requests.", Sort::Counter);
        assert!(family.series.lock()[&labels()].cells.len() <= 2 * FIRST_SWEEP);
    }

    #[test]
    fn a_dropped_gauge_is_not_added_to_its_successor() {
        let registry = Registry::new();
        registry.gauge("expiry", "When.", &labels()).set(100.0);
        assert!(registry.render().contains("} 100\n"));

        let successor = registry.gauge("expiry", "When.", &labels());
        successor.set(250.5);
        assert!(registry.render().contains("} 250.5\n"));

        drop(successor);
        assert!(registry.render().contains("} 250.5\n"));
    }

    #[test]
    fn live_gauges_are_summed() {
        let registry = Registry::new();
        let one = registry.gauge("open", "Open.", &labels());
        let other = registry.gauge("open", "Open.", &labels());

        one.inc();
        other.inc();
        other.inc();
        one.dec();

        assert!(
            registry
                .render()
                .contains("open{direction=\"inbound\"} 2\n")
        );
    }

    #[test]
    fn a_bucket_holds_what_is_at_most_its_bound() {
        let registry = Registry::new();
        let histogram = registry.histogram("latency_ms", "Latency.", BOUNDS, &labels());

        for value in [0.5, 1.0, 1.1, 2.5, 99.0, f64::NAN] {
            histogram.observe(value);
        }

        assert_eq!(
            registry.render(),
            "# HELP latency_ms Latency.\n# TYPE latency_ms histogram\n\
             latency_ms_bucket{direction=\"inbound\",le=\"1\"} 2\n\
             latency_ms_bucket{direction=\"inbound\",le=\"2.5\"} 4\n\
             latency_ms_bucket{direction=\"inbound\",le=\"+Inf\"} 5\n\
             latency_ms_sum{direction=\"inbound\"} 104.1\n\
             latency_ms_count{direction=\"inbound\"} 5\n# EOF\n"
        );
    }

    #[test]
    fn a_sample_is_taken_at_each_rendering() {
        let registry = Registry::new();
        let calls = AtomicU64::new(0);
        registry.sampled(
            "process_cpu_seconds",
            "CPU time.",
            Kind::Counter,
            move || {
                calls.fetch_add(1, Relaxed);
                #[expect(clippy::cast_precision_loss, reason = "a handful of calls")]
                let value = calls.load(Relaxed) as f64;
                value + 0.5
            },
        );

        assert!(
            registry
                .render()
                .contains("process_cpu_seconds_total 1.5\n")
        );
        assert!(
            registry
                .render()
                .contains("process_cpu_seconds_total 2.5\n")
        );
    }

    #[test]
    fn an_idle_series_goes_only_when_no_handle_lives() {
        let registry = Registry::new();
        let idle = Duration::from_mins(10);
        let start = Instant::now();
        let kept = registry.counter("kept", "Kept.", &labels());
        registry.counter("dropped", "Dropped.", &labels()).inc();
        kept.inc();

        registry.retain(idle, start);
        registry.retain(idle, start + idle / 2);
        assert!(registry.render().contains("dropped_total"));

        registry.retain(idle, start + idle);
        assert!(!registry.render().contains("dropped_total"));
        assert!(registry.render().contains("kept_total"));
    }

    #[test]
    fn a_change_starts_the_idle_time_anew() {
        let registry = Registry::new();
        let idle = Duration::from_mins(10);
        let start = Instant::now();
        let counter = registry.counter("requests", "Requests.", &labels());
        registry.retain(idle, start);
        counter.inc();
        drop(counter);
        registry.retain(idle, start + idle);

        registry.retain(idle, start + idle + idle / 2);
        assert!(registry.render().contains("requests_total"));

        registry.retain(idle, start + idle + idle);
        assert_eq!(registry.render(), "# EOF\n");
    }

    #[test]
    fn handles_may_be_read_from_other_threads() {
        fn shared<T: Send + Sync + Clone>() {}
        shared::<Registry>();
        shared::<Counter>();
        shared::<Gauge>();
        shared::<Histogram>();
        shared::<Labels>();
    }
}

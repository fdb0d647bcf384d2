//! Counters, gauges and histograms, and their text.
//!
//! A handle is a cell of its own that one thread writes: counting is a relaxed load and a
//! relaxed store, with no lock, no read-modify-write and no line of memory that two shards
//! fight over. Whoever needs the same series on another shard asks the registry for a second
//! handle; the sum over all handles of a series is taken when the text is rendered.
//!
//! Which metrics exist is not decided here: each crate registers the facts that it owns.

mod handles;
mod labels;
mod registry;
mod text;

pub use handles::{Counter, Gauge, Histogram};
pub use labels::Labels;
pub use registry::{Kind, Registry};

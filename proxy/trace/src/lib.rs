//! Takes part in the traces that applications begin: a span for what this proxy does for a
//! request, as a child of the span that the request came with.
//!
//! Decided here: which headers hold a context (W3C before B3), that a request without one or
//! with one that is not sampled goes on untouched, what a span says, and when spans leave. No
//! trace begins here. The path never waits: a span that finds the queue full is dropped and
//! counted.

mod context;
mod export;
mod span;

pub use context::{Context, Format};
pub use export::{Channel, Exporter};
pub use span::{Span, Tracer};

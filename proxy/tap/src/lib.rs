//! Shows requests to the one client that may watch them, as they go by.
//!
//! Decided here: who may watch (one identity, proved by mesh TLS), which requests a watcher
//! sees, what of them, and what is left out because there is too much of it. The path of a
//! request is never held up: while nobody watches it costs one relaxed load, and what a
//! watcher does not fetch in time is dropped and counted. Values that open doors, such as
//! cookies, leave the proxy redacted.

mod event;
mod headers;
mod matching;
mod server;
mod taps;

pub use matching::{Match, MatchError};
pub use server::TapServer;
pub use taps::{Subject, Tapped, Taps};

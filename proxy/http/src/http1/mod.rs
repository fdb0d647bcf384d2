//! HTTP/1.0 and 1.1, strictly: what two implementations could read differently is refused.
//!
//! One connection is one task, and a request spawns none: the server polls the response's
//! body, which polls its client connection, which pulls on the request's body, which reads
//! from the server connection again.

mod client;
mod decode;
mod encode;
mod io;
mod parse;
mod server;

use std::time::Duration;

pub use client::Connection;
pub(crate) use client::{Health, Home};
pub(crate) use parse::is_host;
pub use server::serve;

/// An extension of a request whose target named the whole URI, as to an explicit proxy; it
/// is sent on in the same form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbsoluteForm;

/// What an HTTP/1 peer may do.
#[derive(Clone, Debug)]
pub struct Http1Options {
    /// Bytes of a head, and of a trailer section. At most 65,535.
    pub max_head: usize,
    /// Fields of a head, and of a trailer section. At most 128.
    pub max_headers: usize,
    /// From the first byte of a request head to its last.
    pub header_timeout: Duration,
    /// How long a client may send nothing between two requests; `None`: as long as it likes,
    /// since only the application knows.
    pub idle_timeout: Option<Duration>,
}

impl Default for Http1Options {
    fn default() -> Self {
        Self {
            max_head: parse::MAX_HEAD,
            max_headers: parse::MAX_HEADERS,
            header_timeout: Duration::from_secs(10),
            idle_timeout: None,
        }
    }
}

impl Http1Options {
    fn limits(&self) -> parse::Limits {
        parse::Limits {
            max_head: self.max_head.min(parse::MAX_HEAD),
            max_headers: self.max_headers.min(parse::MAX_HEADERS),
        }
    }
}

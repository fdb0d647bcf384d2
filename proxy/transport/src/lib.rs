//! Bytes on sockets: listening, connecting, where a redirected connection was going, what
//! its first bytes are, and copying between two connections.
//!
//! Nothing here decides who may speak to whom, and nothing knows TLS. What parses a peer's
//! bytes ([`detect_http`], [`header::decode`]) is pure, never panics, and a decision does not
//! change when more bytes come.

pub mod header;

mod accept;
mod connect;
mod detect;
mod duplex;
mod options;
mod orig_dst;
mod prefixed;
mod scratch;
mod server_first;

pub use accept::{Accepted, ListenOptions, accept, listen};
pub use connect::{ConnectError, ConnectOptions, connect};
pub use detect::{Detected, MAX_DETECT, detect_http};
pub use duplex::{Ended, Flow, Observer, Side, duplex};
pub use header::{Header, HeaderError, Session, read_header};
pub use options::{AcceptedOptions, reset_on_drop};
pub use orig_dst::orig_dst;
pub use prefixed::{Prefixed, Unread};
pub use scratch::{SCRATCH_SIZE, Scratch};
pub use server_first::{First, PATIENCE, PATIENCE_REMEMBERED, ServerFirst, fill, first_speaker};

//! HTTP/2, over `h2`: which frames travel when is its business, and which requests ours.
//!
//! `h2` is used directly. hyper would put a channel, a oneshot and a task around every
//! request, drop 1xx responses, and hide whether a failed request was ever processed.

mod client;
mod keep_alive;
mod server;
mod stream;

use std::time::Duration;

pub use client::Connection;
pub use server::serve;
pub(crate) use stream::Incoming;

/// What an HTTP/2 peer may do, and what it is promised. The defaults suit both sides.
#[derive(Clone, Debug)]
pub struct Http2Options {
    /// Bytes of a body that may come before any is consumed, per stream.
    pub stream_window: u32,
    /// The same over all streams of the connection.
    pub connection_window: u32,
    /// Requests that a client may have open at a time; for a server.
    pub max_concurrent_streams: u32,
    /// Bytes of one frame.
    pub max_frame_size: u32,
    /// Bytes of a head or a trailer section, as HPACK counts them.
    pub max_header_list: u32,
    /// Bytes of a body that are held for one stream until they can be sent.
    pub max_send_buffer: usize,
    /// Streams that a client may have opened and reset before they were looked at.
    pub max_pending_resets: usize,
    /// How long a connection may be silent before it is pinged, idle or not.
    pub keep_alive_interval: Option<Duration>,
    /// How long the answer to a ping may take.
    pub keep_alive_timeout: Duration,
    /// From the start of the connection to the end of the client's preface.
    pub handshake_timeout: Duration,
}

impl Default for Http2Options {
    fn default() -> Self {
        Self {
            stream_window: 1024 * 1024,
            connection_window: 4 * 1024 * 1024,
            max_concurrent_streams: 256,
            max_frame_size: 16 * 1024,
            max_header_list: 64 * 1024,
            max_send_buffer: 256 * 1024,
            max_pending_resets: 20,
            keep_alive_interval: Some(Duration::from_secs(10)),
            keep_alive_timeout: Duration::from_secs(3),
            handshake_timeout: Duration::from_secs(10),
        }
    }
}

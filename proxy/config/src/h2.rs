use std::time::Duration;

use crate::{parse, reader::Reader};

/// HTTP/2 where the proxy is the server. Absent: what the HTTP/2 library does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerH2 {
    /// Windows follow the measured bandwidth.
    pub adaptive_flow_control: Option<bool>,
    /// Flow control of a stream.
    pub initial_stream_window: Option<u32>,
    /// Flow control of a connection.
    pub initial_connection_window: Option<u32>,
    /// Requests at once on one connection.
    pub max_concurrent_streams: Option<u32>,
    /// Of a frame.
    pub max_frame_size: Option<u32>,
    /// Of a header list.
    pub max_header_list_size: Option<u32>,
    /// Resets of streams that were not accepted yet before the connection is closed.
    pub max_pending_accept_reset_streams: Option<usize>,
    /// Bytes buffered per stream while the peer does not read.
    pub max_send_buf_size: Option<usize>,
    /// Between pings.
    pub keep_alive_interval: Option<Duration>,
    /// Until a ping must be answered.
    pub keep_alive_timeout: Option<Duration>,
}

impl ServerH2 {
    pub(crate) fn read(reader: &mut Reader<'_>, side: &str) -> Self {
        let name = |suffix: &str| format!("{side}_SERVER_HTTP2_{suffix}");
        Self {
            adaptive_flow_control: reader.optional(&name("ADAPTIVE_FLOW_CONTROL"), parse::boolean),
            initial_stream_window: reader
                .optional(&name("INITIAL_STREAM_WINDOW_SIZE"), parse::number),
            initial_connection_window: reader
                .optional(&name("INITIAL_CONNECTION_WINDOW_SIZE"), parse::number),
            max_concurrent_streams: reader.optional(&name("MAX_CONCURRENT_STREAMS"), parse::number),
            max_frame_size: reader.optional(&name("MAX_FRAME_SIZE"), parse::number),
            max_header_list_size: reader.optional(&name("MAX_HEADER_LIST_SIZE"), parse::number),
            max_pending_accept_reset_streams: reader
                .optional(&name("MAX_PENDING_ACCEPT_RESET_STREAMS"), parse::number),
            max_send_buf_size: reader.optional(&name("MAX_SEND_BUF_SIZE"), parse::number),
            keep_alive_interval: reader.optional(&name("KEEP_ALIVE_INTERVAL"), parse::duration),
            keep_alive_timeout: reader.optional(&name("KEEP_ALIVE_TIMEOUT"), parse::duration),
        }
    }
}

/// HTTP/2 where the proxy is the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientH2 {
    /// Flow control of a stream.
    pub initial_stream_window: u32,
    /// Flow control of a connection.
    pub initial_connection_window: u32,
}

impl ClientH2 {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            initial_stream_window: reader.or(
                "HTTP2_INITIAL_STREAM_WINDOW_SIZE",
                65_535,
                parse::number,
            ),
            initial_connection_window: reader.or(
                "HTTP2_INITIAL_CONNECTION_WINDOW_SIZE",
                1_048_576,
                parse::number,
            ),
        }
    }
}

//! What generator and origin say to each other: each request names the size of its answer.

use bytes::{BufMut, Bytes, BytesMut};

/// The path of every gRPC call.
pub const METHOD: &str = "/tulle.load.Load/Get";
/// gRPC puts a flag and the length before a message.
pub const GRPC_PREFIX: usize = 5;
/// A TCP request: its length without this word, then the size of the answer.
pub const TCP_REQUEST: usize = 8;
/// Before a TCP answer.
pub const TCP_PREFIX: usize = 4;
/// A stream's window: as large as the largest body of a cell.
pub const STREAM_WINDOW: u32 = 1 << 20;
/// A connection's window.
pub const CONNECTION_WINDOW: u32 = 16 << 20;

const PATH: &str = "/bytes/";

/// Return an HTTP/1 request.
pub fn http1_request(host: &str, size: usize, keepalive: bool) -> Bytes {
    let close = if keepalive {
        ""
    } else {
        "connection: close\r\n"
    };
    Bytes::from(format!(
        "GET {PATH}{size} HTTP/1.1\r\nhost: {host}\r\nuser-agent: tulle-load/1\r\naccept: */*\r\n{close}\r\n"
    ))
}

/// What an HTTP/1 request asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Asked {
    /// How long its head is.
    pub head: usize,
    /// The size of the answer's body.
    pub size: usize,
    /// Whether it is the connection's last.
    pub close: bool,
}

/// Read one request without a body; none while it is not whole, an error if it is not one of ours.
pub fn read_http1_request(bytes: &[u8]) -> Result<Option<Asked>, &'static str> {
    let Some(head) = head_end(bytes) else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&bytes[..head]).map_err(|_| "the head is no text")?;
    let line = text.lines().next().unwrap_or_default();
    let size = line
        .strip_prefix("GET ")
        .and_then(|rest| rest.strip_prefix(PATH))
        .and_then(|rest| rest.split(' ').next())
        .and_then(|size| size.parse().ok())
        .ok_or("the request asks for no number of bytes")?;
    let close = header(&bytes[..head], b"connection")
        .is_some_and(|value| value.eq_ignore_ascii_case(b"close"));
    Ok(Some(Asked { head, size, close }))
}

/// Return the head of an HTTP/1 answer.
pub fn http1_head(size: usize, close: bool) -> Bytes {
    let close = if close { "connection: close\r\n" } else { "" };
    Bytes::from(format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: {size}\r\n{close}\r\n"
    ))
}

/// Return the length of a head with its empty line.
pub fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .map(|at| at + 4)
}

/// Return the value of a header field; the name in lower case.
pub fn header<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    head.split(|byte| *byte == b'\n').skip(1).find_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        line[..colon]
            .eq_ignore_ascii_case(name)
            .then(|| line[colon + 1..].trim_ascii())
    })
}

/// Return a gRPC message that asks for an answer of a size.
pub fn grpc_request(size: u32) -> Bytes {
    let mut message = BytesMut::with_capacity(GRPC_PREFIX + 4);
    message.put_u8(0);
    message.put_u32(4);
    message.put_u32(size);
    message.freeze()
}

/// Read the size that a whole gRPC message asks for.
pub fn read_grpc_request(message: &[u8]) -> Option<usize> {
    (message.len() == GRPC_PREFIX + 4).then(|| word(&message[GRPC_PREFIX..]))
}

/// Return a TCP request.
pub fn tcp_request(size: u32) -> Bytes {
    let mut request = BytesMut::with_capacity(TCP_REQUEST);
    request.put_u32(4);
    request.put_u32(size);
    request.freeze()
}

/// Read a big-endian number of four bytes.
pub fn word(bytes: &[u8]) -> usize {
    bytes[..4]
        .iter()
        .fold(0, |sum, byte| sum << 8 | usize::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_it_was_written() {
        let request = http1_request("web:80", 4096, false);

        let asked = read_http1_request(&request).unwrap();

        assert_eq!(
            asked,
            Some(Asked {
                head: request.len(),
                size: 4096,
                close: true
            })
        );
        assert_eq!(read_grpc_request(&grpc_request(70_000)), Some(70_000));
        assert_eq!(word(&tcp_request(70_000)[4..]), 70_000);
    }

    #[test]
    fn half_a_head_is_not_yet_a_request() {
        let request = http1_request("web:80", 1, true);

        assert_eq!(read_http1_request(&request[..request.len() - 1]), Ok(None));
    }

    #[test]
    fn a_field_is_found_whatever_its_case() {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length:  12 \r\n\r\n";

        assert_eq!(header(head, b"content-length"), Some(&b"12"[..]));
        assert_eq!(header(head, b"content-type"), None);
    }
}

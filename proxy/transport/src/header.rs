//! The transport header: what an outbound proxy tells an inbound one, right after the TLS
//! handshake in which both agreed on the ALPN `transport.l5d.io/v1`.
//!
//! On the wire: the ASCII line `transport.l5d.io/v1`, an empty line, the length of the
//! message as four bytes, the message. Then the application's bytes.

use std::{io, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use tokio::{io::AsyncReadExt, time};
use tulle_api::transport::{Header as Proto, SessionProtocol, session_protocol};

use crate::Unread;

/// The ALPN that announces a header.
pub const ALPN: &[u8] = b"transport.l5d.io/v1";

/// The longest message that is read, as the stock proxy does.
pub const MAX_MESSAGE: usize = 64 * 1024;

const PREFACE: &[u8] = b"transport.l5d.io/v1\r\n\r\n";
const PRELUDE: usize = PREFACE.len() + size_of::<u32>();

/// The usual header fits: a name of 253 bytes, a port and a session.
const READ_SIZE: usize = 512;

/// What the connection is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The port that is meant.
    pub port: u16,
    /// Set only towards a gateway; empty otherwise.
    pub name: String,
    /// What follows the header.
    pub session: Session,
}

/// What follows the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Session {
    /// Bytes.
    Opaque,
    /// HTTP/1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Why there is no header.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// The peer agreed to send one and sent something else.
    #[error("the connection does not begin with a transport header: {0}")]
    Invalid(&'static str),
    /// It did not come in time.
    #[error("transport header not received within {0:?}")]
    Timeout(Duration),
    /// The connection ended or broke before.
    #[error("connection lost before the transport header: {0}")]
    Io(#[from] io::Error),
}

/// What the bytes so far hold.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded {
    /// A header, and how many bytes it took.
    Header(Header, usize),
    /// Nothing can be said before there are so many bytes.
    NeedMore(usize),
}

/// The header's bytes.
#[must_use]
pub fn encode(header: &Header) -> Bytes {
    let kind = match header.session {
        Session::Opaque => None,
        Session::Http1 => Some(session_protocol::Kind::Http1(session_protocol::Http1 {})),
        Session::Http2 => Some(session_protocol::Kind::Http2(session_protocol::Http2 {})),
    };
    let message = Proto {
        port: header.port.into(),
        name: header.name.clone(),
        session_protocol: kind.map(|kind| SessionProtocol { kind: Some(kind) }),
    };
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PRELUDE + length);
    bytes.put_slice(PREFACE);
    // Every receiver refuses far shorter ones.
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    message.encode_raw(&mut bytes);
    bytes.freeze()
}

/// Look at everything that has been read so far.
///
/// # Errors
///
/// [`HeaderError::Invalid`], at the first byte from which no header can follow.
pub fn decode(seen: &[u8]) -> Result<Decoded, HeaderError> {
    let shared = seen.len().min(PREFACE.len());
    if seen[..shared] != PREFACE[..shared] {
        return Err(HeaderError::Invalid("wrong preface"));
    }
    let Some(length) = seen.get(PREFACE.len()..PRELUDE) else {
        return Ok(Decoded::NeedMore(PRELUDE));
    };
    let length = length
        .iter()
        .fold(0, |length, byte| length << 8 | usize::from(*byte));
    if length > MAX_MESSAGE {
        return Err(HeaderError::Invalid("longer than 64 KiB"));
    }
    let Some(message) = seen.get(PRELUDE..PRELUDE + length) else {
        return Ok(Decoded::NeedMore(PRELUDE + length));
    };
    let message = Proto::decode(message).map_err(|_| HeaderError::Invalid("not a message"))?;
    Ok(Decoded::Header(message.try_into()?, PRELUDE + length))
}

impl TryFrom<Proto> for Header {
    type Error = HeaderError;

    fn try_from(message: Proto) -> Result<Self, HeaderError> {
        let port = match u16::try_from(message.port) {
            Ok(port) if port > 0 => port,
            _ => return Err(HeaderError::Invalid("no such port")),
        };
        let session = match message.session_protocol.and_then(|session| session.kind) {
            None => Session::Opaque,
            Some(session_protocol::Kind::Http1(_)) => Session::Http1,
            Some(session_protocol::Kind::Http2(_)) => Session::Http2,
        };
        Ok(Self {
            port,
            name: message.name,
            session,
        })
    }
}

/// Read the header off the front of a connection; what follows it stays there.
///
/// # Errors
///
/// See [`HeaderError`]. The connection is of no use after it.
pub async fn read_header<I: Unread>(io: &mut I, timeout: Duration) -> Result<Header, HeaderError> {
    time::timeout(timeout, read(io))
        .await
        .unwrap_or(Err(HeaderError::Timeout(timeout)))
}

async fn read<I: Unread>(io: &mut I) -> Result<Header, HeaderError> {
    let mut seen = BytesMut::with_capacity(READ_SIZE);
    loop {
        if io.read_buf(&mut seen).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        match decode(&seen)? {
            Decoded::Header(header, taken) => {
                if taken < seen.len() {
                    io.unread(Bytes::copy_from_slice(&seen[taken..]));
                }
                return Ok(header);
            }
            Decoded::NeedMore(total) => seen.reserve(total - seen.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Prefixed;

    fn header(name: &str, session: Session) -> Header {
        Header {
            port: 8080,
            name: name.to_owned(),
            session,
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_stock_proxy() {
        let bytes = encode(&header("", Session::Http1));

        assert_eq!(
            bytes,
            &b"transport.l5d.io/v1\r\n\r\n\x00\x00\x00\x07\x08\x90\x3f\x1a\x02\x0a\x00"[..]
        );
    }

    #[test]
    fn a_length_of_more_than_64_kib_is_refused_before_it_is_read() {
        let mut bytes = PREFACE.to_vec();
        bytes.extend_from_slice(&[0, 1, 0, 1]);

        assert!(matches!(decode(&bytes), Err(HeaderError::Invalid(_))));
    }

    #[test]
    fn a_port_that_is_none_is_refused() {
        for port in [-1, 0, 65_536] {
            let message = Proto {
                port,
                ..Proto::default()
            };
            assert!(Header::try_from(message).is_err(), "{port}");
        }
    }

    #[tokio::test]
    async fn what_follows_the_header_stays_on_the_connection() {
        let sent = header("web.shop", Session::Opaque);
        let bytes = [&encode(&sent)[..], b"GET /"].concat();
        for first in 0..=bytes.len() {
            let prefix = Bytes::copy_from_slice(&bytes[..first]);
            let mut io = Prefixed::with_prefix(prefix, &bytes[first..]);

            let received = read_header(&mut io, Duration::from_secs(1)).await.unwrap();

            let mut rest = Vec::new();
            io.read_to_end(&mut rest).await.unwrap();
            assert_eq!((&received, &rest[..]), (&sent, &b"GET /"[..]));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_that_stays_away_is_a_timeout() {
        let (near, _far) = tokio::io::duplex(64);

        let result = read_header(&mut Prefixed::new(near), Duration::from_secs(10)).await;

        assert!(matches!(result, Err(HeaderError::Timeout(_))));
    }

    #[tokio::test]
    async fn a_connection_that_ends_early_is_lost() {
        let mut io = Prefixed::new(PREFACE);

        let result = read_header(&mut io, Duration::from_secs(10)).await;

        assert!(matches!(result, Err(HeaderError::Io(_))));
    }

    proptest! {
        #[test]
        fn a_header_survives(port in 1..=u16::MAX, name in ".{0,300}", kind in 0..3_usize) {
            let session = [Session::Opaque, Session::Http1, Session::Http2][kind];
            let sent = Header { port, name, session };
            let bytes = encode(&sent);

            for length in 0..bytes.len() {
                let decoded = decode(&bytes[..length]).unwrap();
                prop_assert!(matches!(decoded, Decoded::NeedMore(total) if total > length));
            }
            prop_assert_eq!(decode(&bytes).unwrap(), Decoded::Header(sent, bytes.len()));
        }

        #[test]
        fn anything_is_decoded_or_refused_and_more_bytes_change_nothing(
            bytes in prop::collection::vec(any::<u8>(), 0..64),
            more in prop::collection::vec(any::<u8>(), 0..64),
            after_preface in any::<bool>(),
        ) {
            let bytes = if after_preface { [PREFACE, &bytes].concat() } else { bytes };
            let whole = [&bytes[..], &more[..]].concat();

            match decode(&bytes) {
                Ok(Decoded::NeedMore(total)) => {
                    prop_assert!(total > bytes.len() && total <= PRELUDE + MAX_MESSAGE);
                }
                Ok(decoded) => prop_assert_eq!(decode(&whole).unwrap(), decoded),
                Err(_) => prop_assert!(decode(&whole).is_err()),
            }
        }
    }
}

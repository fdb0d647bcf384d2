//! Whether a client speaks HTTP, from its first bytes.
//!
//! The answer is given as soon as it is certain: HTTP/2 after 14 bytes of its preface,
//! HTTP/1 where a method, a target and `HTTP/` stand in a row, not HTTP at the first byte
//! that fits neither. Whoever calls it HTTP takes on its whole framing and policy per request,
//! so the doubtful is HTTP: several blanks and unusual ones, any number of empty lines before,
//! a version nobody knows or none, a target that does not end. The HTTP/1 codec then refuses
//! what it must, and a sloppy request does not slip past the policy as opaque bytes, with
//! headers that only a proxy may write.

/// Bytes after which the answer is certain, whatever they are.
pub const MAX_DETECT: usize = 8 * 1024;

const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// So much of the preface is enough; the server's h2 checks the rest.
const H2_CERTAIN: usize = 14;

/// The longest registered method has 17 bytes.
const MAX_METHOD: usize = 32;

const VERSION: &[u8] = b"HTTP/";

/// What the first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detected {
    /// A request line, maybe a bad one.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// Anything else, TLS included.
    NotHttp,
    /// It could still be HTTP; never said of [`MAX_DETECT`] bytes or more.
    NeedMore,
}

/// Look at everything that has been read so far.
#[must_use]
pub fn detect_http(seen: &[u8]) -> Detected {
    let seen = &seen[..seen.len().min(MAX_DETECT)];
    let shared = seen.len().min(H2_CERTAIN);
    if seen[..shared] == H2_PREFACE[..shared] {
        return if shared == H2_CERTAIN {
            Detected::Http2
        } else {
            Detected::NeedMore
        };
    }
    let complete = seen.len() == MAX_DETECT;
    match request_line(seen) {
        Detected::NeedMore if complete => Detected::Http1,
        detected => detected,
    }
}

fn request_line(seen: &[u8]) -> Detected {
    // RFC 9112 §2.2 wants at least one empty line ignored; some servers ignore them all.
    let empty = seen
        .iter()
        .take_while(|byte| matches!(byte, b'\r' | b'\n'))
        .count();
    let line = &seen[empty..];

    let method = line.iter().take_while(|byte| is_token(**byte)).count();
    if method > MAX_METHOD {
        return Detected::NotHttp;
    }
    let Some(after) = line.get(method) else {
        return Detected::NeedMore;
    };
    if method == 0 || !is_blank(*after) {
        return Detected::NotHttp;
    }

    let Some(target) = skip_blanks(&line[method..]) else {
        return Detected::NeedMore;
    };
    let length = target.iter().take_while(|byte| is_target(**byte)).count();
    let Some(after) = target.get(length) else {
        return Detected::NeedMore;
    };
    // HTTP/0.9, after which some servers read headers all the same.
    if target[0] == b'/' && matches!(after, b'\r' | b'\n') {
        return Detected::Http1;
    }
    if length == 0 || !is_blank(*after) {
        return Detected::NotHttp;
    }

    let Some(version) = skip_blanks(&target[length..]) else {
        return Detected::NeedMore;
    };
    let shared = version.len().min(VERSION.len());
    match (
        version[..shared] == VERSION[..shared],
        shared == VERSION.len(),
    ) {
        (true, true) => Detected::Http1,
        (true, false) => Detected::NeedMore,
        (false, _) => Detected::NotHttp,
    }
}

/// What follows the blanks; nothing while there may be more of them.
fn skip_blanks(bytes: &[u8]) -> Option<&[u8]> {
    let blanks = bytes.iter().take_while(|byte| is_blank(**byte)).count();
    Some(&bytes[blanks..]).filter(|rest| !rest.is_empty())
}

/// RFC 9112 §3 lets a lenient server take VT, FF and a bare CR for a blank; those written in
/// Python take whatever is one in Latin-1.
const fn is_blank(byte: u8) -> bool {
    matches!(
        byte,
        b' ' | b'\t' | 0x0b | 0x0c | b'\r' | 0x1c..=0x1f | 0x85 | 0xa0
    )
}

/// A `tchar` of RFC 9110 §5.6.2.
const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

/// Visible, or outside of ASCII, which many clients and servers let through.
const fn is_target(byte: u8) -> bool {
    byte.is_ascii_graphic() || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn requests_are_http1_as_soon_as_the_version_begins() {
        for bytes in [
            &b"GET / HTTP/"[..],
            b"POST /a?b=c HTTP/1.1\r\nhost: x\r\n\r\n",
            b"\r\nGET / HTTP/1.0\r\n\r\n",
            b"GET  /  HTTP/1.1\r\n",
            b"GET\t/\tHTTP/1.1\r\n",
            b"CONNECT example.com:443 HTTP/1.1\r\n",
            b"OPTIONS * HTTP/1.1\n",
            b"UPDATEREDIRECTREF / HTTP/9.9",
            b"GET /\xff HTTP/1.1",
            b"GET /\r\n",
            b"\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n",
            b"GET\x0b/\x0cHTTP/1.1\r\n",
            b"GET / \rHTTP/1.1\r\n",
            b"POST\xa0/\x1cHTTP/1.1\r\n",
            b"POST\x85/\xa0HTTP/1.1\r\n",
            b"GET /\xc3\xa0b HTTP/1.1\r\n",
        ] {
            assert_eq!(
                detect_http(bytes),
                Detected::Http1,
                "{:?}",
                bytes.escape_ascii()
            );
        }
    }

    #[test]
    fn the_h2_preface_is_http2_after_fourteen_bytes() {
        assert_eq!(detect_http(&H2_PREFACE[..13]), Detected::NeedMore);
        assert_eq!(detect_http(&H2_PREFACE[..14]), Detected::Http2);
        assert_eq!(detect_http(b"PRI * HTTP/2.0\r\nanything"), Detected::Http2);
        assert_eq!(detect_http(b"PRI * HTTP/1.1\r\n"), Detected::Http1);
    }

    #[test]
    fn the_first_bytes_of_other_protocols_are_not_http() {
        for bytes in [
            &b"\x16\x03\x01\x02\x00\x01"[..],
            b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
            b"EHLO mail.example.com\r\n",
            b"PING\r\n",
            b"*1\r\n$4\r\nPING\r\n",
            b"get key\r\n",
            b"CONNECT {\"verbose\": false}\r\n",
            b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
            b"\x10\x0c\x00\x04MQTT",
            b" GET / HTTP/1.1\r\n",
            b"get /key 0\r\n",
        ] {
            assert_eq!(
                detect_http(bytes),
                Detected::NotHttp,
                "{:?}",
                bytes.escape_ascii()
            );
        }
    }

    #[test]
    fn a_target_without_end_is_left_to_the_http_codec() {
        let mut bytes = b"GET /".to_vec();
        bytes.resize(MAX_DETECT - 1, b'a');
        assert_eq!(detect_http(&bytes), Detected::NeedMore);

        bytes.push(b'a');

        assert_eq!(detect_http(&bytes), Detected::Http1);
    }

    fn first_bytes() -> impl Strategy<Value = Vec<u8>> {
        let word = prop_oneof![
            Just("GET"),
            Just("PRI"),
            Just("*"),
            Just("/path"),
            Just(" "),
            Just("\t"),
            Just("\r\n"),
            Just("HTTP/1.1"),
            Just("HTTP/2.0\r\n\r\nSM\r\n\r\n"),
            Just("HTT"),
            Just("\0"),
            Just("\x16\x03\x01"),
        ];
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..64),
            prop::collection::vec(word, 0..12).prop_map(|words| words.concat().into_bytes()),
            (0..2 * MAX_DETECT).prop_map(|length| {
                let mut bytes = b"GET /".to_vec();
                bytes.resize(length, b'a');
                bytes
            }),
        ]
    }

    proptest! {
        #[test]
        fn a_decision_does_not_change_when_more_bytes_come(
            bytes in first_bytes(),
            more in first_bytes(),
        ) {
            let whole = [&bytes[..], &more[..]].concat();
            let decided = detect_http(&bytes);

            if decided == Detected::NeedMore {
                prop_assert!(bytes.len() < MAX_DETECT);
            } else {
                prop_assert_eq!(detect_http(&whole), decided);
            }
        }
    }
}

//! Reads heads, and refuses every one that two readers could understand differently.
//!
//! `httparse` finds the parts; what it forgives is refused here: lines that end in a bare
//! LF, targets that are none. Framing has one meaning or the message is refused (RFC 9112
//! §6.3): a single `content-length` of digits, or `transfer-encoding` of exactly `chunked`
//! on HTTP/1.1, never both.
//!
//! Hop-by-hop headers do not get into the map at all, which also keeps the order of the
//! others. Values are slices of the bytes that were read.

use std::{mem::MaybeUninit, ops::Range};

use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header,
};
use tulle_core::{Reason, Refusal};

use super::AbsoluteForm;
use crate::headers::{is_hop_by_hop, may_be_nominated, tokens};

/// More headers than this are never accepted, whatever the options say.
pub(crate) const MAX_HEADERS: usize = 128;
/// Offsets are kept in 16 bits.
pub(crate) const MAX_HEAD: usize = 65_535;
/// Line ends before a request line that are skipped (RFC 9112 §2.2 asks for one).
const MAX_LEADING: usize = 4;
const MAX_METHOD: usize = 64;

/// What a peer may send as a head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub max_head: usize,
    pub max_headers: usize,
}

/// Why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    Syntax(&'static str),
    TooLarge,
}

impl Malformed {
    pub(crate) fn request_refusal(self) -> Refusal {
        match self {
            Self::Syntax(what) => Refusal::new(Reason::BadRequest, what),
            Self::TooLarge => Refusal::new(
                Reason::HeadersTooLarge,
                "the request head is larger than the limit",
            ),
        }
    }

    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Syntax(what) => what,
            Self::TooLarge => "the response head is larger than the limit",
        }
    }
}

/// How long the body after a head is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    None,
    Exactly(u64),
    Chunked,
    /// Until the connection ends; responses only.
    Close,
}

/// How a request asks for a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Switch {
    No,
    Upgrade,
    Connect,
}

#[derive(Debug)]
pub(crate) struct RequestHead {
    pub request: Request<()>,
    pub length: Length,
    /// The client lets the connection be used again.
    pub keep_alive: bool,
    /// What makes the connection a tunnel, if the answer says so.
    pub switch: Switch,
    /// The client waits for a 100 before it sends the body.
    pub expects_continue: bool,
}

#[derive(Debug)]
pub(crate) struct ResponseHead {
    pub response: Response<()>,
    pub length: Length,
    pub keep_alive: bool,
    /// The connection is a tunnel from here on.
    pub tunnel: bool,
}

/// What decides how a response is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub head: bool,
    pub connect: bool,
    pub upgrade: bool,
}

/// Where a header lies in the head.
#[derive(Clone, Copy, Default)]
struct Span {
    name: u16,
    name_end: u16,
    value: u16,
    value_end: u16,
}

struct Spans {
    list: [Span; MAX_HEADERS],
    count: usize,
}

/// Take a request head off the front of `input`. `None`: it is not whole yet.
pub(crate) fn request(
    input: &mut BytesMut,
    limits: Limits,
) -> Result<Option<RequestHead>, Malformed> {
    let mut storage = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut []);
    let window = &input[..input.len().min(limits.max_head)];
    let status = parsed
        .parse_with_uninit_headers(window, &mut storage[..limits.max_headers.min(MAX_HEADERS)])
        .map_err(malformed)?;
    let httparse::Status::Complete(length) = status else {
        check_leading(window)?;
        return if window.len() < input.len() || window.len() == limits.max_head {
            Err(Malformed::TooLarge)
        } else {
            Ok(None)
        };
    };
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version)
    else {
        return Err(Malformed::Syntax("incomplete request line"));
    };
    check_leading(window)?;
    let method_at = offset(window, method.as_bytes());
    let target_at = offset(window, target.as_bytes());
    if method_at.len() > MAX_METHOD {
        return Err(Malformed::Syntax("the method is too long"));
    }
    // " HTTP/1.x" and the end of the line.
    check_line_end(window, target_at.end + 9)?;
    let spans = spans(window, parsed.headers, length)?;
    let method =
        Method::from_bytes(method.as_bytes()).map_err(|_| Malformed::Syntax("invalid method"))?;
    let version = if version == 1 {
        Version::HTTP_11
    } else {
        Version::HTTP_10
    };

    let head = take(input, length);
    request_from(&head, method, target_at, version, &spans).map(Some)
}

fn request_from(
    head: &Bytes,
    method: Method,
    target: Range<usize>,
    version: Version,
    spans: &Spans,
) -> Result<RequestHead, Malformed> {
    let mut fields = Fields::read(head, spans)?;
    let (uri, form) = parse_target(&method, head.slice(target))?;
    fields.check_host(version)?;

    let length = match (fields.length, fields.chunked) {
        (Some(_), true) => {
            return Err(Malformed::Syntax(
                "both content-length and transfer-encoding",
            ));
        }
        (None, true) if version == Version::HTTP_10 => {
            return Err(Malformed::Syntax("transfer-encoding on HTTP/1.0"));
        }
        (None, true) => Length::Chunked,
        (Some(0) | None, false) => Length::None,
        (Some(length), false) => Length::Exactly(length),
    };
    let connect = method == Method::CONNECT;
    if connect && length != Length::None {
        return Err(Malformed::Syntax("a CONNECT request with a body"));
    }
    let upgrade = version == Version::HTTP_11
        && fields.connection_upgrade
        && length == Length::None
        && fields.upgrade.as_ref().is_some_and(may_upgrade);
    if let Some(value) = fields.upgrade.take()
        && upgrade
    {
        fields.map.insert(header::UPGRADE, value);
    }
    let expects_continue = version == Version::HTTP_11
        && length != Length::None
        && fields
            .map
            .get(header::EXPECT)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));

    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.version_mut() = version;
    if form == Form::Absolute || connect {
        // The target decides, whatever `host` said (RFC 9112 §3.2.2).
        if let Some(authority) = uri.authority()
            && let Ok(host) = HeaderValue::from_str(authority.as_str())
        {
            fields.map.insert(header::HOST, host);
        }
    }
    *request.uri_mut() = uri;
    *request.headers_mut() = fields.map;
    if form == Form::Absolute {
        request.extensions_mut().insert(AbsoluteForm);
    }
    Ok(RequestHead {
        request,
        length,
        // A proxy does not keep HTTP/1.0 connections (RFC 9112 §9.3).
        keep_alive: version == Version::HTTP_11 && !fields.close,
        switch: match (connect, upgrade) {
            (true, _) => Switch::Connect,
            (false, true) => Switch::Upgrade,
            (false, false) => Switch::No,
        },
        expects_continue,
    })
}

/// Take a response head off the front of `input`. `None`: it is not whole yet.
pub(crate) fn response(
    input: &mut BytesMut,
    limits: Limits,
    asked: Asked,
) -> Result<Option<ResponseHead>, Malformed> {
    let mut storage = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut parsed = httparse::Response::new(&mut []);
    let window = &input[..input.len().min(limits.max_head)];
    let status = httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(
            &mut parsed,
            window,
            &mut storage[..limits.max_headers.min(MAX_HEADERS)],
        )
        .map_err(malformed)?;
    let httparse::Status::Complete(length) = status else {
        return if window.len() < input.len() || window.len() == limits.max_head {
            Err(Malformed::TooLarge)
        } else {
            Ok(None)
        };
    };
    let (Some(version), Some(code)) = (parsed.version, parsed.code) else {
        return Err(Malformed::Syntax("incomplete status line"));
    };
    if window.first() != Some(&b'H') {
        return Err(Malformed::Syntax("empty line before the status line"));
    }
    let line_end = window.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    if line_end == 0 || window[line_end - 1] != b'\r' {
        return Err(Malformed::Syntax("a line ends in a bare LF"));
    }
    let spans = spans(window, parsed.headers, length)?;
    let status = StatusCode::from_u16(code).map_err(|_| Malformed::Syntax("invalid status"))?;
    let version = if version == 1 {
        Version::HTTP_11
    } else {
        Version::HTTP_10
    };

    let head = take(input, length);
    response_from(&head, status, version, &spans, asked).map(Some)
}

fn response_from(
    head: &Bytes,
    status: StatusCode,
    version: Version,
    spans: &Spans,
    asked: Asked,
) -> Result<ResponseHead, Malformed> {
    let mut fields = Fields::read(head, spans)?;
    let switching = status == StatusCode::SWITCHING_PROTOCOLS;
    if switching && !(asked.upgrade && fields.connection_upgrade && fields.upgrade.is_some()) {
        return Err(Malformed::Syntax("101 without being asked for it"));
    }
    let tunnel = switching || (asked.connect && status.is_success());
    let bodiless = tunnel
        || status.is_informational()
        || asked.head
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED;
    if fields.length.is_some() && fields.chunked {
        return Err(Malformed::Syntax(
            "both content-length and transfer-encoding",
        ));
    }
    if fields.chunked && version == Version::HTTP_10 {
        return Err(Malformed::Syntax("transfer-encoding on HTTP/1.0"));
    }
    let length = match fields.length {
        _ if bodiless => Length::None,
        _ if fields.chunked => Length::Chunked,
        Some(0) => Length::None,
        Some(length) => Length::Exactly(length),
        None => Length::Close,
    };
    // A body where none may be would be taken for the next response.
    let overhang = status == StatusCode::NO_CONTENT
        && (fields.chunked || fields.length.is_some_and(|length| length > 0));
    if tunnel || status == StatusCode::NO_CONTENT || status.is_informational() {
        fields.map.remove(header::CONTENT_LENGTH);
    }
    if let Some(value) = fields.upgrade.take()
        && switching
    {
        fields.map.insert(header::UPGRADE, value);
    }
    let keep_alive = if version == Version::HTTP_11 {
        !fields.close
    } else {
        fields.connection_keep_alive && !fields.close
    };
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.version_mut() = version;
    *response.headers_mut() = fields.map;
    Ok(ResponseHead {
        response,
        length,
        keep_alive: keep_alive && length != Length::Close && !tunnel && !overhang,
        tunnel,
    })
}

/// Take a trailer section off the front of `input`. `None`: it is not whole yet.
pub(crate) fn trailers(
    input: &mut BytesMut,
    limits: Limits,
) -> Result<Option<HeaderMap>, Malformed> {
    let mut storage = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let window = &input[..input.len().min(limits.max_head)];
    let status =
        httparse::parse_headers(window, &mut storage[..limits.max_headers.min(MAX_HEADERS)])
            .map_err(malformed)?;
    let httparse::Status::Complete((length, parsed)) = status else {
        return if window.len() < input.len() || window.len() == limits.max_head {
            Err(Malformed::TooLarge)
        } else {
            Ok(None)
        };
    };
    let spans = spans(window, parsed, length)?;
    let section = take(input, length);
    let mut map = HeaderMap::with_capacity(spans.count);
    for span in &spans.list[..spans.count] {
        let (name, value) = field(&section, *span)?;
        if !crate::headers::is_forbidden_in_trailers(&name) {
            map.append(name, value);
        }
    }
    Ok(Some(map))
}

/// What the headers say, with those of one hop kept apart.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct Fields {
    map: HeaderMap,
    length: Option<u64>,
    chunked: bool,
    hosts: usize,
    host_is_valid: bool,
    close: bool,
    connection_keep_alive: bool,
    connection_upgrade: bool,
    upgrade: Option<HeaderValue>,
}

impl Fields {
    fn read(head: &Bytes, spans: &Spans) -> Result<Self, Malformed> {
        let mut fields = Self {
            map: HeaderMap::with_capacity(spans.count),
            length: None,
            chunked: false,
            hosts: 0,
            host_is_valid: true,
            close: false,
            connection_keep_alive: false,
            connection_upgrade: false,
            upgrade: None,
        };
        let mut nominated: Vec<HeaderName> = Vec::new();
        for span in &spans.list[..spans.count] {
            let (name, value) = field(head, *span)?;
            match name {
                header::CONTENT_LENGTH => {
                    if fields.length.is_some() {
                        return Err(Malformed::Syntax("more than one content-length"));
                    }
                    let length = parse_length(value.as_bytes());
                    fields.length =
                        Some(length.ok_or(Malformed::Syntax("invalid content-length"))?);
                }
                header::TRANSFER_ENCODING => {
                    if fields.chunked || !value.as_bytes().eq_ignore_ascii_case(b"chunked") {
                        return Err(Malformed::Syntax("transfer-encoding other than chunked"));
                    }
                    fields.chunked = true;
                    continue;
                }
                header::HOST => {
                    fields.hosts += 1;
                    fields.host_is_valid &= is_host(value.as_bytes());
                }
                header::CONNECTION => {
                    fields.connection(value.as_bytes(), &mut nominated);
                    continue;
                }
                header::UPGRADE => {
                    // Two lists are not joined: what is asked for must be one value.
                    fields.upgrade = Some(match fields.upgrade {
                        None => value,
                        Some(_) => HeaderValue::from_static(""),
                    });
                    continue;
                }
                header::TE => {
                    // Trailers are passed on, so this hop takes them.
                    if tokens(value.as_bytes()).any(|token| token.eq_ignore_ascii_case(b"trailers"))
                    {
                        fields
                            .map
                            .insert(header::TE, HeaderValue::from_static("trailers"));
                    }
                    continue;
                }
                _ if is_hop_by_hop(&name) => continue,
                _ => {}
            }
            fields.map.append(name, value);
        }
        for name in nominated {
            fields.map.remove(name);
        }
        Ok(fields)
    }

    fn connection(&mut self, value: &[u8], nominated: &mut Vec<HeaderName>) {
        for token in tokens(value) {
            if token.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if token.eq_ignore_ascii_case(b"keep-alive") {
                self.connection_keep_alive = true;
            } else if token.eq_ignore_ascii_case(b"upgrade") {
                self.connection_upgrade = true;
            } else if let Ok(name) = HeaderName::from_bytes(token)
                && may_be_nominated(&name)
            {
                nominated.push(name);
            }
        }
    }

    fn check_host(&self, version: Version) -> Result<(), Malformed> {
        match self.hosts {
            0 if version == Version::HTTP_11 => Err(Malformed::Syntax("no host")),
            0 | 1 if self.host_is_valid => Ok(()),
            0 | 1 => Err(Malformed::Syntax("invalid host")),
            _ => Err(Malformed::Syntax("more than one host")),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Origin,
    Absolute,
    Authority,
    Asterisk,
}

fn parse_target(method: &Method, target: Bytes) -> Result<(Uri, Form), Malformed> {
    const ILLEGAL: Malformed = Malformed::Syntax("illegal request target");
    let form = match target.first() {
        _ if *method == Method::CONNECT => Form::Authority,
        Some(b'/') => Form::Origin,
        Some(b'*') if target.len() == 1 && *method == Method::OPTIONS => Form::Asterisk,
        Some(b'a'..=b'z' | b'A'..=b'Z') => Form::Absolute,
        _ => return Err(ILLEGAL),
    };
    // A fragment is never sent; `Uri` would cut it off.
    if target.contains(&b'#') {
        return Err(ILLEGAL);
    }
    let uri = Uri::from_maybe_shared(target).map_err(|_| ILLEGAL)?;
    let fits = match form {
        Form::Origin | Form::Asterisk => uri.scheme().is_none() && uri.authority().is_none(),
        Form::Absolute => {
            matches!(uri.scheme_str(), Some("http" | "https")) && has_plain_authority(&uri)
        }
        Form::Authority => {
            uri.scheme().is_none()
                && uri.path_and_query().is_none()
                && uri.port().is_some()
                && has_plain_authority(&uri)
        }
    };
    if fits { Ok((uri, form)) } else { Err(ILLEGAL) }
}

/// An authority without user information, which would hide the host from a careless reader.
fn has_plain_authority(uri: &Uri) -> bool {
    uri.authority().is_some_and(|authority| {
        is_host(authority.as_str().as_bytes()) && !authority.host().is_empty()
    })
}

/// `uri-host [":" port]` of RFC 9110 §7.2, by its characters. It may be empty.
pub(crate) fn is_host(host: &[u8]) -> bool {
    let (name, port) = match host.iter().rposition(|byte| *byte == b':') {
        Some(colon) if host.last() != Some(&b']') => (&host[..colon], &host[colon + 1..]),
        _ => (host, &host[..0]),
    };
    let name_fits = match name.strip_prefix(b"[") {
        Some(literal) => literal.strip_suffix(b"]").is_some_and(|literal| {
            !literal.is_empty()
                && literal
                    .iter()
                    .all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'))
        }),
        None => name.iter().all(|byte| {
            byte.is_ascii_alphanumeric()
                || matches!(
                    byte,
                    b'-' | b'.'
                        | b'_'
                        | b'~'
                        | b'%'
                        | b'!'
                        | b'$'
                        | b'&'
                        | b'\''
                        | b'('
                        | b')'
                        | b'*'
                        | b'+'
                        | b';'
                        | b'='
                )
        }),
    };
    name_fits && port.len() <= 5 && port.iter().all(u8::is_ascii_digit)
}

/// Whether the connection may be handed over to the protocols asked for. Never to HTTP/2 or
/// TLS: what follows would be requests that nobody authorizes.
fn may_upgrade(value: &HeaderValue) -> bool {
    let mut asked = tokens(value.as_bytes()).peekable();
    asked.peek().is_some()
        && asked.all(|protocol| {
            let name = protocol
                .split(|byte| *byte == b'/')
                .next()
                .unwrap_or_default();
            ![&b"h2c"[..], b"h2", b"http", b"tls"]
                .iter()
                .any(|barred| name.eq_ignore_ascii_case(barred))
        })
}

fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 {
        return None;
    }
    value.iter().try_fold(0_u64, |length, byte| {
        byte.is_ascii_digit()
            .then(|| length * 10 + u64::from(byte - b'0'))
    })
}

fn field(head: &Bytes, span: Span) -> Result<(HeaderName, HeaderValue), Malformed> {
    let name = HeaderName::from_bytes(&head[span.name.into()..span.name_end.into()])
        .map_err(|_| Malformed::Syntax("invalid header name"))?;
    let value = head.slice(usize::from(span.value)..span.value_end.into());
    let value = HeaderValue::from_maybe_shared(value)
        .map_err(|_| Malformed::Syntax("invalid header value"))?;
    Ok((name, value))
}

/// Where the headers lie, each line checked to end in CRLF, and the head with an empty one.
fn spans(
    window: &[u8],
    headers: &[httparse::Header<'_>],
    length: usize,
) -> Result<Spans, Malformed> {
    let mut spans = Spans {
        list: [Span::default(); MAX_HEADERS],
        count: headers.len(),
    };
    for (span, header) in spans.list.iter_mut().zip(headers) {
        let name = offset(window, header.name.as_bytes());
        let value = offset(window, header.value);
        let blanks = window[value.end..]
            .iter()
            .take_while(|byte| matches!(byte, b' ' | b'\t'))
            .count();
        check_line_end(window, value.end + blanks)?;
        *span = Span {
            name: to_u16(name.start),
            name_end: to_u16(name.end),
            value: to_u16(value.start),
            value_end: to_u16(value.end),
        };
    }
    check_line_end(window, length.saturating_sub(2))?;
    Ok(spans)
}

/// `MAX_HEAD` fits.
fn to_u16(at: usize) -> u16 {
    u16::try_from(at).unwrap_or(u16::MAX)
}

fn check_line_end(window: &[u8], at: usize) -> Result<(), Malformed> {
    if window.get(at..at + 2) == Some(b"\r\n") {
        Ok(())
    } else {
        Err(Malformed::Syntax("a line ends in a bare LF"))
    }
}

/// Only a few whole line ends may come before a request line.
fn check_leading(window: &[u8]) -> Result<(), Malformed> {
    let blank = window
        .iter()
        .take_while(|byte| matches!(byte, b'\r' | b'\n'))
        .count();
    let whole = window[..blank]
        .chunks(2)
        .all(|pair| pair == b"\r\n" || pair == b"\r");
    if blank <= MAX_LEADING && whole {
        Ok(())
    } else {
        Err(Malformed::Syntax("line ends before the request line"))
    }
}

fn offset(window: &[u8], part: &[u8]) -> Range<usize> {
    let start = part.as_ptr() as usize - window.as_ptr() as usize;
    start..start + part.len()
}

/// Split `length` bytes off; without a second allocation where they are all that there is.
fn take(input: &mut BytesMut, length: usize) -> Bytes {
    if input.len() == length {
        std::mem::take(input).freeze()
    } else {
        input.split_to(length).freeze()
    }
}

fn malformed(error: httparse::Error) -> Malformed {
    match error {
        httparse::Error::TooManyHeaders => Malformed::TooLarge,
        httparse::Error::HeaderName => Malformed::Syntax("invalid header name"),
        httparse::Error::HeaderValue => Malformed::Syntax("invalid header value"),
        httparse::Error::NewLine => Malformed::Syntax("invalid line end"),
        httparse::Error::Status => Malformed::Syntax("invalid status"),
        httparse::Error::Token => Malformed::Syntax("invalid character"),
        httparse::Error::Version => Malformed::Syntax("invalid HTTP version"),
    }
}

//! Writes heads and bodies. The framing headers of a message are always our own, made from
//! how its body really is framed; whatever stood in the map is left out.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};

use super::{
    AbsoluteForm,
    io::{Buffered, Stream},
    parse::Switch,
};
use crate::{
    Body, BodyError,
    headers::{is_forbidden_in_trailers, is_hop_by_hop},
};

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is none.
    Nothing,
    /// So many bytes are still to come.
    Length(u64),
    Chunked,
    /// As they are, until the connection ends.
    Raw,
}

/// A body on its way out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outgoing {
    pub framing: Framing,
    /// Something of the body was taken.
    pub started: bool,
    /// The last byte was handed to the buffer.
    pub finished: bool,
}

/// Why a body could not be written.
#[derive(Debug)]
pub(crate) enum PumpError {
    /// It could not be had.
    Body(BodyError),
    /// It could not be sent.
    Io(std::io::Error),
}

/// Where a body is written to. The response of a server is written to a connection that the
/// very same poll reads the request body from, so neither may be borrowed across the other.
pub(crate) trait Sink {
    type Io: Stream;
    fn with<R>(&mut self, act: impl FnOnce(&mut Buffered<Self::Io>) -> R) -> R;
}

impl<I: Stream> Sink for &mut Buffered<I> {
    type Io = I;
    fn with<R>(&mut self, act: impl FnOnce(&mut Buffered<I>) -> R) -> R {
        act(self)
    }
}

impl Outgoing {
    pub(crate) fn new(framing: Framing) -> Self {
        Self {
            framing,
            started: false,
            finished: framing == Framing::Nothing,
        }
    }

    /// Move the body on; ready when all of it is written and flushed. As much as is there is
    /// gathered before anything is written.
    pub(crate) fn poll_pump(
        &mut self,
        body: &mut Body,
        mut sink: impl Sink,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), PumpError>> {
        loop {
            let mut waiting = false;
            while !self.finished && sink.with(|io| io.has_room()) {
                match body.poll_next(cx) {
                    Poll::Ready(Some(Ok(frame))) => {
                        self.started = true;
                        let last = body.is_end_stream();
                        sink.with(|io| self.frame(frame, last, io))
                            .map_err(PumpError::Body)?;
                    }
                    Poll::Ready(Some(Err(error))) => {
                        return Poll::Ready(Err(PumpError::Body(error)));
                    }
                    Poll::Ready(None) => {
                        sink.with(|io| self.finish(None, io))
                            .map_err(PumpError::Body)?;
                    }
                    Poll::Pending => {
                        waiting = true;
                        break;
                    }
                }
            }
            ready!(sink.with(|io| io.poll_write_out(cx))).map_err(PumpError::Io)?;
            if self.finished {
                return Poll::Ready(Ok(()));
            }
            if waiting {
                return Poll::Pending;
            }
        }
    }

    fn frame<I: Stream>(
        &mut self,
        frame: http_body::Frame<Bytes>,
        last: bool,
        io: &mut Buffered<I>,
    ) -> Result<(), BodyError> {
        match frame.into_data() {
            Ok(data) => {
                self.data(data, io)?;
                // A tunnel ends with its connection, not with what the body says of itself.
                if last && self.framing != Framing::Raw {
                    self.finish(None, io)
                } else {
                    Ok(())
                }
            }
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => self.finish(Some(&trailers), io),
                Err(_) => Ok(()),
            },
        }
    }

    fn data<I: Stream>(&mut self, data: Bytes, io: &mut Buffered<I>) -> Result<(), BodyError> {
        if data.is_empty() {
            return Ok(());
        }
        match &mut self.framing {
            Framing::Nothing => return Err(BodyError::Length),
            Framing::Length(left) => {
                *left = left
                    .checked_sub(data.len() as u64)
                    .ok_or(BodyError::Length)?;
                io.push(data);
            }
            Framing::Chunked => {
                let mut size = [0; 18];
                io.push_small(chunk_size(data.len(), &mut size));
                io.push(data);
                io.push_small(b"\r\n");
            }
            Framing::Raw => io.push(data),
        }
        Ok(())
    }

    fn finish<I: Stream>(
        &mut self,
        trailers: Option<&HeaderMap>,
        io: &mut Buffered<I>,
    ) -> Result<(), BodyError> {
        match self.framing {
            Framing::Length(left) if left > 0 => return Err(BodyError::Length),
            Framing::Chunked => match trailers {
                None => io.push_small(b"0\r\n\r\n"),
                Some(trailers) => {
                    let mut section = b"0\r\n".to_vec();
                    for (name, value) in trailers {
                        if !is_forbidden_in_trailers(name) {
                            line(&mut section, name.as_str().as_bytes(), value);
                        }
                    }
                    section.extend_from_slice(b"\r\n");
                    io.push(section.into());
                }
            },
            _ => {}
        }
        self.finished = true;
        Ok(())
    }
}

/// How the body of a request is framed, and what its head must say.
pub(crate) fn request_framing(request: &Request<Body>) -> Framing {
    let body = request.body();
    if request.method() == Method::CONNECT || body.is_end_stream() {
        return Framing::Nothing;
    }
    match content_length(request.headers()).or_else(|| body.exact_length()) {
        Some(length) => Framing::Length(length),
        None => Framing::Chunked,
    }
}

/// Write a request's head.
pub(crate) fn request(out: &mut Vec<u8>, request: &Request<Body>, framing: Framing, tunnel: bool) {
    let uri = request.uri();
    out.extend_from_slice(request.method().as_str().as_bytes());
    out.push(b' ');
    if *request.method() == Method::CONNECT {
        out.extend_from_slice(
            uri.authority()
                .map_or("", |authority| authority.as_str())
                .as_bytes(),
        );
    } else {
        if request.extensions().get::<AbsoluteForm>().is_some()
            && let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority())
        {
            out.extend_from_slice(scheme.as_bytes());
            out.extend_from_slice(b"://");
            out.extend_from_slice(authority.as_str().as_bytes());
        }
        out.extend_from_slice(
            uri.path_and_query()
                .map_or("/", |path| path.as_str())
                .as_bytes(),
        );
    }
    let http10 = request.version() == Version::HTTP_10;
    out.extend_from_slice(if http10 {
        b" HTTP/1.0\r\n"
    } else {
        b" HTTP/1.1\r\n"
    });
    if !request.headers().contains_key(header::HOST)
        && let Some(authority) = uri.authority()
    {
        out.extend_from_slice(b"host: ");
        out.extend_from_slice(authority.as_str().as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    let mut takes_trailers = false;
    let mut cookies = request.headers().get_all(header::COOKIE).iter();
    for (name, value) in request.headers() {
        if *name == header::TE {
            takes_trailers = value == "trailers";
        } else if *name == header::COOKIE {
            // HTTP/2 may split the cookie, HTTP/1 may not (RFC 9113 §8.2.3).
            if let Some(first) = cookies.next() {
                out.extend_from_slice(b"cookie: ");
                out.extend_from_slice(first.as_bytes());
                for more in cookies.by_ref() {
                    out.extend_from_slice(b"; ");
                    out.extend_from_slice(more.as_bytes());
                }
                out.extend_from_slice(b"\r\n");
            }
        } else if !is_hop_by_hop(name) && *name != header::CONTENT_LENGTH {
            line(out, name.as_str().as_bytes(), value);
        }
    }
    match framing {
        Framing::Length(length) => length_line(out, length),
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Framing::Nothing
            if request.headers().contains_key(header::CONTENT_LENGTH)
                || matches!(
                    *request.method(),
                    Method::POST | Method::PUT | Method::PATCH
                ) =>
        {
            length_line(out, 0);
        }
        Framing::Nothing | Framing::Raw => {}
    }
    if let Some(upgrade) = request.headers().get(header::UPGRADE)
        && tunnel
    {
        out.extend_from_slice(b"connection: upgrade\r\n");
        line(out, b"upgrade", upgrade);
    } else if takes_trailers && !http10 {
        out.extend_from_slice(b"te: trailers\r\nconnection: te\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// What the request was, as far as its answer depends on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answering {
    pub head: bool,
    pub http10: bool,
    pub switch: Switch,
}

/// How the body of a response is framed. `None`: its own headers contradict each other or
/// the request.
pub(crate) fn response_framing(response: &Response<Body>, request: Answering) -> Option<Framing> {
    let status = response.status();
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return (request.switch == Switch::Upgrade).then_some(Framing::Raw);
    }
    if status.is_informational() {
        return None;
    }
    if request.switch == Switch::Connect && status.is_success() {
        return Some(Framing::Raw);
    }
    let mut lengths = response.headers().get_all(header::CONTENT_LENGTH).iter();
    let stated = lengths.next();
    if lengths.next().is_some() {
        return None;
    }
    let stated = match stated {
        Some(value) => Some(parse(value)?),
        None => None,
    };
    if request.head || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED {
        return Some(Framing::Nothing);
    }
    let body = response.body();
    Some(match stated.or_else(|| body.exact_length()) {
        Some(0) => Framing::Nothing,
        Some(length) => Framing::Length(length),
        None if request.http10 => Framing::Raw,
        None => Framing::Chunked,
    })
}

/// Write a response's head. `close`: the connection ends after it.
pub(crate) fn response(
    out: &mut Vec<u8>,
    response: &Response<Body>,
    framing: Framing,
    request: Answering,
    close: bool,
) {
    let status = response.status();
    status_line(out, status);
    let headers = response.headers();
    for (name, value) in headers {
        if !is_hop_by_hop(name) && *name != header::CONTENT_LENGTH {
            line(out, name.as_str().as_bytes(), value);
        }
    }
    match framing {
        Framing::Length(length) => length_line(out, length),
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Framing::Nothing if request.head || status == StatusCode::NOT_MODIFIED => {
            // What the body would have been.
            if let Some(length) = content_length(headers) {
                length_line(out, length);
            } else if let Some(length @ 1..) = response.body().exact_length() {
                length_line(out, length);
            }
        }
        Framing::Nothing if status != StatusCode::NO_CONTENT => length_line(out, 0),
        Framing::Nothing | Framing::Raw => {}
    }
    if status == StatusCode::SWITCHING_PROTOCOLS {
        out.extend_from_slice(b"connection: upgrade\r\n");
        if let Some(upgrade) = headers.get(header::UPGRADE) {
            line(out, b"upgrade", upgrade);
        }
    } else if close {
        out.extend_from_slice(b"connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Write a 1xx head.
pub(crate) fn informational(out: &mut Vec<u8>, response: &Response<()>) {
    status_line(out, response.status());
    for (name, value) in response.headers() {
        if !is_hop_by_hop(name) && *name != header::CONTENT_LENGTH {
            line(out, name.as_str().as_bytes(), value);
        }
    }
    out.extend_from_slice(b"\r\n");
}

fn status_line(out: &mut Vec<u8>, status: StatusCode) {
    if status == StatusCode::OK {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        return;
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn line(out: &mut Vec<u8>, name: &[u8], value: &HeaderValue) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn length_line(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(b"content-length: ");
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = length;
    loop {
        at -= 1;
        digits[at] = b"0123456789"[usize::try_from(rest % 10).unwrap_or(0)];
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}

fn chunk_size(size: usize, line: &mut [u8; 18]) -> &[u8] {
    let mut at = 16;
    line[16..].copy_from_slice(b"\r\n");
    let mut rest = size;
    loop {
        at -= 1;
        line[at] = b"0123456789abcdef"[rest % 16];
        rest /= 16;
        if rest == 0 {
            break;
        }
    }
    &line[at..]
}

/// The one content length that the codec or h2 has checked.
fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH).and_then(parse)
}

fn parse(value: &HeaderValue) -> Option<u64> {
    value
        .to_str()
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?
        .parse()
        .ok()
}

//! One line for each request, however it ended, on standard error.
//!
//! A request appends its line to a buffer in memory; a thread of its own writes the buffer
//! out a few times a second, so that a slow terminal or a full pipe holds nobody up. What
//! comes while the buffer is full is counted and left out.

use std::{
    cell::Cell,
    fmt::Write as _,
    io::Write as _,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    thread::{self, Thread},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, header};
use parking_lot::Mutex;
use tokio::time::Instant;
use tulle_core::{AccessFormat, Id, Refusal};
use tulle_http::{Body, End, Observer, Request, Response};
use tulle_metrics::{Kind, Registry};

/// Lines are written together that come within this time.
const PAUSE: Duration = Duration::from_millis(100);

/// What is kept for a writer that does not get on: a second of 5,000 requests.
const MAX_BUFFER: usize = 1 << 20;

/// What a buffer keeps when it was written out.
const KEPT_BUFFER: usize = 1 << 16;

/// Longer than most lines.
const LINE: usize = 1 << 9;

const B3_TRACE: HeaderName = HeaderName::from_static("x-b3-traceid");
const W3C_TRACE: HeaderName = HeaderName::from_static("traceparent");

/// Where requests write their lines. Clones are the same log.
#[derive(Clone, Debug)]
pub struct AccessLog(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    format: AccessFormat,
    buffer: Mutex<Buffer>,
    /// Held while something is written, so that lines stay whole and in order; an empty
    /// buffer otherwise, which takes its turn with the other one.
    writing: Mutex<String>,
}

#[derive(Debug, Default)]
struct Buffer {
    lines: String,
    /// The second of the last line, and how it is written.
    second: (u64, String),
    /// Not written because there was no room.
    lost: u64,
    writer: Option<Thread>,
}

impl AccessLog {
    /// Start the thread that writes.
    ///
    /// # Errors
    /// Where the system has no thread left.
    pub fn start(format: AccessFormat, registry: &Registry) -> std::io::Result<Self> {
        let log = Self(Arc::new(Shared {
            format,
            buffer: Mutex::default(),
            writing: Mutex::default(),
        }));
        let writer = log.clone();
        let thread = thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || {
                loop {
                    thread::park();
                    thread::sleep(PAUSE);
                    writer.flush();
                }
            })?;
        log.0.buffer.lock().writer = Some(thread.thread().clone());
        let counted = log.clone();
        registry.sampled(
            "tulle_access_log_lost_lines",
            "Lines of the access log that were not written because the writer was too slow.",
            Kind::Counter,
            #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 lines")]
            move || counted.0.buffer.lock().lost as f64,
        );
        Ok(log)
    }

    /// Write what there is, on the thread that asks.
    pub fn flush(&self) {
        let mut lines = self.0.writing.lock();
        std::mem::swap(&mut *lines, &mut self.0.buffer.lock().lines);
        // Nobody is left to be told that standard error is closed.
        let _ = std::io::stderr().write_all(lines.as_bytes());
        lines.clear();
        lines.shrink_to(KEPT_BUFFER);
    }

    /// A request has come.
    #[must_use]
    pub fn begin(&self, request: &Request, client: &Rc<LoggedClient>) -> Box<Entry> {
        let headers = request.headers();
        let mut entry = Entry::new(self, client);
        entry.method = request.method().clone();
        entry.uri = request.uri().clone();
        entry.version = request.version();
        entry.host = headers.get(header::HOST).cloned();
        entry.user_agent = headers.get(header::USER_AGENT).cloned();
        entry.request_bytes = headers.get(header::CONTENT_LENGTH).cloned();
        entry.trace = trace(headers);
        entry
    }

    /// Something has come that is no request, and was refused.
    pub fn unread(&self, refusal: &Refusal, client: &Rc<LoggedClient>) {
        let mut entry = Entry::new(self, client);
        entry.status = refusal.status().as_u16();
    }

    fn append(&self, entry: &Entry) {
        let mut buffer = self.0.buffer.lock();
        if buffer.lines.len() >= MAX_BUFFER {
            buffer.lost += 1;
            return;
        }
        let first = buffer.lines.is_empty();
        let Buffer { lines, second, .. } = &mut *buffer;
        lines.reserve(LINE);
        match self.0.format {
            AccessFormat::Apache => entry.apache(lines, second),
            AccessFormat::Json => entry.json(lines, second),
        }
        lines.push('\n');
        if first && let Some(writer) = &buffer.writer {
            writer.unpark();
        }
    }
}

/// Who sends the requests of one connection, as lines say it.
#[derive(Debug)]
pub struct LoggedClient {
    address: String,
    id: String,
}

impl LoggedClient {
    /// Write it once for all lines.
    #[must_use]
    pub fn new(address: SocketAddr, id: Option<&Id>) -> Rc<Self> {
        let mut text = String::new();
        quoted(&mut text, id.map_or("-", Id::as_str));
        Rc::new(Self {
            address: address.to_string(),
            id: text,
        })
    }
}

/// The line of one request; it is written when this is dropped, with what is known by then.
#[derive(Debug)]
pub struct Entry {
    log: AccessLog,
    came: SystemTime,
    started: Instant,
    client: Rc<LoggedClient>,
    /// Absent, as the fields from the header, where no request could be read.
    method: Method,
    uri: Uri,
    version: Version,
    host: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    request_bytes: Option<HeaderValue>,
    trace: Option<HeaderValue>,
    /// 0: the client was gone before there was one.
    status: u16,
    processing: Duration,
    response_bytes: u64,
}

impl Entry {
    fn new(log: &AccessLog, client: &Rc<LoggedClient>) -> Box<Self> {
        Box::new(Self {
            log: log.clone(),
            came: SystemTime::now(),
            started: Instant::now(),
            client: client.clone(),
            method: Method::default(),
            uri: Uri::default(),
            version: Version::default(),
            host: None,
            user_agent: None,
            request_bytes: None,
            trace: None,
            status: 0,
            processing: Duration::ZERO,
            response_bytes: 0,
        })
    }

    /// Follow the response to its end; `processing` is what it has cost this proxy so far.
    #[must_use]
    pub fn follow(mut self: Box<Self>, response: Response, processing: Duration) -> Response {
        self.status = response.status().as_u16();
        self.processing = processing;
        if response.body().is_end_stream() {
            return response;
        }
        let following = Following {
            bytes: Cell::new(0),
            entry: Cell::new(Some(self)),
        };
        response.map(|body: Body| body.observed(Rc::new(following)))
    }

    fn apache(&self, out: &mut String, second: &mut (u64, String)) {
        out.push_str(&self.client.address);
        out.push(' ');
        out.push_str(&self.client.id);
        out.push_str(" - [");
        timestamp(out, self.came, second);
        out.push_str("] \"");
        out.push_str(self.method.as_str());
        out.push(' ');
        target(out, &self.uri);
        out.push(' ');
        out.push_str(version(self.version));
        out.push_str("\" ");
        digits(out, self.status.into(), 3);
        out.push(' ');
        number(out, self.response_bytes);
    }

    fn json(&self, out: &mut String, second: &mut (u64, String)) {
        out.push_str("{\"client.addr\":\"");
        out.push_str(&self.client.address);
        out.push_str("\",\"client.id\":\"");
        out.push_str(&self.client.id);
        out.push_str("\",\"host\":\"");
        match (&self.host, self.uri.authority()) {
            (None, Some(authority)) => quoted(out, authority.as_str()),
            (host, _) => written(out, host.as_ref()),
        }
        out.push_str("\",\"method\":\"");
        out.push_str(self.method.as_str());
        out.push_str("\",\"processing_ns\":\"");
        number(out, nanoseconds(self.processing));
        out.push_str("\",\"request_bytes\":\"");
        written(out, self.request_bytes.as_ref());
        out.push_str("\",\"response_bytes\":\"");
        number(out, self.response_bytes);
        out.push_str("\",\"status\":");
        number(out, self.status.into());
        out.push_str(",\"timestamp\":\"");
        timestamp(out, self.came, second);
        out.push_str("\",\"total_ns\":\"");
        number(out, nanoseconds(self.started.elapsed()));
        out.push_str("\",\"trace_id\":\"");
        written(out, self.trace.as_ref());
        out.push_str("\",\"uri\":\"");
        target(out, &self.uri);
        out.push_str("\",\"user_agent\":\"");
        written(out, self.user_agent.as_ref());
        out.push_str("\",\"version\":\"");
        out.push_str(version(self.version));
        out.push_str("\"}");
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.log.append(self);
    }
}

/// Counts the bytes of a response; its end drops the entry.
struct Following {
    bytes: Cell<u64>,
    entry: Cell<Option<Box<Entry>>>,
}

impl Observer for Following {
    fn data(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes as u64);
    }

    fn end(&self, _end: End<'_>) {
        if let Some(mut entry) = self.entry.take() {
            entry.response_bytes = self.bytes.get();
        }
    }
}

/// The identifier of the trace that the request is a part of.
fn trace(headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get(B3_TRACE).cloned().or_else(|| {
        // version "-" trace-id "-" parent-id "-" flags
        let id = headers.get(W3C_TRACE)?.to_str().ok()?.split('-').nth(1)?;
        HeaderValue::from_str(id).ok()
    })
}

// A line is written for each request, so what is simple does not go through `fmt`.

fn target(out: &mut String, uri: &Uri) {
    match uri.path_and_query() {
        Some(path) if uri.scheme().is_none() && uri.authority().is_none() => {
            quoted(out, path.as_str());
        }
        _ => quoted(out, &uri.to_string()),
    }
}

const fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_3 => "HTTP/3.0",
        _ => "HTTP/1.1",
    }
}

fn written(out: &mut String, value: Option<&HeaderValue>) {
    match value.map(|value| value.to_str().map_err(|_| value)) {
        None => {}
        Some(Ok(text)) => quoted(out, text),
        Some(Err(value)) => quoted(out, &String::from_utf8_lossy(value.as_bytes())),
    }
}

/// What a peer has written must not end the quotes, nor the line.
fn quoted(out: &mut String, text: &str) {
    let plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
    // Without an early end the processor looks at many bytes at once.
    if text.bytes().fold(true, |all, byte| all & plain(byte)) {
        return out.push_str(text);
    }
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            control if control.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
}

fn number(out: &mut String, number: u64) {
    out.push_str(itoa::Buffer::new().format(number));
}

/// The number with zeros before it, up to so many digits.
fn digits(out: &mut String, value: u64, width: usize) {
    let mut buffer = itoa::Buffer::new();
    let text = buffer.format(value);
    out.push_str(&"000000000"[..width.saturating_sub(text.len())]);
    out.push_str(text);
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// RFC 3339 in UTC, with nanoseconds; `second` is the last one that was written.
fn timestamp(out: &mut String, time: SystemTime, second: &mut (u64, String)) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    if second.0 != since.as_secs() || second.1.is_empty() {
        *second = (since.as_secs(), moment(since.as_secs()));
    }
    out.push_str(&second.1);
    digits(out, since.subsec_nanos().into(), 9);
    out.push('Z');
}

fn moment(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.")
}

/// The Gregorian date of a day since 1970-01-01. Years are counted from March, so that the
/// leap day is the last one, in eras of 400 of them.
const fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (era * 400 + year + carry, month, day)
}

#[cfg(test)]
mod tests {
    use std::{
        pin::Pin,
        task::{Context, Waker},
    };

    use http_body::Body as _;
    use tulle_core::Reason;

    use super::*;

    fn log(format: AccessFormat) -> AccessLog {
        AccessLog(Arc::new(Shared {
            format,
            buffer: Mutex::default(),
            writing: Mutex::default(),
        }))
    }

    fn request() -> Request {
        http::Request::builder()
            .uri("http://web.shop/a\"b?c".replace('"', "%22"))
            .version(Version::HTTP_2)
            .header("user-agent", "a \"quoted\" one")
            .header("content-length", "12")
            .header(
                "traceparent",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            )
            .body(Body::empty())
            .unwrap()
    }

    fn client(id: Option<&Id>) -> Rc<LoggedClient> {
        LoggedClient::new(([10, 0, 0, 7], 4321).into(), id)
    }

    fn lines(log: &AccessLog) -> String {
        log.0.buffer.lock().lines.clone()
    }

    #[test]
    fn a_response_is_logged_when_its_body_ends_with_the_bytes_that_were_sent() {
        let log = log(AccessFormat::Apache);
        let id = Id::new("web.shop.serviceaccount");
        let entry = log.begin(&request(), &client(Some(&id)));

        let response = entry.follow(Response::new(Body::full("hello")), Duration::ZERO);
        assert_eq!(lines(&log), "");
        let mut body = response.into_body();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut body).poll_frame(&mut cx).is_ready());

        let lines = lines(&log);
        let (before, after) = lines.split_once(" - [").unwrap();
        assert_eq!(before, "10.0.0.7:4321 web.shop.serviceaccount");
        let (_, after) = after.split_once("] ").unwrap();
        assert_eq!(after, "\"GET http://web.shop/a%22b?c HTTP/2.0\" 200 5\n");
    }

    #[test]
    fn a_client_that_left_before_the_answer_has_its_line_too() {
        let log = log(AccessFormat::Apache);

        drop(log.begin(&request(), &client(None)));

        assert!(lines(&log).starts_with("10.0.0.7:4321 - - ["));
        assert!(lines(&log).ends_with(" HTTP/2.0\" 000 0\n"));
    }

    #[test]
    fn what_a_peer_writes_stays_inside_its_quotes() {
        let log = log(AccessFormat::Json);
        let entry = log.begin(&request(), &client(None));

        drop(entry.follow(Response::new(Body::empty()), Duration::from_nanos(39_826)));

        let lines = lines(&log);
        for part in [
            "{\"client.addr\":\"10.0.0.7:4321\",\"client.id\":\"-\",\"host\":\"web.shop\"",
            "\"processing_ns\":\"39826\",\"request_bytes\":\"12\"",
            "\"response_bytes\":\"0\",\"status\":200,\"timestamp\":\"20",
            "\"trace_id\":\"4bf92f3577b34da6a3ce929d0e0e4736\"",
            "\"user_agent\":\"a \\\"quoted\\\" one\",\"version\":\"HTTP/2.0\"}\n",
        ] {
            assert!(lines.contains(part), "{part} is not in {lines}");
        }
    }

    #[test]
    fn what_is_no_request_is_a_line_with_its_status() {
        let log = log(AccessFormat::Apache);

        log.unread(&Refusal::new(Reason::BadRequest, "no"), &client(None));

        assert!(lines(&log).ends_with("\" 400 0\n"), "{}", lines(&log));
    }

    #[test]
    fn a_buffer_that_nobody_writes_out_does_not_grow_for_ever() {
        let log = log(AccessFormat::Apache);

        while log.0.buffer.lock().lost == 0 {
            drop(log.begin(&request(), &client(None)));
        }

        assert!(lines(&log).len() < MAX_BUFFER + 1024);
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (days, expected) in [
            (0, (1970, 1, 1)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (19_782, (2024, 2, 29)),
            (20_454, (2026, 1, 1)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(date(days), expected, "{days}");
        }
    }
}

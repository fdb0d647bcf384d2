//! What the proxy did for one request, from its arrival to the end of the response.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use http::{Uri, header};
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    time::Instant,
};
use tulle_api::otlp::{self, KeyValue, any_value::Value, span::SpanKind, status::StatusCode};
use tulle_core::Direction;
use tulle_http::{End, Observer, Request, Response};

use crate::Context;

/// A path or an agent is cut here: spans are many, and a collector refuses what is too big.
const MAX_TEXT: usize = 1024;

/// A longer state of a trace is left out of the span, since a part of one means nothing. As
/// much everybody has to pass on (Trace Context §3.3.1.5).
const MAX_STATE: usize = 512;

/// The headers that a span tells; others may be secret.
const SHOWN: [(&str, &str); 4] = [
    ("user-agent", "user_agent.original"),
    ("content-length", "http.request.header.content-length"),
    ("content-type", "http.request.header.content-type"),
    ("l5d-orig-proto", "http.request.header.l5d-orig-proto"),
];

/// gRPC codes that are the server's fault (semantic conventions for RPC).
const GRPC_FAILURES: [u16; 6] = [2, 4, 12, 13, 14, 15];

/// Begins spans. Without a collector it does nothing.
#[derive(Clone, Debug, Default)]
pub struct Tracer(Option<Arc<Sink>>);

/// Where spans wait to be sent.
#[derive(Debug)]
pub(crate) struct Sink {
    pub(crate) spans: mpsc::Sender<otlp::Span>,
    pub(crate) dropped: AtomicU64,
}

impl Tracer {
    pub(crate) const fn new(sink: Arc<Sink>) -> Self {
        Self(Some(sink))
    }

    /// Take part in the trace that a request belongs to. The request goes on as sent by this
    /// span.
    #[must_use]
    pub fn server(&self, direction: Direction, request: &mut Request) -> Option<Span> {
        let sink = self.0.as_ref()?;
        let context = Context::sampled(request.headers())?;
        Some(Span::begin(
            sink,
            direction,
            SpanKind::Server,
            context,
            request,
        ))
    }
}

/// One span; it is sent when it is dropped.
#[derive(Debug)]
pub struct Span {
    sink: Arc<Sink>,
    direction: Direction,
    /// With this span as the sender.
    context: Context,
    begun: Instant,
    /// In a box, because most requests have none.
    told: Box<otlp::Span>,
}

impl Span {
    fn begin(
        sink: &Arc<Sink>,
        direction: Direction,
        kind: SpanKind,
        parent: Context,
        request: &mut Request,
    ) -> Self {
        let context = Context {
            span: rand::random::<u64>().max(1),
            ..parent
        };
        let state = Some(context.state(request.headers())).filter(|state| state.len() <= MAX_STATE);
        let span = otlp::Span {
            trace_id: context.trace.to_be_bytes().to_vec(),
            span_id: context.span.to_be_bytes().to_vec(),
            parent_span_id: parent.span.to_be_bytes().to_vec(),
            trace_state: state.unwrap_or_default().to_owned(),
            name: short(request.uri().path()),
            kind: kind.into(),
            start_time_unix_nano: unix_nanoseconds(),
            attributes: attributes(direction, request),
            ..otlp::Span::default()
        };
        context.write(request.headers_mut());
        Self {
            sink: sink.clone(),
            direction,
            context,
            begun: Instant::now(),
            told: Box::new(span),
        }
    }

    /// The span of one attempt to have the request answered, as a child of this one; the
    /// request goes on as sent by it.
    #[must_use]
    pub fn client(&self, request: &mut Request) -> Self {
        Self::begin(
            &self.sink,
            self.direction,
            SpanKind::Client,
            self.context,
            request,
        )
    }

    /// End with the response's end.
    #[must_use]
    pub fn observe(mut self, response: Response) -> Response {
        let status = response.status();
        // Text, because the stock proxy's is.
        self.add(
            "http.response.status_code",
            Value::StringValue(status.as_str().to_owned()),
        );
        if status.is_server_error() {
            self.fail();
        }
        self.grpc(response.headers());
        let following = Rc::new(Following(RefCell::new(Some(self))));
        response.map(|body| body.observed(following))
    }

    /// There is no response.
    pub fn failed(mut self, why: &'static str) {
        self.add("error.type", Value::StringValue(why.to_owned()));
        self.fail();
    }

    fn grpc(&mut self, section: &http::HeaderMap) {
        let code = section
            .get("grpc-status")
            .and_then(|code| code.to_str().ok()?.parse().ok());
        if let Some(code) = code {
            self.add("rpc.grpc.status_code", Value::IntValue(i64::from(code)));
            if GRPC_FAILURES.contains(&code) {
                self.fail();
            }
        }
    }

    fn fail(&mut self) {
        self.told.status = Some(otlp::Status {
            code: StatusCode::Error.into(),
            message: String::new(),
        });
    }

    fn add(&mut self, key: &str, value: Value) {
        self.told.attributes.push(attribute(key, value));
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let mut span = std::mem::take(&mut *self.told);
        let lasted = u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        span.end_time_unix_nano = span.start_time_unix_nano.saturating_add(lasted);
        if let Err(TrySendError::Full(_)) = self.sink.spans.try_send(span) {
            self.sink.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Holds the span until the body is over.
struct Following(RefCell<Option<Span>>);

impl Observer for Following {
    fn data(&self, _bytes: usize) {}

    fn end(&self, end: End<'_>) {
        let Some(mut span) = self.0.take() else {
            return;
        };
        match end {
            End::Complete { trailers } => {
                if let Some(trailers) = trailers {
                    span.grpc(trailers);
                }
            }
            End::Failed(_) => span.failed("response_broken"),
            End::Dropped => span.failed("client_gone"),
        }
    }
}

/// The stock proxy's, by the semantic conventions for HTTP.
fn attributes(direction: Direction, request: &Request) -> Vec<KeyValue> {
    let uri = request.uri();
    let host = uri.authority().cloned().or_else(|| {
        let host = request.headers().get(header::HOST)?;
        host.to_str().ok()?.parse().ok()
    });
    let shown = SHOWN.into_iter().filter_map(|(name, key)| {
        let value = request.headers().get(name)?;
        Some((key, short(&String::from_utf8_lossy(value.as_bytes()))))
    });
    [
        ("direction", Some(direction.label().to_owned())),
        (
            "http.request.method",
            Some(short(request.method().as_str())),
        ),
        ("url.scheme", uri.scheme_str().map(str::to_owned)),
        ("url.path", Some(short(uri.path()))),
        ("url.query", uri.query().map(short)),
        ("url.full", Some(full(uri))),
        ("network.transport", Some("tcp".to_owned())),
        (
            "server.address",
            host.as_ref().map(|host| short(host.host())),
        ),
        (
            "server.port",
            host.as_ref()
                .and_then(|host| Some(host.port()?.to_string())),
        ),
    ]
    .into_iter()
    .filter_map(|(key, text)| Some((key, text?)))
    .chain(shown)
    .map(|(key, text)| attribute(key, Value::StringValue(text)))
    .collect()
}

/// The URL without the name and password of a user.
fn full(uri: &Uri) -> String {
    let scheme = uri
        .scheme_str()
        .map_or_else(String::new, |scheme| format!("{scheme}://"));
    let host = uri.authority().map_or("", |authority| {
        let authority = authority.as_str();
        authority
            .rsplit_once('@')
            .map_or(authority, |(_, host)| host)
    });
    let path = uri.path_and_query().map_or("", |path| path.as_str());
    short(&format!("{scheme}{host}{path}"))
}

pub(crate) fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(otlp::AnyValue { value: Some(value) }),
    }
}

fn short(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_TEXT)].to_owned()
}

pub(crate) fn unix_nanoseconds() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}

use http::{HeaderMap, HeaderValue};
use tulle_core::Reason;
use tulle_http::{BodyError, End, Response};

/// gRPC codes that count as a failure of the server (the stock classification).
const GRPC_FAILURES: [u16; 6] = [2, 4, 7, 13, 14, 15];

const GRPC_UNKNOWN: u16 = 2;
const GRPC_LAST: u16 = 16;

/// What the head of a response tells about its outcome.
#[derive(Clone, Copy, Debug)]
pub struct ResponseFacts {
    /// The HTTP status.
    pub status: u16,
    /// Whether the outcome is in `grpc-status` and not in the HTTP status.
    pub grpc: bool,
    /// `grpc-status` where it came with the head.
    pub grpc_status: Option<u16>,
}

impl ResponseFacts {
    /// Read the head.
    #[must_use]
    pub fn of(response: &Response) -> Self {
        let grpc = is_grpc(response.headers());
        Self {
            status: response.status().as_u16(),
            grpc,
            grpc_status: if grpc {
                grpc_status(response.headers())
            } else {
                None
            },
        }
    }

    /// What the response would come to if its body ended well and said nothing more.
    #[must_use]
    pub fn so_far(&self) -> Ended {
        self.end(&End::Complete { trailers: None })
    }

    /// What the response came to, once its body has ended.
    #[must_use]
    pub fn end(&self, end: &End<'_>) -> Ended {
        let (error, trailers) = match end {
            End::Complete { trailers } => ("", *trailers),
            End::Failed(error) => (failure_label(error), None),
            End::Dropped => ("CANCEL", None),
        };
        let grpc_status = match self.grpc_status {
            None if self.grpc => trailers.and_then(grpc_status),
            known => known,
        };
        let failed = match grpc_status {
            Some(code) => GRPC_FAILURES.contains(&code),
            None => self.status >= 500,
        };
        Ended {
            status: self.status,
            grpc_status,
            // A client that goes away has not been failed by the server.
            failure: failed || matches!(end, End::Failed(_)),
            error,
        }
    }
}

/// The label of a response whose head was passed on and whose end was not.
fn failure_label(error: &BodyError) -> &'static str {
    match error {
        BodyError::Refused(refusal) => match refusal.reason {
            Reason::Timeout => "REQUEST_TIMEOUT",
            Reason::ResponseTimeout | Reason::BackendTimeout => "RESPONSE_STREAM_TIMEOUT",
            Reason::IdleTimeout => "IDLE_TIMEOUT",
            _ => "unclassified",
        },
        _ => "unclassified",
    }
}

/// The outcome of one response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The HTTP status.
    pub status: u16,
    /// From head or trailers.
    pub grpc_status: Option<u16>,
    /// The label `classification`.
    pub failure: bool,
    /// The label `error`; empty where the body ended cleanly.
    pub error: &'static str,
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// A code that nobody has defined is UNKNOWN, as for the client: a peer must not be able to
/// make up as many series as there are numbers.
fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    let value = headers.get("grpc-status").map(HeaderValue::to_str)?;
    let code: u16 = value.ok()?.parse().ok()?;
    Some(if code <= GRPC_LAST {
        code
    } else {
        GRPC_UNKNOWN
    })
}

//! The one place where a refusal becomes a response.

use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use tulle_core::{Direction, Refusal};

use crate::{Body, Request, Response, headers};

/// What an answer of ours must know of the request, which may be gone by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    version: Version,
    grpc: bool,
    hop: Option<Direction>,
    discreet: bool,
}

impl Facts {
    /// Note them while the request is there.
    #[must_use]
    pub fn of(request: &Request) -> Self {
        let grpc = request.version() == Version::HTTP_2
            && request.method() == Method::POST
            && is_grpc(request.headers());
        Self {
            version: request.version(),
            grpc,
            hop: None,
            discreet: false,
        }
    }

    /// Of a request that could not be read.
    pub(crate) const fn unread(version: Version) -> Self {
        Self {
            version,
            grpc: false,
            hop: None,
            discreet: false,
        }
    }

    /// Name the half of the proxy that answers.
    #[must_use]
    pub const fn on(mut self, hop: Direction) -> Self {
        self.hop = Some(hop);
        self
    }

    /// Tell the client the code and no more: which objects there are, and what the
    /// application is like, is not for those who have proved no name.
    #[must_use]
    pub const fn to_stranger(mut self, stranger: bool) -> Self {
        self.discreet = stranger;
        self
    }

    /// Whether the client speaks HTTP/2.
    #[must_use]
    pub fn is_http2(self) -> bool {
        self.version == Version::HTTP_2
    }

    /// Whether the client speaks gRPC, so that failures are `grpc-status`.
    #[must_use]
    pub const fn is_grpc(self) -> bool {
        self.grpc
    }
}

/// Whether the content type is one of gRPC's.
#[must_use]
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// Answer with a refusal, in the words of the client's protocol.
#[must_use]
pub fn refuse(refusal: &Refusal, facts: Facts) -> Response {
    let mut response = Response::new(Body::empty());
    if facts.grpc {
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/grpc"),
        );
        headers.insert("grpc-status", HeaderValue::from(refusal.reason.grpc_code()));
        let message = if facts.discreet {
            refusal.reason.code()
        } else {
            &refusal.message
        };
        headers.insert("grpc-message", grpc_message(message));
    } else {
        *response.status_mut() = refusal.status();
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    if !facts.discreet {
        headers.insert(headers::PROXY_ERROR, header_text(&refusal.message));
    }
    headers.insert(headers::REASON, reason(refusal, facts));
    if let Some(seconds) = refusal.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if refusal.reason.closes() {
        let close = HeaderValue::from_static("close");
        headers.insert(headers::PROXY_CONNECTION_CLOSE, close.clone());
        if !facts.is_http2() {
            headers.insert(header::CONNECTION, close);
        }
    }
    if response.status() == StatusCode::NO_CONTENT || response.status() == StatusCode::NOT_MODIFIED
    {
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    response
}

/// The code, and where it comes from as parameters (RFC 9651 §3.1.2).
fn reason(refusal: &Refusal, facts: Facts) -> HeaderValue {
    let code = refusal.reason.code();
    let Some(hop) = facts.hop else {
        return HeaderValue::from_static(code);
    };
    let (hop, phase) = (hop.label(), refusal.reason.phase().name());
    let mut text = format!("{code}; hop={hop}; phase={phase}");
    if let Some(resource) = refusal.resource.as_deref().filter(|_| !facts.discreet) {
        text.push_str("; resource=\"");
        text.extend(resource.chars().filter(|c| !matches!(c, '"' | '\\')));
        text.push('"');
    }
    header_text(&text)
}

/// Answer with another place to go to, as a route says.
#[must_use]
pub fn redirect(status: StatusCode, location: HeaderValue) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    response.headers_mut().insert(header::LOCATION, location);
    response
}

/// Answer with a gRPC status that a route injects, whatever the refusal's own would be.
#[must_use]
pub fn grpc_status(code: u16, refusal: &Refusal, facts: Facts) -> Response {
    let mut response = refuse(
        refusal,
        Facts {
            grpc: true,
            ..facts
        },
    );
    let headers = response.headers_mut();
    headers.insert("grpc-status", HeaderValue::from(code));
    headers.insert("grpc-message", grpc_message(&refusal.message));
    response
}

/// A text that may hold a peer's words, as a header value.
fn header_text(text: &str) -> HeaderValue {
    let visible: String = text
        .chars()
        .map(|c| {
            if c.is_ascii_graphic() || c == ' ' {
                c
            } else {
                '?'
            }
        })
        .collect();
    HeaderValue::try_from(visible).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Percent-encoded, as the gRPC protocol asks for in `Status-Message`.
pub(crate) fn grpc_message(text: &str) -> HeaderValue {
    use std::fmt::Write;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    HeaderValue::try_from(encoded).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use tulle_core::Reason;

    use super::*;

    const HTTP1: Facts = Facts {
        version: Version::HTTP_11,
        grpc: false,
        hop: None,
        discreet: false,
    };

    #[test]
    fn a_refusal_names_its_reason_and_closes_where_the_stock_proxy_does() {
        let response = refuse(
            &Refusal::new(Reason::ConnectFailed, "connect refused"),
            HTTP1,
        );

        assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
        assert_eq!(response.headers()["tulle-reason"], "connect_failed");
        assert_eq!(response.headers()["l5d-proxy-error"], "connect refused");
        assert_eq!(response.headers()["connection"], "close");
        assert_eq!(response.headers()["l5d-proxy-connection"], "close");
    }

    #[test]
    fn a_denial_keeps_the_connection() {
        let response = refuse(&Refusal::new(Reason::Unauthorized, "no"), HTTP1);

        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        assert!(!response.headers().contains_key("connection"));
        assert!(!response.headers().contains_key("l5d-proxy-connection"));
    }

    #[test]
    fn a_refusal_says_on_which_side_where_on_the_way_and_by_what() {
        let refusal = Refusal::new(Reason::Unauthorized, "no").by(&"policy.linkerd.io/Server/a");

        let response = refuse(&refusal, HTTP1.on(Direction::Inbound));

        assert_eq!(
            response.headers()["tulle-reason"],
            "unauthorized; hop=inbound; phase=policy; resource=\"policy.linkerd.io/Server/a\""
        );
    }

    #[test]
    fn a_stranger_learns_the_code_and_nothing_of_what_there_is() {
        let refusal = Refusal::new(Reason::Unauthorized, "route web").by(&"Server/a");

        let response = refuse(&refusal, HTTP1.on(Direction::Inbound).to_stranger(true));

        assert_eq!(
            response.headers()["tulle-reason"],
            "unauthorized; hop=inbound; phase=policy"
        );
        assert!(!response.headers().contains_key("l5d-proxy-error"));
    }

    #[test]
    fn a_limit_says_when_to_come_back() {
        let mut refusal = Refusal::new(Reason::RateLimited, "too many");
        refusal.retry_after = Some(2);

        let response = refuse(&refusal, HTTP1);

        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()["retry-after"], "2");
    }

    #[test]
    fn a_grpc_client_gets_a_trailers_only_answer() {
        let facts = Facts {
            version: Version::HTTP_2,
            grpc: true,
            ..HTTP1
        };

        let response = refuse(&Refusal::new(Reason::FailFast, "100 % gone\n"), facts);

        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["grpc-status"], "4");
        assert_eq!(response.headers()["grpc-message"], "100 %25 gone%0A");
        assert_eq!(response.headers()["l5d-proxy-error"], "100 % gone?");
        assert!(!response.headers().contains_key("connection"));
    }
}

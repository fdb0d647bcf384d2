//! HTTP/1 carried over HTTP/2 between two proxies.
//!
//! The proxy on the client's side *upgrades* the request and says in `l5d-orig-proto` what
//! it was; the one on the server's side *downgrades* it, so that the application sees what
//! its client sent, and marks the response; the first one *restores* the response.

use http::{HeaderValue, Method, Uri, Version, header, uri};

use crate::{Request, Response, headers::ORIG_PROTO, http1::AbsoluteForm};

/// What a request was before it was upgraded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrigProto {
    version: Version,
    absolute_form: bool,
}

impl OrigProto {
    fn header(self) -> HeaderValue {
        HeaderValue::from_static(match (self.version, self.absolute_form) {
            (Version::HTTP_10, false) => "HTTP/1.0",
            (Version::HTTP_10, true) => "HTTP/1.0; absolute-form",
            (_, false) => "HTTP/1.1",
            (_, true) => "HTTP/1.1; absolute-form",
        })
    }

    fn parse(value: &HeaderValue) -> Option<Self> {
        let value = value.as_bytes().trim_ascii();
        let (version, rest) = value.split_at_checked(8)?;
        let version = match version {
            b"HTTP/1.1" => Version::HTTP_11,
            b"HTTP/1.0" => Version::HTTP_10,
            _ => return None,
        };
        Some(Self {
            version,
            absolute_form: rest == b"; absolute-form",
        })
    }

    /// Tell the proxy at the other end that the response is for an upgraded request.
    pub fn mark(self, response: &mut Response) {
        let value = Self {
            absolute_form: false,
            ..self
        }
        .header();
        response.headers_mut().insert(ORIG_PROTO, value);
    }
}

/// Whether the request can only travel over HTTP/1: it asks for another protocol, is a
/// CONNECT, or names no authority.
#[must_use]
pub fn needs_http1(request: &Request) -> bool {
    request.version() != Version::HTTP_2
        && (request.headers().contains_key(header::UPGRADE)
            || request.method() == Method::CONNECT
            || (request.uri().authority().is_none()
                && request
                    .headers()
                    .get(header::HOST)
                    .is_none_or(HeaderValue::is_empty)))
}

/// Make an HTTP/1 request an HTTP/2 one. [`needs_http1`] must be false. Returns what
/// [`restore`] needs for its response.
pub fn upgrade(request: &mut Request) -> OrigProto {
    let orig = OrigProto {
        version: request.version(),
        absolute_form: request.extensions().get::<AbsoluteForm>().is_some(),
    };
    if let Some(host) = request.headers_mut().remove(header::HOST)
        && request.uri().authority().is_none()
    {
        set_authority(request.uri_mut(), &host);
    }
    request.headers_mut().insert(ORIG_PROTO, orig.header());
    *request.version_mut() = Version::HTTP_2;
    orig
}

/// Give the response to an upgraded request its version back.
pub fn restore(response: &mut Response, orig: OrigProto) {
    response.headers_mut().remove(ORIG_PROTO);
    *response.version_mut() = orig.version;
}

/// Make an upgraded request HTTP/1 again. `None`: it was HTTP/2 from the start. The header
/// is removed in any case.
pub fn downgrade(request: &mut Request) -> Option<OrigProto> {
    let value = request.headers_mut().remove(ORIG_PROTO)?;
    if request.version() != Version::HTTP_2 || request.method() == Method::CONNECT {
        return None;
    }
    let orig = OrigProto::parse(&value)?;
    *request.version_mut() = orig.version;
    if let Some(authority) = request.uri().authority() {
        // An authority is made of characters that a header value may have.
        if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
            request.headers_mut().insert(header::HOST, host);
        }
    }
    if orig.absolute_form {
        request.extensions_mut().insert(AbsoluteForm);
    } else {
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path.map_or_else(Uri::default, Uri::from);
    }
    Some(orig)
}

/// The same target with an authority, which a `host` header named.
pub(crate) fn set_authority(target: &mut Uri, host: &HeaderValue) {
    // The codec has checked the host; one from elsewhere that does not fit is left out, and
    // the peer refuses the request.
    let Ok(authority) = uri::Authority::try_from(host.as_bytes()) else {
        return;
    };
    let mut parts = std::mem::take(target).into_parts();
    parts.scheme.get_or_insert(uri::Scheme::HTTP);
    parts.authority = Some(authority);
    parts
        .path_and_query
        .get_or_insert_with(|| uri::PathAndQuery::from_static("/"));
    if let Ok(uri) = Uri::from_parts(parts) {
        *target = uri;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Body;

    fn request(target: &'static str) -> Request {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = Uri::from_static(target);
        request
            .headers_mut()
            .insert(header::HOST, HeaderValue::from_static("web.shop:80"));
        request
    }

    #[test]
    fn what_is_upgraded_and_downgraded_is_the_same_request() {
        let mut there = request("/a?b=c");

        let orig = upgrade(&mut there);

        assert_eq!(there.uri(), "http://web.shop:80/a?b=c");
        assert_eq!(there.version(), Version::HTTP_2);
        assert_eq!(there.headers()["l5d-orig-proto"], "HTTP/1.1");
        assert!(!there.headers().contains_key("host"));

        assert_eq!(downgrade(&mut there), Some(orig));
        assert_eq!(there.uri(), "/a?b=c");
        assert_eq!(there.version(), Version::HTTP_11);
        assert_eq!(there.headers()["host"], "web.shop:80");
        assert!(!there.headers().contains_key("l5d-orig-proto"));
    }

    #[test]
    fn the_absolute_form_survives() {
        let mut there = request("http://web.shop:80/a");
        there.extensions_mut().insert(AbsoluteForm);

        upgrade(&mut there);
        assert_eq!(there.headers()["l5d-orig-proto"], "HTTP/1.1; absolute-form");
        downgrade(&mut there);

        assert_eq!(there.uri(), "http://web.shop:80/a");
        assert!(there.extensions().get::<AbsoluteForm>().is_some());
    }

    #[test]
    fn a_response_is_marked_and_restored() {
        let orig = OrigProto {
            version: Version::HTTP_10,
            absolute_form: true,
        };
        let mut response = Response::new(Body::empty());

        orig.mark(&mut response);
        assert_eq!(response.headers()["l5d-orig-proto"], "HTTP/1.0");
        restore(&mut response, orig);

        assert_eq!(response.version(), Version::HTTP_10);
        assert!(response.headers().is_empty());
    }

    #[test]
    fn the_header_alone_makes_no_upgraded_request() {
        let mut http1 = request("/");
        http1
            .headers_mut()
            .insert(ORIG_PROTO, HeaderValue::from_static("HTTP/1.1"));

        assert_eq!(downgrade(&mut http1), None);
        assert!(!http1.headers().contains_key("l5d-orig-proto"));
    }
}

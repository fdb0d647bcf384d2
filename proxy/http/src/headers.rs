//! Which headers belong to one connection and which travel on.
//!
//! The codecs call this themselves: a request or a response that a [`crate::Service`] sees
//! carries no hop-by-hop header, except `upgrade` where the message really asks for one and
//! `te: trailers`.

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// What a mesh proxy says about HTTP/1 that travels over HTTP/2.
pub const ORIG_PROTO: HeaderName = HeaderName::from_static("l5d-orig-proto");
/// The text of a refusal.
pub const PROXY_ERROR: HeaderName = HeaderName::from_static("l5d-proxy-error");
/// Asks the proxy before us to close its client's connection.
pub const PROXY_CONNECTION_CLOSE: HeaderName = HeaderName::from_static("l5d-proxy-connection");
/// The identity that a request's endpoint has to have.
pub const REQUIRE_ID: HeaderName = HeaderName::from_static("l5d-require-id");
/// The code of a refusal.
pub const REASON: HeaderName = HeaderName::from_static("tulle-reason");

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Whether only proxies may write a header of this name towards an application. Some servers
/// take `_` for `-`, so that is no other name.
#[must_use]
pub fn is_reserved(name: &HeaderName) -> bool {
    matches!(
        name.as_str().as_bytes(),
        [b'l', b'5', b'd', b'-' | b'_', ..]
    ) || *name == REASON
}

/// Remove what only proxies may write.
pub fn strip_reserved(headers: &mut HeaderMap) {
    let reserved: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_reserved(name))
        .cloned()
        .collect();
    for name in reserved {
        headers.remove(name);
    }
}

/// Whether a header of this name is about one connection only.
#[must_use]
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    match *name {
        header::CONNECTION | header::TRANSFER_ENCODING | header::UPGRADE | header::TE => true,
        // The others have no constant; their lengths rule nearly every name out.
        _ => match name.as_str().len() {
            10 => *name == KEEP_ALIVE,
            14 => *name == HTTP2_SETTINGS,
            16 => *name == PROXY_CONNECTION,
            _ => false,
        },
    }
}

/// Remove what must not travel on: the well-known names and those that `connection` lists.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    // Nearly always there is nothing to remove, since the codecs let nothing of it in.
    let is_foreign = |(name, value): (&HeaderName, &HeaderValue)| {
        is_hop_by_hop(name) && !(*name == header::TE && *value == "trailers")
    };
    if headers.iter().any(is_foreign) {
        remove_hop_by_hop(headers);
    }
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let listed: Vec<HeaderValue> = headers
        .get_all(header::CONNECTION)
        .iter()
        .cloned()
        .collect();
    for value in &listed {
        for option in tokens(value.as_bytes()) {
            if let Ok(name) = HeaderName::from_bytes(option)
                && may_be_nominated(&name)
            {
                headers.remove(name);
            }
        }
    }
    for name in [
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        HTTP2_SETTINGS,
    ] {
        headers.remove(name);
    }
    if headers.get(header::TE).is_some_and(|te| te != "trailers") {
        headers.remove(header::TE);
    }
}

/// What `connection` may name: never what frames or routes a message, or a peer could take
/// away what others decide by.
pub(crate) fn may_be_nominated(name: &HeaderName) -> bool {
    !matches!(
        *name,
        header::HOST
            | header::CONTENT_LENGTH
            | header::TE
            | header::CONTENT_TYPE
            | header::AUTHORIZATION
    )
}

/// The members of a comma-separated list.
pub(crate) fn tokens(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty())
}

/// Fields that a trailer section must not bring in: framing, routing, and what is decided
/// before the body.
pub(crate) fn is_forbidden_in_trailers(name: &HeaderName) -> bool {
    is_hop_by_hop(name)
        || is_reserved(name)
        || matches!(
            *name,
            header::CONTENT_LENGTH
                | header::HOST
                | header::TRAILER
                | header::AUTHORIZATION
                | header::CONTENT_ENCODING
                | header::CONTENT_TYPE
                | header::CONTENT_RANGE
                | header::MAX_FORWARDS
                | header::CACHE_CONTROL
                | header::EXPECT
                | header::RANGE
                | header::SET_COOKIE
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_proxies_write_is_removed_in_either_spelling() {
        let mut headers = HeaderMap::new();
        for name in [
            "l5d-client-id",
            "l5d_client_id",
            "l5d-dst-override",
            "tulle-reason",
            "l5dx",
        ] {
            headers.append(name, HeaderValue::from_static("a"));
            headers.append(name, HeaderValue::from_static("b"));
        }

        strip_reserved(&mut headers);

        assert_eq!(headers.keys().collect::<Vec<_>>(), ["l5dx"]);
    }
}

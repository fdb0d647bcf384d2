//! What of a header section a watcher is shown: the stock proxy redacts nothing; here values
//! that open doors stay in the proxy.

use http::{HeaderMap, HeaderName, header};
use tulle_api::http_types::{Headers, headers::Header};

/// Stands where a value was.
const REDACTED: &[u8] = b"[redacted]";

/// Names and values of one section; what is over is left out, from the end.
const MAX_BYTES: usize = 16 * 1024;

/// The section as a watcher sees it, after what HTTP/2 says of a message before its headers.
pub(crate) fn shown<'a>(
    pseudo: impl IntoIterator<Item = (&'static str, &'a str)>,
    section: &HeaderMap,
) -> Headers {
    let pseudo = pseudo
        .into_iter()
        .map(|(name, value)| (name, value.as_bytes()));
    let section = section.iter().map(|(name, value)| {
        let value = if is_secret(name) {
            REDACTED
        } else {
            value.as_bytes()
        };
        (name.as_str(), value)
    });
    let mut room = MAX_BYTES;
    let headers = pseudo.chain(section).map_while(|(name, value)| {
        room = room.checked_sub(name.len() + value.len())?;
        Some(Header {
            name: name.to_owned(),
            value: value.to_vec(),
        })
    });
    Headers {
        headers: headers.collect(),
    }
}

/// Whether whoever knows the value could act for somebody else.
fn is_secret(name: &HeaderName) -> bool {
    const SECRET: [HeaderName; 4] = [
        header::AUTHORIZATION,
        header::COOKIE,
        header::PROXY_AUTHORIZATION,
        header::SET_COOKIE,
    ];
    let of_mesh = name.as_str().strip_prefix("l5d-");
    SECRET.contains(name) || of_mesh.is_some_and(|rest| rest.ends_with("token"))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn values_that_open_doors_are_not_shown_whatever_their_number() {
        let mut section = HeaderMap::new();
        for name in [
            "authorization",
            "cookie",
            "set-cookie",
            "proxy-authorization",
            "l5d-session-token",
            "l5d-token",
        ] {
            section.append(name, HeaderValue::from_static("secret"));
            section.append(name, HeaderValue::from_static("secret too"));
        }
        section.append("l5d-client-id", HeaderValue::from_static("web"));
        section.append("x-token", HeaderValue::from_static("the application's own"));

        let shown = shown([(":path", "/")], &section).headers;

        let (redacted, open): (Vec<_>, Vec<_>) =
            shown.iter().partition(|header| header.value == REDACTED);
        assert_eq!(redacted.len(), 12);
        let open: Vec<_> = open.iter().map(|header| header.name.as_str()).collect();
        assert_eq!(open, [":path", "l5d-client-id", "x-token"]);
    }

    #[test]
    fn a_section_that_is_too_long_is_cut_between_two_fields() {
        let mut section = HeaderMap::new();
        for _ in 0..20 {
            let value = HeaderValue::from_bytes(&[b'x'; 1000]).expect("letters");
            section.append("long", value);
        }

        let shown = shown([], &section).headers;

        assert_eq!(shown.len(), 16);
        assert!(shown.iter().all(|header| header.value.len() == 1000));
    }
}

use http::{HeaderMap, Method, Request, Uri, header::HOST};

/// What routing looks at in a request.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The method.
    pub method: &'a Method,
    /// The target, with an authority where the request has one there.
    pub uri: &'a Uri,
    /// The header fields.
    pub headers: &'a HeaderMap,
}

impl<'a> Facts<'a> {
    /// Those of a request.
    #[must_use]
    pub fn of<B>(request: &'a Request<B>) -> Self {
        Self {
            method: request.method(),
            uri: request.uri(),
            headers: request.headers(),
        }
    }

    /// The host that the request is for: of the target's authority, else of the `host` field,
    /// without port and without the root's dot.
    #[must_use]
    pub fn host(&self) -> Option<&'a str> {
        let host = match self.uri.host() {
            Some(host) => host,
            None => without_port(self.headers.get(HOST)?.to_str().ok()?),
        };
        Some(host.strip_suffix('.').unwrap_or(host)).filter(|host| !host.is_empty())
    }
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        // What follows the last colon of a bare IPv6 address ends in a bracket or belongs to it.
        Some((host, port))
            if port.bytes().all(|byte| byte.is_ascii_digit())
                && (!host.contains(':') || host.ends_with(']')) =>
        {
            host
        }
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host_of(uri: &str, host: &str) -> Option<String> {
        let request = Request::builder()
            .uri(uri)
            .header(HOST, host)
            .body(())
            .expect("a request");
        Facts::of(&request).host().map(str::to_owned)
    }

    #[test]
    fn the_host_is_that_of_the_target_or_of_the_header() {
        for (uri, header, host) in [
            ("/", "web.shop", "web.shop"),
            ("/", "web.shop:8080", "web.shop"),
            ("/", "web.shop.:8080", "web.shop"),
            ("/", "[fd77::1]:80", "[fd77::1]"),
            ("/", "[fd77::1]", "[fd77::1]"),
            ("http://api.shop:80/x", "web.shop", "api.shop"),
        ] {
            assert_eq!(
                host_of(uri, header).as_deref(),
                Some(host),
                "{uri} {header}"
            );
        }
        assert_eq!(host_of("/", ""), None);
    }
}

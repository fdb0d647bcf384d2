//! Which destination a request is for, where the application is an ingress.
//!
//! An ingress balances by itself and connects to endpoints, so that the address of its
//! connection says nothing about the service. The request says it: by `l5d-dst-override`,
//! which has to be right, or by its host, which may as well be a name of the outside world and
//! then leaves the request to where its connection was going.

use std::{net::IpAddr, rc::Rc};

use http::{HeaderName, HeaderValue, uri::Authority};
use tulle_core::{Reason, Refusal};
use tulle_http::Request;
use tulle_policy::Facts;

use crate::{DISCOVERY_TIMEOUT, Shard, destination::Destination};

const OVERRIDE: HeaderName = HeaderName::from_static("l5d-dst-override");

/// Where none is named.
const HTTP_PORT: u16 = 80;

/// Find the destination of a request, and take out of it what named that.
///
/// # Errors
/// Where the override is no host, or the control plane knows nothing of it.
pub(crate) async fn destination(
    shard: &Rc<Shard>,
    original: &Rc<Destination>,
    request: &mut Request,
) -> Result<Rc<Destination>, Refusal> {
    if let Some(value) = request.headers_mut().remove(OVERRIDE) {
        let named = Named::of(&value).ok_or_else(|| {
            let message = format!("{OVERRIDE} {value:?} is not host:port or host");
            Refusal::new(Reason::BadRequest, message)
        })?;
        let destination = named.destination(shard)?;
        destination.ready(DISCOVERY_TIMEOUT).await?;
        return Ok(destination);
    }
    let facts = Facts::of(request);
    let Some(host) = facts.host().filter(|host| shard.is_service(host)) else {
        return Ok(original.clone());
    };
    let port = request.uri().authority().and_then(Authority::port_u16);
    let port = port.or_else(|| {
        let host = request.headers().get(http::header::HOST)?;
        Authority::try_from(host.as_bytes()).ok()?.port_u16()
    });
    let named = Named::Name(host.to_ascii_lowercase(), port.unwrap_or(HTTP_PORT));
    let destination = named.destination(shard)?;
    match destination.ready(DISCOVERY_TIMEOUT).await {
        Ok(_) => Ok(destination),
        Err(refusal) if refusal.reason == Reason::RouteNotFound => Ok(original.clone()),
        Err(refusal) => Err(refusal),
    }
}

/// What an override names.
#[derive(Debug, PartialEq, Eq)]
enum Named {
    Name(String, u16),
    Address(IpAddr, u16),
}

impl Named {
    fn of(value: &HeaderValue) -> Option<Self> {
        let authority = Authority::try_from(value.as_bytes()).ok()?;
        let host = authority.host();
        let port = match authority.as_str().strip_prefix(host)? {
            "" => HTTP_PORT,
            port => {
                let digits = port.strip_prefix(':')?;
                let all = digits.bytes().all(|byte| byte.is_ascii_digit());
                digits.parse().ok().filter(|_| all)?
            }
        };
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        if let Ok(ip) = bare.unwrap_or(host).parse() {
            return Some(Self::Address(ip, port));
        }
        let host = host.strip_suffix('.').unwrap_or(host);
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let label = |label: &str| !label.is_empty() && label.bytes().all(legal);
        let name = host.len() <= 253 && host.split('.').all(label);
        name.then(|| Self::Name(host.to_ascii_lowercase(), port))
    }

    fn destination(self, shard: &Rc<Shard>) -> Result<Rc<Destination>, Refusal> {
        match self {
            Self::Name(host, port) => Ok(shard.named(&format!("{host}:{port}"), port)),
            Self::Address(ip, port) => {
                let target = (ip, port).into();
                shard.refuse_loop(target)?;
                Ok(shard.destination(target))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn named(value: &str) -> Option<Named> {
        Named::of(&HeaderValue::from_str(value).unwrap())
    }

    #[test]
    fn an_override_is_a_host_with_or_without_a_port() {
        let name = |host: &str, port| Some(Named::Name(host.to_owned(), port));

        assert_eq!(named("web.shop:8080"), name("web.shop", 8080));
        assert_eq!(named("Web.Shop."), name("web.shop", 80));
        assert_eq!(
            named("10.0.0.1:81"),
            Some(Named::Address([10, 0, 0, 1].into(), 81))
        );
        let ip = "fd77::1".parse().unwrap();
        assert_eq!(named("[fd77::1]"), Some(Named::Address(ip, 80)));
        for wrong in [
            "",
            ":80",
            "web:",
            "web:0x50",
            "web:65536",
            "a@b:80",
            "a..b",
            "web/path",
            "a b",
        ] {
            assert_eq!(named(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn whatever_an_application_writes_is_a_name_or_nothing(value in "[ -~]{0,40}") {
            if let Some(Named::Name(host, _)) = named(&value) {
                prop_assert!(host.split('.').all(|label| !label.is_empty()));
                prop_assert!(!host.contains([':', '@', '/', ' ']));
            }
        }
    }
}

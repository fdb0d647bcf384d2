//! The small types of the wire: addresses, durations, ratios, header fields.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use http::{HeaderName, HeaderValue, Method, uri::Scheme};
use ipnet::IpNet;
use regex::Regex;
use tulle_api::{http_types, net};
use tulle_core::Id;

use crate::{
    Invalid,
    invalid::{At, each, required},
};

/// The longest duration that protobuf allows, 10,000 years. Far from where adding one to a
/// point in time overflows.
const MAX_SECONDS: u64 = 315_576_000_000;

pub(crate) fn duration(wire: prost_types::Duration) -> Result<Duration, Invalid> {
    match (u64::try_from(wire.seconds), u32::try_from(wire.nanos)) {
        (Ok(seconds @ ..=MAX_SECONDS), Ok(nanos @ ..=999_999_999)) => {
            Ok(Duration::new(seconds, nanos))
        }
        _ => Err(Invalid::new(format_args!(
            "{} s {} ns is no duration",
            wire.seconds, wire.nanos
        ))),
    }
}

/// A time-out; absent and 0 both mean that there is none.
pub(crate) fn timeout(
    wire: Option<prost_types::Duration>,
    name: &str,
) -> Result<Option<Duration>, Invalid> {
    let limit = wire.map(duration).transpose().at(name)?;
    Ok(limit.filter(|limit| !limit.is_zero()))
}

pub(crate) fn ip(wire: net::IpAddress) -> Result<IpAddr, Invalid> {
    Ok(match required(wire.ip, "ip")? {
        net::ip_address::Ip::Ipv4(bits) => Ipv4Addr::from_bits(bits).into(),
        net::ip_address::Ip::Ipv6(net::IPv6 { first, last }) => {
            Ipv6Addr::from_bits((u128::from(first) << 64) | u128::from(last)).into()
        }
    })
}

pub(crate) fn network(wire: net::IpNetwork) -> Result<IpNet, Invalid> {
    let ip = ip(required(wire.ip, "ip")?)?;
    u8::try_from(wire.prefix_len)
        .ok()
        .and_then(|prefix_len| IpNet::new(ip, prefix_len).ok())
        .ok_or_else(|| Invalid::new(format_args!("{ip}/{} is no network", wire.prefix_len)))
}

pub(crate) fn address(wire: net::TcpAddress) -> Result<SocketAddr, Invalid> {
    let ip = ip(required(wire.ip, "ip")?)?;
    let port = port(wire.port)?;
    Ok(SocketAddr::new(ip, port))
}

pub(crate) fn port(wire: u32) -> Result<u16, Invalid> {
    u16::try_from(wire).map_err(|_| Invalid::new(format_args!("{wire} is no port")))
}

/// A name that a certificate can prove.
pub(crate) fn identity(name: &str) -> Result<Id, Invalid> {
    let legal = if name.contains("://") {
        name.bytes().all(|byte| byte.is_ascii_graphic())
    } else {
        is_dns_name(name)
    };
    if legal {
        Ok(Id::new(name))
    } else {
        Err(Invalid::new(format_args!("{name:?} is no identity")))
    }
}

/// Labels of letters, digits, `-` and `_`; one dot at the end is tolerated.
pub(crate) fn is_dns_name(name: &str) -> bool {
    name.len() <= 253
        && name
            .strip_suffix('.')
            .unwrap_or(name)
            .split('.')
            .all(is_dns_label)
}

pub(crate) fn is_dns_label(label: &str) -> bool {
    !label.is_empty()
        && label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

pub(crate) fn method(wire: http_types::HttpMethod) -> Result<Method, Invalid> {
    use http_types::http_method::{Registered, Type};
    match required(wire.r#type, "the method")? {
        Type::Registered(number) => match Registered::try_from(number) {
            Ok(Registered::Get) => Ok(Method::GET),
            Ok(Registered::Post) => Ok(Method::POST),
            Ok(Registered::Put) => Ok(Method::PUT),
            Ok(Registered::Delete) => Ok(Method::DELETE),
            Ok(Registered::Patch) => Ok(Method::PATCH),
            Ok(Registered::Options) => Ok(Method::OPTIONS),
            Ok(Registered::Connect) => Ok(Method::CONNECT),
            Ok(Registered::Head) => Ok(Method::HEAD),
            Ok(Registered::Trace) => Ok(Method::TRACE),
            Err(_) => Err(Invalid::new(format_args!("{number} is no method"))),
        },
        Type::Unregistered(name) => Method::from_bytes(name.as_bytes())
            .map_err(|_| Invalid::new(format_args!("{name:?} is no method"))),
    }
}

pub(crate) fn scheme(wire: http_types::Scheme) -> Result<Scheme, Invalid> {
    use http_types::scheme::{Registered, Type};
    match required(wire.r#type, "the scheme")? {
        Type::Registered(number) => match Registered::try_from(number) {
            Ok(Registered::Http) => Ok(Scheme::HTTP),
            Ok(Registered::Https) => Ok(Scheme::HTTPS),
            Err(_) => Err(Invalid::new(format_args!("{number} is no scheme"))),
        },
        Type::Unregistered(name) => name
            .parse()
            .map_err(|_| Invalid::new(format_args!("{name:?} is no scheme"))),
    }
}

pub(crate) fn header_name(name: &str) -> Result<HeaderName, Invalid> {
    HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| Invalid::new(format_args!("{name:?} is no header name")))
}

pub(crate) fn header_value(value: &[u8]) -> Result<HeaderValue, Invalid> {
    HeaderValue::from_bytes(value).map_err(|_| Invalid::new("not a header value"))
}

pub(crate) fn headers(
    name: &str,
    wire: Option<http_types::Headers>,
) -> Result<Box<[(HeaderName, HeaderValue)]>, Invalid> {
    each(name, wire.unwrap_or_default().headers, |header| {
        Ok((
            header_name(&header.name)?,
            header_value(&header.value).at(&header.name)?,
        ))
    })
}

/// A regular expression that has to match the whole value.
pub(crate) fn regex(pattern: &str) -> Result<Regex, Invalid> {
    // Without the first the group could be closed by the pattern itself, as in `a)|(b`.
    Regex::new(pattern)
        .and_then(|_| Regex::new(&format!("^(?:{pattern})$")))
        .map_err(|error| {
            Invalid::new(format_args!(
                "{pattern:?} is no regular expression: {error}"
            ))
        })
}

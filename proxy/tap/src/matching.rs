//! Which requests a watcher wants to see. Pure: a request and what is known of it go in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use http::{Method, header, uri::Scheme};
use ipnet::IpNet;
use tulle_api::{
    http_types, net,
    tap::observe_request::{
        self as wire,
        r#match::{self as one, http::string_match},
    },
};
use tulle_http::Request;

use crate::taps::Subject;

/// A question with more parts than this is none that a person asks, and each is put to every
/// request.
const MAX_PARTS: usize = 256;

/// Why a question cannot be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatchError(&'static str);

impl std::fmt::Display for MatchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for MatchError {}

const EMPTY: MatchError = MatchError("a match names nothing to compare with");

/// A condition on a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// All of these hold.
    All(Vec<Match>),
    /// One of these holds.
    Any(Vec<Match>),
    /// This does not hold.
    Not(Box<Match>),
    /// The client's address.
    Source(Address),
    /// The server's address.
    Destination(Address),
    /// A label of the server.
    DestinationLabel(String, String),
    /// A label of the route.
    RouteLabel(String, String),
    /// What an `http` or `https` URL begins with.
    Scheme(Scheme),
    /// The method.
    Method(Method),
    /// The host, with the port if it was written.
    Authority(Text),
    /// The path without the query.
    Path(Text),
}

/// A condition on an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// It is in the network.
    In(IpNet),
    /// Its port is one of these, ends included.
    Ports(u16, u16),
}

/// A condition on text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Text {
    /// It is this.
    Exact(String),
    /// It begins with this.
    Prefix(String),
}

impl Match {
    /// Read a question.
    ///
    /// # Errors
    /// Where it is empty, has no meaning or too many parts.
    pub fn from_wire(wire: Option<wire::Match>) -> Result<Self, MatchError> {
        let read = Self::read(wire.ok_or(EMPTY)?)?;
        if read.parts() > MAX_PARTS {
            return Err(MatchError("the match has more than 256 parts"));
        }
        Ok(read)
    }

    /// Nesting is bounded by the decoder, at 100.
    fn read(wire: wire::Match) -> Result<Self, MatchError> {
        use one::Match as Wire;
        Ok(match wire.r#match.ok_or(EMPTY)? {
            Wire::All(all) => Self::All(Self::read_each(all)?),
            Wire::Any(any) => Self::Any(Self::read_each(any)?),
            Wire::Not(not) => Self::Not(Box::new(Self::read(*not)?)),
            Wire::Source(tcp) => Self::Source(Address::read(tcp)?),
            Wire::Destination(tcp) => Self::Destination(Address::read(tcp)?),
            Wire::Http(http) => Self::read_http(http)?,
            Wire::DestinationLabel(label) => {
                let (key, value) = read_label(label)?;
                Self::DestinationLabel(key, value)
            }
            Wire::RouteLabel(label) => {
                let (key, value) = read_label(label)?;
                Self::RouteLabel(key, value)
            }
        })
    }

    fn read_each(wire: one::Seq) -> Result<Vec<Self>, MatchError> {
        wire.matches.into_iter().map(Self::read).collect()
    }

    fn read_http(wire: one::Http) -> Result<Self, MatchError> {
        use one::http::Match as Wire;
        Ok(match wire.r#match.ok_or(EMPTY)? {
            Wire::Scheme(scheme) => Self::Scheme(read_scheme(&scheme)?),
            Wire::Method(method) => Self::Method(read_method(&method)?),
            Wire::Authority(text) => Self::Authority(Text::read(text)?),
            Wire::Path(text) => Self::Path(Text::read(text)?),
        })
    }

    fn parts(&self) -> usize {
        match self {
            Self::All(parts) | Self::Any(parts) => 1 + parts.iter().map(Self::parts).sum::<usize>(),
            Self::Not(part) => 1 + part.parts(),
            _ => 1,
        }
    }

    /// Whether a request is one of those asked for.
    #[must_use]
    pub fn matches(&self, request: &Request, subject: &Subject<'_>) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.matches(request, subject)),
            Self::Any(parts) => parts.iter().any(|part| part.matches(request, subject)),
            Self::Not(part) => !part.matches(request, subject),
            Self::Source(address) => address.matches(subject.source),
            Self::Destination(address) => address.matches(subject.destination),
            Self::DestinationLabel(key, value) => has(subject.labels, key, value),
            Self::RouteLabel(key, value) => has(subject.route, key, value),
            // A server is not told the scheme by HTTP/1; without one it is `http`.
            Self::Scheme(scheme) => request.uri().scheme().unwrap_or(&Scheme::HTTP) == scheme,
            Self::Method(method) => request.method() == method,
            Self::Authority(text) => authority(request).is_some_and(|host| text.matches(host)),
            Self::Path(text) => text.matches(request.uri().path()),
        }
    }
}

impl Address {
    fn read(wire: one::Tcp) -> Result<Self, MatchError> {
        match wire.r#match.ok_or(EMPTY)? {
            one::tcp::Match::Netmask(network) => {
                let address = ip(network.ip.and_then(|ip| ip.ip).ok_or(EMPTY)?);
                let length = u8::try_from(network.mask).ok().filter(|length| *length > 0);
                let network = length.and_then(|length| IpNet::new(address, length).ok());
                network.map(Self::In).ok_or(MatchError(
                    "the length of a network's prefix is from 1 to 32, or 128 for IPv6",
                ))
            }
            one::tcp::Match::Ports(ports) => {
                // One end alone means that port.
                let (min, max) = match (ports.min, ports.max) {
                    (0, port) | (port, 0) => (port, port),
                    ends => ends,
                };
                match (u16::try_from(min), u16::try_from(max)) {
                    (Ok(min @ 1..), Ok(max)) if min <= max => Ok(Self::Ports(min, max)),
                    _ => Err(MatchError("ports are from 1 to 65535, the lower one first")),
                }
            }
        }
    }

    fn matches(&self, address: SocketAddr) -> bool {
        match self {
            // Sockets of both families show IPv4 clients as mapped addresses.
            Self::In(network) => network.contains(&address.ip().to_canonical()),
            Self::Ports(min, max) => (*min..=*max).contains(&address.port()),
        }
    }
}

impl Text {
    fn read(wire: one::http::StringMatch) -> Result<Self, MatchError> {
        Ok(match wire.r#match.ok_or(EMPTY)? {
            string_match::Match::Exact(text) => Self::Exact(text),
            string_match::Match::Prefix(text) => Self::Prefix(text),
        })
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => text == exact,
            Self::Prefix(prefix) => text.starts_with(prefix.as_str()),
        }
    }
}

/// Whom a request is for, as it says itself.
pub(crate) fn authority(request: &Request) -> Option<&str> {
    let named = request.uri().authority().map(http::uri::Authority::as_str);
    named.or_else(|| request.headers().get(header::HOST)?.to_str().ok())
}

fn has(labels: &[(&str, &str)], key: &str, value: &str) -> bool {
    labels.contains(&(key, value))
}

fn read_label(wire: one::Label) -> Result<(String, String), MatchError> {
    if wire.key.is_empty() || wire.value.is_empty() {
        return Err(EMPTY);
    }
    Ok((wire.key, wire.value))
}

fn ip(wire: net::ip_address::Ip) -> IpAddr {
    match wire {
        net::ip_address::Ip::Ipv4(bits) => Ipv4Addr::from(bits).into(),
        net::ip_address::Ip::Ipv6(bits) => {
            let bits = u128::from(bits.first) << 64 | u128::from(bits.last);
            Ipv6Addr::from(bits).into()
        }
    }
}

fn read_scheme(wire: &http_types::Scheme) -> Result<Scheme, MatchError> {
    use http_types::scheme::{Registered, Type};
    let wrong = MatchError("no such scheme");
    match wire.r#type.as_ref().ok_or(EMPTY)? {
        Type::Registered(known) => match Registered::try_from(*known) {
            Ok(Registered::Http) => Ok(Scheme::HTTP),
            Ok(Registered::Https) => Ok(Scheme::HTTPS),
            Err(_) => Err(wrong),
        },
        Type::Unregistered(name) => name.parse().map_err(|_| wrong),
    }
}

fn read_method(wire: &http_types::HttpMethod) -> Result<Method, MatchError> {
    use http_types::http_method::{Registered, Type};
    let wrong = MatchError("no such method");
    match wire.r#type.as_ref().ok_or(EMPTY)? {
        Type::Registered(known) => {
            let known = Registered::try_from(*known).map_err(|_| wrong)?;
            known.as_str_name().parse().map_err(|_| wrong)
        }
        Type::Unregistered(name) => name.parse().map_err(|_| wrong),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;
    use tulle_core::{ClientTls, Direction, NoTls};
    use tulle_http::Body;

    use super::*;

    const CLIENT: ClientTls = ClientTls::None(NoTls::NotFromRemote);

    fn subject() -> Subject<'static> {
        Subject {
            direction: Direction::Outbound,
            source: SocketAddr::from(([10, 0, 0, 7], 5000)),
            client: &CLIENT,
            destination: "[::ffff:10.1.0.8]:8080".parse().expect("constant"),
            server: None,
            labels: &[("deployment", "members"), ("namespace", "shop")],
            route: &[("route_name", "read")],
        }
    }

    fn request(uri: &str) -> Request {
        let request = http::Request::post(uri).header("host", "members.shop:8080");
        request.body(Body::empty()).expect("constant")
    }

    fn asks(wanted: &Match) -> bool {
        wanted.matches(&request("/Members/Get?id=7"), &subject())
    }

    #[test]
    fn each_kind_of_condition_is_about_its_own_part_of_a_request() {
        let text = |text: &str| text.to_owned();
        let network = |text: &str| Address::In(text.parse().expect("constant"));
        for (wanted, other) in [
            (Match::Method(Method::POST), Match::Method(Method::GET)),
            (Match::Scheme(Scheme::HTTP), Match::Scheme(Scheme::HTTPS)),
            (
                Match::Authority(Text::Exact(text("members.shop:8080"))),
                Match::Authority(Text::Exact(text("members.shop"))),
            ),
            (
                Match::Authority(Text::Prefix(text("members"))),
                Match::Authority(Text::Prefix(text("shop"))),
            ),
            (
                Match::Path(Text::Exact(text("/Members/Get"))),
                Match::Path(Text::Exact(text("/Members/Get?id=7"))),
            ),
            (
                Match::Source(network("10.0.0.0/24")),
                Match::Source(network("10.1.0.0/24")),
            ),
            (
                Match::Destination(network("10.1.0.8/32")),
                Match::Destination(network("::/1")),
            ),
            (
                Match::Destination(Address::Ports(8080, 8080)),
                Match::Destination(Address::Ports(1, 8079)),
            ),
            (
                Match::DestinationLabel(text("deployment"), text("members")),
                Match::DestinationLabel(text("deployment"), text("member")),
            ),
            (
                Match::RouteLabel(text("route_name"), text("read")),
                Match::RouteLabel(text("namespace"), text("shop")),
            ),
        ] {
            assert!(asks(&wanted), "{wanted:?}");
            assert!(!asks(&other), "{other:?}");
        }
    }

    #[test]
    fn one_end_of_a_range_is_that_port() {
        let ports = |min, max| {
            let ports = one::tcp::PortRange { min, max };
            Address::read(one::Tcp {
                r#match: Some(one::tcp::Match::Ports(ports)),
            })
        };

        assert_eq!(ports(0, 80), Ok(Address::Ports(80, 80)));
        assert_eq!(ports(80, 0), Ok(Address::Ports(80, 80)));
        assert_eq!(ports(80, 81), Ok(Address::Ports(80, 81)));
        for (min, max) in [(0, 0), (81, 80), (1, 65_536), (65_536, 0)] {
            assert!(ports(min, max).is_err(), "{min}-{max}");
        }
    }

    fn arbitrary() -> impl Strategy<Value = Match> {
        let text =
            || prop_oneof![Just("/Members"), Just("/Other"), Just("")].prop_map(str::to_owned);
        let leaf = prop_oneof![
            prop::sample::select(vec![Method::GET, Method::POST]).prop_map(Match::Method),
            text().prop_map(|text| Match::Path(Text::Prefix(text))),
            (0..=u16::MAX).prop_map(|port| Match::Source(Address::Ports(1, port.max(1)))),
            text().prop_map(|value| Match::RouteLabel("route_name".to_owned(), value)),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Match::All),
                prop::collection::vec(inner.clone(), 0..4).prop_map(Match::Any),
                inner.prop_map(|inner| Match::Not(Box::new(inner))),
            ]
        })
    }

    proptest! {
        #[test]
        fn all_any_and_not_are_the_logic_that_they_are_named_after(parts in prop::collection::vec(arbitrary(), 0..4)) {
            let each: Vec<bool> = parts.iter().map(asks).collect();

            prop_assert_eq!(asks(&Match::All(parts.clone())), !each.contains(&false));
            prop_assert_eq!(asks(&Match::Any(parts.clone())), each.contains(&true));
            // De Morgan: what a watcher leaves out is what the opposite question shows.
            let opposite = parts.iter().map(|part| Match::Not(Box::new(part.clone()))).collect();
            prop_assert_eq!(asks(&Match::Any(opposite)), !asks(&Match::All(parts)));
        }

        #[test]
        fn whatever_a_client_sends_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(wire) = wire::Match::decode(&*bytes)
                && let Ok(wanted) = Match::from_wire(Some(wire))
            {
                let _ = asks(&wanted);
            }
        }
    }
}

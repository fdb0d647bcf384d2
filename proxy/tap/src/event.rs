//! Messages about one request.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use http::{HeaderMap, Version};
use tulle_api::{
    http_types, net,
    tap::{
        Eos, TapEvent, eos,
        tap_event::{
            self, EndpointMeta, ProxyDirection, RouteMeta,
            http::{Event, RequestInit, ResponseEnd, ResponseInit, StreamId},
        },
    },
};
use tulle_core::{ClientTls, Direction, NoTls};
use tulle_http::{Request, Response};

use crate::{headers::shown, matching::authority, taps::Subject};

/// What every event of a request says.
pub(crate) fn common(subject: &Subject<'_>) -> TapEvent {
    let direction = match subject.direction {
        Direction::Inbound => ProxyDirection::Inbound,
        Direction::Outbound => ProxyDirection::Outbound,
    };
    let mut destination = owned(subject.labels);
    match (subject.server, subject.direction) {
        (Some(id), _) => {
            destination.insert("tls".to_owned(), "true".to_owned());
            destination.insert("server_id".to_owned(), id.as_str().to_owned());
        }
        (None, Direction::Inbound) => {
            destination.insert("tls".to_owned(), NoTls::Loopback.label().to_owned());
        }
        (None, Direction::Outbound) => {
            let why = NoTls::NotProvidedByServiceDiscovery.label();
            destination.insert("tls".to_owned(), why.to_owned());
        }
    }
    TapEvent {
        source: Some(address(subject.source)),
        destination: Some(address(subject.destination)),
        source_meta: Some(EndpointMeta {
            labels: source_labels(subject.client),
        }),
        destination_meta: Some(EndpointMeta {
            labels: destination,
        }),
        route_meta: (!subject.route.is_empty()).then(|| RouteMeta {
            labels: owned(subject.route),
        }),
        proxy_direction: direction.into(),
        event: None,
    }
}

pub(crate) fn of(common: &TapEvent, event: Event) -> TapEvent {
    TapEvent {
        event: Some(tap_event::Event::Http(tap_event::Http {
            event: Some(event),
        })),
        ..common.clone()
    }
}

pub(crate) fn request(id: StreamId, request: &Request, with_headers: bool) -> Event {
    let uri = request.uri();
    let host = authority(request).unwrap_or_default();
    let headers = with_headers.then(|| {
        let whole = uri.path_and_query().map_or("/", |path| path.as_str());
        let pseudo = [
            (":method", request.method().as_str()),
            (":scheme", uri.scheme_str().unwrap_or("http")),
            (":authority", host),
            (":path", whole),
        ];
        // HTTP/1 has them elsewhere, but for the query, which is nowhere else in the event.
        let spoken = if request.version() == Version::HTTP_2 {
            &pseudo[..]
        } else {
            &pseudo[3..]
        };
        shown(spoken.iter().copied(), request.headers())
    });
    Event::RequestInit(RequestInit {
        id: Some(id),
        method: Some(method(request.method())),
        scheme: uri.scheme().map(scheme),
        authority: host.to_owned(),
        path: uri.path().to_owned(),
        headers,
    })
}

pub(crate) fn response(
    id: StreamId,
    response: &Response,
    since_request: Duration,
    with_headers: bool,
) -> Event {
    let status = response.status();
    let http2 = response.version() == Version::HTTP_2;
    let pseudo = http2.then(|| (":status", status.as_str()));
    Event::ResponseInit(ResponseInit {
        id: Some(id),
        since_request_init: duration(since_request),
        http_status: status.as_u16().into(),
        headers: with_headers.then(|| shown(pseudo, response.headers())),
    })
}

/// How a request ended; without a response there is no time since one.
pub(crate) struct Ended<'a> {
    pub(crate) since_request: Duration,
    pub(crate) since_response: Option<Duration>,
    pub(crate) bytes: u64,
    pub(crate) end: Option<eos::End>,
    pub(crate) trailers: Option<&'a HeaderMap>,
}

pub(crate) fn end(id: StreamId, ended: &Ended<'_>, with_headers: bool) -> Event {
    let trailers = ended.trailers.filter(|_| with_headers);
    Event::ResponseEnd(ResponseEnd {
        id: Some(id),
        since_request_init: duration(ended.since_request),
        since_response_init: ended.since_response.and_then(duration),
        response_bytes: ended.bytes,
        eos: Some(Eos { end: ended.end }),
        trailers: trailers.map(|trailers| shown([], trailers)),
    })
}

/// The code of a gRPC response, in its head or in its trailers.
pub(crate) fn grpc_status(section: &HeaderMap) -> Option<u32> {
    section.get("grpc-status")?.to_str().ok()?.parse().ok()
}

fn source_labels(client: &ClientTls) -> HashMap<String, String> {
    let labels = match client {
        ClientTls::None(why) => vec![("tls", why.label())],
        ClientTls::Established { client_id } => {
            let id = client_id.as_ref().map_or("", |id| id.as_str());
            vec![("tls", "true"), ("client_id", id)]
        }
        ClientTls::Opaque { sni } => vec![("tls", "passthru"), ("sni", sni.as_str())],
    };
    owned(&labels)
}

fn owned(labels: &[(&str, &str)]) -> HashMap<String, String> {
    let pairs = labels.iter();
    pairs
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn address(address: SocketAddr) -> net::TcpAddress {
    let ip = match address.ip().to_canonical() {
        std::net::IpAddr::V4(ip) => net::ip_address::Ip::Ipv4(ip.into()),
        std::net::IpAddr::V6(ip) => {
            let bits = u128::from(ip);
            #[expect(clippy::cast_possible_truncation, reason = "the halves of 128 bits")]
            let (first, last) = ((bits >> 64) as u64, bits as u64);
            net::ip_address::Ip::Ipv6(net::IPv6 { first, last })
        }
    };
    net::TcpAddress {
        ip: Some(net::IpAddress { ip: Some(ip) }),
        port: address.port().into(),
    }
}

fn method(method: &http::Method) -> http_types::HttpMethod {
    use http_types::http_method::{Registered, Type};
    let known = Registered::from_str_name(method.as_str());
    http_types::HttpMethod {
        r#type: Some(known.map_or_else(
            || Type::Unregistered(method.as_str().to_owned()),
            |known| Type::Registered(known.into()),
        )),
    }
}

fn scheme(scheme: &http::uri::Scheme) -> http_types::Scheme {
    use http_types::scheme::{Registered, Type};
    http_types::Scheme {
        r#type: Some(match scheme.as_str() {
            "http" => Type::Registered(Registered::Http.into()),
            "https" => Type::Registered(Registered::Https.into()),
            other => Type::Unregistered(other.to_owned()),
        }),
    }
}

fn duration(duration: Duration) -> Option<prost_types::Duration> {
    duration.try_into().ok()
}

//! The control plane's messages in their plainest valid form.

use std::{net::SocketAddr, time::Duration};

use tulle_api::{
    destination::{
        AddrSet, DestinationProfile, NoEndpoints, TlsIdentity, Update, WeightedAddr,
        WeightedAddrSet,
        tls_identity::{DnsLikeIdentity, Strategy},
        update,
    },
    inbound,
    meta::{Metadata, Resource, metadata},
    net::{IPv6, IpAddress, IpNetwork, TcpAddress, ip_address::Ip},
    outbound::{self, OutboundPolicy, backend, http_route, opaque_route, proxy_protocol},
};

/// An address on the wire.
#[must_use]
pub fn tcp_address(addr: SocketAddr) -> TcpAddress {
    TcpAddress {
        ip: Some(ip_address(addr)),
        port: addr.port().into(),
    }
}

fn ip_address(addr: SocketAddr) -> IpAddress {
    let ip = match addr.ip() {
        std::net::IpAddr::V4(ip) => Ip::Ipv4(ip.to_bits()),
        std::net::IpAddr::V6(ip) => {
            let octets = ip.octets();
            let word = |half: &[u8]| {
                half.iter()
                    .fold(0, |word, octet| (word << 8) | u64::from(*octet))
            };
            Ip::Ipv6(IPv6 {
                first: word(&octets[..8]),
                last: word(&octets[8..]),
            })
        }
    };
    IpAddress { ip: Some(ip) }
}

/// An endpoint without identity.
///
/// # Panics
///
/// Where the text is no address.
#[must_use]
pub fn endpoint(addr: &str) -> WeightedAddr {
    let addr = addr.parse().expect("address:port");
    WeightedAddr {
        addr: Some(tcp_address(addr)),
        weight: 10_000,
        ..WeightedAddr::default()
    }
}

/// An endpoint that proves this name.
#[must_use]
pub fn endpoint_of(addr: &str, name: &str) -> WeightedAddr {
    let strategy = Strategy::DnsLikeIdentity(DnsLikeIdentity {
        name: name.to_owned(),
    });
    let tls_identity = TlsIdentity {
        strategy: Some(strategy),
        server_name: None,
    };
    WeightedAddr {
        tls_identity: Some(tls_identity),
        ..endpoint(addr)
    }
}

/// Endpoints come, or change.
#[must_use]
pub fn add(addrs: Vec<WeightedAddr>) -> Update {
    let set = WeightedAddrSet {
        addrs,
        ..WeightedAddrSet::default()
    };
    Update {
        update: Some(update::Update::Add(set)),
    }
}

/// Endpoints go.
#[must_use]
pub fn remove(addrs: &[&str]) -> Update {
    let addrs = addrs
        .iter()
        .filter_map(|addr| endpoint(addr).addr)
        .collect();
    Update {
        update: Some(update::Update::Remove(AddrSet { addrs })),
    }
}

/// There are no endpoints.
#[must_use]
pub fn no_endpoints() -> Update {
    Update {
        update: Some(update::Update::NoEndpoints(NoEndpoints { exists: true })),
    }
}

/// The profile of one endpoint.
#[must_use]
pub fn endpoint_profile(endpoint: WeightedAddr) -> DestinationProfile {
    DestinationProfile {
        endpoint: Some(endpoint),
        ..DestinationProfile::default()
    }
}

/// Something that no object stands behind.
#[must_use]
pub fn default_meta(name: &str) -> Metadata {
    Metadata {
        kind: Some(metadata::Kind::Default(name.to_owned())),
    }
}

/// A Service in the namespace `default`.
#[must_use]
pub fn service_meta(name: &str) -> Metadata {
    let resource = Resource {
        group: "core".to_owned(),
        kind: "Service".to_owned(),
        name: name.to_owned(),
        namespace: "default".to_owned(),
        ..Resource::default()
    };
    Metadata {
        kind: Some(metadata::Kind::Resource(resource)),
    }
}

/// A port that detects its protocol and lets everybody in, under a policy of this name.
#[must_use]
pub fn server(name: &str) -> inbound::Server {
    let detect = inbound::proxy_protocol::Detect {
        timeout: Some(seconds(10)),
        ..inbound::proxy_protocol::Detect::default()
    };
    let labels = [("group", ""), ("kind", "default"), ("name", name)];
    let kind = inbound::proxy_protocol::Kind::Detect(detect);
    inbound::Server {
        protocol: Some(inbound::ProxyProtocol { kind: Some(kind) }),
        authorizations: vec![anybody(name)],
        labels: labels
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        ..inbound::Server::default()
    }
}

fn anybody(name: &str) -> inbound::Authz {
    let networks = ["0.0.0.0:0", "[::]:0"].map(|any| inbound::Network {
        net: any.parse().ok().map(|any| IpNetwork {
            ip: Some(ip_address(any)),
            prefix_len: 0,
        }),
        except: Vec::new(),
    });
    let permit = inbound::authn::Permit::Unauthenticated(inbound::authn::PermitUnauthenticated {});
    inbound::Authz {
        networks: networks.into(),
        authentication: Some(inbound::Authn {
            permit: Some(permit),
        }),
        metadata: Some(default_meta(name)),
        ..inbound::Authz::default()
    }
}

/// The default policy of a Service whose endpoints have this path.
#[must_use]
pub fn service_policy(name: &str, path: &str) -> OutboundPolicy {
    let backend = balancer(name, path);
    let http = http_routes(backend.clone());
    let detect = proxy_protocol::Detect {
        timeout: Some(seconds(10)),
        opaque: Some(proxy_protocol::Opaque {
            routes: vec![opaque_route(backend)],
        }),
        http1: Some(proxy_protocol::Http1 {
            routes: http.clone(),
            failure_accrual: None,
        }),
        http2: Some(proxy_protocol::Http2 {
            routes: http,
            failure_accrual: None,
        }),
    };
    OutboundPolicy {
        protocol: Some(outbound::ProxyProtocol {
            kind: Some(proxy_protocol::Kind::Detect(detect)),
        }),
        metadata: Some(service_meta(name)),
    }
}

fn balancer(name: &str, path: &str) -> outbound::Backend {
    let get = backend::endpoint_discovery::DestinationGet {
        path: path.to_owned(),
    };
    let discovery = backend::EndpointDiscovery {
        kind: Some(backend::endpoint_discovery::Kind::Dst(get)),
    };
    let ewma = backend::balance_p2c::PeakEwma {
        default_rtt: Some(duration(Duration::from_millis(30))),
        decay: Some(seconds(10)),
    };
    let balancer = backend::BalanceP2c {
        discovery: Some(discovery),
        load: Some(backend::balance_p2c::Load::PeakEwma(ewma)),
    };
    outbound::Backend {
        metadata: Some(service_meta(name)),
        queue: Some(outbound::Queue {
            capacity: 100,
            failfast_timeout: Some(seconds(3)),
        }),
        kind: Some(backend::Kind::Balancer(balancer)),
    }
}

fn http_routes(backend: outbound::Backend) -> Vec<outbound::HttpRoute> {
    let backend = http_route::RouteBackend {
        backend: Some(backend),
        ..http_route::RouteBackend::default()
    };
    let first = http_route::distribution::FirstAvailable {
        backends: vec![backend],
    };
    let kind = http_route::distribution::Kind::FirstAvailable(first);
    let rule = http_route::Rule {
        backends: Some(http_route::Distribution { kind: Some(kind) }),
        ..http_route::Rule::default()
    };
    vec![outbound::HttpRoute {
        metadata: Some(default_meta("http")),
        rules: vec![rule],
        ..outbound::HttpRoute::default()
    }]
}

fn opaque_route(backend: outbound::Backend) -> outbound::OpaqueRoute {
    let backend = opaque_route::RouteBackend {
        backend: Some(backend),
        filters: Vec::new(),
    };
    let first = opaque_route::distribution::FirstAvailable {
        backends: vec![backend],
    };
    let kind = opaque_route::distribution::Kind::FirstAvailable(first);
    let rule = opaque_route::Rule {
        backends: Some(opaque_route::Distribution { kind: Some(kind) }),
        filters: Vec::new(),
    };
    outbound::OpaqueRoute {
        metadata: Some(default_meta("opaq")),
        rules: vec![rule],
    }
}

fn seconds(seconds: u64) -> prost_types::Duration {
    duration(Duration::from_secs(seconds))
}

fn duration(duration: Duration) -> prost_types::Duration {
    duration.try_into().expect("short")
}

//! The control plane's messages, short to write down.
#![allow(dead_code, reason = "each test file uses some")]
#![allow(
    clippy::unnecessary_wraps,
    reason = "the messages' fields are optional"
)]

use std::net::{IpAddr, Ipv4Addr};

use http::Request;
use prost_types::Duration;
use tulle_api::{destination, grpc_route, http_route, http_types, inbound, meta, net, outbound};

pub fn seconds(seconds: i64) -> Duration {
    Duration { seconds, nanos: 0 }
}

pub fn default(name: &str) -> Option<meta::Metadata> {
    Some(meta::Metadata {
        kind: Some(meta::metadata::Kind::Default(name.into())),
    })
}

pub fn resource(kind: &str, name: &str) -> Option<meta::Metadata> {
    let resource = meta::Resource {
        group: "policy.linkerd.io".into(),
        kind: kind.into(),
        name: name.into(),
        namespace: "shop".into(),
        ..Default::default()
    };
    Some(meta::Metadata {
        kind: Some(meta::metadata::Kind::Resource(resource)),
    })
}

pub fn ip(address: IpAddr) -> net::IpAddress {
    let ip = match address {
        IpAddr::V4(v4) => net::ip_address::Ip::Ipv4(v4.to_bits()),
        IpAddr::V6(v6) => {
            let bits = v6.to_bits();
            #[expect(clippy::cast_possible_truncation, reason = "the lower half is wanted")]
            net::ip_address::Ip::Ipv6(net::IPv6 {
                first: (bits >> 64) as u64,
                last: bits as u64,
            })
        }
    };
    net::IpAddress { ip: Some(ip) }
}

pub fn net(cidr: &str) -> net::IpNetwork {
    let (address, length) = cidr.split_once('/').expect("a network");
    net::IpNetwork {
        ip: Some(ip(address.parse().expect("an address"))),
        prefix_len: length.parse().expect("a length"),
    }
}

pub fn tcp(port: u32) -> net::TcpAddress {
    net::TcpAddress {
        ip: Some(ip(Ipv4Addr::new(10, 77, 0, 5).into())),
        port,
    }
}

// Inbound.

pub fn server(
    protocol: inbound::proxy_protocol::Kind,
    authz: Vec<inbound::Authz>,
) -> inbound::Server {
    inbound::Server {
        protocol: Some(inbound::ProxyProtocol {
            kind: Some(protocol),
        }),
        server_ips: vec![],
        authorizations: authz,
        labels: [("name".to_owned(), "web-http".to_owned())].into(),
    }
}

pub fn detect(routes: Vec<inbound::HttpRoute>) -> inbound::proxy_protocol::Kind {
    inbound::proxy_protocol::Kind::Detect(inbound::proxy_protocol::Detect {
        timeout: Some(seconds(10)),
        http_routes: routes,
        http_local_rate_limit: None,
    })
}

pub fn opaque() -> inbound::proxy_protocol::Kind {
    inbound::proxy_protocol::Kind::Opaque(inbound::proxy_protocol::Opaque {})
}

pub fn grpc(routes: Vec<inbound::GrpcRoute>) -> inbound::proxy_protocol::Kind {
    inbound::proxy_protocol::Kind::Grpc(inbound::proxy_protocol::Grpc { routes })
}

pub fn authz(
    name: &str,
    networks: &[(&str, &[&str])],
    permit: inbound::authn::Permit,
) -> inbound::Authz {
    let network = |(cidr, except): &(&str, &[&str])| inbound::Network {
        net: Some(net(cidr)),
        except: except.iter().map(|cidr| net(cidr)).collect(),
    };
    inbound::Authz {
        networks: networks.iter().map(network).collect(),
        authentication: Some(inbound::Authn {
            permit: Some(permit),
        }),
        labels: std::collections::HashMap::default(),
        metadata: resource("authorizationpolicy", name),
    }
}

pub const EVERYWHERE: &[(&str, &[&str])] = &[("0.0.0.0/0", &[]), ("::/0", &[])];

pub fn anybody() -> inbound::authn::Permit {
    inbound::authn::Permit::Unauthenticated(inbound::authn::PermitUnauthenticated {})
}

pub fn encrypted() -> inbound::authn::Permit {
    use inbound::authn::permit_mesh_tls::Clients;
    mesh_tls(Clients::Unauthenticated(
        inbound::authn::PermitUnauthenticated {},
    ))
}

pub fn identities(exact: &[&str], suffixes: &[&[&str]]) -> inbound::authn::Permit {
    use inbound::authn::permit_mesh_tls::{Clients, PermitClientIdentities};
    mesh_tls(Clients::Identities(PermitClientIdentities {
        identities: exact
            .iter()
            .map(|&name| inbound::Identity { name: name.into() })
            .collect(),
        suffixes: suffixes
            .iter()
            .map(|parts| inbound::IdentitySuffix {
                parts: parts.iter().map(|&part| part.into()).collect(),
            })
            .collect(),
    }))
}

fn mesh_tls(clients: inbound::authn::permit_mesh_tls::Clients) -> inbound::authn::Permit {
    inbound::authn::Permit::MeshTls(inbound::authn::PermitMeshTls {
        clients: Some(clients),
    })
}

pub fn in_route(
    name: &str,
    hosts: Vec<http_route::HostMatch>,
    matches: Vec<http_route::HttpRouteMatch>,
) -> inbound::HttpRoute {
    inbound::HttpRoute {
        metadata: resource("HTTPRoute", name),
        hosts,
        authorizations: vec![],
        rules: vec![inbound::http_route::Rule {
            matches,
            filters: vec![],
        }],
    }
}

pub fn in_grpc_route(name: &str, matches: Vec<grpc_route::GrpcRouteMatch>) -> inbound::GrpcRoute {
    inbound::GrpcRoute {
        metadata: resource("GRPCRoute", name),
        hosts: vec![],
        authorizations: vec![],
        rules: vec![inbound::grpc_route::Rule {
            matches,
            filters: vec![],
        }],
    }
}

// Conditions.

pub fn host(name: &str) -> http_route::HostMatch {
    use http_route::host_match::{Match, Suffix};
    let matched = match name.strip_prefix("*.") {
        Some(suffix) => Match::Suffix(Suffix {
            reverse_labels: suffix.split('.').rev().map(str::to_owned).collect(),
        }),
        None => Match::Exact(name.into()),
    };
    http_route::HostMatch {
        r#match: Some(matched),
    }
}

pub fn on_path(kind: http_route::path_match::Kind) -> http_route::HttpRouteMatch {
    http_route::HttpRouteMatch {
        path: Some(http_route::PathMatch { kind: Some(kind) }),
        ..Default::default()
    }
}

pub fn exact(path: &str) -> http_route::HttpRouteMatch {
    on_path(http_route::path_match::Kind::Exact(path.into()))
}

pub fn prefix(path: &str) -> http_route::HttpRouteMatch {
    on_path(http_route::path_match::Kind::Prefix(path.into()))
}

pub fn regex(path: &str) -> http_route::HttpRouteMatch {
    on_path(http_route::path_match::Kind::Regex(path.into()))
}

pub fn header(name: &str, value: &str) -> http_route::HeaderMatch {
    let value = match value.strip_prefix('~') {
        Some(pattern) => http_route::header_match::Value::Regex(pattern.into()),
        None => http_route::header_match::Value::Exact(value.as_bytes().to_vec()),
    };
    http_route::HeaderMatch {
        name: name.into(),
        value: Some(value),
    }
}

pub fn query(name: &str, value: &str) -> http_route::QueryParamMatch {
    let value = match value.strip_prefix('~') {
        Some(pattern) => http_route::query_param_match::Value::Regex(pattern.into()),
        None => http_route::query_param_match::Value::Exact(value.into()),
    };
    http_route::QueryParamMatch {
        name: name.into(),
        value: Some(value),
    }
}

pub fn method(name: &str) -> Option<http_types::HttpMethod> {
    use http_types::http_method::{Registered, Type};
    let kind = match Registered::from_str_name(name) {
        Some(registered) => Type::Registered(registered.into()),
        None => Type::Unregistered(name.into()),
    };
    Some(http_types::HttpMethod { r#type: Some(kind) })
}

pub fn rpc(service: &str, method: &str) -> grpc_route::GrpcRouteMatch {
    let rpc = grpc_route::GrpcRpcMatch {
        service: service.into(),
        method: method.into(),
    };
    grpc_route::GrpcRouteMatch {
        rpc: Some(rpc),
        headers: vec![],
    }
}

pub fn request(method: &str, uri: &str, headers: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).expect("a request")
}

pub fn get(uri: &str) -> Request<()> {
    request("GET", uri, &[("host", "web.shop")])
}

// Outbound.

pub fn backend(name: &str) -> outbound::Backend {
    use outbound::backend::{
        BalanceP2c, EndpointDiscovery, Kind,
        balance_p2c::{Load, PeakEwma},
        endpoint_discovery::{self, DestinationGet},
    };
    outbound::Backend {
        metadata: resource("Service", name),
        kind: Some(Kind::Balancer(BalanceP2c {
            discovery: Some(EndpointDiscovery {
                kind: Some(endpoint_discovery::Kind::Dst(DestinationGet {
                    path: format!("{name}.shop.svc.cluster.local:80"),
                })),
            }),
            load: Some(Load::PeakEwma(PeakEwma {
                default_rtt: Some(Duration {
                    seconds: 0,
                    nanos: 30_000_000,
                }),
                decay: Some(seconds(10)),
            })),
        })),
        queue: Some(outbound::Queue {
            capacity: 100,
            failfast_timeout: Some(seconds(3)),
        }),
    }
}

pub fn http_first(backends: &[outbound::Backend]) -> Option<outbound::http_route::Distribution> {
    use outbound::http_route::{
        Distribution, RouteBackend,
        distribution::{FirstAvailable, Kind},
    };
    let backends = backends
        .iter()
        .map(|backend| RouteBackend {
            backend: Some(backend.clone()),
            ..Default::default()
        })
        .collect();
    Some(Distribution {
        kind: Some(Kind::FirstAvailable(FirstAvailable { backends })),
    })
}

pub fn http_random(
    backends: &[(outbound::Backend, u32)],
) -> Option<outbound::http_route::Distribution> {
    use outbound::http_route::{
        Distribution, RouteBackend, WeightedRouteBackend,
        distribution::{Kind, RandomAvailable},
    };
    let backends = backends
        .iter()
        .map(|(backend, weight)| WeightedRouteBackend {
            backend: Some(RouteBackend {
                backend: Some(backend.clone()),
                ..Default::default()
            }),
            weight: *weight,
        })
        .collect();
    Some(Distribution {
        kind: Some(Kind::RandomAvailable(RandomAvailable { backends })),
    })
}

pub fn out_route(
    name: &str,
    matches: Vec<http_route::HttpRouteMatch>,
    backends: Option<outbound::http_route::Distribution>,
) -> outbound::HttpRoute {
    outbound::HttpRoute {
        metadata: resource("HTTPRoute", name),
        hosts: vec![],
        rules: vec![outbound::http_route::Rule {
            matches,
            backends,
            ..Default::default()
        }],
    }
}

pub fn out_grpc_route(name: &str, matches: Vec<grpc_route::GrpcRouteMatch>) -> outbound::GrpcRoute {
    use outbound::grpc_route::{
        Distribution, RouteBackend, Rule,
        distribution::{FirstAvailable, Kind},
    };
    let backends = vec![RouteBackend {
        backend: Some(backend("web")),
        ..Default::default()
    }];
    let kind = Kind::FirstAvailable(FirstAvailable { backends });
    outbound::GrpcRoute {
        metadata: resource("GRPCRoute", name),
        hosts: vec![],
        rules: vec![Rule {
            matches,
            backends: Some(Distribution { kind: Some(kind) }),
            ..Default::default()
        }],
    }
}

pub fn opaque_route(
    metadata: Option<meta::Metadata>,
    filters: Vec<outbound::opaque_route::Filter>,
) -> outbound::OpaqueRoute {
    use outbound::opaque_route::{
        Distribution, RouteBackend, Rule,
        distribution::{FirstAvailable, Kind},
    };
    let backends = vec![RouteBackend {
        backend: Some(backend("web")),
        filters: vec![],
    }];
    let kind = Kind::FirstAvailable(FirstAvailable { backends });
    outbound::OpaqueRoute {
        metadata,
        rules: vec![Rule {
            backends: Some(Distribution { kind: Some(kind) }),
            filters,
        }],
    }
}

pub fn tls_route(name: &str, snis: &[&str]) -> outbound::TlsRoute {
    use outbound::tls_route::{
        Distribution, RouteBackend, Rule,
        distribution::{FirstAvailable, Kind},
    };
    use tulle_api::tls_route::{
        SniMatch,
        sni_match::{Match, Suffix},
    };
    let backends = vec![RouteBackend {
        backend: Some(backend("web")),
        filters: vec![],
    }];
    let kind = Kind::FirstAvailable(FirstAvailable { backends });
    let sni = |name: &&str| SniMatch {
        r#match: Some(match name.strip_prefix("*.") {
            Some(suffix) => Match::Suffix(Suffix {
                reverse_labels: suffix.split('.').rev().map(str::to_owned).collect(),
            }),
            None => Match::Exact((*name).into()),
        }),
    };
    outbound::TlsRoute {
        metadata: resource("TLSRoute", name),
        snis: snis.iter().map(sni).collect(),
        rules: vec![Rule {
            backends: Some(Distribution { kind: Some(kind) }),
            filters: vec![],
        }],
    }
}

pub fn policy(kind: outbound::proxy_protocol::Kind) -> outbound::OutboundPolicy {
    outbound::OutboundPolicy {
        protocol: Some(outbound::ProxyProtocol { kind: Some(kind) }),
        metadata: resource("Service", "web"),
    }
}

pub fn http1(routes: Vec<outbound::HttpRoute>) -> outbound::proxy_protocol::Kind {
    outbound::proxy_protocol::Kind::Http1(outbound::proxy_protocol::Http1 {
        routes,
        failure_accrual: None,
    })
}

pub fn out_detect() -> outbound::proxy_protocol::Detect {
    let route = out_route("web", vec![prefix("/")], http_first(&[backend("web")]));
    outbound::proxy_protocol::Detect {
        timeout: Some(seconds(10)),
        opaque: Some(outbound::proxy_protocol::Opaque {
            routes: vec![opaque_route(default("opaq"), vec![])],
        }),
        http1: Some(outbound::proxy_protocol::Http1 {
            routes: vec![route.clone()],
            failure_accrual: None,
        }),
        http2: Some(outbound::proxy_protocol::Http2 {
            routes: vec![route],
            failure_accrual: None,
        }),
    }
}

pub fn weighted_addr(port: u32, identity: Option<&str>) -> destination::WeightedAddr {
    use destination::{
        ProtocolHint, TlsIdentity, WeightedAddr, protocol_hint,
        tls_identity::{DnsLikeIdentity, Strategy},
    };
    WeightedAddr {
        addr: Some(tcp(port)),
        weight: 10_000,
        metric_labels: [("zone".to_owned(), "a".to_owned())].into(),
        tls_identity: identity.map(|name| TlsIdentity {
            strategy: Some(Strategy::DnsLikeIdentity(DnsLikeIdentity {
                name: name.into(),
            })),
            server_name: None,
        }),
        protocol_hint: Some(ProtocolHint {
            protocol: Some(protocol_hint::Protocol::H2(protocol_hint::H2 {})),
            opaque_transport: Some(protocol_hint::OpaqueTransport { inbound_port: 4143 }),
        }),
        ..Default::default()
    }
}

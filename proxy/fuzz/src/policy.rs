//! Messages of the control plane: one that makes no sense refuses everything, an explanation says what is decided,
//! and no question about a policy panics.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use http::{HeaderMap, Request};
use prost::Message;
use tulle_api::{destination, inbound as inbound_api, outbound as outbound_api};
use tulle_core::{ClientTls, Id, NoTls, Refusal};
use tulle_policy::{
    Distribution, Facts, Filter, PathMatched, Permit, apply_request, apply_response,
    endpoint_from_proto,
    inbound::{self, ServerPolicy},
    outbound::{self, ClientPolicy, RouteMatch},
};

const ORIGINAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 78, 0, 1)), 80);

/// Which message, which request (its length, then its method, target, host and a field), the message.
pub fn check(data: &[u8]) {
    let [kind, who, length, rest @ ..] = data else {
        return;
    };
    let (request, message) = rest.split_at(rest.len().min(usize::from(*length)));
    let request = request_of(request);
    match kind % 4 {
        0 => {
            let server = inbound_api::Server::decode(message).unwrap_or_default();
            check_server(&ServerPolicy::from_proto(server), request, *who);
        }
        1 => {
            let policy = outbound_api::OutboundPolicy::decode(message).unwrap_or_default();
            check_client(ClientPolicy::from_proto(policy), &request, *who);
        }
        2 => {
            let profile = destination::DestinationProfile::decode(message).unwrap_or_default();
            check_client(
                ClientPolicy::from_profile(&profile, ORIGINAL),
                &request,
                *who,
            );
        }
        _ => {
            let address = destination::WeightedAddr::decode(message).unwrap_or_default();
            if let Some(endpoint) = endpoint_from_proto(&address, &HashMap::new()) {
                assert!(endpoint.transport_port.is_none() || endpoint.tls.is_some());
            }
        }
    }
}

/// A request as the codecs hand it on: what they would not is left out.
fn request_of(bytes: &[u8]) -> Request<()> {
    let text = String::from_utf8_lossy(bytes);
    let mut words = text.split(' ');
    let mut request = Request::new(());
    if let Some(method) = words.next().and_then(|word| word.parse().ok()) {
        *request.method_mut() = method;
    }
    if let Some(uri) = words.next().and_then(|word| word.parse().ok()) {
        *request.uri_mut() = uri;
    }
    if let Some(host) = words.next().and_then(|word| word.parse().ok()) {
        request.headers_mut().insert(http::header::HOST, host);
    }
    for word in words {
        let Some((name, value)) = word.split_once(':') else {
            continue;
        };
        if let (Ok(name), Ok(value)) = (name.parse::<http::HeaderName>(), value.parse()) {
            request.headers_mut().append(name, value);
        }
    }
    request
}

fn client_of(who: u8) -> (IpAddr, ClientTls) {
    let address = match who & 3 {
        0 => Ipv4Addr::new(10, 77, 0, 5).into(),
        1 => Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 5).into(),
        2 => Ipv4Addr::LOCALHOST.into(),
        _ => Ipv4Addr::new(10, 77, 0, 5).to_ipv6_mapped().into(),
    };
    let tls = match who >> 2 & 3 {
        0 => ClientTls::None(NoTls::NotFromRemote),
        1 => ClientTls::Established { client_id: None },
        2 => ClientTls::Established {
            client_id: Id::new("web.shop.serviceaccount.identity.linkerd.cluster.local").into(),
        },
        _ => ClientTls::Opaque {
            sni: "web.shop".into(),
        },
    };
    (address, tls)
}

fn check_server(policy: &ServerPolicy, mut request: Request<()>, who: u8) {
    let (address, tls) = client_of(who);
    let connection = policy.authorize_connection(address, &tls);
    let (explained, steps) = policy.explain_connection(address, &tls);
    assert_eq!(in_words(&connection), in_words_of_grant(&explained));
    assert!(!steps.is_empty(), "decided without a step");

    let facts = Facts::of(&request);
    let route = policy.route(&facts);
    let decided = match &route {
        Ok(route) => policy.authorize_request(route, address, &tls),
        Err(refusal) => Err(refusal.clone()),
    };
    let (explained, steps) = policy.explain_request(&facts, address, &tls);
    assert_eq!(in_words(&decided), in_words_of_grant(&explained));
    assert!(!steps.is_empty(), "decided without a step");
    let _ = policy.authorizes_per_route();

    if let inbound::Protocol::Invalid(_) = policy.protocol {
        assert!(connection.is_err() && decided.is_err(), "lets somebody in");
    } else if address.is_loopback() {
        assert!(connection.is_ok(), "shuts the pod itself out");
    }
    let found = route.ok().map(|route| (route.filters(), route.path));
    if let Some((filters, path)) = found {
        check_filters(filters, path, &mut request, who);
    }
}

fn check_client(policy: ClientPolicy, request: &Request<()>, who: u8) {
    let backends = policy.backends();
    let facts = Facts::of(request);
    match &policy.protocol {
        outbound::Protocol::Detect {
            http1,
            http2,
            opaque,
            ..
        } => {
            check_routes(http1.find(&facts), http1.explain(&facts), request, who);
            check_routes(http2.find(&facts), http2.explain(&facts), request, who);
            let _ = opaque.find().map(|rule| pick(&rule.distribution, who));
        }
        outbound::Protocol::Http1(routes) | outbound::Protocol::Http2(routes) => {
            check_routes(routes.find(&facts), routes.explain(&facts), request, who);
        }
        outbound::Protocol::Grpc(routes) => {
            check_routes(routes.find(&facts), routes.explain(&facts), request, who);
        }
        outbound::Protocol::Opaque(routes) => {
            let _ = routes.find().map(|rule| pick(&rule.distribution, who));
        }
        outbound::Protocol::Tls(routes) => {
            for sni in [None, facts.host()] {
                let _ = routes.find(sni).map(|rule| pick(&rule.distribution, who));
            }
        }
        outbound::Protocol::Invalid(_) => {
            assert!(policy.protocol.refusal().is_some(), "not refused");
            assert!(backends.is_empty(), "goes somewhere");
        }
    }
    let _ = policy.into_opaque().backends();
}

type Found<'a> = Result<RouteMatch<'a>, Refusal>;

fn check_routes<S>(decided: Found, explained: (Found, Vec<S>), request: &Request<()>, who: u8) {
    assert!(!explained.1.is_empty(), "decided without a step");
    match (decided, explained.0) {
        (Ok(decided), Ok(explained)) => {
            assert!(
                std::ptr::eq(decided.rule, explained.rule),
                "explained another rule"
            );
            pick(&decided.distribution, who);
            check_filters(&decided.filters, decided.path, &mut request.clone(), who);
            for backend in decided.distribution.backends() {
                check_filters(&backend.filters, decided.path, &mut request.clone(), who);
            }
        }
        (Err(decided), Err(explained)) => {
            assert_eq!(decided.to_string(), explained.to_string());
        }
        (decided, explained) => panic!("decided {decided:?}, explained {explained:?}"),
    }
}

fn check_filters(filters: &[Filter], path: PathMatched, request: &mut Request<()>, who: u8) {
    // An answer's status and fields are made while the filters run.
    drop(apply_request(filters, path, request, || u64::from(who)));
    apply_response(filters, &mut HeaderMap::new());
}

fn pick<F>(distribution: &Distribution<F>, random: u8) {
    let any = distribution.pick(random.into(), |_| true);
    assert_eq!(
        any.is_some(),
        !matches!(distribution, Distribution::Empty),
        "available and not chosen"
    );
    assert!(distribution.pick(random.into(), |_| false).is_none());
}

fn in_words(decided: &Result<Permit, Refusal>) -> String {
    match decided {
        Ok(permit) => format!("{:?}", permit.grant()),
        Err(refusal) => format!("{refusal:?}"),
    }
}

fn in_words_of_grant<G: std::fmt::Debug>(explained: &Result<G, Refusal>) -> String {
    match explained {
        Ok(grant) => format!("{grant:?}"),
        Err(refusal) => format!("{refusal:?}"),
    }
}

//! Messages that are wrong, by one element or by chance.

mod wire;

use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;
use prost::Message;
use prost_types::Duration;
use tulle_api::{destination, http_route, inbound, outbound};
use tulle_core::{ClientTls, Id, NoTls, Reason};
use tulle_policy::{
    Facts, apply_request, endpoint_from_proto,
    inbound::{Protocol as Speaks, ServerPolicy},
    outbound::{ClientPolicy, Protocol},
};
use wire::*;

const NEGATIVE: Duration = Duration {
    seconds: -1,
    nanos: 0,
};

/// A server with something of everything.
fn rich_server() -> inbound::Server {
    use inbound::{
        HttpLocalRateLimit,
        http_local_rate_limit::Limit,
        http_route::{Filter, filter::Kind},
        proxy_protocol::{Detect, Kind as Speaks},
    };
    let mut matched = prefix("/api");
    matched.headers = vec![header("x-user", "~[a-z]+"), header("x-canary", "yes")];
    matched.query_params = vec![query("q", "~.*"), query("p", "1")];
    matched.method = method("GET");
    let mut route = in_route(
        "api",
        vec![host("api.shop"), host("*.example")],
        vec![matched, regex("/[0-9]+")],
    );
    route.authorizations = vec![authz(
        "clients",
        &[("10.0.0.0/8", &["10.1.0.0/16"])],
        identities(&["a.b"], &[&["c", "d"]]),
    )];
    route.rules[0].filters = vec![
        Filter {
            kind: Some(Kind::FailureInjector(http_route::HttpFailureInjector {
                status: 500,
                message: "no".into(),
                ratio: Some(http_route::Ratio {
                    numerator: 1,
                    denominator: 2,
                }),
            })),
        },
        Filter {
            kind: Some(Kind::Redirect(http_route::RequestRedirect {
                host: "example.org".into(),
                path: Some(http_route::PathModifier {
                    replace: Some(http_route::path_modifier::Replace::Prefix("/new".into())),
                }),
                ..Default::default()
            })),
        },
    ];
    let limit = Limit {
        requests_per_second: 5,
    };
    server(
        Speaks::Detect(Detect {
            timeout: Some(seconds(10)),
            http_routes: vec![
                route,
                in_route("rest", vec![], vec![exact("/x"), prefix("/")]),
            ],
            http_local_rate_limit: Some(HttpLocalRateLimit {
                metadata: resource("httplocalratelimitpolicy", "r"),
                total: Some(limit),
                ..Default::default()
            }),
        }),
        vec![
            authz("tls", EVERYWHERE, encrypted()),
            authz("nets", &[("fd00::/8", &[])], anybody()),
        ],
    )
}

/// An outbound policy with something of everything.
fn rich_policy() -> outbound::OutboundPolicy {
    use outbound::{
        ExponentialBackoff, FailureAccrual,
        failure_accrual::{Kind as Accrual, Unified},
        http_route::{
            Retry,
            retry::{Conditions, conditions::StatusRange},
        },
        proxy_protocol::Kind,
    };
    let backoff = ExponentialBackoff {
        min_backoff: Some(seconds(1)),
        max_backoff: Some(seconds(2)),
        jitter_ratio: 0.5,
        respect_retry_after_hint: false,
    };
    let mut detect = out_detect();
    let http1 = detect.http1.as_mut().expect("it is there");
    http1.failure_accrual = Some(FailureAccrual {
        kind: Some(Accrual::Unified(Unified {
            success_rate_threshold: 0.5,
            decay: Some(seconds(1)),
            min_requests: 3,
            max_consecutive_failures: 4,
            backoff: Some(backoff),
        })),
        ejection: None,
    });
    let rule = &mut http1.routes[0].rules[0];
    rule.timeouts = Some(http_route::Timeouts {
        response: Some(seconds(1)),
        ..Default::default()
    });
    rule.retry = Some(Retry {
        max_retries: 1,
        max_request_bytes: 1,
        conditions: Some(Conditions {
            status_ranges: vec![StatusRange {
                start: 500,
                end: 504,
            }],
        }),
        timeout: Some(seconds(1)),
        backoff: Some(backoff),
    });
    let forward = outbound::Backend {
        kind: Some(outbound::backend::Kind::Forward(weighted_addr(
            80,
            Some("a.b"),
        ))),
        ..backend("pod")
    };
    http1.routes.push(out_route(
        "split",
        vec![exact("/split")],
        http_random(&[(backend("a"), 1), (forward, 2)]),
    ));
    policy(Kind::Detect(detect))
}

type Change<M> = (&'static str, fn(&mut M));

/// The first rule of the first HTTP route of a policy.
fn rule(wire: &mut outbound::OutboundPolicy) -> &mut outbound::http_route::Rule {
    &mut http1_of(wire).routes[0].rules[0]
}

fn http1_of(wire: &mut outbound::OutboundPolicy) -> &mut outbound::proxy_protocol::Http1 {
    detect_of(wire).http1.as_mut().expect("it is there")
}

fn detect_of(wire: &mut outbound::OutboundPolicy) -> &mut outbound::proxy_protocol::Detect {
    match wire
        .protocol
        .as_mut()
        .and_then(|protocol| protocol.kind.as_mut())
    {
        Some(outbound::proxy_protocol::Kind::Detect(detect)) => detect,
        other => panic!("{other:?}"),
    }
}

/// The backend of that rule.
fn backend_of(wire: &mut outbound::OutboundPolicy) -> &mut outbound::Backend {
    use outbound::http_route::distribution::Kind;
    match rule(wire)
        .backends
        .as_mut()
        .and_then(|backends| backends.kind.as_mut())
    {
        Some(Kind::FirstAvailable(first)) => {
            first.backends[0].backend.as_mut().expect("it is there")
        }
        other => panic!("{other:?}"),
    }
}

fn balancer_of(wire: &mut outbound::OutboundPolicy) -> &mut outbound::backend::BalanceP2c {
    match backend_of(wire).kind.as_mut() {
        Some(outbound::backend::Kind::Balancer(balancer)) => balancer,
        other => panic!("{other:?}"),
    }
}

fn accrual_of(wire: &mut outbound::OutboundPolicy) -> &mut outbound::failure_accrual::Unified {
    match http1_of(wire)
        .failure_accrual
        .as_mut()
        .and_then(|accrual| accrual.kind.as_mut())
    {
        Some(outbound::failure_accrual::Kind::Unified(unified)) => unified,
        other => panic!("{other:?}"),
    }
}

fn retry_of(wire: &mut outbound::OutboundPolicy) -> &mut outbound::http_route::Retry {
    rule(wire).retry.as_mut().expect("it is there")
}

fn backoff_of(wire: &mut outbound::OutboundPolicy) -> &mut outbound::ExponentialBackoff {
    retry_of(wire).backoff.as_mut().expect("it is there")
}

fn filter(wire: &mut outbound::OutboundPolicy, kind: outbound::http_route::filter::Kind) {
    rule(wire)
        .filters
        .push(outbound::http_route::Filter { kind: Some(kind) });
}

fn named(wire: &mut outbound::OutboundPolicy) -> &mut tulle_api::meta::Resource {
    match wire
        .metadata
        .as_mut()
        .and_then(|metadata| metadata.kind.as_mut())
    {
        Some(tulle_api::meta::metadata::Kind::Resource(resource)) => resource,
        other => panic!("{other:?}"),
    }
}

const POLICY_CHANGES: &[Change<outbound::OutboundPolicy>] = &[
    ("metadata", |wire| wire.metadata = None),
    ("kind of metadata", |wire| {
        wire.metadata = Some(tulle_api::meta::Metadata { kind: None });
    }),
    ("group", |wire| named(wire).group.clear()),
    ("kind", |wire| named(wire).kind.clear()),
    ("name", |wire| named(wire).name.clear()),
    ("namespace", |wire| named(wire).namespace.clear()),
    ("port", |wire| named(wire).port = 65_536),
    ("protocol", |wire| wire.protocol = None),
    ("kind of protocol", |wire| {
        wire.protocol = Some(outbound::ProxyProtocol { kind: None });
    }),
    ("detect timeout", |wire| detect_of(wire).timeout = None),
    ("negative timeout", |wire| {
        detect_of(wire).timeout = Some(NEGATIVE);
    }),
    ("detect opaque", |wire| detect_of(wire).opaque = None),
    ("detect http1", |wire| detect_of(wire).http1 = None),
    ("detect http2", |wire| detect_of(wire).http2 = None),
    ("two opaque routes", |wire| {
        let opaque = detect_of(wire).opaque.as_mut().expect("it is there");
        opaque.routes.push(opaque.routes[0].clone());
    }),
    ("an opaque route without rules", |wire| {
        detect_of(wire).opaque.as_mut().expect("it is there").routes[0]
            .rules
            .clear();
    }),
    ("route metadata", |wire| {
        http1_of(wire).routes[0].metadata = None;
    }),
    ("host", |wire| {
        http1_of(wire).routes[0].hosts.push(host("a b"));
    }),
    ("kind of host", |wire| {
        http1_of(wire).routes[0]
            .hosts
            .push(http_route::HostMatch::default());
    }),
    ("kind of path", |wire| {
        rule(wire).matches[0].path = Some(http_route::PathMatch { kind: None });
    }),
    ("path regex", |wire| rule(wire).matches = vec![regex("(")]),
    ("path regex that leaves its group", |wire| {
        rule(wire).matches = vec![regex("a)|(.*")];
    }),
    ("header name", |wire| {
        rule(wire).matches[0].headers.push(header("a b", "x"));
    }),
    ("header value", |wire| {
        rule(wire).matches[0].headers.push(header("a", "x\n"));
    }),
    ("header regex", |wire| {
        rule(wire).matches[0].headers.push(header("a", "~["));
    }),
    ("kind of header", |wire| {
        rule(wire).matches[0].headers.push(http_route::HeaderMatch {
            name: "a".into(),
            value: None,
        });
    }),
    ("query regex", |wire| {
        rule(wire).matches[0].query_params.push(query("a", "~["));
    }),
    ("kind of query", |wire| {
        rule(wire).matches[0]
            .query_params
            .push(http_route::QueryParamMatch::default());
    }),
    ("method", |wire| {
        rule(wire).matches[0].method = method("A B");
    }),
    ("kind of filter", |wire| {
        rule(wire)
            .filters
            .push(outbound::http_route::Filter { kind: None });
    }),
    ("failure status", |wire| {
        let failure = http_route::HttpFailureInjector {
            status: 99,
            ..Default::default()
        };
        filter(
            wire,
            outbound::http_route::filter::Kind::FailureInjector(failure),
        );
    }),
    ("denominator", |wire| {
        let failure = http_route::HttpFailureInjector {
            status: 500,
            ratio: Some(http_route::Ratio {
                numerator: 1,
                denominator: 0,
            }),
            ..Default::default()
        };
        filter(
            wire,
            outbound::http_route::filter::Kind::FailureInjector(failure),
        );
    }),
    ("redirect path", |wire| {
        let path = Some(http_route::PathModifier {
            replace: Some(http_route::path_modifier::Replace::Full("relative".into())),
        });
        let redirect = http_route::RequestRedirect {
            path,
            ..Default::default()
        };
        filter(wire, outbound::http_route::filter::Kind::Redirect(redirect));
    }),
    ("redirect status", |wire| {
        let redirect = http_route::RequestRedirect {
            status: 200,
            ..Default::default()
        };
        filter(wire, outbound::http_route::filter::Kind::Redirect(redirect));
    }),
    ("redirect host", |wire| {
        let redirect = http_route::RequestRedirect {
            host: "a/b".into(),
            ..Default::default()
        };
        filter(wire, outbound::http_route::filter::Kind::Redirect(redirect));
    }),
    ("header to remove", |wire| {
        let modifier = http_route::RequestHeaderModifier {
            remove: vec![String::new()],
            ..Default::default()
        };
        filter(
            wire,
            outbound::http_route::filter::Kind::RequestHeaderModifier(modifier),
        );
    }),
    ("backends", |wire| rule(wire).backends = None),
    ("kind of backends", |wire| {
        rule(wire).backends = Some(outbound::http_route::Distribution { kind: None });
    }),
    ("no first backend", |wire| {
        rule(wire).backends = http_first(&[]);
    }),
    ("no random backend", |wire| {
        rule(wire).backends = http_random(&[]);
    }),
    ("backend metadata", |wire| backend_of(wire).metadata = None),
    ("queue", |wire| backend_of(wire).queue = None),
    ("failfast timeout", |wire| {
        backend_of(wire).queue = Some(outbound::Queue {
            capacity: 1,
            failfast_timeout: None,
        });
    }),
    ("discovery", |wire| balancer_of(wire).discovery = None),
    ("kind of discovery", |wire| {
        balancer_of(wire).discovery = Some(outbound::backend::EndpointDiscovery { kind: None });
    }),
    ("load", |wire| balancer_of(wire).load = None),
    ("default_rtt", |wire| {
        use outbound::backend::balance_p2c::{Load, PeakEwma};
        balancer_of(wire).load = Some(Load::PeakEwma(PeakEwma {
            default_rtt: None,
            decay: Some(seconds(1)),
        }));
    }),
    ("decay", |wire| {
        use outbound::backend::balance_p2c::{Load, PeakEwma};
        balancer_of(wire).load = Some(Load::PeakEwma(PeakEwma {
            default_rtt: Some(seconds(1)),
            decay: None,
        }));
    }),
    ("address to forward to", |wire| {
        backend_of(wire).kind = Some(outbound::backend::Kind::Forward(weighted_addr(
            65_536, None,
        )));
    }),
    ("negative rule timeout", |wire| {
        rule(wire).timeouts = Some(http_route::Timeouts {
            idle: Some(NEGATIVE),
            ..Default::default()
        });
    }),
    ("retry conditions", |wire| retry_of(wire).conditions = None),
    ("status 0", |wire| {
        retry_of(wire)
            .conditions
            .as_mut()
            .expect("it is there")
            .status_ranges[0]
            .start = 0;
    }),
    ("status 600", |wire| {
        retry_of(wire)
            .conditions
            .as_mut()
            .expect("it is there")
            .status_ranges[0]
            .end = 600;
    }),
    ("range upside down", |wire| {
        retry_of(wire)
            .conditions
            .as_mut()
            .expect("it is there")
            .status_ranges[0]
            .end = 499;
    }),
    ("no min_backoff", |wire| backoff_of(wire).min_backoff = None),
    ("min_backoff over max", |wire| {
        backoff_of(wire).min_backoff = Some(seconds(3));
    }),
    ("max_backoff 0", |wire| {
        backoff_of(wire).min_backoff = Some(seconds(0));
        backoff_of(wire).max_backoff = Some(seconds(0));
    }),
    ("jitter below 0", |wire| {
        backoff_of(wire).jitter_ratio = -0.1;
    }),
    ("jitter no number", |wire| {
        backoff_of(wire).jitter_ratio = f32::NAN;
    }),
    ("kind of accrual", |wire| {
        http1_of(wire).failure_accrual = Some(outbound::FailureAccrual {
            kind: None,
            ejection: None,
        });
    }),
    ("accrual backoff", |wire| accrual_of(wire).backoff = None),
    ("accrual threshold", |wire| {
        accrual_of(wire).success_rate_threshold = 1.5;
    }),
    ("accrual threshold no number", |wire| {
        accrual_of(wire).success_rate_threshold = f64::NAN;
    }),
    ("accrual decay", |wire| accrual_of(wire).decay = None),
    ("accrual min_requests", |wire| {
        accrual_of(wire).min_requests = 1_000_001;
    }),
];

fn routes(wire: &mut inbound::Server) -> &mut Vec<inbound::HttpRoute> {
    match wire
        .protocol
        .as_mut()
        .and_then(|protocol| protocol.kind.as_mut())
    {
        Some(inbound::proxy_protocol::Kind::Detect(detect)) => &mut detect.http_routes,
        other => panic!("{other:?}"),
    }
}

fn permit(wire: &mut inbound::Server) -> &mut Option<inbound::authn::Permit> {
    &mut wire.authorizations[0]
        .authentication
        .as_mut()
        .expect("it is there")
        .permit
}

const SERVER_CHANGES: &[Change<inbound::Server>] = &[
    ("name", |wire| wire.labels.clear()),
    ("empty name", |wire| {
        wire.labels = [("name".to_owned(), String::new())].into();
    }),
    ("protocol", |wire| wire.protocol = None),
    ("kind of protocol", |wire| {
        wire.protocol = Some(inbound::ProxyProtocol { kind: None });
    }),
    ("detect timeout", |wire| {
        match wire
            .protocol
            .as_mut()
            .and_then(|protocol| protocol.kind.as_mut())
        {
            Some(inbound::proxy_protocol::Kind::Detect(detect)) => detect.timeout = None,
            other => panic!("{other:?}"),
        }
    }),
    ("networks", |wire| wire.authorizations[0].networks.clear()),
    ("net", |wire| wire.authorizations[0].networks[0].net = None),
    ("prefix length", |wire| {
        wire.authorizations[0].networks[0]
            .net
            .as_mut()
            .expect("it is there")
            .prefix_len = 33;
    }),
    ("address of net", |wire| {
        wire.authorizations[0].networks[0]
            .net
            .as_mut()
            .expect("it is there")
            .ip = None;
    }),
    ("except", |wire| {
        wire.authorizations[0].networks[0]
            .except
            .push(tulle_api::net::IpNetwork::default());
    }),
    ("authentication", |wire| {
        wire.authorizations[0].authentication = None;
    }),
    ("kind of authentication", |wire| *permit(wire) = None),
    ("clients", |wire| {
        let tls = inbound::authn::PermitMeshTls { clients: None };
        *permit(wire) = Some(inbound::authn::Permit::MeshTls(tls));
    }),
    ("identity", |wire| {
        *permit(wire) = Some(identities(&["a b"], &[]));
    }),
    ("empty identity", |wire| {
        *permit(wire) = Some(identities(&[""], &[]));
    }),
    ("wildcard for an identity", |wire| {
        *permit(wire) = Some(identities(&["*"], &[]));
    }),
    ("suffix", |wire| {
        *permit(wire) = Some(identities(&[], &[&["a", ""]]));
    }),
    ("name of authorization", |wire| {
        wire.authorizations[0].metadata = None;
    }),
    ("authorization of route", |wire| {
        routes(wire)[0].authorizations[0].networks.clear();
    }),
    ("route metadata", |wire| routes(wire)[0].metadata = None),
    ("host", |wire| routes(wire)[0].hosts.push(host("*."))),
    ("path", |wire| {
        routes(wire)[0].rules[0].matches = vec![regex("[")];
    }),
    ("filter", |wire| {
        routes(wire)[0].rules[0]
            .filters
            .push(inbound::http_route::Filter { kind: None });
    }),
    ("rate limit", |wire| {
        match wire
            .protocol
            .as_mut()
            .and_then(|protocol| protocol.kind.as_mut())
        {
            Some(inbound::proxy_protocol::Kind::Detect(detect)) => {
                detect
                    .http_local_rate_limit
                    .as_mut()
                    .expect("it is there")
                    .metadata = None;
            }
            other => panic!("{other:?}"),
        }
    }),
];

#[test]
fn one_wrong_element_makes_an_outbound_policy_invalid() {
    let valid = ClientPolicy::from_proto(rich_policy()).protocol;
    assert!(valid.refusal().is_none(), "{valid:?}");

    for (what, change) in POLICY_CHANGES {
        let mut wire = rich_policy();
        change(&mut wire);

        let policy = ClientPolicy::from_proto(wire);

        let refusal = policy.protocol.refusal();
        assert_eq!(
            refusal.map(|refusal| refusal.reason),
            Some(Reason::PolicyInvalid),
            "{what}"
        );
    }
}

#[test]
fn one_wrong_element_makes_a_server_policy_refuse_everything() {
    let valid = ServerPolicy::from_proto(rich_server()).protocol;
    assert!(matches!(valid, Speaks::Detect { .. }), "{valid:?}");

    for (what, change) in SERVER_CHANGES {
        let mut wire = rich_server();
        change(&mut wire);

        let policy = ServerPolicy::from_proto(wire);

        let request = get("/");
        let tls = ClientTls::Established {
            client_id: Some(Id::new("a.b")),
        };
        let refusal = policy.route(&Facts::of(&request)).expect_err(what);
        assert_eq!(refusal.reason, Reason::PolicyInvalid, "{what}");
        assert!(
            refusal.message.starts_with("invalid server policy: "),
            "{what}"
        );
        let refusal = policy
            .authorize_connection(Ipv4Addr::LOCALHOST.into(), &tls)
            .expect_err(what);
        assert_eq!(refusal.reason, Reason::PolicyInvalid, "{what}");
    }
}

#[test]
fn an_invalid_policy_names_the_place() {
    let mut wire = rich_server();
    routes(&mut wire)[1].rules[0].matches[1] = regex("[");

    let Speaks::Invalid(why) = ServerPolicy::from_proto(wire).protocol else {
        panic!("invalid")
    };

    assert!(
        why.starts_with("routes[1]: rules[0]: matches[1]: path: \"[\" is no regular"),
        "{why}"
    );
}

/// Ask a policy everything that it can be asked.
fn exercise_server(policy: &ServerPolicy) {
    let states = [
        ClientTls::None(NoTls::NotFromRemote),
        ClientTls::Established { client_id: None },
        ClientTls::Established {
            client_id: Some(Id::new("a.b")),
        },
        ClientTls::Opaque { sni: String::new() },
    ];
    for client in [
        IpAddr::from([10, 0, 0, 1]),
        IpAddr::from([0xfd77, 0, 0, 0, 0, 0, 0, 1]),
    ] {
        for tls in &states {
            let decided = policy
                .authorize_connection(client, tls)
                .map(|permit| permit.grant().clone());
            let (explained, steps) = policy.explain_connection(client, tls);
            assert_eq!(decided.ok(), explained.ok());
            assert!(!steps.is_empty());
            for mut request in requests() {
                let decided = policy.route(&Facts::of(&request)).and_then(|found| {
                    let permit = policy.authorize_request(&found, client, tls)?;
                    Ok((permit.grant().clone(), found))
                });
                let (explained, steps) = policy.explain_request(&Facts::of(&request), client, tls);
                assert!(!steps.is_empty());
                assert_eq!(
                    decided.as_ref().ok().map(|(grant, _)| grant),
                    explained.as_ref().ok()
                );
                if let Ok((_, found)) = decided {
                    let _ = apply_request(found.filters(), found.path, &mut request, || 1);
                }
            }
        }
    }
}

fn exercise_client(policy: &ClientPolicy) {
    let _ = policy.backends();
    for mut request in requests() {
        let found = match &policy.protocol {
            Protocol::Detect {
                http1,
                http2,
                opaque,
                ..
            } => {
                let _ = (http2.find(&Facts::of(&request)), opaque.find());
                http1.find(&Facts::of(&request))
            }
            Protocol::Http1(routes) | Protocol::Http2(routes) => routes.find(&Facts::of(&request)),
            Protocol::Grpc(routes) => routes.find(&Facts::of(&request)),
            Protocol::Opaque(routes) => {
                let _ = routes.find();
                return;
            }
            Protocol::Tls(routes) => {
                let _ = (routes.find(None), routes.find(Some("api.example")));
                return;
            }
            Protocol::Invalid(_) => return,
        };
        if let Ok(found) = found {
            let _ = found.distribution.pick(7, |_| true);
            let path = found.path;
            let _ = apply_request(&found.filters, path, &mut request, || 1);
        }
    }
}

fn requests() -> [http::Request<()>; 6] {
    [
        get("/"),
        request(
            "GET",
            "/api/x?q=%zz&p=1",
            &[
                ("host", "api.shop:80"),
                ("x-user", "ann"),
                ("x-canary", "yes"),
            ],
        ),
        request("OPTIONS", "*", &[("host", "a.example")]),
        request("CONNECT", "web.shop:443", &[]),
        request("POST", "/shop.Slots/Book", &[("host", "")]),
        request("GET", "http://x.example:81/split/../%2e", &[]),
    ]
}

/// Bytes replaced, removed and inserted.
fn mutated(bytes: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let edit = (any::<prop::sample::Index>(), 0..3_u8, any::<u8>());
    prop::collection::vec(edit, 0..6).prop_map(move |edits| {
        let mut bytes = bytes.clone();
        for (index, kind, byte) in edits {
            let index = index.index(bytes.len().max(1));
            match kind {
                0 if index < bytes.len() => bytes[index] = byte,
                1 if index < bytes.len() => {
                    bytes.remove(index);
                }
                _ => bytes.insert(index, byte),
            }
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_mutated_server_is_compiled_or_invalid(bytes in mutated(rich_server().encode_to_vec())) {
        if let Ok(wire) = inbound::Server::decode(&*bytes) {
            exercise_server(&ServerPolicy::from_proto(wire));
        }
    }

    #[test]
    fn a_mutated_outbound_policy_is_compiled_or_invalid(bytes in mutated(rich_policy().encode_to_vec())) {
        if let Ok(wire) = outbound::OutboundPolicy::decode(&*bytes) {
            exercise_client(&ClientPolicy::from_proto(wire));
        }
    }

    #[test]
    fn a_mutated_endpoint_is_read_or_left_out(
        bytes in mutated(weighted_addr(80, Some("a.b")).encode_to_vec()),
    ) {
        if let Ok(wire) = destination::WeightedAddr::decode(&*bytes) {
            let _ = endpoint_from_proto(&wire, &wire.metric_labels);
        }
    }

    #[test]
    fn bytes_that_are_no_message_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        if let Ok(wire) = inbound::Server::decode(&*bytes) {
            exercise_server(&ServerPolicy::from_proto(wire));
        }
        if let Ok(wire) = outbound::OutboundPolicy::decode(&*bytes) {
            exercise_client(&ClientPolicy::from_proto(wire));
        }
        if let Ok(wire) = destination::DestinationProfile::decode(&*bytes) {
            let original = (Ipv4Addr::LOCALHOST, 80).into();
            exercise_client(&ClientPolicy::from_profile(&wire, original));
        }
    }
}

/// An authorization as a test understands it: the second octet's networks and an identity.
#[derive(Clone, Debug)]
struct Allows {
    octet: u8,
    except: Option<u8>,
    identity: Option<u8>,
}

proptest! {
    #[test]
    fn nobody_is_admitted_whom_no_authorization_names(
        allowed in prop::collection::vec(
            (0..4_u8, prop::option::of(0..4_u8), prop::option::of(0..3_u8))
                .prop_map(|(octet, except, identity)| Allows { octet, except, identity }),
            0..5,
        ),
        (octet, last) in (0..5_u8, 0..4_u8),
        proved in prop::option::of(0..4_u8),
    ) {
        let authorizations = allowed
            .iter()
            .map(|allows| {
                let inside = format!("10.{}.0.0/16", allows.octet);
                let except = allows.except.map(|last| format!("10.{}.0.{last}/32", allows.octet));
                let except: Vec<_> = except.iter().map(String::as_str).collect();
                let permit = match allows.identity {
                    None => anybody(),
                    Some(number) => identities(&[&format!("{number}.mesh")], &[]),
                };
                authz("a", &[(&inside, &except)], permit)
            })
            .collect();
        let policy = ServerPolicy::from_proto(server(detect(vec![]), authorizations));
        let tls = match proved {
            None => ClientTls::None(NoTls::NotFromRemote),
            Some(number) => ClientTls::Established { client_id: Some(Id::new(&format!("{number}.mesh"))) },
        };

        let admitted = policy.authorize_connection(IpAddr::from([10, octet, 0, last]), &tls).is_ok();

        let expected = allowed.iter().any(|allows| {
            allows.octet == octet
                && allows.except != Some(last)
                && (allows.identity.is_none() || allows.identity == proved)
        });
        prop_assert_eq!(admitted, expected);
    }
}

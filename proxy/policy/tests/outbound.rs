//! Where traffic goes.

mod wire;

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use tulle_api::{
    destination::{self, DestinationProfile},
    http_route, opaque_route,
    outbound::{self, proxy_protocol::Kind},
};
use tulle_core::{Endpoint, Hint, Id, Reason, TlsTarget};
use tulle_policy::{
    BackendKind, Backoff, Distribution, Ewma, Facts, FailureAccrual, Meta, Penalty, Verdict,
    endpoint_from_proto,
    outbound::{ClientPolicy, HttpRoutes, Protocol, Retry, Timeouts},
};
use wire::*;

const WEB: &str = "web.shop.serviceaccount.identity.linkerd.cluster.local";

fn original() -> SocketAddr {
    "10.78.0.9:80".parse().expect("an address")
}

fn http_routes(policy: &ClientPolicy) -> &HttpRoutes {
    match &policy.protocol {
        Protocol::Http1(routes) | Protocol::Detect { http1: routes, .. } => routes,
        other => panic!("no HTTP/1: {other:?}"),
    }
}

/// The paths that a policy's balancers ask for.
fn paths(policy: &ClientPolicy) -> Vec<String> {
    let path = |kind: &BackendKind| match kind {
        BackendKind::Balance { path, .. } => path.to_string(),
        BackendKind::Forward(endpoint) => endpoint.addr.to_string(),
        BackendKind::Fail => "fail".to_owned(),
    };
    policy
        .backends()
        .iter()
        .map(|backend| path(&backend.kind))
        .collect()
}

#[test]
fn the_default_policy_of_a_service_balances_every_protocol() {
    let policy = ClientPolicy::from_proto(policy(Kind::Detect(out_detect())));

    let Protocol::Detect {
        timeout,
        http1,
        http2,
        opaque,
    } = &policy.protocol
    else {
        panic!("{:?}", policy.protocol);
    };
    let request = get("/");
    let rule = http1.find(&Facts::of(&request)).expect("a rule");
    assert_eq!(*timeout, Duration::from_secs(10));
    assert_eq!(
        policy.meta.to_string(),
        "policy.linkerd.io/Service/shop/web"
    );
    assert_eq!(
        rule.meta.to_string(),
        "policy.linkerd.io/HTTPRoute/shop/web"
    );
    assert_eq!(
        http2.find(&Facts::of(&request)).expect("a rule").rule,
        rule.rule
    );
    assert!(opaque.find().expect("a rule").meta.is_default_named("opaq"));
    assert_eq!(paths(&policy), ["web.shop.svc.cluster.local:80"]);
}

#[test]
fn equal_backends_of_two_messages_are_equal() {
    let compile = |name| {
        ClientPolicy::from_proto(policy(http1(vec![out_route(
            "r",
            vec![prefix("/")],
            http_first(&[backend(name)]),
        )])))
    };

    assert_eq!(compile("web").backends(), compile("web").backends());
    assert_ne!(compile("web").backends(), compile("api").backends());
}

#[test]
fn all_settings_of_a_rule_are_read() {
    use outbound::{
        ExponentialBackoff,
        http_route::{
            Retry as WireRetry,
            retry::{Conditions, conditions::StatusRange},
        },
    };
    let mut route = out_route("r", vec![prefix("/")], http_first(&[backend("web")]));
    route.rules[0].timeouts = Some(http_route::Timeouts {
        response: Some(seconds(1)),
        request: Some(seconds(0)),
        idle: Some(seconds(3)),
    });
    route.rules[0].retry = Some(WireRetry {
        max_retries: 2,
        max_request_bytes: 0,
        conditions: Some(Conditions {
            status_ranges: vec![
                StatusRange {
                    start: 500,
                    end: 599,
                },
                StatusRange {
                    start: 429,
                    end: 429,
                },
            ],
        }),
        timeout: Some(seconds(4)),
        backoff: Some(ExponentialBackoff {
            min_backoff: Some(seconds(1)),
            max_backoff: Some(seconds(2)),
            jitter_ratio: 0.5,
            respect_retry_after_hint: false,
        }),
    });
    route.rules[0].allow_l5d_request_headers = true;
    route.rules[0].backend_request_timeout = Some(seconds(5));
    route.rules[0].no_default_retry = true;
    let policy = ClientPolicy::from_proto(policy(http1(vec![route])));

    let request = get("/");
    let rule = http_routes(&policy)
        .find(&Facts::of(&request))
        .expect("a rule");
    assert_eq!(
        rule.timeouts,
        Timeouts {
            response: Some(Duration::from_secs(1)),
            request: None,
            idle: Some(Duration::from_secs(3)),
            backend_request: Some(Duration::from_secs(5)),
        }
    );
    assert_eq!(
        rule.retry,
        Some(Retry {
            max_retries: 2,
            max_request_bytes: 65_536,
            statuses: Box::new([(500, 599), (429, 429)]),
            grpc_codes: Box::new([]),
            timeout: Some(Duration::from_secs(4)),
            backoff: Some(Backoff {
                min: Duration::from_secs(1),
                max: Duration::from_secs(2),
                jitter: 0.5,
            }),
        })
    );
    assert!(rule.allow_l5d_request_headers);
    assert!(!rule.default_retry);
}

#[test]
fn grpc_retries_name_codes() {
    use outbound::grpc_route::{Retry as WireRetry, retry::Conditions};
    let mut route = out_grpc_route("r", vec![rpc("shop.Slots", "")]);
    route.rules[0].retry = Some(WireRetry {
        max_retries: 1,
        max_request_bytes: 10,
        conditions: Some(Conditions {
            deadine_exceeded: true,
            unavailable: true,
            ..Default::default()
        }),
        timeout: None,
        backoff: None,
    });
    let grpc = outbound::proxy_protocol::Grpc {
        routes: vec![route],
        failure_accrual: None,
    };
    let policy = ClientPolicy::from_proto(policy(Kind::Grpc(grpc)));

    let Protocol::Grpc(routes) = &policy.protocol else {
        panic!("{:?}", policy.protocol)
    };
    let call = request("POST", "/shop.Slots/Book", &[]);
    let rule = routes.find(&Facts::of(&call)).expect("a rule");
    let retry = rule.retry.as_ref().expect("a retry");
    assert_eq!(*retry.grpc_codes, [4, 14]);
    assert_eq!(retry.max_request_bytes, 10);
    let refusal = routes.find(&Facts::of(&get("/"))).unwrap_err();
    assert_eq!(refusal.reason, Reason::RouteNotFound);
}

#[test]
fn failure_accrual_is_read() {
    use outbound::failure_accrual::{ConsecutiveFailures, Kind as Accrual, Unified};
    let backoff = outbound::ExponentialBackoff {
        min_backoff: Some(seconds(1)),
        max_backoff: Some(seconds(60)),
        jitter_ratio: 0.5,
        respect_retry_after_hint: true,
    };
    let compile = |kind| {
        let http1 = outbound::proxy_protocol::Http1 {
            routes: vec![],
            failure_accrual: Some(outbound::FailureAccrual {
                kind: Some(kind),
                ejection: None,
            }),
        };
        let policy = ClientPolicy::from_proto(policy(Kind::Http1(http1)));
        http_routes(&policy).failure_accrual
    };
    let read = Backoff {
        min: Duration::from_secs(1),
        max: Duration::from_mins(1),
        jitter: 0.5,
    };

    assert_eq!(
        compile(Accrual::ConsecutiveFailures(ConsecutiveFailures {
            max_failures: 7,
            backoff: Some(backoff)
        })),
        Some(FailureAccrual::Consecutive {
            max_failures: 7,
            backoff: read
        })
    );
    assert_eq!(
        compile(Accrual::Unified(Unified {
            success_rate_threshold: 0.8,
            decay: Some(seconds(10)),
            min_requests: 5,
            max_consecutive_failures: 0,
            backoff: Some(backoff),
        })),
        Some(FailureAccrual::Unified {
            success_rate_threshold: 0.8,
            decay: Duration::from_secs(10),
            min_requests: 5,
            max_consecutive_failures: 0,
            backoff: read,
            respect_retry_after: true,
        })
    );
}

#[test]
fn a_penalty_has_the_stock_proxys_defaults() {
    use outbound::backend::{
        Kind as Reach,
        balance_p2c::{Load, PenaltyPeakEwma},
    };
    let mut wire = backend("web");
    let Some(Reach::Balancer(balancer)) = &mut wire.kind else {
        panic!("a balancer")
    };
    balancer.load = Some(Load::PenaltyPeakEwma(PenaltyPeakEwma::default()));
    let route = out_route("r", vec![], http_first(&[wire]));
    let policy = ClientPolicy::from_proto(policy(http1(vec![route])));

    let BackendKind::Balance { ewma, .. } = &policy.backends()[0].kind else {
        panic!("a balancer")
    };
    assert_eq!(
        *ewma,
        Ewma {
            rtt: Duration::from_millis(30),
            decay: Duration::from_secs(10),
            penalty: Some(Penalty {
                penalty: Duration::from_secs(5),
                max_retry_after: Duration::from_mins(5),
                decay: Duration::from_secs(10),
            }),
        }
    );
}

#[test]
fn a_backend_that_names_nothing_fails() {
    let wire = outbound::Backend {
        kind: None,
        ..backend("gone")
    };
    let policy = ClientPolicy::from_proto(policy(http1(vec![out_route(
        "r",
        vec![],
        http_first(&[wire]),
    )])));

    assert_eq!(policy.backends()[0].kind, BackendKind::Fail);
}

fn distribution(weights: &[(&str, u32)]) -> Distribution<tulle_policy::Filter> {
    let backends: Vec<_> = weights
        .iter()
        .map(|(name, weight)| (backend(name), *weight))
        .collect();
    let route = out_route("r", vec![], http_random(&backends));
    let policy = ClientPolicy::from_proto(policy(http1(vec![route])));
    let request = get("/");
    http_routes(&policy)
        .find(&Facts::of(&request))
        .expect("a rule")
        .distribution
        .clone()
}

fn picked(
    distribution: &Distribution<tulle_policy::Filter>,
    random: u64,
    gone: &[&str],
) -> Option<String> {
    distribution
        .pick(random, |route| !gone.contains(&&*route.backend.meta.name))
        .map(|route| route.backend.meta.name.to_string())
}

#[test]
fn random_backends_get_their_weight_of_what_is_available() {
    let split = distribution(&[("a", 1), ("b", 3), ("never", 0), ("c", 4)]);
    let shares = |gone: &[&str]| {
        let mut shares = HashMap::new();
        for random in 0..8_u64 {
            *shares
                .entry(picked(&split, random, gone).unwrap_or_default())
                .or_insert(0) += 1;
        }
        let share = |name| shares.get(name).copied().unwrap_or(0);
        (
            share("a"),
            share("b"),
            share("c"),
            share("never"),
            share(""),
        )
    };

    assert_eq!(shares(&[]), (1, 3, 4, 0, 0));
    assert_eq!(shares(&["c"]), (2, 6, 0, 0, 0));
    assert_eq!(shares(&["a", "b", "c"]), (0, 0, 0, 0, 8));
}

#[test]
fn a_lone_backend_is_used_whatever_its_weight() {
    assert_eq!(
        picked(&distribution(&[("a", 0)]), 5, &[]).as_deref(),
        Some("a")
    );
    assert_eq!(picked(&distribution(&[("a", 0)]), 5, &["a"]), None);
}

#[test]
fn many_backends_without_weight_are_none() {
    assert_eq!(distribution(&[("a", 0), ("b", 0)]), Distribution::Empty);
}

#[test]
fn the_first_available_backend_is_used() {
    let route = out_route("r", vec![], http_first(&[backend("a"), backend("b")]));
    let policy = ClientPolicy::from_proto(policy(http1(vec![route])));
    let request = get("/");
    let rule = http_routes(&policy)
        .find(&Facts::of(&request))
        .expect("a rule");

    assert_eq!(picked(&rule.distribution, 9, &[]).as_deref(), Some("a"));
    assert_eq!(picked(&rule.distribution, 9, &["a"]).as_deref(), Some("b"));
    assert_eq!(picked(&rule.distribution, 9, &["a", "b"]), None);
}

#[test]
fn what_an_opaque_route_forbids_is_refused_with_its_reason() {
    use outbound::opaque_route::{Filter, filter::Kind as Does};
    let forbidden = Does::Forbidden(opaque_route::Forbidden {});
    let invalid = Does::Invalid(opaque_route::Invalid {
        message: "no such\nservice".into(),
    });
    let refused = |name: &str, kind: &Does| {
        let route = opaque_route(
            default(name),
            vec![Filter {
                kind: Some(kind.clone()),
            }],
        );
        let opaque = outbound::proxy_protocol::Opaque {
            routes: vec![route],
        };
        let policy = ClientPolicy::from_proto(policy(Kind::Opaque(opaque)));
        let Protocol::Opaque(routes) = &policy.protocol else {
            panic!("{:?}", policy.protocol)
        };
        let refusal = routes.find().unwrap_err();
        (refusal.reason, refusal.message.into_owned())
    };

    assert_eq!(
        refused("undefined-port", &forbidden),
        (
            Reason::PortUndefined,
            "the service does not define this port".into()
        )
    );
    assert_eq!(
        refused("tcp-egress-deny", &forbidden),
        (Reason::Unauthorized, "forbidden".into())
    );
    assert_eq!(
        refused("r", &invalid),
        (
            Reason::BackendInvalid,
            "invalid backend: no such service".into()
        )
    );
}

#[test]
fn an_opaque_policy_without_a_route_refuses() {
    let policy = ClientPolicy::from_proto(policy(Kind::Opaque(
        outbound::proxy_protocol::Opaque::default(),
    )));

    let Protocol::Opaque(routes) = &policy.protocol else {
        panic!("{:?}", policy.protocol)
    };
    assert_eq!(routes.find().unwrap_err().reason, Reason::RouteNotFound);
}

#[test]
fn tls_is_routed_by_the_name_that_the_client_asks_for() {
    let routes = vec![
        tls_route("exact", &["api.example"]),
        tls_route("suffix", &["*.example"]),
        tls_route("longer", &["*.api.example"]),
    ];
    let compile = |routes| {
        let policy =
            ClientPolicy::from_proto(policy(Kind::Tls(outbound::proxy_protocol::Tls { routes })));
        let Protocol::Tls(routes) = policy.protocol else {
            panic!("{:?}", policy.protocol)
        };
        routes
    };
    let named = compile(routes.clone());
    let any = compile([routes, vec![tls_route("any", &[])]].concat());

    for (sni, route) in [
        (Some("API.example"), Some("exact")),
        (Some("web.example"), Some("suffix")),
        (Some("v1.api.example"), Some("longer")),
        (Some("example"), None),
        (None, None),
    ] {
        let name = named.find(sni).ok().map(|rule| rule.meta.name.to_string());
        assert_eq!(name.as_deref(), route, "{sni:?}");
        let name = any.find(sni).ok().map(|rule| rule.meta.name.to_string());
        assert_eq!(name.as_deref(), route.or(Some("any")), "{sni:?}");
    }
}

#[test]
fn an_endpoint_is_read_whole() {
    let set = HashMap::from([
        ("zone".to_owned(), "set".to_owned()),
        ("namespace".to_owned(), "shop".to_owned()),
    ]);
    let mut wire = weighted_addr(8080, Some(WEB));
    wire.authority_override = Some(destination::AuthorityOverride {
        authority_override: "web.east:80".into(),
    });

    let endpoint = endpoint_from_proto(&wire, &set).expect("an endpoint");

    assert_eq!(
        endpoint,
        Endpoint {
            addr: "10.77.0.5:8080".parse().expect("an address"),
            tls: Some(TlsTarget {
                server_name: WEB.into(),
                id: Id::new(WEB)
            }),
            hint: Hint::H2,
            transport_port: Some(4143),
            authority_override: Some("web.east:80".into()),
            labels: Arc::new([
                ("namespace".into(), "shop".into()),
                ("zone".into(), "a".into()),
            ]),
        }
    );
}

#[test]
fn what_cannot_be_understood_of_an_endpoint_is_left_out() {
    use destination::{
        TlsIdentity,
        tls_identity::{DnsLikeIdentity, Strategy, UriLikeIdentity},
    };
    let none = HashMap::new();
    let read = |wire: &destination::WeightedAddr| endpoint_from_proto(wire, &none);
    let uri = Strategy::UriLikeIdentity(UriLikeIdentity {
        uri: "spiffe://x/web".into(),
    });

    assert_eq!(read(&weighted_addr(70_000, None)), None);
    assert_eq!(read(&destination::WeightedAddr::default()), None);
    let plain = read(&weighted_addr(80, None)).expect("an endpoint");
    assert_eq!((plain.tls, plain.transport_port), (None, None));

    let mut spiffe = weighted_addr(80, None);
    spiffe.tls_identity = Some(TlsIdentity {
        strategy: Some(uri.clone()),
        server_name: None,
    });
    assert_eq!(read(&spiffe).expect("an endpoint").tls, None);
    spiffe.tls_identity = Some(TlsIdentity {
        strategy: Some(uri),
        server_name: Some(DnsLikeIdentity {
            name: "web.east".into(),
        }),
    });
    assert_eq!(
        read(&spiffe).expect("an endpoint").tls,
        Some(TlsTarget {
            server_name: "web.east".into(),
            id: Id::new("spiffe://x/web")
        })
    );
}

#[test]
fn a_profile_stands_for_a_policy() {
    let pod = DestinationProfile {
        endpoint: Some(weighted_addr(8080, Some(WEB))),
        ..Default::default()
    };
    let service = DestinationProfile {
        fully_qualified_name: "web.shop.svc.cluster.local".into(),
        parent_ref: resource("Service", "web"),
        ..Default::default()
    };
    let unknown = DestinationProfile {
        opaque_protocol: true,
        ..Default::default()
    };

    let pod = ClientPolicy::from_profile(&pod, original());
    let service = ClientPolicy::from_profile(&service, original());
    let unknown = ClientPolicy::from_profile(&unknown, original());

    assert_eq!(
        (pod.meta.to_string(), paths(&pod)),
        ("default/endpoint".into(), vec!["10.77.0.5:8080".into()])
    );
    assert_eq!(
        (service.meta.to_string(), paths(&service)),
        (
            "policy.linkerd.io/Service/shop/web".into(),
            vec!["web.shop.svc.cluster.local:80".into()]
        )
    );
    assert_eq!(
        (unknown.meta.to_string(), paths(&unknown)),
        ("default/fallback".into(), vec!["10.78.0.9:80".into()])
    );
    assert!(matches!(unknown.protocol, Protocol::Opaque(_)));
    assert!(matches!(pod.protocol, Protocol::Detect { .. }));
}

#[test]
fn a_profile_makes_only_a_detecting_policy_opaque() {
    let detect = ClientPolicy::from_proto(policy(Kind::Detect(out_detect()))).into_opaque();
    let http = ClientPolicy::from_proto(policy(http1(vec![]))).into_opaque();

    assert!(matches!(detect.protocol, Protocol::Opaque(_)));
    assert!(matches!(http.protocol, Protocol::Http1(_)));
}

#[test]
fn an_explanation_says_which_rule_and_why() {
    let routes = vec![
        out_route("a", vec![exact("/a")], http_first(&[backend("a")])),
        out_route("b", vec![prefix("/")], http_first(&[backend("b")])),
    ];
    let policy = ClientPolicy::from_proto(policy(http1(routes)));
    let request = get("/x");

    let (found, steps) = http_routes(&policy).explain(&Facts::of(&request));

    assert_eq!(&*found.expect("a rule").meta.name, "b");
    let words: Vec<_> = steps.iter().map(|step| step.why.as_str()).collect();
    assert_eq!(words, ["the path is not exactly /a", "it matches best"]);
}

#[test]
fn an_explanation_says_what_beat_a_rule_that_matches() {
    let routes = vec![
        out_route("a", vec![prefix("/")], http_first(&[backend("a")])),
        out_route("b", vec![prefix("/x")], http_first(&[backend("b")])),
    ];
    let policy = ClientPolicy::from_proto(policy(http1(routes)));
    let request = get("/x");

    let (_, steps) = http_routes(&policy).explain(&Facts::of(&request));

    let steps: Vec<_> = steps
        .iter()
        .map(|step| (step.verdict, &*step.why))
        .collect();
    let beaten = steps[0].1;
    assert!(
        beaten.starts_with("it matches, but route ") && beaten.ends_with("matches more closely")
    );
    assert_eq!(
        [steps[0].0, steps[1].0],
        [Verdict::Skipped, Verdict::Matched]
    );
}

#[test]
fn the_wires_default_metadata_keeps_its_name() {
    let mut wire = policy(http1(vec![]));
    wire.metadata = default("egress-fallback");

    assert_eq!(
        *ClientPolicy::from_proto(wire).meta,
        Meta::default_named("egress-fallback")
    );
}

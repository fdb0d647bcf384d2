//! The routes of service profiles.

mod wire;

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use http::Request;
use proptest::prelude::*;
use prost::Message;
use tulle_api::{
    destination::{
        self, DestinationProfile, HttpStatusRange, PathMatch, RequestMatch, ResponseClass,
        ResponseMatch, Route, WeightedDst,
        request_match::{self, Match},
        response_match,
    },
    outbound::proxy_protocol::Kind,
};
use tulle_policy::{
    BackendKind, Distribution, Facts, Filter,
    outbound::{ClientPolicy, HttpRoutes, Protocol, RetryBudget, RouteMatch},
};
use wire::*;

const FQN: &str = "web.shop.svc.cluster.local";

fn original() -> SocketAddr {
    ([10, 78, 0, 9], 80).into()
}

fn on(kind: Match) -> RequestMatch {
    RequestMatch {
        r#match: Some(kind),
    }
}

fn path(regex: &str) -> RequestMatch {
    on(Match::Path(PathMatch {
        regex: regex.to_owned(),
    }))
}

fn asks(name: &str) -> RequestMatch {
    on(Match::Method(method(name).expect("a method")))
}

fn route(name: &str, condition: RequestMatch) -> Route {
    Route {
        condition: Some(condition),
        metrics_labels: HashMap::from([("route".to_owned(), name.to_owned())]),
        ..Route::default()
    }
}

fn statuses(min: u32, max: u32, is_failure: bool) -> ResponseClass {
    let range = HttpStatusRange { min, max };
    ResponseClass {
        condition: Some(ResponseMatch {
            r#match: Some(response_match::Match::Status(range)),
        }),
        is_failure,
    }
}

fn profile(routes: Vec<Route>) -> DestinationProfile {
    DestinationProfile {
        fully_qualified_name: FQN.to_owned(),
        routes,
        retry_budget: Some(destination::RetryBudget {
            retry_ratio: 0.2,
            min_retries_per_second: 10,
            ttl: Some(seconds(10)),
        }),
        ..DestinationProfile::default()
    }
}

fn to(authority: &str, weight: u32) -> WeightedDst {
    WeightedDst {
        authority: authority.to_owned(),
        weight,
        backend_ref: None,
    }
}

/// A service's policy under a profile.
fn under(profile: &DestinationProfile) -> ClientPolicy {
    ClientPolicy::from_proto(policy(Kind::Detect(out_detect()))).with_profile(profile, 80)
}

fn routes(policy: &ClientPolicy) -> &HttpRoutes {
    match &policy.protocol {
        Protocol::Detect { http1, .. } | Protocol::Http1(http1) => http1,
        other => panic!("no HTTP/1: {other:?}"),
    }
}

fn name(found: &RouteMatch<'_>) -> String {
    let profile = found.profile.expect("a profile's route");
    let label = profile.labels.iter().find(|(key, _)| &**key == "route");
    label.map_or("none", |(_, name)| name).to_owned()
}

fn of(policy: &ClientPolicy, request: &Request<()>) -> String {
    name(&routes(policy).find(&Facts::of(request)).expect("a route"))
}

/// Paths and weights of the backends.
fn sent(distribution: &Distribution<Filter>) -> Vec<(String, u32)> {
    let path = |kind: &BackendKind| match kind {
        BackendKind::Balance { path, .. } => path.to_string(),
        other => panic!("no balancer: {other:?}"),
    };
    match distribution {
        Distribution::Random(all) => all
            .iter()
            .map(|(route, weight)| (path(&route.backend.kind), *weight))
            .collect(),
        _ => distribution
            .backends()
            .map(|route| (path(&route.backend.kind), 1))
            .collect(),
    }
}

#[test]
fn the_first_route_that_matches_takes_the_request() {
    let all = on(Match::All(request_match::Seq {
        matches: vec![asks("POST"), path("/a.*")],
    }));
    let any = on(Match::Any(request_match::Seq {
        matches: vec![path("/b"), path("^/c$")],
    }));
    let not = on(Match::Not(Box::new(path("/.*"))));
    let policy = under(&profile(vec![
        route("all", all),
        route("path", path("/a/[0-9]+")),
        route("any", any),
        route("not", not),
    ]));

    for (method, uri, expected) in [
        ("POST", "/a/1", "all"),
        ("GET", "/a/1?q=/b", "path"),
        ("GET", "/a/1/more", "none"),
        ("GET", "/b", "any"),
        ("GET", "/c", "any"),
        ("GET", "/x/b", "none"),
        ("OPTIONS", "*", "not"),
    ] {
        let request = request(method, uri, &[]);
        assert_eq!(of(&policy, &request), expected, "{method} {uri}");
    }
}

#[test]
fn a_route_that_cannot_be_understood_is_left_out_alone() {
    let without = Route {
        condition: None,
        ..route("without", path("/.*"))
    };
    let policy = under(&profile(vec![
        without,
        route("broken", path("/(")),
        route("escaping", path("/a)|(.*")),
        route("nothing", RequestMatch::default()),
        route("good", path("/.*")),
    ]));

    assert_eq!(of(&policy, &get("/a")), "good");
}

#[test]
fn a_profile_rules_where_it_is_a_services_and_has_routes_or_overrides() {
    let nameless = DestinationProfile {
        fully_qualified_name: String::new(),
        ..profile(vec![route("a", path("/.*"))])
    };
    let split = DestinationProfile {
        dst_overrides: vec![to("web-2.shop.svc.cluster.local:80", 1)],
        ..profile(vec![])
    };

    let rules = |profile: &DestinationProfile| routes(&under(profile)).profile().is_some();
    assert!(rules(&profile(vec![route("a", path("/.*"))])));
    assert!(rules(&split));
    assert!(!rules(&profile(vec![])));
    assert!(!rules(&nameless));
}

#[test]
fn overrides_share_the_traffic_of_every_protocol_by_weight() {
    let policy = under(&DestinationProfile {
        dst_overrides: vec![
            to("a.shop.svc.cluster.local:80", 9),
            to("b.shop.svc.cluster.local:80", 1),
            to("weightless.shop.svc.cluster.local:80", 0),
            to("no-port", 5),
        ],
        ..profile(vec![])
    });

    let request = get("/");
    let found = routes(&policy).find(&Facts::of(&request)).expect("a route");
    let expected = [
        ("a.shop.svc.cluster.local:80".to_owned(), 9),
        ("b.shop.svc.cluster.local:80".to_owned(), 1),
    ];
    assert_eq!(sent(&found.rule.distribution), expected);
    let Protocol::Detect { opaque, .. } = &policy.protocol else {
        panic!("{policy:?}");
    };
    assert_eq!(
        opaque
            .find()
            .expect("a rule")
            .distribution
            .backends()
            .count(),
        2
    );
}

#[test]
fn without_overrides_the_service_itself_is_balanced() {
    let profile = profile(vec![route("a", path("/a"))]);
    let alone = ClientPolicy::from_profile(&profile, original());

    for (policy, uri) in [(under(&profile), "/a"), (alone, "/other")] {
        let request = get(uri);
        let found = routes(&policy).find(&Facts::of(&request)).expect("a route");
        assert_eq!(sent(&found.rule.distribution), [(format!("{FQN}:80"), 1)]);
    }
}

#[test]
fn failures_by_response_class_are_retried_within_the_budget() {
    let retryable = Route {
        is_retryable: true,
        timeout: Some(seconds(3)),
        response_classes: vec![
            statuses(404, 404, true),
            statuses(503, 504, false),
            statuses(0, 600, true),
            statuses(500, 509, true),
        ],
        ..route("a", path("/a"))
    };
    let policy = under(&profile(vec![retryable]));
    let request = get("/a");

    let found = routes(&policy).find(&Facts::of(&request)).expect("a route");

    let retry = found.rule.retry.as_ref().expect("it is retried");
    assert_eq!(*retry.statuses, [(404, 404), (500, 502), (505, 599)]);
    assert_eq!(*retry.grpc_codes, [2, 4, 7, 13, 14, 15]);
    let of_profile = found.profile.expect("a profile's route");
    assert_eq!(of_profile.timeout, Some(Duration::from_secs(3)));
    assert_eq!(of_profile.is_failure(404), Some(true));
    assert_eq!(of_profile.is_failure(503), Some(false));
    assert_eq!(of_profile.is_failure(200), None);
    let expected = RetryBudget {
        ratio: f64::from(0.2_f32),
        per_second: 10.0,
        window: Duration::from_secs(10),
    };
    assert_eq!(
        routes(&policy).profile().expect("it rules").budget,
        Some(expected)
    );
}

#[test]
fn without_a_legal_budget_nothing_is_retried() {
    for (ratio, ttl) in [
        (0.2, None),
        (0.2, Some(0)),
        (0.2, Some(61)),
        (-1.0, Some(10)),
    ] {
        let retryable = Route {
            is_retryable: true,
            ..route("a", path("/a"))
        };
        let policy = under(&DestinationProfile {
            retry_budget: Some(destination::RetryBudget {
                retry_ratio: ratio,
                min_retries_per_second: 10,
                ttl: ttl.map(seconds),
            }),
            ..profile(vec![retryable])
        });
        let request = get("/a");

        let found = routes(&policy).find(&Facts::of(&request)).expect("a route");

        assert_eq!(found.rule.retry, None, "{ratio} {ttl:?}");
    }
}

#[test]
fn an_explanation_names_the_profiles_routes() {
    let policy = under(&profile(vec![
        route("a", path("/a")),
        route("b", path("/b")),
    ]));
    let request = get("/b");

    let (found, steps) = routes(&policy).explain(&Facts::of(&request));

    assert_eq!(name(&found.expect("a route")), "b");
    let words: Vec<_> = steps.iter().map(|step| step.why.as_str()).collect();
    assert_eq!(
        words,
        [
            "the profile's route a does not match",
            "the first route of the profile that matches: b"
        ]
    );
}

fn condition() -> impl Strategy<Value = RequestMatch> {
    let leaf = prop_oneof![
        Just(RequestMatch::default()),
        "[/a-c.*()|^$]{0,6}".prop_map(|regex| path(&regex)),
        Just(asks("GET")),
        Just(asks("POST")),
    ];
    leaf.prop_recursive(4, 16, 4, |inner| {
        let seq = prop::collection::vec(inner.clone(), 0..4)
            .prop_map(|matches| request_match::Seq { matches });
        prop_oneof![
            seq.clone().prop_map(|seq| on(Match::All(seq))),
            seq.prop_map(|seq| on(Match::Any(seq))),
            inner.prop_map(|not| on(Match::Not(Box::new(not)))),
        ]
    })
}

/// The plainest telling of a condition; nothing where it makes no sense.
fn holds(condition: &RequestMatch, method: &str, path: &str) -> Option<bool> {
    let each = |seq: &request_match::Seq| -> Option<Vec<bool>> {
        seq.matches
            .iter()
            .map(|one| holds(one, method, path))
            .collect()
    };
    Some(match condition.r#match.as_ref()? {
        Match::All(seq) => each(seq)?.iter().all(|holds| *holds),
        Match::Any(seq) => each(seq)?.iter().any(|holds| *holds),
        Match::Not(not) => !holds(not, method, path)?,
        Match::Path(wanted) => {
            regex::Regex::new(&wanted.regex).ok()?;
            regex::Regex::new(&format!("^({})$", wanted.regex))
                .ok()?
                .is_match(path)
        }
        Match::Method(wanted) => *wanted == wire::method(method)?,
    })
}

proptest! {
    #[test]
    fn routes_match_as_they_are_told(
        conditions in prop::collection::vec(condition(), 1..4),
        get in any::<bool>(),
        path in "/[a-c/]{0,3}",
    ) {
        let method = if get { "GET" } else { "POST" };
        let all = conditions.iter().enumerate();
        let all = all.map(|(index, one)| route(&index.to_string(), one.clone())).collect();
        let policy = under(&profile(all));

        let found = of(&policy, &request(method, &path, &[]));

        let expected = conditions.iter().position(|one| holds(one, method, &path) == Some(true));
        prop_assert_eq!(found, expected.map_or("none".to_owned(), |index| index.to_string()));
    }

    #[test]
    fn a_mutated_profile_does_no_harm(
        at in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let mut bytes = DestinationProfile {
            dst_overrides: vec![to("a.shop.svc.cluster.local:80", 9)],
            ..profile(vec![Route {
                is_retryable: true,
                timeout: Some(seconds(3)),
                response_classes: vec![statuses(404, 404, true)],
                ..route("a", on(Match::Not(Box::new(path("/a")))))
            }])
        }
        .encode_to_vec();
        for (index, byte) in at {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }

        if let Ok(wire) = DestinationProfile::decode(&*bytes) {
            let request = get("/a");
            for policy in [under(&wire), ClientPolicy::from_profile(&wire, original())] {
                if let Protocol::Detect { http1, .. } = &policy.protocol {
                    prop_assert!(http1.find(&Facts::of(&request)).is_ok());
                }
            }
        }
    }
}

//! Whom a port lets in.

mod wire;

use std::net::IpAddr;

use tulle_core::{ClientTls, DefaultPolicy, Id, NoTls, Reason};
use tulle_policy::{
    Facts, Verdict,
    inbound::{Protocol, ServerPolicy},
};
use wire::*;

const WEB: &str = "web.shop.serviceaccount.identity.linkerd.cluster.local";
const SPIFFE: &str = "spiffe://cluster.local/ns/shop/sa/web";

fn at(address: &str) -> IpAddr {
    address.parse().expect("an address")
}

fn plain() -> ClientTls {
    ClientTls::None(NoTls::NotFromRemote)
}

fn mesh(id: Option<&str>) -> ClientTls {
    ClientTls::Established {
        client_id: id.map(Id::new),
    }
}

/// The name of the authorization that lets a client in.
fn admits(policy: &ServerPolicy, client: &str, tls: &ClientTls) -> Option<String> {
    let permit = policy.authorize_connection(at(client), tls).ok()?;
    Some(permit.grant().authz.name.to_string())
}

/// The route that a request belongs to.
fn routed(policy: &ServerPolicy, request: &http::Request<()>) -> Option<String> {
    let matched = policy.route(&Facts::of(request)).ok()?;
    Some(matched.meta().name.to_string())
}

#[test]
fn authorizations_admit_by_network_and_identity() {
    let foreign = ClientTls::Opaque {
        sni: "example.org".into(),
    };
    let nets: &[(&str, &[&str])] = &[
        ("10.0.0.0/8", &["10.9.0.0/16", "10.8.0.1/32"]),
        ("fd00::/8", &[]),
    ];
    let (any, tls) = (anybody(), encrypted());
    let exact = identities(
        &[
            "WEB.shop.serviceaccount.identity.linkerd.cluster.local",
            SPIFFE,
        ],
        &[],
    );
    let suffix = identities(
        &[],
        &[&[
            "Shop",
            "serviceaccount",
            "identity",
            "linkerd",
            "cluster",
            "local",
        ]],
    );
    let all = identities(&[], &[&[]]);
    let all_and_one = identities(&[SPIFFE], &[&[]]);
    let none = identities(&[], &[]);
    for (permit, client, state, admitted) in [
        (&any, "10.1.2.3", plain(), true),
        (&any, "::ffff:10.1.2.3", plain(), true),
        (&any, "fd77::5", plain(), true),
        (&any, "10.9.2.3", plain(), false),
        (&any, "10.8.0.1", plain(), false),
        (&any, "10.8.0.2", plain(), true),
        (&any, "192.168.1.1", plain(), false),
        (&any, "2001:db8::1", plain(), false),
        (&tls, "10.1.2.3", plain(), false),
        (&tls, "10.1.2.3", mesh(None), true),
        (&tls, "10.1.2.3", foreign.clone(), false),
        (&tls, "192.168.1.1", mesh(Some(WEB)), false),
        (&exact, "10.1.2.3", mesh(Some(WEB)), true),
        (&exact, "10.1.2.3", mesh(Some(SPIFFE)), true),
        (
            &exact,
            "10.1.2.3",
            mesh(Some(
                "api.shop.serviceaccount.identity.linkerd.cluster.local",
            )),
            false,
        ),
        (&exact, "10.1.2.3", mesh(None), false),
        (&exact, "10.1.2.3", foreign.clone(), false),
        (&suffix, "10.1.2.3", mesh(Some(WEB)), true),
        (
            &suffix,
            "10.1.2.3",
            mesh(Some("shop.serviceaccount.identity.linkerd.cluster.local")),
            false,
        ),
        (
            &suffix,
            "10.1.2.3",
            mesh(Some(
                "web.workshop.serviceaccount.identity.linkerd.cluster.local",
            )),
            false,
        ),
        (
            &suffix,
            "10.1.2.3",
            mesh(Some(
                "spiffe://x/a.shop.serviceaccount.identity.linkerd.cluster.local",
            )),
            false,
        ),
        (&all, "10.1.2.3", mesh(Some(WEB)), true),
        (&all, "10.1.2.3", mesh(Some(SPIFFE)), false),
        (&all_and_one, "10.1.2.3", mesh(Some(WEB)), true),
        (&all_and_one, "10.1.2.3", mesh(Some(SPIFFE)), true),
        (
            &all_and_one,
            "10.1.2.3",
            mesh(Some("spiffe://other/web")),
            false,
        ),
        (&all, "10.1.2.3", mesh(None), false),
        (&all, "10.1.2.3", plain(), false),
        (&none, "10.1.2.3", mesh(Some(WEB)), false),
    ] {
        let policy =
            ServerPolicy::from_proto(server(opaque(), vec![authz("a", nets, permit.clone())]));

        let name = admits(&policy, client, &state);

        assert_eq!(
            name.as_deref(),
            admitted.then_some("a"),
            "{permit:?} {client} {state:?}"
        );
    }
}

#[test]
fn the_first_authorization_that_admits_is_the_one_reported() {
    let policy = ServerPolicy::from_proto(server(
        opaque(),
        vec![
            authz("mesh", EVERYWHERE, identities(&[], &[&[]])),
            authz("local", &[("10.0.0.0/8", &[])], anybody()),
            authz("all", EVERYWHERE, anybody()),
        ],
    ));

    assert_eq!(
        admits(&policy, "10.0.0.1", &mesh(Some(WEB))).as_deref(),
        Some("mesh")
    );
    assert_eq!(
        admits(&policy, "10.0.0.1", &plain()).as_deref(),
        Some("local")
    );
    assert_eq!(
        admits(&policy, "127.0.0.1", &plain()).as_deref(),
        Some("all")
    );
}

#[test]
fn without_authorizations_only_the_own_host_is_admitted() {
    let policy = ServerPolicy::from_proto(server(detect(vec![]), vec![]));

    for client in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
        assert_eq!(
            admits(&policy, client, &plain()).as_deref(),
            Some("localhost"),
            "{client}"
        );
    }
    for client in ["127.0.0.2", "10.0.0.1", "::2", "fd77::1"] {
        let refusal = policy
            .authorize_connection(at(client), &mesh(Some(WEB)))
            .unwrap_err();
        assert_eq!(refusal.reason, Reason::Unauthorized, "{client}");
    }
}

#[test]
fn a_server_without_routes_has_the_default_one() {
    let policy = ServerPolicy::from_proto(server(
        detect(vec![]),
        vec![authz("all", EVERYWHERE, anybody())],
    ));

    for request in [
        get("/"),
        get("/a/b?c"),
        request("OPTIONS", "*", &[]),
        request("CONNECT", "web:80", &[]),
    ] {
        let facts = Facts::of(&request);
        let matched = policy
            .route(&facts)
            .expect("the default route takes everything");
        let permit = policy
            .authorize_request(&matched, at("10.0.0.1"), &plain())
            .expect("admitted");

        assert!(matched.meta().is_default_named("default"));
        assert_eq!(&*permit.grant().authz.name, "all");
        assert_eq!(
            permit.grant().route.as_ref().map(|route| &*route.name),
            Some("default")
        );
    }
    assert!(!policy.authorizes_per_route());
}

#[test]
fn the_labels_name_the_server() {
    let named = |labels: &[(&str, &str)]| {
        let mut wire = server(opaque(), vec![]);
        wire.labels = labels
            .iter()
            .map(|&(key, value)| (key.into(), value.into()))
            .collect();
        ServerPolicy::from_proto(wire).meta.to_string()
    };

    assert_eq!(named(&[("name", "web")]), "policy.linkerd.io/server/web");
    assert_eq!(named(&[("name", "default:deny")]), "default/deny");
    assert_eq!(
        named(&[
            ("group", ""),
            ("kind", "default"),
            ("name", "all-unauthenticated")
        ]),
        "default/all-unauthenticated"
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn the_closest_match_wins() {
    let conditions = |path, headers, query, method| {
        let mut wire: tulle_api::http_route::HttpRouteMatch = path;
        wire.headers = headers;
        wire.query_params = query;
        wire.method = method;
        wire
    };
    let routes = vec![
        in_route("root", vec![], vec![prefix("/")]),
        in_route("api", vec![], vec![prefix("/api")]),
        in_route("api-again", vec![], vec![prefix("/api")]),
        in_route("api-v1", vec![], vec![prefix("/api/v1/")]),
        in_route("api-exact", vec![], vec![exact("/api")]),
        in_route("numbers", vec![], vec![regex("/n/[0-9]+")]),
        in_route(
            "header",
            vec![],
            vec![conditions(
                prefix("/api"),
                vec![header("x-canary", "yes")],
                vec![],
                None,
            )],
        ),
        in_route(
            "two-headers",
            vec![],
            vec![conditions(
                prefix("/api"),
                vec![header("x-canary", "yes"), header("x-user", "~[a-z]+")],
                vec![],
                None,
            )],
        ),
        in_route(
            "query",
            vec![],
            vec![conditions(
                prefix("/api"),
                vec![],
                vec![query("q", "a b")],
                None,
            )],
        ),
        in_route(
            "method",
            vec![],
            vec![conditions(prefix("/api"), vec![], vec![], method("PUT"))],
        ),
        in_route(
            "purge",
            vec![],
            vec![conditions(prefix("/"), vec![], vec![], method("PURGE"))],
        ),
        in_route("host", vec![host("api.shop")], vec![prefix("/")]),
        in_route("suffix", vec![host("*.shop")], vec![prefix("/only/here")]),
    ];
    let policy = ServerPolicy::from_proto(server(detect(routes), vec![]));
    for (method, uri, headers, route) in [
        ("GET", "/", &[][..], "root"),
        ("GET", "/apis", &[], "root"),
        ("GET", "/API", &[], "root"),
        ("GET", "/api", &[], "api-exact"),
        ("GET", "/api/", &[], "api"),
        ("GET", "/api/x", &[], "api"),
        ("GET", "/api/v1", &[], "api-v1"),
        ("GET", "/api/v1/", &[], "api-v1"),
        ("GET", "/n/12", &[], "numbers"),
        ("GET", "/n/12a", &[], "root"),
        ("GET", "/api/x", &[("x-canary", "yes")], "header"),
        (
            "GET",
            "/api/x",
            &[("x-canary", "no"), ("x-canary", "yes")],
            "header",
        ),
        (
            "GET",
            "/api/x",
            &[("x-canary", "yes"), ("x-user", "ann")],
            "two-headers",
        ),
        (
            "GET",
            "/api/x",
            &[("x-canary", "yes"), ("x-user", "ann1")],
            "header",
        ),
        ("GET", "/api/x?p=1&q=a+b", &[], "query"),
        ("GET", "/api/x?q=a%20b", &[], "query"),
        ("GET", "/api/x?q=ab", &[], "api"),
        ("GET", "/api/x?q=a+b", &[("x-canary", "yes")], "header"),
        ("PUT", "/api/x", &[], "method"),
        ("PURGE", "/", &[], "purge"),
        ("PURGE", "/api", &[], "api-exact"),
        ("GET", "/", &[("host", "api.shop:80")], "host"),
        ("GET", "/api", &[("host", "API.shop.")], "host"),
        ("GET", "http://api.shop/api", &[("host", "other")], "host"),
        ("GET", "/only/here/x", &[("host", "api.shop")], "host"),
        ("GET", "/only/here/x", &[("host", "web.shop")], "suffix"),
        ("GET", "/only", &[("host", "web.shop")], "root"),
    ] {
        let request = request(method, uri, headers);
        assert_eq!(
            routed(&policy, &request).as_deref(),
            Some(route),
            "{method} {uri} {headers:?}"
        );
    }
}

#[test]
fn the_best_of_a_rules_matches_counts() {
    let routes = vec![
        in_route("short", vec![], vec![prefix("/a")]),
        in_route("long", vec![], vec![prefix("/"), prefix("/a/b")]),
    ];
    let policy = ServerPolicy::from_proto(server(detect(routes), vec![]));

    assert_eq!(routed(&policy, &get("/a/b")).as_deref(), Some("long"));
    assert_eq!(routed(&policy, &get("/a/c")).as_deref(), Some("short"));
    assert_eq!(routed(&policy, &get("/b")).as_deref(), Some("long"));
}

#[test]
fn a_request_that_no_route_takes_is_not_found() {
    let routes = vec![in_route("api", vec![host("web.shop")], vec![exact("/api")])];
    let policy = ServerPolicy::from_proto(server(
        detect(routes),
        vec![authz("all", EVERYWHERE, anybody())],
    ));

    for request in [
        get("/"),
        request("GET", "/api", &[("host", "other")]),
        request("GET", "/api", &[]),
    ] {
        let refusal = policy.route(&Facts::of(&request)).unwrap_err();
        assert_eq!(refusal.reason, Reason::RouteNotFound);
        assert_eq!(refusal.message, "no route found for request");
    }
}

#[test]
fn grpc_routes_take_grpc_calls_only() {
    let routes = vec![
        in_grpc_route("any", vec![rpc("", "")]),
        in_grpc_route("service", vec![rpc("shop.Slots", "")]),
        in_grpc_route("method", vec![rpc("", "Book")]),
        in_grpc_route("both", vec![rpc("shop.Slots", "Cancel")]),
    ];
    let policy = ServerPolicy::from_proto(server(grpc(routes), vec![]));
    for (method, path, route) in [
        ("POST", "/shop.Members/Get", Some("any")),
        ("POST", "/shop.Slots/List", Some("service")),
        ("POST", "/shop.Slots/Book", Some("service")),
        ("POST", "/shop.Members/Book", Some("method")),
        ("POST", "/shop.Slots/Cancel", Some("both")),
        ("GET", "/shop.Slots/Cancel", None),
        ("POST", "/shop.Slots", None),
        ("POST", "/shop.Slots/", None),
        ("POST", "/shop.Slots/a/b", None),
    ] {
        assert_eq!(
            routed(&policy, &request(method, path, &[])).as_deref(),
            route,
            "{method} {path}"
        );
    }
}

#[test]
fn a_routes_authorizations_add_to_the_servers() {
    let mut probe = in_route("probe", vec![], vec![exact("/ready")]);
    probe.authorizations = vec![authz("probe", EVERYWHERE, anybody())];
    let routes = vec![in_route("api", vec![], vec![prefix("/")]), probe];
    let members = authz("mesh", EVERYWHERE, identities(&[], &[&[]]));
    let policy = ServerPolicy::from_proto(server(detect(routes), vec![members]));
    let admits = |request: &http::Request<()>, tls: &ClientTls| {
        let facts = Facts::of(request);
        let matched = policy.route(&facts).expect("there is a route");
        policy.authorize_request(&matched, at("10.0.0.1"), tls)
    };
    let name = |permit: tulle_policy::Permit| permit.grant().authz.name.to_string();

    assert_eq!(
        name(admits(&get("/ready"), &plain()).expect("admitted")),
        "probe"
    );
    assert_eq!(
        name(admits(&get("/"), &mesh(Some(WEB))).expect("admitted")),
        "mesh"
    );
    let refusal = admits(&get("/"), &plain()).unwrap_err();
    assert_eq!(refusal.reason, Reason::Unauthorized);
    assert_eq!(refusal.message, "unauthorized request on route");
    assert!(policy.authorizes_per_route());
    assert!(
        policy
            .authorize_connection(at("10.0.0.1"), &plain())
            .is_err()
    );
}

#[test]
fn http_that_a_peer_sends_to_an_opaque_port_is_authorized_as_the_server_says() {
    let policy = ServerPolicy::from_proto(server(
        opaque(),
        vec![authz("mesh", EVERYWHERE, identities(&[WEB], &[]))],
    ));
    let request = get("/");
    let matched = policy
        .route(&Facts::of(&request))
        .expect("everything is routed");

    assert!(
        policy
            .authorize_request(&matched, at("10.0.0.1"), &mesh(Some(WEB)))
            .is_ok()
    );
    assert!(
        policy
            .authorize_request(&matched, at("10.0.0.1"), &plain())
            .is_err()
    );
}

#[test]
fn default_policies_admit_whom_they_name() {
    let cluster = [
        "10.0.0.0/8".parse().expect("a network"),
        "fd00::/8".parse().expect("a network"),
    ];
    for (default, inside, inside_mesh, outside, outside_mesh) in [
        (DefaultPolicy::AllUnauthenticated, true, true, true, true),
        (DefaultPolicy::AllAuthenticated, false, true, false, true),
        (
            DefaultPolicy::ClusterUnauthenticated,
            true,
            true,
            false,
            false,
        ),
        (
            DefaultPolicy::ClusterAuthenticated,
            false,
            true,
            false,
            false,
        ),
        (DefaultPolicy::Deny, false, false, false, false),
        (DefaultPolicy::Audit, true, true, true, true),
    ] {
        for opaque in [false, true] {
            let policy = ServerPolicy::default_for(default, &cluster, opaque);
            let admitted = |client, tls: ClientTls| {
                let name = admits(&policy, client, &tls);
                assert!(name.as_deref().is_none_or(|name| name == default.name()));
                name.is_some()
            };

            assert_eq!(admitted("10.1.2.3", plain()), inside, "{default:?}");
            assert_eq!(
                admitted("fd77::1", mesh(Some(WEB))),
                inside_mesh,
                "{default:?}"
            );
            assert_eq!(admitted("192.0.2.1", plain()), outside, "{default:?}");
            assert_eq!(
                admitted("2001:db8::1", mesh(Some(WEB))),
                outside_mesh,
                "{default:?}"
            );
            assert_eq!(matches!(policy.protocol, Protocol::Opaque), opaque);
            assert!(policy.meta.is_default_named(default.name()));
            assert!(admits(&policy, "127.0.0.1", &plain()).is_some());
        }
    }
}

#[test]
fn only_what_audit_lets_in_is_audited() {
    let permit = |default| {
        ServerPolicy::default_for(default, &[], false)
            .authorize_connection(at("10.0.0.1"), &plain())
            .expect("admitted")
    };

    assert!(permit(DefaultPolicy::Audit).audited());
    assert!(!permit(DefaultPolicy::AllUnauthenticated).audited());
}

#[test]
fn an_explanation_names_each_step() {
    let routes = vec![
        in_route("api", vec![host("api.shop")], vec![prefix("/")]),
        in_route("web", vec![], vec![prefix("/web"), exact("/index")]),
        in_route("rest", vec![], vec![prefix("/")]),
    ];
    let policy = ServerPolicy::from_proto(server(
        detect(routes),
        vec![
            authz("mesh", EVERYWHERE, identities(&[WEB], &[])),
            authz("nets", &[("192.168.0.0/16", &[])], anybody()),
        ],
    ));
    let request = get("/web/x");

    let (refused, steps) = policy.explain_request(&Facts::of(&request), at("10.0.0.1"), &plain());

    assert_eq!(refused.unwrap_err().reason, Reason::Unauthorized);
    let steps: Vec<_> = steps
        .iter()
        .map(|step| (step.verdict, step.subject.to_string(), step.why.as_str()))
        .collect();
    let steps: Vec<_> = steps
        .iter()
        .map(|(verdict, subject, why)| (*verdict, subject.as_str(), *why))
        .collect();
    assert_eq!(
        steps,
        [
            (
                Verdict::Skipped,
                "route policy.linkerd.io/HTTPRoute/shop/api",
                "the host web.shop is none of api.shop"
            ),
            (
                Verdict::Matched,
                "route policy.linkerd.io/HTTPRoute/shop/web rule 0",
                "it matches best"
            ),
            (
                Verdict::Skipped,
                "route policy.linkerd.io/HTTPRoute/shop/rest rule 0",
                "it matches, but an earlier match is as close or closer"
            ),
            (
                Verdict::Skipped,
                "authorization policy.linkerd.io/authorizationpolicy/shop/mesh",
                "it asks for mesh TLS"
            ),
            (
                Verdict::Skipped,
                "authorization policy.linkerd.io/authorizationpolicy/shop/nets",
                "the client's address is in none of its networks: 192.168.0.0/16"
            ),
            (
                Verdict::Skipped,
                "authorization default/localhost",
                "the client's address is in none of its networks: 127.0.0.1/32, ::1/128"
            ),
            (
                Verdict::Refused,
                "authorizations",
                "none of them lets the client in"
            ),
        ]
    );
}

#[test]
fn rate_limits_are_read() {
    use tulle_api::inbound::{
        HttpLocalRateLimit, Identity,
        http_local_rate_limit::{Limit, Override, r#override::ClientIdentities},
        proxy_protocol::{Http1, Kind},
    };
    let limit = |requests_per_second| {
        Some(Limit {
            requests_per_second,
        })
    };
    let policy = ServerPolicy::from_proto(server(
        Kind::Http1(Http1 {
            routes: vec![],
            local_rate_limit: Some(HttpLocalRateLimit {
                metadata: resource("httplocalratelimitpolicy", "web"),
                total: limit(1_000),
                identity: limit(0),
                overrides: vec![Override {
                    limit: limit(7),
                    clients: Some(ClientIdentities {
                        identities: vec![Identity { name: WEB.into() }],
                    }),
                }],
            }),
        }),
        vec![],
    ));

    assert!(policy.judges_requests());
    let limit = policy.rate_limit.expect("there is one");
    assert_eq!(limit.total.map(u32::from), Some(1_000));
    assert_eq!(limit.identity, None);
    assert_eq!(*limit.overrides[0].clients, [Id::new(WEB)]);
    assert_eq!(limit.overrides[0].limit.map(u32::from), Some(7));
}

//! What a rule does with a request besides sending it on.

mod wire;

use http::{HeaderMap, HeaderValue, Request, StatusCode};
use tulle_api::{
    http_route::{
        HttpFailureInjector, PathModifier, Ratio, RequestHeaderModifier, RequestRedirect,
        ResponseHeaderModifier, UrlRewrite, path_modifier::Replace,
    },
    http_types::{self, Headers, headers::Header, scheme::Registered},
    outbound::{
        RequestMirror,
        http_route::{Filter as Wire, filter::Kind},
    },
};
use tulle_core::Reason;
use tulle_policy::{
    Answer, Facts, apply_request, apply_response, mirrors,
    outbound::{ClientPolicy, Protocol, Rule},
};
use wire::*;

/// A rule under this prefix with these filters, and what it does to a request.
fn run(
    path: &str,
    filters: Vec<Kind>,
    request: &mut Request<()>,
    random: u64,
) -> Result<Rule, Answer> {
    let mut route = out_route("r", vec![prefix(path)], http_first(&[backend("web")]));
    route.rules[0].filters = filters
        .into_iter()
        .map(|kind| Wire { kind: Some(kind) })
        .collect();
    let policy = ClientPolicy::from_proto(policy(http1(vec![route])));
    let Protocol::Http1(routes) = &policy.protocol else {
        panic!("{:?}", policy.protocol)
    };
    let found = routes.find(&Facts::of(request)).expect("a rule");
    let path = found.path;
    apply_request(&found.filters, path, request, || random)?;
    Ok(found.rule.clone())
}

fn headers(fields: &[(&str, &str)]) -> Headers {
    let header = |&(name, value): &(&str, &str)| Header {
        name: name.into(),
        value: value.into(),
    };
    Headers {
        headers: fields.iter().map(header).collect(),
    }
}

fn fields(headers: &HeaderMap, name: &str) -> Vec<String> {
    headers
        .get_all(name)
        .iter()
        .map(|value| value.to_str().expect("text").to_owned())
        .collect()
}

#[test]
fn header_values_are_added_then_set_then_removed() {
    let mut request = request("GET", "/", &[("a", "1"), ("b", "1"), ("c", "1")]);

    run(
        "/",
        vec![Kind::RequestHeaderModifier(RequestHeaderModifier {
            add: Some(headers(&[("a", "2"), ("b", "2"), ("c", "2")])),
            set: Some(headers(&[("b", "3"), ("c", "3"), ("d", "3")])),
            remove: vec!["c".into(), "missing".into()],
        })],
        &mut request,
        0,
    )
    .expect("no answer");

    assert_eq!(fields(request.headers(), "a"), ["1", "2"]);
    assert_eq!(fields(request.headers(), "b"), ["3"]);
    assert!(fields(request.headers(), "c").is_empty());
    assert_eq!(fields(request.headers(), "d"), ["3"]);
}

#[test]
fn a_response_gets_its_own_changes() {
    let rule = run(
        "/",
        vec![Kind::ResponseHeaderModifier(ResponseHeaderModifier {
            add: Some(headers(&[("a", "2")])),
            set: None,
            remove: vec!["server".into()],
        })],
        &mut get("/"),
        0,
    )
    .expect("no answer");
    let mut response =
        HeaderMap::from_iter([(http::header::SERVER, HeaderValue::from_static("x"))]);

    apply_response(&rule.filters, &mut response);

    assert_eq!(fields(&response, "a"), ["2"]);
    assert_eq!(response.len(), 1);
}

#[test]
fn a_failure_is_injected_as_often_as_its_ratio_says() {
    let failure = |ratio| {
        vec![Kind::FailureInjector(HttpFailureInjector {
            status: 418,
            message: "short\r\nand stout".into(),
            ratio,
        })]
    };
    let third = Some(Ratio {
        numerator: 1,
        denominator: 3,
    });

    let Err(Answer::Refuse(refusal)) = run("/", failure(None), &mut get("/"), 1) else {
        panic!("a failure");
    };
    assert_eq!(refusal.reason, Reason::FailureInjected);
    assert_eq!(refusal.status(), StatusCode::IM_A_TEAPOT);
    assert_eq!(refusal.message, "short  and stout");
    let failed = (0..9)
        .filter(|random| run("/", failure(third), &mut get("/"), *random).is_err())
        .count();
    assert_eq!(failed, 3);
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn redirects_change_what_they_name() {
    let scheme = |registered: Registered| {
        Some(http_types::Scheme {
            r#type: Some(http_types::scheme::Type::Registered(registered.into())),
        })
    };
    let full = |path: &str| {
        Some(PathModifier {
            replace: Some(Replace::Full(path.into())),
        })
    };
    let with = |path: &str| {
        Some(PathModifier {
            replace: Some(Replace::Prefix(path.into())),
        })
    };
    let none = RequestRedirect::default;
    for (rule, uri, redirect, location) in [
        (
            "/",
            "/x?q=1",
            RequestRedirect {
                host: "example.org".into(),
                ..none()
            },
            Some("http://example.org/x?q=1"),
        ),
        (
            "/",
            "/x",
            RequestRedirect {
                scheme: scheme(Registered::Https),
                ..none()
            },
            Some("https://web.shop/x"),
        ),
        (
            "/",
            "/x",
            RequestRedirect {
                port: 8443,
                ..none()
            },
            Some("http://web.shop:8443/x"),
        ),
        (
            "/",
            "/x",
            RequestRedirect { port: 80, ..none() },
            Some("http://web.shop/x"),
        ),
        (
            "/",
            "/x?q",
            RequestRedirect {
                path: full("/y"),
                ..none()
            },
            Some("http://web.shop:8080/y?q"),
        ),
        (
            "/a",
            "/a/b",
            RequestRedirect {
                path: with("/z"),
                ..none()
            },
            Some("http://web.shop:8080/z/b"),
        ),
        (
            "/a",
            "/a",
            RequestRedirect {
                path: with("/z"),
                ..none()
            },
            Some("http://web.shop:8080/z"),
        ),
        (
            "/a",
            "/a/",
            RequestRedirect {
                path: with("/z"),
                ..none()
            },
            Some("http://web.shop:8080/z/"),
        ),
        (
            "/a",
            "/a",
            RequestRedirect {
                path: with("/"),
                ..none()
            },
            Some("http://web.shop:8080/"),
        ),
        (
            "/a/",
            "/a/b",
            RequestRedirect {
                path: with("/"),
                ..none()
            },
            Some("http://web.shop:8080/b"),
        ),
        (
            "/",
            "/b",
            RequestRedirect {
                path: with("/z"),
                ..none()
            },
            Some("http://web.shop:8080/z/b"),
        ),
        (
            "/",
            "/x",
            RequestRedirect {
                path: full("/x"),
                ..none()
            },
            None,
        ),
    ] {
        let mut request = request("GET", uri, &[("host", "web.shop:8080")]);

        let answer = run(
            rule,
            vec![Kind::Redirect(redirect.clone())],
            &mut request,
            0,
        );

        match (answer, location) {
            (Ok(_), None) => {}
            (
                Err(Answer::Redirect {
                    status,
                    location: actual,
                }),
                Some(location),
            ) => {
                assert_eq!(status, StatusCode::MOVED_PERMANENTLY);
                assert_eq!(actual, location, "{uri} {redirect:?}");
            }
            (other, _) => panic!("{uri} {redirect:?}: {other:?}"),
        }
    }
}

#[test]
fn a_redirect_that_cannot_be_is_an_error_and_not_forwarded() {
    let redirect = Kind::Redirect(RequestRedirect {
        port: 81,
        ..RequestRedirect::default()
    });
    let mut request = request("GET", "/x", &[]);

    let answer = run("/", vec![redirect], &mut request, 0);

    assert!(matches!(answer, Err(Answer::Refuse(refusal)) if refusal.reason == Reason::Unexpected));
}

#[test]
fn a_rewrite_changes_host_and_path_and_keeps_the_query() {
    let full = |path: &str| Replace::Full(path.into());
    let prefix = |path: &str| Replace::Prefix(path.into());
    for (rule, uri, replace, expected) in [
        ("/", "/a/b?c=1", full("/x"), "/x?c=1"),
        ("/a", "/a/b?c=1", prefix("/x"), "/x/b?c=1"),
        ("/a", "/a/b", prefix("/x/"), "/x/b"),
        ("/a", "/a/b", prefix("/"), "/b"),
        ("/a", "/a", prefix("/"), "/"),
        ("/a", "/a", prefix("/x"), "/x"),
        ("/a", "http://web:80/a/b", prefix("/x"), "http://new/x/b"),
    ] {
        let rewrite = Kind::UrlRewrite(UrlRewrite {
            host: "new".into(),
            path: Some(PathModifier {
                replace: Some(replace),
            }),
        });
        let mut request = request("GET", uri, &[("host", "web:80")]);

        run(rule, vec![rewrite], &mut request, 0).expect("no answer");

        assert_eq!(request.uri(), expected, "{uri}");
        assert_eq!(fields(request.headers(), "host"), ["new"], "{uri}");
    }
}

#[test]
fn filters_behind_a_rewrite_see_the_path_as_it_is_then() {
    let rewrite = |path: &str| {
        Kind::UrlRewrite(UrlRewrite {
            host: String::new(),
            path: Some(PathModifier {
                replace: Some(Replace::Prefix(path.into())),
            }),
        })
    };
    let mut request = request("GET", "/a/b", &[("host", "web")]);

    run(
        "/a",
        vec![rewrite("/longer"), rewrite("/x")],
        &mut request,
        0,
    )
    .expect("no answer");

    assert_eq!(request.uri(), "/x/b");
    assert_eq!(fields(request.headers(), "host"), ["web"]);
}

#[test]
fn a_mirror_copies_as_often_as_its_ratio_says_and_changes_nothing() {
    let mirror = |ratio| {
        Kind::RequestMirror(RequestMirror {
            backend: Some(backend("copies")),
            ratio,
        })
    };
    let third = Some(Ratio {
        numerator: 1,
        denominator: 3,
    });
    let mut request = get("/");

    let rule = run("/", vec![mirror(third)], &mut request, 0).expect("no answer");

    assert!(rule.mirrors);
    assert_eq!(request.uri(), "/");
    let copies: usize = (0..9)
        .map(|random| mirrors(&rule.filters, || random).count())
        .sum();
    assert_eq!(copies, 3);
    let name = mirrors(&rule.filters, || 0).map(|backend| &*backend.meta.name);
    assert_eq!(name.collect::<Vec<_>>(), ["copies"]);
}

#[test]
fn a_rewrite_to_nowhere_makes_the_policy_invalid() {
    for (host, path) in [
        ("a:80", None),
        ("a b", None),
        ("", Some("x")),
        ("", Some("/?q")),
    ] {
        let rewrite = Kind::UrlRewrite(UrlRewrite {
            host: host.into(),
            path: path.map(|path| PathModifier {
                replace: Some(Replace::Full(path.into())),
            }),
        });
        let mut route = out_route("r", vec![], http_first(&[backend("web")]));
        route.rules[0].filters = vec![Wire {
            kind: Some(rewrite),
        }];

        let policy = ClientPolicy::from_proto(policy(http1(vec![route])));

        assert!(
            matches!(policy.protocol, Protocol::Invalid(_)),
            "{host:?} {path:?}"
        );
    }
}

#[test]
fn grpc_routes_change_response_headers_too() {
    use tulle_api::outbound::grpc_route::{Filter as Wire, filter::Kind};
    let mut route = out_grpc_route("r", vec![]);
    route.rules[0].filters = vec![Wire {
        kind: Some(Kind::ResponseHeaderModifier(ResponseHeaderModifier {
            set: Some(headers(&[("a", "1")])),
            ..ResponseHeaderModifier::default()
        })),
    }];
    let wire = tulle_api::outbound::proxy_protocol::Grpc {
        routes: vec![route],
        failure_accrual: None,
    };
    let wire = tulle_api::outbound::proxy_protocol::Kind::Grpc(wire);
    let policy = ClientPolicy::from_proto(policy(wire));
    let Protocol::Grpc(routes) = &policy.protocol else {
        panic!("{:?}", policy.protocol)
    };
    let rule = routes.rules().next().expect("a rule");
    let mut response = HeaderMap::new();

    apply_response(&rule.filters, &mut response);

    assert_eq!(fields(&response, "a"), ["1"]);
}

#[test]
fn the_first_filter_with_an_answer_ends_the_request() {
    let redirect = Kind::Redirect(RequestRedirect {
        host: "a.b".into(),
        ..Default::default()
    });
    let failure = Kind::FailureInjector(HttpFailureInjector {
        status: 500,
        ..Default::default()
    });

    assert!(matches!(
        run(
            "/",
            vec![redirect.clone(), failure.clone()],
            &mut get("/"),
            0
        ),
        Err(Answer::Redirect { .. })
    ));
    assert!(matches!(
        run("/", vec![failure, redirect], &mut get("/"), 0),
        Err(Answer::Refuse(_))
    ));
}

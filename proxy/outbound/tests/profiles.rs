//! Requests by the routes of a service profile.

mod support;

use std::{collections::HashMap, time::Duration};

use support::{Proxy, field, local, server};
use tulle_api::destination::{
    DestinationProfile, HttpStatusRange, PathMatch, RequestMatch, ResponseClass, ResponseMatch,
    RetryBudget, Route, WeightedDst, request_match, response_match,
};
use tulle_testkit::messages::{add, endpoint, service_policy};

const FQN: &str = "web.shop.svc.cluster.local";

fn route(name: &str, regex: &str) -> Route {
    Route {
        condition: Some(RequestMatch {
            r#match: Some(request_match::Match::Path(PathMatch {
                regex: regex.to_owned(),
            })),
        }),
        metrics_labels: HashMap::from([("route".to_owned(), name.to_owned())]),
        ..Route::default()
    }
}

fn failure(status: u32) -> ResponseClass {
    let range = HttpStatusRange {
        min: status,
        max: status,
    };
    ResponseClass {
        condition: Some(ResponseMatch {
            r#match: Some(response_match::Match::Status(range)),
        }),
        is_failure: true,
    }
}

fn profile(routes: Vec<Route>, per_second: u32) -> DestinationProfile {
    DestinationProfile {
        fully_qualified_name: FQN.to_owned(),
        routes,
        retry_budget: Some(RetryBudget {
            retry_ratio: 0.0,
            min_retries_per_second: per_second,
            ttl: Some(prost_types::Duration {
                seconds: 1,
                nanos: 0,
            }),
        }),
        ..DestinationProfile::default()
    }
}

/// A proxy that knows a service under a profile, with one endpoint.
async fn under(profile: DestinationProfile, statuses: &[u16]) -> (Proxy, Seen) {
    let proxy = Proxy::new(&[]);
    let (addr, seen) = server(statuses).await;
    let plane = proxy.plane.clone();
    tokio::task::spawn_local(async move {
        let policy = plane.policy().await;
        policy.send(service_policy("web", "unused:80")).await;
        let asked = plane.profile().await;
        asked.send(profile).await;
        let endpoints = plane.endpoints().await;
        endpoints.send(add(vec![endpoint(&addr.to_string())])).await;
        std::future::pending::<()>().await;
        drop((policy, asked));
    });
    (proxy, seen)
}

type Seen = std::rc::Rc<std::cell::RefCell<Vec<String>>>;

#[tokio::test]
async fn a_failure_of_a_retryable_route_is_tried_again_and_counted() {
    local(async {
        let retryable = Route {
            is_retryable: true,
            response_classes: vec![failure(404)],
            ..route("a", "/a")
        };
        let (proxy, seen) = under(profile(vec![retryable], 10), &[404, 503, 200]).await;

        let mut client = proxy.connect("10.0.0.1:80").await;
        let (status, body) = client.get("/a", &["host: web"]).await;

        assert_eq!((status, seen.borrow().len()), (200, 3));
        assert_eq!(
            field(&body, "l5d-dst-canonical"),
            Some("web.shop.svc.cluster.local:80")
        );
        let labels = r#"direction="outbound",dst="web.shop.svc.cluster.local:80",rt_route="a""#;
        proxy.assert_shown(&format!("route_request_total{{{labels}}} 1"));
        proxy.assert_shown(&format!("route_actual_request_total{{{labels}}} 3"));
        proxy.assert_shown(&format!("route_retryable_total{{{labels}}} 2"));
        let failed = r#"route_actual_response_total{classification="failure","#.to_owned()
            + r#"direction="outbound",dst="web.shop.svc.cluster.local:80",error="","#
            + r#"grpc_status="",rt_route="a",status_code="404"} 1"#;
        proxy.assert_shown(&failed);
    })
    .await;
}

#[tokio::test]
async fn the_routes_of_a_profile_share_its_budget() {
    local(async {
        let retryable = |name, regex| Route {
            is_retryable: true,
            ..route(name, regex)
        };
        let routes = vec![retryable("a", "/a"), retryable("b", "/b")];
        let (proxy, seen) = under(profile(routes, 3), &[500]).await;

        let mut client = proxy.connect("10.0.0.1:80").await;
        for path in ["/a", "/b", "/other"] {
            assert_eq!(client.get(path, &["host: web"]).await.0, 500);
        }

        assert_eq!(seen.borrow().len(), 3 + 3);
        let b = r#"direction="outbound",dst="web.shop.svc.cluster.local:80",rt_route="b","#;
        proxy.assert_shown(&format!(
            r#"route_retryable_total{{{b}skipped="no_budget"}} 1"#
        ));
    })
    .await;
}

#[tokio::test]
async fn a_route_whose_time_is_over_answers_504() {
    local(async {
        let timed = Route {
            timeout: Some(prost_types::Duration {
                seconds: 0,
                nanos: 50_000_000,
            }),
            ..route("a", "/a")
        };
        let proxy = Proxy::new(&[]);
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = silent.local_addr().unwrap().to_string();
        let plane = proxy.plane.clone();
        tokio::task::spawn_local(async move {
            let policy = plane.policy().await;
            policy.send(service_policy("web", "unused:80")).await;
            let asked = plane.profile().await;
            asked.send(profile(vec![timed], 10)).await;
            let endpoints = plane.endpoints().await;
            endpoints.send(add(vec![endpoint(&addr)])).await;
            std::future::pending::<()>().await;
            drop((policy, asked));
        });

        let mut client = proxy.connect("10.0.0.1:80").await;
        let answer = client.get("/a", &["host: web"]);
        let (status, _) = tokio::time::timeout(Duration::from_secs(10), answer)
            .await
            .unwrap();

        assert_eq!(status, 504);
    })
    .await;
}

#[tokio::test]
async fn an_override_sends_requests_elsewhere() {
    local(async {
        let split = DestinationProfile {
            dst_overrides: vec![WeightedDst {
                authority: "web-2.shop.svc.cluster.local:80".to_owned(),
                weight: 1,
                backend_ref: None,
            }],
            ..profile(vec![], 10)
        };
        let proxy = Proxy::new(&[]);
        let (addr, _) = server(&[200]).await;
        let plane = proxy.plane.clone();
        let asked_for = tokio::task::spawn_local(async move {
            let policy = plane.policy().await;
            policy.send(service_policy("web", "unused:80")).await;
            let asked = plane.profile().await;
            asked.send(split).await;
            let endpoints = plane.endpoints().await;
            endpoints.send(add(vec![endpoint(&addr.to_string())])).await;
            endpoints.request.path.clone()
        });

        let mut client = proxy.connect("10.0.0.1:80").await;
        let (status, _) = client.get("/", &["host: web"]).await;

        assert_eq!(status, 200);
        assert_eq!(asked_for.await.unwrap(), "web-2.shop.svc.cluster.local:80");
    })
    .await;
}

//! Requests of an ingress, and such that ask for an identity.

mod support;

use support::{Proxy, field, local, server};
use tonic::Status;
use tulle_api::outbound::traffic_spec::Target;
use tulle_testkit::messages::{add, endpoint, endpoint_of, endpoint_profile, service_policy};

const INGRESS: (&str, &str) = ("INGRESS_MODE", "true");

/// Answer for an address that is one endpoint, and for one name.
fn answer(proxy: &Proxy, original: String, named: String) {
    let plane = proxy.plane.clone();
    tokio::task::spawn_local(async move {
        loop {
            let policy = plane.policy().await;
            match &policy.request.target {
                Some(Target::Authority(name)) if name == "web.shop.svc.cluster.local:8080" => {
                    policy.send(service_policy("web", "web:8080")).await;
                    std::mem::forget(policy);
                }
                _ => policy.fail(Status::not_found("no policy")).await,
            }
        }
    });
    let plane = proxy.plane.clone();
    tokio::task::spawn_local(async move {
        loop {
            let profile = plane.profile().await;
            if profile.request.path.starts_with("10.") {
                profile.send(endpoint_profile(endpoint(&original))).await;
                std::mem::forget(profile);
            } else {
                profile.fail(Status::invalid_argument("no profile")).await;
            }
        }
    });
    let plane = proxy.plane.clone();
    tokio::task::spawn_local(async move {
        let endpoints = plane.endpoints().await;
        endpoints.send(add(vec![endpoint(&named)])).await;
        std::mem::forget(endpoints);
    });
}

#[tokio::test]
async fn an_ingress_says_by_header_or_host_which_service_a_request_is_for() {
    local(async {
        let proxy = Proxy::new(&[INGRESS]);
        let (original, at_original) = server(&[200]).await;
        let (named, at_named) = server(&[200]).await;
        answer(&proxy, original.to_string(), named.to_string());
        let mut client = proxy.connect("10.0.0.1:80").await;

        let overridden = "l5d-dst-override: web.shop.svc.cluster.local:8080";
        let (status, body) = client.get("/", &["host: shop.example", overridden]).await;
        assert_eq!((status, at_named.borrow().len()), (200, 1));
        assert_eq!(field(&body, "host"), Some("shop.example"));
        assert_eq!(field(&body, "l5d-dst-override"), None);

        client
            .get("/", &["host: web.shop.svc.cluster.local:8080"])
            .await;
        assert_eq!(at_named.borrow().len(), 2);

        for host in ["host: shop.example", "host: unknown.shop.svc.cluster.local"] {
            assert_eq!(client.get("/", &[host]).await.0, 200);
        }
        assert_eq!(at_original.borrow().len(), 2);

        let unknown = "l5d-dst-override: unknown.shop.svc.cluster.local";
        assert_eq!(client.get("/", &["host: a", unknown]).await.0, 404);
    })
    .await;
}

#[tokio::test]
async fn an_override_that_is_no_host_is_refused() {
    local(async {
        let proxy = Proxy::new(&[INGRESS]);
        let (original, seen) = server(&[200]).await;
        answer(&proxy, original.to_string(), original.to_string());

        for (wrong, status) in [("a b", 400), ("127.0.0.1:80", 508)] {
            let mut client = proxy.connect("10.0.0.1:80").await;
            let header = format!("l5d-dst-override: {wrong}");
            assert_eq!(
                client.get("/", &["host: a", &header]).await.0,
                status,
                "{wrong}"
            );
        }

        assert!(seen.borrow().is_empty());
    })
    .await;
}

#[tokio::test]
async fn outside_of_an_ingress_the_override_is_the_applications_own() {
    local(async {
        let proxy = Proxy::new(&[]);
        let (original, _) = server(&[200]).await;
        answer(&proxy, original.to_string(), original.to_string());
        let mut client = proxy.connect("10.0.0.1:80").await;

        let (status, _) = client.get("/", &["host: a", "l5d-dst-override: a b"]).await;

        assert_eq!(status, 200);
    })
    .await;
}

#[tokio::test]
async fn a_request_that_asks_for_an_identity_goes_to_no_other() {
    local(async {
        let proxy = Proxy::new(&[]);
        let (addr, seen) = server(&[200]).await;
        let plane = proxy.plane.clone();
        tokio::task::spawn_local(async move {
            plane.policy().await.fail(Status::not_found("no")).await;
            let profile = plane.profile().await;
            let endpoint = endpoint_of(&addr.to_string(), "web.shop");
            profile.send(endpoint_profile(endpoint)).await;
            std::mem::forget(profile);
        });
        let mut client = proxy.connect("10.0.0.1:80").await;

        let (status, _) = client
            .get("/", &["host: a", "l5d-require-id: tap.viz"])
            .await;

        assert_eq!(status, 502);
        assert!(seen.borrow().is_empty());
        let refused = r#"tulle_refusals_total{direction="outbound",phase="#;
        let shown = proxy.registry.render();
        let refused: Vec<_> = shown
            .lines()
            .filter(|line| line.starts_with(refused))
            .collect();
        assert!(
            refused
                .iter()
                .all(|line| line.contains(r#"reason="identity_required""#)),
            "{refused:?}"
        );
        assert_eq!(refused.len(), 1);
        proxy.assert_shown(r#"outbound_http_errors_total{error="identity required"} 1"#);
    })
    .await;
}

//! Connections before and beside HTTP: what they begin with, and where that leads them.

mod support;

use std::{sync::Arc, time::Duration};

use rustls::{ClientConfig, ClientConnection, RootCertStore, crypto::aws_lc_rs};
use support::{Proxy, local, server};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::timeout,
};
use tonic::Status;
use tulle_api::{
    outbound::{
        self, OutboundPolicy, ProxyProtocol, TlsRoute, failure_accrual,
        proxy_protocol::{Kind, Tls},
        tls_route::{
            Distribution, Filter, RouteBackend, Rule,
            distribution::{FirstAvailable, Kind as First},
            filter,
        },
    },
    tls_route::{SniMatch, sni_match::Match},
};
use tulle_testkit::messages::{add, endpoint, service_meta, service_policy};

const SOON: Duration = Duration::from_secs(20);

/// The hello of an ordinary client.
fn hello(server: &str) -> Vec<u8> {
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = server.to_owned().try_into().expect("a name");
    let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).expect("written");
    }
    bytes
}

fn tls_route(name: &str, sni: &str, to: &str, filters: Vec<Filter>) -> TlsRoute {
    let backend = outbound::Backend {
        metadata: Some(service_meta(name)),
        kind: Some(outbound::backend::Kind::Forward(endpoint(to))),
        queue: Some(outbound::Queue {
            capacity: 100,
            failfast_timeout: Some(prost_types::Duration {
                seconds: 3,
                nanos: 0,
            }),
        }),
    };
    let backends = vec![RouteBackend {
        backend: Some(backend),
        filters: vec![],
    }];
    TlsRoute {
        metadata: Some(service_meta(name)),
        snis: vec![SniMatch {
            r#match: Some(Match::Exact(sni.to_owned())),
        }],
        rules: vec![Rule {
            backends: Some(Distribution {
                kind: Some(First::FirstAvailable(FirstAvailable { backends })),
            }),
            filters,
        }],
    }
}

fn answer_policy(proxy: &Proxy, policy: OutboundPolicy) {
    let plane = proxy.plane.clone();
    tokio::task::spawn_local(async move {
        let asked = plane.policy().await;
        asked.send(policy).await;
        let profile = plane.profile().await;
        profile.fail(Status::invalid_argument("no profile")).await;
        std::future::pending::<()>().await;
        drop(asked);
    });
}

#[tokio::test]
async fn tls_goes_by_the_name_that_its_client_asks_for_untouched() {
    local(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap().to_string();
        let forbidden = Filter {
            kind: Some(filter::Kind::Forbidden(
                tulle_api::opaque_route::Forbidden {},
            )),
        };
        let proxy = Proxy::new(&[]);
        let routes = vec![
            tls_route("open", "open.example", &open, vec![]),
            tls_route("shut", "shut.example", &open, vec![forbidden]),
        ];
        answer_policy(
            &proxy,
            OutboundPolicy {
                protocol: Some(ProxyProtocol {
                    kind: Some(Kind::Tls(Tls { routes })),
                }),
                metadata: Some(service_meta("egress")),
            },
        );

        let sent = hello("open.example");
        let mut client = proxy.connect("10.0.0.1:443").await;
        for part in sent.chunks(100) {
            client.0.write_all(part).await.unwrap();
            tokio::task::yield_now().await;
        }
        let (mut io, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
        let mut read = vec![0; sent.len()];
        timeout(SOON, io.read_exact(&mut read))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(read, sent);
        io.write_all(b"hello yourself").await.unwrap();
        drop(io);
        let mut answer = Vec::new();
        client.0.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"hello yourself");

        for other in ["shut.example", "other.example"] {
            let mut client = proxy.connect("10.0.0.1:443").await;
            client.0.write_all(&hello(other)).await.unwrap();
            let mut answer = Vec::new();
            // A reset is as good as an end.
            let _ = timeout(SOON, client.0.read_to_end(&mut answer))
                .await
                .unwrap();
            assert!(answer.is_empty());
        }
        let shown = proxy.registry.render();
        let routes: Vec<_> = shown
            .lines()
            .filter(|line| line.starts_with("outbound_tls_route_open_total"))
            .collect();
        assert_eq!(routes.len(), 1, "{routes:?}");
        assert!(routes[0].contains(r#"hostname="open.example""#) && routes[0].ends_with(" 1"));
    })
    .await;
}

#[tokio::test]
async fn a_client_that_pauses_in_its_request_line_holds_up_nobody() {
    local(async {
        let proxy = Proxy::new(&[]);
        let (addr, _) = server(&[200]).await;
        answer_policy(&proxy, service_policy("web", "web:80"));
        let plane = proxy.plane.clone();
        tokio::task::spawn_local(async move {
            let endpoints = plane.endpoints().await;
            endpoints.send(add(vec![endpoint(&addr.to_string())])).await;
            std::future::pending::<()>().await;
        });
        let mut slow = proxy.connect("10.0.0.1:80").await;
        slow.0.write_all(b"GE").await.unwrap();

        let mut quick = proxy.connect("10.0.0.1:80").await;
        let (status, _) = timeout(SOON, quick.get("/", &["host: web"])).await.unwrap();
        assert_eq!(status, 200);

        slow.0
            .write_all(b"T / HTTP/1.1\r\nhost: web\r\n\r\n")
            .await
            .unwrap();
        let mut answer = [0; 12];
        timeout(SOON, slow.0.read_exact(&mut answer))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
    })
    .await;
}

#[tokio::test]
async fn a_policy_with_a_breaker_leaves_a_failing_endpoint_out() {
    local(async {
        let proxy = Proxy::new(&[("OUTBOUND_HTTP_FAILFAST_TIMEOUT", "100ms")]);
        let (bad, at_bad) = server(&[503]).await;
        let mut policy = service_policy("web", "web:80");
        let Some(Kind::Detect(detect)) = policy.protocol.as_mut().and_then(|p| p.kind.as_mut())
        else {
            panic!("{policy:?}");
        };
        let second = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        detect.http1.as_mut().unwrap().failure_accrual = Some(outbound::FailureAccrual {
            kind: Some(failure_accrual::Kind::ConsecutiveFailures(
                failure_accrual::ConsecutiveFailures {
                    max_failures: 3,
                    backoff: Some(outbound::ExponentialBackoff {
                        min_backoff: second(600),
                        max_backoff: second(600),
                        jitter_ratio: 0.0,
                        respect_retry_after_hint: false,
                    }),
                },
            )),
            ejection: None,
        });
        answer_policy(&proxy, policy);
        let plane = proxy.plane.clone();
        tokio::task::spawn_local(async move {
            let endpoints = plane.endpoints().await;
            endpoints.send(add(vec![endpoint(&bad.to_string())])).await;
            std::future::pending::<()>().await;
        });

        let mut statuses = Vec::new();
        for _ in 0..5 {
            let mut client = proxy.connect("10.0.0.1:80").await;
            statuses.push(client.get("/", &["host: web"]).await.0);
        }

        assert_eq!(statuses, [503, 503, 503, 504, 504]);
        assert_eq!(at_bad.borrow().len(), 3);
        let shown = proxy.registry.render();
        let open = shown
            .lines()
            .find(|line| line.starts_with("tulle_breaker_open{"));
        assert!(open.is_some_and(|line| line.ends_with(" 1")), "{open:?}");
    })
    .await;
}

#[tokio::test]
async fn the_host_of_a_request_is_a_label_only_where_that_is_wanted() {
    local(async {
        for (wanted, expected) in [("true", "web.example"), ("false", "")] {
            let proxy = Proxy::new(&[("OUTBOUND_METRICS_HOSTNAME_LABELS", wanted)]);
            let (addr, _) = server(&[200]).await;
            answer_policy(&proxy, service_policy("web", "web:80"));
            let plane = proxy.plane.clone();
            tokio::task::spawn_local(async move {
                let endpoints = plane.endpoints().await;
                endpoints.send(add(vec![endpoint(&addr.to_string())])).await;
                std::future::pending::<()>().await;
            });

            let mut client = proxy.connect("10.0.0.1:80").await;
            client.get("/", &["host: web.example:80"]).await;
            client.get("/", &["host: 10.0.0.1"]).await;

            let shown = proxy.registry.render();
            let family = "outbound_http_route_request_statuses_total";
            let label = format!(r#"hostname="{expected}""#);
            let counted = |line: &&str| line.starts_with(family) && line.contains(&label);
            assert!(shown.lines().any(|line| counted(&line)), "{shown}");
            assert!(!shown.contains(r#"hostname="10.0.0.1""#));
        }
    })
    .await;
}

//! What a route does besides sending a request on: tries, times, rewrites and copies.

mod support;

use std::{cell::Cell, net::SocketAddr, rc::Rc, time::Duration};

use bytes::Bytes;
use support::{Client, Proxy, field, local, server};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::{spawn_local, yield_now},
    time::timeout,
};
use tulle_api::{
    destination::DestinationProfile,
    http_route::{PathModifier, Timeouts, UrlRewrite, path_modifier::Replace},
    outbound::{
        self, Backend, OutboundPolicy, RequestMirror,
        http_route::{
            Filter, Retry, Rule,
            filter::Kind,
            retry::{Conditions, conditions::StatusRange},
        },
        proxy_protocol,
    },
};
use tulle_testkit::messages::{add, endpoint, service_meta, service_policy};

const SOON: Duration = Duration::from_secs(20);

/// The policy of a service, with its one rule changed.
fn policy(change: impl Fn(&mut Rule)) -> OutboundPolicy {
    let mut policy = service_policy("web", "web.shop.svc.cluster.local:80");
    let kind = policy
        .protocol
        .as_mut()
        .and_then(|protocol| protocol.kind.as_mut());
    let Some(proxy_protocol::Kind::Detect(detect)) = kind else {
        panic!("a service's protocol is detected");
    };
    let one = detect.http1.iter_mut().flat_map(|http| &mut http.routes);
    let two = detect.http2.iter_mut().flat_map(|http| &mut http.routes);
    for rule in one.chain(two).flat_map(|route| &mut route.rules) {
        change(rule);
    }
    policy
}

/// A proxy that knows a service with these endpoints.
fn under(policy: OutboundPolicy, endpoints: &[SocketAddr]) -> Proxy {
    let proxy = Proxy::new(&[]);
    let plane = proxy.plane.clone();
    let addrs = endpoints
        .iter()
        .map(|addr| endpoint(&addr.to_string()))
        .collect();
    spawn_local(async move {
        let asked = plane.policy().await;
        asked.send(policy).await;
        let profile = plane.profile().await;
        profile.send(DestinationProfile::default()).await;
        let endpoints = plane.endpoints().await;
        endpoints.send(add(addrs)).await;
        std::future::pending::<()>().await;
        drop((asked, profile));
    });
    proxy
}

fn retry(rule: &mut Rule) {
    rule.retry = Some(Retry {
        max_retries: 1,
        conditions: Some(Conditions {
            status_ranges: vec![StatusRange {
                start: 500,
                end: 599,
            }],
        }),
        ..Retry::default()
    });
}

async fn get(client: &mut Client, path: &str, headers: &[&str]) -> (u16, String) {
    timeout(SOON, client.get(path, headers))
        .await
        .expect("an answer")
}

const ROUTE: &str = r#"hostname="",parent_group="core",parent_kind="Service",parent_name="web","#;

/// The sum of a family.
fn total(proxy: &Proxy, name: &str) -> f64 {
    let shown = proxy.registry.render();
    let lines = shown
        .lines()
        .filter(|line| line.starts_with(&format!("{name}{{")));
    lines
        .map(|line| {
            line.rsplit(' ')
                .next()
                .and_then(|value| value.parse::<f64>().ok())
        })
        .map(|value| value.expect("a number"))
        .sum()
}

#[tokio::test]
async fn a_try_that_failed_is_followed_by_one_at_another_endpoint() {
    local(async {
        let (bad, failed) = server(&[503]).await;
        let (good, served) = server(&[200]).await;
        let proxy = under(policy(retry), &[bad, good]);
        let mut client = proxy.connect("10.0.0.1:80").await;
        let mut other = proxy.connect("10.0.0.1:80").await;

        // Of two requests at a time each endpoint gets one: alone the one that was used first
        // would be the cheaper one for ever.
        for _ in 0..10 {
            let (one, two) = tokio::join!(
                get(&mut client, "/", &["host: web"]),
                get(&mut other, "/", &["host: web"]),
            );
            assert_eq!((one.0, two.0), (200, 200));
        }

        assert_eq!(served.borrow().len(), 20);
        let retries = failed.borrow().len();
        assert!(retries > 0, "the bad one was never chosen");
        #[expect(clippy::cast_precision_loss, reason = "twenty at the most")]
        let retries = retries as f64;
        for name in ["requests", "successes"] {
            let name = format!("outbound_http_route_retry_{name}_total");
            assert!((total(&proxy, &name) - retries).abs() < 0.5, "{name}");
        }
        let labels = proxy.registry.render();
        assert!(labels.contains(&format!(
            "outbound_http_route_retry_requests_total{{{ROUTE}"
        )));
    })
    .await;
}

#[tokio::test]
async fn the_request_s_own_header_decides_where_the_route_allows_it() {
    local(async {
        let (addr, seen) = server(&[503, 429, 200]).await;
        let allowed = policy(|rule| rule.allow_l5d_request_headers = true);
        let proxy = under(allowed, &[addr]);
        let mut client = proxy.connect("10.0.0.1:80").await;

        let asked = ["host: web", "l5d-retry-http: 5xx,429", "l5d-retry-limit: 2"];
        let (status, head) = get(&mut client, "/", &asked).await;

        assert_eq!((status, seen.borrow().len()), (200, 3));
        assert!(!head.contains("l5d-retry"), "{head}");
    })
    .await;
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_answered_and_its_connection_kept() {
    local(async {
        let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = silent.local_addr().expect("bound");
        let short = policy(|rule| {
            rule.timeouts = Some(Timeouts {
                request: Some(prost_types::Duration {
                    seconds: 0,
                    nanos: 50_000_000,
                }),
                ..Timeouts::default()
            });
        });
        let proxy = under(short, &[addr]);
        let mut client = proxy.connect("10.0.0.1:80").await;

        for _ in 0..2 {
            assert_eq!(get(&mut client, "/", &["host: web"]).await.0, 504);
        }

        let route = "outbound_http_route_request_statuses_total{error=\"REQUEST_TIMEOUT\"";
        assert!(proxy.registry.render().contains(route));
        assert!(proxy.registry.render().contains("reason=\"timeout\""));
    })
    .await;
}

#[tokio::test]
async fn a_response_that_stops_is_cut_off_and_counted() {
    local(async {
        let stops = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = stops.local_addr().expect("bound");
        spawn_local(async move {
            let (mut io, _) = stops.accept().await.expect("a connection");
            let answer = b"HTTP/1.1 200 x\r\ncontent-length: 9\r\n\r\nhalf";
            io.write_all(answer).await.expect("sent");
            std::future::pending::<()>().await;
        });
        let short = policy(|rule| {
            rule.timeouts = Some(Timeouts {
                idle: Some(prost_types::Duration {
                    seconds: 0,
                    nanos: 50_000_000,
                }),
                ..Timeouts::default()
            });
        });
        let proxy = under(short, &[addr]);
        let mut client = proxy.connect("10.0.0.1:80").await;

        let request = b"GET / HTTP/1.1\r\nhost: web\r\n\r\n";
        client.0.write_all(request).await.expect("sent");
        let mut answer = String::new();
        let read = timeout(SOON, client.0.read_to_string(&mut answer)).await;

        read.expect("in time").expect("a clean end");
        assert!(answer.ends_with("\r\n\r\nhalf"), "{answer}");
        let shown = proxy.registry.render();
        assert!(
            shown.contains("outbound_http_route_request_statuses_total{error=\"IDLE_TIMEOUT\"")
        );
        assert!(shown.contains("reason=\"idle_timeout\""), "{shown}");
    })
    .await;
}

#[tokio::test]
async fn a_tunnel_outlives_the_time_for_a_response() {
    local(async {
        let echo = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = echo.local_addr().expect("bound");
        spawn_local(async move {
            let (mut io, _) = echo.accept().await.expect("a connection");
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(io.read_u8().await.expect("a head"));
            }
            let answer = b"HTTP/1.1 101 x\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
            io.write_all(answer).await.expect("sent");
            let (mut from, mut to) = io.split();
            let _ = tokio::io::copy(&mut from, &mut to).await;
        });
        let short = policy(|rule| {
            retry(rule);
            rule.timeouts = Some(Timeouts {
                request: Some(prost_types::Duration {
                    seconds: 0,
                    nanos: 200_000_000,
                }),
                ..Timeouts::default()
            });
        });
        let proxy = under(short, &[addr]);
        let mut client = proxy.connect("10.0.0.1:80").await;
        let begun = tokio::time::Instant::now();

        let request =
            b"GET / HTTP/1.1\r\nhost: web\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
        client.0.write_all(request).await.expect("sent");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.0.read_u8().await.expect("a head"));
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "));
        let mut piece = [0; 4];
        while begun.elapsed() < Duration::from_millis(300) {
            client.0.write_all(b"ping").await.expect("sent");
            let read = client.0.read_exact(&mut piece);
            timeout(SOON, read)
                .await
                .expect("in time")
                .expect("an echo");
        }
        assert_eq!(&piece, b"ping");
    })
    .await;
}

#[tokio::test]
async fn a_rewritten_request_goes_on_under_another_host_and_path() {
    local(async {
        let (addr, _) = server(&[200]).await;
        let rewritten = policy(|rule| {
            rule.filters.push(Filter {
                kind: Some(Kind::UrlRewrite(UrlRewrite {
                    host: "other.example".into(),
                    path: Some(PathModifier {
                        replace: Some(Replace::Full("/new".into())),
                    }),
                })),
            });
        });
        let proxy = under(rewritten, &[addr]);
        let mut client = proxy.connect("10.0.0.1:80").await;

        let (status, head) = get(&mut client, "/old?q=1", &["host: web"]).await;

        assert_eq!(status, 200);
        assert!(head.starts_with("GET /new?q=1 HTTP/1.1\r\n"), "{head}");
        assert_eq!(field(&head, "host"), Some("other.example"));
    })
    .await;
}

#[tokio::test]
async fn a_mirror_gets_a_copy_and_its_answer_goes_nowhere() {
    local(async {
        let (addr, _) = server(&[200]).await;
        let (copies, seen) = server(&[500]).await;
        let to = Backend {
            metadata: Some(service_meta("copies")),
            kind: Some(outbound::backend::Kind::Forward(endpoint(
                &copies.to_string(),
            ))),
            queue: Some(outbound::Queue {
                capacity: 100,
                failfast_timeout: Some(prost_types::Duration {
                    seconds: 3,
                    nanos: 0,
                }),
            }),
        };
        let mirrored = policy(|rule| {
            rule.filters.push(Filter {
                kind: Some(Kind::RequestMirror(RequestMirror {
                    backend: Some(to.clone()),
                    ratio: None,
                })),
            });
        });
        let proxy = under(mirrored, &[addr]);
        let mut client = proxy.connect("10.0.0.1:80").await;

        assert_eq!(get(&mut client, "/a", &["host: web"]).await.0, 200);

        let arrives = async {
            while seen.borrow().is_empty() {
                yield_now().await;
            }
        };
        timeout(SOON, arrives).await.expect("a copy");
        assert!(seen.borrow()[0].starts_with("GET /a HTTP/1.1\r\n"));
    })
    .await;
}

/// An HTTP/2 server that echoes bodies, or refuses streams when it has seen some of them.
async fn http2(refuses: bool) -> (SocketAddr, Rc<Cell<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("bound");
    let seen = Rc::new(Cell::new(0));
    let count = seen.clone();
    spawn_local(async move {
        while let Ok((io, _)) = listener.accept().await {
            let count = count.clone();
            spawn_local(async move {
                let mut server = h2::server::handshake(io).await.expect("HTTP/2");
                while let Some(Ok((request, respond))) = server.accept().await {
                    count.set(count.get() + 1);
                    spawn_local(answer(request.into_body(), respond, refuses));
                }
            });
        }
    });
    (addr, seen)
}

async fn answer(
    mut body: h2::RecvStream,
    mut respond: h2::server::SendResponse<Bytes>,
    refuses: bool,
) {
    if refuses {
        assert_eq!(body.data().await.expect("data").expect("no error"), "first");
        return respond.send_reset(h2::Reason::REFUSED_STREAM);
    }
    let mut echo = respond
        .send_response(http::Response::new(()), false)
        .expect("a head");
    while let Some(piece) = body.data().await {
        echo.send_data(piece.expect("no error"), false)
            .expect("sent");
    }
    echo.send_data(Bytes::new(), true).expect("sent");
}

/// The stock proxy sends it twice.
#[tokio::test]
async fn the_first_chunk_is_sent_once_when_a_stream_is_refused() {
    local(async {
        let (refusing, refused) = http2(true).await;
        let (echoing, _) = http2(false).await;
        let proxy = under(policy(|_| {}), &[refusing, echoing]);
        let client = proxy.connect("10.0.0.1:80").await;
        let (sender, connection) = h2::client::handshake(client.0).await.expect("HTTP/2");
        spawn_local(connection);

        for _ in 0..10 {
            let request = http::Request::post("http://web/")
                .body(())
                .expect("a request");
            let mut ready = sender.clone().ready().await.expect("room");
            let (response, mut upload) = ready.send_request(request, false).expect("sent");
            upload.send_data("first".into(), false).expect("sent");
            let before = refused.get();
            // The rest follows when a server has looked at the first piece, as one may refuse
            // it then.
            let response = spawn_local(response);
            for _ in 0..100 {
                yield_now().await;
            }
            upload.send_data("second".into(), true).expect("sent");
            let response = timeout(SOON, response)
                .await
                .expect("in time")
                .expect("a task");
            let mut body = response.expect("a response").into_body();
            let mut echo = Vec::new();
            while let Some(piece) = body.data().await {
                echo.extend_from_slice(&piece.expect("no error"));
            }
            assert_eq!(echo, b"firstsecond", "refused before: {before}");
        }

        assert!(refused.get() > 0, "no stream was refused");
    })
    .await;
}

#[tokio::test]
async fn what_was_refused_is_not_tried_again_where_that_is_off() {
    local(async {
        let (refusing, refused) = http2(true).await;
        let proxy = under(policy(|rule| rule.no_default_retry = true), &[refusing]);
        let client = proxy.connect("10.0.0.1:80").await;
        let (mut sender, connection) = h2::client::handshake(client.0).await.expect("HTTP/2");
        spawn_local(connection);

        let request = http::Request::post("http://web/")
            .body(())
            .expect("a request");
        let (response, mut upload) = sender.send_request(request, false).expect("sent");
        upload.send_data("first".into(), true).expect("sent");
        let error = timeout(SOON, response)
            .await
            .expect("in time")
            .expect_err("a reset");

        assert_eq!(error.reason(), Some(h2::Reason::REFUSED_STREAM));
        assert_eq!(refused.get(), 1);
    })
    .await;
}

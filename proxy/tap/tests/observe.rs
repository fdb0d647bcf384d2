//! What a watcher is told, over the wire it is told by.

#![allow(clippy::unwrap_used, reason = "a test's panic is its report")]

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use http::{HeaderMap, HeaderValue};
use http_body_util::{BodyExt as _, Full, StreamBody};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    runtime::Handle,
    task::LocalSet,
    time::timeout,
};
use tonic::{Code, Status, Streaming};
use tulle_api::tap::{
    Eos, ObserveRequest, TapEvent, eos,
    observe_request::{
        Extract, Match,
        extract::{self, http::Headers},
        r#match::{self as one, http::string_match},
    },
    tap_client::TapClient,
    tap_event::{
        self, ProxyDirection,
        http::{Event, RequestInit, ResponseEnd, ResponseInit},
    },
};
use tulle_config::{ClientH2, ControlAddr, HostPort, Tap};
use tulle_core::{ClientTls, Direction, Id};
use tulle_discovery::{ControlChannel, NetDial};
use tulle_http::{Body, BodyError, Request, Response};
use tulle_metrics::Registry;
use tulle_tap::{Subject, TapServer, Taps};
use tulle_testkit::Authority;
use tulle_tls::{Credentials, Store};
use tulle_transport::{AcceptedOptions, ConnectOptions};

const WEB: &str = "web.shop";
const WATCHER: &str = "controller.linkerd";
const HOUR: Duration = Duration::from_hours(1);

/// A proxy's tap port, and the authority that its watchers' certificates come from.
struct Port {
    authority: Authority,
    address: SocketAddr,
    taps: Taps,
    registry: Registry,
}

/// Must be called in a `LocalSet`.
fn port() -> Port {
    let authority = Authority::new("mesh");
    let settings = Tap {
        listen: ([127, 0, 0, 1], 0).into(),
        client: Id::new(WATCHER),
    };
    let accepted = AcceptedOptions {
        keepalive: None,
        user_timeout: None,
    };
    let registry = Registry::new();
    let taps = Taps::new(&registry);
    let server = TapServer::new(settings, accepted, store(&authority, WEB), taps.clone());
    let listener = server.bind().unwrap();
    let address = listener.local_addr().unwrap();
    tokio::task::spawn_local(server.serve(listener));
    Port {
        authority,
        address,
        taps,
        registry,
    }
}

fn store(authority: &Authority, name: &str) -> Store {
    let (chain, key) = authority.issue(name, HOUR);
    let store = Store::new();
    store.set(Credentials::new(&Id::new(name), chain, key, &authority.roots_pem()).unwrap());
    store
}

impl Port {
    fn client(&self, name: Option<&str>) -> TapClient<ControlChannel> {
        let addr = ControlAddr {
            addr: HostPort {
                host: self.address.ip().to_string(),
                port: self.address.port(),
            },
            name: name.map(|_| Id::new(WEB)),
            loopback: name.is_none(),
        };
        let options = ConnectOptions {
            timeout: Duration::from_secs(1),
            keepalive: None,
            user_timeout: None,
            mark: None,
        };
        let store = name.map_or_else(Store::new, |name| store(&self.authority, name));
        let windows = ClientH2 {
            initial_stream_window: 65_535,
            initial_connection_window: 1 << 20,
        };
        let dial = NetDial::new(&addr, options, &store);
        TapClient::new(ControlChannel::new(
            &addr.addr,
            dial,
            windows,
            &Handle::current(),
        ))
    }

    async fn observe(
        &self,
        client: Option<&str>,
        asked: ObserveRequest,
    ) -> Result<Streaming<TapEvent>, Status> {
        let answer = self.client(client).observe(asked).await?;
        Ok(answer.into_inner())
    }

    /// Carry a request as a shard would.
    async fn carry(&self, request: Request, response: Response) -> bool {
        let client = ClientTls::Established {
            client_id: Some(Id::new("slots.shop")),
        };
        let subject = Subject {
            direction: Direction::Inbound,
            source: "10.0.0.7:5000".parse().unwrap(),
            client: &client,
            destination: "10.0.0.8:8080".parse().unwrap(),
            server: None,
            labels: &[("srv_name", "web-http")],
            route: &[("route_name", "bookings")],
        };
        if !self.taps.is_watched() {
            return false;
        }
        let Some(tapped) = self.taps.request(&request, &subject) else {
            return false;
        };
        let body = tapped.observe(response).into_body();
        let _ = body.collect().await;
        true
    }
}

fn asked(limit: u32) -> ObserveRequest {
    ObserveRequest {
        limit,
        r#match: Some(path("/book")),
        extract: None,
    }
}

fn path(prefix: &str) -> Match {
    Match {
        r#match: Some(one::Match::Http(one::Http {
            r#match: Some(one::http::Match::Path(one::http::StringMatch {
                r#match: Some(string_match::Match::Prefix(prefix.into())),
            })),
        })),
    }
}

fn with_headers(asked: ObserveRequest) -> ObserveRequest {
    ObserveRequest {
        extract: Some(Extract {
            extract: Some(extract::Extract::Http(extract::Http {
                extract: Some(extract::http::Extract::Headers(Headers {})),
            })),
        }),
        ..asked
    }
}

fn booking() -> Request {
    http::Request::builder()
        .uri("/book?slot=3")
        .header("host", "web:8080")
        .header("cookie", "session=open-sesame")
        .body(Body::empty())
        .unwrap()
}

fn grpc_answer() -> Response {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("5"));
    let body = Full::new("12345".into()).with_trailers(async move { Some(Ok(trailers)) });
    let body = body.map_err(|never: std::convert::Infallible| match never {});
    let answer = http::Response::builder().header("set-cookie", "session=other");
    answer.body(Body::wrap(body)).unwrap()
}

fn http(event: &TapEvent) -> &Event {
    match event.event.as_ref().unwrap() {
        tap_event::Event::Http(http) => http.event.as_ref().unwrap(),
    }
}

fn pairs(headers: Option<&tulle_api::http_types::Headers>) -> Vec<(String, String)> {
    let headers = headers.into_iter().flat_map(|headers| &headers.headers);
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    headers
        .map(|header| (header.name.clone(), text(&header.value)))
        .collect()
}

fn code(refused: Result<Streaming<TapEvent>, Status>) -> Code {
    refused.map(drop).unwrap_err().code()
}

#[tokio::test]
async fn a_watcher_sees_a_request_from_its_head_to_its_end() {
    LocalSet::new()
        .run_until(async {
            let port = port();
            let asked = with_headers(asked(1));
            let mut events = port.observe(Some(WATCHER), asked).await.unwrap();

            assert!(port.carry(booking(), grpc_answer()).await);

            let begun = events.message().await.unwrap().unwrap();
            assert_eq!(begun.proxy_direction(), ProxyDirection::Inbound);
            let source = begun.source_meta.as_ref().unwrap();
            let expected = [("tls", "true"), ("client_id", "slots.shop")];
            let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
            assert_eq!(source.labels, HashMap::from(expected));
            assert_eq!(begun.source.unwrap().port, 5000);
            assert_eq!(begun.destination.unwrap().port, 8080);
            assert_eq!(
                begun.route_meta.as_ref().unwrap().labels["route_name"],
                "bookings"
            );
            let Event::RequestInit(RequestInit {
                id,
                authority,
                path,
                headers,
                ..
            }) = http(&begun)
            else {
                panic!("{begun:?}");
            };
            assert_eq!((authority.as_str(), path.as_str()), ("web:8080", "/book"));
            let shown = [
                (":path", "/book?slot=3"),
                ("host", "web:8080"),
                ("cookie", "[redacted]"),
            ];
            let shown = shown.map(|(key, value)| (key.to_owned(), value.to_owned()));
            assert_eq!(pairs(headers.as_ref()), shown);

            let answered = events.message().await.unwrap().unwrap();
            let Event::ResponseInit(ResponseInit {
                id: same,
                http_status: 200,
                headers,
                ..
            }) = http(&answered)
            else {
                panic!("{answered:?}");
            };
            assert_eq!(same, id);
            let shown = [("set-cookie".to_owned(), "[redacted]".to_owned())];
            assert_eq!(pairs(headers.as_ref()), shown);

            let ended = events.message().await.unwrap().unwrap();
            let Event::ResponseEnd(ResponseEnd {
                id: same,
                response_bytes: 5,
                eos:
                    Some(Eos {
                        end: Some(eos::End::GrpcStatusCode(5)),
                    }),
                trailers,
                ..
            }) = http(&ended)
            else {
                panic!("{ended:?}");
            };
            assert_eq!(same, id);
            assert_eq!(pairs(trailers.as_ref()).len(), 1);
            assert!(
                events.message().await.unwrap().is_none(),
                "one was asked for"
            );
            assert!(!port.taps.is_watched());
        })
        .await;
}

#[tokio::test]
async fn headers_are_shown_to_who_asks_for_them() {
    LocalSet::new()
        .run_until(async {
            let port = port();
            let mut events = port.observe(Some(WATCHER), asked(1)).await.unwrap();

            port.carry(booking(), grpc_answer()).await;

            for _ in 0..3 {
                let event = events.message().await.unwrap().unwrap();
                let headers = match http(&event) {
                    Event::RequestInit(event) => event.headers.as_ref(),
                    Event::ResponseInit(event) => event.headers.as_ref(),
                    Event::ResponseEnd(event) => event.trailers.as_ref(),
                };
                assert!(headers.is_none(), "{event:?}");
            }
        })
        .await;
}

#[tokio::test]
async fn nobody_watches_but_the_client_that_is_named() {
    LocalSet::new()
        .run_until(async {
            let port = port();

            let other = port.observe(Some("slots.shop"), asked(1)).await;
            let plaintext = port.observe(None, asked(1)).await;

            assert_eq!(code(other), Code::Unauthenticated);
            assert_eq!(code(plaintext), Code::Unauthenticated);
            assert!(!port.taps.is_watched());
        })
        .await;
}

#[tokio::test]
async fn who_may_not_watch_does_not_hold_a_connection_for_long() {
    LocalSet::new()
        .run_until(async {
            let port = port();
            let mut stranger = TcpStream::connect(port.address).await.unwrap();
            let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
            stranger.write_all(preface).await.unwrap();
            // The server's own settings: this connection is served.
            stranger.read_exact(&mut [0; 9]).await.unwrap();

            tokio::time::pause();
            tokio::time::advance(Duration::from_secs(11)).await;
            tokio::time::resume();

            let mut rest = Vec::new();
            let ended = timeout(Duration::from_secs(1), stranger.read_to_end(&mut rest)).await;
            assert!(ended.is_ok(), "{rest:?}");
        })
        .await;
}

#[tokio::test]
async fn a_question_without_a_meaning_is_not_asked() {
    LocalSet::new()
        .run_until(async {
            let port = port();
            let nothing = ObserveRequest {
                r#match: None,
                ..asked(1)
            };
            let many = one::Match::Any(one::Seq {
                matches: vec![path("/"); 256],
            });
            let many = ObserveRequest {
                r#match: Some(Match {
                    r#match: Some(many),
                }),
                ..asked(1)
            };

            for wrong in [asked(0), nothing, many] {
                assert_eq!(
                    code(port.observe(Some(WATCHER), wrong).await),
                    Code::InvalidArgument
                );
            }
        })
        .await;
}

#[tokio::test]
async fn watchers_are_few_and_one_that_leaves_makes_room() {
    LocalSet::new()
        .run_until(async {
            let port = port();
            let mut watching = Vec::new();
            for _ in 0..16 {
                watching.push(port.observe(Some(WATCHER), asked(1)).await.unwrap());
            }

            let one_more = port.observe(Some(WATCHER), asked(1)).await;

            assert_eq!(code(one_more), Code::ResourceExhausted);
            watching.pop();
            loop {
                // That it has left is told by the network.
                match port.observe(Some(WATCHER), asked(1)).await {
                    Ok(_) => break,
                    Err(status) => assert_eq!(status.code(), Code::ResourceExhausted),
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
}

#[tokio::test]
async fn what_a_slow_watcher_does_not_fetch_is_dropped_and_counted() {
    LocalSet::new()
        .run_until(async {
            let port = port();
            let events = port.observe(Some(WATCHER), asked(1000)).await.unwrap();

            // No await between that could let the server send.
            let mut shown = Vec::new();
            for _ in 0..1000 {
                let client = ClientTls::None(tulle_core::NoTls::NotFromRemote);
                let subject = Subject {
                    direction: Direction::Outbound,
                    source: port.address,
                    client: &client,
                    destination: port.address,
                    server: None,
                    labels: &[],
                    route: &[],
                };
                shown.extend(port.taps.request(&booking(), &subject));
            }

            // A sample, of which some ends and beginnings found no room.
            assert!((200..=400).contains(&shown.len()), "{}", shown.len());
            for tapped in shown {
                tapped.failed(None);
            }
            let rendered = port.registry.render();
            let dropped = rendered
                .lines()
                .find_map(|line| line.strip_prefix("tulle_tap_events_dropped_total "))
                .unwrap();
            assert!(dropped.parse::<f64>().unwrap() > 0.0, "{rendered}");
            drop(events);
        })
        .await;
}

#[tokio::test]
async fn a_response_that_breaks_ends_with_an_error_code() {
    LocalSet::new()
        .run_until(async {
            let port = port();
            let mut events = port.observe(Some(WATCHER), asked(1)).await.unwrap();
            let broken = StreamBody::new(tokio_stream::iter([Err(BodyError::Incomplete)]));

            port.carry(booking(), http::Response::new(Body::wrap(broken)))
                .await;

            let mut last = None;
            while let Some(event) = events.message().await.unwrap() {
                last = Some(event);
            }
            let last = last.unwrap();
            let Event::ResponseEnd(ResponseEnd {
                eos:
                    Some(Eos {
                        end: Some(eos::End::ResetErrorCode(2)),
                    }),
                ..
            }) = http(&last)
            else {
                panic!("{last:?}");
            };
        })
        .await;
}

//! HTTP/2: our server with a bare `h2` client, our client with a bare `h2` server, and both.

#![allow(clippy::unwrap_used, reason = "a test's panic is its report")]

mod support;

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Version};
use http_body::Frame;
use support::{channel, collect, data, forward, ok, pool, run, serve_http2, settle, text};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tulle_core::Reason;
use tulle_http::{
    Body, BodyError, DrainSignal, End, Interim, Observer, Request, Response, ServeError,
    http2::{Connection, Http2Options},
    pool::{Mode, PoolOptions, Session},
};

/// A bare client; its connection is driven by a task.
async fn client(io: DuplexStream) -> h2::client::SendRequest<Bytes> {
    let (sender, connection) = h2::client::handshake(io).await.unwrap();
    tokio::task::spawn_local(connection);
    sender
}

fn request(method: Method, uri: &str) -> http::Request<()> {
    http::Request::builder()
        .method(method)
        .uri(uri)
        .version(Version::HTTP_2)
        .body(())
        .unwrap()
}

async fn read(mut body: h2::RecvStream) -> Result<(String, Option<HeaderMap>), h2::Error> {
    let mut text = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        let _ = body.flow_control().release_capacity(data.len());
        text.extend_from_slice(&data);
    }
    Ok((String::from_utf8(text).unwrap(), body.trailers().await?))
}

fn no_drain() -> tulle_http::Drain {
    DrainSignal::new().1
}

/// Serve with our server, speak with our client.
async fn both_ours<F>(answer: F) -> Connection
where
    F: AsyncFn(Request, Interim) -> Response + 'static,
{
    let (io, _serving) = serve_http2(answer, Http2Options::default(), no_drain());
    Connection::connect(io, &Http2Options::default())
        .await
        .unwrap()
}

fn grpc(body: Body) -> Request {
    let mut request = http::Request::new(body);
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = "http://web/pkg.Service/Method".parse().unwrap();
    request
        .headers_mut()
        .insert("content-type", "application/grpc".parse().unwrap());
    request
        .headers_mut()
        .insert("te", "trailers".parse().unwrap());
    request
}

#[test]
fn bodies_and_trailers_travel_both_ways_at_once() {
    run(async {
        let connection = both_ours(async |request: Request, _| {
            assert_eq!(request.headers()["te"], "trailers");
            // An echo that begins before the request has ended.
            Response::new(request.into_body())
        })
        .await;
        let (feed, body) = channel();

        let response = connection.send(grpc(body), &Interim::none()).await.unwrap();
        let mut body = response.into_body();
        for piece in ["one", "two", "three"] {
            feed.send(data(piece)).unwrap();
            let frame =
                poll_fn(|cx| http_body::Body::poll_frame(std::pin::Pin::new(&mut body), cx))
                    .await
                    .unwrap()
                    .unwrap();
            assert_eq!(frame.into_data().unwrap(), piece);
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        feed.send(Ok(Frame::trailers(trailers.clone()))).unwrap();

        assert_eq!(collect(body).await.unwrap(), (Bytes::new(), Some(trailers)));
        assert_eq!(connection.in_flight(), 0);
    });
}

#[test]
fn a_large_body_arrives_whole_through_small_windows() {
    run(async {
        let options = Http2Options {
            stream_window: 65_535,
            connection_window: 65_535,
            ..Http2Options::default()
        };
        let (io, _serving) = serve_http2(
            async |request, _| Response::new(request.into_body()),
            options.clone(),
            no_drain(),
        );
        let connection = Connection::connect(io, &options).await.unwrap();
        let sent: Bytes = (0..3_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();

        let response = connection
            .send(grpc(Body::full(sent.clone())), &Interim::none())
            .await
            .unwrap();

        assert_eq!(collect(response.into_body()).await.unwrap().0, sent);
    });
}

#[test]
fn informational_responses_cross_http2() {
    run(async {
        let (pool, mut endpoint) = pool(Mode::AsReceived, PoolOptions::default());
        let (io, _serving) = serve_http2(forward(&pool), Http2Options::default(), no_drain());
        let mut sender = client(io).await;
        let (mut response, _) = sender
            .send_request(request(Method::GET, "http://web/"), true)
            .unwrap();
        let (session, peer) = endpoint.accept_any().await;
        assert_eq!(session, Session::Http2);
        let mut server = h2::server::handshake(peer.0).await.unwrap();
        let (_, mut respond) = server.accept().await.unwrap().unwrap();
        tokio::task::spawn_local(async move { while server.accept().await.is_some() {} });

        let hints = http::Response::builder()
            .status(103)
            .header("link", "</a>")
            .body(())
            .unwrap();
        respond.send_informational(hints).unwrap();
        let heard = poll_fn(|cx| response.poll_informational(cx))
            .await
            .unwrap()
            .unwrap();
        respond
            .send_response(http::Response::new(()), true)
            .unwrap();

        assert_eq!(heard.status(), 103);
        assert_eq!(heard.headers()["link"], "</a>");
        assert_eq!(response.await.unwrap().status(), 200);
    });
}

#[test]
fn a_request_names_one_authority() {
    run(async {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let note = Rc::clone(&seen);
        let (io, _serving) = serve_http2(
            async move |request: Request, _| {
                note.borrow_mut().push(request.uri().to_string());
                assert!(!request.headers().contains_key("host"));
                ok("")
            },
            Http2Options::default(),
            no_drain(),
        );
        let mut sender = client(io).await;
        let mut send = |request: http::Request<()>| {
            let (response, _) = sender.send_request(request, true).unwrap();
            response
        };

        let mut same = request(Method::GET, "http://web/same");
        same.headers_mut().insert("host", "web".parse().unwrap());
        send(same).await.unwrap();
        let mut other = request(Method::GET, "http://web/other");
        other
            .headers_mut()
            .insert("host", "elsewhere".parse().unwrap());
        send(other).await.unwrap();
        let mut only_host = request(Method::GET, "/only-host");
        *only_host.version_mut() = Version::HTTP_11;
        only_host
            .headers_mut()
            .insert("host", "web".parse().unwrap());
        let mut nowhere = request(Method::GET, "/none");
        *nowhere.version_mut() = Version::HTTP_11;
        let user = request(Method::GET, "http://user@web/user");

        for refused in [nowhere, user] {
            let error = send(refused).await.unwrap_err();
            assert_eq!(error.reason(), Some(h2::Reason::PROTOCOL_ERROR));
        }
        send(only_host).await.unwrap();
        assert_eq!(
            *seen.borrow(),
            [
                "http://web/same",
                "http://web/other",
                "http://web/only-host"
            ]
        );
    });
}

#[test]
fn a_refusal_reaches_grpc_clients_as_a_status() {
    run(async {
        let (pool, endpoint) = pool(Mode::AsReceived, PoolOptions::default());
        drop(endpoint);
        let connection = both_ours(forward(&pool)).await;

        let response = connection
            .send(grpc(Body::empty()), &Interim::none())
            .await
            .unwrap();

        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["grpc-status"], "14");
        assert_eq!(response.headers()["tulle-reason"], "connect_failed");
        assert!(response.body().is_end_stream());
    });
}

#[test]
fn a_stream_error_is_passed_on_as_one() {
    run(async {
        let (pool, mut endpoint) = pool(Mode::AsReceived, PoolOptions::default());
        let (io, _serving) = serve_http2(forward(&pool), Http2Options::default(), no_drain());
        let mut sender = client(io).await;
        let (response, _) = sender
            .send_request(request(Method::GET, "http://web/"), true)
            .unwrap();
        let (_, peer) = endpoint.accept_any().await;
        let mut server = h2::server::handshake(peer.0).await.unwrap();
        let (_, mut respond) = server.accept().await.unwrap().unwrap();
        tokio::task::spawn_local(async move { while server.accept().await.is_some() {} });

        respond.send_reset(h2::Reason::INADEQUATE_SECURITY);

        let error = response.await.unwrap_err();
        assert_eq!(error.reason(), Some(h2::Reason::INADEQUATE_SECURITY));
    });
}

#[test]
fn a_body_that_fails_ends_a_grpc_call_with_a_status() {
    run(async {
        let connection = both_ours(async |_, _| {
            let (feed, body) = channel();
            feed.send(data("half")).unwrap();
            feed.send(Err(BodyError::Incomplete)).unwrap();
            Response::new(body)
        })
        .await;

        let response = connection
            .send(grpc(Body::empty()), &Interim::none())
            .await
            .unwrap();

        let (body, trailers) = collect(response.into_body()).await.unwrap();
        assert_eq!(body, "half");
        assert_eq!(trailers.unwrap()["grpc-status"], "14");
    });
}

#[test]
fn a_client_that_gives_up_ends_its_request() {
    run(async {
        struct Gone(Rc<Cell<bool>>);
        impl Drop for Gone {
            fn drop(&mut self) {
                self.0.set(true);
            }
        }
        let dropped = Rc::new(Cell::new(false));
        let drops = Rc::clone(&dropped);
        let (io, _serving) = serve_http2(
            async move |_, _| {
                let _gone = Gone(Rc::clone(&drops));
                std::future::pending().await
            },
            Http2Options::default(),
            no_drain(),
        );
        let mut sender = client(io).await;
        let (response, mut stream) = sender
            .send_request(request(Method::POST, "http://web/"), false)
            .unwrap();
        settle().await;
        assert!(!dropped.get());

        stream.send_reset(h2::Reason::CANCEL);
        drop(response);
        settle().await;

        assert!(dropped.get());
    });
}

#[test]
fn a_request_that_the_server_refused_is_handed_back_with_its_body() {
    run(async {
        let (io, peer) = duplex(64 * 1024);
        let connection = Connection::connect(io, &Http2Options::default())
            .await
            .unwrap();
        tokio::task::spawn_local(async move {
            let mut server = h2::server::handshake(peer).await.unwrap();
            while let Some(Ok((_, mut respond))) = server.accept().await {
                respond.send_reset(h2::Reason::REFUSED_STREAM);
            }
        });

        let error = connection
            .send(grpc(Body::full("message")), &Interim::none())
            .await
            .unwrap_err();

        let request = *error.request.unwrap();
        assert_eq!(request.uri(), "http://web/pkg.Service/Method");
        assert_eq!(request.headers()["content-type"], "application/grpc");
        assert_eq!(text(request.into_body()).await, "message");
    });
}

#[test]
fn a_request_that_was_reset_otherwise_is_not_handed_back() {
    run(async {
        let (io, peer) = duplex(64 * 1024);
        let connection = Connection::connect(io, &Http2Options::default())
            .await
            .unwrap();
        tokio::task::spawn_local(async move {
            let mut server = h2::server::handshake(peer).await.unwrap();
            while let Some(Ok((_, mut respond))) = server.accept().await {
                respond.send_reset(h2::Reason::INTERNAL_ERROR);
            }
        });

        let error = connection
            .send(grpc(Body::empty()), &Interim::none())
            .await
            .unwrap_err();

        assert!(error.request.is_none());
        assert_eq!(error.reset.unwrap().code(), 2);
    });
}

#[test]
fn a_drain_lets_requests_finish_and_new_ones_go_elsewhere() {
    run(async {
        let (trigger, drain) = DrainSignal::new();
        let (pool, mut endpoint) = pool(Mode::Http2, PoolOptions::default());
        let get = |path: &'static str| {
            let pool = pool.clone();
            tokio::task::spawn_local(async move {
                let mut request = grpc(Body::full("x"));
                *request.uri_mut() = path.parse().unwrap();
                pool.send(request, Interim::none()).await
            })
        };
        let slow = get("http://web/slow");
        let (_, peer) = endpoint.accept_any().await;
        let serving = tokio::task::spawn_local(async move {
            let service = support::Answer(async |request: Request, _: Interim| {
                if request.uri().path() == "/slow" {
                    tokio::time::sleep(Duration::from_secs(5)).await;
                }
                ok("old")
            });
            tulle_http::http2::serve(peer.0, Rc::new(service), &Http2Options::default(), drain)
                .await
        });
        settle().await;

        trigger.signal();
        settle().await;
        let fresh = get("http://web/fresh");
        let (_, peer) = endpoint.accept_any().await;
        tokio::task::spawn_local(async move {
            let service = support::Answer(async |_: Request, _: Interim| ok("new"));
            tulle_http::http2::serve(
                peer.0,
                Rc::new(service),
                &Http2Options::default(),
                no_drain(),
            )
            .await
        });

        assert_eq!(text(fresh.await.unwrap().unwrap().into_body()).await, "new");
        assert_eq!(text(slow.await.unwrap().unwrap().into_body()).await, "old");
        serving.await.unwrap().unwrap();
    });
}

#[test]
fn a_server_that_falls_silent_is_left_after_interval_and_timeout() {
    run(async {
        let (io, mut peer) = duplex(64 * 1024);
        let connection = Connection::connect(io, &Http2Options::default())
            .await
            .unwrap();
        let started = tokio::time::Instant::now();
        // It reads, so that nothing blocks, and never answers.
        tokio::task::spawn_local(async move {
            let mut sink = [0; 1024];
            peer.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
            while peer.read(&mut sink).await.is_ok_and(|read| read > 0) {}
            peer
        });

        let error = connection
            .send(grpc(Body::empty()), &Interim::none())
            .await
            .unwrap_err();

        assert_eq!(started.elapsed(), Duration::from_secs(13));
        assert_eq!(error.refusal.reason, Reason::ConnectionLost);
        assert!(!connection.is_usable());
    });
}

#[test]
fn a_client_that_answers_pings_is_kept_however_long_it_is_idle() {
    run(async {
        let (io, serving) = serve_http2(async |_, _| ok("ok"), Http2Options::default(), no_drain());
        let mut sender = client(io).await;
        tokio::time::sleep(Duration::from_mins(10)).await;

        let (response, _) = sender
            .send_request(request(Method::GET, "http://web/"), true)
            .unwrap();

        assert_eq!(
            read(response.await.unwrap().into_body()).await.unwrap().0,
            "ok"
        );
        assert!(!serving.is_finished());
    });
}

#[test]
fn a_client_without_a_preface_is_left() {
    run(async {
        let (mut io, serving) =
            serve_http2(async |_, _| ok(""), Http2Options::default(), no_drain());
        io.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();

        assert!(matches!(
            serving.await.unwrap(),
            Err(ServeError::HeadTimeout)
        ));
    });
}

#[test]
fn a_connect_tunnel_crosses_from_http2_to_http2() {
    run(async {
        let (pool, mut endpoint) = pool(Mode::AsReceived, PoolOptions::default());
        let (io, _serving) = serve_http2(forward(&pool), Http2Options::default(), no_drain());
        let mut sender = client(io).await;
        let (response, mut up) = sender
            .send_request(request(Method::CONNECT, "db:5432"), false)
            .unwrap();
        up.send_data("early".into(), false).unwrap();
        let (_, peer) = endpoint.accept_any().await;
        let mut server = h2::server::handshake(peer.0).await.unwrap();
        let (connect, mut respond) = server.accept().await.unwrap().unwrap();
        tokio::task::spawn_local(async move { while server.accept().await.is_some() {} });
        assert_eq!(connect.method(), Method::CONNECT);
        assert_eq!(connect.uri().authority().unwrap(), "db:5432");

        let mut down = respond
            .send_response(http::Response::new(()), false)
            .unwrap();
        let response = response.await.unwrap();
        down.send_data("hello".into(), true).unwrap();
        assert_eq!(read(response.into_body()).await.unwrap().0, "hello");
        up.send_data(" late".into(), true).unwrap();

        assert_eq!(read(connect.into_body()).await.unwrap().0, "early late");
    });
}

#[test]
fn resets_in_great_number_end_the_connection() {
    run(async {
        let calls = Rc::new(Cell::new(0));
        let count = Rc::clone(&calls);
        let (io, serving) = serve_http2(
            async move |_, _| {
                count.set(count.get() + 1);
                std::future::pending().await
            },
            Http2Options::default(),
            no_drain(),
        );
        let mut sender = client(io).await;
        for _ in 0..10_000 {
            let Ok(ready) = sender.ready().await else {
                break;
            };
            sender = ready;
            let Ok((response, mut stream)) =
                sender.send_request(request(Method::POST, "http://web/"), false)
            else {
                break;
            };
            tokio::task::yield_now().await;
            stream.send_reset(h2::Reason::CANCEL);
            drop(response);
            if serving.is_finished() {
                break;
            }
        }

        settle().await;
        assert!(serving.is_finished());
        assert!(calls.get() < 2_000, "{}", calls.get());
    });
}

#[derive(Default)]
struct Log(RefCell<Vec<String>>);

impl Observer for Log {
    fn data(&self, bytes: usize) {
        self.0.borrow_mut().push(format!("{bytes}"));
    }

    fn end(&self, end: End<'_>) {
        self.0.borrow_mut().push(match end {
            End::Complete { trailers } => format!("complete {:?}", trailers.map(HeaderMap::len)),
            End::Failed(error) => format!("failed: {error}"),
            End::Dropped => "dropped".to_owned(),
        });
    }
}

#[test]
fn an_observer_sees_all_data_and_exactly_one_end() {
    run(async {
        let watch = |body: Body| {
            let log = Rc::new(Log::default());
            (body.observed(Rc::<Log>::clone(&log)), log)
        };

        let (body, whole) = watch(Body::full("abc"));
        collect(body).await.unwrap();
        let (body, empty) = watch(Body::empty());
        drop(body);
        let (body, unread) = watch(Body::full("abc"));
        drop(body);
        let (feed, body) = channel();
        let (body, trailed) = watch(body);
        feed.send(data("a")).unwrap();
        feed.send(Ok(Frame::trailers(HeaderMap::new()))).unwrap();
        drop(feed);
        collect(body).await.unwrap();
        let (feed, body) = channel();
        let (body, failed) = watch(body);
        feed.send(Err(BodyError::Incomplete)).unwrap();
        collect(body).await.unwrap_err();

        assert_eq!(*whole.0.borrow(), ["3", "complete None"]);
        assert_eq!(*empty.0.borrow(), ["complete None"]);
        assert_eq!(*unread.0.borrow(), ["dropped"]);
        assert_eq!(*trailed.0.borrow(), ["1", "complete Some(0)"]);
        assert_eq!(
            *failed.0.borrow(),
            ["failed: the peer closed the connection before the end of the body"]
        );
    });
}

#[test]
fn a_cookie_that_http2_has_split_is_whole_again_over_http1() {
    run(async {
        let (pool, mut endpoint) = pool(Mode::AsReceived, PoolOptions::default());
        // What an upgraded request is at the far proxy.
        let service = async move |mut request: Request, interim: Interim| {
            tulle_http::orig_proto::downgrade(&mut request).unwrap();
            forward(&pool)(request, interim).await
        };
        let (io, _serving) = serve_http2(service, Http2Options::default(), no_drain());
        let mut sender = client(io).await;
        let mut split = request(Method::GET, "http://web/");
        for (name, value) in [
            ("cookie", "a=1"),
            ("x", "y"),
            ("cookie", "b=2"),
            ("cookie", "c=3"),
        ] {
            split.headers_mut().append(name, value.parse().unwrap());
        }
        split
            .headers_mut()
            .insert("l5d-orig-proto", "HTTP/1.1".parse().unwrap());

        let _response = sender.send_request(split, true).unwrap();

        endpoint
            .accept()
            .await
            .hear("GET / HTTP/1.1\r\ncookie: a=1; b=2; c=3\r\nx: y\r\nhost: web\r\n\r\n")
            .await;
    });
}

/// A frame by hand.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;

/// `POST http://a/`, in HPACK.
const HEAD: &[u8] = &[0x83, 0x86, 0x84, 0x41, 0x01, b'a'];

/// Say the preface and then `flood`, again and again, without reading a byte. Returns how
/// many bytes were taken before nothing more was, or the server ended the connection.
async fn flood(flood: impl Fn(u32) -> Vec<u8>, first: &[u8]) -> usize {
    let (mut io, serving) = serve_http2(
        async |_, _| std::future::pending().await,
        Http2Options::default(),
        no_drain(),
    );
    io.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    io.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    io.write_all(first).await.unwrap();
    let mut taken = 0;
    for n in 0..1_000_000 {
        let bytes = flood(n);
        let written = tokio::time::timeout(Duration::from_millis(10), io.write_all(&bytes)).await;
        if !matches!(written, Ok(Ok(()))) || serving.is_finished() {
            return taken;
        }
        taken += bytes.len();
    }
    panic!("{taken} bytes were taken");
}

#[test]
fn pings_that_are_answered_to_nobody_are_not_taken_for_ever() {
    run(async {
        let taken = flood(|n| frame(PING, 0, 0, &u64::from(n).to_be_bytes()), &[]).await;
        assert!(taken < 1024 * 1024, "{taken}");
    });
}

#[test]
fn settings_that_are_acknowledged_to_nobody_are_not_taken_for_ever() {
    run(async {
        let taken = flood(|_| frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]), &[]).await;
        assert!(taken < 1024 * 1024, "{taken}");
    });
}

#[test]
fn a_head_that_never_ends_is_not_taken_for_ever() {
    run(async {
        let taken = flood(
            |_| frame(CONTINUATION, 0, 1, &[0x40, 1, b'x', 1, b'y'].repeat(1_000)),
            &frame(HEADERS, 0, 1, HEAD),
        )
        .await;
        assert!(taken < 1024 * 1024, "{taken}");
    });
}

#[test]
fn empty_data_is_not_taken_for_ever() {
    run(async {
        let taken = flood(|_| frame(DATA, 0, 1, &[]), &frame(HEADERS, 4, 1, HEAD)).await;
        assert!(taken < 1024 * 1024, "{taken}");
    });
}

#[test]
fn resets_right_behind_their_heads_end_the_connection() {
    run(async {
        let taken = flood(
            |n| {
                let stream = 2 * n + 1;
                [
                    frame(HEADERS, 4, stream, HEAD),
                    frame(3, 0, stream, &[0, 0, 0, 8]),
                ]
                .concat()
            },
            &[],
        )
        .await;
        assert!(taken < 1024 * 1024, "{taken}");
    });
}

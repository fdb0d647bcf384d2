//! Which connection a request gets, and when it may be sent a second time.

#![allow(clippy::unwrap_used, reason = "a test's panic is its report")]

mod support;

use std::{cell::Cell, rc::Rc, time::Duration};

use http::Version;
use support::{Endpoint, Peer, forward, get, pool, post, run, serve, settle, text};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::advance,
};
use tulle_core::{Reason, Refusal};
use tulle_http::{
    Interim, Request, Response, SendError,
    pool::{Connect, Mode, Pool, PoolOptions, Session},
};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

fn sending(
    pool: &Pool<impl Connect>,
    request: Request,
) -> tokio::task::JoinHandle<Result<Response, SendError>> {
    let pool = pool.clone();
    tokio::task::spawn_local(async move { pool.send(request, Interim::none()).await })
}

/// One exchange on a new connection, which is idle afterwards.
async fn warm(pool: &Pool<support::Dial>, endpoint: &mut Endpoint) -> Peer {
    let response = sending(pool, get("/warm"));
    let mut upstream = endpoint.accept().await;
    upstream
        .hear("GET /warm HTTP/1.1\r\nhost: web\r\n\r\n")
        .await;
    upstream.say(OK).await;
    assert_eq!(
        text(response.await.unwrap().unwrap().into_body()).await,
        "ok"
    );
    assert_eq!(pool.idle(), 1);
    upstream
}

async fn answer(upstream: &mut Peer, head: &str) {
    upstream.hear(head).await;
    upstream.say(OK).await;
}

const POST: &str = "POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 1\r\n\r\nx";
const GET: &str = "GET / HTTP/1.1\r\nhost: web\r\n\r\n";

#[test]
fn an_idle_connection_is_used_again() {
    run(async {
        let (pool, mut endpoint) = pool(Mode::AsReceived, PoolOptions::default());
        let mut upstream = warm(&pool, &mut endpoint).await;

        let response = sending(&pool, post("/", "x"));

        answer(&mut upstream, POST).await;
        assert_eq!(
            text(response.await.unwrap().unwrap().into_body()).await,
            "ok"
        );
        endpoint.nobody_connects().await;
    });
}

#[test]
fn beyond_the_reuse_window_only_repeatable_requests_use_a_connection() {
    run(async {
        let (pool, mut endpoint) = pool(Mode::AsReceived, PoolOptions::default());
        let mut old = warm(&pool, &mut endpoint).await;
        advance(Duration::from_millis(1001)).await;

        let first = sending(&pool, post("/", "x"));
        let mut new = endpoint.accept().await;
        answer(&mut new, POST).await;
        first.await.unwrap().unwrap();
        // The new one is idle now and would be next.
        advance(Duration::from_millis(1001)).await;
        let second = sending(&pool, get("/"));

        tokio::select! {
            () = answer(&mut new, GET) => {}
            () = answer(&mut old, GET) => panic!("the connection used last is used first"),
        }
        second.await.unwrap().unwrap();
        endpoint.nobody_connects().await;
    });
}

#[test]
fn a_connection_that_the_server_closed_while_idle_is_not_used() {
    run(async {
        let (pool, mut endpoint) = pool(Mode::AsReceived, PoolOptions::default());
        let mut old = warm(&pool, &mut endpoint).await;
        old.finish().await;
        settle().await;

        let response = sending(&pool, post("/", "x"));

        answer(&mut endpoint.accept().await, POST).await;
        response.await.unwrap().unwrap();
        old.hear_end().await;
    });
}

#[test]
fn a_connection_that_the_kernel_knows_to_be_closed_gets_no_post() {
    struct Closed(Rc<Cell<u32>>);
    impl Connect for Closed {
        type Io = tokio::io::DuplexStream;
        async fn connect(&self, _: Session) -> Result<Self::Io, Refusal> {
            self.0.set(self.0.get() + 1);
            let (io, peer) = tokio::io::duplex(4096);
            let mut peer = Peer(peer);
            tokio::task::spawn_local(async move {
                for request in [GET, GET] {
                    answer(&mut peer, request).await;
                }
                peer.hear_end().await;
            });
            Ok(io)
        }
        fn is_closed(&self, _: &Self::Io) -> bool {
            true
        }
    }
    run(async {
        let connects = Rc::new(Cell::new(0));
        let connect = Closed(Rc::clone(&connects));
        let pool = Pool::new(connect, Mode::AsReceived, PoolOptions::default());

        for _ in 0..2 {
            pool.send(get("/"), Interim::none()).await.unwrap();
        }
        let _not_answered = sending(&pool, post("/", "x"));
        settle().await;

        assert_eq!(connects.get(), 2);
    });
}

#[test]
fn a_connection_on_which_the_server_spoke_unasked_is_not_used() {
    run(async {
        let (pool, mut endpoint) = pool(Mode::AsReceived, PoolOptions::default());
        let mut old = warm(&pool, &mut endpoint).await;
        old.say("HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n")
            .await;
        settle().await;

        let response = sending(&pool, get("/"));

        answer(&mut endpoint.accept().await, GET).await;
        assert_eq!(response.await.unwrap().unwrap().status(), 200);
        old.hear_end().await;
    });
}

#[test]
fn a_connection_whose_end_was_announced_is_not_kept() {
    run(async {
        for announcement in [
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nconnection: x, CLOSE\r\ncontent-length: 2\r\n\r\nok",
            "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        ] {
            let (pool, mut endpoint) = pool(Mode::AsReceived, PoolOptions::default());
            let response = sending(&pool, get("/"));
            let mut upstream = endpoint.accept().await;
            upstream.hear(GET).await;
            upstream.say(announcement).await;

            assert_eq!(
                text(response.await.unwrap().unwrap().into_body()).await,
                "ok"
            );

            assert_eq!(pool.idle(), 0);
            upstream.hear_end().await;
        }
    });
}

#[test]
fn an_http10_server_that_keeps_alive_is_believed() {
    run(async {
        let (pool, mut endpoint) = pool(Mode::AsReceived, PoolOptions::default());
        let response = sending(&pool, get("/"));
        let mut upstream = endpoint.accept().await;
        upstream.hear(GET).await;
        upstream
            .say("HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok")
            .await;

        assert_eq!(
            text(response.await.unwrap().unwrap().into_body()).await,
            "ok"
        );

        assert_eq!(pool.idle(), 1);
    });
}

#[test]
fn a_repeatable_request_whose_connection_closes_under_it_is_sent_once_more() {
    run(async {
        let (pool, mut endpoint) = pool(Mode::AsReceived, PoolOptions::default());
        let mut old = warm(&pool, &mut endpoint).await;

        let response = sending(&pool, get("/"));
        old.hear(GET).await;
        drop(old);

        answer(&mut endpoint.accept().await, GET).await;
        response.await.unwrap().unwrap();
    });
}

#[test]
fn it_is_not_sent_a_third_time() {
    run(async {
        let (pool, mut endpoint) = pool(Mode::AsReceived, PoolOptions::default());
        let old = warm(&pool, &mut endpoint).await;

        let response = sending(&pool, get("/"));
        settle().await;
        drop(old);
        let mut second = endpoint.accept().await;
        second.hear(GET).await;
        drop(second);

        let error = response.await.unwrap().unwrap_err();
        assert_eq!(error.refusal.reason, Reason::ConnectionLost);
        assert!(error.request.is_none());
    });
}

#[test]
fn a_post_that_may_have_been_processed_is_never_sent_again() {
    run(async {
        let (pool, mut endpoint) = pool(Mode::AsReceived, PoolOptions::default());
        let mut old = warm(&pool, &mut endpoint).await;

        let response = sending(&pool, post("/", "x"));
        old.hear(POST).await;
        drop(old);

        let error = response.await.unwrap().unwrap_err();
        assert_eq!(error.refusal.reason, Reason::ConnectionLost);
        assert!(error.request.is_none());
        endpoint.nobody_connects().await;
    });
}

#[test]
fn a_request_is_not_repeated_once_the_server_has_begun_to_answer() {
    run(async {
        let (pool, mut endpoint) = pool(Mode::AsReceived, PoolOptions::default());
        let mut old = warm(&pool, &mut endpoint).await;

        let response = sending(&pool, get("/"));
        old.hear(GET).await;
        old.say("HTTP/1.1 2").await;
        settle().await;
        drop(old);

        assert!(response.await.unwrap().is_err());
        endpoint.nobody_connects().await;
    });
}

#[test]
fn a_request_that_could_not_be_sent_is_handed_back_whole() {
    run(async {
        let (pool, endpoint) = pool(Mode::AsReceived, PoolOptions::default());
        drop(endpoint);

        let error = pool
            .send(post("/p", "body"), Interim::none())
            .await
            .unwrap_err();

        assert_eq!(error.refusal.reason, Reason::ConnectFailed);
        let request = *error.request.unwrap();
        assert_eq!(request.uri(), "/p");
        assert_eq!(text(request.into_body()).await, "body");
    });
}

#[test]
fn idle_connections_end_after_the_idle_timeout() {
    run(async {
        let options = PoolOptions {
            idle_timeout: Duration::from_secs(5),
            ..PoolOptions::default()
        };
        let (pool, mut endpoint) = pool(Mode::AsReceived, options);
        let mut upstream = warm(&pool, &mut endpoint).await;
        let started = tokio::time::Instant::now();

        upstream.hear_end().await;

        assert!((5..=6).contains(&started.elapsed().as_secs()));
        assert_eq!(pool.idle(), 0);
    });
}

#[test]
fn no_more_connections_are_kept_than_wanted() {
    run(async {
        let options = PoolOptions {
            max_idle: 1,
            ..PoolOptions::default()
        };
        let (pool, mut endpoint) = pool(Mode::AsReceived, options);
        let responses = [sending(&pool, get("/")), sending(&pool, get("/"))];
        let mut first = endpoint.accept().await;
        let mut second = endpoint.accept().await;
        assert_eq!(pool.in_flight(), 2);

        answer(&mut first, GET).await;
        settle().await;
        answer(&mut second, GET).await;
        for response in responses {
            text(response.await.unwrap().unwrap().into_body()).await;
        }

        assert_eq!(pool.idle(), 1);
        assert_eq!(pool.in_flight(), 0);
        first.hear_end().await;
    });
}

#[test]
fn a_closed_pool_ends_idle_connections_now_and_busy_ones_after_their_response() {
    run(async {
        let (pool, mut endpoint) = pool(Mode::AsReceived, PoolOptions::default());
        let busy = sending(&pool, get("/"));
        let mut busy_upstream = endpoint.accept().await;
        busy_upstream.hear(GET).await;
        let mut idle_upstream = warm(&pool, &mut endpoint).await;

        pool.close();

        idle_upstream.hear_end().await;
        busy_upstream.say(OK).await;
        assert_eq!(text(busy.await.unwrap().unwrap().into_body()).await, "ok");
        busy_upstream.hear_end().await;
    });
}

#[test]
fn a_response_that_nobody_reads_to_its_end_closes_its_connection() {
    run(async {
        let (pool, mut endpoint) = pool(Mode::AsReceived, PoolOptions::default());
        let response = sending(&pool, get("/"));
        let mut upstream = endpoint.accept().await;
        upstream.hear(GET).await;
        upstream
            .say("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
            .await;
        let response = response.await.unwrap().unwrap();
        assert_eq!(pool.in_flight(), 1);

        drop(response);

        upstream.hear_end().await;
        assert_eq!((pool.idle(), pool.in_flight()), (0, 0));
    });
}

/// Serve whatever HTTP/2 connection the pool opens; counts its requests.
fn http2_upstream(peer: Peer) -> Rc<Cell<usize>> {
    let served = Rc::new(Cell::new(0));
    let count = Rc::clone(&served);
    let service = support::Answer(async move |mut request: Request, _: Interim| {
        count.set(count.get() + 1);
        let orig = tulle_http::orig_proto::downgrade(&mut request).unwrap();
        assert_eq!(request.version(), Version::HTTP_11);
        assert_eq!(request.headers()["host"], "web");
        let mut response = support::ok(request.uri().to_string());
        orig.mark(&mut response);
        response
    });
    tokio::task::spawn_local(async move {
        let options = tulle_http::http2::Http2Options::default();
        let (_, drain) = tulle_http::DrainSignal::new();
        tulle_http::http2::serve(peer.0, Rc::new(service), &options, drain).await
    });
    served
}

#[test]
fn http1_requests_move_to_http2_above_the_limit_and_back_below_half_of_it() {
    run(async {
        let options = PoolOptions {
            h2_above: 4,
            ..PoolOptions::default()
        };
        let (pool, mut endpoint) = pool(Mode::Adaptive, options);

        let waiting: Vec<_> = (0..4).map(|_| sending(&pool, get("/"))).collect();
        let mut upstreams = Vec::new();
        for _ in 0..4 {
            upstreams.push(endpoint.accept().await);
        }
        let above = sending(&pool, get("/above"));
        let (session, peer) = endpoint.accept_any().await;
        assert_eq!(session, Session::Http2);
        let served = http2_upstream(peer);

        let above = above.await.unwrap().unwrap();
        assert_eq!(above.version(), Version::HTTP_11);
        assert!(!above.headers().contains_key("l5d-orig-proto"));
        assert_eq!(text(above.into_body()).await, "/above");
        assert_eq!(served.get(), 1);

        // An upgrade stays on HTTP/1, whatever the load.
        let mut upgrade = get("/ws");
        upgrade
            .headers_mut()
            .insert("upgrade", "websocket".parse().unwrap());
        let upgrade = sending(&pool, upgrade);
        endpoint.accept().await.hear("GET /ws HTTP/1.1\r\n").await;
        upgrade.abort();
        settle().await;

        for upstream in &mut upstreams[..3] {
            answer(upstream, GET).await;
        }
        settle().await;
        let below = sending(&pool, get("/"));
        let mut reused = false;
        for upstream in &mut upstreams[..3] {
            settle().await;
            let mut one = [0; 1];
            let read = tokio::time::timeout(
                Duration::from_millis(1),
                tokio::io::AsyncReadExt::read(&mut upstream.0, &mut one),
            );
            if read.await.is_ok() {
                upstream.say(OK).await;
                reused = true;
            }
        }
        assert!(reused);
        below.await.unwrap().unwrap();
        assert_eq!(served.get(), 1);
        drop(waiting);
    });
}

#[test]
fn an_http1_client_does_not_notice_that_http2_carries_its_requests() {
    run(async {
        let (pool, mut endpoint) = pool(Mode::Http2, PoolOptions::default());
        let mut server = serve(forward(&pool));

        server
            .client
            .say("GET /1 HTTP/1.1\r\nhost: web\r\n\r\n")
            .await;
        let (_, peer) = endpoint.accept_any().await;
        let requests = http2_upstream(peer);
        server
            .client
            .hear("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n/1")
            .await;
        server
            .client
            .say("GET http://web/2 HTTP/1.1\r\nhost: web\r\n\r\n")
            .await;

        server
            .client
            .hear("HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\nhttp://web/2")
            .await;
        assert_eq!(requests.get(), 2);
        endpoint.nobody_connects().await;
    });
}

#[test]
fn one_connection_attempt_serves_all_who_wait_and_its_failure_is_told_to_all() {
    run(async {
        let (pool, endpoint) = pool(Mode::Http2, PoolOptions::default());
        drop(endpoint);

        let waiting: Vec<_> = (0..3).map(|_| sending(&pool, get("/back"))).collect();

        for response in waiting {
            let error = response.await.unwrap().unwrap_err();
            assert_eq!(error.refusal.reason, Reason::ConnectFailed);
            let request = error.request.unwrap();
            assert_eq!(request.version(), Version::HTTP_11);
            assert_eq!(request.uri(), "/back");
            assert_eq!(request.headers()["host"], "web");
            assert!(!request.headers().contains_key("l5d-orig-proto"));
        }
    });
}

#[test]
fn connections_that_end_as_soon_as_they_are_made_are_not_made_for_ever() {
    struct Ends(Rc<Cell<u32>>);
    impl Connect for Ends {
        type Io = tokio::io::DuplexStream;
        async fn connect(&self, _: Session) -> Result<Self::Io, Refusal> {
            self.0.set(self.0.get() + 1);
            if self.0.get() > 100 {
                return Err(Refusal::new(Reason::ConnectFailed, "enough"));
            }
            let (io, mut peer) = tokio::io::duplex(4096);
            peer.shutdown().await.unwrap();
            tokio::task::spawn_local(async move { peer.read_to_end(&mut Vec::new()).await });
            Ok(io)
        }
    }
    run(async {
        let connects = Rc::new(Cell::new(0));
        let connect = Ends(Rc::clone(&connects));
        let pool = Pool::new(connect, Mode::Http2, PoolOptions::default());

        let error = pool.send(get("/"), Interim::none()).await.unwrap_err();

        assert!(connects.get() < 10, "{}", connects.get());
        assert!(error.request.is_some());
    });
}

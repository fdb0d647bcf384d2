//! Request bodies that are sent again, and exchanges that end in time.

#![allow(clippy::unwrap_used, reason = "a test's panic is its report")]

mod support;

use std::{future::poll_fn, pin::Pin, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Version};
use http_body::{Body as _, Frame};
use support::{channel, collect, data, run, settle};
use tokio::{
    io::{DuplexStream, duplex},
    task::spawn_local,
    time::Instant,
};
use tulle_core::Reason;
use tulle_http::{
    Body, BodyError, Expired, Interim, Limits, Patience, Replay, Request, Timer,
    http2::{Connection, Http2Options},
};

fn post(body: Body) -> Request {
    let mut request = http::Request::new(body);
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = "http://web/".parse().unwrap();
    request
}

fn trailers() -> HeaderMap {
    HeaderMap::from_iter([(
        http::HeaderName::from_static("x-sum"),
        http::HeaderValue::from_static("1"),
    )])
}

async fn next(body: &mut Body) -> Option<Result<Frame<Bytes>, BodyError>> {
    poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
}

/// A server that refuses each stream after it has seen some of its body.
async fn refuses(io: DuplexStream) {
    let mut server = h2::server::handshake(io).await.unwrap();
    while let Some(Ok((request, mut respond))) = server.accept().await {
        let mut body = request.into_body();
        spawn_local(async move {
            assert_eq!(body.data().await.unwrap().unwrap(), "first");
            respond.send_reset(h2::Reason::REFUSED_STREAM);
        });
    }
}

/// A server that echoes body and trailers.
async fn echoes(io: DuplexStream) {
    let mut server = h2::server::handshake(io).await.unwrap();
    while let Some(Ok((request, mut respond))) = server.accept().await {
        let mut body = request.into_body();
        spawn_local(async move {
            let mut answer = respond
                .send_response(http::Response::new(()), false)
                .unwrap();
            while let Some(piece) = body.data().await {
                answer.send_data(piece.unwrap(), false).unwrap();
            }
            answer
                .send_trailers(body.trailers().await.unwrap().unwrap())
                .unwrap();
        });
    }
}

async fn connect(server: DuplexStream) -> Connection {
    Connection::connect(server, &Http2Options::default())
        .await
        .unwrap()
}

/// The stock proxy sends it twice.
#[test]
fn the_first_chunk_is_sent_once_after_refused_stream() {
    run(async {
        let (near, far) = duplex(64 * 1024);
        spawn_local(refuses(far));
        let refusing = connect(near).await;
        let (near, far) = duplex(64 * 1024);
        spawn_local(echoes(far));
        let echoing = connect(near).await;
        let (feed, body) = channel();
        let (body, _replay) = Replay::new(body, 64 * 1024);
        feed.send(data("first")).unwrap();

        let error = refusing
            .send(post(body), &Interim::none())
            .await
            .unwrap_err();
        let again = *error.request.expect("nothing of the body is lost");
        spawn_local(async move {
            // The rest comes while the second try is on its way.
            settle().await;
            feed.send(data("second")).unwrap();
            feed.send(Ok(Frame::trailers(trailers()))).unwrap();
        });
        let response = echoing.send(again, &Interim::none()).await.unwrap();

        let echo = collect(response.into_body()).await.unwrap();
        assert_eq!(echo, (Bytes::from("firstsecond"), Some(trailers())));
    });
}

#[test]
fn a_request_is_not_handed_back_where_its_body_was_not_kept() {
    run(async {
        let (near, far) = duplex(64 * 1024);
        spawn_local(refuses(far));
        let refusing = connect(near).await;
        let (feed, body) = channel();
        let (body, replay) = Replay::new(body, 4);
        feed.send(data("first")).unwrap();

        let error = refusing
            .send(post(body), &Interim::none())
            .await
            .unwrap_err();

        assert!(error.request.is_none());
        assert!(replay.again().is_none());
    });
}

#[test]
fn a_reader_that_was_superseded_reads_nothing_any_more() {
    run(async {
        let (feed, body) = channel();
        let (mut old, replay) = Replay::new(body, 64);
        feed.send(data("one")).unwrap();
        assert!(next(&mut old).await.unwrap().is_ok());

        let mut new = replay.again().unwrap();
        feed.send(data("two")).unwrap();

        assert!(matches!(next(&mut old).await, Some(Err(BodyError::Gone))));
        drop(feed);
        let (all, _) = collect(std::mem::take(&mut new)).await.unwrap();
        assert_eq!(all, "onetwo");
    });
}

#[test]
fn a_stream_that_goes_on_when_it_is_answered_keeps_nothing() {
    run(async {
        let (feed, body) = channel();
        let (mut first, replay) = Replay::new(body, 64);
        feed.send(data("one")).unwrap();
        assert!(next(&mut first).await.unwrap().is_ok());
        let mut second = replay.again().unwrap();

        replay.release();
        assert!(format!("{replay:?}").contains("kept: 3"), "{replay:?}");
        feed.send(data("two")).unwrap();
        assert!(next(&mut second).await.unwrap().is_ok());
        assert!(next(&mut second).await.unwrap().is_ok());

        assert!(format!("{replay:?}").contains("kept: 0"), "{replay:?}");
        assert!(replay.again().is_none());
        feed.send(Ok(Frame::trailers(trailers()))).unwrap();
        let rest = collect(second).await.unwrap();
        assert_eq!(rest, (Bytes::new(), Some(trailers())));

        let (feed, body) = channel();
        let (mut only, replay) = Replay::new(body, 64);
        feed.send(data("one")).unwrap();
        assert!(next(&mut only).await.unwrap().is_ok());

        replay.release();

        assert!(format!("{replay:?}").contains("kept: 0"), "{replay:?}");
    });
}

#[test]
fn a_snapshot_is_a_copy_of_its_own_of_what_has_come_in_whole() {
    run(async {
        let (feed, body) = channel();
        let (mut body, replay) = Replay::new(body, 64);
        feed.send(data("one")).unwrap();
        assert!(next(&mut body).await.unwrap().is_ok());
        assert!(replay.snapshot().is_none(), "more may come");
        feed.send(Ok(Frame::trailers(trailers()))).unwrap();
        assert!(next(&mut body).await.unwrap().is_ok());

        let copies = [replay.snapshot().unwrap(), replay.snapshot().unwrap()];
        replay.release();
        drop((body, replay));

        for copy in copies {
            let whole = collect(copy).await.unwrap();
            assert_eq!(whole, (Bytes::from("one"), Some(trailers())));
        }
    });
}

#[test]
fn a_client_that_sends_single_bytes_costs_no_more_than_they_do() {
    run(async {
        let (feed, body) = channel();
        let (mut body, replay) = Replay::new(body, 64 * 1024);
        for _ in 0..60_000 {
            feed.send(data("x")).unwrap();
        }
        drop(feed);
        while next(&mut body).await.is_some() {}

        let mut again = replay.again().unwrap();

        // One piece, and not one for each.
        let all = next(&mut again).await.unwrap().unwrap();
        assert_eq!(all.into_data().unwrap().len(), 60_000);
        assert!(next(&mut again).await.is_none());
    });
}

fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_response_that_does_not_end_in_time_fails_with_the_reason() {
    type Limit = fn(&mut Limits);
    let cases: [(Limit, Reason); 4] = [
        (
            |all| all.request = Some((Instant::now(), SECOND)),
            Reason::Timeout,
        ),
        (
            |all| all.attempt = Some((Instant::now(), SECOND)),
            Reason::BackendTimeout,
        ),
        (|all| all.response = Some(SECOND), Reason::ResponseTimeout),
        (|all| all.idle = Some(SECOND), Reason::IdleTimeout),
    ];
    run(async {
        for (limit, reason) in cases {
            let (feed, body) = channel();
            let begun = Instant::now();
            let mut body = Timer::new(limits(limit), None).after_head(body);
            feed.send(data("x")).unwrap();
            assert!(next(&mut body).await.unwrap().is_ok());

            let Some(Err(BodyError::Refused(refusal))) = next(&mut body).await else {
                panic!("no refusal");
            };

            assert_eq!(refusal.reason, reason);
            assert_eq!(begun.elapsed(), SECOND, "{reason:?}");
            assert!(feed.is_closed(), "the server is let go of");
        }
    });
}

#[test]
fn trailers_are_seen_behind_one_frame_and_nothing_is_lost_by_looking() {
    run(async {
        let (feed, body) = channel();
        feed.send(data("x")).unwrap();
        feed.send(Ok(Frame::trailers(trailers()))).unwrap();
        drop(feed);

        let (seen, body) = body.peek_trailers().await;

        assert_eq!(seen, Some(trailers()));
        let whole = collect(body).await.unwrap();
        assert_eq!(whole, (Bytes::from("x"), Some(trailers())));

        let (feed, body) = channel();
        feed.send(data("x")).unwrap();
        let (seen, body) = body.peek_trailers().await;
        assert_eq!(seen, None, "a stream goes on, and is not waited for");
        feed.send(data("y")).unwrap();
        drop(feed);
        assert_eq!(collect(body).await.unwrap().0, "xy");
    });
}

#[test]
fn frames_in_either_direction_keep_an_exchange_from_being_idle() {
    run(async {
        let (feed, upload) = channel();
        let (mut upload, replay) = Replay::new(upload, 0);
        let (answers, body) = channel();
        let idle = limits(|all| all.idle = Some(SECOND));
        let mut body = Timer::new(idle, Some(replay)).after_head(body);
        let begun = Instant::now();
        spawn_local(async move {
            for _ in 0..3 {
                tokio::time::sleep(SECOND * 3 / 4).await;
                feed.send(data("x")).unwrap();
                next(&mut upload).await.unwrap().unwrap();
            }
            tokio::time::sleep(SECOND * 3 / 4).await;
            answers.send(data("x")).unwrap();
            std::future::pending::<()>().await;
        });

        assert!(next(&mut body).await.unwrap().is_ok());
        assert_eq!(begun.elapsed(), SECOND * 3);
        assert!(matches!(
            next(&mut body).await,
            Some(Err(BodyError::Refused(_)))
        ));
        assert_eq!(begun.elapsed(), SECOND * 4);
    });
}

#[test]
fn the_time_for_a_response_begins_when_the_request_has_ended() {
    run(async {
        let (feed, upload) = channel();
        let (mut upload, replay) = Replay::new(upload, 0);
        spawn_local(async move {
            tokio::time::sleep(SECOND * 10).await;
            drop(feed);
            assert!(next(&mut upload).await.is_none());
            std::future::pending::<()>().await;
        });
        let response = limits(|all| all.response = Some(SECOND));
        let mut timer = Timer::new(response, Some(replay));
        let begun = Instant::now();

        // Whoever sends the request is what is waited for, and looks now and then.
        let expired = timer
            .within(async {
                loop {
                    tokio::time::sleep(SECOND / 10).await;
                }
            })
            .await;

        assert_eq!(expired, Err::<(), _>(Expired::Response(SECOND)));
        assert_eq!(begun.elapsed(), SECOND * 11);
    });
}

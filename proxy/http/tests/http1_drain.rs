//! What a drain does to connections.

#![allow(clippy::unwrap_used, reason = "a test's panic is its report")]

mod support;

use std::time::Duration;

use support::{ok, run, serve_with, settle};
use tulle_http::{DrainSignal, http1::Http1Options};

const REQUEST: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

#[test]
fn an_idle_connection_serves_one_more_request_and_is_told_to_end() {
    run(async {
        let (trigger, drain) = DrainSignal::new();
        let mut server = serve_with(async |_, _| ok("ok"), Http1Options::default(), drain);
        server.client.say(REQUEST).await;
        server
            .client
            .hear("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            .await;

        trigger.signal();
        server.client.hear_nothing().await;
        server.client.say(REQUEST).await;

        server
            .client
            .hear("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
            .await;
        server.client.hear_end().await;
        server.serving.await.unwrap().unwrap();
    });
}

#[test]
fn an_idle_connection_is_closed_at_the_end_of_the_grace() {
    run(async {
        let (trigger, drain) = DrainSignal::new();
        let mut server = serve_with(async |_, _| ok("ok"), Http1Options::default(), drain);
        settle().await;
        let started = tokio::time::Instant::now();

        trigger.drain(Duration::from_secs(30)).await;

        server.client.hear_end().await;
        server.serving.await.unwrap().unwrap();
        assert_eq!(started.elapsed(), Duration::from_secs(30));
    });
}

#[test]
fn a_request_in_progress_is_finished() {
    run(async {
        let (trigger, drain) = DrainSignal::new();
        let mut server = serve_with(
            async |_, _| {
                tokio::time::sleep(Duration::from_secs(5)).await;
                ok("ok")
            },
            Http1Options::default(),
            drain,
        );
        server.client.say(REQUEST).await;
        settle().await;

        trigger.drain(Duration::from_secs(30)).await;

        server
            .client
            .hear("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
            .await;
        server.client.hear_end().await;
    });
}

#[test]
fn a_client_may_be_idle_only_so_long_where_that_is_limited() {
    run(async {
        let options = Http1Options {
            idle_timeout: Some(Duration::from_mins(1)),
            ..Http1Options::default()
        };
        let mut server = serve_with(async |_, _| ok("ok"), options, DrainSignal::new().1);
        let started = tokio::time::Instant::now();
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(50)).await;
            server.client.say(REQUEST).await;
            server
                .client
                .hear("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                .await;
        }

        server.client.hear_end().await;

        assert_eq!(started.elapsed(), Duration::from_secs(210));
    });
}

//! What must be refused, because two readers could understand it differently.

#![allow(clippy::unwrap_used, reason = "a test's panic is its report")]

mod support;

use std::{cell::Cell, rc::Rc};

use support::{Peer, forward, ok, pool, proxy, run, serve};
use tulle_http::{
    ServeError,
    pool::{Mode, PoolOptions},
};

/// Each is refused with 400 and is the last thing heard on its connection.
const REQUESTS: &[(&str, &str)] = &[
    (
        "both lengths",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "both lengths, other order",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n",
    ),
    (
        "two lengths",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
    ),
    (
        "the same length twice",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\nabc",
    ),
    (
        "a list of lengths",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3, 3\r\n\r\nabc",
    ),
    (
        "a signed length",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +3\r\n\r\nabc",
    ),
    (
        "a negative length",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -3\r\n\r\nabc",
    ),
    (
        "a hexadecimal length",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0x3\r\n\r\nabc",
    ),
    (
        "an empty length",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length:\r\n\r\nabc",
    ),
    (
        "a length that overflows",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 18446744073709551617\r\n\r\na",
    ),
    (
        "another transfer coding",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\n",
    ),
    (
        "a list of transfer codings",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked twice",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked with a parameter",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked behind a vertical tab",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "transfer-encoding on HTTP/1.0",
        "POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "bare LF after the request line",
        "GET / HTTP/1.1\nhost: a\r\n\r\n",
    ),
    (
        "bare LF after a header",
        "GET / HTTP/1.1\r\nhost: a\nx: 1\r\n\r\n",
    ),
    (
        "bare LF at the end of the head",
        "GET / HTTP/1.1\r\nhost: a\r\n\n",
    ),
    (
        "bare LF after blanks",
        "GET / HTTP/1.1\r\nhost: a \t\nx: 1\r\n\r\n",
    ),
    (
        "bare LF after an empty header",
        "GET / HTTP/1.1\r\nhost: a\r\nx:\ny: 1\r\n\r\n",
    ),
    (
        "bare LF before the request line",
        "\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
    ),
    (
        "many empty lines first",
        "\r\n\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
    ),
    (
        "bare CR in a value",
        "GET / HTTP/1.1\r\nhost: a\r\nx: 1\r2\r\n\r\n",
    ),
    (
        "bare CR in the request line",
        "GET /\r HTTP/1.1\r\nhost: a\r\n\r\n",
    ),
    (
        "a folded header",
        "GET / HTTP/1.1\r\nhost: a\r\nx: 1\r\n 2\r\n\r\n",
    ),
    (
        "a folded first header",
        "GET / HTTP/1.1\r\n host: a\r\n\r\n",
    ),
    (
        "NUL in a value",
        "GET / HTTP/1.1\r\nhost: a\r\nx: 1\x002\r\n\r\n",
    ),
    (
        "a control character in a value",
        "GET / HTTP/1.1\r\nhost: a\r\nx: 1\x012\r\n\r\n",
    ),
    (
        "DEL in a value",
        "GET / HTTP/1.1\r\nhost: a\r\nx: 1\x7f2\r\n\r\n",
    ),
    (
        "a space before the colon",
        "GET / HTTP/1.1\r\nhost : a\r\n\r\n",
    ),
    (
        "a tab before the colon",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length\t: 3\r\n\r\nabc",
    ),
    (
        "a header without a name",
        "GET / HTTP/1.1\r\nhost: a\r\n: x\r\n\r\n",
    ),
    (
        "a header without a colon",
        "GET / HTTP/1.1\r\nhost: a\r\nx\r\n\r\n",
    ),
    (
        "a name with a separator",
        "GET / HTTP/1.1\r\nhost: a\r\nx(y): 1\r\n\r\n",
    ),
    (
        "a name that is not ASCII",
        "GET / HTTP/1.1\r\nhost: a\r\nn\u{e4}me: 1\r\n\r\n",
    ),
    ("no host", "GET / HTTP/1.1\r\nx: 1\r\n\r\n"),
    ("two hosts", "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n"),
    (
        "the same host twice",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n",
    ),
    ("a host with a path", "GET / HTTP/1.1\r\nhost: a/b\r\n\r\n"),
    (
        "a host with user information",
        "GET / HTTP/1.1\r\nhost: b@a\r\n\r\n",
    ),
    ("a list of hosts", "GET / HTTP/1.1\r\nhost: a, b\r\n\r\n"),
    (
        "a port that is none",
        "GET / HTTP/1.1\r\nhost: a:80x\r\n\r\n",
    ),
    ("no target", "GET  HTTP/1.1\r\nhost: a\r\n\r\n"),
    (
        "two spaces after the method",
        "GET  / HTTP/1.1\r\nhost: a\r\n\r\n",
    ),
    (
        "two spaces after the target",
        "GET /  HTTP/1.1\r\nhost: a\r\n\r\n",
    ),
    (
        "a space in the target",
        "GET /a b HTTP/1.1\r\nhost: a\r\n\r\n",
    ),
    ("a relative target", "GET a HTTP/1.1\r\nhost: a\r\n\r\n"),
    (
        "an asterisk without OPTIONS",
        "GET * HTTP/1.1\r\nhost: a\r\n\r\n",
    ),
    ("a fragment", "GET /a#b HTTP/1.1\r\nhost: a\r\n\r\n"),
    (
        "a target of another scheme",
        "GET ftp://a/ HTTP/1.1\r\nhost: a\r\n\r\n",
    ),
    (
        "user information in the target",
        "GET http://b@a/ HTTP/1.1\r\nhost: a\r\n\r\n",
    ),
    (
        "an absolute target without a host",
        "GET http:///x HTTP/1.1\r\nhost: a\r\n\r\n",
    ),
    (
        "CONNECT to a path",
        "CONNECT /x HTTP/1.1\r\nhost: a\r\n\r\n",
    ),
    (
        "CONNECT without a port",
        "CONNECT a HTTP/1.1\r\nhost: a\r\n\r\n",
    ),
    (
        "CONNECT with a body",
        "CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\ncontent-length: 1\r\n\r\nx",
    ),
    ("an unknown version", "GET / HTTP/1.2\r\nhost: a\r\n\r\n"),
    ("HTTP/2 in words", "GET / HTTP/2.0\r\nhost: a\r\n\r\n"),
    ("HTTP/0.9", "GET /\r\n\r\n"),
    (
        "a version in lower case",
        "GET / http/1.1\r\nhost: a\r\n\r\n",
    ),
    (
        "a method that is no token",
        "G(T / HTTP/1.1\r\nhost: a\r\n\r\n",
    ),
    ("TLS", "\x16\x03\x01\x02\x00\x01\r\n\r\n"),
    ("a response", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
];

#[test]
fn a_malformed_request_is_refused_and_never_forwarded() {
    for (what, request) in REQUESTS {
        run(async {
            let called = Rc::new(Cell::new(false));
            let sees = Rc::clone(&called);
            let mut server = serve(async move |_, _| {
                sees.set(true);
                ok("")
            });

            server.client.say(request).await;
            server
                .client
                .say("GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n")
                .await;
            server.client.finish().await;

            let heard = server.client.hear_all().await;
            let error = server.serving.await.unwrap().unwrap_err();
            assert!(
                heard.starts_with("HTTP/1.1 400 Bad Request\r\n"),
                "{what}: {heard}"
            );
            assert!(
                heard.contains("\r\ntulle-reason: bad_request\r\n"),
                "{what}: {heard}"
            );
            assert!(
                heard.contains("\r\nconnection: close\r\n"),
                "{what}: {heard}"
            );
            assert!(heard.ends_with("\r\n\r\n"), "{what}: {heard}");
            assert!(matches!(error, ServeError::Malformed(_)), "{what}: {error}");
            assert!(!called.get(), "{what}: forwarded");
        });
    }
}

/// Each breaks the framing after the head; the request is on its way by then.
const BODIES: &[(&str, &str)] = &[
    ("no size", "\r\nabc\r\n0\r\n\r\n"),
    ("a size that is none", "x\r\nabc\r\n0\r\n\r\n"),
    ("a signed size", "+3\r\nabc\r\n0\r\n\r\n"),
    ("a size with a prefix", "0x3\r\nabc\r\n0\r\n\r\n"),
    (
        "a size that overflows",
        "10000000000000003\r\nabc\r\n0\r\n\r\n",
    ),
    ("a bare LF after the size", "3\nabc\r\n0\r\n\r\n"),
    ("a bare CR in an extension", "3;a\rb\r\nabc\r\n0\r\n\r\n"),
    ("a bare LF in an extension", "3;a\nabc\r\n0\r\n\r\n"),
    ("a blank before the size", " 3\r\nabc\r\n0\r\n\r\n"),
    ("a long chunk", "3\r\nabcd\r\n0\r\n\r\n"),
    ("a bare LF after a chunk", "3\r\nabc\n0\r\n\r\n"),
    ("a malformed trailer", "3\r\nabc\r\n0\r\nx y: 1\r\n\r\n"),
    ("a folded trailer", "3\r\nabc\r\n0\r\nx: 1\r\n 2\r\n\r\n"),
    ("a bare LF after a trailer", "3\r\nabc\r\n0\r\nx: 1\n\r\n"),
];

#[test]
fn a_malformed_body_is_refused_and_ends_both_connections() {
    for (what, body) in BODIES {
        run(async {
            let (mut server, mut endpoint) = proxy();

            server
                .client
                .say("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
                .await;
            let mut upstream = endpoint.accept().await;
            server.client.say(body).await;
            server
                .client
                .say("GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n")
                .await;

            let heard = server.client.hear_all().await;
            assert!(
                heard.starts_with("HTTP/1.1 400 Bad Request\r\n"),
                "{what}: {heard}"
            );
            let forwarded = upstream.hear_all().await;
            assert!(
                !forwarded.contains("0\r\n\r\n"),
                "{what}: made whole: {forwarded}"
            );
            endpoint.nobody_connects().await;
        });
    }
}

#[test]
fn endless_chunk_extensions_are_refused() {
    run(async {
        let (mut server, mut endpoint) = proxy();

        server
            .client
            .say("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
            .await;
        let _upstream = endpoint.accept().await;
        for _ in 0..200 {
            server
                .client
                .say(format!("1;{}\r\nx\r\n", "e".repeat(200)))
                .await;
        }

        assert!(server.client.hear_all().await.starts_with("HTTP/1.1 400 "));
    });
}

#[test]
fn a_head_beyond_the_limits_is_refused_with_431() {
    let long = format!(
        "GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n",
        "y".repeat(70_000)
    );
    let many = format!(
        "GET / HTTP/1.1\r\nhost: a\r\n{}\r\n",
        "x: y\r\n".repeat(200)
    );
    let endless = format!("GET /{}", "a".repeat(80_000));
    for request in [long, many, endless] {
        run(async {
            let mut server = serve(async |_, _| ok(""));

            server.client.say(request).await;

            let heard = server.client.hear_all().await;
            assert!(heard.starts_with("HTTP/1.1 431 "), "{heard}");
            assert!(
                heard.contains("\r\ntulle-reason: headers_too_large\r\n"),
                "{heard}"
            );
        });
    }
}

#[test]
fn a_client_that_does_not_finish_its_head_is_told_and_left() {
    run(async {
        let mut server = serve(async |_, _| ok(""));
        let started = tokio::time::Instant::now();

        server.client.say("GET / HTTP/1.1\r\nho").await;

        let heard = server.client.hear_all().await;
        assert_eq!(started.elapsed().as_secs(), 10);
        assert!(heard.starts_with("HTTP/1.1 408 "), "{heard}");
        assert!(heard.contains("\r\ntulle-reason: head_timeout\r\n"));
        assert!(matches!(
            server.serving.await.unwrap(),
            Err(ServeError::HeadTimeout)
        ));
    });
}

#[test]
fn a_head_may_come_byte_by_byte() {
    run(async {
        let mut server = serve(async |request, _| ok(request.uri().path().to_owned()));

        for byte in b"\r\nGET /slow HTTP/1.1\r\nHost: a\r\nX:\r\nY: \t z \t\r\n\r\n" {
            server.client.say([*byte]).await;
            support::settle().await;
        }

        server
            .client
            .hear("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n/slow")
            .await;
    });
}

/// Each is answered with 502 instead, and its connection is closed.
const RESPONSES: &[(&str, &str)] = &[
    (
        "both lengths",
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "two lengths",
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
    ),
    (
        "a list of lengths",
        "HTTP/1.1 200 OK\r\ncontent-length: 3, 3\r\n\r\nabc",
    ),
    (
        "a length that is none",
        "HTTP/1.1 200 OK\r\ncontent-length: three\r\n\r\nabc",
    ),
    (
        "another transfer coding",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "transfer-encoding on HTTP/1.0",
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "bare LF after the status line",
        "HTTP/1.1 200 OK\ncontent-length: 0\r\n\r\n",
    ),
    (
        "bare LF after a header",
        "HTTP/1.1 200 OK\r\ncontent-length: 0\nx: 1\r\n\r\n",
    ),
    ("bare CR in a value", "HTTP/1.1 200 OK\r\nx: 1\r2\r\n\r\n"),
    ("a folded header", "HTTP/1.1 200 OK\r\nx: 1\r\n 2\r\n\r\n"),
    ("NUL in a value", "HTTP/1.1 200 OK\r\nx: 1\x002\r\n\r\n"),
    (
        "a space before the colon",
        "HTTP/1.1 200 OK\r\ncontent-length : 0\r\n\r\n",
    ),
    (
        "an unasked 101",
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
    ),
    ("a status that is none", "HTTP/1.1 20 OK\r\n\r\n"),
    ("a status of four digits", "HTTP/1.1 2000 OK\r\n\r\n"),
    ("not HTTP", "SSH-2.0-OpenSSH_9.2\r\n\r\n"),
    (
        "an empty line first",
        "\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    ),
    ("a request", "GET / HTTP/1.1\r\nhost: a\r\n\r\n"),
];

async fn answered_with(response: &str) -> (String, Peer) {
    let (mut server, mut endpoint) = proxy();
    server.client.say("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut upstream = endpoint.accept().await;
    upstream.hear("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    upstream.say(response).await;
    (server.client.hear_all().await, upstream)
}

#[test]
fn a_malformed_response_becomes_502() {
    for (what, response) in RESPONSES {
        run(async {
            let (heard, mut upstream) = answered_with(response).await;

            assert!(
                heard.starts_with("HTTP/1.1 502 Bad Gateway\r\n"),
                "{what}: {heard}"
            );
            assert!(
                heard.contains("\r\ntulle-reason: bad_response\r\n"),
                "{what}: {heard}"
            );
            upstream.hear_end().await;
        });
    }
}

#[test]
fn a_response_head_beyond_the_limits_becomes_502() {
    let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(70_000));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(200));
    let hints = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100);
    for response in [long, many, hints] {
        run(async {
            let (heard, _upstream) = answered_with(&response).await;

            assert!(heard.contains("HTTP/1.1 502 Bad Gateway\r\n"), "{heard}");
        });
    }
}

#[test]
fn bytes_behind_a_response_never_become_the_next_one() {
    run(async {
        let (mut server, mut endpoint) = proxy();
        server
            .client
            .say("GET /1 HTTP/1.1\r\nhost: a\r\n\r\n")
            .await;
        let mut upstream = endpoint.accept().await;
        upstream
            .say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")
            .await;
        server
            .client
            .hear("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            .await;

        server
            .client
            .say("GET /2 HTTP/1.1\r\nhost: a\r\n\r\n")
            .await;

        let mut second = endpoint.accept().await;
        second.hear("GET /2 HTTP/1.1\r\nhost: a\r\n\r\n").await;
        second
            .say("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood")
            .await;
        server
            .client
            .hear("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood")
            .await;
    });
}

#[test]
fn a_body_behind_204_never_becomes_the_next_response() {
    run(async {
        let (pool, mut endpoint) = pool(Mode::AsReceived, PoolOptions::default());
        let mut server = serve(forward(&pool));
        server
            .client
            .say("GET /1 HTTP/1.1\r\nhost: a\r\n\r\n")
            .await;
        let mut upstream = endpoint.accept().await;
        upstream
            .say("HTTP/1.1 204 No Content\r\ncontent-length: 4\r\n\r\n")
            .await;
        server.client.hear("HTTP/1.1 204 No Content\r\n\r\n").await;

        assert_eq!(pool.idle(), 0);
    });
}

//! Dialogues through the whole HTTP/1 path: client, server codec, pool, client codec, server.

#![allow(clippy::unwrap_used, reason = "a test's panic is its report")]

mod support;

use support::{proxy, run};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[test]
fn a_request_and_its_response_travel_unchanged() {
    run(async {
        let (mut server, mut endpoint) = proxy();

        server
            .client
            .say("GET /a?b=c HTTP/1.1\r\nHost: web\r\nX-First: 1\r\nAccept: */*\r\n\r\n")
            .await;

        let mut upstream = endpoint.accept().await;
        upstream
            .hear("GET /a?b=c HTTP/1.1\r\nhost: web\r\nx-first: 1\r\naccept: */*\r\n\r\n")
            .await;
        upstream
            .say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Answer: 42\r\n\r\nhello")
            .await;
        server
            .client
            .hear("HTTP/1.1 200 OK\r\nx-answer: 42\r\ncontent-length: 5\r\n\r\nhello")
            .await;
    });
}

#[test]
fn both_connections_are_kept() {
    run(async {
        let (mut server, mut endpoint) = proxy();
        server
            .client
            .say("GET /1 HTTP/1.1\r\nhost: web\r\n\r\n")
            .await;
        let mut upstream = endpoint.accept().await;

        for next in ["/2", "/3", "/4"] {
            upstream.0.flush_request().await;
            upstream
                .say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                .await;
            server
                .client
                .hear("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                .await;
            server
                .client
                .say(format!("GET {next} HTTP/1.1\r\nhost: web\r\n\r\n"))
                .await;
        }

        endpoint.nobody_connects().await;
    });
}

trait FlushRequest {
    async fn flush_request(&mut self);
}

impl FlushRequest for tokio::io::DuplexStream {
    /// Read up to the end of a head.
    async fn flush_request(&mut self) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.read_u8().await.unwrap());
        }
    }
}

#[test]
fn a_chunked_body_with_trailers_travels_both_ways() {
    run(async {
        let (mut server, mut endpoint) = proxy();

        server
            .client
            .say("POST / HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\nte: trailers\r\n\r\n3\r\nabc\r\n")
            .await;
        let mut upstream = endpoint.accept().await;
        upstream
            .hear("POST / HTTP/1.1\r\nhost: web\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\nte: trailers\r\nconnection: te\r\n\r\n3\r\nabc\r\n")
            .await;
        server
            .client
            .say("4;ext=1\r\ndefg\r\n0\r\nX-Sum: 7\r\nContent-Length: 9\r\n\r\n")
            .await;
        upstream.hear("4\r\ndefg\r\n0\r\nx-sum: 7\r\n\r\n").await;

        upstream.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nz\r\n0\r\nX-End: yes\r\n\r\n").await;
        server
            .client
            .hear("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nz\r\n0\r\nx-end: yes\r\n\r\n")
            .await;
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    run(async {
        let (mut server, mut endpoint) = proxy();

        server
            .client
            .say("POST /1 HTTP/1.1\r\nhost: web\r\ncontent-length: 3\r\n\r\nabcGET /2 HTTP/1.1\r\nhost: web\r\n\r\nGET /3 HTTP/1.1\r\nhost: web\r\n\r\n")
            .await;
        let mut upstream = endpoint.accept().await;
        upstream
            .hear("POST /1 HTTP/1.1\r\nhost: web\r\ncontent-length: 3\r\n\r\nabc")
            .await;
        upstream.hear_nothing().await;
        upstream
            .say("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n1")
            .await;
        upstream.hear("GET /2 HTTP/1.1\r\nhost: web\r\n\r\n").await;
        upstream
            .say("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n2")
            .await;
        upstream.hear("GET /3 HTTP/1.1\r\nhost: web\r\n\r\n").await;
        upstream
            .say("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n3")
            .await;

        for answer in ["1", "2", "3"] {
            server
                .client
                .hear(&format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{answer}"
                ))
                .await;
        }
    });
}

#[test]
fn informational_responses_are_forwarded() {
    run(async {
        let (mut server, mut endpoint) = proxy();

        server
            .client
            .say("PUT / HTTP/1.1\r\nhost: web\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
            .await;
        let mut upstream = endpoint.accept().await;
        upstream
            .hear(
                "PUT / HTTP/1.1\r\nhost: web\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n",
            )
            .await;
        upstream
            .say("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
            .await;
        server
            .client
            .hear("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
            .await;
        server.client.say("hi").await;
        upstream.hear("hi").await;
        upstream.say("HTTP/1.1 204 No Content\r\n\r\n").await;
        server.client.hear("HTTP/1.1 204 No Content\r\n\r\n").await;
        server.client.hear_nothing().await;
    });
}

#[test]
fn a_websocket_is_spliced_with_half_close() {
    run(async {
        let (mut server, mut endpoint) = proxy();

        server
            .client
            .say("GET /ws HTTP/1.1\r\nhost: web\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: k\r\n\r\nearly")
            .await;
        let mut upstream = endpoint.accept().await;
        upstream
            .hear("GET /ws HTTP/1.1\r\nhost: web\r\nsec-websocket-key: k\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
            .await;
        upstream.hear_nothing().await;
        upstream
            .say("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello")
            .await;
        server
            .client
            .hear("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhello")
            .await;
        upstream.hear("early").await;
        server.client.say("ping").await;
        upstream.hear("ping").await;
        upstream.finish().await;
        server.client.hear_end().await;
        server.client.say("and one more").await;
        upstream.hear("and one more").await;
        server.client.finish().await;
        upstream.hear_end().await;
        server.serving.await.unwrap().unwrap();
    });
}

#[test]
fn a_connect_tunnel_is_spliced() {
    run(async {
        let (mut server, mut endpoint) = proxy();

        server
            .client
            .say("CONNECT db:5432 HTTP/1.1\r\nhost: db:5432\r\n\r\n")
            .await;
        let mut upstream = endpoint.accept().await;
        upstream
            .hear("CONNECT db:5432 HTTP/1.1\r\nhost: db:5432\r\n\r\n")
            .await;
        upstream
            .say("HTTP/1.1 200 Connected\r\ncontent-length: 7\r\n\r\n")
            .await;
        server.client.hear("HTTP/1.1 200 OK\r\n\r\n").await;
        server.client.say("select 1").await;
        upstream.hear("select 1").await;
        upstream.say("1").await;
        server.client.hear("1").await;
        server.client.finish().await;
        upstream.hear_end().await;
        upstream.say("bye").await;
        server.client.hear("bye").await;
        upstream.finish().await;
        server.client.hear_end().await;
    });
}

#[test]
fn a_response_that_ends_with_its_connection_is_reframed() {
    run(async {
        let (mut server, mut endpoint) = proxy();

        server
            .client
            .say("GET / HTTP/1.1\r\nhost: web\r\n\r\n")
            .await;
        let mut upstream = endpoint.accept().await;
        upstream.say("HTTP/1.0 200 OK\r\n\r\nabc").await;
        server
            .client
            .hear("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
            .await;
        upstream.say("de").await;
        server.client.hear("2\r\nde\r\n").await;
        upstream.finish().await;
        server.client.hear("0\r\n\r\n").await;
        server.client.hear_nothing().await;
    });
}

#[test]
fn an_http10_client_gets_no_chunks() {
    run(async {
        let (mut server, mut endpoint) = proxy();

        server.client.say("GET / HTTP/1.0\r\n\r\n").await;
        let mut upstream = endpoint.accept().await;
        upstream.hear("GET / HTTP/1.0\r\n\r\n").await;
        upstream
            .say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
            .await;

        server
            .client
            .hear("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nabc")
            .await;
        server.client.hear_end().await;
    });
}

#[test]
fn a_head_response_keeps_its_length_and_has_no_body() {
    run(async {
        let (mut server, mut endpoint) = proxy();

        server
            .client
            .say("HEAD / HTTP/1.1\r\nhost: web\r\n\r\n")
            .await;
        let mut upstream = endpoint.accept().await;
        upstream
            .say("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
            .await;
        server
            .client
            .hear("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
            .await;
        server
            .client
            .say("GET /304 HTTP/1.1\r\nhost: web\r\n\r\n")
            .await;
        upstream
            .hear("HEAD / HTTP/1.1\r\nhost: web\r\n\r\nGET /304 HTTP/1.1\r\nhost: web\r\n\r\n")
            .await;
        upstream
            .say("HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\netag: \"a\"\r\n\r\n")
            .await;
        server
            .client
            .hear("HTTP/1.1 304 Not Modified\r\netag: \"a\"\r\ncontent-length: 7\r\n\r\n")
            .await;
        server.client.hear_nothing().await;
        endpoint.nobody_connects().await;
    });
}

#[test]
fn a_client_that_closed_its_side_still_gets_its_answer() {
    run(async {
        let (mut server, mut endpoint) = proxy();

        server
            .client
            .say("GET / HTTP/1.1\r\nhost: web\r\n\r\n")
            .await;
        server.client.finish().await;
        let mut upstream = endpoint.accept().await;
        upstream
            .say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            .await;

        server
            .client
            .hear("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n")
            .await;
        assert!(server.client.hear_all().await.ends_with("\r\n\r\nok"));
    });
}

#[test]
fn an_early_answer_reaches_a_client_that_is_still_sending() {
    run(async {
        let (mut server, mut endpoint) = proxy();

        server
            .client
            .say("POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 10\r\n\r\nabc")
            .await;
        let mut upstream = endpoint.accept().await;
        upstream
            .hear("POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 10\r\n\r\nabc")
            .await;
        upstream
            .say("HTTP/1.1 413 Payload Too Large\r\ncontent-length: 2\r\n\r\nno")
            .await;
        server
            .client
            .hear("HTTP/1.1 413 Payload Too Large\r\ncontent-length: 2\r\n\r\nno")
            .await;

        server
            .client
            .say("defghijGET /next HTTP/1.1\r\nhost: web\r\n\r\n")
            .await;

        upstream
            .hear("defghijGET /next HTTP/1.1\r\nhost: web\r\n\r\n")
            .await;
        endpoint.nobody_connects().await;
    });
}

#[test]
fn a_client_that_waits_for_100_and_is_turned_down_is_not_waited_for() {
    run(async {
        let (mut server, mut endpoint) = proxy();

        server
            .client
            .say("PUT / HTTP/1.1\r\nhost: web\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
            .await;
        let mut upstream = endpoint.accept().await;
        upstream.0.flush_request().await;
        upstream
            .say("HTTP/1.1 417 Expectation Failed\r\ncontent-length: 0\r\n\r\n")
            .await;

        server
            .client
            .hear(
                "HTTP/1.1 417 Expectation Failed\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            )
            .await;
        server.client.hear_end().await;
        upstream.hear_end().await;
    });
}

#[test]
fn a_response_that_is_cut_off_is_not_made_whole() {
    run(async {
        let (mut server, mut endpoint) = proxy();

        server
            .client
            .say("GET / HTTP/1.1\r\nhost: web\r\n\r\n")
            .await;
        let mut upstream = endpoint.accept().await;
        upstream
            .say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nab")
            .await;
        upstream.finish().await;

        let heard = server.client.hear_all().await;
        assert_eq!(
            heard,
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n"
        );
        assert!(server.serving.await.unwrap().is_err());
    });
}

#[test]
fn headers_that_connection_names_stay_on_their_hop() {
    run(async {
        let (mut server, mut endpoint) = proxy();

        server
            .client
            .say("GET / HTTP/1.1\r\nhost: web\r\nconnection: x-private, host, keep-alive\r\nx-private: 1\r\nkeep-alive: timeout=5\r\nproxy-connection: close\r\nx-public: 2\r\n\r\n")
            .await;
        let mut upstream = endpoint.accept().await;
        upstream
            .hear("GET / HTTP/1.1\r\nhost: web\r\nx-public: 2\r\n\r\n")
            .await;
        upstream
            .say("HTTP/1.1 200 OK\r\nconnection: x-secret\r\nx-secret: 1\r\nkeep-alive: timeout=5\r\ncontent-length: 0\r\n\r\n")
            .await;
        server
            .client
            .hear("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .await;
    });
}

#[test]
fn the_target_of_the_absolute_form_decides_over_host() {
    run(async {
        let (mut server, mut endpoint) = proxy();

        server
            .client
            .say("GET http://real:81/x HTTP/1.1\r\nhost: other\r\n\r\n")
            .await;

        endpoint
            .accept()
            .await
            .hear("GET http://real:81/x HTTP/1.1\r\nhost: real:81\r\n\r\n")
            .await;
    });
}

#[test]
fn an_upgrade_to_http2_is_not_passed_on() {
    run(async {
        let (mut server, mut endpoint) = proxy();

        server
            .client
            .say("GET / HTTP/1.1\r\nhost: web\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n\r\n")
            .await;

        let mut upstream = endpoint.accept().await;
        upstream.hear("GET / HTTP/1.1\r\nhost: web\r\n\r\n").await;
        upstream
            .say("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n")
            .await;
        server.client.hear("HTTP/1.1 502 Bad Gateway\r\n").await;
    });
}

#[test]
fn a_client_that_reads_nothing_before_it_has_sent_all_is_served() {
    run(async {
        const SIZE: usize = 8 * 1024 * 1024;
        for tunnel in [false, true] {
            let (server, mut endpoint) = proxy();
            let (mut hear, mut say) = tokio::io::split(server.client.0);
            let request = if tunnel {
                "CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n".to_owned()
            } else {
                format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {SIZE}\r\n\r\n")
            };
            let client = tokio::task::spawn_local(async move {
                say.write_all(request.as_bytes()).await.unwrap();
                say.write_all(&vec![1; SIZE]).await.unwrap();
                say.shutdown().await.unwrap();
                let mut heard = Vec::new();
                hear.read_to_end(&mut heard).await.unwrap();
                heard.len()
            });
            let mut upstream = endpoint.accept().await.0;
            upstream.flush_request().await;
            let (mut read, mut write) = tokio::io::split(upstream);
            let answering = tokio::task::spawn_local(async move {
                let length = if tunnel {
                    String::new()
                } else {
                    format!("content-length: {SIZE}\r\n")
                };
                let response = format!("HTTP/1.1 200 OK\r\n{length}\r\n");
                write.write_all(response.as_bytes()).await.unwrap();
                write.write_all(&vec![2; SIZE]).await.unwrap();
                write.shutdown().await.unwrap();
            });

            let mut read_here = vec![0; SIZE];
            read.read_exact(&mut read_here).await.unwrap();

            assert!(read_here.iter().all(|byte| *byte == 1));
            answering.await.unwrap();
            assert!(client.await.unwrap() > SIZE);
        }
    });
}

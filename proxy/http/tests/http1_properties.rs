//! Properties of the HTTP/1 path that hold whatever is sent, and in whatever pieces.

#![allow(clippy::unwrap_used, reason = "a test's panic is its report")]

mod support;

use std::rc::Rc;

use proptest::{collection::vec, prelude::*};
use support::{Answer, forward, run};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use tulle_core::{Reason, Refusal};
use tulle_http::{
    DrainSignal,
    http1::{self, Http1Options},
    http2::{self, Http2Options},
    orig_proto,
    pool::{Connect, Mode, Pool, PoolOptions, Session},
};

#[derive(Clone, Debug)]
enum Framing {
    Length,
    /// In pieces of these sizes.
    Chunked(Vec<usize>),
    /// With trailers.
    Trailers,
}

#[derive(Clone, Debug)]
struct Message {
    body: Vec<u8>,
    framing: Framing,
}

#[derive(Clone, Debug)]
struct Exchange {
    request: Message,
    response: Message,
}

fn message() -> impl Strategy<Value = Message> {
    let body = prop_oneof![
        Just(Vec::new()),
        vec(any::<u8>(), 1..200),
        vec(any::<u8>(), 1_000..40_000),
        // What looks like framing must pass as data.
        Just(b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n".to_vec()),
    ];
    let framing = prop_oneof![
        Just(Framing::Length),
        vec(1_usize..9_000, 1..4).prop_map(Framing::Chunked),
        Just(Framing::Trailers),
    ];
    (body, framing).prop_map(|(body, framing)| Message { body, framing })
}

fn exchanges() -> impl Strategy<Value = Vec<Exchange>> {
    let exchange =
        (message(), message()).prop_map(|(request, response)| Exchange { request, response });
    vec(exchange, 1..5)
}

impl Message {
    /// The message after its first line.
    fn encode(&self, out: &mut Vec<u8>) {
        let (sizes, trailers): (&[usize], _) = match &self.framing {
            Framing::Length => {
                out.extend_from_slice(
                    format!("content-length: {}\r\n\r\n", self.body.len()).as_bytes(),
                );
                out.extend_from_slice(&self.body);
                return;
            }
            Framing::Chunked(sizes) => (sizes, ""),
            Framing::Trailers => (&[7], "x-trailer: t\r\n"),
        };
        out.extend_from_slice(b"Transfer-Encoding: Chunked\r\n\r\n");
        let mut rest = &self.body[..];
        for size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (chunk, tail) = rest.split_at(rest.len().min(*size));
            out.extend_from_slice(format!("{:X};x\r\n", chunk.len()).as_bytes());
            out.extend_from_slice(chunk);
            out.extend_from_slice(b"\r\n");
            rest = tail;
        }
        out.extend_from_slice(format!("0\r\n{trailers}\r\n").as_bytes());
    }

    fn trailers(&self) -> &str {
        if matches!(self.framing, Framing::Trailers) {
            "x-trailer: t\r\n"
        } else {
            ""
        }
    }
}

/// A reader of its own, so that the codec is not measured by itself.
struct Reader<R> {
    io: R,
    buffer: Vec<u8>,
}

/// The first line, the body and the trailers of a message.
type Read = (String, Vec<u8>, String);

/// The connection ended within a message.
#[derive(Debug)]
struct Broken;

impl<R: AsyncRead + Unpin> Reader<R> {
    fn new(io: R) -> Self {
        Self {
            io,
            buffer: Vec::new(),
        }
    }

    async fn more(&mut self) -> Result<(), Broken> {
        match self.io.read_buf(&mut self.buffer).await {
            Ok(1..) => Ok(()),
            _ => Err(Broken),
        }
    }

    async fn take(&mut self, count: usize) -> Result<Vec<u8>, Broken> {
        while self.buffer.len() < count {
            self.more().await?;
        }
        Ok(self.buffer.drain(..count).collect())
    }

    async fn until(&mut self, end: &[u8]) -> Result<String, Broken> {
        loop {
            if let Some(at) = self
                .buffer
                .windows(end.len())
                .position(|window| window == end)
            {
                let taken = self.take(at + end.len()).await?;
                return Ok(String::from_utf8(taken).expect("text"));
            }
            self.more().await?;
        }
    }

    /// The next message; `None` at the end.
    async fn message(&mut self) -> Result<Option<Read>, Broken> {
        if self.buffer.is_empty() && self.more().await.is_err() {
            return Ok(None);
        }
        let head = self.until(b"\r\n\r\n").await?;
        assert!(is_clean(&head), "{head:?}");
        let (line, headers) = head.split_once("\r\n").expect("a first line");
        let length = headers
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        if let Some(length) = length {
            let body = self.take(length.parse().expect("a length")).await?;
            return Ok(Some((line.to_owned(), body, String::new())));
        }
        let mut body = Vec::new();
        if !headers
            .lines()
            .any(|line| line == "transfer-encoding: chunked")
        {
            return Ok(Some((line.to_owned(), body, String::new())));
        }
        loop {
            let size = self.until(b"\r\n").await?;
            let size = usize::from_str_radix(size.trim_end(), 16).expect("a size");
            if size == 0 {
                break;
            }
            body.extend(self.take(size).await?);
            assert_eq!(self.take(2).await?, b"\r\n");
        }
        let mut trailers = String::new();
        loop {
            match self.until(b"\r\n").await?.as_str() {
                "\r\n" => return Ok(Some((line.to_owned(), body, trailers))),
                trailer => trailers.push_str(trailer),
            }
        }
    }
}

/// Write in pieces of the given sizes, letting others run between them.
async fn write_in_pieces(io: &mut (impl AsyncWrite + Unpin), bytes: &[u8], pieces: &[usize]) {
    let mut rest = bytes;
    for size in pieces.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, tail) = rest.split_at(rest.len().min(*size));
        if io.write_all(piece).await.is_err() {
            return;
        }
        tokio::task::yield_now().await;
        rest = tail;
    }
}

struct Dial {
    buffer: usize,
    accepted: mpsc::UnboundedSender<(Session, DuplexStream)>,
}

impl Connect for Dial {
    type Io = DuplexStream;
    async fn connect(&self, session: Session) -> Result<DuplexStream, Refusal> {
        let (io, peer) = duplex(self.buffer);
        self.accepted
            .send((session, peer))
            .map_err(|_| Refusal::new(Reason::ConnectFailed, "gone"))?;
        Ok(io)
    }
}

/// Answer every request on every connection, in the order of the list.
async fn serve_upstream(
    mut connections: mpsc::UnboundedReceiver<(Session, DuplexStream)>,
    exchanges: Vec<Exchange>,
    pieces: Vec<usize>,
) {
    let mut expected = exchanges.into_iter();
    while let Some((_, io)) = connections.recv().await {
        let (read, mut write) = tokio::io::split(io);
        let mut reader = Reader::new(read);
        while let Some((line, body, trailers)) = reader.message().await.expect("whole") {
            let Exchange { request, response } = expected.next().expect("no more requests");
            assert_eq!(line, "POST /x HTTP/1.1");
            assert!(body == request.body, "the request's body differs");
            assert_eq!(trailers, request.trailers());
            let mut bytes = b"HTTP/1.1 200 OK\r\n".to_vec();
            response.encode(&mut bytes);
            write_in_pieces(&mut write, &bytes, &pieces).await;
        }
    }
}

async fn travel(exchanges: Vec<Exchange>, pieces: Vec<usize>, buffer: usize, over_http2: bool) {
    let (accepted, connections) = mpsc::unbounded_channel();
    let far = Pool::new(
        Dial { buffer, accepted },
        Mode::AsReceived,
        PoolOptions::default(),
    );
    tokio::task::spawn_local(serve_upstream(
        connections,
        exchanges.clone(),
        pieces.clone(),
    ));
    let (client, io) = duplex(buffer);
    if over_http2 {
        // Two proxies, with HTTP/2 between them.
        let (accepted, mut between) = mpsc::unbounded_channel();
        let near = Pool::new(
            Dial { buffer, accepted },
            Mode::Http2,
            PoolOptions::default(),
        );
        tokio::task::spawn_local(async move {
            let far = forward(&far);
            let service = Rc::new(Answer(async move |mut request, interim| {
                let orig = orig_proto::downgrade(&mut request).expect("upgraded");
                let mut response = far(request, interim).await;
                orig.mark(&mut response);
                response
            }));
            while let Some((_, io)) = between.recv().await {
                let service = Rc::clone(&service);
                tokio::task::spawn_local(async move {
                    let (_, drain) = DrainSignal::new();
                    http2::serve(io, service, &Http2Options::default(), drain).await
                });
            }
        });
        serve(io, near);
    } else {
        serve(io, far);
    }

    let (read, mut write) = tokio::io::split(client);
    let mut bytes = Vec::new();
    for exchange in &exchanges {
        bytes.extend_from_slice(b"POST /x HTTP/1.1\r\nHost: a\r\n");
        exchange.request.encode(&mut bytes);
    }
    // Writing and reading go on at the same time: pipelining with back-pressure both ways.
    let writing = tokio::task::spawn_local(async move {
        write_in_pieces(&mut write, &bytes, &pieces).await;
        write
    });
    let mut reader = Reader::new(read);
    for exchange in &exchanges {
        let (line, body, trailers) = reader.message().await.expect("whole").expect("a response");
        assert_eq!(line, "HTTP/1.1 200 OK");
        assert!(
            body == exchange.response.body,
            "the response's body differs"
        );
        assert_eq!(trailers, exchange.response.trailers());
    }
    assert!(reader.buffer.is_empty());
    drop(writing.await);
}

fn serve(io: DuplexStream, pool: Pool<Dial>) {
    tokio::task::spawn_local(async move {
        let service = Rc::new(Answer(forward(&pool)));
        let (_, drain) = DrainSignal::new();
        http1::serve(io, service, &Http1Options::default(), drain).await
    });
}

const WHOLE: [&str; 6] = [
    "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
    "GET /p HTTP/1.0\r\nx: y\r\n\r\n",
    "POST /p HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\nx: y\r\n\r\nabcd",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n",
    "PUT / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\nconnection: x\r\nx: y\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
];

const STRAY: [&str; 16] = [
    "\r\n",
    "\n",
    "\r",
    " ",
    "\t",
    "\0",
    "\x0b",
    ":",
    ",",
    "4",
    "content-length: 4\r\n",
    "content-length: 0\r\n",
    "transfer-encoding: chunked\r\n",
    "connection: content-length, close\r\n",
    "host: b\r\n",
    "0\r\n\r\n",
];

/// Requests with things in them that do not belong there, and things missing.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let whole = vec(prop::sample::select(&WHOLE[..]), 1..4);
    let stray = vec(
        (
            any::<prop::sample::Index>(),
            prop::sample::select(&STRAY[..]),
        ),
        0..3,
    );
    let missing = vec(any::<prop::sample::Index>(), 0..2);
    (whole, stray, missing).prop_map(|(whole, stray, missing)| {
        let mut bytes = whole.concat().into_bytes();
        for (at, stray) in stray {
            let at = at.index(bytes.len());
            bytes.splice(at..at, stray.bytes());
        }
        for at in missing {
            bytes.remove(at.index(bytes.len()));
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bodies_are_byte_exact_over_http1(
        exchanges in exchanges(),
        pieces in vec(1_usize..3_000, 1..6),
        buffer in 32_usize..20_000,
    ) {
        run(travel(exchanges, pieces, buffer, false));
    }

    #[test]
    fn bodies_are_byte_exact_over_http2_in_between(
        exchanges in exchanges(),
        pieces in vec(1_usize..3_000, 1..6),
        buffer in 64_usize..20_000,
    ) {
        run(travel(exchanges, pieces, buffer, true));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a client sends, an upstream that reads strictly sees whole requests and at
    /// most one that was broken off, and the client hears only whole responses.
    #[test]
    fn nothing_malformed_is_passed_on(noise in noise(), piece in 1_usize..64) {
        run(async {
            let (accepted, mut connections) = mpsc::unbounded_channel();
            let pool =
                Pool::new(Dial { buffer: 4_096, accepted }, Mode::AsReceived, PoolOptions::default());
            let upstream = tokio::task::spawn_local(async move {
                while let Some((_, io)) = connections.recv().await {
                    let (read, mut write) = tokio::io::split(io);
                    let mut reader = Reader::new(read);
                    while let Ok(Some(_)) = reader.message().await {
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                        if write.write_all(answer).await.is_err() {
                            break;
                        }
                    }
                }
            });
            let (client, io) = duplex(4_096);
            serve(io, pool);

            let (read, mut write) = tokio::io::split(client);
            let writing = tokio::task::spawn_local(async move {
                write_in_pieces(&mut write, &noise, &[piece]).await;
                let _ = write.shutdown().await;
            });
            let mut reader = Reader::new(read);
            while let Some((line, _, _)) = reader.message().await.expect("whole") {
                prop_assert!(line.starts_with("HTTP/1.1 "), "{}", line);
            }
            writing.await.unwrap();
            // It ends with the pool, whose connections end with the server.
            upstream.await.unwrap();
            Ok(())
        })?;
    }
}

/// Whether a head that we wrote has one meaning for everybody.
fn is_clean(head: &str) -> bool {
    let Some(head) = head.strip_suffix("\r\n\r\n") else {
        return false;
    };
    let mut lines = head.split("\r\n");
    let is_line = |line: &str| !line.contains(['\r', '\n', '\0']);
    let first = lines.next().unwrap_or_default();
    let mut names = Vec::new();
    for line in lines {
        let Some((name, _)) = line.split_once(": ") else {
            return false;
        };
        if !is_line(line) {
            return false;
        }
        names.push(name);
    }
    let count = |wanted: &[&str]| names.iter().filter(|name| wanted.contains(name)).count();
    is_line(first)
        && (first.starts_with("HTTP/1.1 ") || first.split(' ').count() == 3)
        && count(&["content-length", "transfer-encoding"]) <= 1
        && count(&["host"]) <= 1
}

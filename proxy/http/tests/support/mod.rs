//! Scripted peers, and services made of closures.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test's panic is its report")]

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body as _;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::mpsc,
    task::JoinHandle,
};
use tulle_core::{Reason, Refusal};
use tulle_http::{
    Body, BodyError, Drain, DrainSignal, Facts, Interim, Request, Response, ServeError, Service,
    http1::{self, Http1Options},
    http2::{self, Http2Options},
    pool::{Connect, Mode, Pool, PoolOptions, Session},
};

/// Run a test on one thread, with time that only passes when nobody has anything to do.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test)
}

/// A service that is a closure.
pub struct Answer<F>(pub F);

impl<F: AsyncFn(Request, Interim) -> Response + 'static> Service for Answer<F> {
    async fn call(&self, request: Request, interim: Interim) -> Response {
        (self.0)(request, interim).await
    }
}

/// One end of a connection, spoken by the test.
pub struct Peer(pub DuplexStream);

impl Peer {
    pub async fn say(&mut self, text: impl AsRef<[u8]>) {
        self.0.write_all(text.as_ref()).await.unwrap();
    }

    /// Expect exactly these bytes.
    pub async fn hear(&mut self, expected: &str) {
        let mut heard = vec![0; expected.len()];
        let mut at = 0;
        while at < heard.len() {
            let read = self.0.read(&mut heard[at..]).await.unwrap();
            if read == 0 {
                break;
            }
            at += read;
            if !expected.as_bytes().starts_with(&heard[..at]) {
                break;
            }
        }
        assert_eq!(String::from_utf8_lossy(&heard[..at]), expected);
    }

    /// Expect that the other end says nothing more.
    pub async fn hear_end(&mut self) {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }

    pub async fn hear_all(&mut self) -> String {
        let mut rest = Vec::new();
        let _ = self.0.read_to_end(&mut rest).await;
        String::from_utf8_lossy(&rest).into_owned()
    }

    /// Expect that there is nothing to hear now.
    pub async fn hear_nothing(&mut self) {
        settle().await;
        let mut byte = [0];
        let heard = poll_fn(|cx| {
            let mut buffer = tokio::io::ReadBuf::new(&mut byte);
            std::task::Poll::Ready(
                tokio::io::AsyncRead::poll_read(Pin::new(&mut self.0), cx, &mut buffer).is_ready(),
            )
        })
        .await;
        assert!(!heard, "heard {:?}, or the end", char::from(byte[0]));
    }

    pub async fn finish(&mut self) {
        self.0.shutdown().await.unwrap();
    }
}

/// Let every other task do what it can.
pub async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

pub struct Server {
    pub client: Peer,
    pub serving: JoinHandle<Result<(), ServeError>>,
}

/// Serve one HTTP/1 connection with a closure.
pub fn serve<F>(answer: F) -> Server
where
    F: AsyncFn(Request, Interim) -> Response + 'static,
{
    serve_with(answer, Http1Options::default(), DrainSignal::new().1)
}

pub fn serve_with<F>(answer: F, options: Http1Options, drain: Drain) -> Server
where
    F: AsyncFn(Request, Interim) -> Response + 'static,
{
    let (client, io) = duplex(1024 * 1024);
    let serving = tokio::task::spawn_local(async move {
        http1::serve(io, Rc::new(Answer(answer)), &options, drain).await
    });
    Server {
        client: Peer(client),
        serving,
    }
}

/// Serve one HTTP/2 connection with a closure.
pub fn serve_http2<F>(
    answer: F,
    options: Http2Options,
    drain: Drain,
) -> (DuplexStream, JoinHandle<Result<(), ServeError>>)
where
    F: AsyncFn(Request, Interim) -> Response + 'static,
{
    let (client, io) = duplex(64 * 1024);
    let serving = tokio::task::spawn_local(async move {
        http2::serve(io, Rc::new(Answer(answer)), &options, drain).await
    });
    (client, serving)
}

/// An endpoint whose connections the test accepts.
pub struct Dial {
    accepted: mpsc::UnboundedSender<(Session, Peer)>,
}

impl Connect for Dial {
    type Io = DuplexStream;

    async fn connect(&self, session: Session) -> Result<DuplexStream, Refusal> {
        let (io, peer) = duplex(1024 * 1024);
        self.accepted
            .send((session, Peer(peer)))
            .map_err(|_| Refusal::new(Reason::ConnectFailed, "nobody listens"))?;
        Ok(io)
    }
}

pub struct Endpoint(mpsc::UnboundedReceiver<(Session, Peer)>);

impl Endpoint {
    pub async fn accept(&mut self) -> Peer {
        let (session, peer) = self.0.recv().await.unwrap();
        assert_eq!(session, Session::Http1);
        peer
    }

    pub async fn accept_any(&mut self) -> (Session, Peer) {
        self.0.recv().await.unwrap()
    }

    pub async fn nobody_connects(&mut self) {
        settle().await;
        assert!(self.0.try_recv().is_err());
    }
}

pub fn pool(mode: Mode, options: PoolOptions) -> (Pool<Dial>, Endpoint) {
    let (accepted, connections) = mpsc::unbounded_channel();
    (
        Pool::new(Dial { accepted }, mode, options),
        Endpoint(connections),
    )
}

/// What the proxy is, at its smallest: everything goes to one pool.
pub fn forward(pool: &Pool<impl Connect>) -> impl AsyncFn(Request, Interim) -> Response + 'static {
    let pool = pool.clone();
    async move |request: Request, interim: Interim| {
        let facts = Facts::of(&request);
        match pool.send(request, interim).await {
            Ok(response) => response,
            Err(error) => error.response(facts),
        }
    }
}

/// A client connection, a proxy, and the endpoint behind it.
pub fn proxy() -> (Server, Endpoint) {
    let (pool, endpoint) = pool(Mode::AsReceived, PoolOptions::default());
    (serve(forward(&pool)), endpoint)
}

pub fn get(path: &str) -> Request {
    let mut request = http::Request::new(Body::empty());
    *request.uri_mut() = path.parse().unwrap();
    request.headers_mut().insert("host", "web".parse().unwrap());
    request
}

pub fn post(path: &str, body: impl Into<Bytes>) -> Request {
    let mut request = get(path).map(|_| Body::full(body.into()));
    *request.method_mut() = http::Method::POST;
    request
}

pub fn ok(body: impl Into<Bytes>) -> Response {
    Response::new(Body::full(body.into()))
}

/// Read a body to its end.
pub async fn collect(mut body: Body) -> Result<(Bytes, Option<HeaderMap>), BodyError> {
    let mut data = Vec::new();
    let mut trailers = None;
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        match frame?.into_data() {
            Ok(piece) => data.extend_from_slice(&piece),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Ok((data.into(), trailers))
}

pub async fn text(body: Body) -> String {
    String::from_utf8(collect(body).await.unwrap().0.to_vec()).unwrap()
}

/// A body that the test feeds.
pub fn channel() -> (
    mpsc::UnboundedSender<Result<http_body::Frame<Bytes>, BodyError>>,
    Body,
) {
    struct Channel(mpsc::UnboundedReceiver<Result<http_body::Frame<Bytes>, BodyError>>);
    impl http_body::Body for Channel {
        type Data = Bytes;
        type Error = BodyError;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> {
            self.0.poll_recv(cx)
        }
    }
    let (sender, receiver) = mpsc::unbounded_channel();
    (sender, Body::wrap(Channel(receiver)))
}

#[allow(clippy::unnecessary_wraps, reason = "what a channel takes")]
pub fn data(text: &'static str) -> Result<http_body::Frame<Bytes>, BodyError> {
    Ok(http_body::Frame::data(Bytes::from_static(text.as_bytes())))
}

/// Something that tasks and the test both look at.
pub fn shared<T>(value: T) -> Rc<RefCell<T>> {
    Rc::new(RefCell::new(value))
}

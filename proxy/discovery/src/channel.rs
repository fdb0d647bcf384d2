//! One of the control plane's services, as something that calls can be made to.
//!
//! A call waits for a connection; it fails only when a connection that carried it breaks. So
//! an absent control plane is silence, never an error, and whoever calls needs no rule for it.
//!
//! A connection carries as many streams as the peer allows (common servers: 100 or 200), and
//! a further one is opened when they are used up: a stream that waits for another stream's
//! end would leave its destination unknown for ever.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Uri, uri};
use hyper::{
    body::{Frame, Incoming, SizeHint},
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::Notify,
    task::AbortHandle,
    time::{self, Instant},
};
use tonic::body::Body;
use tower::Service;
use tracing::{debug, warn};
use tulle_config::{ClientH2, HostPort};

use crate::{Dial, DialError, Dialed, backoff::Pauses, recovery::Recovery};

/// A dead connection is left after the interval and the timeout, 13 s.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// Streams on one connection where the peer sets no lower limit.
const MAX_STREAMS: usize = 1000;

/// Between attempts to connect. A refused connection costs nobody anything, so the longest
/// pause is short: everything has to converge within seconds of the control plane's return.
const RECONNECT: Pauses = Pauses::new(Duration::from_millis(100), Duration::from_secs(2));

/// A connection that lasted so long was a good one: the next pause is short again.
const PROVEN: Duration = Duration::from_secs(5);

/// How often an absence that lasts is mentioned.
const REMIND: Duration = Duration::from_secs(30);

/// Calls to one of the control plane's services; clones share its connections.
#[derive(Clone, Debug)]
pub struct ControlChannel(Arc<Owner>);

/// Ends the connector with the channel's last clone.
#[derive(Debug)]
struct Owner {
    shared: Arc<Shared>,
    connector: AbortHandle,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.connector.abort();
    }
}

#[derive(Debug)]
struct Shared {
    authority: uri::Authority,
    connections: Mutex<Vec<Connection>>,
    /// There may be room for streams again.
    room: Notify,
    /// Somebody waits for room.
    wanted: Notify,
    recovery: Recovery,
}

struct Connection {
    send: SendRequest<Body>,
    /// Absent: for as long as it is open.
    usable: Option<Box<dyn Fn() -> bool + Send + Sync>>,
    /// One holder is this, and one is every stream.
    streams: Lease,
}

/// A stream's share of its connection; the value is how many streams the peer allows.
type Lease = Arc<AtomicUsize>;

impl ControlChannel {
    /// A channel whose connections live on `runtime`. The first is opened by the first call.
    #[must_use]
    #[expect(
        clippy::missing_panics_doc,
        reason = "a parsed host and port make an authority"
    )]
    pub fn new(addr: &HostPort, dial: impl Dial, windows: ClientH2, runtime: &Handle) -> Self {
        let authority = uri::Authority::try_from(addr.to_string())
            .expect("host names and addresses are checked where they are parsed");
        let shared = Arc::new(Shared {
            authority,
            connections: Mutex::default(),
            room: Notify::new(),
            wanted: Notify::new(),
            recovery: Recovery::new(),
        });
        let connector = Connector {
            shared: Arc::clone(&shared),
            dial,
            windows,
            log: Log::default(),
        };
        let connector = runtime.spawn(connector.run()).abort_handle();
        Self(Arc::new(Owner { shared, connector }))
    }

    pub(crate) fn recovery(&self) -> &Recovery {
        &self.0.shared.recovery
    }

    /// Wait until a call can be made at once.
    pub(crate) async fn connected(&self) {
        self.0.shared.lease().await;
    }
}

impl Shared {
    async fn lease(&self) -> (SendRequest<Body>, Lease) {
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            // Registered before the look, so that a connection made meanwhile is not missed.
            room.as_mut().enable();
            if let Some(leased) = self.try_lease() {
                return leased;
            }
            self.wanted.notify_one();
            room.await;
        }
    }

    fn try_lease(&self) -> Option<(SendRequest<Body>, Lease)> {
        let mut connections = self.connections.lock();
        connections.retain(Connection::is_usable);
        let free = connections
            .iter()
            .find(|connection| connection.has_room())?;
        Some((free.send.clone(), Arc::clone(&free.streams)))
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let streams = Arc::strong_count(&self.streams) - 1;
        f.debug_struct("Connection")
            .field("streams", &streams)
            .finish_non_exhaustive()
    }
}

impl Connection {
    fn is_usable(&self) -> bool {
        !self.send.is_closed() && self.usable.as_ref().is_none_or(|usable| usable())
    }

    fn has_room(&self) -> bool {
        let limit = self.streams.load(Ordering::Relaxed).min(MAX_STREAMS);
        Arc::strong_count(&self.streams) <= limit
    }
}

impl Service<http::Request<Body>> for ControlChannel {
    type Response = http::Response<Leased>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let shared = Arc::clone(&self.0.shared);
        Box::pin(async move {
            let mut parts = uri::Parts::default();
            parts.scheme = Some(uri::Scheme::HTTP);
            parts.authority = Some(shared.authority.clone());
            parts.path_and_query = request.uri().path_and_query().cloned();
            // Without a path there is nothing to call, and the request fails as it is.
            if let Ok(uri) = Uri::from_parts(parts) {
                *request.uri_mut() = uri;
            }
            loop {
                let (mut send, lease) = shared.lease().await;
                if send.ready().await.is_err() {
                    continue;
                }
                let response = send.send_request(request).await?;
                return Ok(response.map(|body| Leased {
                    body,
                    _lease: lease,
                }));
            }
        })
    }
}

/// A response's body, which counts as a stream of its connection until it is dropped.
#[derive(Debug)]
pub struct Leased {
    body: Incoming,
    _lease: Lease,
}

impl hyper::body::Body for Leased {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Opens connections when somebody wants one.
struct Connector<D> {
    shared: Arc<Shared>,
    dial: D,
    windows: ClientH2,
    log: Log,
}

impl<D: Dial> Connector<D> {
    async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut pauses = RECONNECT;
        let mut opened: Option<Instant> = None;
        loop {
            shared.wanted.notified().await;
            if shared.try_lease().is_some() {
                shared.room.notify_waiters();
                continue;
            }
            // A connection that broke at once is an attempt that failed.
            match opened.map(|opened| opened.elapsed()) {
                Some(lived) if lived < PROVEN => {
                    if shared.connections.lock().is_empty() {
                        self.log.broke(&shared.authority, lived);
                    }
                    time::sleep(pauses.next(rand::random())).await;
                }
                _ => pauses.reset(),
            }
            while let Err(error) = self.connect().await {
                self.log.failed(&shared.authority, &error);
                time::sleep(pauses.next(rand::random())).await;
            }
            debug!(authority = %shared.authority, "connected to the control plane");
            opened = Some(Instant::now());
            shared.room.notify_waiters();
        }
    }

    async fn connect(&mut self) -> Result<(), DialError> {
        let Dialed { io, usable } = self.dial.dial().await?;
        let (send, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .initial_stream_window_size(self.windows.initial_stream_window)
            .initial_connection_window_size(self.windows.initial_connection_window)
            .handshake(TokioIo::new(io))
            .await
            .map_err(std::io::Error::other)?;
        let streams = Arc::new(AtomicUsize::new(connection.current_max_send_streams()));
        let limit = Arc::downgrade(&streams);
        self.shared.connections.lock().push(Connection {
            send,
            usable,
            streams,
        });
        tokio::spawn(async move {
            tokio::pin!(connection);
            // It is polled for every new stream, which is just when the limit matters.
            let driven = poll_fn(|cx| {
                if let Some(limit) = limit.upgrade() {
                    limit.store(connection.current_max_send_streams(), Ordering::Relaxed);
                }
                connection.as_mut().poll(cx)
            });
            log_end(driven.await);
        });
        Ok(())
    }
}

fn log_end(ended: hyper::Result<()>) {
    match ended {
        Ok(()) => debug!("connection to the control plane ended"),
        Err(error) => debug!(%error, "connection to the control plane broke"),
    }
}

/// An absence is mentioned when it begins and now and then while it lasts.
#[derive(Default)]
struct Log {
    mentioned: Option<Instant>,
}

impl Log {
    fn failed(&mut self, authority: &uri::Authority, error: &DialError) {
        if self.is_due() {
            warn!(%authority, %error, "cannot connect to the control plane; trying again");
        }
    }

    fn broke(&mut self, authority: &uri::Authority, lived: Duration) {
        if self.is_due() {
            warn!(%authority, ?lived, "the control plane ends connections at once; trying again");
        }
    }

    fn is_due(&mut self) -> bool {
        let due = self
            .mentioned
            .is_none_or(|mentioned| mentioned.elapsed() >= REMIND);
        if due {
            self.mentioned = Some(Instant::now());
        }
        due
    }
}

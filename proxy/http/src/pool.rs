//! The connections of one shard to one endpoint.
//!
//! Two rules keep a rolling restart from losing requests. A connection that the server has
//! closed, or promised to close, or on which it has said anything unasked, is not used. And
//! one that has been idle for longer than the reuse window gets only requests that can be
//! repeated: the longer it is idle the likelier the server closes it at the very moment a
//! request is on its way, and then nobody knows whether the request was processed. Where a
//! repeatable request meets that fate it is sent once more, on a new connection.
//!
//! *Adaptive*: one request per connection costs less while there are few, and many requests
//! on one connection cost less while there are many (they share TLS records and system
//! calls), so HTTP/1 requests move to HTTP/2 when enough are in flight, and stay there until
//! half as many are.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::Future,
    rc::{Rc, Weak},
    task::{Context, Waker},
    time::Duration,
};

use http::{Method, Version};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Notify,
    time::Instant,
};
use tulle_core::{Reason, Refusal};

use crate::{
    Interim, Request, Response, SendError,
    error::{Failed, Fate},
    http1::{self, Health, Home, Http1Options},
    http2::{self, Http2Options},
    lease::Lease,
    orig_proto,
};

/// Idle connections are looked at so often.
const SWEEP: Duration = Duration::from_secs(1);
/// Connections that turned out to be ending, for one request.
const MAX_HTTP2_ATTEMPTS: u32 = 3;
/// Connections that ended before anything was sent on them, for one request.
const MAX_HTTP2_CONNECTS: usize = 3;

/// What is spoken over a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    /// HTTP/1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

/// Opens connections to the endpoint: TCP, TLS and transport header, whatever it takes.
pub trait Connect: 'static {
    /// The connection.
    type Io: AsyncRead + AsyncWrite + Unpin + 'static;
    /// Open one.
    fn connect(&self, session: Session) -> impl Future<Output = Result<Self::Io, Refusal>>;

    /// Whether the kernel knows already that the server has closed, though the event loop
    /// does not. Asked before an idle connection gets a request that cannot be repeated; to
    /// look into the socket is cheaper than to lose a request.
    fn is_closed(&self, io: &Self::Io) -> bool {
        let _ = io;
        false
    }
}

/// What carries HTTP/1 requests. HTTP/2 requests are carried by HTTP/2 in every mode, and
/// those that only HTTP/1 can carry (upgrades, CONNECT) by HTTP/1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// HTTP/1.
    AsReceived,
    /// One HTTP/2 connection, by `l5d-orig-proto`.
    Http2,
    /// The one or the other, as the load asks for.
    Adaptive,
}

/// How connections are kept.
#[derive(Clone, Debug)]
pub struct PoolOptions {
    /// Idle HTTP/1 connections; beyond it the one idle for longest is closed.
    pub max_idle: usize,
    /// A connection idle for longer is closed.
    pub idle_timeout: Duration,
    /// A connection idle for longer gets only requests that can be repeated.
    pub reuse_window: Duration,
    /// In adaptive mode, HTTP/1 requests in flight above which HTTP/2 is used.
    pub h2_above: usize,
    /// HTTP/2 connections, of which there is more than one only while the server's limit of
    /// concurrent streams is reached on the others.
    pub max_http2: usize,
    /// What HTTP/1 servers may send.
    pub http1: Http1Options,
    /// What HTTP/2 servers may send.
    pub http2: Http2Options,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            max_idle: 1_000,
            idle_timeout: Duration::from_secs(20),
            reuse_window: Duration::from_secs(1),
            h2_above: 8,
            max_http2: 4,
            http1: Http1Options::default(),
            http2: Http2Options::default(),
        }
    }
}

/// The connections to one endpoint.
pub struct Pool<C: Connect>(Rc<Shared<C>>);

impl<C: Connect> Clone for Pool<C> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<C: Connect> std::fmt::Debug for Pool<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("mode", &self.0.mode)
            .field("in_flight", &self.in_flight())
            .field("idle", &self.idle())
            .finish_non_exhaustive()
    }
}

impl<C: Connect> Pool<C> {
    /// An empty pool.
    pub fn new(connect: C, mode: Mode, options: PoolOptions) -> Self {
        Self(Rc::new_cyclic(|this| Shared {
            this: Weak::clone(this),
            connect,
            mode,
            options,
            closed: Cell::new(false),
            http1_in_flight: Rc::default(),
            idle: RefCell::default(),
            prefers_http2: Cell::new(false),
            http2: RefCell::default(),
            http2_changed: Notify::new(),
            sweeping: Cell::new(false),
        }))
    }

    /// Send a request and wait for the head of its response.
    ///
    /// # Errors
    ///
    /// When no response came. The request is handed back where it can be tried elsewhere.
    pub async fn send(
        &self,
        mut request: Request,
        interim: Interim,
    ) -> Result<Response, SendError> {
        let pool = &*self.0;
        let http2 = request.version() == Version::HTTP_2;
        if http2 || orig_proto::needs_http1(&request) || !pool.prefers_http2() {
            let sent = if http2 {
                pool.send_http2(&mut request, &interim).await
            } else {
                pool.send_http1(&mut request, &interim).await
            };
            return sent.map_err(|failed| failed.into_error(request));
        }
        let orig = orig_proto::upgrade(&mut request);
        match pool.send_http2(&mut request, &interim).await {
            Ok(mut response) => {
                orig_proto::restore(&mut response, orig);
                Ok(response)
            }
            Err(mut failed) => {
                orig_proto::downgrade(&mut request);
                if failed.error.reset.is_some() {
                    failed.error.refusal.message =
                        "upgraded connection failed with HTTP/2 reset".into();
                }
                Err(failed.into_error(request))
            }
        }
    }

    /// The endpoint is gone: close idle connections now, and busy ones after their response.
    pub fn close(&self) {
        self.0.closed.set(true);
        self.0.idle.borrow_mut().clear();
        self.0.http2.borrow_mut().connections.clear();
    }

    /// Requests whose exchange is not over.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.0.in_flight()
    }

    /// Idle HTTP/1 connections.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.0.idle.borrow().len()
    }
}

struct Shared<C: Connect> {
    this: Weak<Self>,
    connect: C,
    mode: Mode,
    options: PoolOptions,
    closed: Cell<bool>,
    http1_in_flight: Rc<Cell<usize>>,
    /// The one used last is at the back, and is used next.
    idle: RefCell<VecDeque<http1::Connection<C::Io>>>,
    prefers_http2: Cell<bool>,
    http2: RefCell<Http2Connections>,
    http2_changed: Notify,
    /// The task that closes idle connections is running.
    sweeping: Cell<bool>,
}

#[derive(Default)]
struct Http2Connections {
    connections: Vec<Http2Connection>,
    connecting: bool,
    /// Counts attempts to connect, so that a failure is told to those who waited for it.
    attempts: u64,
    failure: Option<(u64, Refusal)>,
}

struct Http2Connection {
    connection: http2::Connection,
    /// Since when it was seen without a request.
    idle_since: Option<Instant>,
}

impl<C: Connect> Shared<C> {
    fn in_flight(&self) -> usize {
        let http2 = self.http2.borrow();
        let streams: usize = http2
            .connections
            .iter()
            .map(|open| open.connection.in_flight())
            .sum();
        self.http1_in_flight.get() + streams
    }

    fn prefers_http2(&self) -> bool {
        match self.mode {
            Mode::AsReceived => false,
            Mode::Http2 => true,
            Mode::Adaptive => {
                let in_flight = self.in_flight();
                if in_flight >= self.options.h2_above {
                    self.prefers_http2.set(true);
                } else if in_flight < self.options.h2_above / 2 {
                    self.prefers_http2.set(false);
                }
                self.prefers_http2.get()
            }
        }
    }

    async fn send_http1(
        &self,
        request: &mut Request,
        interim: &Interim,
    ) -> Result<Response, Failed> {
        if let Some(connection) = self.take_idle(request) {
            let lease = Lease::new(&self.http1_in_flight);
            let sent = connection
                .exchange(request, interim, self.home(), Some(lease))
                .await;
            match &sent {
                // The server seems to have closed the connection just when it was used.
                Err(failed) if failed.may_be_repeated(request) => {}
                _ => return sent,
            }
        }
        let lease = Lease::new(&self.http1_in_flight);
        let io = self
            .connect
            .connect(Session::Http1)
            .await
            .map_err(not_connected)?;
        http1::Connection::new(io, &self.options.http1)
            .exchange(request, interim, self.home(), Some(lease))
            .await
    }

    fn home(&self) -> Option<Rc<dyn Home<C::Io>>> {
        self.this.upgrade().map(|this| this as Rc<dyn Home<C::Io>>)
    }

    /// An idle connection that is fit for this request.
    fn take_idle(&self, request: &Request) -> Option<http1::Connection<C::Io>> {
        if request.version() == Version::HTTP_10 {
            // It would be lost to others: the connection ends with it.
            return None;
        }
        let mut idle = self.idle.borrow_mut();
        // Nothing is to be woken: only what is known by now counts.
        let mut cx = Context::from_waker(Waker::noop());
        while let Some(mut connection) = idle.pop_back() {
            if connection.poll_health(&mut cx) == Health::Dead {
                continue;
            }
            let age = connection.idle_since().elapsed();
            if age > self.options.idle_timeout {
                continue;
            }
            if !is_idempotent(request.method()) {
                if age > self.options.reuse_window {
                    // All others have been idle for longer.
                    idle.push_back(connection);
                    return None;
                }
                if self.connect.is_closed(connection.io()) {
                    continue;
                }
            }
            return Some(connection);
        }
        None
    }

    async fn send_http2(
        &self,
        request: &mut Request,
        interim: &Interim,
    ) -> Result<Response, Failed> {
        let mut attempt = 1;
        loop {
            let connection = self.http2_connection().await.map_err(not_connected)?;
            let failed = match connection.exchange(request, interim).await {
                Ok(response) => return Ok(response),
                Err(failed) => failed,
            };
            if connection.is_usable() {
                return Err(failed);
            }
            self.http2
                .borrow_mut()
                .connections
                .retain(|open| open.connection.is_usable());
            // The connection was ending, which says nothing about the endpoint.
            if failed.fate != Fate::Unprocessed || attempt == MAX_HTTP2_ATTEMPTS {
                return Err(failed);
            }
            attempt += 1;
        }
    }

    async fn http2_connection(&self) -> Result<http2::Connection, Refusal> {
        // Others may take all the room on a new connection, until no more may be opened.
        for _ in 0..self.options.max_http2.saturating_add(MAX_HTTP2_CONNECTS) {
            let (changed, attempt) = {
                let mut http2 = self.http2.borrow_mut();
                http2.connections.retain(|open| open.connection.is_open());
                if let Some(connection) = http2.choose(self.options.max_http2) {
                    return Ok(connection);
                }
                if !http2.connecting {
                    http2.connecting = true;
                    http2.attempts += 1;
                    self.connect_http2();
                }
                (self.http2_changed.notified(), http2.attempts)
            };
            changed.await;
            if let Some((failed, refusal)) = &self.http2.borrow().failure
                && *failed == attempt
            {
                return Err(refusal.clone());
            }
        }
        Err(Refusal::new(
            Reason::ConnectFailed,
            "HTTP/2 connections end as soon as they are made",
        ))
    }

    /// Connect in a task of its own: a request that is given up must not take the others'
    /// connection with it.
    fn connect_http2(&self) {
        let Some(this) = self.this.upgrade() else {
            return;
        };
        tokio::task::spawn_local(async move {
            let result = match this.connect.connect(Session::Http2).await {
                Ok(io) => http2::Connection::connect(io, &this.options.http2).await,
                Err(refusal) => Err(refusal),
            };
            {
                let mut http2 = this.http2.borrow_mut();
                http2.connecting = false;
                match result {
                    Ok(connection) => {
                        http2.connections.push(Http2Connection {
                            connection,
                            idle_since: None,
                        });
                    }
                    Err(refusal) => http2.failure = Some((http2.attempts, refusal)),
                }
            }
            this.http2_changed.notify_waiters();
            this.start_sweeping();
        });
    }

    fn start_sweeping(&self) {
        if self.sweeping.replace(true) {
            return;
        }
        let this = Weak::clone(&self.this);
        let interval = SWEEP.min(self.options.idle_timeout);
        tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(interval).await;
                let Some(this) = this.upgrade() else { return };
                if !this.sweep() {
                    this.sweeping.set(false);
                    return;
                }
            }
        });
    }

    /// Close what is dead or was idle for too long; returns whether anything is left.
    fn sweep(&self) -> bool {
        let now = Instant::now();
        let mut cx = Context::from_waker(Waker::noop());
        let mut idle = self.idle.borrow_mut();
        idle.retain_mut(|connection| {
            now - connection.idle_since() <= self.options.idle_timeout
                && connection.poll_health(&mut cx) == Health::Good
        });
        let mut http2 = self.http2.borrow_mut();
        let closed = self.closed.get();
        http2.connections.retain_mut(|open| {
            if open.connection.in_flight() > 0 {
                open.idle_since = None;
            }
            let since = *open.idle_since.get_or_insert(now);
            let over = now - since > self.options.idle_timeout && open.connection.in_flight() == 0;
            !closed && !over && open.connection.is_usable()
        });
        !idle.is_empty() || !http2.connections.is_empty()
    }
}

impl Http2Connections {
    /// The first connection that takes another request, so that those behind it fall idle;
    /// the least busy one if none does and no more may be opened.
    fn choose(&self, max: usize) -> Option<http2::Connection> {
        let free = self
            .connections
            .iter()
            .find(|open| open.connection.has_room());
        let chosen = free.or_else(|| {
            let full = self.connections.len() >= max.max(1);
            full.then(|| {
                self.connections
                    .iter()
                    .min_by_key(|open| open.connection.in_flight())
            })?
        });
        chosen.map(|open| open.connection.clone())
    }
}

impl<C: Connect> Home<C::Io> for Shared<C> {
    fn take_back(&self, connection: http1::Connection<C::Io>) {
        if self.closed.get() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= self.options.max_idle {
            idle.pop_front();
        }
        idle.push_back(connection);
        drop(idle);
        self.start_sweeping();
    }
}

/// Whether a request may be sent a second time (RFC 9110 §9.2.2).
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE | Method::TRACE
    )
}

impl Failed {
    /// Whether the request may be sent once more to the same server.
    fn may_be_repeated(&self, request: &Request) -> bool {
        match self.fate {
            Fate::Unprocessed => true,
            Fate::Unknown => is_idempotent(request.method()),
            Fate::Spent => false,
        }
    }
}

fn not_connected(refusal: Refusal) -> Failed {
    Failed {
        error: refusal.into(),
        fate: Fate::Unprocessed,
    }
}

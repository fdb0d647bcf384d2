//! Finds out that a peer is gone whose link was cut without a word.
//!
//! A connection that has been silent for an interval is pinged, and left if the answer does
//! not come in time. Any bytes are a sign of life. The timer is not moved when something
//! arrives: it fires at most once per interval, looks how long the silence has lasted, and
//! waits for the rest.

use std::{
    cell::{Cell, RefCell},
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use h2::{Ping, PingPong};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use crate::linger::Linger;

pub(super) struct KeepAlive<I> {
    ping: PingPong,
    heard: Heard<I>,
    last_heard: Instant,
    /// When the ping was sent that was not answered yet.
    asked: Option<Instant>,
    interval: Duration,
    timeout: Duration,
    timer: Pin<Box<Sleep>>,
}

impl<I: AsyncRead + AsyncWrite + Unpin> KeepAlive<I> {
    pub(super) fn new(
        ping: Option<PingPong>,
        heard: Heard<I>,
        options: &super::Http2Options,
    ) -> Option<Self> {
        let interval = options.keep_alive_interval?;
        Some(Self {
            ping: ping?,
            heard,
            last_heard: Instant::now(),
            asked: None,
            interval,
            timeout: options.keep_alive_timeout,
            timer: Box::pin(tokio::time::sleep(interval)),
        })
    }

    /// Ready when the peer is gone. To be polled after the connection.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.heard.take() {
            self.last_heard = Instant::now();
        }
        if self.asked.is_some() && self.ping.poll_pong(cx).is_ready() {
            self.asked = None;
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            let next = match self.asked {
                Some(asked) if self.last_heard < asked => return Poll::Ready(()),
                _ if now < self.last_heard + self.interval => self.last_heard + self.interval,
                asked => {
                    // One ping at a time: an old one that is still open asks as well.
                    if asked.is_none() && self.ping.send_ping(Ping::opaque()).is_err() {
                        return Poll::Ready(());
                    }
                    self.asked = Some(now);
                    let _ = self.ping.poll_pong(cx);
                    now + self.timeout
                }
            };
            self.timer.as_mut().reset(next);
        }
    }
}

/// A connection that notes when something was read. What is spoken over it takes one handle,
/// and its owner keeps the other, to look and to close it in peace afterwards.
pub(super) struct Heard<I>(Rc<Shared<I>>);

struct Shared<I> {
    io: RefCell<I>,
    heard: Cell<bool>,
}

impl<I: AsyncRead + AsyncWrite + Unpin> Heard<I> {
    pub(super) fn new(io: I) -> Self {
        Self(Rc::new(Shared {
            io: RefCell::new(io),
            heard: Cell::new(false),
        }))
    }

    pub(super) fn handle(&self) -> Self {
        Self(Rc::clone(&self.0))
    }

    /// Whether something was read since this was asked last.
    fn take(&self) -> bool {
        self.0.heard.replace(false)
    }

    fn io<R>(&self, act: impl FnOnce(Pin<&mut I>) -> R) -> R {
        act(Pin::new(&mut self.0.io.borrow_mut()))
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> Linger for Heard<I> {
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io(|io| io.poll_shutdown(cx))
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut scratch = [0; 1024];
        let mut buffer = ReadBuf::new(&mut scratch);
        ready!(self.io(|io| io.poll_read(cx, &mut buffer)))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for Heard<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = self.io(|io| io.poll_read(cx, buffer));
        if polled.is_ready() {
            self.0.heard.set(true);
        }
        polled
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Heard<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.io(|io| io.poll_write(cx, data))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.io(|io| io.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.0.io.borrow().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io(|io| io.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io(|io| io.poll_shutdown(cx))
    }
}

//! Finds out that a peer is gone whose link was cut without a word.
//!
//! A connection that has been silent for an interval is pinged, and left if the answer does
//! not come in time. Any bytes are a sign of life. The timer is not moved when something
//! arrives: it fires at most once per interval, looks how long the silence has lasted, and
//! waits for the rest.

use std::{
    cell::Cell,
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

pub(super) struct KeepAlive {
    ping: PingPong,
    heard: Rc<Cell<bool>>,
    last_heard: Instant,
    /// When the ping was sent that was not answered yet.
    asked: Option<Instant>,
    interval: Duration,
    timeout: Duration,
    timer: Pin<Box<Sleep>>,
}

impl KeepAlive {
    pub(super) fn new(
        ping: Option<PingPong>,
        heard: Rc<Cell<bool>>,
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
        if self.heard.replace(false) {
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

/// Notes that something was read.
pub(super) struct Heard<I> {
    io: I,
    heard: Rc<Cell<bool>>,
}

impl<I> Heard<I> {
    pub(super) fn new(io: I) -> (Self, Rc<Cell<bool>>) {
        let heard = Rc::new(Cell::new(false));
        (
            Self {
                io,
                heard: Rc::clone(&heard),
            },
            heard,
        )
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Heard<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_read(cx, buffer);
        if polled.is_ready() {
            self.heard.set(true);
        }
        polled
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Heard<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

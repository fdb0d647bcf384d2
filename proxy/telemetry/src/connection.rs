use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tulle_metrics::{Counter, Gauge, Labels, Registry};

/// The `tcp_*` families of one peer.
#[derive(Debug)]
pub struct ConnectionMetrics {
    opened: Counter,
    open: Gauge,
    closed: Counter,
    read: Counter,
    written: Counter,
}

impl ConnectionMetrics {
    /// Register the families; `labels` already hold direction and peer.
    #[must_use]
    pub fn new(registry: &Registry, labels: &Labels) -> Rc<Self> {
        Rc::new(Self {
            opened: registry.counter("tcp_open", "Connections opened.", labels),
            open: registry.gauge("tcp_open_connections", "Connections open now.", labels),
            closed: registry.counter(
                "tcp_close",
                "Connections closed.",
                &labels.with("errno", ""),
            ),
            read: registry.counter("tcp_read_bytes", "Bytes read from the peer.", labels),
            written: registry.counter("tcp_write_bytes", "Bytes written to the peer.", labels),
        })
    }
}

/// A connection that is counted for as long as it lives, and what shall live as long.
#[derive(Debug)]
pub struct Counted<I, G = ()> {
    io: I,
    open: Open,
    _guard: G,
}

#[derive(Debug)]
struct Open(Rc<ConnectionMetrics>);

impl<I, G> Counted<I, G> {
    /// The connection.
    #[must_use]
    pub const fn get_ref(&self) -> &I {
        &self.io
    }
}

impl<I> Counted<I> {
    /// Count an opened connection.
    #[must_use]
    pub fn new(io: I, metrics: Rc<ConnectionMetrics>) -> Self {
        metrics.opened.inc();
        metrics.open.inc();
        Self {
            io,
            open: Open(metrics),
            _guard: (),
        }
    }

    /// Let `guard` be dropped with the connection.
    #[must_use]
    pub fn guarding<G>(self, guard: G) -> Counted<I, G> {
        Counted {
            io: self.io,
            open: self.open,
            _guard: guard,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.dec();
        self.0.closed.inc();
    }
}

impl<I: AsyncRead + Unpin, G: Unpin> AsyncRead for Counted<I, G> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let poll = Pin::new(&mut self.io).poll_read(cx, buf);
        self.open.0.read.add((buf.filled().len() - before) as u64);
        poll
    }
}

impl<I: AsyncWrite + Unpin, G: Unpin> AsyncWrite for Counted<I, G> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.io).poll_write(cx, buf);
        self.count_written(&poll);
        poll
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.count_written(&poll);
        poll
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

impl<I, G> Counted<I, G> {
    fn count_written(&self, poll: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(bytes)) = poll {
            self.open.0.written.add(*bytes as u64);
        }
    }
}

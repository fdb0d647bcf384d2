use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tulle_transport::{Prefixed, Unread};

use crate::{ClientIo, ServerIo};

/// Any connection that the proxy holds, encrypted or not; bytes that were read from it can be
/// given back. An end without `close_notify` on an encrypted one is
/// [`io::ErrorKind::UnexpectedEof`], never an end of file: something may be missing.
#[derive(Debug)]
pub enum Io {
    /// A socket.
    Plain(Prefixed<TcpStream>),
    /// The accepting end of mesh TLS.
    Server(Box<Prefixed<ServerIo>>),
    /// The connecting end of mesh TLS.
    Client(Box<Prefixed<ClientIo>>),
}

impl Io {
    /// The socket under it.
    #[must_use]
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(io) => io.get_ref(),
            Self::Server(io) => io.get_ref().tcp(),
            Self::Client(io) => io.get_ref().tcp(),
        }
    }

    /// Let the peer see a reset instead of an end when this is dropped, as it must where the
    /// other side of a forwarded connection broke.
    pub fn reset_on_drop(&self) {
        if let Err(error) = self.tcp().set_zero_linger() {
            tracing::debug!(%error, "cannot reset a connection");
        }
    }
}

impl From<TcpStream> for Io {
    fn from(io: TcpStream) -> Self {
        Self::Plain(Prefixed::new(io))
    }
}

impl From<Prefixed<TcpStream>> for Io {
    fn from(io: Prefixed<TcpStream>) -> Self {
        Self::Plain(io)
    }
}

impl From<ServerIo> for Io {
    fn from(io: ServerIo) -> Self {
        Self::Server(Box::new(Prefixed::new(io)))
    }
}

impl From<ClientIo> for Io {
    fn from(io: ClientIo) -> Self {
        Self::Client(Box::new(Prefixed::new(io)))
    }
}

/// Calls the same method of whichever it is.
macro_rules! each {
    ($self:expr, $io:ident => $call:expr) => {
        match $self {
            Io::Plain($io) => $call,
            Io::Server($io) => $call,
            Io::Client($io) => $call,
        }
    };
}

impl Unread for Io {
    fn unread(&mut self, bytes: Bytes) {
        each!(self, io => io.unread(bytes));
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self.get_mut(), io => Pin::new(io).poll_read(cx, buf))
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), io => Pin::new(io).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), io => Pin::new(io).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), io => Pin::new(io).poll_shutdown(cx))
    }
}

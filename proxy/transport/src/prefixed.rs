use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Something that has been read from and can be given bytes back.
pub trait Unread: AsyncRead + Unpin {
    /// Make `bytes` the next that are read, before whatever was to come.
    fn unread(&mut self, bytes: Bytes);

    /// Read what comes after everything that was made the next to be read, and put it behind
    /// that; false where the peer has ended its side.
    ///
    /// # Errors
    /// Where the connection breaks.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>>;
}

/// Enough for any request line that a person would write.
const FILL: usize = 1024;

/// A connection some of whose bytes have been read already: they come first again.
#[derive(Debug)]
pub struct Prefixed<I> {
    /// Never an empty view of a buffer: what is drained is given back at once.
    prefix: Bytes,
    io: I,
}

impl<I> Prefixed<I> {
    /// A connection nothing of which has been read.
    #[must_use]
    pub const fn new(io: I) -> Self {
        Self {
            prefix: Bytes::new(),
            io,
        }
    }

    /// A connection of which `prefix` has been read.
    #[must_use]
    pub fn with_prefix(prefix: Bytes, io: I) -> Self {
        let prefix = if prefix.is_empty() {
            Bytes::new()
        } else {
            prefix
        };
        Self { prefix, io }
    }

    /// What will be read before the connection itself.
    #[must_use]
    pub fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// The connection.
    #[must_use]
    pub const fn get_ref(&self) -> &I {
        &self.io
    }

    /// What has not been read again yet, and the connection.
    #[must_use]
    pub fn into_parts(self) -> (Bytes, I) {
        (self.prefix, self.io)
    }
}

impl<I: AsyncRead + Unpin> Unread for Prefixed<I> {
    fn unread(&mut self, bytes: Bytes) {
        if self.prefix.is_empty() {
            self.prefix = if bytes.is_empty() {
                Bytes::new()
            } else {
                bytes
            };
        } else if !bytes.is_empty() {
            self.prefix = [bytes, std::mem::take(&mut self.prefix)].concat().into();
        }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut room = [MaybeUninit::uninit(); FILL];
        let mut read = ReadBuf::uninit(&mut room);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut read))?;
        let read = read.filled();
        if !read.is_empty() {
            self.prefix = [&*self.prefix, read].concat().into();
        }
        Poll::Ready(Ok(!read.is_empty()))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Prefixed<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let taken = self.prefix.len().min(buf.remaining());
        buf.put_slice(&self.prefix[..taken]);
        self.prefix.advance(taken);
        if self.prefix.is_empty() {
            self.prefix = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Prefixed<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn what_was_read_comes_first_and_its_buffer_is_given_back() {
        let prefix = Bytes::from(b"GET /".to_vec());
        let mut io = Prefixed::with_prefix(prefix.slice(..3), &b" HTTP/1.1"[..]);
        let mut read = [0; 3];

        io.read_exact(&mut read).await.unwrap();
        let drained = prefix.is_unique();
        let mut rest = String::new();
        io.read_to_string(&mut rest).await.unwrap();

        assert_eq!(&read, b"GET");
        assert!(drained);
        assert_eq!(rest, " HTTP/1.1");
    }

    #[tokio::test]
    async fn more_is_read_behind_what_was_put_back() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut io = Prefixed::with_prefix(Bytes::from_static(b"GE"), server);
        let mut fill = tokio_test::task::spawn(poll_fn(|cx| io.poll_fill(cx)));
        tokio_test::assert_pending!(fill.poll());

        client.write_all(b"T /").await.unwrap();

        assert!(tokio_test::assert_ready!(fill.poll()).unwrap());
        drop(fill);
        assert_eq!(io.prefix(), b"GET /");
        drop(client);
        assert!(!poll_fn(|cx| io.poll_fill(cx)).await.unwrap());
        assert_eq!(io.prefix(), b"GET /");
    }

    #[tokio::test]
    async fn unread_bytes_come_before_those_still_waiting() {
        let mut io = Prefixed::with_prefix(Bytes::from_static(b"b"), &b"c"[..]);

        io.unread(Bytes::from_static(b"a"));

        let mut all = String::new();
        io.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "abc");
    }
}

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
        tulle_transport::reset_on_drop(self.tcp());
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

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        each!(self, io => io.poll_fill(cx))
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

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        join,
        net::TcpListener,
    };
    use tulle_transport::{Ended, Side, duplex};

    use super::*;
    use crate::{
        HANDSHAKE_TIMEOUT, Hello, accept,
        authority::{Authority, CLIENT, WEB, target},
        connect, read_client_hello,
    };

    async fn sockets() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (client, server) = join!(TcpStream::connect(addr), listener.accept());
        (client.unwrap(), server.unwrap().0)
    }

    /// An application, the two connections of its proxy, and the server at the far end.
    async fn chain() -> (TcpStream, Io, Io, Io) {
        let root = Authority::new();
        let (client, server) = (root.credentials(CLIENT), root.credentials(WEB));
        let ((app, near), (out, far)) = (sockets().await, sockets().await);
        let accepting = async {
            match read_client_hello(far, HANDSHAKE_TIMEOUT).await.unwrap() {
                Hello::Tls { io, .. } => accept(io, &server).await.unwrap().io,
                Hello::Plain(_) => panic!("plain"),
            }
        };
        let target = target(WEB);
        let (out, far) = join!(connect(out, &client, &target, false), accepting);
        (app, near.into(), out.unwrap().into(), far.into())
    }

    #[tokio::test]
    async fn a_forwarded_connection_is_half_closed_through_tls() {
        let (mut app, near, out, mut far) = chain().await;
        let talk = async {
            app.write_all(b"question").await.unwrap();
            app.shutdown().await.unwrap();
            let (mut question, mut answer) = (String::new(), String::new());
            far.read_to_string(&mut question).await.unwrap();
            far.write_all(b"answer").await.unwrap();
            far.shutdown().await.unwrap();
            app.read_to_string(&mut answer).await.unwrap();
            (question, answer)
        };

        let (ended, said) = join!(duplex(near, out, &(), pending::<()>()), talk);

        assert!(matches!(ended, Ended::Complete));
        assert_eq!(said, ("question".to_owned(), "answer".to_owned()));
    }

    #[tokio::test]
    async fn a_server_that_breaks_off_is_a_reset_for_the_application() {
        let (mut app, mut near, mut out, mut far) = chain().await;
        far.write_all(b"half an ans").await.unwrap();
        drop(far);

        let ended = duplex(&mut near, &mut out, &(), pending::<()>()).await;
        let Ended::Failed(side, error) = ended else {
            panic!("{ended:?}")
        };
        near.reset_on_drop();
        drop(near);

        assert_eq!(
            (side, error.kind()),
            (Side::Server, io::ErrorKind::UnexpectedEof)
        );
        let mut answer = Vec::new();
        let error = app.read_to_end(&mut answer).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn what_was_read_can_be_given_back() {
        let (_app, _near, mut out, mut far) = chain().await;
        far.write_all(b"220 ready").await.unwrap();
        let mut first = [0; 3];
        out.read_exact(&mut first).await.unwrap();

        out.unread(Bytes::copy_from_slice(&first));

        let mut again = [0; 9];
        out.read_exact(&mut again).await.unwrap();
        assert_eq!(&again, b"220 ready");
    }
}

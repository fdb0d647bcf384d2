//! One connection of the generator, in each protocol. Whatever an answer is not, is an error.

mod grpc;
mod http1;
mod tcp;

use std::{cell::RefCell, future::poll_fn, io::ErrorKind, rc::Rc, task::Poll};

use tokio::net::TcpStream;

use crate::arguments::{Load, Protocol};

/// One read takes at most this.
const READ_BYTES: usize = 256 << 10;

/// What all connections read into, since bodies are only counted: ten thousand idle connections need no buffers.
#[derive(Clone)]
pub struct Scratch(Rc<RefCell<Vec<u8>>>);

impl Scratch {
    /// Make the buffer.
    pub fn new() -> Self {
        Self(Rc::new(RefCell::new(vec![0; READ_BYTES])))
    }
}

/// A connection that makes one request at a time.
pub enum Client {
    /// HTTP/1.1.
    Http1(http1::Client),
    /// gRPC.
    Grpc(grpc::Client),
    /// Length-prefixed.
    Tcp(tcp::Client),
}

impl Client {
    /// Connect.
    pub async fn connect(load: &Load, scratch: &Scratch) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(load.target).await?;
        stream.set_nodelay(true)?;
        Ok(match load.protocol {
            Protocol::Http1 => Self::Http1(http1::Client::new(stream, load, scratch.clone())),
            Protocol::Grpc => Self::Grpc(grpc::Client::new(stream, load).await?),
            Protocol::Tcp => Self::Tcp(tcp::Client::new(stream, load, scratch.clone())?),
        })
    }

    /// Tell whether another request may follow, as every client looks before it writes.
    pub async fn reusable(&mut self) -> bool {
        match self {
            Self::Http1(client) => client.reusable().await,
            Self::Grpc(client) => client.reusable().await,
            Self::Tcp(client) => client.reusable().await,
        }
    }

    /// Make one request; return the size of the answer's body.
    pub async fn request(&mut self) -> anyhow::Result<usize> {
        match self {
            Self::Http1(client) => client.request().await,
            Self::Grpc(client) => client.request().await,
            Self::Tcp(client) => client.request().await,
        }
    }
}

/// Tell whether a stream that nothing is expected on is still open; asks the kernel only where something happened.
async fn open(stream: &TcpStream) -> bool {
    poll_fn(|context| {
        if stream.poll_read_ready(context).is_pending() {
            return Poll::Ready(true);
        }
        let read = stream.try_read(&mut [0]);
        Poll::Ready(read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock))
    })
    .await
}

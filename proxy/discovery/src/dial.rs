use std::{fmt, io, net::SocketAddr};

use tokio::io::{AsyncRead, AsyncWrite};
use tulle_config::HostPort;
use tulle_tls::TlsError;
use tulle_transport::ConnectError;

/// A byte stream to the control plane.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection that was opened.
pub struct Dialed {
    /// The bytes.
    pub io: Box<dyn Io>,
    /// New calls go over it only while this holds; absent: until it breaks.
    pub usable: Option<Box<dyn Fn() -> bool + Send + Sync>>,
}

impl fmt::Debug for Dialed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialed")
            .field("limited", &self.usable.is_some())
            .finish_non_exhaustive()
    }
}

/// Opens connections to one of the control plane's services.
pub trait Dial: Send + Sync + 'static {
    /// Open one; called again, after a pause, when it fails.
    fn dial(&self) -> impl Future<Output = Result<Dialed, DialError>> + Send;
}

/// Why there is no connection to the control plane.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// Its name leads nowhere.
    #[error("cannot resolve {host}: {source}")]
    Name {
        /// The name.
        host: HostPort,
        /// What the resolver says.
        source: io::Error,
    },
    /// None of its addresses answers; this is the last one's word.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Somebody answers who is not the control plane, or does not accept us.
    #[error("{addr}: {source}")]
    Tls {
        /// Who answered.
        addr: SocketAddr,
        /// What is wrong.
        source: TlsError,
    },
    /// For transports that are neither.
    #[error(transparent)]
    Io(#[from] io::Error),
}

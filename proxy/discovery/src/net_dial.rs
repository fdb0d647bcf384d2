//! Connections to the control plane over TCP: in plaintext on loopback, else with mesh TLS.
//!
//! Only the service that certifies is reached without a certificate: by a proxy that has none
//! yet, and by one whose certificate is refused, as after a long suspend. There the token
//! proves who asks. The server proves its name in either case.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{self, Sleep},
};
use tulle_config::{ControlAddr, HostPort};
use tulle_core::TlsTarget;
use tulle_tls::{Credentials, Store};
use tulle_transport::ConnectOptions;

use crate::{Dial, DialError, Dialed, resolve::resolve};

/// How long a connection without a certificate lasts: enough to be certified, and too short to
/// report over, since nobody knows who reports.
const ANONYMOUS_LIFE: Duration = Duration::from_mins(1);

/// Opens connections over TCP.
#[derive(Debug)]
pub struct NetDial {
    addr: HostPort,
    options: ConnectOptions,
    security: Security,
}

#[derive(Debug)]
enum Security {
    Plaintext,
    /// Nothing is dialled before there is a certificate.
    Certified {
        store: Store,
        server: TlsTarget,
    },
    BeforeCertified {
        store: Store,
        server: TlsTarget,
        anonymous: Arc<Credentials>,
        refused: Refused,
    },
}

/// Whether the certificate was refused, so that the next connection goes without.
type Refused = Arc<AtomicBool>;

impl NetDial {
    /// To a service that needs to know who asks.
    #[must_use]
    pub fn new(addr: &ControlAddr, options: ConnectOptions, store: &Store) -> Self {
        let security = server(addr).map_or(Security::Plaintext, |server| Security::Certified {
            store: store.clone(),
            server,
        });
        Self {
            addr: addr.addr.clone(),
            options,
            security,
        }
    }

    /// To the service that certifies.
    #[must_use]
    pub fn before_certified(
        addr: &ControlAddr,
        options: ConnectOptions,
        store: &Store,
        anonymous: Arc<Credentials>,
    ) -> Self {
        let security =
            server(addr).map_or(Security::Plaintext, |server| Security::BeforeCertified {
                store: store.clone(),
                server,
                anonymous,
                refused: Refused::default(),
            });
        Self {
            addr: addr.addr.clone(),
            options,
            security,
        }
    }
}

/// Whom to expect; nobody on loopback.
fn server(addr: &ControlAddr) -> Option<TlsTarget> {
    let name = addr.name.as_ref().filter(|_| !addr.loopback)?;
    Some(TlsTarget {
        server_name: name.as_str().into(),
        id: name.clone(),
    })
}

impl Dial for NetDial {
    async fn dial(&self) -> Result<Dialed, DialError> {
        let credentials = self.security.credentials().await;
        let resolved = resolve(&self.addr).await;
        let mut addrs = resolved.map_err(|source| DialError::Name {
            host: self.addr.clone(),
            source,
        })?;
        // Proxies that start together don't all go to the replica that is named first.
        let first = rand::random_range(0..addrs.len());
        addrs.rotate_left(first);
        let mut last = None;
        for addr in addrs {
            match self.open(addr, credentials.as_ref()).await {
                Ok(dialed) => return Ok(dialed),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| io::Error::from(io::ErrorKind::NotFound).into()))
    }
}

impl NetDial {
    async fn open(
        &self,
        addr: SocketAddr,
        credentials: Option<&Arc<Credentials>>,
    ) -> Result<Dialed, DialError> {
        let tcp = tulle_transport::connect(addr, &self.options).await?;
        let (Some(server), Some(credentials)) = (self.security.server(), credentials) else {
            return Ok(Dialed {
                io: Box::new(tcp),
                usable: None,
            });
        };
        let io = tulle_tls::connect(tcp, credentials, server, false)
            .await
            .map_err(|source| DialError::Tls { addr, source })?;
        let Security::BeforeCertified { store, refused, .. } = &self.security else {
            return Ok(Dialed {
                io: Box::new(io),
                usable: None,
            });
        };
        if credentials.name().is_none() {
            let io = Mortal {
                io,
                life: Box::pin(time::sleep(ANONYMOUS_LIFE)),
            };
            return Ok(Dialed {
                io: Box::new(io),
                usable: Some(without_better(store)),
            });
        }
        let io = Unproven {
            io,
            refused: Some(Arc::clone(refused)),
        };
        Ok(Dialed {
            io: Box::new(io),
            usable: None,
        })
    }
}

impl Security {
    const fn server(&self) -> Option<&TlsTarget> {
        match self {
            Self::Plaintext => None,
            Self::Certified { server, .. } | Self::BeforeCertified { server, .. } => Some(server),
        }
    }

    async fn credentials(&self) -> Option<Arc<Credentials>> {
        match self {
            Self::Plaintext => None,
            Self::Certified { store, .. } => Some(store.ready().await),
            Self::BeforeCertified {
                store,
                anonymous,
                refused,
                ..
            } => {
                let refused = refused.swap(false, Ordering::Relaxed);
                let own = store.current().filter(|_| !refused);
                Some(own.unwrap_or_else(|| Arc::clone(anonymous)))
            }
        }
    }
}

/// Whether a connection without a certificate is of use: until there are credentials that
/// calls could be made with, any or others than those that were refused.
fn without_better(store: &Store) -> Box<dyn Fn() -> bool + Send + Sync> {
    let (store, refused) = (store.clone(), store.current());
    Box::new(move || match (store.current(), &refused) {
        (Some(current), Some(refused)) => Arc::ptr_eq(&current, refused),
        (current, _) => current.is_none(),
    })
}

/// A connection made with a certificate, on which the server has not said anything yet. In
/// TLS 1.3 a client whose certificate is refused sees a good handshake and then, instead of
/// the first byte, an alert or, where that is lost, the connection's end.
struct Unproven<I> {
    io: I,
    /// Absent as soon as the server has spoken.
    refused: Option<Refused>,
}

impl<I> Unproven<I> {
    fn broken(&mut self) {
        if let Some(refused) = self.refused.take() {
            refused.store(true, Ordering::Relaxed);
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Unproven<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = ready!(Pin::new(&mut self.io).poll_read(cx, buffer));
        if result.is_err() || buffer.filled().len() == before {
            self.broken();
        }
        self.refused = None;
        Poll::Ready(result)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Unproven<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.io).poll_write(cx, bytes));
        if result.is_err() {
            self.broken();
        }
        Poll::Ready(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = ready!(Pin::new(&mut self.io).poll_flush(cx));
        if result.is_err() {
            self.broken();
        }
        Poll::Ready(result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// A connection made without a certificate, which breaks when its time is over.
struct Mortal<I> {
    io: I,
    life: Pin<Box<Sleep>>,
}

impl<I: AsyncRead + Unpin> AsyncRead for Mortal<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.life.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Mortal<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

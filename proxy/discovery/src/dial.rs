use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::lookup_host,
    time,
};
use tulle_config::{ControlAddr, HostPort};
use tulle_core::TlsTarget;
use tulle_tls::{Credentials, Store, TlsError};
use tulle_transport::{ConnectError, ConnectOptions};

/// How often a proxy whose certificate was refused looks for a new one.
const RECHECK: Duration = Duration::from_secs(5);

/// A byte stream to the control plane.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A connection that was opened.
pub struct Dialed {
    /// The bytes.
    pub io: Box<dyn Io>,
    /// New calls go over it until this completes; absent: until it breaks.
    pub until: Option<BoxFuture<()>>,
}

impl fmt::Debug for Dialed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialed")
            .field("limited", &self.until.is_some())
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

/// Opens connections over TCP: in plaintext on loopback, else with mesh TLS.
#[derive(Debug)]
pub struct NetDial {
    addr: HostPort,
    options: ConnectOptions,
    security: Security,
}

#[derive(Debug)]
enum Security {
    Plaintext,
    Mesh {
        store: Store,
        server: TlsTarget,
        anonymous: Option<Anonymous>,
    },
}

/// How the identity service is reached by a proxy that has no certificate, or one that is
/// not accepted any more, as after a long suspend: the token proves who asks.
#[derive(Debug)]
struct Anonymous {
    credentials: Arc<Credentials>,
    /// The certificate was refused: try the next connection without.
    distrusted: AtomicBool,
}

impl NetDial {
    /// To a service that needs to know who asks: nothing is dialled before there is a
    /// certificate.
    #[must_use]
    pub fn new(addr: &ControlAddr, options: ConnectOptions, store: &Store) -> Self {
        Self {
            addr: addr.addr.clone(),
            options,
            security: security(addr, store, None),
        }
    }

    /// To the service that certifies: it is reached without a certificate too, and with one as
    /// soon as there is one.
    #[must_use]
    pub fn before_certified(
        addr: &ControlAddr,
        options: ConnectOptions,
        store: &Store,
        anonymous: Arc<Credentials>,
    ) -> Self {
        let anonymous = Anonymous {
            credentials: anonymous,
            distrusted: AtomicBool::new(false),
        };
        let security = security(addr, store, Some(anonymous));
        Self {
            addr: addr.addr.clone(),
            options,
            security,
        }
    }
}

fn security(addr: &ControlAddr, store: &Store, anonymous: Option<Anonymous>) -> Security {
    match &addr.name {
        Some(name) if !addr.loopback => {
            let server = TlsTarget {
                server_name: name.as_str().into(),
                id: name.clone(),
            };
            Security::Mesh {
                store: store.clone(),
                server,
                anonymous,
            }
        }
        _ => Security::Plaintext,
    }
}

impl Dial for NetDial {
    async fn dial(&self) -> Result<Dialed, DialError> {
        let credentials = self.security.credentials().await;
        let mut addrs = resolve(&self.addr).await?;
        // Proxies that start together don't all go to the replica that is named first.
        let first = rand::random_range(0..addrs.len().max(1));
        addrs.rotate_left(first);
        let nothing = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        let mut last = DialError::Name {
            host: self.addr.clone(),
            source: nothing,
        };
        for addr in addrs {
            match self.open(addr, credentials.as_ref()).await {
                Ok(dialed) => return Ok(dialed),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

impl NetDial {
    async fn open(
        &self,
        addr: SocketAddr,
        credentials: Option<&Arc<Credentials>>,
    ) -> Result<Dialed, DialError> {
        let tcp = tulle_transport::connect(addr, &self.options).await?;
        let (
            Security::Mesh {
                store,
                server,
                anonymous,
            },
            Some(credentials),
        ) = (&self.security, credentials)
        else {
            return Ok(Dialed {
                io: Box::new(tcp),
                until: None,
            });
        };
        let nameless = credentials.name().is_none();
        match tulle_tls::connect(tcp, credentials, server, false).await {
            Ok(io) => {
                let until = nameless.then(|| certified(store.clone()));
                Ok(Dialed {
                    io: Box::new(io),
                    until,
                })
            }
            Err(source) => {
                if let Some(anonymous) = anonymous {
                    anonymous.distrusted.store(!nameless, Ordering::Relaxed);
                }
                Err(DialError::Tls { addr, source })
            }
        }
    }
}

impl Security {
    async fn credentials(&self) -> Option<Arc<Credentials>> {
        match self {
            Self::Plaintext => None,
            Self::Mesh {
                store,
                anonymous: None,
                ..
            } => Some(store.ready().await),
            Self::Mesh {
                store,
                anonymous: Some(anonymous),
                ..
            } => {
                let distrusted = anonymous.distrusted.swap(false, Ordering::Relaxed);
                let own = store.current().filter(|_| !distrusted);
                Some(own.unwrap_or_else(|| Arc::clone(&anonymous.credentials)))
            }
        }
    }
}

/// Completes when a connection without a name is of no use any more: there are credentials
/// that its calls could be made with.
fn certified(store: Store) -> BoxFuture<()> {
    Box::pin(async move {
        let Some(distrusted) = store.current() else {
            store.ready().await;
            return;
        };
        while store
            .current()
            .is_some_and(|current| Arc::ptr_eq(&current, &distrusted))
        {
            time::sleep(RECHECK).await;
        }
    })
}

/// Every address of a host. `localhost` is known without asking; a name that ends in a dot is
/// asked as it is, so that no search list applies, and without the dot where the resolver
/// (a hosts file, most likely) does not know it so.
async fn resolve(addr: &HostPort) -> Result<Vec<SocketAddr>, DialError> {
    if let Some(ip) = addr.ip() {
        return Ok(vec![SocketAddr::new(ip, addr.port)]);
    }
    if addr.is_localhost() {
        let ips: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        return Ok(ips.map(|ip| SocketAddr::new(ip, addr.port)).to_vec());
    }
    let named = match lookup_host((addr.host.as_str(), addr.port)).await {
        Ok(addrs) => Ok(addrs.collect()),
        Err(source) => match addr.host.strip_suffix('.') {
            Some(host) => lookup_host((host, addr.port)).await.map(Iterator::collect),
            None => Err(source),
        },
    };
    let mut addrs: Vec<_> = named.map_err(|source| DialError::Name {
        host: addr.clone(),
        source,
    })?;
    addrs.dedup();
    Ok(addrs)
}

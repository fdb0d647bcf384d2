//! Connections to one endpoint: TCP, then TLS where the endpoint has an identity, then the
//! transport header where its proxy wants one.

use std::{net::SocketAddr, rc::Rc, sync::Arc};

use tokio::{io::AsyncWriteExt, time::Instant};
use tulle_core::{Endpoint, Hint, Reason, Refusal};
use tulle_http::pool::{Connect, Mode, Pool, PoolOptions};
use tulle_metrics::Labels;
use tulle_telemetry::{ConnectionMetrics, Counted};
use tulle_tls::Io;
use tulle_transport::{ConnectOptions, Header, Session, connect, header};

use crate::Shard;

/// What the data path reads from and writes to.
pub(crate) type Connection = Counted<Io>;

/// Makes connections to one endpoint.
#[derive(Clone)]
pub(crate) struct Connector {
    shard: Rc<Shard>,
    endpoint: Arc<Endpoint>,
    metrics: Rc<ConnectionMetrics>,
    /// The endpoint is this very workload: its application is reached directly.
    local: bool,
}

impl Connector {
    pub(crate) fn new(shard: &Rc<Shard>, endpoint: &Arc<Endpoint>, labels: &Labels) -> Self {
        let ips = &shard.config.inbound.ips;
        Self {
            shard: shard.clone(),
            endpoint: endpoint.clone(),
            metrics: ConnectionMetrics::new(&shard.registry, &labels.with("peer", "dst")),
            local: ips.contains(&endpoint.addr.ip()),
        }
    }

    /// Whether the endpoint is this very workload.
    pub(crate) const fn is_local(&self) -> bool {
        self.local
    }

    /// The pool of HTTP connections that this connector fills.
    pub(crate) fn pool(&self) -> Pool<Self> {
        let outbound = &self.shard.config.outbound;
        let carried = self.endpoint.tls.is_some() && self.endpoint.hint == Hint::H2 && !self.local;
        let mode = if carried {
            Mode::Adaptive
        } else {
            Mode::AsReceived
        };
        let options = PoolOptions {
            max_idle: outbound.max_idle,
            idle_timeout: outbound.pool_idle_timeout,
            ..PoolOptions::default()
        };
        Pool::new(self.clone(), mode, options)
    }

    /// Open a connection for what `session` names.
    ///
    /// # Errors
    /// Where the endpoint cannot be reached or does not prove its identity.
    pub(crate) async fn open(&self, session: Session) -> Result<Connection, Refusal> {
        let outbound = &self.shard.config.outbound;
        let options = ConnectOptions {
            timeout: outbound.connect_timeout,
            keepalive: outbound.connect_keepalive,
            user_timeout: outbound.connect_user_timeout,
            mark: self.shard.config.mark,
        };
        let Some(tls) = self.endpoint.tls.as_ref().filter(|_| !self.local) else {
            let socket = connect(self.endpoint.addr, &options).await;
            let socket = socket.map_err(|error| refusal(error.reason(), &error))?;
            return Ok(Counted::new(Io::from(socket), self.metrics.clone()));
        };
        let port = self.endpoint.transport_port;
        let address = SocketAddr::new(
            self.endpoint.addr.ip(),
            port.unwrap_or_else(|| self.endpoint.addr.port()),
        );
        let socket = connect(address, &options).await;
        let socket = socket.map_err(|error| refusal(error.reason(), &error))?;
        let Some(credentials) = self.shard.store.current() else {
            let error = "this proxy has no certificate yet";
            return Err(Refusal::new(Reason::TlsFailed, error));
        };
        let io = tulle_tls::connect(socket, &credentials, tls, port.is_some()).await;
        let io = io.map_err(|error| refusal(error.reason(), &error))?;
        let mut io = Counted::new(Io::from(io), self.metrics.clone());
        if port.is_some() {
            let name = self
                .endpoint
                .authority_override
                .as_deref()
                .unwrap_or_default();
            let bytes = header::encode(&Header {
                port: self.endpoint.addr.port(),
                name: name.to_owned(),
                session,
            });
            let written = io.write_all(&bytes).await;
            written.map_err(|error| refusal(Reason::ConnectionLost, &error))?;
        }
        Ok(io)
    }

    /// How long a connection took counts as the endpoint's round trip where there is no
    /// response to measure.
    pub(crate) async fn open_measured(
        &self,
        load: &tulle_balance::Load,
    ) -> Result<Connection, Refusal> {
        let start = Instant::now();
        let io = self.open(Session::Opaque).await?;
        let now = Instant::now();
        load.observe(now - start, now);
        Ok(io)
    }
}

impl Connect for Connector {
    type Io = Connection;

    async fn connect(&self, session: tulle_http::pool::Session) -> Result<Connection, Refusal> {
        self.open(match session {
            // Whatever this side has made of it: the other one takes the port for bytes.
            _ if self.endpoint.hint == Hint::Opaque => Session::Opaque,
            tulle_http::pool::Session::Http1 => Session::Http1,
            tulle_http::pool::Session::Http2 => Session::Http2,
        })
        .await
    }
}

fn refusal(reason: Reason, error: &dyn std::error::Error) -> Refusal {
    Refusal::new(reason, error.to_string())
}

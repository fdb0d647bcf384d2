//! The admin port: readiness, metrics, the log's filter and shutting down.
//!
//! The port is not redirected, so connections come straight here; but the policy of the port
//! applies as to any other: TLS is terminated where the client asks for our name, and each
//! request is authorized. What changes the process is heard from loopback only.

mod service;

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use tokio::net::{TcpListener, TcpStream};
use tulle_config::Config;
use tulle_core::{ClientTls, Id, NoTls};
use tulle_discovery::{Discovery, ServerState, View};
use tulle_http::{
    DrainSignal,
    http1::{self, Http1Options},
};
use tulle_metrics::Registry;
use tulle_tls::{Hello, Io, Store};
use tulle_transport::{AcceptedOptions, ListenOptions, accept, listen};

use crate::service::AdminService;

/// Enough for a scraper on a slow link to begin its handshake.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads and changes the log's filter.
pub trait LogFilter: 'static {
    /// The filter in force.
    fn get(&self) -> String;

    /// Put another one in force.
    ///
    /// # Errors
    /// What is wrong with the filter.
    fn set(&self, filter: &str) -> Result<(), String>;
}

/// What the composition root hands in.
pub struct Parts {
    /// Settings.
    pub config: Arc<Config>,
    /// What to show.
    pub registry: Registry,
    /// The certificate.
    pub store: Store,
    /// The port's policy.
    pub discovery: Discovery,
    /// The log's filter.
    pub log: Box<dyn LogFilter>,
    /// Called when somebody may and does ask to shut down.
    pub shutdown: Box<dyn Fn()>,
}

/// The admin server.
pub struct Admin {
    /// Of the ports whose policy must be known before the proxy is ready.
    ports: Vec<View<ServerState>>,
    policy: View<ServerState>,
    parts: Parts,
}

impl Admin {
    /// Build the server; nothing is opened yet.
    #[must_use]
    pub fn new(parts: Parts) -> Rc<Self> {
        let policy = parts.discovery.server(parts.config.admin_listen.port());
        let named = &parts.config.inbound.ports;
        Rc::new(Self {
            ports: named
                .iter()
                .map(|port| parts.discovery.server(*port))
                .collect(),
            policy,
            parts,
        })
    }

    /// Bind the port; must be called in the runtime that serves it.
    ///
    /// # Errors
    /// Where it is taken or not ours.
    pub fn bind(&self) -> std::io::Result<TcpListener> {
        listen(self.parts.config.admin_listen, &ListenOptions::default())
    }

    /// Accept connections until the listener breaks.
    ///
    /// # Errors
    /// What the listener broke of.
    pub async fn serve(self: Rc<Self>, listener: TcpListener) -> std::io::Result<()> {
        let options = AcceptedOptions {
            keepalive: self.parts.config.inbound.accept_keepalive,
            user_timeout: self.parts.config.inbound.accept_user_timeout,
        };
        loop {
            let accepted = accept(&listener, &options).await?;
            tokio::task::spawn_local(self.clone().connection(accepted.io, accepted.peer));
        }
    }

    /// Whether there is a certificate and every port named at start has its policy.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let known = |view: &View<ServerState>| matches!(&*view.get(), ServerState::Known(_));
        self.parts.store.current().is_some() && self.ports.iter().all(known)
    }

    async fn connection(self: Rc<Self>, io: TcpStream, address: SocketAddr) {
        let (io, tls) = match tulle_tls::read_client_hello(io, HELLO_TIMEOUT).await {
            Ok(Hello::Plain(io)) => {
                let why = if address.ip().is_loopback() {
                    NoTls::Loopback
                } else {
                    NoTls::NotFromRemote
                };
                (Io::from(io), ClientTls::None(why))
            }
            Ok(Hello::Tls { sni, io }) => {
                let Some(credentials) = self.parts.store.current() else {
                    return;
                };
                if sni.as_deref() != credentials.name().map(Id::as_str) {
                    return;
                }
                match tulle_tls::accept(io, &credentials).await {
                    Ok(accepted) => {
                        let tls = ClientTls::Established {
                            client_id: accepted.client_id,
                        };
                        (Io::from(accepted.io), tls)
                    }
                    Err(error) => {
                        tracing::debug!(client = %address, %error, "admin connection refused");
                        return;
                    }
                }
            }
            Err(error) => {
                tracing::debug!(client = %address, %error, "admin connection ended");
                return;
            }
        };
        // Not the process's: a scraper that keeps its connection must not keep the process.
        let (_never, drain) = DrainSignal::new();
        let service = Rc::new(AdminService::new(self, address.ip(), tls));
        let options = Http1Options::default();
        if let Err(error) = http1::serve(io, service, &options, drain).await {
            tracing::debug!(client = %address, %error, "admin connection ended");
        }
    }
}

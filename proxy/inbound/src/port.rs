//! One port of the workload: its policy, and the connections to the application behind it.

use std::{cell::RefCell, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use tokio::{net::TcpStream, time::timeout};
use tulle_core::{ClientTls, Reason, Refusal};
use tulle_discovery::{ServerState, View};
use tulle_http::pool::{Connect, Mode, Pool, PoolOptions, Session};
use tulle_metrics::Labels;
use tulle_policy::{Grant, inbound::ServerPolicy};
use tulle_telemetry::{ConnectionMetrics, Counted, client_tls_labels, target_labels};
use tulle_transport::{ConnectOptions, connect};

use crate::{
    Shard,
    observe::{Admitted, AdmittedCache},
};

/// How long a connection to a port that was not named at start waits for its policy. The
/// stock proxy would let it in by the default of the environment; we do not let in what
/// nobody has spoken of.
const POLICY_TIMEOUT: Duration = Duration::from_secs(3);

/// One port of one address of the workload.
pub(crate) struct Port {
    pub(crate) target: SocketAddr,
    pub(crate) application: Application,
    pub(crate) http: Pool<Application>,
    view: View<ServerState>,
    clients: RefCell<Vec<(ClientTls, Rc<ConnectionMetrics>)>>,
    admitted: AdmittedCache,
}

impl Port {
    pub(crate) fn new(shard: &Rc<Shard>, target: SocketAddr) -> Self {
        let application = Application::new(shard, target);
        let inbound = &shard.config.inbound;
        let options = PoolOptions {
            max_idle: inbound.max_idle,
            idle_timeout: inbound.pool_idle_timeout,
            ..PoolOptions::default()
        };
        Self {
            target,
            http: Pool::new(application.clone(), Mode::AsReceived, options),
            application,
            view: shard.discovery.server(target.port()),
            clients: RefCell::default(),
            admitted: AdmittedCache::default(),
        }
    }

    /// The policy in force, waiting for the first one.
    ///
    /// # Errors
    /// `policy_unknown` where none comes in time.
    pub(crate) async fn policy(&self) -> Result<Arc<ServerPolicy>, Refusal> {
        let known = timeout(
            POLICY_TIMEOUT,
            self.view.until(|state| match state {
                ServerState::Known(policy) => Some(policy.clone()),
                ServerState::Pending => None,
            }),
        );
        known.await.map_err(|_| unknown())
    }

    /// The policy in force now.
    ///
    /// # Errors
    /// `policy_unknown` before there is one.
    pub(crate) fn policy_now(&self) -> Result<Arc<ServerPolicy>, Refusal> {
        match &*self.view.get() {
            ServerState::Known(policy) => Ok(policy.clone()),
            ServerState::Pending => Err(unknown()),
        }
    }

    /// Wait until another policy is in force.
    pub(crate) async fn policy_after(&self, policy: &Arc<ServerPolicy>) -> Arc<ServerPolicy> {
        let other = |state: &ServerState| match state {
            ServerState::Known(other) if !Arc::ptr_eq(other, policy) => Some(other.clone()),
            _ => None,
        };
        self.view.until(other).await
    }

    /// The handles that count the requests of one kind of client.
    pub(crate) fn admitted(
        &self,
        shard: &Shard,
        tls: &ClientTls,
        grant: &Arc<Grant>,
    ) -> Rc<Admitted> {
        self.admitted.get(shard, self, tls, grant)
    }

    /// Count a refused request or connection in the stock families.
    pub(crate) fn refused(&self, shard: &Shard, tls: &ClientTls, reason: Reason) {
        let (name, help) = match reason {
            Reason::Unauthorized => ("inbound_http_authz_deny", "Requests not let in."),
            Reason::RouteNotFound => ("inbound_http_route_not_found", "Requests without a route."),
            _ => return,
        };
        let labels = self.server_labels(shard);
        shard
            .registry
            .counter(name, help, &client_tls_labels(&labels, tls))
            .inc();
    }

    /// Count a connection that was, or no longer is, let in as a whole.
    pub(crate) fn count_connection(&self, shard: &Shard, tls: &ClientTls, name: &'static str) {
        let labels = self.server_labels(shard);
        let help = "Connections by what authorization said of them.";
        shard
            .registry
            .counter(name, help, &client_tls_labels(&labels, tls))
            .inc();
    }

    fn server_labels(&self, shard: &Shard) -> Labels {
        let meta = self
            .policy_now()
            .map(|policy| policy.meta.clone())
            .unwrap_or_default();
        target_labels(&shard.labels, self.target)
            .with("srv_group", &meta.group)
            .with("srv_kind", &meta.kind)
            .with("srv_name", &meta.name)
            .with("srv_port", &self.target.port().to_string())
    }

    /// The handles that count the connections of one kind of client.
    pub(crate) fn client_metrics(&self, shard: &Shard, tls: &ClientTls) -> Rc<ConnectionMetrics> {
        let mut clients = self.clients.borrow_mut();
        if let Some((_, known)) = clients.iter().find(|(known, _)| known == tls) {
            return known.clone();
        }
        let labels = target_labels(&shard.labels.with("peer", "src"), self.target);
        let metrics = ConnectionMetrics::new(&shard.registry, &client_tls_labels(&labels, tls));
        clients.push((tls.clone(), metrics.clone()));
        metrics
    }
}

fn unknown() -> Refusal {
    Refusal::new(Reason::PolicyUnknown, "the port's policy is not known")
}

/// Makes connections to the application, at the pod's own address.
#[derive(Clone)]
pub(crate) struct Application {
    target: SocketAddr,
    options: ConnectOptions,
    metrics: Rc<ConnectionMetrics>,
}

impl Application {
    fn new(shard: &Shard, target: SocketAddr) -> Self {
        let inbound = &shard.config.inbound;
        let labels = target_labels(&shard.labels.with("peer", "dst"), target);
        let labels: Labels = labels
            .with("tls", "no_identity")
            .with("no_tls_reason", "loopback");
        Self {
            target,
            options: ConnectOptions {
                timeout: inbound.connect_timeout,
                keepalive: None,
                user_timeout: None,
                mark: shard.config.mark,
            },
            metrics: ConnectionMetrics::new(&shard.registry, &labels),
        }
    }

    /// Connect to the application.
    ///
    /// # Errors
    /// Where it does not listen or does not accept in time.
    pub(crate) async fn open(&self) -> Result<Counted<TcpStream>, Refusal> {
        let socket = connect(self.target, &self.options).await;
        let socket = socket.map_err(|error| Refusal::new(error.reason(), error.to_string()))?;
        Ok(Counted::new(socket, self.metrics.clone()))
    }
}

impl Connect for Application {
    type Io = Counted<TcpStream>;

    async fn connect(&self, _session: Session) -> Result<Self::Io, Refusal> {
        self.open().await
    }
}

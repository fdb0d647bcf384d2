//! One port of the workload: its policy, and the connections to the application behind it.

use std::{
    cell::RefCell, collections::BTreeSet, net::SocketAddr, rc::Rc, sync::Arc, time::Duration,
};

use tokio::time::{Instant, timeout};
use tulle_core::{ClientTls, Reason, Refusal};
use tulle_discovery::{ServerState, View};
use tulle_http::pool::{Mode, Pool, PoolOptions};
use tulle_metrics::Labels;
use tulle_policy::{Grant, Limited, Meta, inbound::ServerPolicy};
use tulle_telemetry::{ConnectionMetrics, client_tls_labels, target_labels};

use crate::{
    Shard,
    application::{Application, Patience},
    detection::{Detection, Found},
    live::Live,
    observe::{Admitted, AdmittedCache, Authority, meta_labels},
};

/// How long a connection to a port that was not named at start waits for its policy. The
/// stock proxy would let it in by the default of the environment; we do not let in what
/// nobody has spoken of.
const POLICY_TIMEOUT: Duration = Duration::from_secs(3);

/// More kinds of clients than this, and their handles are made anew now and then.
const MAX_CLIENTS: usize = 1024;

/// An application that passes TLS on has one name or a few.
const MAX_NAMES: usize = 32;

/// One port of one address of the workload.
pub(crate) struct Port {
    pub(crate) target: SocketAddr,
    pub(crate) application: Application,
    pub(crate) http: Pool<Application>,
    /// Of requests, while the application does not answer.
    pub(crate) patience: Patience,
    /// HTTP connections that are open.
    pub(crate) live: Live,
    view: View<ServerState>,
    clients: RefCell<Vec<(ClientTls, Rc<ConnectionMetrics>)>>,
    /// Names that TLS clients have asked for, which label what is counted.
    names: RefCell<BTreeSet<String>>,
    admitted: AdmittedCache,
    detection: Detection,
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
            patience: Patience::new(inbound),
            live: Live::default(),
            view: shard.discovery.server(target.port()),
            clients: RefCell::default(),
            names: RefCell::default(),
            admitted: AdmittedCache::default(),
            detection: Detection::default(),
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

    /// The policy as it changes.
    pub(crate) fn view(&self) -> View<ServerState> {
        self.view.clone()
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
        authority: Authority,
    ) -> Rc<Admitted> {
        self.admitted.get(shard, self, tls, grant, authority)
    }

    /// Count what detection has found.
    pub(crate) fn detected(
        &self,
        shard: &Shard,
        policy: &ServerPolicy,
        found: Found,
        since: Instant,
    ) {
        let (number, after) = (self.target.port(), since.elapsed());
        self.detection
            .count(shard, &policy.meta, number, found, after);
    }

    /// Count a request that no authorization of its route or server let in.
    pub(crate) fn denied(&self, shard: &Shard, tls: &ClientTls, route: &Meta) {
        let labels = meta_labels(&self.server_labels(shard), "route", route);
        let (name, help) = ("inbound_http_authz_deny", "Requests not let in.");
        shard
            .registry
            .counter(name, help, &client_tls_labels(&labels, tls))
            .inc();
    }

    /// Count a request that is refused for another reason, in the stock families.
    pub(crate) fn refused(&self, shard: &Shard, tls: &ClientTls, reason: Reason) {
        let mut labels = self.server_labels(shard);
        let (name, help) = match reason {
            // Counted where the route is known.
            Reason::Unauthorized => return,
            Reason::RouteNotFound => ("inbound_http_route_not_found", "Requests without a route."),
            _ => {
                let Some(error) = reason.error() else { return };
                labels = labels.with("error", error);
                ("inbound_http_errors", "Requests that ended in an error.")
            }
        };
        shard
            .registry
            .counter(name, help, &client_tls_labels(&labels, tls))
            .inc();
    }

    /// Count a request that is over a limit.
    pub(crate) fn limited(
        &self,
        shard: &Shard,
        tls: &ClientTls,
        policy: &ServerPolicy,
        limited: &Limited,
    ) {
        let meta = policy.rate_limit.as_ref().map(|limit| &limit.meta);
        let Some(meta) = meta else { return };
        let labels = self
            .server_labels(shard)
            .with("ratelimit_group", &meta.group)
            .with("ratelimit_kind", &meta.kind)
            .with("ratelimit_name", &meta.name)
            .with("ratelimit_scope", limited.scope);
        let (name, help) = ("inbound_http_local_ratelimit", "Requests over a limit.");
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

    /// A client whose TLS passes through. The name that it asks for is whatever it likes, and
    /// only so many of them are told apart.
    pub(crate) fn passing(&self, sni: Option<String>) -> ClientTls {
        let mut names = self.names.borrow_mut();
        let mut sni = sni.unwrap_or_default();
        if !names.contains(&sni) {
            if names.len() < MAX_NAMES {
                names.insert(sni.clone());
            } else {
                sni.clear();
            }
        }
        ClientTls::Opaque { sni }
    }

    /// The handles that count the connections of one kind of client.
    pub(crate) fn client_metrics(&self, shard: &Shard, tls: &ClientTls) -> Rc<ConnectionMetrics> {
        let mut clients = self.clients.borrow_mut();
        if let Some((_, known)) = clients.iter().find(|(known, _)| known == tls) {
            return known.clone();
        }
        let labels = target_labels(&shard.labels.with("peer", "src"), self.target);
        let metrics = ConnectionMetrics::new(&shard.registry, &client_tls_labels(&labels, tls));
        if clients.len() >= MAX_CLIENTS {
            clients.clear();
        }
        clients.push((tls.clone(), metrics.clone()));
        metrics
    }
}

fn unknown() -> Refusal {
    Refusal::new(Reason::PolicyUnknown, "the port's policy is not known")
}

#[cfg(test)]
mod tests {
    use tulle_http::{DrainSignal, http2::Http2Options};
    use tulle_testkit::Alone;
    use tulle_tls::Store;

    use super::*;
    use crate::Parts;

    fn shard() -> Rc<Shard> {
        let Alone {
            config,
            registry,
            discovery,
        } = Alone::new();
        Shard::new(Parts {
            discovery,
            config,
            registry,
            store: Store::new(),
            drain: DrainSignal::new().0,
            http2: Http2Options::default(),
            shards: 1,
            epoch: Instant::now(),
            taps: tulle_tap::Taps::default(),
            tracer: tulle_trace::Tracer::default(),
            access_log: None,
        })
    }

    #[tokio::test]
    async fn names_that_a_client_makes_up_do_not_add_up() {
        let shard = shard();
        let port = shard.port(([10, 0, 0, 1], 443).into());
        let first = port.passing(Some("web.shop".to_owned()));

        for number in 0..10_000 {
            let tls = port.passing(Some(format!("{number}.example")));
            port.client_metrics(&shard, &tls);
        }

        assert_eq!(port.passing(Some("web.shop".to_owned())), first);
        assert!(port.clients.borrow().len() <= MAX_NAMES + 1);
        assert!(shard.registry.render().lines().count() < 10 * MAX_NAMES);
    }
}

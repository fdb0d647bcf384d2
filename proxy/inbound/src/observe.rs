use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

use tokio::time::Instant;
use tulle_core::ClientTls;
use tulle_http::{End, Observer};
use tulle_metrics::{Counter, Labels};
use tulle_policy::{Grant, Meta};
use tulle_telemetry::{
    RequestMetrics, ResponseFacts, Slot, StatusFamily, StatusMetrics, client_tls_labels,
    target_labels,
};

use crate::{Shard, port::Port};

const HTTP: StatusFamily = StatusFamily {
    statuses: "inbound_http_statuses",
    duration: "inbound_http_request_duration_seconds",
    bounds: &[0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 10.0],
    requests: Some("inbound_http_requests"),
    status_label: "status",
    grpc: false,
    error_label: false,
};

const GRPC: StatusFamily = StatusFamily {
    statuses: "inbound_grpc_statuses",
    duration: "inbound_grpc_request_duration_seconds",
    bounds: &[0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 10.0],
    requests: Some("inbound_grpc_requests"),
    status_label: "status",
    grpc: true,
    error_label: false,
};

/// The handles for the requests of one kind of client that one grant let in.
pub(crate) struct Admitted {
    /// Held so that its address stays the key of these handles.
    grant: Arc<Grant>,
    requests: RequestMetrics,
    http: StatusMetrics,
    grpc: StatusMetrics,
    allowed: Counter,
}

impl Admitted {
    pub(crate) fn new(shard: &Shard, port: &Port, tls: &ClientTls, grant: &Arc<Grant>) -> Self {
        let number = port.target.port().to_string();
        let route = grant.route.as_deref().cloned().unwrap_or_default();
        let labels = target_labels(&shard.labels, port.target);
        let labels = meta_labels(&labels, "srv", &grant.server).with("srv_port", &number);
        let labels = meta_labels(&labels, "route", &route);
        let labels = meta_labels(&labels, "authz", &grant.authz);
        let labels = client_tls_labels(&labels, tls);
        let family = meta_labels(&Labels::none(), "parent", &grant.server);
        let family = meta_labels(&family.with("parent_port", &number), "route", &route);
        Self {
            grant: grant.clone(),
            allowed: shard.registry.counter(
                "inbound_http_authz_allow",
                "Requests let in.",
                &labels,
            ),
            requests: RequestMetrics::new(&shard.registry, labels),
            http: StatusMetrics::new(&shard.registry, &HTTP, family.clone()),
            grpc: StatusMetrics::new(&shard.registry, &GRPC, family),
        }
    }

    pub(crate) fn is_for(&self, grant: &Arc<Grant>) -> bool {
        Arc::ptr_eq(&self.grant, grant)
    }

    /// What let them in, of which kind their server is.
    pub(crate) fn server(&self) -> &Meta {
        &self.grant.server
    }

    pub(crate) fn begin(&self, grpc: bool) {
        self.allowed.inc();
        self.requests.begin();
        self.statuses(grpc).begin();
    }

    fn statuses(&self, grpc: bool) -> &StatusMetrics {
        if grpc { &self.grpc } else { &self.http }
    }
}

/// The handles by client; a connection looks here once.
#[derive(Default)]
pub(crate) struct AdmittedCache(RefCell<Vec<(ClientTls, Rc<Admitted>)>>);

/// More kinds of clients than this, and their handles are made anew now and then.
const MAX_ADMITTED: usize = 4096;

impl AdmittedCache {
    pub(crate) fn get(
        &self,
        shard: &Shard,
        port: &Port,
        tls: &ClientTls,
        grant: &Arc<Grant>,
    ) -> Rc<Admitted> {
        let mut cache = self.0.borrow_mut();
        let known = cache
            .iter()
            .find(|(known, admitted)| admitted.is_for(grant) && known == tls);
        if let Some((_, admitted)) = known {
            return admitted.clone();
        }
        if cache.len() >= MAX_ADMITTED {
            cache.clear();
        }
        let admitted = Rc::new(Admitted::new(shard, port, tls, grant));
        cache.push((tls.clone(), admitted.clone()));
        admitted
    }
}

/// `<role>_group`, `<role>_kind` and `<role>_name`.
pub(crate) fn meta_labels(labels: &Labels, role: &str, meta: &Meta) -> Labels {
    let label = |part: &str| format!("{role}_{part}");
    labels
        .with(&label("group"), &meta.group)
        .with(&label("kind"), &meta.kind)
        .with(&label("name"), &meta.name)
}

/// Follows a response to its end.
pub(crate) struct Following {
    pub(crate) arrived: Instant,
    pub(crate) grpc: bool,
    pub(crate) facts: ResponseFacts,
    pub(crate) admitted: Rc<Admitted>,
    pub(crate) first_data: Cell<Option<Instant>>,
    pub(crate) _slot: Slot,
}

impl Observer for Following {
    fn data(&self, _bytes: usize) {
        if self.first_data.get().is_none() {
            self.first_data.set(Some(Instant::now()));
        }
    }

    fn end(&self, end: End<'_>) {
        let now = Instant::now();
        let ended = self.facts.end(&end);
        let latency = self.first_data.get().unwrap_or(now) - self.arrived;
        self.admitted.requests.end(ended, latency);
        self.admitted
            .statuses(self.grpc)
            .end(ended, now - self.arrived);
    }
}

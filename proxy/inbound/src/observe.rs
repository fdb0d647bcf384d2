use std::{
    cell::{Cell, OnceCell, RefCell},
    rc::Rc,
    sync::Arc,
};

use tokio::time::Instant;
use tulle_core::ClientTls;
use tulle_http::{End, Observer, Request};
use tulle_metrics::{Counter, Histogram, Labels, Registry};
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

/// What a request is for, in its client's words; absent unless it is to be a label.
pub(crate) type Authority = Option<Box<str>>;

/// The handles for the requests of one kind of client that one grant let in.
pub(crate) struct Admitted {
    /// Held so that its address stays the key of these handles.
    grant: Arc<Grant>,
    authority: Authority,
    requests: RequestMetrics,
    registry: Registry,
    /// Of the families by route.
    labels: Labels,
    http: OnceCell<Family>,
    grpc: OnceCell<Family>,
    allowed: Counter,
}

/// The families by route, of HTTP or of gRPC.
pub(crate) struct Family {
    statuses: StatusMetrics,
    response: Histogram,
    request_frames: Histogram,
    response_frames: Histogram,
}

/// Bounds of the sizes of frames in bytes, the stock proxy's.
const FRAMES: &[f64] = &[128.0, 1024.0, 10240.0];
/// Bounds of the time of a response alone in seconds, the stock proxy's.
const RESPONSE: &[f64] = &[0.05, 0.5, 1.0, 10.0];

impl Family {
    fn new(registry: &Registry, labels: &Labels, grpc: bool) -> Self {
        let protocol = if grpc { "grpc" } else { "http" };
        let frames = |direction| {
            registry.histogram(
                &format!("inbound_{protocol}_{direction}_frame_size_bytes"),
                "Bytes of the pieces of bodies.",
                FRAMES,
                labels,
            )
        };
        let of = if grpc { &GRPC } else { &HTTP };
        Self {
            statuses: StatusMetrics::new(registry, of, labels.clone()),
            response: registry.histogram(
                &format!("inbound_{protocol}_response_duration_seconds"),
                "Seconds from the end of a request to the end of its response.",
                RESPONSE,
                labels,
            ),
            request_frames: frames("request"),
            response_frames: frames("response"),
        }
    }
}

impl Admitted {
    fn new(
        shard: &Shard,
        port: &Port,
        tls: &ClientTls,
        grant: &Arc<Grant>,
        authority: Authority,
    ) -> Self {
        let number = port.target.port().to_string();
        let route = grant.route.as_deref().cloned().unwrap_or_default();
        let labels = target_labels(&shard.labels, port.target);
        let labels = meta_labels(&labels, "srv", &grant.server).with("srv_port", &number);
        let labels = meta_labels(&labels, "route", &route);
        let labels = meta_labels(&labels, "authz", &grant.authz);
        let labels = client_tls_labels(&labels, tls);
        let requests = match &authority {
            Some(authority) => labels.with("authority", authority),
            None => labels.clone(),
        };
        let family = meta_labels(&Labels::none(), "parent", &grant.server);
        let family = meta_labels(&family.with("parent_port", &number), "route", &route);
        Self {
            grant: grant.clone(),
            authority,
            allowed: shard.registry.counter(
                "inbound_http_authz_allow",
                "Requests let in.",
                &labels,
            ),
            requests: RequestMetrics::new(&shard.registry, requests),
            registry: shard.registry.clone(),
            labels: family,
            http: OnceCell::new(),
            grpc: OnceCell::new(),
        }
    }

    pub(crate) fn is_for(&self, grant: &Arc<Grant>, authority: &Authority) -> bool {
        Arc::ptr_eq(&self.grant, grant) && self.authority == *authority
    }

    /// What let them in, of which kind their server is.
    pub(crate) fn server(&self) -> &Meta {
        &self.grant.server
    }

    pub(crate) fn begin(&self, grpc: bool) {
        self.allowed.inc();
        self.requests.begin();
        self.family(grpc).statuses.begin();
    }

    fn family(&self, grpc: bool) -> &Family {
        let family = if grpc { &self.grpc } else { &self.http };
        family.get_or_init(|| Family::new(&self.registry, &self.labels, grpc))
    }

    /// Watch the body of a request, unless it is here already.
    pub(crate) fn watch(
        self: &Rc<Self>,
        request: Request,
        grpc: bool,
    ) -> (Request, Option<Rc<Upload>>) {
        if request.body().is_here() {
            if let Some(bytes @ 1..) = request.body().exact_length() {
                self.family(grpc).request_frames.observe(size(bytes));
            }
            return (request, None);
        }
        let upload = Rc::new(Upload {
            admitted: self.clone(),
            grpc,
            ended: Cell::new(None),
        });
        let watched = upload.clone();
        (request.map(|body| body.observed(watched)), Some(upload))
    }
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 bytes")]
const fn size(bytes: u64) -> f64 {
    bytes as f64
}

/// Follows the body of a request.
pub(crate) struct Upload {
    admitted: Rc<Admitted>,
    grpc: bool,
    ended: Cell<Option<Instant>>,
}

impl Observer for Upload {
    fn data(&self, bytes: usize) {
        let frames = &self.admitted.family(self.grpc).request_frames;
        frames.observe(size(bytes as u64));
    }

    fn end(&self, _end: End<'_>) {
        self.ended.set(Some(Instant::now()));
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
        authority: Authority,
    ) -> Rc<Admitted> {
        let mut cache = self.0.borrow_mut();
        let known = cache
            .iter()
            .find(|(known, admitted)| admitted.is_for(grant, &authority) && known == tls);
        if let Some((_, admitted)) = known {
            return admitted.clone();
        }
        if cache.len() >= MAX_ADMITTED {
            cache.clear();
        }
        let admitted = Rc::new(Admitted::new(shard, port, tls, grant, authority));
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
    /// Of a request whose body was not here with its head.
    pub(crate) upload: Option<Rc<Upload>>,
    pub(crate) first_data: Cell<Option<Instant>>,
    pub(crate) _slot: Slot,
}

impl Observer for Following {
    fn data(&self, bytes: usize) {
        if self.first_data.get().is_none() {
            self.first_data.set(Some(Instant::now()));
        }
        let frames = &self.admitted.family(self.grpc).response_frames;
        frames.observe(size(bytes as u64));
    }

    fn end(&self, end: End<'_>) {
        let now = Instant::now();
        let ended = self.facts.end(&end);
        let latency = self.first_data.get().unwrap_or(now) - self.arrived;
        self.admitted.requests.end(ended, latency);
        let family = self.admitted.family(self.grpc);
        family.statuses.end(ended, now - self.arrived);
        let sent = match &self.upload {
            // A server may answer before it has heard everything.
            Some(upload) => upload.ended.get().unwrap_or(now),
            None => self.arrived,
        };
        family.response.observe((now - sent).as_secs_f64());
    }
}

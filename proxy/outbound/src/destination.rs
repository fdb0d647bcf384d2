//! What one shard knows of one original destination: the policy in force, made ready for
//! requests. A new policy replaces it between two requests; balancers that stay the same
//! are kept.

use std::{
    cell::{OnceCell, RefCell},
    net::{Ipv4Addr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, timeout};
use tulle_core::{Reason, Refusal};
use tulle_discovery::{OutboundState, View};
use tulle_http::Request;
use tulle_policy::{
    Backend, Distribution, Facts, FailureAccrual, Filter, Meta, RouteBackend, TcpFilter,
    outbound::{ClientPolicy, ProfileRoute, Protocol},
};
use tulle_telemetry::StatusMetrics;

use crate::{
    Shard,
    balancer::{Balancer, Traffic, Use},
    budget::Budget,
    connections::{ProtocolConnections, RouteConnections},
    labels::{BACKEND_GRPC, BACKEND_HTTP, ROUTE_GRPC, ROUTE_HTTP, meta_labels},
    profile::{self, Profiled},
    retry::RetryMetrics,
};

/// One original destination.
pub(crate) struct Destination {
    pub(crate) target: SocketAddr,
    /// Of second tries that no policy asks for.
    pub(crate) budget: Budget,
    shard: Rc<Shard>,
    view: View<OutboundState>,
    current: RefCell<Option<Current>>,
    /// The last policy that knew what to do with requests.
    http: RefCell<Option<Rc<Compiled>>>,
}

struct Current {
    generation: u64,
    compiled: Result<Rc<Compiled>, Refusal>,
}

/// A policy and what this shard has built for it so far.
pub(crate) struct Compiled {
    pub(crate) policy: Arc<ClientPolicy>,
    shard: Rc<Shard>,
    /// When endpoints are left out for how they answer requests.
    accrual: Option<FailureAccrual>,
    /// By the backend's place in memory, which the policy keeps in place.
    backends: RefCell<Vec<((*const Backend, Traffic), Resolved)>>,
    protocol: OnceCell<ProtocolConnections>,
    /// By the route's place, of connections that are not HTTP.
    connections: RefCell<Vec<(ConnectionsKey, Rc<RouteConnections>)>>,
    /// By the places of route and backend.
    metrics: RefCell<Vec<(MetricsKey, Rc<RouteMetrics>)>>,
    /// By the place of the route of a service profile.
    profiled: RefCell<Vec<(*const ProfileRoute, Rc<Profiled>)>>,
    /// What a service profile lets its routes try again.
    profile_budget: OnceCell<Option<Rc<Budget>>>,
    /// By the place of the route.
    retries: RefCell<Vec<RetriesOf>>,
}

/// Absent where the backend names something that does not exist.
type Resolved = Option<Rc<Balancer>>;

/// A route and the name that its clients asked for.
type ConnectionsKey = (*const Meta, Option<Box<str>>);

/// Names that a destination's clients may ask for before the handles are made anew.
const MAX_CONNECTION_KEYS: usize = 256;

/// By the place of the route, and whether it is gRPC.
type RetriesOf = ((*const Meta, bool), Rc<RetryMetrics>);

/// Of a request, where it is a label.
type Host = Option<Box<str>>;

/// Hosts before the handles are made anew.
const MAX_HOSTS: usize = 1024;

type MetricsKey = ((*const Meta, *const Backend, bool), Host);

/// The handles of one route to one backend.
pub(crate) struct RouteMetrics {
    pub(crate) route: StatusMetrics,
    pub(crate) backend: StatusMetrics,
}

impl Destination {
    pub(crate) fn new(shard: &Rc<Shard>, target: SocketAddr) -> Self {
        Self::over(shard, target, shard.discovery.outbound(target))
    }

    /// That of requests for `name:port`.
    pub(crate) fn named(shard: &Rc<Shard>, authority: &Arc<str>, port: u16) -> Self {
        let nowhere = (Ipv4Addr::UNSPECIFIED, port).into();
        Self::over(shard, nowhere, shard.discovery.named(authority))
    }

    fn over(shard: &Rc<Shard>, target: SocketAddr, view: View<OutboundState>) -> Self {
        Self {
            target,
            budget: Budget::by_default(Instant::now()),
            shard: shard.clone(),
            view,
            current: RefCell::new(None),
            http: RefCell::new(None),
        }
    }

    /// Let what the control plane refused once be asked for again, now that somebody wants it.
    pub(crate) fn want(&self) {
        self.view.want();
    }

    /// Wait until something is known, and return it.
    ///
    /// # Errors
    /// What the control plane refuses, and `policy_unknown` where it says nothing in time.
    pub(crate) async fn ready(&self, limit: Duration) -> Result<Rc<Compiled>, Refusal> {
        let known = timeout(
            limit,
            self.view
                .until(|state| (!matches!(state, OutboundState::Pending)).then_some(())),
        );
        if known.await.is_err() {
            return Err(Refusal::new(
                Reason::PolicyUnknown,
                "the control plane has not described the destination in time",
            ));
        }
        self.current()
    }

    /// The object that says where traffic goes, or the address where none does.
    pub(crate) fn resource(&self) -> String {
        match self.current() {
            Ok(compiled) => compiled.policy.meta.to_string(),
            Err(_) => self.target.to_string(),
        }
    }

    /// What holds now; what was known once stays known.
    pub(crate) fn current(&self) -> Result<Rc<Compiled>, Refusal> {
        let generation = self.view.generation();
        if let Some(current) = &*self.current.borrow()
            && current.generation == generation
        {
            return current.compiled.clone();
        }
        let compiled = match &*self.view.get() {
            OutboundState::Known(policy) => Ok(Rc::new(Compiled {
                accrual: policy.protocol.failure_accrual(),
                policy: policy.clone(),
                shard: self.shard.clone(),
                backends: RefCell::default(),
                protocol: OnceCell::new(),
                connections: RefCell::default(),
                metrics: RefCell::default(),
                profiled: RefCell::default(),
                profile_budget: OnceCell::new(),
                retries: RefCell::default(),
            })),
            OutboundState::Refused(refusal) => Err(refusal.clone()),
            OutboundState::Pending => Err(Refusal::new(
                Reason::PolicyUnknown,
                "the destination is not known yet",
            )),
        };
        let before = self.current.replace(Some(Current {
            generation,
            compiled: compiled.clone(),
        }));
        match &compiled {
            Ok(now) if !now.speaks_http() => {
                if let Some(Ok(before)) = before.map(|before| before.compiled)
                    && before.speaks_http()
                {
                    self.http.replace(Some(before));
                }
            }
            _ => drop(self.http.take()),
        }
        compiled
    }

    /// What holds for requests. A connection that was taken for HTTP stays that when its
    /// destination becomes opaque: its requests go by the routes that they had, to the
    /// endpoints that there are now.
    pub(crate) fn for_requests(&self) -> Result<Rc<Compiled>, Refusal> {
        let current = self.current()?;
        if current.speaks_http() {
            return Ok(current);
        }
        Ok(self.http.borrow().clone().unwrap_or(current))
    }
}

/// What the control plane says of a backend that does not exist: its filter names what is missing.
pub(crate) trait Complaint {
    fn complaint(&self) -> Option<&str>;
}

impl Complaint for Filter {
    fn complaint(&self) -> Option<&str> {
        match self {
            Self::Fail(failure) => Some(&failure.message),
            _ => None,
        }
    }
}

impl Complaint for TcpFilter {
    fn complaint(&self) -> Option<&str> {
        match self {
            Self::Invalid(why) => Some(why),
            Self::Forbidden => None,
        }
    }
}

impl Compiled {
    fn speaks_http(&self) -> bool {
        !matches!(self.policy.protocol, Protocol::Opaque(_) | Protocol::Tls(_))
    }

    /// Choose among the backends of a rule for requests: the first that does not fail fast,
    /// or one by weight among those that do not.
    ///
    /// # Errors
    /// Where the rule has no backend, or the chosen one cannot be resolved.
    pub(crate) fn backend<'a, F: Complaint>(
        &self,
        distribution: &'a Distribution<F>,
    ) -> Result<(&'a RouteBackend<F>, Rc<Balancer>), Refusal> {
        self.backend_for(Traffic::Http, distribution)
    }

    /// [`Self::backend`] for any traffic.
    ///
    /// # Errors
    /// The same.
    pub(crate) fn backend_for<'a, F: Complaint>(
        &self,
        traffic: Traffic,
        distribution: &'a Distribution<F>,
    ) -> Result<(&'a RouteBackend<F>, Rc<Balancer>), Refusal> {
        let random = self.shard.random();
        let chosen = distribution
            .pick(random, |candidate| {
                self.available(&candidate.backend, traffic)
            })
            // All fail fast: the one that is chosen says so.
            .or_else(|| distribution.pick(random, |_| true))
            .ok_or_else(|| Refusal::new(Reason::BackendInvalid, "the route has no backend"))?;
        let balancer = self.balancer(&chosen.backend, traffic).ok_or_else(|| {
            let said = chosen.filters.iter().find_map(Complaint::complaint);
            let why = said.unwrap_or("the route's backend does not exist");
            Refusal::new(Reason::BackendInvalid, why.to_owned())
        })?;
        Ok((chosen, balancer))
    }

    /// A backend that cannot be resolved is available: it fails for its share.
    fn available(&self, backend: &Arc<Backend>, traffic: Traffic) -> bool {
        self.balancer(backend, traffic)
            .is_none_or(|balancer| !balancer.failing())
    }

    fn balancer(&self, backend: &Arc<Backend>, traffic: Traffic) -> Option<Rc<Balancer>> {
        let place = (Arc::as_ptr(backend), traffic);
        if let Some((_, known)) = self.backends.borrow().iter().find(|(at, _)| *at == place) {
            return known.clone();
        }
        let labels = meta_labels("parent", &self.policy.meta);
        let labels = labels.and(&meta_labels("backend", &backend.meta));
        let used = Use {
            traffic,
            accrual: self.accrual.filter(|_| traffic == Traffic::Http),
        };
        let balancer = self.shard.balancer(backend, used, &labels);
        self.backends.borrow_mut().push((place, balancer.clone()));
        balancer
    }

    /// The numbers of connections to the destination.
    pub(crate) fn protocol_connections(&self) -> &ProtocolConnections {
        self.protocol.get_or_init(|| {
            let parent = meta_labels("parent", &self.policy.meta);
            ProtocolConnections::new(&self.shard.registry, parent, &self.policy.protocol)
        })
    }

    /// The numbers of a route's connections.
    pub(crate) fn connections(
        &self,
        traffic: Traffic,
        route: &Arc<Meta>,
        target: SocketAddr,
        sni: Option<&str>,
    ) -> Rc<RouteConnections> {
        let place = Arc::as_ptr(route);
        let mut all = self.connections.borrow_mut();
        let known = all
            .iter()
            .find(|((at, name), _)| *at == place && name.as_deref() == sni);
        if let Some((_, known)) = known {
            return known.clone();
        }
        if all.len() >= MAX_CONNECTION_KEYS {
            all.clear();
        }
        let parent = meta_labels("parent", &self.policy.meta);
        let registry = &self.shard.registry;
        let connections = Rc::new(RouteConnections::new(
            registry, &parent, traffic, route, target, sni,
        ));
        all.push(((place, sni.map(Into::into)), connections.clone()));
        connections
    }

    /// What a service profile's route counts.
    pub(crate) fn profiled(&self, route: &Arc<ProfileRoute>) -> Rc<Profiled> {
        let place = Arc::as_ptr(route);
        let mut all = self.profiled.borrow_mut();
        if let Some((_, known)) = all.iter().find(|(at, _)| *at == place) {
            return known.clone();
        }
        let budget = self.profile_budget.get_or_init(|| {
            let profile = self.policy.protocol.profile()?;
            profile::budget(profile, self.shard.shards)
        });
        let profiled = Rc::new(Profiled::new(&self.shard, route, budget.clone()));
        all.push((place, profiled.clone()));
        profiled
    }

    /// The endpoints of a backend that gets copies; none where it does not exist.
    pub(crate) fn mirror(&self, backend: &Arc<Backend>) -> Option<Rc<Balancer>> {
        self.balancer(backend, Traffic::Http)
    }

    /// The numbers of a route's second tries.
    pub(crate) fn retries(&self, route: &Arc<Meta>, grpc: bool) -> Rc<RetryMetrics> {
        let key = (Arc::as_ptr(route), grpc);
        let mut all = self.retries.borrow_mut();
        if let Some((_, known)) = all.iter().find(|(at, _)| *at == key) {
            return known.clone();
        }
        let labels = meta_labels("parent", &self.policy.meta).and(&meta_labels("route", route));
        let registry = &self.shard.registry;
        let metrics = Rc::new(RetryMetrics::new(
            registry,
            grpc,
            &labels.with("hostname", ""),
        ));
        all.push((key, metrics.clone()));
        metrics
    }

    /// The host that a request is for, where it is to be a label.
    pub(crate) fn hostname<'r>(&self, request: &'r Request) -> Option<&'r str> {
        if !self.shard.config.outbound.hostname_labels {
            return None;
        }
        let host = Facts::of(request).host()?;
        host.bytes()
            .any(|byte| byte.is_ascii_alphabetic() && !host.starts_with('['))
            .then_some(host)
    }

    /// The handles of a route to a backend.
    pub(crate) fn metrics(
        &self,
        route: &Arc<Meta>,
        backend: &Arc<Backend>,
        grpc: bool,
    ) -> Rc<RouteMetrics> {
        self.metrics_for(route, backend, grpc, None)
    }

    /// The same for requests for this host.
    pub(crate) fn metrics_for(
        &self,
        route: &Arc<Meta>,
        backend: &Arc<Backend>,
        grpc: bool,
        host: Option<&str>,
    ) -> Rc<RouteMetrics> {
        let key = (Arc::as_ptr(route), Arc::as_ptr(backend), grpc);
        let same = |((at, name), _): &&(_, _)| *at == key && Option::as_deref(name) == host;
        if let Some((_, known)) = self.metrics.borrow().iter().find(same) {
            return known.clone();
        }
        let labels = meta_labels("parent", &self.policy.meta).and(&meta_labels("route", route));
        let (of_route, of_backend) = if grpc {
            (&ROUTE_GRPC, &BACKEND_GRPC)
        } else {
            (&ROUTE_HTTP, &BACKEND_HTTP)
        };
        let registry = &self.shard.registry;
        let metrics = Rc::new(RouteMetrics {
            route: StatusMetrics::new(
                registry,
                of_route,
                labels.with("hostname", host.unwrap_or_default()),
            ),
            backend: StatusMetrics::new(
                registry,
                of_backend,
                labels.and(&meta_labels("backend", &backend.meta)),
            ),
        });
        let mut all = self.metrics.borrow_mut();
        if host.is_some() && all.len() >= MAX_HOSTS {
            // What a client may name any number of must not be kept for ever.
            all.retain(|((_, host), _)| host.is_none());
        }
        all.push(((key, host.map(Into::into)), metrics.clone()));
        metrics
    }
}

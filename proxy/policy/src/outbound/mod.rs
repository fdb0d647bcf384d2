//! Where traffic to one destination goes.

mod decode;
mod profile;

use std::{collections::HashMap, net::SocketAddr, ops::Deref, sync::Arc, time::Duration};

use tulle_api::{destination, outbound};
use tulle_core::{Endpoint, Reason, Refusal};

use crate::{
    Backend, BackendKind, Backoff, Distribution, Ewma, Facts, FailureAccrual, Filter, Meta,
    PathMatched, Step, TcpFilter, endpoint_from_proto,
    matching::{GrpcPattern, HostPattern, HttpPattern},
    table::{Candidate, Entry, OtherHost, Table},
    trace::{Silent, Subject, Trace, Verdict},
};

pub use profile::{Profile, ProfileRoute, RetryBudget};

/// The policy of one destination.
#[derive(Clone, Debug)]
pub struct ClientPolicy {
    /// The service, or what else the destination is.
    pub meta: Arc<Meta>,
    /// What it speaks, and the routes of that.
    pub protocol: Protocol,
}

/// What a destination speaks.
#[derive(Clone, Debug)]
pub enum Protocol {
    /// Whatever the client's first bytes say.
    Detect {
        /// What the control plane would wait for them; the proxy has a setting of its own.
        timeout: Duration,
        /// Where they say HTTP/1.
        http1: HttpRoutes,
        /// Where they say HTTP/2.
        http2: HttpRoutes,
        /// Where they say neither.
        opaque: OpaqueRoutes,
    },
    /// HTTP/1.
    Http1(HttpRoutes),
    /// HTTP/2.
    Http2(HttpRoutes),
    /// gRPC.
    Grpc(GrpcRoutes),
    /// Bytes that are not looked at.
    Opaque(OpaqueRoutes),
    /// TLS of the application's own, routed by the name that the client asks for.
    Tls(TlsRoutes),
    /// The control plane's message makes no sense, for this reason; everything is refused.
    Invalid(String),
}

impl Protocol {
    /// The refusal of everything, where the policy makes no sense.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Invalid(why) => {
                let message = format!("invalid client policy: {why}");
                Some(Refusal::new(Reason::PolicyInvalid, message))
            }
            _ => None,
        }
    }

    /// The service profile that decides about requests.
    #[must_use]
    pub fn profile(&self) -> Option<&Arc<Profile>> {
        match self {
            Self::Detect { http1: routes, .. } | Self::Http1(routes) | Self::Http2(routes) => {
                routes.profile()
            }
            Self::Grpc(_) | Self::Opaque(_) | Self::Tls(_) | Self::Invalid(_) => None,
        }
    }

    /// When an endpoint is left out for how it answers requests. Where the protocol is detected,
    /// both versions are of one service and say the same.
    #[must_use]
    pub fn failure_accrual(&self) -> Option<FailureAccrual> {
        match self {
            Self::Detect { http1, http2, .. } => http1.failure_accrual.or(http2.failure_accrual),
            Self::Http1(routes) | Self::Http2(routes) => routes.failure_accrual,
            Self::Grpc(routes) => routes.failure_accrual,
            Self::Opaque(_) | Self::Tls(_) | Self::Invalid(_) => None,
        }
    }
}

/// The routes of HTTP.
#[derive(Clone, Debug)]
pub struct HttpRoutes {
    /// When an endpoint is left out for failing.
    pub failure_accrual: Option<FailureAccrual>,
    table: Table<HttpPattern, Rule>,
    /// Decides instead of the table.
    profile: Option<Arc<Profile>>,
}

/// The routes of gRPC.
#[derive(Clone, Debug)]
pub struct GrpcRoutes {
    /// When an endpoint is left out for failing.
    pub failure_accrual: Option<FailureAccrual>,
    table: Table<GrpcPattern, Rule>,
}

/// The route of connections that are not looked at; there is at most one.
#[derive(Clone, Debug, Default)]
pub struct OpaqueRoutes(Option<TcpRule>);

/// The routes of foreign TLS.
#[derive(Clone, Debug)]
pub struct TlsRoutes(Box<[(Box<[HostPattern]>, TcpRule)]>);

/// What becomes of requests that a rule matches.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// The route.
    pub meta: Arc<Meta>,
    /// Run before a backend is chosen.
    pub filters: Box<[Filter]>,
    /// Where they go.
    pub distribution: Distribution<Filter>,
    /// How long they may take.
    pub timeouts: Timeouts,
    /// Whether they are tried again.
    pub retry: Option<Retry>,
    /// Whether what was provably not processed is tried once more though `retry` does not ask
    /// for it.
    pub default_retry: bool,
    /// Whether the application may set time-outs and retries by `l5d-` headers.
    pub allow_l5d_request_headers: bool,
    /// Whether a filter, its own or a backend's, is a mirror.
    pub mirrors: bool,
}

impl Rule {
    /// Whether a request is sent once and takes as long as it takes, as far as the rule says:
    /// most are, and pay for nothing else.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.retry.is_none()
            && self.timeouts.are_none()
            && !self.allow_l5d_request_headers
            && !self.mirrors
    }
}

/// What becomes of a connection that a rule matches.
#[derive(Clone, Debug, PartialEq)]
pub struct TcpRule {
    /// The route.
    pub meta: Arc<Meta>,
    /// What stands in the way.
    pub filters: Box<[TcpFilter]>,
    /// Where it goes.
    pub distribution: Distribution<TcpFilter>,
}

/// The time-outs of a rule. None is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// From the end of the request to the end of the response.
    pub response: Option<Duration>,
    /// The whole exchange.
    pub request: Option<Duration>,
    /// Without a frame in either direction.
    pub idle: Option<Duration>,
    /// One try, from its start to the end of its response.
    pub backend_request: Option<Duration>,
}

impl Timeouts {
    /// Whether nothing is limited.
    #[must_use]
    pub const fn are_none(&self) -> bool {
        self.response.is_none()
            && self.request.is_none()
            && self.idle.is_none()
            && self.backend_request.is_none()
    }
}

/// When and how often a request is tried again.
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// How often.
    pub max_retries: u32,
    /// A longer body is not kept, so its request is not tried again.
    pub max_request_bytes: usize,
    /// After these statuses, both ends included.
    pub statuses: Box<[(u16, u16)]>,
    /// After these gRPC statuses.
    pub grpc_codes: Box<[u16]>,
    /// How long one try may take until the response's header.
    pub timeout: Option<Duration>,
    /// How long to wait before the next.
    pub backoff: Option<Backoff>,
}

/// The rule that a request belongs to.
#[derive(Clone, Copy, Debug)]
pub struct RouteMatch<'a> {
    /// The rule.
    pub rule: &'a Rule,
    /// What it matched of the path.
    pub path: PathMatched,
    /// The route of a service profile that the rule is of.
    pub profile: Option<&'a Arc<ProfileRoute>>,
}

impl Deref for RouteMatch<'_> {
    type Target = Rule;

    fn deref(&self) -> &Rule {
        self.rule
    }
}

impl HttpRoutes {
    /// The rule of a request.
    ///
    /// # Errors
    /// Where none matches.
    pub fn find(&self, facts: &Facts<'_>) -> Result<RouteMatch<'_>, Refusal> {
        self.search(facts, &mut Silent)
    }

    /// [`Self::find`] with its steps.
    pub fn explain(&self, facts: &Facts<'_>) -> (Result<RouteMatch<'_>, Refusal>, Vec<Step>) {
        let mut steps = Vec::new();
        (self.search(facts, &mut steps), steps)
    }

    fn search(&self, facts: &Facts<'_>, trace: &mut impl Trace) -> Result<RouteMatch<'_>, Refusal> {
        if let Some(profile) = &self.profile {
            return Ok(profile.find(facts, trace));
        }
        found(self.table.find(facts, trace), trace)
    }

    /// All rules; for who keeps balancers.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        let of_profile = self.profile.iter().flat_map(|profile| profile.rules());
        self.table.values().chain(of_profile)
    }

    /// The service profile whose routes these are.
    #[must_use]
    pub fn profile(&self) -> Option<&Arc<Profile>> {
        self.profile.as_ref()
    }

    fn of_profile(profile: &Arc<Profile>) -> Self {
        Self {
            failure_accrual: None,
            table: Table::new(Box::default()),
            profile: Some(profile.clone()),
        }
    }

    fn only(distribution: Distribution<Filter>) -> Self {
        let rule = Rule {
            meta: Arc::new(Meta::default_named("http")),
            filters: Box::default(),
            distribution,
            timeouts: Timeouts::default(),
            retry: None,
            default_retry: true,
            allow_l5d_request_headers: false,
            mirrors: false,
        };
        let table = Table::new(Box::new([Entry {
            meta: rule.meta.clone(),
            hosts: Box::default(),
            rules: Box::new([Candidate {
                matches: Box::default(),
                value: rule,
            }]),
        }]));
        Self {
            failure_accrual: None,
            table,
            profile: None,
        }
    }
}

impl GrpcRoutes {
    /// The rule of a request.
    ///
    /// # Errors
    /// Where none matches.
    pub fn find(&self, facts: &Facts<'_>) -> Result<RouteMatch<'_>, Refusal> {
        found(self.table.find(facts, &mut Silent), &mut Silent)
    }

    /// [`Self::find`] with its steps.
    pub fn explain(&self, facts: &Facts<'_>) -> (Result<RouteMatch<'_>, Refusal>, Vec<Step>) {
        let mut steps = Vec::new();
        (found(self.table.find(facts, &mut steps), &mut steps), steps)
    }

    /// All rules; for who keeps balancers.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.table.values()
    }
}

fn found<'a>(
    found: Option<(&'a Rule, PathMatched)>,
    trace: &mut impl Trace,
) -> Result<RouteMatch<'a>, Refusal> {
    let Some((rule, path)) = found else {
        trace.step(Verdict::Refused, || Subject::Routes, "none of them matches");
        return Err(Refusal::new(
            Reason::RouteNotFound,
            "no route found for request",
        ));
    };
    Ok(RouteMatch {
        rule,
        path,
        profile: None,
    })
}

impl OpaqueRoutes {
    /// The rule of a connection.
    ///
    /// # Errors
    /// Where there is none, or it lets nothing pass.
    pub fn find(&self) -> Result<&TcpRule, Refusal> {
        let rule = self.0.as_ref();
        rule.ok_or_else(|| Refusal::new(Reason::RouteNotFound, "no route found for connection"))?
            .admit()
    }

    /// The rule, whether it lets anything pass or not.
    #[must_use]
    pub fn rule(&self) -> Option<&TcpRule> {
        self.0.as_ref()
    }

    fn only(distribution: Distribution<TcpFilter>) -> Self {
        let meta = Arc::new(Meta::default_named("opaq"));
        Self(Some(TcpRule {
            meta,
            filters: Box::default(),
            distribution,
        }))
    }
}

impl TlsRoutes {
    /// The rule of a connection whose client asks for this name.
    ///
    /// # Errors
    /// Where none matches, or it lets nothing pass.
    pub fn find(&self, sni: Option<&str>) -> Result<&TcpRule, Refusal> {
        self.search(sni, &mut Silent)
    }

    /// [`Self::find`] with its steps.
    pub fn explain(&self, sni: Option<&str>) -> (Result<&TcpRule, Refusal>, Vec<Step>) {
        let mut steps = Vec::new();
        (self.search(sni, &mut steps), steps)
    }

    fn search(&self, sni: Option<&str>, trace: &mut impl Trace) -> Result<&TcpRule, Refusal> {
        let mut best = None;
        for (names, rule) in &self.0 {
            let subject = || Subject::Route(rule.meta.clone());
            let rank = HostPattern::best(names, sni);
            if rank.is_none() {
                trace.step(Verdict::Skipped, subject, OtherHost(names, sni));
            } else if best.is_none_or(|(better, _)| rank > better) {
                trace.step(Verdict::Matched, subject, "it matches best");
                best = Some((rank, rule));
            } else {
                let why = "it matches, but an earlier match is as close or closer";
                trace.step(Verdict::Skipped, subject, why);
            }
        }
        let Some((_, rule)) = best else {
            trace.step(Verdict::Refused, || Subject::Routes, "none of them matches");
            return Err(Refusal::new(
                Reason::RouteNotFound,
                "no route found for connection",
            ));
        };
        rule.admit()
    }

    /// All rules; for who keeps balancers.
    pub fn rules(&self) -> impl Iterator<Item = &TcpRule> {
        self.0.iter().map(|(_, rule)| rule)
    }
}

impl TcpRule {
    fn admit(&self) -> Result<&Self, Refusal> {
        match self.filters.first() {
            None => Ok(self),
            Some(TcpFilter::Forbidden) if self.meta.is_default_named("undefined-port") => {
                Err(Refusal::new(
                    Reason::PortUndefined,
                    "the service does not define this port",
                ))
            }
            Some(filter) => Err(filter.refusal()),
        }
    }
}

impl ClientPolicy {
    /// Compile the control plane's message. What makes no sense becomes
    /// [`Protocol::Invalid`].
    #[must_use]
    pub fn from_proto(wire: outbound::OutboundPolicy) -> Self {
        decode::policy(wire)
    }

    /// The policy that a profile stands for where there is no other: of the endpoint that it
    /// describes, else of the service that it names, else of the address itself.
    #[must_use]
    pub fn from_profile(profile: &destination::DestinationProfile, original: SocketAddr) -> Self {
        let endpoint = profile.endpoint.as_ref();
        let endpoint = endpoint.and_then(|wire| endpoint_from_proto(wire, &HashMap::new()));
        let policy = match endpoint {
            Some(endpoint) => Self::forward(endpoint),
            None if profile.fully_qualified_name.is_empty() => Self::fallback(original),
            None => {
                let service = Meta::outbound(profile.parent_ref.clone())
                    .unwrap_or_else(|_| Meta::default_named("profile").into());
                let path = format!("{}:{}", profile.fully_qualified_name, original.port());
                Self::balance(service, &path)
            }
        };
        policy.with_profile(profile, original.port())
    }

    /// The same under a service profile, which decides where it has something to say: of
    /// requests by its routes and overrides, of other connections by its overrides, and whether
    /// bytes are looked at.
    #[must_use]
    pub fn with_profile(self, wire: &destination::DestinationProfile, port: u16) -> Self {
        let mut protocol = self.protocol;
        if let Some(profile) = Profile::new(wire, port) {
            let routes = HttpRoutes::of_profile(&Arc::new(profile));
            match &mut protocol {
                Protocol::Detect { http1, http2, .. } => {
                    *http1 = routes.clone();
                    *http2 = routes;
                }
                Protocol::Http1(http) | Protocol::Http2(http) => *http = routes,
                Protocol::Grpc(_) => protocol = Protocol::Http2(routes),
                Protocol::Opaque(_) | Protocol::Tls(_) | Protocol::Invalid(_) => {}
            }
        }
        if let (Protocol::Detect { opaque, .. } | Protocol::Opaque(opaque), Some(rule)) =
            (&mut protocol, profile::opaque(wire))
        {
            *opaque = OpaqueRoutes(Some(rule));
        }
        let policy = Self { protocol, ..self };
        if wire.opaque_protocol {
            policy.into_opaque()
        } else {
            policy
        }
    }

    /// Everything to one endpoint.
    #[must_use]
    pub fn forward(endpoint: Endpoint) -> Self {
        let meta = Arc::new(Meta::default_named("endpoint"));
        Self::to(meta, BackendKind::Forward(endpoint))
    }

    /// Everything to where it was going, in plaintext: nothing is known of the address.
    #[must_use]
    pub fn fallback(original: SocketAddr) -> Self {
        let meta = Arc::new(Meta::default_named("fallback"));
        Self::to(meta, BackendKind::Forward(Endpoint::plain(original)))
    }

    /// Everything to the endpoints of a name.
    #[must_use]
    pub fn balance(service: Arc<Meta>, path: &str) -> Self {
        Self::to(
            service,
            BackendKind::Balance {
                path: path.into(),
                ewma: Ewma::default(),
            },
        )
    }

    /// The policy of a destination whose profile says that its bytes are not to be looked at.
    /// A destination whose policy is not to detect its protocol keeps that: its port says more.
    #[must_use]
    pub fn into_opaque(self) -> Self {
        match self.protocol {
            Protocol::Detect { opaque, .. } => Self {
                protocol: Protocol::Opaque(opaque),
                ..self
            },
            _ => self,
        }
    }

    /// Each backend of each rule once, in the order of the routes.
    #[must_use]
    pub fn backends(&self) -> Vec<Arc<Backend>> {
        fn take<F>(all: &mut Vec<Arc<Backend>>, distribution: &Distribution<F>) {
            for route in distribution.backends() {
                if !all.contains(&route.backend) {
                    all.push(route.backend.clone());
                }
            }
        }
        let mut all = Vec::new();
        match &self.protocol {
            Protocol::Detect {
                http1,
                http2,
                opaque,
                ..
            } => {
                http1
                    .rules()
                    .chain(http2.rules())
                    .for_each(|rule| take(&mut all, &rule.distribution));
                opaque
                    .rule()
                    .into_iter()
                    .for_each(|rule| take(&mut all, &rule.distribution));
            }
            Protocol::Http1(routes) | Protocol::Http2(routes) => {
                routes
                    .rules()
                    .for_each(|rule| take(&mut all, &rule.distribution));
            }
            Protocol::Grpc(routes) => {
                routes
                    .rules()
                    .for_each(|rule| take(&mut all, &rule.distribution));
            }
            Protocol::Opaque(routes) => {
                routes
                    .rule()
                    .into_iter()
                    .for_each(|rule| take(&mut all, &rule.distribution));
            }
            Protocol::Tls(routes) => {
                routes
                    .rules()
                    .for_each(|rule| take(&mut all, &rule.distribution));
            }
            Protocol::Invalid(_) => {}
        }
        all
    }

    fn to(meta: Arc<Meta>, kind: BackendKind) -> Self {
        let backend = Arc::new(Backend {
            meta: meta.clone(),
            kind,
        });
        let http = HttpRoutes::only(Distribution::only(backend.clone()));
        let protocol = Protocol::Detect {
            timeout: crate::inbound::DETECT_TIMEOUT,
            http1: http.clone(),
            http2: http,
            opaque: OpaqueRoutes::only(Distribution::only(backend)),
        };
        Self { meta, protocol }
    }
}

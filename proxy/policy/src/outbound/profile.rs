//! The routes of a service profile: what a destination's requests went by before there were
//! routes as objects of their own.
//!
//! The first route that matches takes the request. What a profile says becomes rules like any
//! other's, so that one code follows both. Unlike a policy a profile is taken in parts: a route
//! that cannot be understood is left out, since no authorization hangs on it, and the rest of
//! the profile is what its traffic went by yesterday.

use std::{fmt, sync::Arc, time::Duration};

use http::Method;
use regex::Regex;
use tulle_api::destination::{self, request_match, response_match};

use super::{Retry, RouteMatch, Rule, TcpRule, Timeouts};
use crate::{
    Backend, BackendKind, Backoff, Distribution, Ewma, Facts, Filter, Meta, PathMatched,
    RouteBackend,
    trace::{Subject, Trace, Verdict},
    wire,
};

/// What a retried request may hold.
const MAX_REQUEST_BYTES: usize = 64 * 1024;

/// The budget is what limits them.
const MAX_RETRIES: u32 = 100;

/// gRPC codes that are failures of the server, where no response class says otherwise.
const GRPC_FAILURES: [u16; 6] = [2, 4, 7, 13, 14, 15];

/// The routes of a profile.
#[derive(Clone, Debug)]
pub struct Profile {
    /// What its name is in numbers and headers: `host:port`.
    pub name: Arc<str>,
    /// How many tries its routes may make together; none where it is absent.
    pub budget: Option<RetryBudget>,
    routes: Box<[Arc<ProfileRoute>]>,
    /// For what no route matches.
    otherwise: Arc<ProfileRoute>,
}

/// How many tries there may be beside the requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryBudget {
    /// So many per request.
    pub ratio: f64,
    /// So many in any case.
    pub per_second: f64,
    /// How long a request counts.
    pub window: Duration,
}

/// One route of a profile.
#[derive(Clone, Debug)]
pub struct ProfileRoute {
    /// The profile's name for what is counted, `host:port`.
    pub dst: Arc<str>,
    /// The labels of what is counted, without the prefix `rt_`; sorted.
    pub labels: Arc<[(Arc<str>, Arc<str>)]>,
    /// How long a request may wait for the head of its response, all tries together.
    pub timeout: Option<Duration>,
    rule: Rule,
    condition: Condition,
    classes: Box<[(Statuses, bool)]>,
}

/// Of a request.
#[derive(Clone, Debug)]
enum Condition {
    All(Box<[Self]>),
    Any(Box<[Self]>),
    Not(Box<Self>),
    Path(Regex),
    Method(Method),
}

/// Of a response.
#[derive(Clone, Debug)]
enum Statuses {
    All(Box<[Self]>),
    Any(Box<[Self]>),
    Not(Box<Self>),
    Range(u16, u16),
}

impl Profile {
    /// The profile's routes where it rules requests: it is a service's, and has routes or sends
    /// them elsewhere.
    pub(super) fn new(wire: &destination::DestinationProfile, port: u16) -> Option<Self> {
        let fqn = &wire.fully_qualified_name;
        if fqn.is_empty() || (wire.routes.is_empty() && wire.dst_overrides.is_empty()) {
            return None;
        }
        let name: Arc<str> = format!("{fqn}:{port}").into();
        let meta = Meta::outbound(wire.profile_ref.clone())
            .unwrap_or_else(|_| Meta::default_named("profile").into());
        let budget = wire.retry_budget.as_ref().and_then(RetryBudget::new);
        let distribution = overrides(wire).unwrap_or_else(|| {
            let service = Meta::outbound(wire.parent_ref.clone())
                .unwrap_or_else(|_| Meta::default_named("profile").into());
            Distribution::only(balancer(service, &name))
        });
        let route = |wire: &destination::Route| {
            let condition = wire.condition.as_ref().and_then(Condition::new);
            Some(Arc::new(ProfileRoute::new(
                wire,
                condition?,
                &name,
                &meta,
                &distribution,
                budget.is_some(),
            )))
        };
        let default = Arc::new(Meta::default_named("http"));
        let nothing = destination::Route::default();
        let all = Condition::All(Box::default());
        Some(Self {
            routes: wire.routes.iter().filter_map(route).collect(),
            otherwise: Arc::new(ProfileRoute::new(
                &nothing,
                all,
                &name,
                &default,
                &distribution,
                false,
            )),
            budget,
            name,
        })
    }

    pub(super) fn find(&self, facts: &Facts<'_>, trace: &mut impl Trace) -> RouteMatch<'_> {
        let mut chosen = &self.otherwise;
        for route in &self.routes {
            if route.condition.holds(facts) {
                chosen = route;
                break;
            }
            let subject = || Subject::Route(route.rule.meta.clone());
            trace.step(Verdict::Skipped, subject, NotFor(route));
        }
        let subject = || Subject::Route(chosen.rule.meta.clone());
        trace.step(Verdict::Matched, subject, TheFirst(chosen));
        RouteMatch {
            rule: &chosen.rule,
            path: PathMatched::Whole,
            profile: Some(chosen),
        }
    }

    pub(super) fn rules(&self) -> impl Iterator<Item = &Rule> {
        let routes = self.routes.iter().chain([&self.otherwise]);
        routes.map(|route| &route.rule)
    }
}

/// Where a profile sends connections that are not HTTP; none where it does not.
pub(super) fn opaque(wire: &destination::DestinationProfile) -> Option<TcpRule> {
    if wire.fully_qualified_name.is_empty() {
        return None;
    }
    Some(TcpRule {
        meta: Arc::new(Meta::default_named("opaq")),
        filters: Box::default(),
        distribution: overrides(wire)?,
    })
}

impl ProfileRoute {
    fn new(
        wire: &destination::Route,
        condition: Condition,
        dst: &Arc<str>,
        meta: &Arc<Meta>,
        distribution: &Distribution<Filter>,
        has_budget: bool,
    ) -> Self {
        let classes: Box<[_]> = wire
            .response_classes
            .iter()
            .filter_map(|class| {
                let statuses = class.condition.as_ref().and_then(Statuses::new)?;
                Some((statuses, class.is_failure))
            })
            .collect();
        let mut labels: Vec<(Arc<str>, Arc<str>)> = wire
            .metrics_labels
            .iter()
            .map(|(key, value)| (key.as_str().into(), value.as_str().into()))
            .collect();
        labels.sort();
        let timeout = wire::timeout(wire.timeout, "timeout").unwrap_or_default();
        Self {
            dst: dst.clone(),
            labels: labels.into(),
            timeout,
            rule: Rule {
                meta: meta.clone(),
                filters: Box::default(),
                distribution: distribution.clone(),
                timeouts: Timeouts::default(),
                retry: (wire.is_retryable && has_budget).then(|| retry(&classes)),
                default_retry: true,
                allow_l5d_request_headers: false,
                mirrors: false,
            },
            condition,
            classes,
        }
    }

    /// Whether the route says that a response with this status is a failure; nothing where it
    /// does not say.
    #[must_use]
    pub fn is_failure(&self, status: u16) -> Option<bool> {
        is_failure(&self.classes, status)
    }

    /// Whether a failure may be tried again.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        self.rule.retry.is_some()
    }
}

fn is_failure(classes: &[(Statuses, bool)], status: u16) -> Option<bool> {
    let mut matching = classes.iter().filter(|(statuses, _)| statuses.hold(status));
    matching.next().map(|(_, is_failure)| *is_failure)
}

/// What is a failure is tried again.
fn retry(classes: &[(Statuses, bool)]) -> Retry {
    let failure = |status: &u16| is_failure(classes, *status).unwrap_or(*status >= 500);
    let mut statuses: Vec<(u16, u16)> = Vec::new();
    for status in (100..=599).filter(failure) {
        match statuses.last_mut() {
            Some((_, end)) if *end + 1 == status => *end = status,
            _ => statuses.push((status, status)),
        }
    }
    let grpc = is_failure(classes, 200).is_none();
    Retry {
        max_retries: MAX_RETRIES,
        max_request_bytes: MAX_REQUEST_BYTES,
        statuses: statuses.into(),
        grpc_codes: if grpc {
            GRPC_FAILURES.into()
        } else {
            Box::default()
        },
        timeout: None,
        // The budget keeps the service from being overrun; who waits is a client.
        backoff: Some(Backoff {
            min: Duration::ZERO,
            max: Duration::from_millis(1),
            jitter: 0.0,
        }),
    }
}

impl RetryBudget {
    /// Nothing where the values are not legal: then there are no tries.
    fn new(wire: &destination::RetryBudget) -> Option<Self> {
        let window = wire::duration(wire.ttl?).ok()?;
        let legal = (0.0..=1000.0).contains(&wire.retry_ratio)
            && (Duration::from_secs(1)..=Duration::from_mins(1)).contains(&window);
        legal.then(|| Self {
            ratio: wire.retry_ratio.into(),
            per_second: wire.min_retries_per_second.into(),
            window,
        })
    }
}

/// Absent where the profile sends traffic nowhere else. What has no weight, or no name and
/// port, gets nothing.
fn overrides<F>(wire: &destination::DestinationProfile) -> Option<Distribution<F>> {
    let backends: Box<[_]> = wire
        .dst_overrides
        .iter()
        .filter(|wire| wire.weight > 0 && is_authority(&wire.authority))
        .map(|wire| {
            let meta = Meta::outbound(wire.backend_ref.clone())
                .unwrap_or_else(|_| Meta::default_named("profile").into());
            let backend = RouteBackend {
                backend: balancer(meta, &wire.authority),
                filters: Box::default(),
            };
            (backend, wire.weight)
        })
        .collect();
    Distribution::random(backends).ok()
}

fn balancer(meta: Arc<Meta>, path: &str) -> Arc<Backend> {
    Arc::new(Backend {
        meta,
        kind: BackendKind::Balance {
            path: path.into(),
            ewma: Ewma::default(),
        },
    })
}

fn is_authority(authority: &str) -> bool {
    authority
        .rsplit_once(':')
        .is_some_and(|(name, port)| wire::is_dns_name(name) && port.parse::<u16>().is_ok())
}

impl Condition {
    fn new(wire: &destination::RequestMatch) -> Option<Self> {
        use request_match::Match;
        let each = |seq: &request_match::Seq| -> Option<Box<[Self]>> {
            seq.matches.iter().map(Self::new).collect()
        };
        Some(match wire.r#match.as_ref()? {
            Match::All(seq) => Self::All(each(seq)?),
            Match::Any(seq) => Self::Any(each(seq)?),
            Match::Not(not) => Self::Not(Box::new(Self::new(not)?)),
            Match::Path(path) => Self::Path(wire::regex(&path.regex).ok()?),
            Match::Method(method) => Self::Method(wire::method(method.clone()).ok()?),
        })
    }

    fn holds(&self, facts: &Facts<'_>) -> bool {
        match self {
            Self::All(all) => all.iter().all(|one| one.holds(facts)),
            Self::Any(any) => any.iter().any(|one| one.holds(facts)),
            Self::Not(not) => !not.holds(facts),
            Self::Path(regex) => regex.is_match(facts.uri.path()),
            Self::Method(method) => method == facts.method,
        }
    }
}

impl Statuses {
    fn new(wire: &destination::ResponseMatch) -> Option<Self> {
        use response_match::Match;
        let each = |seq: &response_match::Seq| -> Option<Box<[Self]>> {
            seq.matches.iter().map(Self::new).collect()
        };
        Some(match wire.r#match.as_ref()? {
            Match::All(seq) => Self::All(each(seq)?),
            Match::Any(seq) => Self::Any(each(seq)?),
            Match::Not(not) => Self::Not(Box::new(Self::new(not)?)),
            Match::Status(range) => {
                let legal = |status| {
                    u16::try_from(status)
                        .ok()
                        .filter(|s| (100..=999).contains(s))
                };
                Self::Range(legal(range.min)?, legal(range.max)?)
            }
        })
    }

    fn hold(&self, status: u16) -> bool {
        match self {
            Self::All(all) => all.iter().all(|one| one.hold(status)),
            Self::Any(any) => any.iter().any(|one| one.hold(status)),
            Self::Not(not) => !not.hold(status),
            Self::Range(min, max) => (*min..=*max).contains(&status),
        }
    }
}

struct NotFor<'a>(&'a ProfileRoute);

impl fmt::Display for NotFor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the profile's route {} does not match", Name(self.0))
    }
}

struct TheFirst<'a>(&'a ProfileRoute);

impl fmt::Display for TheFirst<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.labels.is_empty() {
            f.write_str("no route of the profile matches")
        } else {
            let name = Name(self.0);
            write!(f, "the first route of the profile that matches: {name}")
        }
    }
}

struct Name<'a>(&'a ProfileRoute);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.0.labels.iter().find(|(key, _)| &**key == "route");
        f.write_str(name.map_or("without a name", |(_, name)| name))
    }
}

//! Whom a port lets in, and what it does with a request before the application sees it.

mod decode;

use std::{net::IpAddr, sync::Arc, time::Duration};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tulle_api::inbound;
use tulle_core::{ClientTls, DefaultPolicy, Reason, Refusal};

use crate::{
    Facts, Filter, Grant, Limited, Meta, PathMatched, Permit, RateLimit, Step,
    authorization::{Authentication, Authorization, Clauses},
    matching::{GrpcPattern, HttpPattern, Pattern},
    rate_limit::Limiter,
    table::{Candidate, Entry, Table},
    trace::{Silent, Subject, Trace, Verdict},
};

/// How long a port waits for the first bytes where no policy says so.
pub const DETECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The policy of one port.
#[derive(Clone, Debug)]
pub struct ServerPolicy {
    /// What the port speaks, and the routes of that.
    pub protocol: Protocol,
    /// The server, for labels.
    pub meta: Arc<Meta>,
    /// The limits of its HTTP requests.
    pub rate_limit: Option<RateLimit>,
    limiter: Option<Arc<Limiter>>,
    clauses: Clauses,
    /// For a request where the policy has no routes: the port is opaque or foreign TLS and a
    /// peer's proxy says that it sends HTTP.
    unrouted: Rule,
}

/// What a port speaks.
#[derive(Clone, Debug)]
pub enum Protocol {
    /// Whatever the client's first bytes say.
    Detect {
        /// How long to wait for them.
        timeout: Duration,
        /// Where they say HTTP.
        routes: HttpRoutes,
    },
    /// Bytes that are not looked at.
    Opaque,
    /// TLS of the application's own.
    Tls,
    /// HTTP/1, or HTTP/2 from a peer's proxy.
    Http1(HttpRoutes),
    /// HTTP/2.
    Http2(HttpRoutes),
    /// gRPC.
    Grpc(GrpcRoutes),
    /// The control plane's message makes no sense, for this reason; everything is refused.
    Invalid(String),
}

/// The routes of HTTP.
#[derive(Clone, Debug)]
pub struct HttpRoutes(Table<HttpPattern, Rule>);

/// The routes of gRPC.
#[derive(Clone, Debug)]
pub struct GrpcRoutes(Table<GrpcPattern, Rule>);

#[derive(Clone, Debug)]
struct Rule {
    route: Arc<Route>,
    filters: Box<[Filter]>,
}

#[derive(Debug)]
struct Route {
    meta: Arc<Meta>,
    /// The route's own, then the server's.
    clauses: Clauses,
    authorizes: bool,
}

/// The rule that a request belongs to.
#[derive(Clone, Copy, Debug)]
pub struct RouteMatch<'a> {
    rule: &'a Rule,
    /// What it matched of the path.
    pub path: PathMatched,
}

impl<'a> RouteMatch<'a> {
    /// The route, for labels.
    #[must_use]
    pub fn meta(&self) -> &'a Arc<Meta> {
        &self.rule.route.meta
    }

    /// For [`crate::apply_request`], once the request is authorized.
    #[must_use]
    pub fn filters(&self) -> &'a [Filter] {
        &self.rule.filters
    }
}

impl ServerPolicy {
    /// Compile the control plane's message. What makes no sense becomes
    /// [`Protocol::Invalid`].
    #[must_use]
    pub fn from_proto(wire: inbound::Server) -> Self {
        decode::server(wire)
    }

    /// The policy of a port that the control plane has none for.
    #[must_use]
    pub fn default_for(policy: DefaultPolicy, cluster_networks: &[IpNet], opaque: bool) -> Self {
        let networks = match policy {
            DefaultPolicy::ClusterAuthenticated | DefaultPolicy::ClusterUnauthenticated => {
                cluster_networks.to_vec()
            }
            _ => vec![Ipv4Net::default().into(), Ipv6Net::default().into()],
        };
        let authentication = match policy {
            DefaultPolicy::AllAuthenticated | DefaultPolicy::ClusterAuthenticated => {
                Authentication::Authenticated
            }
            _ => Authentication::Unauthenticated,
        };
        let name = policy.name();
        let mut authorizations = Vec::new();
        if policy != DefaultPolicy::Deny {
            let allowed = Authorization::of_default_policy(name, networks, authentication);
            authorizations.push(Arc::new(allowed));
        }
        let server = Server::new(Arc::new(Meta::default_named(name)), authorizations);
        let protocol = if opaque {
            Protocol::Opaque
        } else {
            let routes = HttpRoutes(server.default_route());
            Protocol::Detect {
                timeout: DETECT_TIMEOUT,
                routes,
            }
        };
        server.policy(protocol, None)
    }

    /// This policy in place of an older one: a limit that both have goes on where it is, and a
    /// change elsewhere gives nobody a burst.
    #[must_use]
    pub fn in_place_of(mut self, before: &Self) -> Self {
        if self.rate_limit == before.rate_limit {
            self.limiter.clone_from(&before.limiter);
        }
        self
    }

    /// Take a request that is authorized, and that no filter has answered, off the limits that
    /// hold for its client. `now` is the time since a moment that is the same for all shards.
    ///
    /// # Errors
    /// Where one of them is used up.
    pub fn limit(&self, tls: &ClientTls, now: Duration) -> Result<(), Limited> {
        match &self.limiter {
            Some(limiter) => limiter.take(tls.client_id(), now),
            None => Ok(()),
        }
    }

    /// The rule of a request. On a port without routes that is a default one with the server's
    /// authorizations.
    ///
    /// # Errors
    /// Where no rule matches, or the policy makes no sense.
    pub fn route(&self, facts: &Facts<'_>) -> Result<RouteMatch<'_>, Refusal> {
        self.find(facts, &mut Silent)
    }

    /// Whether a client may open a connection whose requests are not looked at one by one.
    ///
    /// # Errors
    /// Where no authorization of the server lets it in, or the policy makes no sense.
    pub fn authorize_connection(&self, client: IpAddr, tls: &ClientTls) -> Result<Permit, Refusal> {
        self.permit_connection(client, tls, &mut Silent)
    }

    /// Whether a client may send a request of this rule: the authorizations of the route and of
    /// its server are asked.
    ///
    /// # Errors
    /// Where none of them lets it in.
    pub fn authorize_request(
        &self,
        route: &RouteMatch<'_>,
        client: IpAddr,
        tls: &ClientTls,
    ) -> Result<Permit, Refusal> {
        self.permit_request(route, client, tls, &mut Silent)
    }

    /// Whether a client is let in anywhere: to the server or to one of its routes.
    #[must_use]
    pub fn admits(&self, client: IpAddr, tls: &ClientTls) -> bool {
        fn any<P: Pattern>(table: &Table<P, Rule>, client: IpAddr, tls: &ClientTls) -> bool {
            table.values().any(|rule| {
                rule.route
                    .clauses
                    .permit(client, tls, &mut Silent)
                    .is_some()
            })
        }
        match &self.protocol {
            Protocol::Detect { routes, .. } | Protocol::Http1(routes) | Protocol::Http2(routes) => {
                any(&routes.0, client, tls)
            }
            Protocol::Grpc(routes) => any(&routes.0, client, tls),
            Protocol::Opaque | Protocol::Tls => {
                self.clauses.permit(client, tls, &mut Silent).is_some()
            }
            Protocol::Invalid(_) => false,
        }
    }

    /// Whether some route lets clients in that the server does not. Bytes that detection could
    /// not name are then nobody's: as TCP they are not admitted.
    #[must_use]
    pub fn authorizes_per_route(&self) -> bool {
        fn any<P: Pattern>(table: &Table<P, Rule>) -> bool {
            table.values().any(|rule| rule.route.authorizes)
        }
        match &self.protocol {
            Protocol::Detect { routes, .. } | Protocol::Http1(routes) | Protocol::Http2(routes) => {
                any(&routes.0)
            }
            Protocol::Grpc(routes) => any(&routes.0),
            Protocol::Opaque | Protocol::Tls | Protocol::Invalid(_) => false,
        }
    }

    /// Whether it matters to a client that its bytes are taken for requests: routes authorize, or
    /// there is a limit of requests.
    #[must_use]
    pub fn judges_requests(&self) -> bool {
        self.rate_limit.is_some() || self.authorizes_per_route()
    }

    /// [`Self::authorize_connection`] with its steps; an explanation permits nothing.
    pub fn explain_connection(
        &self,
        client: IpAddr,
        tls: &ClientTls,
    ) -> (Result<Arc<Grant>, Refusal>, Vec<Step>) {
        let mut steps = Vec::new();
        let permit = self.permit_connection(client, tls, &mut steps);
        (permit.map(|permit| permit.grant().clone()), steps)
    }

    /// [`Self::route`] and [`Self::authorize_request`] with their steps; an explanation permits
    /// nothing.
    pub fn explain_request(
        &self,
        facts: &Facts<'_>,
        client: IpAddr,
        tls: &ClientTls,
    ) -> (Result<Arc<Grant>, Refusal>, Vec<Step>) {
        let mut steps = Vec::new();
        let permit = self
            .find(facts, &mut steps)
            .and_then(|route| self.permit_request(&route, client, tls, &mut steps));
        (permit.map(|permit| permit.grant().clone()), steps)
    }

    fn find(&self, facts: &Facts<'_>, trace: &mut impl Trace) -> Result<RouteMatch<'_>, Refusal> {
        let found = match &self.protocol {
            Protocol::Detect { routes, .. } | Protocol::Http1(routes) | Protocol::Http2(routes) => {
                routes.0.find(facts, trace)
            }
            Protocol::Grpc(routes) => routes.0.find(facts, trace),
            Protocol::Opaque | Protocol::Tls => {
                trace.step(
                    Verdict::Matched,
                    || Subject::Route(self.unrouted.route.meta.clone()),
                    "the port has no routes",
                );
                Some((&self.unrouted, PathMatched::Whole))
            }
            Protocol::Invalid(why) => return Err(invalid(why, trace).by(&self.meta)),
        };
        let Some((rule, path)) = found else {
            trace.step(Verdict::Refused, || Subject::Routes, "none of them matches");
            let refusal = Refusal::new(Reason::RouteNotFound, "no route found for request");
            return Err(refusal.by(&self.meta));
        };
        Ok(RouteMatch { rule, path })
    }

    fn permit_connection(
        &self,
        client: IpAddr,
        tls: &ClientTls,
        trace: &mut impl Trace,
    ) -> Result<Permit, Refusal> {
        if let Protocol::Invalid(why) = &self.protocol {
            return Err(invalid(why, trace).by(&self.meta));
        }
        self.clauses.permit(client, tls, trace).ok_or_else(|| {
            let what = "unauthorized connection on server";
            Refusal::new(Reason::Unauthorized, what).by(&self.meta)
        })
    }

    fn permit_request(
        &self,
        route: &RouteMatch<'_>,
        client: IpAddr,
        tls: &ClientTls,
        trace: &mut impl Trace,
    ) -> Result<Permit, Refusal> {
        if let Protocol::Invalid(why) = &self.protocol {
            return Err(invalid(why, trace).by(&self.meta));
        }
        let route = &route.rule.route;
        route.clauses.permit(client, tls, trace).ok_or_else(|| {
            let refusal = Refusal::new(Reason::Unauthorized, "unauthorized request on route");
            // The one whose authorizations were asked first.
            refusal.by(if route.authorizes {
                &route.meta
            } else {
                &self.meta
            })
        })
    }
}

fn invalid(why: &str, trace: &mut impl Trace) -> Refusal {
    trace.step(Verdict::Refused, || Subject::Policy, why);
    Refusal::new(
        Reason::PolicyInvalid,
        format!("invalid server policy: {why}"),
    )
}

/// What all routes of a server share while they are compiled.
struct Server {
    meta: Arc<Meta>,
    /// Localhost's included.
    authorizations: Box<[Arc<Authorization>]>,
}

impl Server {
    fn new(meta: Arc<Meta>, mut authorizations: Vec<Arc<Authorization>>) -> Self {
        authorizations.push(Arc::new(Authorization::localhost()));
        Self {
            meta,
            authorizations: authorizations.into(),
        }
    }

    fn route(&self, meta: Arc<Meta>, own: &[Arc<Authorization>]) -> Arc<Route> {
        let all = own.iter().chain(&self.authorizations);
        let clauses = Clauses::new(&self.meta, Some(&meta), all);
        Arc::new(Route {
            meta,
            clauses,
            authorizes: !own.is_empty(),
        })
    }

    fn default_rule(&self) -> Rule {
        let meta = Arc::new(Meta::default_named("default"));
        Rule {
            route: self.route(meta, &[]),
            filters: Box::default(),
        }
    }

    /// For a server without routes: everything, with the server's authorizations.
    fn default_route<P: Pattern>(&self) -> Table<P, Rule> {
        let value = self.default_rule();
        Table::new(Box::new([Entry {
            meta: value.route.meta.clone(),
            hosts: Box::default(),
            rules: Box::new([Candidate {
                matches: Box::default(),
                value,
            }]),
        }]))
    }

    fn policy(self, protocol: Protocol, rate_limit: Option<RateLimit>) -> ServerPolicy {
        let unrouted = self.default_rule();
        let clauses = Clauses::new(&self.meta, None, &self.authorizations);
        ServerPolicy {
            limiter: rate_limit
                .as_ref()
                .map(|limit| Arc::new(Limiter::new(limit))),
            protocol,
            meta: self.meta,
            rate_limit,
            clauses,
            unrouted,
        }
    }
}

//! From the wire's `Server` to a compiled policy.

use std::sync::Arc;

use tulle_api::inbound::{self, proxy_protocol::Kind};

use super::{GrpcRoutes, HttpRoutes, Protocol, Route, Rule, Server, ServerPolicy};
use crate::{
    Filter, Invalid, Meta, RateLimit,
    authorization::{Authorization, labelled},
    invalid::{At, each, required},
    matching::{GrpcPattern, HostPattern, HttpPattern, Pattern},
    table::{Candidate, Entry, Table},
    wire,
};

pub(super) fn server(wire: inbound::Server) -> ServerPolicy {
    let meta = labelled(&wire.labels, "server").at("labels");
    let compiled = meta
        .clone()
        .and_then(|meta| compile(meta, wire.authorizations, wire.protocol));
    compiled.unwrap_or_else(|why| {
        let unnamed = || Arc::new(Meta::default_named("invalid"));
        let nobody = Server::new(meta.unwrap_or_else(|_| unnamed()), Vec::new());
        nobody.policy(Protocol::Invalid(why.to_string()), None)
    })
}

fn compile(
    meta: Arc<Meta>,
    authorizations: Vec<inbound::Authz>,
    protocol: Option<inbound::ProxyProtocol>,
) -> Result<ServerPolicy, Invalid> {
    let server = Server::new(meta, self::authorizations(authorizations)?);
    let protocol = required(protocol, "protocol")?;
    let (protocol, limit) = match required(protocol.kind, "the kind of the protocol")? {
        Kind::Detect(detect) => {
            let timeout = wire::duration(required(detect.timeout, "timeout")?).at("timeout")?;
            let routes = http(&server, detect.http_routes)?;
            (
                Protocol::Detect { timeout, routes },
                detect.http_local_rate_limit,
            )
        }
        Kind::Opaque(_) => (Protocol::Opaque, None),
        Kind::Tls(_) => (Protocol::Tls, None),
        Kind::Http1(http1) => (
            Protocol::Http1(http(&server, http1.routes)?),
            http1.local_rate_limit,
        ),
        Kind::Http2(http2) => (
            Protocol::Http2(http(&server, http2.routes)?),
            http2.local_rate_limit,
        ),
        Kind::Grpc(grpc) => (Protocol::Grpc(self::grpc(&server, grpc.routes)?), None),
    };
    let limit = limit
        .map(RateLimit::new)
        .transpose()
        .at("local_rate_limit")?;
    Ok(server.policy(protocol, limit))
}

fn authorizations(wire: Vec<inbound::Authz>) -> Result<Vec<Arc<Authorization>>, Invalid> {
    let take = |wire| Authorization::new(wire).map(Arc::new);
    each("authorizations", wire, take).map(Vec::from)
}

fn http(server: &Server, wire: Vec<inbound::HttpRoute>) -> Result<HttpRoutes, Invalid> {
    if wire.is_empty() {
        return Ok(HttpRoutes(server.default_route()));
    }
    let routes = each("routes", wire, |wire| {
        let route = server.route(
            Meta::inbound(wire.metadata)?,
            &authorizations(wire.authorizations)?,
        );
        entry(&route, wire.hosts, wire.rules, |rule| {
            let matches = each("matches", rule.matches, HttpPattern::new)?;
            let filters = each("filters", rule.filters, Filter::inbound_http)?;
            Ok((matches, filters))
        })
    })?;
    Ok(HttpRoutes(Table::new(routes)))
}

fn grpc(server: &Server, wire: Vec<inbound::GrpcRoute>) -> Result<GrpcRoutes, Invalid> {
    if wire.is_empty() {
        return Ok(GrpcRoutes(server.default_route()));
    }
    let routes = each("routes", wire, |wire| {
        let route = server.route(
            Meta::inbound(wire.metadata)?,
            &authorizations(wire.authorizations)?,
        );
        entry(&route, wire.hosts, wire.rules, |rule| {
            let matches = each("matches", rule.matches, GrpcPattern::new)?;
            Ok((
                matches,
                each("filters", rule.filters, Filter::inbound_grpc)?,
            ))
        })
    })?;
    Ok(GrpcRoutes(Table::new(routes)))
}

fn entry<P: Pattern, R>(
    route: &Arc<Route>,
    hosts: Vec<tulle_api::http_route::HostMatch>,
    rules: Vec<R>,
    take: impl Fn(R) -> Result<(Box<[P]>, Box<[Filter]>), Invalid>,
) -> Result<Entry<P, Rule>, Invalid> {
    Ok(Entry {
        meta: route.meta.clone(),
        hosts: each("hosts", hosts, HostPattern::from_host)?,
        rules: each("rules", rules, |rule| {
            let (matches, filters) = take(rule)?;
            Ok(Candidate {
                matches,
                value: Rule {
                    route: route.clone(),
                    filters,
                },
            })
        })?,
    })
}

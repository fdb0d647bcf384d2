//! From the wire's `OutboundPolicy` to a compiled policy.

use std::sync::Arc;

use tulle_api::{
    http_route,
    outbound::{self, proxy_protocol::Kind},
};

use super::{
    ClientPolicy, GrpcRoutes, HttpRoutes, OpaqueRoutes, Protocol, Retry, Rule, TcpRule, Timeouts,
    TlsRoutes,
};
use crate::{
    Backend, Backoff, Distribution, FailureAccrual, Filter, Invalid, Meta, RouteBackend, TcpFilter,
    invalid::{At, each, required},
    matching::{GrpcPattern, HostPattern, HttpPattern, Pattern},
    table::{Candidate, Entry, Table},
    wire,
};

/// What a retried request may hold where the policy does not say.
const MAX_REQUEST_BYTES: usize = 64 * 1024;

pub(super) fn policy(wire: outbound::OutboundPolicy) -> ClientPolicy {
    let meta = Meta::outbound(wire.metadata);
    let compiled = meta.clone().and_then(|meta| {
        let kind = required(wire.protocol, "protocol")?.kind;
        let protocol = protocol(required(kind, "the kind of the protocol")?)?;
        Ok(ClientPolicy { meta, protocol })
    });
    compiled.unwrap_or_else(|why| ClientPolicy {
        meta: meta.unwrap_or_else(|_| Arc::new(Meta::default_named("invalid"))),
        protocol: Protocol::Invalid(why.to_string()),
    })
}

fn protocol(wire: Kind) -> Result<Protocol, Invalid> {
    Ok(match wire {
        Kind::Detect(detect) => {
            let http1 = required(detect.http1, "http1")?;
            let http2 = required(detect.http2, "http2")?;
            Protocol::Detect {
                timeout: wire::duration(required(detect.timeout, "timeout")?).at("timeout")?,
                http1: http(http1.routes, http1.failure_accrual).at("http1")?,
                http2: http(http2.routes, http2.failure_accrual).at("http2")?,
                opaque: opaque(required(detect.opaque, "opaque")?.routes).at("opaque")?,
            }
        }
        Kind::Opaque(wire) => Protocol::Opaque(opaque(wire.routes)?),
        Kind::Http1(wire) => Protocol::Http1(http(wire.routes, wire.failure_accrual)?),
        Kind::Http2(wire) => Protocol::Http2(http(wire.routes, wire.failure_accrual)?),
        Kind::Grpc(wire) => Protocol::Grpc(grpc(wire.routes, wire.failure_accrual)?),
        Kind::Tls(wire) => Protocol::Tls(tls(wire.routes)?),
    })
}

fn http(
    routes: Vec<outbound::HttpRoute>,
    accrual: Option<outbound::FailureAccrual>,
) -> Result<HttpRoutes, Invalid> {
    let routes = each("routes", routes, |route| {
        let meta = Meta::outbound(route.metadata)?;
        entry(&meta, route.hosts, route.rules, |rule| {
            let matches = each("matches", rule.matches, HttpPattern::new)?;
            let filters = each("filters", rule.filters, Filter::outbound_http)?;
            let distribution = http_distribution(rule.backends).at("backends")?;
            #[expect(deprecated, reason = "older control planes set it")]
            let request_timeout = rule.request_timeout;
            let value = Rule {
                meta: meta.clone(),
                mirrors: has_mirror(&filters, &distribution),
                filters,
                distribution,
                timeouts: timeouts(rule.timeouts, request_timeout, rule.backend_request_timeout)
                    .at("timeouts")?,
                retry: rule.retry.map(http_retry).transpose().at("retry")?,
                default_retry: !rule.no_default_retry,
                allow_l5d_request_headers: rule.allow_l5d_request_headers,
            };
            Ok(Candidate { matches, value })
        })
    })?;
    let failure_accrual = accrual
        .map(FailureAccrual::new)
        .transpose()
        .at("failure_accrual")?;
    Ok(HttpRoutes {
        failure_accrual,
        table: Table::new(routes),
        profile: None,
    })
}

fn grpc(
    routes: Vec<outbound::GrpcRoute>,
    accrual: Option<outbound::FailureAccrual>,
) -> Result<GrpcRoutes, Invalid> {
    let routes = each("routes", routes, |route| {
        let meta = Meta::outbound(route.metadata)?;
        entry(&meta, route.hosts, route.rules, |rule| {
            #[expect(deprecated, reason = "older control planes set it")]
            let request_timeout = rule.request_timeout;
            let filters = each("filters", rule.filters, Filter::outbound_grpc)?;
            let distribution = grpc_distribution(rule.backends).at("backends")?;
            let value = Rule {
                meta: meta.clone(),
                mirrors: has_mirror(&filters, &distribution),
                filters,
                distribution,
                timeouts: timeouts(rule.timeouts, request_timeout, rule.backend_request_timeout)
                    .at("timeouts")?,
                retry: rule.retry.map(grpc_retry).transpose().at("retry")?,
                default_retry: !rule.no_default_retry,
                allow_l5d_request_headers: rule.allow_l5d_request_headers,
            };
            Ok(Candidate {
                matches: each("matches", rule.matches, GrpcPattern::new)?,
                value,
            })
        })
    })?;
    let failure_accrual = accrual
        .map(FailureAccrual::new)
        .transpose()
        .at("failure_accrual")?;
    Ok(GrpcRoutes {
        failure_accrual,
        table: Table::new(routes),
    })
}

fn entry<P: Pattern, R>(
    meta: &Arc<Meta>,
    hosts: Vec<http_route::HostMatch>,
    rules: Vec<R>,
    take: impl Fn(R) -> Result<Candidate<P, Rule>, Invalid>,
) -> Result<Entry<P, Rule>, Invalid> {
    Ok(Entry {
        meta: meta.clone(),
        hosts: each("hosts", hosts, HostPattern::from_host)?,
        rules: each("rules", rules, take)?,
    })
}

fn opaque(routes: Vec<outbound::OpaqueRoute>) -> Result<OpaqueRoutes, Invalid> {
    let routes = each("routes", routes, |route| {
        let meta = Meta::outbound(route.metadata)?;
        let [rule] = <[_; 1]>::try_from(route.rules)
            .map_err(|rules| Invalid::new(format_args!("{} rules instead of one", rules.len())))?;
        Ok(TcpRule {
            meta,
            filters: each("filters", rule.filters, TcpFilter::opaque)?,
            distribution: opaque_distribution(rule.backends).at("backends")?,
        })
    })?;
    match <Box<[_; 1]>>::try_from(routes) {
        Ok(route) => Ok(OpaqueRoutes(route.into_iter().next())),
        Err(routes) if routes.is_empty() => Ok(OpaqueRoutes(None)),
        Err(routes) => Err(Invalid::new(format_args!(
            "{} routes instead of one",
            routes.len()
        ))),
    }
}

fn tls(routes: Vec<outbound::TlsRoute>) -> Result<TlsRoutes, Invalid> {
    let routes = each("routes", routes, |route| {
        let meta = Meta::outbound(route.metadata)?;
        let [rule] = <[_; 1]>::try_from(route.rules)
            .map_err(|rules| Invalid::new(format_args!("{} rules instead of one", rules.len())))?;
        let names = each("snis", route.snis, HostPattern::from_sni)?;
        let rule = TcpRule {
            meta,
            filters: each("filters", rule.filters, TcpFilter::tls)?,
            distribution: tls_distribution(rule.backends).at("backends")?,
        };
        Ok((names, rule))
    })?;
    Ok(TlsRoutes(routes))
}

fn has_mirror(filters: &[Filter], distribution: &Distribution<Filter>) -> bool {
    let of_backends = distribution.backends().flat_map(|backend| &backend.filters);
    filters
        .iter()
        .chain(of_backends)
        .any(|filter| matches!(filter, Filter::Mirror(_)))
}

fn timeouts(
    wire: Option<http_route::Timeouts>,
    request: Option<prost_types::Duration>,
    backend_request: Option<prost_types::Duration>,
) -> Result<Timeouts, Invalid> {
    let wire = wire.unwrap_or(http_route::Timeouts {
        request,
        ..http_route::Timeouts::default()
    });
    Ok(Timeouts {
        response: wire::timeout(wire.response, "response")?,
        request: wire::timeout(wire.request, "request")?,
        idle: wire::timeout(wire.idle, "idle")?,
        backend_request: wire::timeout(backend_request, "backend_request_timeout")?,
    })
}

fn http_retry(wire: outbound::http_route::Retry) -> Result<Retry, Invalid> {
    let conditions = required(wire.conditions, "conditions")?;
    let statuses = each("status_ranges", conditions.status_ranges, |range| {
        match (u16::try_from(range.start), u16::try_from(range.end)) {
            (Ok(start @ 1..=599), Ok(end @ 1..=599)) if start <= end => Ok((start, end)),
            _ => Err(Invalid::new(format_args!(
                "{} to {} is no range",
                range.start, range.end
            ))),
        }
    })?;
    Ok(Retry {
        max_retries: wire.max_retries,
        max_request_bytes: body_limit(wire.max_request_bytes),
        statuses,
        grpc_codes: Box::default(),
        timeout: wire::timeout(wire.timeout, "timeout")?,
        backoff: wire.backoff.map(Backoff::new).transpose()?,
    })
}

fn grpc_retry(wire: outbound::grpc_route::Retry) -> Result<Retry, Invalid> {
    let conditions = required(wire.conditions, "conditions")?;
    let codes = [
        (conditions.cancelled, 1),
        (conditions.deadine_exceeded, 4),
        (conditions.resource_exhausted, 8),
        (conditions.internal, 13),
        (conditions.unavailable, 14),
    ];
    Ok(Retry {
        max_retries: wire.max_retries,
        max_request_bytes: body_limit(wire.max_request_bytes),
        statuses: Box::default(),
        grpc_codes: codes
            .into_iter()
            .filter(|(set, _)| *set)
            .map(|(_, code)| code)
            .collect(),
        timeout: wire::timeout(wire.timeout, "timeout")?,
        backoff: wire.backoff.map(Backoff::new).transpose()?,
    })
}

fn body_limit(wire: u32) -> usize {
    match wire {
        0 => MAX_REQUEST_BYTES,
        limit => usize::try_from(limit).unwrap_or(usize::MAX),
    }
}

/// The four kinds of routes have each a copy of the same messages.
macro_rules! distribution {
    ($name:ident, $backend:ident, $module:ident, $filter:ty, $decode:path) => {
        fn $name(
            wire: Option<outbound::$module::Distribution>,
        ) -> Result<Distribution<$filter>, Invalid> {
            use outbound::$module::distribution::Kind;
            let kind = wire.and_then(|wire| wire.kind);
            match required(kind, "the kind of the distribution")? {
                Kind::Empty(_) => Ok(Distribution::Empty),
                Kind::FirstAvailable(first) => {
                    Distribution::first(each("backends", first.backends, $backend)?)
                }
                Kind::RandomAvailable(random) => {
                    Distribution::random(each("backends", random.backends, |wire| {
                        Ok(($backend(required(wire.backend, "backend")?)?, wire.weight))
                    })?)
                }
            }
        }

        fn $backend(
            wire: outbound::$module::RouteBackend,
        ) -> Result<RouteBackend<$filter>, Invalid> {
            Ok(RouteBackend {
                backend: Backend::new(required(wire.backend, "backend")?)?,
                filters: each("filters", wire.filters, $decode)?,
            })
        }
    };
}

distribution!(
    http_distribution,
    http_backend,
    http_route,
    Filter,
    Filter::outbound_http
);
distribution!(
    grpc_distribution,
    grpc_backend,
    grpc_route,
    Filter,
    Filter::outbound_grpc
);
distribution!(
    opaque_distribution,
    opaque_backend,
    opaque_route,
    TcpFilter,
    TcpFilter::opaque
);
distribution!(
    tls_distribution,
    tls_backend,
    tls_route,
    TcpFilter,
    TcpFilter::tls
);

use std::{sync::Arc, time::Duration};

use prost::Message;
use pyo3::{PyResult, exceptions::PyValueError, pyclass, pymethods};
use tulle_core::{Reason, Refusal};
use tulle_policy::{
    self as policy, BackendKind, Distribution, Facts, Filter, PathMatched, RouteBackend, TcpFilter,
    outbound::{ClientPolicy as Policy, Protocol, RouteMatch, TcpRule},
};

use crate::{
    request::{OwnAnswer, Request, filtered},
    resource::{Resource, Step},
};

/// Where traffic to one destination goes.
#[pyclass(frozen)]
pub(crate) struct ClientPolicy(Policy);

/// Something that a rule sends traffic to.
#[pyclass(frozen, get_all)]
#[derive(Clone, Debug)]
pub(crate) struct Backend {
    resource: Resource,
    weight: u32,
    /// What to ask the control plane for, where it is balanced.
    path: Option<String>,
    /// Where it is one address.
    address: Option<String>,
    /// As it is sent there.
    request: Option<Request>,
    reason: Option<&'static str>,
    message: Option<String>,
    status: Option<u16>,
    grpc_status: Option<u16>,
    location: Option<String>,
}

/// When a request is tried again.
#[pyclass(frozen, get_all)]
#[derive(Clone, Debug)]
pub(crate) struct Retry {
    limit: u32,
    statuses: Vec<(u16, u16)>,
    grpc_codes: Vec<u16>,
    timeout: Option<Duration>,
}

/// What a client's proxy does with a request or a connection, and why.
#[pyclass(frozen, get_all)]
#[derive(Clone, Debug, Default)]
pub(crate) struct ClientDecision {
    reason: Option<&'static str>,
    message: Option<String>,
    status: Option<u16>,
    grpc_status: Option<u16>,
    location: Option<String>,
    route: Option<Resource>,
    backends: Vec<Backend>,
    request_timeout: Option<Duration>,
    response_timeout: Option<Duration>,
    idle_timeout: Option<Duration>,
    retry: Option<Retry>,
    steps: Vec<Step>,
}

#[pymethods]
impl ClientPolicy {
    /// A policy, and the service profile beside it for a port, which rules where it has
    /// something to say.
    #[staticmethod]
    #[pyo3(signature = (bytes, *, profile = None, port = 0))]
    fn decode(bytes: &[u8], profile: Option<&[u8]>, port: u16) -> PyResult<Self> {
        let unreadable = |error: prost::DecodeError| PyValueError::new_err(error.to_string());
        let wire = tulle_api::outbound::OutboundPolicy::decode(bytes).map_err(unreadable)?;
        let policy = Policy::from_proto(wire);
        let Some(profile) = profile else {
            return Ok(Self(policy));
        };
        let profile = tulle_api::destination::DestinationProfile::decode(profile);
        Ok(Self(
            policy.with_profile(&profile.map_err(unreadable)?, port),
        ))
    }

    #[getter]
    fn resource(&self) -> Resource {
        Resource::of(&self.0.meta)
    }

    #[getter]
    fn protocol(&self) -> &'static str {
        match self.0.protocol {
            Protocol::Detect { .. } => "detect",
            Protocol::Http1(_) => "http1",
            Protocol::Http2(_) => "http2",
            Protocol::Grpc(_) => "grpc",
            Protocol::Opaque(_) => "opaque",
            Protocol::Tls(_) => "tls",
            Protocol::Invalid(_) => "invalid",
        }
    }

    /// The rule of a request and its backends; where HTTP is not looked at, the refusal of it.
    fn route(&self, request: &Request) -> PyResult<ClientDecision> {
        let http2 = request.http2;
        let request = request.to_http()?;
        let facts = Facts::of(&request);
        let (found, steps) = match &self.0.protocol {
            Protocol::Detect { http2: routes, .. } if http2 => routes.explain(&facts),
            Protocol::Detect { http1: routes, .. }
            | Protocol::Http1(routes)
            | Protocol::Http2(routes) => routes.explain(&facts),
            Protocol::Grpc(routes) => routes.explain(&facts),
            Protocol::Opaque(_) | Protocol::Tls(_) => {
                let why = "no route: the destination's bytes are not looked at";
                (Err(Refusal::new(Reason::RouteNotFound, why)), Vec::new())
            }
            Protocol::Invalid(_) => (Err(self.invalid()), Vec::new()),
        };
        Ok(match found {
            Ok(matched) => http(&matched, request, steps),
            Err(refusal) => ClientDecision::refused(&refusal, steps),
        })
    }

    #[pyo3(signature = (*, sni = None))]
    fn connect(&self, sni: Option<&str>) -> ClientDecision {
        let (found, steps) = match &self.0.protocol {
            Protocol::Detect { opaque, .. } | Protocol::Opaque(opaque) => {
                (opaque.find(), Vec::new())
            }
            Protocol::Tls(routes) => routes.explain(sni),
            Protocol::Http1(_) | Protocol::Http2(_) | Protocol::Grpc(_) => {
                let why = "no route: the destination speaks HTTP only";
                (Err(Refusal::new(Reason::RouteNotFound, why)), Vec::new())
            }
            Protocol::Invalid(_) => (Err(self.invalid()), Vec::new()),
        };
        match found {
            Ok(rule) => tcp(rule, steps),
            Err(refusal) => ClientDecision::refused(&refusal, steps),
        }
    }
}

impl ClientPolicy {
    fn invalid(&self) -> Refusal {
        let refusal = self.0.protocol.refusal();
        refusal.unwrap_or_else(|| Refusal::new(Reason::PolicyInvalid, "invalid client policy"))
    }
}

impl ClientDecision {
    fn refused(refusal: &Refusal, steps: Vec<policy::Step>) -> Self {
        Self::answered(Some(OwnAnswer::refusal(refusal)), steps)
    }

    fn answered(answer: Option<OwnAnswer>, steps: Vec<policy::Step>) -> Self {
        Self {
            reason: answer.as_ref().and_then(|answer| answer.reason),
            message: answer.as_ref().and_then(|answer| answer.message.clone()),
            status: answer.as_ref().map(|answer| answer.status),
            grpc_status: answer.as_ref().and_then(|answer| answer.grpc_status),
            location: answer.and_then(|answer| answer.location),
            steps: Step::all(steps),
            ..Self::default()
        }
    }
}

fn http(
    matched: &RouteMatch<'_>,
    mut request: http::Request<()>,
    steps: Vec<policy::Step>,
) -> ClientDecision {
    let rule = matched.rule;
    let answer = filtered(&rule.filters, matched.path, &mut request);
    let ended = answer.is_some();
    let backend = |backend: &RouteBackend<Filter>, weight| {
        http_backend(backend, weight, matched.path, request.clone())
    };
    let of_profile = matched.profile.and_then(|route| route.timeout);
    let retry = rule.retry.as_ref().map(|retry| Retry {
        limit: retry.max_retries,
        statuses: retry.statuses.to_vec(),
        grpc_codes: retry.grpc_codes.to_vec(),
        timeout: retry.timeout,
    });
    ClientDecision {
        route: Some(Resource::of(&rule.meta)),
        backends: if ended {
            Vec::new()
        } else {
            backends(&rule.distribution, backend)
        },
        request_timeout: rule.timeouts.request.or(of_profile),
        response_timeout: rule.timeouts.response,
        idle_timeout: rule.timeouts.idle,
        retry,
        ..ClientDecision::answered(answer, steps)
    }
}

fn tcp(rule: &TcpRule, steps: Vec<policy::Step>) -> ClientDecision {
    ClientDecision {
        route: Some(Resource::of(&rule.meta)),
        backends: backends(&rule.distribution, |backend, weight| {
            let refusal = backend.filters.first().map(TcpFilter::refusal);
            let answer = refusal.as_ref().map(OwnAnswer::refusal);
            Backend::new(&backend.backend, weight, None, answer)
        }),
        ..ClientDecision::answered(None, steps)
    }
}

fn http_backend(
    backend: &RouteBackend<Filter>,
    weight: u32,
    matched: PathMatched,
    mut request: http::Request<()>,
) -> Backend {
    let answer = filtered(&backend.filters, matched, &mut request);
    Backend::new(
        &backend.backend,
        weight,
        Some(Request::of(&request)),
        answer,
    )
}

impl Backend {
    fn new(
        backend: &Arc<policy::Backend>,
        weight: u32,
        request: Option<Request>,
        answer: Option<OwnAnswer>,
    ) -> Self {
        let missing = || {
            let why = "the backend does not exist";
            OwnAnswer::refusal(&Refusal::new(Reason::BackendInvalid, why))
        };
        let (mut path, mut address, mut answer) = (None, None, answer);
        match &backend.kind {
            BackendKind::Balance { path: name, .. } => path = Some(name.to_string()),
            BackendKind::Forward(endpoint) => address = Some(endpoint.addr.to_string()),
            BackendKind::Fail => answer = Some(answer.unwrap_or_else(missing)),
        }
        Self {
            resource: Resource::of(&backend.meta),
            weight,
            path,
            address,
            request,
            reason: answer.as_ref().and_then(|answer| answer.reason),
            message: answer.as_ref().and_then(|answer| answer.message.clone()),
            status: answer.as_ref().map(|answer| answer.status),
            grpc_status: answer.as_ref().and_then(|answer| answer.grpc_status),
            location: answer.and_then(|answer| answer.location),
        }
    }
}

/// All backends with their weights; of those in an order of preference, the first has it all.
fn backends<F>(
    distribution: &Distribution<F>,
    make: impl Fn(&RouteBackend<F>, u32) -> Backend,
) -> Vec<Backend> {
    match distribution {
        Distribution::Empty => Vec::new(),
        Distribution::First(all) => {
            let weights = std::iter::once(1).chain(std::iter::repeat(0));
            all.iter()
                .zip(weights)
                .map(|(backend, weight)| make(backend, weight))
                .collect()
        }
        Distribution::Random(all) => all
            .iter()
            .map(|(backend, weight)| make(backend, *weight))
            .collect(),
    }
}

use std::net::IpAddr;

use prost::Message;
use pyo3::{PyResult, exceptions::PyValueError, pyclass, pymethods};
use tulle_core::{ClientTls, Id, NoTls, Refusal};
use tulle_policy::{
    Facts, Grant,
    inbound::{Protocol, ServerPolicy as Policy},
};

use crate::{
    request::{OwnAnswer, Request, filtered},
    resource::{Resource, Step},
};

/// The policy of one port.
#[pyclass(frozen)]
pub(crate) struct ServerPolicy(Policy);

/// What a server's proxy does with a request or a connection, and why.
#[pyclass(frozen, get_all)]
#[derive(Clone, Debug)]
pub(crate) struct ServerDecision {
    allowed: bool,
    reason: Option<&'static str>,
    message: Option<String>,
    status: Option<u16>,
    grpc_status: Option<u16>,
    location: Option<String>,
    server: Resource,
    route: Option<Resource>,
    authorization: Option<Resource>,
    /// As the application gets it.
    request: Option<Request>,
    steps: Vec<Step>,
}

/// How many requests a second a port takes.
#[pyclass(frozen, get_all)]
#[derive(Clone, Debug)]
pub(crate) struct RateLimit {
    resource: Resource,
    total: Option<u32>,
    /// That of the client who asks, where it has one of its own.
    client: Option<u32>,
}

#[pymethods]
impl ServerPolicy {
    #[staticmethod]
    fn decode(bytes: &[u8]) -> PyResult<Self> {
        let wire = tulle_api::inbound::Server::decode(bytes);
        let wire = wire.map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok(Self(Policy::from_proto(wire)))
    }

    #[getter]
    fn resource(&self) -> Resource {
        Resource::of(&self.0.meta)
    }

    #[getter]
    fn protocol(&self) -> &'static str {
        match self.0.protocol {
            Protocol::Detect { .. } => "detect",
            Protocol::Opaque => "opaque",
            Protocol::Tls => "tls",
            Protocol::Http1(_) => "http1",
            Protocol::Http2(_) => "http2",
            Protocol::Grpc(_) => "grpc",
            Protocol::Invalid(_) => "invalid",
        }
    }

    fn authorize(
        &self,
        client: IpAddr,
        identity: Option<&str>,
        request: &Request,
    ) -> PyResult<ServerDecision> {
        let mut request = request.to_http()?;
        let (granted, steps) = self
            .0
            .explain_request(&Facts::of(&request), client, &tls(identity));
        let found = self.0.route(&Facts::of(&request)).ok();
        let route = found.map(|found| Resource::of(found.meta()));
        // Filters run once the request is authorized.
        let answer = match (&granted, found) {
            (Ok(_), Some(found)) => filtered(found.filters(), found.path, &mut request),
            _ => None,
        };
        let passed = answer.is_none().then(|| Request::of(&request));
        let decision = self.decision(granted.as_deref(), steps, route, answer);
        Ok(ServerDecision {
            request: passed.filter(|_| decision.allowed),
            ..decision
        })
    }

    fn connect(&self, client: IpAddr, identity: Option<&str>) -> ServerDecision {
        let (granted, steps) = self.0.explain_connection(client, &tls(identity));
        self.decision(granted.as_deref(), steps, None, None)
    }

    fn rate_limit(&self, identity: Option<&str>) -> Option<RateLimit> {
        let limit = self.0.rate_limit.as_ref()?;
        let id = identity.map(Id::new);
        let own = limit.overrides.iter().find(|own| {
            id.as_ref()
                .is_some_and(|id| own.clients.iter().any(|client| client == id))
        });
        let client = own.map_or(limit.identity, |own| own.limit);
        Some(RateLimit {
            resource: Resource::of(&limit.meta),
            total: limit.total.map(Into::into),
            client: client.map(Into::into),
        })
    }
}

impl ServerPolicy {
    fn decision(
        &self,
        granted: Result<&Grant, &Refusal>,
        steps: Vec<tulle_policy::Step>,
        route: Option<Resource>,
        answer: Option<OwnAnswer>,
    ) -> ServerDecision {
        let answer = granted.err().map(OwnAnswer::refusal).or(answer);
        let grant = granted.ok();
        ServerDecision {
            allowed: answer.is_none(),
            reason: answer.as_ref().and_then(|answer| answer.reason),
            message: answer.as_ref().and_then(|answer| answer.message.clone()),
            status: answer.as_ref().map(|answer| answer.status),
            grpc_status: answer.as_ref().and_then(|answer| answer.grpc_status),
            location: answer.and_then(|answer| answer.location),
            server: Resource::of(&self.0.meta),
            route,
            authorization: grant.map(|grant| Resource::of(&grant.authz)),
            request: None,
            steps: Step::all(steps),
        }
    }
}

/// A client has proved its identity, or its connection is in plaintext.
fn tls(identity: Option<&str>) -> ClientTls {
    match identity {
        Some(name) => ClientTls::Established {
            client_id: Some(Id::new(name)),
        },
        None => ClientTls::None(NoTls::NotFromRemote),
    }
}

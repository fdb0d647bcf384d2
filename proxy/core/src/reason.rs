use std::{borrow::Cow, fmt, sync::Arc};

use http::StatusCode;

/// Why a request or a connection was refused: stable, a part of the public surface (header
/// `tulle-reason`, metric `tulle_refusals_total`, log).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Reason {
    /// The request's framing is ambiguous or malformed.
    BadRequest,
    /// The request's head is larger than the limit.
    HeadersTooLarge,
    /// The client did not finish the head of a request in time.
    HeadTimeout,
    /// No route of the policy matches.
    RouteNotFound,
    /// No authorization lets this client in.
    Unauthorized,
    /// A changed policy no longer lets in whom an older one had.
    Revoked,
    /// The port's policy did not arrive in time.
    PolicyUnknown,
    /// The control plane's policy is not valid.
    PolicyInvalid,
    /// A rate limit is used up.
    RateLimited,
    /// More requests are in flight than the proxy allows.
    Overloaded,
    /// More requests wait for an endpoint than the queue holds.
    QueueFull,
    /// No endpoint has been ready for the fail-fast time.
    FailFast,
    /// The service has no endpoint.
    NoEndpoints,
    /// The service does not define this port.
    PortUndefined,
    /// The route's backend does not exist.
    BackendInvalid,
    /// A route says that this request fails.
    FailureInjected,
    /// The endpoint refused the connection or could not be reached.
    ConnectFailed,
    /// The endpoint did not accept the connection in time.
    ConnectTimeout,
    /// The endpoint proved another name than the expected one, or none.
    IdentityMismatch,
    /// The request asked for another identity than the endpoint has.
    IdentityRequired,
    /// The TLS handshake failed or did not end in time.
    TlsFailed,
    /// The connection broke before the response was complete.
    ConnectionLost,
    /// The peer answered with something that is not HTTP.
    BadResponse,
    /// The route's time for the whole exchange is over.
    Timeout,
    /// The response did not come, or not to its end, in the route's time.
    ResponseTimeout,
    /// Nothing was said in either direction for the route's time.
    IdleTimeout,
    /// One try took longer than the route allows a backend.
    BackendTimeout,
    /// The connection would come back to this proxy.
    Loop,
    /// The address is not one of this workload's.
    AddressRefused,
    /// The proxy is shutting down.
    Draining,
    /// Protocol detection ended without an answer where only HTTP is authorized.
    ProtocolUnknown,
    /// A bug of ours.
    Unexpected,
}

impl Reason {
    /// Every reason, in the order of declaration.
    pub const ALL: [Self; 32] = [
        Self::BadRequest,
        Self::HeadersTooLarge,
        Self::HeadTimeout,
        Self::RouteNotFound,
        Self::Unauthorized,
        Self::Revoked,
        Self::PolicyUnknown,
        Self::PolicyInvalid,
        Self::RateLimited,
        Self::Overloaded,
        Self::QueueFull,
        Self::FailFast,
        Self::NoEndpoints,
        Self::PortUndefined,
        Self::BackendInvalid,
        Self::FailureInjected,
        Self::ConnectFailed,
        Self::ConnectTimeout,
        Self::IdentityMismatch,
        Self::IdentityRequired,
        Self::TlsFailed,
        Self::ConnectionLost,
        Self::BadResponse,
        Self::Timeout,
        Self::ResponseTimeout,
        Self::IdleTimeout,
        Self::BackendTimeout,
        Self::Loop,
        Self::AddressRefused,
        Self::Draining,
        Self::ProtocolUnknown,
        Self::Unexpected,
    ];

    /// The code, in header, metric and log.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::HeadersTooLarge => "headers_too_large",
            Self::HeadTimeout => "head_timeout",
            Self::RouteNotFound => "route_not_found",
            Self::Unauthorized => "unauthorized",
            Self::Revoked => "revoked",
            Self::PolicyUnknown => "policy_unknown",
            Self::PolicyInvalid => "policy_invalid",
            Self::RateLimited => "rate_limited",
            Self::Overloaded => "overloaded",
            Self::QueueFull => "queue_full",
            Self::FailFast => "fail_fast",
            Self::NoEndpoints => "no_endpoints",
            Self::PortUndefined => "port_undefined",
            Self::BackendInvalid => "backend_invalid",
            Self::FailureInjected => "failure_injected",
            Self::ConnectFailed => "connect_failed",
            Self::ConnectTimeout => "connect_timeout",
            Self::IdentityMismatch => "identity_mismatch",
            Self::IdentityRequired => "identity_required",
            Self::TlsFailed => "tls_failed",
            Self::ConnectionLost => "connection_lost",
            Self::BadResponse => "bad_response",
            Self::Timeout => "timeout",
            Self::ResponseTimeout => "response_timeout",
            Self::IdleTimeout => "idle_timeout",
            Self::BackendTimeout => "backend_timeout",
            Self::Loop => "loop",
            Self::AddressRefused => "address_refused",
            Self::Draining => "draining",
            Self::ProtocolUnknown => "protocol_unknown",
            Self::Unexpected => "unexpected",
        }
    }

    /// The HTTP status, as the stock proxy maps it.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::RouteNotFound => StatusCode::NOT_FOUND,
            Self::HeadTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Unauthorized | Self::Revoked | Self::PortUndefined | Self::AddressRefused => {
                StatusCode::FORBIDDEN
            }
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::Overloaded | Self::QueueFull | Self::PolicyUnknown | Self::Draining => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::FailFast
            | Self::NoEndpoints
            | Self::ConnectTimeout
            | Self::Timeout
            | Self::ResponseTimeout
            | Self::IdleTimeout
            | Self::BackendTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::ConnectFailed
            | Self::IdentityMismatch
            | Self::IdentityRequired
            | Self::TlsFailed
            | Self::ConnectionLost
            | Self::BadResponse => StatusCode::BAD_GATEWAY,
            Self::Loop => StatusCode::LOOP_DETECTED,
            Self::PolicyInvalid
            | Self::BackendInvalid
            | Self::FailureInjected
            | Self::ProtocolUnknown
            | Self::Unexpected => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The gRPC status code, as the stock proxy maps it.
    #[must_use]
    pub const fn grpc_code(self) -> u16 {
        match self {
            Self::BadRequest | Self::PolicyInvalid | Self::ProtocolUnknown | Self::Unexpected => 13,
            Self::RouteNotFound => 5,
            Self::Unauthorized | Self::Revoked | Self::PortUndefined | Self::AddressRefused => 7,
            Self::HeadersTooLarge | Self::RateLimited => 8,
            Self::HeadTimeout
            | Self::FailFast
            | Self::NoEndpoints
            | Self::ConnectTimeout
            | Self::Timeout
            | Self::ResponseTimeout
            | Self::IdleTimeout
            | Self::BackendTimeout => 4,
            Self::Loop => 10,
            Self::BackendInvalid | Self::FailureInjected => 9,
            Self::Overloaded
            | Self::QueueFull
            | Self::PolicyUnknown
            | Self::Draining
            | Self::ConnectFailed
            | Self::IdentityMismatch
            | Self::IdentityRequired
            | Self::TlsFailed
            | Self::ConnectionLost
            | Self::BadResponse => 14,
        }
    }

    /// The label `error` in the stock families that count errors; what policy decides is none.
    #[must_use]
    pub const fn error(self) -> Option<&'static str> {
        match self.phase() {
            Phase::Policy if !matches!(self, Self::PolicyInvalid | Self::Unexpected) => None,
            Phase::Queue if matches!(self, Self::FailFast) => Some("failfast"),
            Phase::Queue => Some("loadshed"),
            Phase::Connect | Phase::Tls => Some("i/o"),
            Phase::Response if matches!(self, Self::ConnectionLost | Self::BadResponse) => {
                Some("i/o")
            }
            Phase::Resolve if matches!(self, Self::NoEndpoints) => Some("failfast"),
            Phase::Policy | Phase::Request | Phase::Resolve | Phase::Response => Some("unexpected"),
        }
    }

    /// Where on its way through the proxy something was refused.
    #[must_use]
    pub const fn phase(self) -> Phase {
        match self {
            Self::BadRequest
            | Self::HeadersTooLarge
            | Self::HeadTimeout
            | Self::ProtocolUnknown => Phase::Request,
            Self::PolicyUnknown
            | Self::NoEndpoints
            | Self::PortUndefined
            | Self::BackendInvalid
            | Self::Loop
            | Self::AddressRefused => Phase::Resolve,
            Self::RouteNotFound
            | Self::Unauthorized
            | Self::Revoked
            | Self::PolicyInvalid
            | Self::RateLimited
            | Self::FailureInjected
            | Self::Unexpected => Phase::Policy,
            Self::Overloaded | Self::QueueFull | Self::FailFast => Phase::Queue,
            Self::ConnectFailed | Self::ConnectTimeout => Phase::Connect,
            Self::IdentityMismatch | Self::IdentityRequired | Self::TlsFailed => Phase::Tls,
            Self::ConnectionLost
            | Self::BadResponse
            | Self::Timeout
            | Self::ResponseTimeout
            | Self::IdleTimeout
            | Self::BackendTimeout
            | Self::Draining => Phase::Response,
        }
    }

    /// Whether the client's HTTP/1 connection is closed after the answer, as the stock proxy
    /// does for 500, 502, 503, 508 and the 504 of fail-fast and connecting.
    #[must_use]
    pub const fn closes(self) -> bool {
        !matches!(
            self,
            Self::RouteNotFound
                | Self::Unauthorized
                | Self::RateLimited
                | Self::Timeout
                | Self::ResponseTimeout
                | Self::IdleTimeout
                | Self::BackendTimeout
                | Self::FailureInjected
                | Self::PortUndefined
        )
    }
}

/// The part of the way through a proxy where something is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// What the client sends is read and understood.
    Request,
    /// What is known of the destination is found.
    Resolve,
    /// Routes, authorizations, limits and filters are asked.
    Policy,
    /// An endpoint, or room, is waited for.
    Queue,
    /// A connection is made.
    Connect,
    /// It is secured.
    Tls,
    /// The answer is awaited and passed on.
    Response,
}

impl Phase {
    /// The word, in header, metric and log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Resolve => "resolve",
            Self::Policy => "policy",
            Self::Queue => "queue",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Response => "response",
        }
    }
}

/// A refusal on its way to whoever asked.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The stable code.
    pub reason: Reason,
    /// For `l5d-proxy-error`, in the stock proxy's words where it has some.
    pub message: Cow<'static, str>,
    /// Where a filter or policy names a status of its own.
    pub status: Option<StatusCode>,
    /// What decided it, as `group/kind/namespace/name` or as far as it has such parts: a
    /// Server, a route, a Service. Absent where nothing was asked yet.
    pub resource: Option<Arc<str>>,
    /// Seconds after which it is worth trying again.
    pub retry_after: Option<u32>,
}

impl Refusal {
    /// A refusal with the status that belongs to its reason.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason,
            message: message.into(),
            status: None,
            resource: None,
            retry_after: None,
        }
    }

    /// Name what decided it, unless something closer to the cause is named already.
    #[must_use]
    pub fn by(mut self, resource: &impl fmt::Display) -> Self {
        self.blame(resource);
        self
    }

    /// The same for one that is on its way.
    pub fn blame(&mut self, resource: &impl fmt::Display) {
        if self.resource.is_none() {
            self.resource = Some(resource.to_string().into());
        }
    }

    /// The HTTP status to answer with.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status.unwrap_or_else(|| self.reason.status())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_reasons_share_a_code() {
        let codes: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.code()).collect();

        assert_eq!(codes.len(), Reason::ALL.len());
    }

    #[test]
    fn the_resource_closest_to_the_cause_is_kept() {
        let refusal = Refusal::new(Reason::RouteNotFound, "no")
            .by(&"route")
            .by(&"server");

        assert_eq!(refusal.resource.as_deref(), Some("route"));
    }
}

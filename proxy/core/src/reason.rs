use std::borrow::Cow;

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
    /// No route of the policy matches.
    RouteNotFound,
    /// No authorization lets this client in.
    Unauthorized,
    /// The port's policy did not arrive in time.
    PolicyUnknown,
    /// The control plane's policy is not valid.
    PolicyInvalid,
    /// A rate limit is used up.
    RateLimited,
    /// More requests are in flight than the proxy allows.
    Overloaded,
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
    /// The route's time is over.
    Timeout,
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
    pub const ALL: [Self; 26] = [
        Self::BadRequest,
        Self::HeadersTooLarge,
        Self::RouteNotFound,
        Self::Unauthorized,
        Self::PolicyUnknown,
        Self::PolicyInvalid,
        Self::RateLimited,
        Self::Overloaded,
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
            Self::RouteNotFound => "route_not_found",
            Self::Unauthorized => "unauthorized",
            Self::PolicyUnknown => "policy_unknown",
            Self::PolicyInvalid => "policy_invalid",
            Self::RateLimited => "rate_limited",
            Self::Overloaded => "overloaded",
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
            Self::Unauthorized | Self::PortUndefined | Self::AddressRefused => {
                StatusCode::FORBIDDEN
            }
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::Overloaded | Self::PolicyUnknown | Self::Draining => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::FailFast | Self::NoEndpoints | Self::ConnectTimeout | Self::Timeout => {
                StatusCode::GATEWAY_TIMEOUT
            }
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
            Self::Unauthorized | Self::PortUndefined | Self::AddressRefused => 7,
            Self::HeadersTooLarge | Self::RateLimited => 8,
            Self::FailFast | Self::NoEndpoints | Self::ConnectTimeout | Self::Timeout => 4,
            Self::Loop => 10,
            Self::BackendInvalid | Self::FailureInjected => 9,
            Self::Overloaded
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
                | Self::FailureInjected
                | Self::PortUndefined
        )
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
}

impl Refusal {
    /// A refusal with the status that belongs to its reason.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason,
            message: message.into(),
            status: None,
        }
    }

    /// The HTTP status to answer with.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status.unwrap_or_else(|| self.reason.status())
    }
}

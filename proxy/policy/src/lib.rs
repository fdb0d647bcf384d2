//! What the control plane wants, decided request by request.
//!
//! A message of the control plane is compiled once, into a [`inbound::ServerPolicy`] (whom a
//! port lets in) or a [`outbound::ClientPolicy`] (where traffic goes); every question after
//! that is answered by a walk over what was compiled, without I/O, clock or lock, and for a
//! port or service with the one default route without an allocation. (A limit of requests
//! remembers what was used of it; only a limit for each identity takes a lock.)
//!
//! A message is taken whole or not at all: one element that cannot be understood makes the
//! policy `Invalid`, which refuses everything. Falling back to an older or a partial policy
//! would admit somebody whom the newest one shuts out.
//!
//! The `explain_` methods answer the same questions by the same code and write down each step.
//! They are for people, not for the request path.

mod authorization;
mod backend;
mod endpoint;
mod facts;
mod filters;
pub mod inbound;
mod invalid;
mod matching;
mod meta;
pub mod outbound;
mod rate_limit;
mod table;
mod trace;
mod wire;

pub use authorization::{Grant, Permit};
pub use backend::{
    Backend, BackendKind, Backoff, Distribution, Ewma, FailureAccrual, Penalty, RouteBackend,
};
pub use endpoint::endpoint_from_proto;
pub use facts::Facts;
pub use filters::{
    Answer, FailureInjector, FailureStatus, Filter, HeaderModifier, Mirror, PathModifier, Redirect,
    Rewrite, TcpFilter, apply_request, apply_response, mirrors,
};
pub(crate) use invalid::Invalid;
pub use matching::PathMatched;
pub use meta::Meta;
pub use rate_limit::{Limited, RateLimit, RateLimitOverride};
pub use trace::{Step, Subject, Verdict};

//! HTTP as the proxy speaks it: HTTP/1 by a strict codec of our own over `httparse`, HTTP/2
//! over `h2`, one body type, and the pool of connections to one endpoint.
//!
//! It frames, parses, refuses what is malformed, keeps hop-by-hop headers to their hop, and
//! carries upgrades and CONNECT. It does not route, authorize, balance or count, nor decide
//! about a second try (but for a pooled connection that turned out to be closed).
//!
//! Everything lives on one shard: nothing is `Send`, and tasks are spawned with
//! `spawn_local`.

mod body;
mod drain;
mod error;
pub mod headers;
pub mod http1;
pub mod http2;
mod lease;
mod limit;
mod linger;
pub mod orig_proto;
mod peek;
pub mod pool;
mod refuse;
mod replay;
mod service;

pub use body::{Body, BodyError, End, Observer};
pub use drain::{Drain, DrainSignal, Trigger};
pub use error::{Reset, SendError, ServeError};
pub use limit::{Expired, Forever, Limits, Patience, Timer};
pub use refuse::{Facts, grpc_status, redirect, refuse};
pub use replay::Replay;
pub use service::{Interim, Service};

/// A request, whatever carried it here.
pub type Request = http::Request<Body>;
/// A response, whatever will carry it on.
pub type Response = http::Response<Body>;

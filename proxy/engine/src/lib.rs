//! The policy engine as a Python module: what the proxy decides, for who asks without a proxy.
//!
//! It takes the bytes that a proxy would be sent and answers with what the proxy would do, and
//! why, by the proxy's own code. It decides nothing itself, waits for nothing and permits
//! nothing: a decision is a description. What Python sees of it is in `tulle_engine/engine.pyi`.

mod inbound;
mod outbound;
mod request;
mod resource;

use pyo3::pymodule;

/// The policy engine.
#[pymodule]
mod engine {
    #[pymodule_export]
    use crate::{
        inbound::{RateLimit, ServerDecision, ServerPolicy},
        outbound::{Backend, ClientDecision, ClientPolicy, Retry},
        request::Request,
        resource::{Resource, Step},
    };
}

//! Which endpoint gets the next request, and when to stop waiting for one.
//!
//! Everything here is a decision over values: time and randomness are arguments, nothing waits
//! and nothing is sent. What a shard keeps per endpoint is a [`Load`] and a [`ConnectGate`],
//! and per balancer a [`FailFast`]; they use `Cell`s, because one thread owns them.
//!
//! Whether an endpoint may be picked at all is [`Candidate::ready`]: today that its
//! [`ConnectGate`] is open. A circuit breaker that ejects an endpoint after failed responses
//! closes the same door.

mod backoff;
mod fail_fast;
mod load;
mod pick;

pub use backoff::{Backoff, ConnectGate};
pub use fail_fast::{FailFast, Verdict};
pub use load::Load;
pub use pick::{Candidate, pick};

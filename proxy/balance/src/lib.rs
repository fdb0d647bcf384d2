//! Which endpoint gets the next request, and when to stop waiting for one.
//!
//! Everything here is a decision over values: time and randomness are arguments, nothing waits
//! and nothing is sent. What a shard keeps per endpoint is a [`Load`], a [`ConnectGate`] and,
//! where the policy wants one, a [`Breaker`], and per balancer a [`FailFast`]; they use
//! `Cell`s, because one thread owns them.
//!
//! Whether an endpoint may be picked at all is [`Candidate::ready`]: its [`ConnectGate`] is
//! open, and its [`Breaker`] lets requests through.

mod backoff;
mod breaker;
mod fail_fast;
mod load;
mod pick;

pub use backoff::{Backoff, ConnectGate};
pub use breaker::{Breaker, BreakerState, Outcome, SuccessRate, Trip};
pub use fail_fast::{FailFast, Verdict};
pub use load::Load;
pub use pick::{Candidate, pick};

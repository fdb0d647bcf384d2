//! Gets this proxy its certificate and keeps it, and the roots that it trusts, current.
//!
//! The key never leaves the process: it is made in memory or read from the directory that a
//! launcher has put it into, never written and never logged. What is published to the
//! [`tulle_tls::Store`] has been verified as a peer would verify it; a failure leaves what was
//! there before in force, and is tried again for ever.

mod certify;
mod key;
mod metrics;
mod renewal;
mod trust;

pub use certify::Channel;
pub use key::KeyError;
pub use renewal::{Identity, IdentityError};

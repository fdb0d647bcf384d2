//! Real implementations of the proxy's seams, for tests: a certificate authority and a
//! control plane that lives in the same process.
//!
//! Tests are dialogues: the control plane hands out every call that reaches it, and the test
//! says what is answered and when. There is no clock and no network in it.

mod alone;
mod authority;
mod control_plane;
pub mod messages;

pub use alone::Alone;
pub use authority::Authority;
pub use control_plane::{Asked, ControlPlane, DirectChannel, Subscriber, TrustCall};

//! What the control plane says, kept current and readable from every thread.
//!
//! Streams live on the control runtime; what they say is published as immutable values behind
//! [`View`]s, which the data plane reads with one atomic load. What was learnt stays in force
//! while the control plane is away: a stream's end changes nothing but that another one is
//! opened. This crate decides no request; it says which policy and which endpoints apply.

mod ask;
mod backoff;
mod cache;
mod channel;
mod destination;
mod dial;
mod discovery;
mod endpoints;
mod follow;
mod net_dial;
mod recovery;
mod resolve;
mod settings;
mod view;
mod watches;

pub use channel::{ControlChannel, Leased};
pub use destination::OutboundState;
pub use dial::{Dial, DialError, Dialed, Io};
pub use discovery::{Discovery, EndpointsState, ServerState, identity_channel, side_channel};
pub use endpoints::Endpoints;
pub use net_dial::NetDial;
pub use view::{Publisher, Seen, View, view};

//! Reads the environment once into values that cannot be wrong.
//!
//! The variables are those of the stock proxy (`LINKERD2_PROXY_*`) and a few of ours
//! (`TULLE_PROXY_*`). Every mistake is found in one pass and reported together. This crate
//! opens no file and no socket: whether a token file exists is found where it is read.

mod backoff;
mod config;
mod control;
mod error;
mod h2;
mod identity;
mod inbound;
mod observation;
mod outbound;
mod parse;
mod ports;
mod reader;
mod suffix;
mod workers;

pub use backoff::Backoff;
pub use config::{Config, LogFormat};
pub use control::{ControlAddr, HostPort, StreamLimits};
pub use error::{ConfigErrors, Mistake};
pub use h2::{ClientH2, ServerH2};
pub use identity::Identity;
pub use inbound::Inbound;
pub use observation::{Tap, Trace, attributes};
pub use outbound::Outbound;
pub use parse::duration as parse_duration;
pub use ports::Ports;
pub use suffix::Suffix;
pub use workers::Workers;

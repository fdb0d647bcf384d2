//! Counts what both directions count: connections, requests, responses and refusals, in the
//! stock families. What only one direction knows (authorizations, balancers) is counted there.
//!
//! Labels are formatted when a handle is made. On the request path a handle is found by
//! comparing numbers in a short list and written with a relaxed store.

mod access_log;
mod connection;
mod in_flight;
mod labels;
mod refusals;
mod request;
mod response;

pub use access_log::{AccessLog, Entry, LoggedClient};
pub use connection::{ConnectionMetrics, Counted};
pub use in_flight::{InFlight, Slot};
pub use labels::{client_tls_labels, endpoint_tls_labels, target_labels};
pub use refusals::Refusals;
pub use request::{
    ACTUAL, NO_STATUS, PROFILE, RequestFamily, RequestMetrics, StatusFamily, StatusMetrics,
};
pub use response::{Ended, ResponseFacts};

//! Counts what both directions count: connections, requests and responses, in the stock
//! families. What only one direction knows (authorizations, balancers) is counted there.
//!
//! Labels are formatted when a handle is made. On the request path a handle is found by
//! comparing numbers in a short list and written with a relaxed store.

mod connection;
mod labels;
mod request;
mod response;

pub use connection::{ConnectionMetrics, Counted};
pub use labels::{client_tls_labels, endpoint_tls_labels, target_labels};
pub use request::{NO_STATUS, RequestMetrics, StatusFamily, StatusMetrics};
pub use response::{Ended, ResponseFacts};

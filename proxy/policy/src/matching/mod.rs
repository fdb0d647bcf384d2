//! The conditions of routes, and how closely a request meets them.

mod fields;
mod grpc;
mod host;
mod http;
mod path;

use std::fmt;

pub(crate) use self::{
    grpc::GrpcPattern,
    host::{HostPattern, HostRank},
    http::HttpPattern,
    path::PathPattern,
};
use crate::Facts;

/// Which part of a request's path a rule matched; what a redirect that replaces a prefix needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathMatched {
    /// The whole of it, or it was not looked at.
    Whole,
    /// So many bytes of it.
    Prefix(usize),
}

/// All conditions of one match of a rule.
pub(crate) trait Pattern {
    /// The better of two matches is the greater one.
    type Rank: Ord + Copy;

    /// What a rule without matches makes of every request.
    const ALL: (Self::Rank, PathMatched);

    /// Whether every request meets this.
    fn takes_all(&self) -> bool;

    /// How well a request meets all conditions, or the first that it does not meet.
    fn test(&self, facts: &Facts<'_>) -> Result<(Self::Rank, PathMatched), Mismatch<'_>>;
}

/// The condition that a request does not meet.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mismatch<'a> {
    Path(&'a PathPattern),
    Method(&'a ::http::Method),
    Header(&'a ::http::HeaderName),
    Query(&'a str),
    NotGrpc,
    Rpc(&'a GrpcPattern),
}

impl fmt::Display for Mismatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(pattern) => write!(f, "the path is not {pattern}"),
            Self::Method(method) => write!(f, "the method is not {method}"),
            Self::Header(name) => write!(f, "the header {name} differs or is missing"),
            Self::Query(name) => write!(f, "the query parameter {name} differs or is missing"),
            Self::NotGrpc => f.write_str("it is no gRPC call: POST to /service/method"),
            Self::Rpc(pattern) => write!(f, "the call is not {pattern}"),
        }
    }
}

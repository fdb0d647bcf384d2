use std::fmt;

use http::Method;
use tulle_api::grpc_route;

use super::{Mismatch, PathMatched, Pattern, fields::HeaderPattern};
use crate::{
    Facts, Invalid,
    invalid::{each, required},
};

/// One match of a rule of a gRPC route: all of it has to hold.
#[derive(Clone, Debug)]
pub(crate) struct GrpcPattern {
    /// Empty takes every service.
    service: Box<str>,
    /// Empty takes every method.
    method: Box<str>,
    headers: Box<[HeaderPattern]>,
}

/// Compared from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GrpcRank {
    service: usize,
    method: usize,
    headers: usize,
}

impl GrpcPattern {
    pub(crate) fn new(wire: grpc_route::GrpcRouteMatch) -> Result<Self, Invalid> {
        let rpc = required(wire.rpc, "rpc")?;
        Ok(Self {
            service: rpc.service.into(),
            method: rpc.method.into(),
            headers: each("headers", wire.headers, HeaderPattern::new)?,
        })
    }
}

impl Pattern for GrpcPattern {
    type Rank = GrpcRank;

    const ALL: (GrpcRank, PathMatched) = (
        GrpcRank {
            service: 0,
            method: 0,
            headers: 0,
        },
        PathMatched::Whole,
    );

    /// Even the widest takes gRPC calls only.
    fn takes_all(&self) -> bool {
        false
    }

    fn test(&self, facts: &Facts<'_>) -> Result<(GrpcRank, PathMatched), Mismatch<'_>> {
        let (service, method) = call(facts).ok_or(Mismatch::NotGrpc)?;
        let wanted = |pattern: &str, value: &str| pattern.is_empty() || pattern == value;
        if !wanted(&self.service, service) || !wanted(&self.method, method) {
            return Err(Mismatch::Rpc(self));
        }
        for pattern in &self.headers {
            if !pattern.matches(facts.headers) {
                return Err(Mismatch::Header(&pattern.name));
            }
        }
        let rank = GrpcRank {
            service: self.service.len(),
            method: self.method.len(),
            headers: self.headers.len(),
        };
        Ok((rank, PathMatched::Whole))
    }
}

impl fmt::Display for GrpcPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_any = |name: &str| {
            if name.is_empty() {
                "*".to_owned()
            } else {
                name.to_owned()
            }
        };
        write!(f, "/{}/{}", or_any(&self.service), or_any(&self.method))
    }
}

/// The service and the method of a gRPC call.
fn call<'a>(facts: &Facts<'a>) -> Option<(&'a str, &'a str)> {
    if facts.method != Method::POST {
        return None;
    }
    let (service, method) = facts.uri.path().strip_prefix('/')?.split_once('/')?;
    (!service.is_empty() && !method.is_empty() && !method.contains('/'))
        .then_some((service, method))
}

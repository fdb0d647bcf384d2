use http::Method;
use tulle_api::http_route;

use super::{
    Mismatch, PathMatched, Pattern,
    fields::{HeaderPattern, QueryPattern},
    path::{PathPattern, PathRank},
};
use crate::{
    Facts, Invalid,
    invalid::{At, each},
    wire,
};

/// One match of a rule of an HTTP route: all of it has to hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct HttpPattern {
    path: Option<PathPattern>,
    method: Option<Method>,
    headers: Box<[HeaderPattern]>,
    query: Box<[QueryPattern]>,
}

/// Compared from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HttpRank {
    path: PathRank,
    headers: usize,
    query: usize,
    method: bool,
}

impl HttpPattern {
    pub(crate) fn new(wire: http_route::HttpRouteMatch) -> Result<Self, Invalid> {
        Ok(Self {
            path: wire.path.map(PathPattern::new).transpose().at("path")?,
            method: wire.method.map(wire::method).transpose()?,
            headers: each("headers", wire.headers, HeaderPattern::new)?,
            query: each("query_params", wire.query_params, QueryPattern::new)?,
        })
    }
}

impl Pattern for HttpPattern {
    type Rank = HttpRank;

    const ALL: (HttpRank, PathMatched) = (
        HttpRank {
            path: PathRank::ALL.0,
            headers: 0,
            query: 0,
            method: false,
        },
        PathRank::ALL.1,
    );

    fn takes_all(&self) -> bool {
        self.path.as_ref().is_none_or(PathPattern::takes_all)
            && self.method.is_none()
            && self.headers.is_empty()
            && self.query.is_empty()
    }

    fn test(&self, facts: &Facts<'_>) -> Result<(HttpRank, PathMatched), Mismatch<'_>> {
        if let Some(method) = &self.method
            && method != facts.method
        {
            return Err(Mismatch::Method(method));
        }
        let (path, matched) = match &self.path {
            Some(pattern) => pattern
                .test(facts.uri.path())
                .ok_or(Mismatch::Path(pattern))?,
            None => PathRank::ALL,
        };
        for pattern in &self.headers {
            if !pattern.matches(facts.headers) {
                return Err(Mismatch::Header(&pattern.name));
            }
        }
        for pattern in &self.query {
            if !pattern.matches(facts.uri.query().unwrap_or_default()) {
                return Err(Mismatch::Query(&pattern.name));
            }
        }
        let rank = HttpRank {
            path,
            headers: self.headers.len(),
            query: self.query.len(),
            method: self.method.is_some(),
        };
        Ok((rank, matched))
    }
}

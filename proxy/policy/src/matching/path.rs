use std::fmt;

use regex::Regex;
use tulle_api::http_route;

use crate::{Invalid, invalid::required, matching::PathMatched, wire};

/// The paths that a match is for. Compared byte by byte, escapes included.
#[derive(Clone, Debug)]
pub(crate) enum PathPattern {
    Exact(Box<str>),
    /// Without the slash at the end: a prefix is a number of whole segments.
    Prefix(Box<str>),
    Regex(Regex),
}

/// The better of two matches is the greater one: the longer one; of equally long ones the
/// exact one. An exact match is as long as the path, so no prefix is ever longer: exact comes
/// before prefix, as the Gateway API wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PathRank {
    length: usize,
    exact: bool,
}

impl PathRank {
    /// What a match that names no path makes of every path: a prefix of no segment.
    pub(crate) const ALL: (Self, PathMatched) = (
        Self {
            length: 0,
            exact: false,
        },
        PathMatched::Prefix(0),
    );
}

impl PathPattern {
    pub(crate) fn new(wire: http_route::PathMatch) -> Result<Self, Invalid> {
        use http_route::path_match::Kind;
        Ok(match required(wire.kind, "the kind of the path")? {
            Kind::Exact(path) => Self::Exact(path.into()),
            Kind::Prefix(path) => Self::Prefix(path.strip_suffix('/').unwrap_or(&path).into()),
            Kind::Regex(pattern) => Self::Regex(wire::regex(&pattern)?),
        })
    }

    /// Whether every path matches, also `*` and the empty one of a CONNECT.
    pub(crate) fn takes_all(&self) -> bool {
        matches!(self, Self::Prefix(prefix) if prefix.is_empty())
    }

    pub(crate) fn test(&self, path: &str) -> Option<(PathRank, PathMatched)> {
        match self {
            Self::Exact(exact) => (**exact == *path).then_some((
                PathRank {
                    length: path.len(),
                    exact: true,
                },
                PathMatched::Whole,
            )),
            Self::Prefix(_) if self.takes_all() => Some(PathRank::ALL),
            Self::Prefix(prefix) => {
                let length = prefix.len();
                let rest = path.strip_prefix(&**prefix)?;
                (rest.is_empty() || rest.starts_with('/')).then_some((
                    PathRank {
                        length,
                        exact: false,
                    },
                    PathMatched::Prefix(length),
                ))
            }
            Self::Regex(regex) => regex.is_match(path).then_some((
                PathRank {
                    length: path.len(),
                    exact: false,
                },
                PathMatched::Whole,
            )),
        }
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(path) => write!(f, "exactly {path}"),
            Self::Prefix(path) => write!(f, "{path} or below"),
            Self::Regex(regex) => {
                // As it was written, without what anchors it.
                let whole = regex.as_str();
                let inner = whole
                    .strip_prefix("^(?:")
                    .and_then(|rest| rest.strip_suffix(")$"));
                write!(f, "of the form {}", inner.unwrap_or(whole))
            }
        }
    }
}

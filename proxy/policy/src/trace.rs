//! How a decision came about, for people.
//!
//! Deciding and explaining run the same code: what decides reports each step to a `Trace`, and
//! on the request path that is [`Silent`], which the compiler removes.

use std::{fmt, sync::Arc};

use crate::Meta;

/// What a step of a decision came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It applies.
    Matched,
    /// It does not apply.
    Skipped,
    /// The decision: yes.
    Allowed,
    /// The decision: no.
    Refused,
}

impl Verdict {
    /// The verdict as a word.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Matched => "matched",
            Self::Skipped => "skipped",
            Self::Allowed => "allowed",
            Self::Refused => "refused",
        }
    }
}

/// What a step looked at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A route as a whole.
    Route(Arc<Meta>),
    /// A rule of a route, by its place.
    Rule(Arc<Meta>, usize),
    /// An authorization.
    Authorization(Arc<Meta>),
    /// All routes.
    Routes,
    /// All authorizations.
    Authorizations,
    /// The whole policy.
    Policy,
}

impl Subject {
    /// The object that it is, or is a part of.
    #[must_use]
    pub const fn meta(&self) -> Option<&Arc<Meta>> {
        match self {
            Self::Route(meta) | Self::Rule(meta, _) | Self::Authorization(meta) => Some(meta),
            Self::Routes | Self::Authorizations | Self::Policy => None,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Route(meta) => write!(f, "route {meta}"),
            Self::Rule(meta, index) => write!(f, "route {meta} rule {index}"),
            Self::Authorization(meta) => write!(f, "authorization {meta}"),
            Self::Routes => f.write_str("routes"),
            Self::Authorizations => f.write_str("authorizations"),
            Self::Policy => f.write_str("policy"),
        }
    }
}

/// One step of a decision.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Step {
    /// What was looked at.
    pub subject: Subject,
    /// What came of it.
    pub verdict: Verdict,
    /// The reason, in words.
    pub why: String,
}

pub(crate) trait Trace {
    /// Whether anybody reads the steps; what is only said and decides nothing asks first.
    const READ: bool;

    fn step(&mut self, verdict: Verdict, subject: impl FnOnce() -> Subject, why: impl fmt::Display);
}

pub(crate) struct Silent;

impl Trace for Silent {
    const READ: bool = false;

    #[inline]
    fn step(
        &mut self,
        _verdict: Verdict,
        _subject: impl FnOnce() -> Subject,
        _why: impl fmt::Display,
    ) {
    }
}

impl Trace for Vec<Step> {
    const READ: bool = true;

    /// Write a step down. A rule that matches more closely takes the place of the one before.
    fn step(
        &mut self,
        verdict: Verdict,
        subject: impl FnOnce() -> Subject,
        why: impl fmt::Display,
    ) {
        let subject = subject();
        if verdict == Verdict::Matched {
            for beaten in self
                .iter_mut()
                .filter(|step| step.verdict == Verdict::Matched)
            {
                beaten.verdict = Verdict::Skipped;
                beaten.why = format!("it matches, but {subject} matches more closely");
            }
        }
        self.push(Step {
            subject,
            verdict,
            why: why.to_string(),
        });
    }
}

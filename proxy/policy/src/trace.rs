//! How a decision came about, for people.
//!
//! Deciding and explaining run the same code: what decides reports each step to a `Trace`, and
//! on the request path that is [`Silent`], which the compiler removes.

use std::fmt;

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

/// One step of a decision.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Step {
    /// What was looked at, such as an authorization or a rule of a route.
    pub what: String,
    /// What came of it.
    pub verdict: Verdict,
    /// The reason, in words.
    pub why: String,
}

pub(crate) trait Trace {
    fn step(&mut self, verdict: Verdict, what: impl fmt::Display, why: impl fmt::Display);
}

pub(crate) struct Silent;

impl Trace for Silent {
    #[inline]
    fn step(&mut self, _verdict: Verdict, _what: impl fmt::Display, _why: impl fmt::Display) {}
}

impl Trace for Vec<Step> {
    fn step(&mut self, verdict: Verdict, what: impl fmt::Display, why: impl fmt::Display) {
        self.push(Step {
            what: what.to_string(),
            verdict,
            why: why.to_string(),
        });
    }
}

//! Which rule of a list of routes a request belongs to.
//!
//! The best host comes first, then the best match of a rule; of equally good ones the first in
//! the list, which the control plane has ordered by age. A route whose host matches but none
//! of whose rules does leaves the request to routes for less specific hosts.

use std::{fmt, sync::Arc};

use crate::{
    Facts, Meta,
    matching::{HostPattern, HostRank, PathMatched, Pattern},
    trace::{Subject, Trace, Verdict},
};

/// All routes, each rule with what the owner of the table keeps for it.
#[derive(Clone, Debug)]
pub(crate) struct Table<P, T> {
    routes: Box<[Entry<P, T>]>,
    /// There is one rule and it takes every request: nothing is left to compare.
    single: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Entry<P, T> {
    pub(crate) meta: Arc<Meta>,
    pub(crate) hosts: Box<[HostPattern]>,
    pub(crate) rules: Box<[Candidate<P, T>]>,
}

#[derive(Clone, Debug)]
pub(crate) struct Candidate<P, T> {
    /// None means all requests.
    pub(crate) matches: Box<[P]>,
    pub(crate) value: T,
}

/// The best match so far: how good it is, what it matched and what it is worth.
type Best<'t, P, T> = Option<((HostRank, <P as Pattern>::Rank), PathMatched, &'t T)>;

impl<P: Pattern, T> Table<P, T> {
    pub(crate) fn new(routes: Box<[Entry<P, T>]>) -> Self {
        let single = match &*routes {
            [Entry { hosts, rules, .. }] => match &**rules {
                [rule] => {
                    hosts.is_empty()
                        && (rule.matches.is_empty() || rule.matches.iter().all(P::takes_all))
                }
                _ => false,
            },
            _ => false,
        };
        Self { routes, single }
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.routes
            .iter()
            .flat_map(|route| &route.rules)
            .map(|rule| &rule.value)
    }

    pub(crate) fn find(
        &self,
        facts: &Facts<'_>,
        trace: &mut impl Trace,
    ) -> Option<(&T, PathMatched)> {
        if self.single
            && let [Entry { meta, rules, .. }] = &*self.routes
            && let [rule] = &**rules
        {
            trace.step(
                Verdict::Matched,
                || Subject::Rule(meta.clone(), 0),
                "the only route takes every request",
            );
            return Some((&rule.value, P::ALL.1));
        }
        self.compare(facts, trace)
    }

    fn compare(&self, facts: &Facts<'_>, trace: &mut impl Trace) -> Option<(&T, PathMatched)> {
        let mut best: Best<'_, P, T> = None;
        let host = facts.host();
        for route in &self.routes {
            let Some(host_rank) = HostPattern::best(&route.hosts, host) else {
                trace.step(
                    Verdict::Skipped,
                    || Subject::Route(route.meta.clone()),
                    OtherHost(&route.hosts, host),
                );
                continue;
            };
            for (index, rule) in route.rules.iter().enumerate() {
                let place = || Subject::Rule(route.meta.clone(), index);
                let Some((rank, matched)) = rule.best(facts) else {
                    rule.say_why_not(facts, place, trace);
                    continue;
                };
                let rank = (host_rank, rank);
                if best.is_none_or(|(better, ..)| rank > better) {
                    trace.step(Verdict::Matched, place, "it matches best");
                    best = Some((rank, matched, &rule.value));
                } else {
                    trace.step(
                        Verdict::Skipped,
                        place,
                        "it matches, but an earlier match is as close or closer",
                    );
                }
            }
        }
        best.map(|(_, matched, value)| (value, matched))
    }
}

impl<P: Pattern, T> Candidate<P, T> {
    fn best(&self, facts: &Facts<'_>) -> Option<(P::Rank, PathMatched)> {
        if self.matches.is_empty() {
            return Some(P::ALL);
        }
        let found = self.matches.iter().filter_map(|each| each.test(facts).ok());
        // The first of equally good ones.
        found.reduce(|best, other| if other.0 > best.0 { other } else { best })
    }

    fn say_why_not<T2: Trace>(
        &self,
        facts: &Facts<'_>,
        place: impl FnOnce() -> Subject,
        trace: &mut T2,
    ) {
        if T2::READ {
            let tests = self.matches.iter().map(|each| each.test(facts));
            let reasons: Vec<_> = tests
                .filter_map(Result::err)
                .map(|mismatch| mismatch.to_string())
                .collect();
            trace.step(Verdict::Skipped, place, reasons.join(", and "));
        }
    }
}

/// The hosts of a route, and the one of a request that is none of them.
pub(crate) struct OtherHost<'a>(pub(crate) &'a [HostPattern], pub(crate) Option<&'a str>);

impl fmt::Display for OtherHost<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Some(host) => write!(f, "the host {host} is none of")?,
            None => f.write_str("the request names no host; the route is for")?,
        }
        for (index, pattern) in self.0.iter().enumerate() {
            let separator = if index == 0 { " " } else { ", " };
            write!(f, "{separator}{pattern}")?;
        }
        Ok(())
    }
}

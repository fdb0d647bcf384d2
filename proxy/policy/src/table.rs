//! Which rule of a list of routes a request belongs to.
//!
//! The best host comes first, then the best match of a rule; of equally good ones the first in
//! the list, which the control plane has ordered by age. A route whose host matches but none
//! of whose rules does leaves the request to routes for less specific hosts.

use std::{fmt, sync::Arc};

use crate::{
    Facts, Meta,
    matching::{HostPattern, HostRank, PathMatched, Pattern},
    trace::{Trace, Verdict},
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
                Place(meta, 0),
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
                trace.step(Verdict::Skipped, &route.meta, OtherHost(&route.hosts, host));
                continue;
            };
            for (index, rule) in route.rules.iter().enumerate() {
                let place = Place(&route.meta, index);
                let Some((rank, matched)) = rule.best(facts, &place, trace) else {
                    continue;
                };
                let rank = (host_rank, rank);
                if best.is_none_or(|(better, ..)| rank > better) {
                    trace.step(Verdict::Matched, &place, "the best match so far");
                    best = Some((rank, matched, &rule.value));
                } else {
                    trace.step(
                        Verdict::Skipped,
                        &place,
                        "an earlier match is as good or better",
                    );
                }
            }
        }
        best.map(|(_, matched, value)| (value, matched))
    }
}

impl<P: Pattern, T> Candidate<P, T> {
    fn best(
        &self,
        facts: &Facts<'_>,
        place: &Place<'_>,
        trace: &mut impl Trace,
    ) -> Option<(P::Rank, PathMatched)> {
        if self.matches.is_empty() {
            return Some(P::ALL);
        }
        let mut best: Option<(P::Rank, PathMatched)> = None;
        for pattern in &self.matches {
            match pattern.test(facts) {
                Ok(found) if best.is_none_or(|(better, _)| found.0 > better) => best = Some(found),
                Ok(_) => {}
                Err(mismatch) => trace.step(Verdict::Skipped, place, mismatch),
            }
        }
        best
    }
}

struct Place<'a>(&'a Meta, usize);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "route {} rule {}", self.0, self.1)
    }
}

struct OtherHost<'a>(&'a [HostPattern], Option<&'a str>);

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

//! What the route, and where it allows that the request's own header, say about tries and
//! times.
//!
//! A header field that makes no sense is ignored, as the stock proxy does: it must not be
//! possible to fail a request by a typing error in what only asks for comfort. All of them
//! are removed in any case, since nobody behind this proxy is meant by them.

use std::{borrow::Cow, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;
use tulle_config::parse_duration;
use tulle_http::Limits;
use tulle_policy::outbound::{Retry, Rule, Timeouts};

/// Tries that a header asks for beyond this are not made.
const MAX_RETRIES: u32 = 100;

/// A longer body is not kept, where nothing else is said.
pub(crate) const MAX_REQUEST_BYTES: usize = 64 * 1024;

const TIMEOUT: HeaderName = HeaderName::from_static("l5d-timeout");
const REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("l5d-request-timeout");
const RESPONSE_TIMEOUT: HeaderName = HeaderName::from_static("l5d-response-timeout");
const RETRY_HTTP: HeaderName = HeaderName::from_static("l5d-retry-http");
const RETRY_GRPC: HeaderName = HeaderName::from_static("l5d-retry-grpc");
const RETRY_LIMIT: HeaderName = HeaderName::from_static("l5d-retry-limit");
const RETRY_TIMEOUT: HeaderName = HeaderName::from_static("l5d-retry-timeout");

/// What is done for one request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan<'a> {
    pub(crate) retry: Option<Cow<'a, Retry>>,
    pub(crate) timeouts: Timeouts,
    /// What was provably not processed is tried once more.
    pub(crate) default_retry: bool,
}

impl<'a> Plan<'a> {
    /// Read the rule, and take out of the header what belongs to it.
    pub(crate) fn new(rule: &'a Rule, headers: &mut HeaderMap) -> Self {
        let mut plan = Self {
            retry: rule.retry.as_ref().map(Cow::Borrowed),
            timeouts: rule.timeouts,
            default_retry: rule.default_retry,
        };
        if rule.allow_l5d_request_headers {
            plan.take(headers);
        }
        plan
    }

    /// How often a request may be tried again.
    pub(crate) fn retries(&self) -> u32 {
        match &self.retry {
            Some(retry) => retry.max_retries,
            None => self.default_retry.into(),
        }
    }

    /// How much of a body is kept for that.
    pub(crate) fn max_request_bytes(&self) -> usize {
        match &self.retry {
            _ if self.retries() == 0 => 0,
            Some(retry) => retry.max_request_bytes,
            None => MAX_REQUEST_BYTES,
        }
    }

    /// How long one try may take that begins now. What is tried again at most is not waited
    /// for as long as the last try is.
    pub(crate) fn limits(&self, arrived: Instant, may_retry: bool) -> Limits {
        let Timeouts {
            response,
            request,
            idle,
            backend_request,
        } = self.timeouts;
        let retry = self.retry.as_ref().filter(|_| may_retry);
        Limits {
            request: request.map(|limit| (arrived, limit)),
            attempt: backend_request.map(|limit| (Instant::now(), limit)),
            response,
            head: retry.and_then(|retry| retry.timeout),
            idle,
        }
    }

    fn take(&mut self, headers: &mut HeaderMap) {
        let mut timeout = |name: &HeaderName, limit: &mut Option<Duration>| {
            if let Some(asked) = taken(headers, name, |text| parse_duration(text).ok()) {
                *limit = Some(asked).filter(|limit| !limit.is_zero());
            }
        };
        timeout(&TIMEOUT, &mut self.timeouts.request);
        timeout(&REQUEST_TIMEOUT, &mut self.timeouts.request);
        timeout(&RESPONSE_TIMEOUT, &mut self.timeouts.response);
        let statuses = taken(headers, &RETRY_HTTP, statuses);
        let codes = taken(headers, &RETRY_GRPC, grpc_codes);
        let limit = taken(headers, &RETRY_LIMIT, |text| text.parse::<u32>().ok());
        let timeout = taken(headers, &RETRY_TIMEOUT, |text| parse_duration(text).ok());
        if statuses.is_none() && codes.is_none() && limit.is_none() && timeout.is_none() {
            return;
        }
        let retry = self.retry.get_or_insert_with(|| {
            Cow::Owned(Retry {
                max_retries: 1,
                max_request_bytes: MAX_REQUEST_BYTES,
                statuses: Box::default(),
                grpc_codes: Box::default(),
                timeout: None,
                backoff: None,
            })
        });
        let retry = retry.to_mut();
        if let Some(statuses) = statuses {
            retry.statuses = statuses;
        }
        if let Some(codes) = codes {
            retry.grpc_codes = codes;
        }
        if let Some(limit) = limit {
            retry.max_retries = limit.min(MAX_RETRIES);
        }
        if let Some(timeout) = timeout {
            retry.timeout = Some(timeout).filter(|timeout| !timeout.is_zero());
        }
    }
}

/// Remove a field and understand it, if it can be.
fn taken<T>(
    headers: &mut HeaderMap,
    name: &HeaderName,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Option<T> {
    let value = headers.remove(name)?;
    let text = HeaderValue::to_str(&value).ok().map(str::trim);
    let parsed = text.and_then(parse);
    if parsed.is_none() {
        tracing::debug!(%name, ?value, "header field not understood");
    }
    parsed
}

/// `5xx`, `gateway-error`, `NNN` and `NNN-NNN`, by commas.
fn statuses(text: &str) -> Option<Box<[(u16, u16)]>> {
    let status = |text: &str| {
        let status = text.parse().ok();
        status.filter(|status| text.len() == 3 && (100..=599).contains(status))
    };
    list(text, |item| match item {
        "5xx" => Some((500, 599)),
        "gateway-error" => Some((502, 504)),
        _ => {
            let (start, end) = item.split_once('-').unwrap_or((item, item));
            let range = (status(start)?, status(end)?);
            (range.0 <= range.1).then_some(range)
        }
    })
}

fn grpc_codes(text: &str) -> Option<Box<[u16]>> {
    list(text, |item| match item {
        "cancelled" => Some(1),
        "deadline-exceeded" => Some(4),
        "resource-exhausted" => Some(8),
        "internal" => Some(13),
        "unavailable" => Some(14),
        _ => None,
    })
}

fn list<T>(text: &str, parse: impl Fn(&str) -> Option<T>) -> Option<Box<[T]>> {
    text.split(',').map(|item| parse(item.trim())).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tulle_policy::{Distribution, Filter, Meta};

    use super::*;

    fn rule(allow: bool) -> Rule {
        Rule {
            meta: Meta::default_named("r").into(),
            filters: Box::default(),
            distribution: Distribution::<Filter>::Empty,
            timeouts: Timeouts {
                request: Some(Duration::from_secs(1)),
                ..Timeouts::default()
            },
            retry: None,
            default_retry: true,
            allow_l5d_request_headers: allow,
            mirrors: false,
        }
    }

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| {
                let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
                (HeaderName::from_static(name), value)
            })
            .collect()
    }

    #[test]
    fn the_header_decides_where_the_rule_allows_it_and_does_not_travel_on() {
        let rule = rule(true);
        let mut headers = headers(&[
            ("l5d-timeout", "10s"),
            ("l5d-response-timeout", "300ms"),
            ("l5d-retry-http", "gateway-error, 429,500-501"),
            ("l5d-retry-grpc", "unavailable,internal"),
            ("l5d-retry-limit", "4000000000"),
            ("l5d-retry-timeout", "2s"),
            ("x", "y"),
        ]);

        let plan = Plan::new(&rule, &mut headers);

        assert_eq!(headers.keys().collect::<Vec<_>>(), ["x"]);
        assert_eq!(plan.timeouts.request, Some(Duration::from_secs(10)));
        assert_eq!(plan.timeouts.response, Some(Duration::from_millis(300)));
        let retry = plan.retry.unwrap().into_owned();
        let expected = Retry {
            max_retries: MAX_RETRIES,
            max_request_bytes: 65_536,
            statuses: Box::new([(502, 504), (429, 429), (500, 501)]),
            grpc_codes: Box::new([14, 13]),
            timeout: Some(Duration::from_secs(2)),
            backoff: None,
        };
        assert_eq!(retry, expected);
    }

    #[test]
    fn the_limit_is_one_where_only_a_condition_is_named() {
        let rule = rule(true);
        let mut headers = headers(&[("l5d-retry-http", "5xx")]);

        let plan = Plan::new(&rule, &mut headers);

        assert_eq!(plan.retries(), 1);
        assert_eq!(*plan.retry.unwrap().statuses, [(500, 599)]);
    }

    #[test]
    fn the_header_says_nothing_where_the_rule_does_not_allow_it() {
        let rule = rule(false);
        let mut headers = headers(&[("l5d-timeout", "10s"), ("l5d-retry-http", "5xx")]);

        let plan = Plan::new(&rule, &mut headers);

        assert_eq!(headers.len(), 2);
        assert_eq!(plan.timeouts, rule.timeouts);
        assert_eq!(plan.retry, None);
    }

    #[test]
    fn a_field_that_makes_no_sense_is_removed_and_ignored() {
        for (name, value) in [
            ("l5d-timeout", "soon"),
            ("l5d-timeout", "-1s"),
            ("l5d-timeout", "99999999999999999999s"),
            ("l5d-retry-http", "5xx,"),
            ("l5d-retry-http", "599-500"),
            ("l5d-retry-http", "0-999"),
            ("l5d-retry-http", "+50"),
            ("l5d-retry-grpc", "ok"),
            ("l5d-retry-limit", "-1"),
            ("l5d-retry-timeout", ""),
            ("l5d-retry-limit", "\u{e9}"),
        ] {
            let rule = rule(true);
            let mut headers = headers(&[(name, value)]);

            let plan = Plan::new(&rule, &mut headers);

            assert!(headers.is_empty(), "{name}: {value}");
            assert_eq!(plan.timeouts, rule.timeouts, "{name}: {value}");
            assert_eq!(plan.retry, None, "{name}: {value}");
        }
    }

    proptest! {
        #[test]
        fn whatever_an_application_writes_the_plan_stays_within_bounds(
            values in proptest::collection::vec("(([0-9]{1,22})?(ms|s|m|h|d|xx)?|[ -~]{0,40})(,[0-9x-]{0,8})?", 7),
        ) {
            let rule = rule(true);
            let names = [
                TIMEOUT, REQUEST_TIMEOUT, RESPONSE_TIMEOUT, RETRY_HTTP, RETRY_GRPC, RETRY_LIMIT,
                RETRY_TIMEOUT,
            ];
            let mut headers: HeaderMap = names
                .into_iter()
                .zip(values)
                .map(|(name, value)| (name, HeaderValue::try_from(value).unwrap()))
                .collect();

            let plan = Plan::new(&rule, &mut headers);

            prop_assert!(headers.is_empty());
            prop_assert!(plan.retries() <= MAX_RETRIES);
            prop_assert_eq!(plan.max_request_bytes(), if plan.retries() == 0 { 0 } else { MAX_REQUEST_BYTES });
            prop_assert!(plan.timeouts.request.is_none_or(|limit| !limit.is_zero()));
            for (start, end) in plan.retry.iter().flat_map(|retry| &retry.statuses) {
                prop_assert!(100 <= *start && start <= end && *end <= 599);
            }
        }
    }
}

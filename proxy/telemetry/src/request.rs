use std::{cell::RefCell, time::Duration};

use tulle_metrics::{Counter, Histogram, Labels, Registry};

use crate::Ended;

/// Bounds of `response_latency_ms`, the stock proxy's.
const LATENCY_MS: &[f64] = &[
    1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 100.0, 200.0, 300.0, 400.0, 500.0,
    1000.0, 2000.0, 3000.0, 4000.0, 5000.0, 10000.0, 20000.0, 30000.0, 40000.0, 50000.0,
];

/// The names of a family that counts requests.
#[derive(Debug)]
pub struct RequestFamily {
    requests: &'static str,
    responses: &'static str,
    latency: Option<&'static str>,
}

const REQUEST: RequestFamily = RequestFamily {
    requests: "request",
    responses: "response",
    latency: Some("response_latency_ms"),
};

/// Of the routes of service profiles.
pub const PROFILE: RequestFamily = RequestFamily {
    requests: "route_request",
    responses: "route_response",
    latency: Some("route_response_latency_ms"),
};

/// Of those, each try by itself.
pub const ACTUAL: RequestFamily = RequestFamily {
    requests: "route_actual_request",
    responses: "route_actual_response",
    latency: None,
};

/// `request_total`, `response_total` and `response_latency_ms` for one set of labels, or what
/// else the family is called.
#[derive(Debug)]
pub struct RequestMetrics {
    registry: Registry,
    family: &'static RequestFamily,
    labels: Labels,
    requests: Counter,
    outcomes: RefCell<Vec<Outcome>>,
}

#[derive(Debug)]
struct Outcome {
    ended: Ended,
    responses: Counter,
    latency: Option<Histogram>,
}

impl RequestMetrics {
    /// Register the families.
    #[must_use]
    pub fn new(registry: &Registry, labels: Labels) -> Self {
        Self::of(&REQUEST, registry, labels)
    }

    /// Register another family of the same shape.
    #[must_use]
    pub fn of(family: &'static RequestFamily, registry: &Registry, labels: Labels) -> Self {
        Self {
            requests: registry.counter(family.requests, "Requests.", &labels),
            registry: registry.clone(),
            family,
            labels,
            outcomes: RefCell::new(Vec::new()),
        }
    }

    /// Count a request that begins.
    pub fn begin(&self) {
        self.requests.inc();
    }

    /// Count a response that has ended; `latency` is from the request's arrival to the
    /// first data of the response.
    pub fn end(&self, ended: Ended, latency: Duration) {
        let mut outcomes = self.outcomes.borrow_mut();
        let known = outcomes.iter().position(|outcome| outcome.ended == ended);
        let index = known.unwrap_or_else(|| {
            outcomes.push(self.outcome(ended));
            outcomes.len() - 1
        });
        outcomes[index].responses.inc();
        if let Some(histogram) = &outcomes[index].latency {
            histogram.observe(latency.as_secs_f64() * 1000.0);
        }
    }

    /// There are few: a status that a peer makes up is still one of at most a thousand.
    fn outcome(&self, ended: Ended) -> Outcome {
        let labels = self.labels.with("status_code", &ended.status.to_string());
        let grpc = ended
            .grpc_status
            .map_or_else(String::new, |code| code.to_string());
        let classification = if ended.failure { "failure" } else { "success" };
        let total = labels
            .with("classification", classification)
            .with("grpc_status", &grpc)
            .with("error", ended.error);
        Outcome {
            ended,
            responses: self
                .registry
                .counter(self.family.responses, "Responses.", &total),
            latency: self.family.latency.map(|name| {
                self.registry.histogram(
                    name,
                    "Milliseconds from a request's arrival to the first data of its response.",
                    LATENCY_MS,
                    &labels,
                )
            }),
        }
    }
}

/// The names of a family that counts statuses by route.
#[derive(Debug)]
pub struct StatusFamily {
    /// Without `_total`.
    pub statuses: &'static str,
    /// In seconds.
    pub duration: &'static str,
    /// Bounds of the duration in seconds.
    pub bounds: &'static [f64],
    /// Requests, without `_total`, where the family counts them.
    pub requests: Option<&'static str>,
    /// `http_status`, `grpc_status` or `status`.
    pub status_label: &'static str,
    /// Whether the statuses are gRPC's.
    pub grpc: bool,
    /// Whether the family has a label `error`.
    pub error_label: bool,
}

/// One route's statuses and durations.
#[derive(Debug)]
pub struct StatusMetrics {
    registry: Registry,
    labels: Labels,
    family: &'static StatusFamily,
    requests: Option<Counter>,
    duration: Histogram,
    statuses: RefCell<Vec<(Ended, Counter)>>,
}

impl StatusMetrics {
    /// Register the family.
    #[must_use]
    pub fn new(registry: &Registry, family: &'static StatusFamily, labels: Labels) -> Self {
        let requests = family
            .requests
            .map(|name| registry.counter(name, "Requests.", &labels));
        Self {
            requests,
            duration: registry.histogram(
                family.duration,
                "Seconds to the end of the response.",
                family.bounds,
                &labels,
            ),
            registry: registry.clone(),
            family,
            labels,
            statuses: RefCell::new(Vec::new()),
        }
    }

    /// Count a request that begins.
    pub fn begin(&self) {
        if let Some(requests) = &self.requests {
            requests.inc();
        }
    }

    /// Count a response that has ended.
    pub fn end(&self, ended: Ended, duration: Duration) {
        self.duration.observe(duration.as_secs_f64());
        let mut statuses = self.statuses.borrow_mut();
        if let Some((_, counter)) = statuses.iter().find(|(known, _)| *known == ended) {
            counter.inc();
            return;
        }
        let counter = self.counter(ended);
        counter.inc();
        statuses.push((ended, counter));
    }

    fn counter(&self, ended: Ended) -> Counter {
        let status = match ended.grpc_status {
            // A name outbound and a number inbound, as the stock proxy has it.
            code if self.family.grpc && self.family.status_label == "grpc_status" => {
                code.map_or("UNKNOWN", grpc_name).to_owned()
            }
            code if self.family.grpc => code.map_or_else(String::new, |code| code.to_string()),
            _ if ended.status == NO_STATUS => String::new(),
            _ => ended.status.to_string(),
        };
        let mut labels = self.labels.with(self.family.status_label, &status);
        if self.family.error_label {
            labels = labels.with("error", ended.error);
        }
        self.registry
            .counter(self.family.statuses, "Responses by status.", &labels)
    }
}

/// Of a request that got no response.
pub const NO_STATUS: u16 = 0;

/// The canonical name of a gRPC code.
const fn grpc_name(code: u16) -> &'static str {
    match code {
        0 => "OK",
        1 => "CANCELLED",
        3 => "INVALID_ARGUMENT",
        4 => "DEADLINE_EXCEEDED",
        5 => "NOT_FOUND",
        6 => "ALREADY_EXISTS",
        7 => "PERMISSION_DENIED",
        8 => "RESOURCE_EXHAUSTED",
        9 => "FAILED_PRECONDITION",
        10 => "ABORTED",
        11 => "OUT_OF_RANGE",
        12 => "UNIMPLEMENTED",
        13 => "INTERNAL",
        14 => "UNAVAILABLE",
        15 => "DATA_LOSS",
        16 => "UNAUTHENTICATED",
        _ => "UNKNOWN",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRPC: StatusFamily = StatusFamily {
        statuses: "statuses",
        duration: "seconds",
        bounds: &[1.0],
        requests: None,
        status_label: "grpc_status",
        grpc: true,
        error_label: true,
    };

    #[test]
    fn a_grpc_stream_without_a_status_is_unknown_whatever_http_says() {
        let registry = Registry::new();
        let metrics = StatusMetrics::new(&registry, &GRPC, Labels::none());
        let ended = Ended {
            status: 200,
            grpc_status: None,
            failure: false,
            error: "CANCEL",
        };

        metrics.end(ended, Duration::ZERO);

        let line = r#"statuses_total{error="CANCEL",grpc_status="UNKNOWN"} 1"#;
        assert!(registry.render().contains(line), "{}", registry.render());
    }
}

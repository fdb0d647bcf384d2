//! Numbers of connections: by protocol, by what detection found, by the route of those that
//! are balanced as a whole.

use std::{cell::RefCell, net::SocketAddr, rc::Rc, time::Duration};

use tulle_metrics::{Counter, Histogram, Labels, Registry};
use tulle_policy::{Meta, outbound::Protocol};

use crate::{balancer::Traffic, labels::meta_labels};

/// Bounds of how long detection takes, the stock proxy's.
const DETECT_SECONDS: &[f64] = &[0.001, 0.1];

/// Numbers of the connections to one destination.
pub(crate) struct ProtocolConnections {
    registry: Registry,
    parent: Labels,
    accepted: Counter,
    detected: RefCell<Vec<(&'static str, Counter)>>,
    took: Option<Histogram>,
}

impl ProtocolConnections {
    pub(crate) fn new(registry: &Registry, parent: Labels, protocol: &Protocol) -> Self {
        let name = match protocol {
            Protocol::Detect { .. } => "detect",
            Protocol::Http1(_) => "http/1",
            Protocol::Http2(_) | Protocol::Grpc(_) => "http/2",
            Protocol::Opaque(_) | Protocol::Invalid(_) => "opaq",
            Protocol::Tls(_) => "tls",
        };
        Self {
            accepted: registry.counter(
                "outbound_tcp_protocol_connections",
                "Connections by what the policy says of their protocol.",
                &parent.with("protocol", name),
            ),
            took: matches!(protocol, Protocol::Detect { .. }).then(|| {
                registry.histogram(
                    "outbound_tcp_detect_http_duration_seconds",
                    "Seconds until it was known what a client speaks.",
                    DETECT_SECONDS,
                    &parent,
                )
            }),
            detected: RefCell::default(),
            registry: registry.clone(),
            parent,
        }
    }

    pub(crate) fn accepted(&self) {
        self.accepted.inc();
    }

    /// `result` is one of `http/1`, `http/2`, `not_http`, `read_timeout` and `error`.
    pub(crate) fn detected(&self, result: &'static str, took: Duration) {
        if let Some(histogram) = &self.took {
            histogram.observe(took.as_secs_f64());
        }
        counted(&self.detected, result, || {
            self.registry.counter(
                "outbound_tcp_detect_http_results",
                "What clients were found to speak.",
                &self.parent.with("result", result),
            )
        });
    }
}

/// Numbers of one route's connections.
pub(crate) struct RouteConnections {
    registry: Registry,
    labels: Labels,
    name: &'static str,
    opened: Counter,
    closed: RefCell<Vec<(&'static str, Counter)>>,
}

impl RouteConnections {
    pub(crate) fn new(
        registry: &Registry,
        parent: &Labels,
        traffic: Traffic,
        route: &Meta,
        target: SocketAddr,
        sni: Option<&str>,
    ) -> Self {
        let labels = parent.and(&meta_labels("route", route));
        let (opened, closed, labels) = if traffic == Traffic::Tls {
            let names = ("outbound_tls_route_open", "outbound_tls_route_close");
            (
                names.0,
                names.1,
                labels.with("hostname", sni.unwrap_or_default()),
            )
        } else {
            let labels = labels
                .with("target_ip", &target.ip().to_string())
                .with("target_port", &target.port().to_string());
            (
                "outbound_tcp_route_open",
                "outbound_tcp_route_close",
                labels,
            )
        };
        Self {
            opened: registry.counter(opened, "Connections that the route took.", &labels),
            closed: RefCell::default(),
            registry: registry.clone(),
            labels,
            name: closed,
        }
    }

    /// The route takes a connection.
    pub(crate) fn open(self: &Rc<Self>) -> RouteConnection {
        self.opened.inc();
        RouteConnection {
            route: self.clone(),
            error: "",
        }
    }

    fn closed(&self, error: &'static str) {
        counted(&self.closed, error, || {
            let labels = self.labels.with("error", error);
            let help = "Connections of the route that ended.";
            self.registry.counter(self.name, help, &labels)
        });
    }
}

/// One connection of a route, counted as closed when it is dropped.
pub(crate) struct RouteConnection {
    route: Rc<RouteConnections>,
    error: &'static str,
}

impl RouteConnection {
    /// It could not be connected.
    pub(crate) fn fail(&mut self, error: &'static str) {
        self.error = error;
    }
}

impl Drop for RouteConnection {
    fn drop(&mut self) {
        self.route.closed(self.error);
    }
}

/// Count one of few kinds.
fn counted(
    kinds: &RefCell<Vec<(&'static str, Counter)>>,
    kind: &'static str,
    counter: impl FnOnce() -> Counter,
) {
    let mut kinds = kinds.borrow_mut();
    let known = kinds.iter().position(|(known, _)| *known == kind);
    let index = known.unwrap_or_else(|| {
        kinds.push((kind, counter()));
        kinds.len() - 1
    });
    kinds[index].1.inc();
}

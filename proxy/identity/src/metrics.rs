use std::time::SystemTime;

use tulle_metrics::{Counter, Gauge, Labels, Registry};

/// What is counted about this proxy's certificate.
pub(crate) struct Metrics {
    expires: Gauge,
    refreshed: Gauge,
    succeeded: Counter,
    failed: Counter,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        let refreshes = |result| {
            registry.counter(
                "control_identity_cert_refreshes",
                "Attempts to renew this proxy's certificate",
                &Labels::none().with("result", result),
            )
        };
        Self {
            expires: registry.gauge(
                "control_identity_cert_expiration_timestamp_seconds",
                "When this proxy's certificate expires, in seconds since 1970",
                &Labels::none(),
            ),
            refreshed: registry.gauge(
                "control_identity_cert_refresh_timestamp_seconds",
                "When this proxy's certificate was renewed last, in seconds since 1970",
                &Labels::none(),
            ),
            succeeded: refreshes("ok"),
            failed: refreshes("error"),
        }
    }

    pub(crate) fn renewed(&self, now: SystemTime, valid_until: SystemTime) {
        self.succeeded.inc();
        self.refreshed.set(seconds(now));
        self.expires.set(seconds(valid_until));
    }

    pub(crate) fn failed(&self) {
        self.failed.inc();
    }
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

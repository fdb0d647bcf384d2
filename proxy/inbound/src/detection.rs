use std::{cell::RefCell, sync::Arc, time::Duration};

use tulle_metrics::{Counter, Histogram, Labels};
use tulle_policy::Meta;

use crate::{Shard, observe::meta_labels};

/// What looking at a connection's first bytes came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Http1,
    Http2,
    NotHttp,
    /// The client said nothing for the whole time.
    Nothing,
    /// The client was gone.
    Error,
}

impl Found {
    const ALL: [Self; 5] = [
        Self::Http1,
        Self::Http2,
        Self::NotHttp,
        Self::Nothing,
        Self::Error,
    ];

    const fn label(self) -> &'static str {
        match self {
            Self::Http1 => "http/1",
            Self::Http2 => "http/2",
            Self::NotHttp => "not_http",
            Self::Nothing => "read_timeout",
            Self::Error => "error",
        }
    }
}

/// Counts what detection finds on one port.
#[derive(Default)]
pub(crate) struct Detection(RefCell<Option<Handles>>);

/// The handles for one server.
struct Handles {
    server: Arc<Meta>,
    duration: Histogram,
    results: [Counter; 5],
}

impl Detection {
    pub(crate) fn count(
        &self,
        shard: &Shard,
        server: &Arc<Meta>,
        port: u16,
        found: Found,
        after: Duration,
    ) {
        let mut handles = self.0.borrow_mut();
        let handles = match &mut *handles {
            Some(known) if known.server == *server => known,
            other => other.insert(Handles::new(shard, server, port)),
        };
        handles.duration.observe(after.as_secs_f64());
        handles.results[found as usize].inc();
    }
}

impl Handles {
    fn new(shard: &Shard, server: &Arc<Meta>, port: u16) -> Self {
        let labels =
            meta_labels(&Labels::none(), "srv", server).with("srv_port", &port.to_string());
        let registry = &shard.registry;
        Self {
            server: server.clone(),
            duration: registry.histogram(
                "inbound_tcp_detect_http_duration_seconds",
                "Seconds until a connection's protocol was known.",
                &[0.001, 0.1],
                &labels,
            ),
            results: Found::ALL.map(|found| {
                registry.counter(
                    "inbound_tcp_detect_http_results",
                    "What connections were found to speak.",
                    &labels.with("result", found.label()),
                )
            }),
        }
    }
}

//! The proxy's composition root: builds everything in starting order and decides nothing.
//!
//! Threads: one for the control plane's client, the certificate, the admin server and
//! signals; one per shard for the data path; one that writes the access log, where there is
//! one. A shard owns its connections from accept to close. With several shards the first one
//! accepts and hands the sockets round in turn, so that each carries the same share whatever
//! the kernel's hash would have done.

mod accept;
mod control;
mod process;
mod shard;

use std::{net::SocketAddr, sync::Arc, thread};

use tokio::{
    sync::{mpsc::unbounded_channel, oneshot},
    time::Instant,
};
use tulle_config::Config;
use tulle_http::DrainSignal;
use tulle_metrics::Registry;
use tulle_tap::Taps;
use tulle_telemetry::AccessLog;
use tulle_tls::Store;
use tulle_trace::Exporter;

use crate::{control::Control, shard::Parts};

/// Why the proxy could not start or had to end.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// A port is taken or forbidden.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the kernel says.
        source: std::io::Error,
    },
    /// The operating system refused a thread, a timer or a signal handler.
    #[error("the process could not be set up: {0}")]
    Setup(#[from] std::io::Error),
    /// The key cannot be made or read.
    #[error(transparent)]
    Identity(#[from] tulle_identity::IdentityError),
    /// The trust anchors are no certificates.
    #[error("LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS: {0}")]
    Anchors(#[from] tulle_tls::CredentialsError),
    /// A thread ended that should outlive the others: a bug of ours.
    #[error("the {0} thread ended unexpectedly; please report this with the log above it")]
    ThreadEnded(&'static str),
}

/// Run until a signal, a request to shut down or a failure ends it.
///
/// # Errors
/// Where a port cannot be bound or the process cannot be set up.
pub fn run(config: Config) -> Result<(), AppError> {
    let config = Arc::new(config);
    let reload = process::start_log(&config);
    config.log_once();
    let registry = Registry::new();
    if let Some(series) = config.metrics_max_series {
        registry.limit(series);
    }
    let _held = process::register(&registry);
    let store = Store::new();
    let (trigger, drain) = DrainSignal::new();
    drop(drain);

    let taps = Taps::new(&registry);
    let (tracer, spans) = config
        .trace
        .as_ref()
        .map(|trace| Exporter::new(trace, &registry))
        .unzip();
    let tracer = tracer.unwrap_or_default();

    let (ended, data_path_ended) = oneshot::channel();
    let control = Control::start(control::Parts {
        config: config.clone(),
        registry: registry.clone(),
        store: store.clone(),
        reload,
        drain: trigger.clone(),
        taps: taps.clone(),
        spans,
        ended,
    })?;
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let access_log = config
        .access_log
        .map(|format| AccessLog::start(format, &registry))
        .transpose()?;
    let parts = Parts {
        epoch: Instant::now(),
        access_log: access_log.clone(),
        shards: config.workers.count(processors),
        config,
        registry,
        store,
        discovery: control.discovery.clone(),
        drain: trigger,
        taps,
        tracer,
    };
    let mut others = Vec::new();
    for index in 1..parts.shards {
        let (hand, handed) = unbounded_channel();
        let parts = parts.clone();
        // Never joined: the process ends when the leading shard does.
        thread::Builder::new()
            .name(format!("shard-{index}"))
            .spawn(move || shard::follow(parts, handed))?;
        others.push(hand);
    }
    shard::lead(parts, others, async {
        // An error means that the control thread is gone, which ends the process as well.
        let _ = data_path_ended.await;
    })?;
    let joined = control.join();
    if let Some(log) = access_log {
        log.flush();
    }
    joined
}

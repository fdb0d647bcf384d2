//! The thread beside the data path: certificate, discovery, admin server, signals.

use std::{
    rc::Rc,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

use tokio::{
    runtime::LocalRuntime,
    signal::unix::{SignalKind, signal},
    sync::{Notify, oneshot},
};
use tracing::{error, info};
use tulle_admin::{Admin, LogFilter};
use tulle_config::Config;
use tulle_discovery::Discovery;
use tulle_http::Trigger;
use tulle_identity::Identity;
use tulle_metrics::Registry;
use tulle_tap::{TapServer, Taps};
use tulle_tls::Store;
use tulle_trace::Exporter;
use tulle_transport::AcceptedOptions;

use crate::{AppError, process::Reload};

/// What the control thread is built from.
pub(crate) struct Parts {
    pub(crate) config: Arc<Config>,
    pub(crate) registry: Registry,
    pub(crate) store: Store,
    pub(crate) reload: Reload,
    pub(crate) drain: Trigger,
    pub(crate) taps: Taps,
    /// Absent where nothing is traced.
    pub(crate) spans: Option<Exporter>,
    /// Told when the data path has been drained.
    pub(crate) ended: oneshot::Sender<()>,
}

/// The running thread. It ends when the data path has been drained.
pub(crate) struct Control {
    pub(crate) discovery: Discovery,
    thread: JoinHandle<()>,
}

impl Control {
    /// Start the thread and wait until discovery can be asked.
    pub(crate) fn start(parts: Parts) -> Result<Self, AppError> {
        let (started, discovery) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || run(parts, &started))?;
        let discovery = discovery
            .recv()
            .map_err(|_| AppError::ThreadEnded("control"))??;
        Ok(Self { discovery, thread })
    }

    /// Wait until the data path has been drained.
    pub(crate) fn join(self) -> Result<(), AppError> {
        self.thread
            .join()
            .map_err(|_| AppError::ThreadEnded("control"))
    }
}

fn run(parts: Parts, started: &mpsc::Sender<Result<Discovery, AppError>>) {
    let runtime = match crate::shard::runtime() {
        Ok(runtime) => runtime,
        Err(error) => return drop(started.send(Err(error.into()))),
    };
    runtime.block_on(serve(parts, &runtime, started));
}

async fn serve(
    parts: Parts,
    runtime: &LocalRuntime,
    started: &mpsc::Sender<Result<Discovery, AppError>>,
) {
    let Parts {
        config,
        registry,
        store,
        reload,
        drain,
        taps,
        spans,
        ended,
    } = parts;
    let handle = runtime.handle();
    let workload = &config.policy_workload;
    let identity = Identity::new(&config.identity, workload, &store, &registry);
    let channel = tulle_discovery::identity_channel(&config, &store, handle);
    let (identity, channel) = match (identity, channel) {
        (Ok(identity), Ok(channel)) => (identity, channel),
        (Err(error), _) => return drop(started.send(Err(error.into()))),
        (_, Err(error)) => return drop(started.send(Err(error.into()))),
    };
    let discovery = Discovery::spawn(&config, &store, &registry, handle);
    let shutdown = Arc::new(Notify::new());
    let admin = Admin::new(tulle_admin::Parts {
        config: config.clone(),
        registry: registry.clone(),
        store: store.clone(),
        discovery: discovery.clone(),
        log: Box::new(Filter(reload)),
        shutdown: {
            let shutdown = shutdown.clone();
            Box::new(move || shutdown.notify_one())
        },
    });
    tokio::task::spawn_local(identity.run(channel));
    if let (Some(exporter), Some(trace)) = (spans, &config.trace) {
        let collector = tulle_discovery::side_channel(&config, &trace.collector, &store, handle);
        tokio::task::spawn_local(exporter.run(collector));
    }
    if let Err(error) = start_tap(&config, &store, taps) {
        return drop(started.send(Err(error)));
    }
    let listener = match admin.bind() {
        Ok(listener) => listener,
        Err(source) => {
            let address = config.admin_listen;
            return drop(started.send(Err(AppError::Listen { address, source })));
        }
    };
    let ready = Rc::clone(&admin);
    tokio::task::spawn_local(async move {
        if let Err(error) = admin.serve(listener).await {
            error!(%error, "the admin port is served no longer");
        }
    });
    drop(started.send(Ok(discovery)));
    tokio::task::spawn_local(tidy(config.clone(), registry));

    asked_to_end(&shutdown).await;
    info!(ready = ready.is_ready(), grace = ?config.shutdown_grace, "draining");
    drain.drain(config.shutdown_grace).await;
    let _ = ended.send(());
}

/// Open the port for who may watch requests, if somebody may.
fn start_tap(config: &Config, store: &Store, taps: Taps) -> Result<(), AppError> {
    let Some(settings) = config.tap.clone() else {
        return Ok(());
    };
    let address = settings.listen;
    let accepted = AcceptedOptions {
        keepalive: config.inbound.accept_keepalive,
        user_timeout: config.inbound.accept_user_timeout,
    };
    let server = TapServer::new(settings, accepted, store.clone(), taps);
    let listener = server.bind();
    let listener = listener.map_err(|source| AppError::Listen { address, source })?;
    tokio::task::spawn_local(async move {
        if let Err(error) = server.serve(listener).await {
            error!(%error, "the tap port is served no longer");
        }
    });
    Ok(())
}

/// Forget series that nobody has used for long.
async fn tidy(config: Arc<Config>, registry: Registry) {
    let mut tick = tokio::time::interval(std::time::Duration::from_secs(30));
    loop {
        tick.tick().await;
        registry.retain(config.metrics_retain_idle, tokio::time::Instant::now());
    }
}

/// Further signals during a drain are swallowed, as by the stock proxy.
async fn asked_to_end(shutdown: &Notify) {
    let mut terminate = signal(SignalKind::terminate());
    let mut interrupt = signal(SignalKind::interrupt());
    let first = async {
        match (&mut terminate, &mut interrupt) {
            (Ok(terminate), Ok(interrupt)) => {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            }
            _ => std::future::pending().await,
        }
    };
    tokio::select! {
        () = first => {}
        () = shutdown.notified() => {}
    }
}

struct Filter(Reload);

impl LogFilter for Filter {
    fn get(&self) -> String {
        self.0.with_current(ToString::to_string).unwrap_or_default()
    }

    fn set(&self, filter: &str) -> Result<(), String> {
        let filter = filter.parse::<tracing_subscriber::filter::Targets>();
        let filter = filter.map_err(|error| error.to_string())?;
        self.0.reload(filter).map_err(|error| error.to_string())
    }
}

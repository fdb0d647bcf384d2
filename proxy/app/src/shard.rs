//! One worker: a single-threaded runtime, its inbound and its outbound half.

use std::{cell::Cell, future::pending, io, rc::Rc, sync::Arc, time::Duration};

use tokio::{
    runtime::LocalRuntime,
    sync::mpsc::{UnboundedReceiver, UnboundedSender},
    task::spawn_local,
    time::Instant,
};
use tracing::warn;
use tulle_config::{Config, ServerH2};
use tulle_core::Direction;
use tulle_discovery::Discovery;
use tulle_http::{Drain, Trigger, http2::Http2Options};
use tulle_metrics::Registry;
use tulle_tap::Taps;
use tulle_telemetry::AccessLog;
use tulle_tls::Store;
use tulle_trace::Tracer;
use tulle_transport::Accepted;

use crate::{
    AppError,
    accept::{self, Handed},
};

/// The stock proxy says so that often while it waits for its first certificate.
const WAITING_NOTICE: Duration = Duration::from_secs(15);

/// What RFC 9113 §4.2 and §6.9.1 allow.
const MIN_FRAME: u32 = 1 << 14;
const MAX_FRAME: u32 = (1 << 24) - 1;
const MAX_WINDOW: u32 = (1 << 31) - 1;

/// What every shard shares.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) config: Arc<Config>,
    pub(crate) registry: Registry,
    pub(crate) store: Store,
    pub(crate) discovery: Discovery,
    pub(crate) drain: Trigger,
    pub(crate) shards: usize,
    pub(crate) epoch: Instant,
    pub(crate) access_log: Option<AccessLog>,
    pub(crate) taps: Taps,
    pub(crate) tracer: Tracer,
}

/// Both halves.
#[derive(Clone)]
struct Shard {
    drain: Trigger,
    inbound: Rc<tulle_inbound::Shard>,
    outbound: Rc<tulle_outbound::Shard>,
}

impl Shard {
    fn new(parts: Parts) -> Self {
        let http2_inbound = http2(&parts.config.inbound.server_h2);
        let http2_outbound = http2(&parts.config.outbound.server_h2);
        let Parts {
            config,
            registry,
            store,
            discovery,
            drain,
            shards,
            epoch,
            access_log,
            taps,
            tracer,
        } = parts;
        Self {
            drain: drain.clone(),
            inbound: tulle_inbound::Shard::new(tulle_inbound::Parts {
                http2: http2_inbound,
                config: config.clone(),
                registry: registry.clone(),
                store: store.clone(),
                discovery: discovery.clone(),
                drain: drain.clone(),
                shards,
                taps: taps.clone(),
                tracer: tracer.clone(),
                epoch,
                access_log,
            }),
            outbound: tulle_outbound::Shard::new(tulle_outbound::Parts {
                http2: http2_outbound,
                config,
                registry,
                store,
                discovery,
                drain,
                shards,
                taps,
                tracer,
            }),
        }
    }

    /// The connection's hold on the drain keeps the process alive until it ends.
    fn serve(&self, direction: Direction, accepted: Accepted, hold: Drain) {
        match direction {
            Direction::Inbound => {
                let serving = tulle_inbound::serve(self.inbound.clone(), accepted);
                spawn_local(held(hold, serving));
            }
            Direction::Outbound => {
                let serving = tulle_outbound::serve(self.outbound.clone(), accepted);
                spawn_local(held(hold, serving));
            }
        }
    }
}

/// What is not set is as `tulle-http` has it.
fn http2(set: &ServerH2) -> Http2Options {
    let default = Http2Options::default();
    let max_frame_size = set.max_frame_size.unwrap_or(default.max_frame_size);
    Http2Options {
        stream_window: set
            .initial_stream_window
            .map_or(default.stream_window, |window| window.min(MAX_WINDOW)),
        connection_window: set
            .initial_connection_window
            .map_or(default.connection_window, |window| window.min(MAX_WINDOW)),
        max_concurrent_streams: set
            .max_concurrent_streams
            .unwrap_or(default.max_concurrent_streams),
        max_frame_size: max_frame_size.clamp(MIN_FRAME, MAX_FRAME),
        max_header_list: set.max_header_list_size.unwrap_or(default.max_header_list),
        max_send_buffer: set.max_send_buf_size.unwrap_or(default.max_send_buffer),
        max_pending_resets: set
            .max_pending_accept_reset_streams
            .unwrap_or(default.max_pending_resets),
        keep_alive_interval: set.keep_alive_interval.or(default.keep_alive_interval),
        keep_alive_timeout: set.keep_alive_timeout.unwrap_or(default.keep_alive_timeout),
        ..default
    }
}

async fn held(hold: Drain, serving: impl Future<Output = ()>) {
    serving.await;
    drop(hold);
}

/// A shard that serves what it is handed, until the process ends.
pub(crate) fn follow(parts: Parts, mut handed: UnboundedReceiver<Handed>) -> io::Result<()> {
    let runtime = runtime()?;
    runtime.block_on(async move {
        let shard = Shard::new(parts);
        while let Some(next) = handed.recv().await {
            match next.take() {
                Ok((direction, accepted, hold)) => shard.serve(direction, accepted, hold),
                Err(error) => warn!(%error, "a connection could not be handed over"),
            }
        }
        pending().await
    })
}

/// The shard that accepts: it serves its share and hands the rest round in turn, until
/// `ended`.
pub(crate) fn lead(
    parts: Parts,
    others: Vec<UnboundedSender<Handed>>,
    ended: impl Future<Output = ()>,
) -> Result<(), AppError> {
    let runtime = runtime()?;
    runtime.block_on(async move {
        let listeners = accept::bind(&parts.config)?;
        let signaled = parts.drain.handle();
        tokio::pin!(ended);
        // Connections wait in the backlog: without a certificate there is nothing to say.
        tokio::select! {
            () = wait_for_certificate(parts.store.clone()) => {}
            () = signaled.signaled() => return Ok(()),
        }
        let shard = Shard::new(parts);
        let turns = Rc::new(Turns {
            next: Cell::new(0),
            others,
        });
        let accepting: Vec<_> = listeners
            .into_iter()
            .map(|listener| {
                let (shard, turns) = (shard.clone(), turns.clone());
                let take = move |direction, accepted| turns.take(&shard, direction, accepted);
                spawn_local(listener.accept(take, signaled.clone()))
            })
            .collect();
        signaled.signaled().await;
        for task in accepting {
            // A listener that broke has said so.
            let _ = task.await;
        }
        drop(signaled);
        ended.await;
        Ok(())
    })
}

/// Whose turn it is to serve.
struct Turns {
    next: Cell<usize>,
    others: Vec<UnboundedSender<Handed>>,
}

impl Turns {
    fn take(&self, shard: &Shard, direction: Direction, accepted: Accepted) {
        let turn = self.next.get();
        self.next.set((turn + 1) % (self.others.len() + 1));
        let Some(other) = turn.checked_sub(1).and_then(|index| self.others.get(index)) else {
            return shard.serve(direction, accepted, shard.drain.handle());
        };
        match Handed::new(direction, accepted, shard.drain.handle()) {
            // A shard that is gone takes its connections with it, as a process would.
            Ok(handed) => drop(other.send(handed)),
            Err(error) => warn!(%error, "a connection could not be handed over"),
        }
    }
}

async fn wait_for_certificate(store: Store) {
    let mut notice = tokio::time::interval(WAITING_NOTICE);
    notice.tick().await;
    loop {
        tokio::select! {
            _ = store.ready() => return,
            _ = notice.tick() => warn!("waiting for the first certificate"),
        }
    }
}

pub(crate) fn runtime() -> io::Result<LocalRuntime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
}

//! One worker: a single-threaded runtime, its inbound and its outbound half.

use std::{cell::Cell, future::pending, io, rc::Rc, sync::Arc, time::Duration};

use tokio::{
    runtime::LocalRuntime,
    sync::mpsc::{UnboundedReceiver, UnboundedSender},
    task::spawn_local,
};
use tracing::warn;
use tulle_config::Config;
use tulle_core::Direction;
use tulle_discovery::Discovery;
use tulle_http::{Drain, Trigger};
use tulle_metrics::Registry;
use tulle_tls::Store;
use tulle_transport::Accepted;

use crate::{
    AppError,
    accept::{self, Handed},
};

/// The stock proxy says so that often while it waits for its first certificate.
const WAITING_NOTICE: Duration = Duration::from_secs(15);

/// What every shard shares.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) config: Arc<Config>,
    pub(crate) registry: Registry,
    pub(crate) store: Store,
    pub(crate) discovery: Discovery,
    pub(crate) drain: Trigger,
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
        let Parts {
            config,
            registry,
            store,
            discovery,
            drain,
        } = parts;
        Self {
            drain: drain.clone(),
            inbound: tulle_inbound::Shard::new(tulle_inbound::Parts {
                config: config.clone(),
                registry: registry.clone(),
                store: store.clone(),
                discovery: discovery.clone(),
                drain: drain.clone(),
            }),
            outbound: tulle_outbound::Shard::new(tulle_outbound::Parts {
                config,
                registry,
                store,
                discovery,
                drain,
            }),
        }
    }

    /// The connection's hold on the drain keeps the process alive until it ends.
    fn serve(&self, direction: Direction, accepted: Accepted) {
        let hold = self.drain.handle();
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
                Ok((direction, accepted)) => shard.serve(direction, accepted),
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
                spawn_local(listener.accept(take))
            })
            .collect();
        signaled.signaled().await;
        for task in &accepting {
            task.abort();
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
            return shard.serve(direction, accepted);
        };
        match Handed::new(direction, accepted) {
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

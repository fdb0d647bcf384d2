//! How the streams of one control plane come back together.
//!
//! While it is down, each stream backs off for up to a minute, so that a thousand proxies
//! with a hundred streams each don't keep it down. One stream per channel asks every two
//! seconds all the same; its first message wakes the others. So the plane sees few attempts
//! and everything has converged within seconds of its return.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time,
};

/// The pause of the stream that probes, at most.
const PROBE_PAUSE: Duration = Duration::from_secs(2);

/// Over how long the woken streams spread.
const SPREAD: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(crate) struct Recovery {
    probe: Arc<Semaphore>,
    recovered: Notify,
}

/// Held by the one stream that asks often.
#[derive(Debug)]
pub(crate) struct Probe(#[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

impl Recovery {
    pub(crate) fn new() -> Self {
        Self {
            probe: Arc::new(Semaphore::new(1)),
            recovered: Notify::new(),
        }
    }

    /// A message came: the control plane is there.
    pub(crate) fn recovered(&self) {
        self.recovered.notify_waiters();
    }

    /// Wait before the next attempt, which is `pause` away unless another stream succeeds
    /// before. Whoever finds no prober becomes it and stays it for as long as `probe` is kept.
    pub(crate) async fn pause(&self, probe: &mut Option<Probe>, pause: Duration, random: f64) {
        let recovered = self.recovered.notified();
        if probe.is_none() {
            *probe = Arc::clone(&self.probe).try_acquire_owned().ok().map(Probe);
        }
        if probe.is_some() {
            time::sleep(pause.min(PROBE_PAUSE)).await;
            return;
        }
        tokio::select! {
            () = recovered => time::sleep(SPREAD.mul_f64(random).min(pause)).await,
            () = time::sleep(pause) => {}
        }
    }
}

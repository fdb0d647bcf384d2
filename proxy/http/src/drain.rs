//! Tells connections that the proxy is going away.
//!
//! Two stages. *Draining*: nothing new is begun on a connection after the request that it
//! serves, and the peer is told so with the next answer. *Closed*: the grace is over, and
//! idle connections are closed too. Idle HTTP/1 connections live until then, because the
//! protocol has no GOAWAY: a request that is already on the wire when its connection is
//! closed is lost, and for a POST nobody can know whether to send it again.
//!
//! `Send + Sync`, since the signal comes from another thread than the shards'. A connection
//! registers its waker once, and looks at one atomic number from then on.

use std::{
    future::poll_fn,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

/// How far the drain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Stage {
    Open = 0,
    Draining = 1,
    Closed = 2,
}

/// Makes the two ends.
#[derive(Debug)]
pub struct DrainSignal;

impl DrainSignal {
    /// A trigger, and the handle of which every connection gets a clone.
    #[must_use]
    #[expect(clippy::new_ret_no_self, reason = "two ends, as a channel has")]
    pub fn new() -> (Trigger, Drain) {
        let shared = Arc::new(Shared {
            stage: AtomicU8::new(Stage::Open as u8),
            state: Mutex::new(State {
                handles: 1,
                ..State::default()
            }),
        });
        (Trigger(Arc::clone(&shared)), Drain(shared))
    }
}

/// The end that gives the signal.
#[derive(Clone, Debug)]
pub struct Trigger(Arc<Shared>);

impl Trigger {
    /// Begin to drain.
    pub fn signal(&self) {
        self.0.advance(Stage::Draining);
    }

    /// Another handle; a trigger itself keeps no drain from ending.
    #[must_use]
    pub fn handle(&self) -> Drain {
        self.0.lock().handles += 1;
        Drain(Arc::clone(&self.0))
    }

    /// End the grace: idle connections close.
    pub fn close(&self) {
        self.0.advance(Stage::Closed);
    }

    /// Begin to drain, and return when no [`Drain`] handle is left or `grace` is over; in
    /// the latter case idle connections have been told to close.
    pub async fn drain(&self, grace: Duration) {
        self.signal();
        let idle = poll_fn(|cx| self.poll_idle(cx));
        if tokio::time::timeout(grace, idle).await.is_err() {
            self.close();
        }
    }

    fn poll_idle(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if state.handles == 0 {
            return Poll::Ready(());
        }
        state.idle = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// The end that is signalled.
#[derive(Debug)]
pub struct Drain(Arc<Shared>);

impl Drain {
    /// Whether the signal was given.
    #[must_use]
    pub fn is_signaled(&self) -> bool {
        self.0.stage() >= Stage::Draining as u8
    }

    /// Wait for the signal.
    pub async fn signaled(&self) {
        let mut watch = self.watch();
        poll_fn(|cx| watch.poll(Stage::Draining, cx)).await;
    }

    /// Wait for the end of the grace.
    pub async fn closed(&self) {
        let mut watch = self.watch();
        poll_fn(|cx| watch.poll(Stage::Closed, cx)).await;
    }

    pub(crate) fn watch(&self) -> Watch {
        Watch {
            drain: self.clone(),
            slot: None,
            waker: None,
        }
    }
}

impl Clone for Drain {
    fn clone(&self) -> Self {
        self.0.lock().handles += 1;
        Self(Arc::clone(&self.0))
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.handles -= 1;
        if state.handles == 0
            && let Some(waker) = state.idle.take()
        {
            waker.wake();
        }
    }
}

/// One connection's place among those that are woken.
#[derive(Debug)]
pub(crate) struct Watch {
    drain: Drain,
    slot: Option<usize>,
    waker: Option<Waker>,
}

impl Watch {
    pub(crate) fn reached(&self, stage: Stage) -> bool {
        self.drain.0.stage() >= stage as u8
    }

    pub(crate) fn poll(&mut self, stage: Stage, cx: &mut Context<'_>) -> Poll<()> {
        if !self
            .waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            self.register(cx.waker().clone());
        }
        if self.reached(stage) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    fn register(&mut self, waker: Waker) {
        self.waker = Some(waker.clone());
        let mut state = self.drain.0.lock();
        let slot = match self.slot {
            Some(slot) => slot,
            None => state.free.pop().unwrap_or_else(|| {
                state.wakers.push(None);
                state.wakers.len() - 1
            }),
        };
        state.wakers[slot] = Some(waker);
        self.slot = Some(slot);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            let mut state = self.drain.0.lock();
            state.wakers[slot] = None;
            state.free.push(slot);
        }
    }
}

#[derive(Debug)]
struct Shared {
    stage: AtomicU8,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    handles: usize,
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
    idle: Option<Waker>,
}

impl Shared {
    fn stage(&self) -> u8 {
        self.stage.load(Ordering::Acquire)
    }

    fn advance(&self, stage: Stage) {
        self.stage.fetch_max(stage as u8, Ordering::AcqRel);
        let wakers: Vec<Waker> = self.lock().wakers.iter().flatten().cloned().collect();
        for waker in wakers {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that panics is done under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn a_drain_ends_with_the_last_handle() {
        let (trigger, drain) = DrainSignal::new();
        let connection = drain.clone();
        drop(drain);

        let started = tokio::time::Instant::now();
        tokio::join!(trigger.drain(Duration::from_mins(1)), async move {
            connection.signaled().await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(connection);
        });

        assert_eq!(started.elapsed(), Duration::from_secs(1));
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn the_end_of_the_grace_is_told_to_those_who_are_left() {
        let (trigger, drain) = DrainSignal::new();

        let started = tokio::time::Instant::now();
        tokio::join!(trigger.drain(Duration::from_mins(1)), drain.closed());

        assert_eq!(started.elapsed(), Duration::from_mins(1));
    }
}

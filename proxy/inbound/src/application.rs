//! The application behind a port, and how long requests wait for it.
//!
//! An application that restarts is away for a moment: requests wait for it, no more of them
//! than the queue holds. Once it has been away for the fail-fast time they are refused at
//! once, but for the one that tries again when a back-off ends.

use std::{
    cell::{Cell, OnceCell},
    net::SocketAddr,
    rc::Rc,
};

use tokio::{
    net::TcpStream,
    time::{Instant, sleep_until},
};
use tulle_balance::{Backoff, ConnectGate, FailFast, Verdict};
use tulle_config::Inbound;
use tulle_core::{Reason, Refusal};
use tulle_http::pool::{Connect, Session};
use tulle_metrics::{Labels, Registry};
use tulle_telemetry::{ConnectionMetrics, Counted, target_labels};
use tulle_transport::{ConnectOptions, connect};

use crate::Shard;

/// Makes connections to the application, at the pod's own address.
#[derive(Clone)]
pub(crate) struct Application {
    target: SocketAddr,
    options: ConnectOptions,
    registry: Registry,
    labels: Labels,
    /// Made with the first connection: a scanner finds many ports where nobody listens.
    metrics: Rc<OnceCell<Rc<ConnectionMetrics>>>,
}

impl Application {
    pub(crate) fn new(shard: &Shard, target: SocketAddr) -> Self {
        let inbound = &shard.config.inbound;
        let labels = target_labels(&shard.labels.with("peer", "dst"), target);
        let labels = labels
            .with("tls", "no_identity")
            .with("no_tls_reason", "loopback");
        Self {
            target,
            options: ConnectOptions {
                timeout: inbound.connect_timeout,
                keepalive: inbound.connect_keepalive,
                user_timeout: inbound.connect_user_timeout,
                mark: shard.config.mark,
            },
            registry: shard.registry.clone(),
            labels,
            metrics: Rc::default(),
        }
    }

    /// Connect to the application.
    ///
    /// # Errors
    /// Where it does not listen or does not accept in time.
    pub(crate) async fn open(&self) -> Result<Counted<TcpStream>, Refusal> {
        let socket = connect(self.target, &self.options).await;
        let socket = socket.map_err(|error| Refusal::new(error.reason(), error.to_string()))?;
        let metrics = self
            .metrics
            .get_or_init(|| ConnectionMetrics::new(&self.registry, &self.labels));
        Ok(Counted::new(socket, metrics.clone()))
    }
}

impl Connect for Application {
    type Io = Counted<TcpStream>;

    async fn connect(&self, _session: Session) -> Result<Self::Io, Refusal> {
        self.open().await
    }
}

/// How long requests wait for an application that does not answer.
pub(crate) struct Patience {
    gate: ConnectGate,
    fail_fast: FailFast,
    waiting: Cell<usize>,
    queue: usize,
}

impl Patience {
    pub(crate) fn new(inbound: &Inbound) -> Self {
        let backoff = inbound.connect_backoff;
        Self {
            gate: ConnectGate::new(Backoff::new(backoff.min, backoff.max, backoff.jitter)),
            fail_fast: FailFast::new(inbound.failfast),
            waiting: Cell::new(0),
            queue: inbound.queue_capacity,
        }
    }

    /// Whether a request may try at all.
    ///
    /// # Errors
    /// `fail_fast` while the application has been away for too long and it is not yet time to
    /// try again.
    pub(crate) fn over(&self) -> Result<(), Refusal> {
        // The common case costs one look at a cell.
        if !self.gate.doubtful() {
            return Ok(());
        }
        let now = Instant::now();
        if self.fail_fast.failing(now) && !self.gate.open(now) {
            return Err(fail_fast("it does not accept connections"));
        }
        Ok(())
    }

    /// Somebody has reached the application.
    pub(crate) fn reached(&self) {
        if self.gate.doubtful() {
            self.gate.succeeded();
            self.fail_fast.observe(true, Instant::now());
        }
    }

    /// Wait after a connection failed, until it may be tried again.
    ///
    /// # Errors
    /// `fail_fast` once the application has been away for too long, `queue_full` where too
    /// many wait already.
    pub(crate) async fn wait(&self, cause: &Refusal, random: u64) -> Result<(), Refusal> {
        let mut now = Instant::now();
        let mut opens = self.gate.failed(random, now);
        let place = Place::take(self)?;
        while let Verdict::Wait(until) = self.fail_fast.observe(false, now) {
            sleep_until(opens.min(until)).await;
            now = Instant::now();
            match self.gate.opens_at(now) {
                // Somebody else has tried meanwhile, in vain.
                Some(later) => opens = later,
                None if now < until => return Ok(()),
                None => {}
            }
        }
        drop(place);
        Err(fail_fast(&cause.message))
    }
}

fn fail_fast(cause: &str) -> Refusal {
    let message = format!("service in fail-fast: the application is away: {cause}");
    Refusal::new(Reason::FailFast, message)
}

/// A place among those who wait, given back when it is dropped.
struct Place<'a>(&'a Cell<usize>);

impl<'a> Place<'a> {
    fn take(patience: &'a Patience) -> Result<Self, Refusal> {
        let waiting = &patience.waiting;
        if waiting.get() >= patience.queue {
            return Err(Refusal::new(Reason::QueueFull, "service unavailable"));
        }
        waiting.set(waiting.get() + 1);
        Ok(Self(waiting))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tulle_testkit::Alone;

    use super::*;

    fn patience() -> Patience {
        Patience::new(&Alone::new().config.inbound)
    }

    fn gone() -> Refusal {
        Refusal::new(Reason::ConnectFailed, "gone")
    }

    /// Try, in vain, until the patience ends.
    async fn request(patience: &Patience) -> Refusal {
        loop {
            if let Err(refusal) = patience.wait(&gone(), 0).await {
                return refusal;
            }
        }
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn a_request_waits_a_second_for_an_application_that_is_away() {
        let (patience, start) = (patience(), Instant::now());

        let refusal = request(&patience).await;

        assert_eq!(refusal.reason, Reason::FailFast);
        let waited = start.elapsed();
        let expected = Duration::from_secs(1)..Duration::from_millis(1_100);
        assert!(expected.contains(&waited), "{waited:?}");
        assert_eq!(patience.waiting.get(), 0);
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn after_that_requests_fail_at_once_until_one_may_try_again() {
        let patience = patience();
        request(&patience).await;

        assert_eq!(patience.over().unwrap_err().reason, Reason::FailFast);
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(patience.over().is_ok());
        patience.reached();

        assert!(patience.over().is_ok());
        patience.wait(&gone(), 0).await.unwrap();
    }
}

//! Who watches now, and the requests that are being watched.
//!
//! Shards report, the control thread sends; between them is one bounded channel for every
//! watcher. Whatever finds it full is dropped and counted.

use std::{
    cell::Cell,
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use http::HeaderMap;
use parking_lot::Mutex;
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    time::Instant,
};
use tulle_api::tap::{
    TapEvent, eos,
    tap_event::http::{Event, StreamId},
};
use tulle_core::{ClientTls, Direction, Id};
use tulle_http::{BodyError, End, Observer, Request, Response};
use tulle_metrics::{Kind, Registry};

use crate::{
    Match,
    event::{self, Ended},
};

/// Watchers at a time; each is asked about every request.
pub(crate) const MAX_TAPS: usize = 16;

/// Events that wait for one watcher (the stock proxy's number).
pub(crate) const MAX_EVENTS: usize = 400;

/// Requests that one watcher is shown: at most this many in a row, and one more after every
/// pause. Beyond that it sees a sample.
const BURST: u32 = 200;
const PAUSE: Duration = Duration::from_millis(1);

/// The error codes of HTTP/2 for a stream that nobody wants any longer, and for one that broke.
const CANCEL: u32 = 8;
const INTERNAL: u32 = 2;

/// What is known of a request beside itself.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Which half carries it.
    pub direction: Direction,
    /// Where it came from.
    pub source: SocketAddr,
    /// Who sent it.
    pub client: &'a ClientTls,
    /// Where it goes.
    pub destination: SocketAddr,
    /// Who is expected there; absent: nobody has to prove anything.
    pub server: Option<&'a Id>,
    /// What is known of the destination.
    pub labels: &'a [(&'a str, &'a str)],
    /// What is known of the route.
    pub route: &'a [(&'a str, &'a str)],
}

/// Everybody who watches; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Taps(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    watched: AtomicBool,
    taps: ArcSwap<Vec<Arc<Tap>>>,
    /// Whoever changes the list.
    changing: Mutex<()>,
    next_base: AtomicU32,
    dropped: AtomicU64,
}

impl Taps {
    /// Nobody watches yet.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        let taps = Self::default();
        let of = taps.clone();
        registry.sampled(
            "tulle_tap_events_dropped",
            "Events that a watcher of requests did not fetch in time.",
            Kind::Counter,
            #[expect(clippy::cast_precision_loss, reason = "they are counted in thousands")]
            move || of.0.dropped.load(Ordering::Relaxed) as f64,
        );
        taps
    }

    /// Whether anybody watches. All that a request costs while nobody does.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.0.watched.load(Ordering::Relaxed)
    }

    /// Show a request to those who want to see it; what is returned has to follow the response.
    #[must_use]
    pub fn request(&self, request: &Request, subject: &Subject<'_>) -> Option<Tapped> {
        let mut watching = Vec::new();
        for tap in self.0.taps.load().iter() {
            if tap.wanted.matches(request, subject)
                && let Some(id) = tap.take()
            {
                let Some(events) = tap.events.upgrade() else {
                    continue;
                };
                let watcher = Watcher {
                    events,
                    id,
                    common: event::common(subject),
                    headers: tap.headers,
                };
                // Of a request whose beginning is not seen nothing is.
                if self.send(&watcher, event::request(id, request, tap.headers)) {
                    watching.push(watcher);
                }
            }
        }
        (!watching.is_empty()).then(|| Tapped {
            taps: self.clone(),
            watching,
            begun: Instant::now(),
        })
    }

    /// Let somebody watch until the receiver is dropped or `limit` requests were shown; none
    /// where too many watch already.
    pub(crate) fn watch(
        &self,
        wanted: Match,
        limit: u32,
        headers: bool,
    ) -> Option<(mpsc::Receiver<TapEvent>, Watch)> {
        let (events, receiver) = mpsc::channel(MAX_EVENTS);
        let tap = Arc::new(Tap {
            base: self.0.next_base.fetch_add(1, Ordering::Relaxed),
            wanted,
            headers,
            limit,
            taken: AtomicU32::new(0),
            pace: Mutex::new(Pace::new(Instant::now())),
            events: events.downgrade(),
        });
        let mut full = false;
        self.change(|taps| {
            full = taps.len() >= MAX_TAPS;
            if !full {
                taps.push(tap.clone());
            }
        });
        let watch = Watch {
            taps: self.clone(),
            tap,
            _open: events,
        };
        (!full).then_some((receiver, watch))
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Arc<Tap>>)) {
        let _changing = self.0.changing.lock();
        let mut taps = (**self.0.taps.load()).clone();
        change(&mut taps);
        self.0.watched.store(!taps.is_empty(), Ordering::Relaxed);
        self.0.taps.store(Arc::new(taps));
    }

    fn send(&self, watcher: &Watcher, event: Event) -> bool {
        let event = event::of(&watcher.common, event);
        let sent = watcher.events.try_send(event);
        if let Err(TrySendError::Full(_)) = sent {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
        }
        sent.is_ok()
    }
}

/// What one watcher wants to see.
#[derive(Debug)]
struct Tap {
    base: u32,
    wanted: Match,
    headers: bool,
    limit: u32,
    taken: AtomicU32,
    pace: Mutex<Pace>,
    /// Weak, so that the channel ends with the watching and with the requests being watched.
    events: mpsc::WeakSender<TapEvent>,
}

impl Tap {
    /// Number a request, if one more is to be shown.
    fn take(&self) -> Option<StreamId> {
        if self.is_full() || !self.pace.lock().allows(Instant::now()) {
            return None;
        }
        let stream = self.taken.fetch_add(1, Ordering::Relaxed);
        (stream < self.limit).then_some(StreamId {
            base: self.base,
            stream: stream.into(),
        })
    }

    fn is_full(&self) -> bool {
        self.taken.load(Ordering::Relaxed) >= self.limit
    }
}

/// How much of too much is shown.
#[derive(Debug)]
struct Pace {
    left: u32,
    since: Instant,
}

impl Pace {
    const fn new(now: Instant) -> Self {
        Self {
            left: BURST,
            since: now,
        }
    }

    fn allows(&mut self, now: Instant) -> bool {
        let pauses = now.duration_since(self.since).as_nanos() / PAUSE.as_nanos();
        let pauses = u32::try_from(pauses).unwrap_or(u32::MAX);
        self.since += PAUSE * pauses;
        self.left = self.left.saturating_add(pauses).min(BURST);
        let allowed = self.left > 0;
        self.left = self.left.saturating_sub(1);
        allowed
    }
}

/// A request on its way under somebody's eyes. Dropped without a response it was given up by
/// its client.
#[derive(Debug)]
pub struct Tapped {
    taps: Taps,
    watching: Vec<Watcher>,
    begun: Instant,
}

/// One of those who watch a request.
#[derive(Debug)]
struct Watcher {
    events: mpsc::Sender<TapEvent>,
    id: StreamId,
    common: TapEvent,
    headers: bool,
}

impl Tapped {
    /// Show the response, and its end when that comes.
    #[must_use]
    pub fn observe(self, response: Response) -> Response {
        let since_request = self.begun.elapsed();
        for watcher in &self.watching {
            let shown = event::response(watcher.id, &response, since_request, watcher.headers);
            self.taps.send(watcher, shown);
        }
        let following = Rc::new(Following {
            answered: Instant::now(),
            bytes: Cell::new(0),
            grpc_status: event::grpc_status(response.headers()),
            tapped: Cell::new(Some(self)),
        });
        response.map(|body| body.observed(following))
    }

    /// There is no response; `reset` is the stream error that came instead.
    pub fn failed(self, reset: Option<u32>) {
        self.end(None, 0, reset.map(eos::End::ResetErrorCode), None);
    }

    fn end(
        mut self,
        answered: Option<Instant>,
        bytes: u64,
        end: Option<eos::End>,
        trailers: Option<&HeaderMap>,
    ) {
        self.tell(&Ended {
            since_request: self.begun.elapsed(),
            since_response: answered.map(|answered| answered.elapsed()),
            bytes,
            end,
            trailers,
        });
    }

    fn tell(&mut self, ended: &Ended<'_>) {
        for watcher in std::mem::take(&mut self.watching) {
            let event = event::end(watcher.id, ended, watcher.headers);
            self.taps.send(&watcher, event);
        }
    }
}

impl Drop for Tapped {
    fn drop(&mut self) {
        let since_request = self.begun.elapsed();
        self.tell(&Ended {
            since_request,
            since_response: None,
            bytes: 0,
            end: Some(eos::End::ResetErrorCode(CANCEL)),
            trailers: None,
        });
    }
}

/// Follows a response that is being watched to its end.
struct Following {
    answered: Instant,
    bytes: Cell<u64>,
    grpc_status: Option<u32>,
    tapped: Cell<Option<Tapped>>,
}

impl Observer for Following {
    fn data(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes as u64);
    }

    fn end(&self, end: End<'_>) {
        let (reason, trailers) = match end {
            End::Complete { trailers } => {
                let status = trailers.and_then(event::grpc_status).or(self.grpc_status);
                (status.map(eos::End::GrpcStatusCode), trailers)
            }
            End::Failed(BodyError::Reset(reset)) => {
                (Some(eos::End::ResetErrorCode(reset.code())), None)
            }
            End::Failed(_) => (Some(eos::End::ResetErrorCode(INTERNAL)), None),
            End::Dropped => (Some(eos::End::ResetErrorCode(CANCEL)), None),
        };
        if let Some(tapped) = self.tapped.take() {
            tapped.end(Some(self.answered), self.bytes.get(), reason, trailers);
        }
    }
}

/// Ends the watching when it is dropped. It also keeps the channel open: what is left of it
/// after that are the requests that have not ended yet.
#[derive(Debug)]
pub(crate) struct Watch {
    taps: Taps,
    tap: Arc<Tap>,
    _open: mpsc::Sender<TapEvent>,
}

impl Watch {
    /// Whether no further request will be shown.
    pub(crate) fn is_full(&self) -> bool {
        self.tap.is_full()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.taps
            .change(|taps| taps.retain(|tap| !Arc::ptr_eq(tap, &self.tap)));
    }
}

//! How long an exchange may take.
//!
//! One timer serves all limits: it is set for the one that ends first and looked at whenever
//! the exchange is polled, since everything that moves a limit (a frame, the end of the
//! request) happens in such a poll.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep};
use tulle_core::{Reason, Refusal};

use crate::{
    Body, BodyError, Replay,
    body::{Next, Remaining},
};

/// The limits of one exchange; absent is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// All tries together, from the request's arrival to the end of the response.
    pub request: Option<(Instant, Duration)>,
    /// One try, from its start to the end of its response.
    pub attempt: Option<(Instant, Duration)>,
    /// From the end of the request to the end of the response.
    pub response: Option<Duration>,
    /// From the end of the request to the head of the response.
    pub head: Option<Duration>,
    /// Without a frame in either direction.
    pub idle: Option<Duration>,
}

impl Limits {
    /// Whether nothing is limited.
    #[must_use]
    pub fn are_none(&self) -> bool {
        *self == Self::default()
    }

    /// Whether something is counted from the end or the frames of the request.
    #[must_use]
    pub fn watch_request(&self) -> bool {
        self.response.is_some() || self.head.is_some() || self.idle.is_some()
    }
}

/// Which limit was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expired {
    /// [`Limits::request`].
    Request(Duration),
    /// [`Limits::attempt`].
    Attempt(Duration),
    /// [`Limits::response`].
    Response(Duration),
    /// [`Limits::head`].
    Head(Duration),
    /// [`Limits::idle`].
    Idle(Duration),
}

impl Expired {
    /// What to answer.
    #[must_use]
    pub fn refusal(self) -> Refusal {
        let reason = match self {
            Self::Request(_) => Reason::Timeout,
            Self::Attempt(_) => Reason::BackendTimeout,
            Self::Response(_) | Self::Head(_) => Reason::ResponseTimeout,
            Self::Idle(_) => Reason::IdleTimeout,
        };
        Refusal::new(reason, self.to_string())
    }
}

impl fmt::Display for Expired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(limit) => write!(f, "request timed out after {limit:?}"),
            Self::Attempt(limit) => write!(f, "backend request timed out after {limit:?}"),
            Self::Response(limit) => write!(f, "response timed out after {limit:?}"),
            Self::Head(limit) => write!(f, "response headers timed out after {limit:?}"),
            Self::Idle(limit) => write!(f, "stream timed out after {limit:?} idle"),
        }
    }
}

/// For how long something is waited for.
pub trait Patience {
    /// Wait for it.
    ///
    /// # Errors
    ///
    /// When a limit was reached first.
    fn within<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> impl Future<Output = Result<T, Expired>>;
}

/// As long as it takes.
#[derive(Clone, Copy, Debug)]
pub struct Forever;

impl Patience for Forever {
    async fn within<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Expired> {
        Ok(work.await)
    }
}

/// Keeps the limits of one exchange. Before the head of the response it is what a try is waited
/// for with, and then it goes with the body.
pub struct Timer {
    limits: Limits,
    /// The request's body, where it is not over from the start.
    upload: Option<Replay>,
    begun: Instant,
    /// When something of the response came last.
    moved: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    /// Begin to count.
    #[must_use]
    pub fn new(limits: Limits, upload: Option<Replay>) -> Self {
        let now = Instant::now();
        Self {
            limits,
            upload,
            begun: now,
            moved: now,
            sleep: None,
        }
    }

    /// The head has come; what remains is counted for the rest of the response.
    #[must_use]
    pub fn after_head(mut self, body: Body) -> Body {
        self.limits.head = None;
        self.moved = Instant::now();
        let over = body.is_end_stream() && !body.uploads();
        if over || self.limits.are_none() {
            return body;
        }
        Body::limited(Limited {
            body,
            timer: self,
            over: None,
        })
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Expired> {
        loop {
            let Some((at, expired)) = self.next() else {
                return Poll::Pending;
            };
            match &mut self.sleep {
                None => self.sleep = Some(Box::pin(tokio::time::sleep_until(at))),
                Some(sleep) if sleep.deadline() != at => sleep.as_mut().reset(at),
                Some(_) => {}
            }
            if let Some(sleep) = &mut self.sleep {
                ready!(sleep.as_mut().poll(cx));
            }
            // A limit that is counted from a frame may have moved on meanwhile.
            if self.next() == Some((at, expired)) {
                return Poll::Ready(expired);
            }
        }
    }

    /// The limit that ends first.
    fn next(&self) -> Option<(Instant, Expired)> {
        let Limits {
            request,
            attempt,
            response,
            head,
            idle,
        } = self.limits;
        let flushed = match &self.upload {
            // What the try before this one had sent says nothing.
            Some(upload) => upload.flushed().filter(|at| *at >= self.begun),
            None => Some(self.begun),
        };
        let moved = || match &self.upload {
            Some(upload) => upload.moved().max(self.moved),
            None => self.moved,
        };
        let after = |since: Option<Instant>, limit: Option<Duration>, what: fn(_) -> _| {
            let limit = limit?;
            Some((since?.checked_add(limit)?, what(limit)))
        };
        [
            request.and_then(|(since, limit)| after(Some(since), Some(limit), Expired::Request)),
            attempt.and_then(|(since, limit)| after(Some(since), Some(limit), Expired::Attempt)),
            after(flushed, response, Expired::Response),
            after(flushed, head, Expired::Head),
            after(idle.map(|_| moved()), idle, Expired::Idle),
        ]
        .into_iter()
        .flatten()
        .min_by_key(|(at, _)| *at)
    }
}

impl Patience for Timer {
    async fn within<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Expired> {
        let mut work = pin!(work);
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending => self.poll(cx).map(Err),
        })
        .await
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Timer").field(&self.limits).finish()
    }
}

/// The body of a response that has to end in time.
pub(crate) struct Limited {
    body: Body,
    timer: Timer,
    /// A limit was reached; the reader is told when it asks next.
    over: Option<Expired>,
}

impl Limited {
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Next {
        if self.over.is_none()
            && let Poll::Ready(expired) = self.timer.poll(cx)
        {
            self.expire(expired);
        }
        if let Some(expired) = self.over {
            return Poll::Ready(Some(Err(BodyError::Refused(expired.refusal()))));
        }
        let next = ready!(self.body.poll_next(cx));
        self.timer.moved = Instant::now();
        Poll::Ready(next)
    }

    pub(crate) fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.over.is_none()
            && let Poll::Ready(expired) = self.timer.poll(cx)
        {
            self.expire(expired);
        }
        self.body.poll_upload(cx)
    }

    /// Let go of the server at once, though the reader may be blocked.
    fn expire(&mut self, expired: Expired) {
        self.over = Some(expired);
        self.body = Body::empty();
    }

    pub(crate) fn uploads(&self) -> bool {
        self.body.uploads()
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.over.is_none() && self.body.is_end_stream()
    }

    pub(crate) fn remaining(&self) -> Remaining {
        match self.body.exact_length() {
            _ if self.over.is_some() => Remaining::Unknown,
            None => Remaining::Unknown,
            Some(0) => Remaining::Nothing,
            Some(length) => Remaining::Exactly(length),
        }
    }
}

//! One body type for every message, whatever carries it.
//!
//! A body that came from a client connection also drives what is left of the *request*
//! body of the same exchange: each time it is polled it moves the upload on, so that no
//! task is spawned for a request. A server that is blocked on its own writing calls
//! [`Body::poll_upload`] for the same reason: two peers that both write before they read
//! must not wait for each other through us.

use std::{
    fmt, io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tulle_core::{Reason, Refusal};

use crate::{Reset, http2, limit::Limited, peek::Peeked, replay::Reader};

/// Why a body ended before it was complete.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// The peer closed the connection in the middle.
    #[error("the peer closed the connection before the end of the body")]
    Incomplete,
    /// The peer broke the framing.
    #[error("malformed body: {0}")]
    Malformed(&'static str),
    /// The body does not have the length that its head announced.
    #[error("the body's length differs from its content-length")]
    Length,
    /// The HTTP/2 stream was reset.
    #[error("{0}")]
    Reset(Reset),
    /// The connection failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The exchange that the body belonged to is over.
    #[error("the exchange is over")]
    Gone,
    /// We ended it: a time-out, a policy that changed.
    #[error("{0}")]
    Refused(Refusal),
}

impl BodyError {
    /// The refusal that says the same, for a request whose body failed.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Refused(refusal) => refusal.clone(),
            Self::Malformed(_) | Self::Length => Refusal::new(Reason::BadRequest, self.to_string()),
            Self::Incomplete | Self::Reset(_) | Self::Io(_) | Self::Gone => {
                Refusal::new(Reason::ConnectionLost, self.to_string())
            }
        }
    }
}

/// How a body ended.
#[derive(Debug)]
pub enum End<'a> {
    /// Whole.
    Complete {
        /// What followed the data.
        trailers: Option<&'a HeaderMap>,
    },
    /// Broken by the peer, the network or us.
    Failed(&'a BodyError),
    /// Nobody wanted the rest.
    Dropped,
}

/// Sees a body go by.
pub trait Observer {
    /// A piece of so many bytes was handed on.
    fn data(&self, bytes: usize);
    /// The body is over. Called exactly once.
    fn end(&self, end: End<'_>);
}

/// The next thing a body has to give.
pub(crate) type Next = Poll<Option<Result<Frame<Bytes>, BodyError>>>;

/// The server connection that a request body is read from. Bodies of earlier exchanges are
/// told apart by the epoch.
pub(crate) trait RequestSource {
    fn poll_frame(&self, epoch: u32, cx: &mut Context<'_>) -> Next;
    fn remaining(&self, epoch: u32) -> Remaining;
    fn informational(&self, epoch: u32, response: &http::Response<()>);
}

/// The client connection that a response body is read from.
pub(crate) trait ResponseSource {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Next;
    fn remaining(&self) -> Remaining;
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<()>;
    fn uploads(&self) -> bool;
    /// Whether nothing more can come, in either direction.
    fn is_over(&self) -> bool;
    /// Give the connection back for the next exchange.
    fn release(self: Box<Self>);
}

/// What is known of the rest of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remaining {
    Nothing,
    Exactly(u64),
    Unknown,
}

/// The body of a request or a response. Not `Send`: it lives and dies on its shard.
pub struct Body(Kind);

enum Kind {
    Empty,
    Full(Bytes),
    Request {
        source: Rc<dyn RequestSource>,
        epoch: u32,
    },
    Response(Box<dyn ResponseSource>),
    H2(Box<http2::Incoming>),
    Observed(Box<Observed>),
    Replay(Reader),
    Limited(Box<Limited>),
    Peeked(Box<Peeked>),
    Boxed(Pin<Box<dyn http_body::Body<Data = Bytes, Error = BodyError>>>),
}

impl Body {
    /// A body of no bytes.
    #[must_use]
    pub const fn empty() -> Self {
        Self(Kind::Empty)
    }

    /// A body that is known in whole.
    #[must_use]
    pub fn full(data: impl Into<Bytes>) -> Self {
        let data = data.into();
        if data.is_empty() {
            Self::empty()
        } else {
            Self(Kind::Full(data))
        }
    }

    /// Somebody else's body. Not one of ours inside: what is left of its request would not
    /// move on while its reader is blocked.
    #[must_use]
    pub fn wrap(body: impl http_body::Body<Data = Bytes, Error = BodyError> + 'static) -> Self {
        Self(Kind::Boxed(Box::pin(body)))
    }

    pub(crate) fn request(source: Rc<dyn RequestSource>, epoch: u32) -> Self {
        Self(Kind::Request { source, epoch })
    }

    pub(crate) fn response(source: Box<dyn ResponseSource>) -> Self {
        Self(Kind::Response(source))
    }

    pub(crate) fn h2(incoming: Box<http2::Incoming>) -> Self {
        Self(Kind::H2(incoming))
    }

    pub(crate) fn replay(reader: Reader) -> Self {
        Self(Kind::Replay(reader))
    }

    pub(crate) fn limited(limited: Limited) -> Self {
        Self(Kind::Limited(Box::new(limited)))
    }

    pub(crate) fn peeked(peeked: Peeked) -> Self {
        Self(Kind::Peeked(Box::new(peeked)))
    }

    /// The same body, with somebody watching.
    #[must_use]
    pub fn observed(self, observer: Rc<dyn Observer>) -> Self {
        Self(Kind::Observed(Box::new(Observed {
            body: self,
            observer: Some(observer),
        })))
    }

    /// Whether it is known that nothing more comes.
    #[must_use]
    pub fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::Full(_) => false,
            Kind::Request { source, epoch } => source.remaining(*epoch) == Remaining::Nothing,
            Kind::Response(source) => source.remaining() == Remaining::Nothing,
            Kind::H2(incoming) => incoming.is_end_stream(),
            Kind::Observed(observed) => observed.body.is_end_stream(),
            Kind::Replay(reader) => reader.is_end_stream(),
            Kind::Limited(limited) => limited.is_end_stream(),
            Kind::Peeked(peeked) => peeked.is_end_stream(),
            Kind::Boxed(body) => body.is_end_stream(),
        }
    }

    /// The length of what is still to come, where it is known.
    #[must_use]
    pub fn exact_length(&self) -> Option<u64> {
        let remaining = match &self.0 {
            Kind::Empty => Remaining::Nothing,
            Kind::Full(data) => Remaining::Exactly(data.len() as u64),
            Kind::Request { source, epoch } => source.remaining(*epoch),
            Kind::Response(source) => source.remaining(),
            Kind::H2(incoming) => return incoming.is_end_stream().then_some(0),
            Kind::Observed(observed) => return observed.body.exact_length(),
            Kind::Replay(reader) => reader.remaining(),
            Kind::Limited(limited) => limited.remaining(),
            Kind::Peeked(peeked) => peeked.remaining(),
            Kind::Boxed(body) => return body.size_hint().exact(),
        };
        match remaining {
            Remaining::Nothing => Some(0),
            Remaining::Exactly(length) => Some(length),
            Remaining::Unknown => None,
        }
    }

    /// The same body once more, if it is here in whole or is kept: so a request can be sent
    /// again. Whether it can be then, [`Self::is_whole`] tells.
    #[must_use]
    pub fn copy(&self) -> Option<Self> {
        match &self.0 {
            Kind::Empty => Some(Self::empty()),
            Kind::Full(data) => Some(Self(Kind::Full(data.clone()))),
            Kind::Replay(reader) => reader.again().map(Self::replay),
            _ => None,
        }
    }

    /// Whether a copy, of which nothing was taken, still gives the whole body: of one that is
    /// kept something may have been lost since.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        match &self.0 {
            Kind::Replay(reader) => reader.is_whole(),
            _ => true,
        }
    }

    /// Whether the body is here in whole.
    #[must_use]
    pub fn is_here(&self) -> bool {
        matches!(self.0, Kind::Empty | Kind::Full(_))
    }

    /// Take the next frame. After the end it goes on answering `None`, unless the
    /// connection was turned into a tunnel meanwhile.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Next {
        match &mut self.0 {
            Kind::Empty => Poll::Ready(None),
            Kind::Full(data) => {
                let data = std::mem::take(data);
                self.0 = Kind::Empty;
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Kind::Request { source, epoch } => source.poll_frame(*epoch, cx),
            Kind::Response(source) => {
                let next = source.poll_frame(cx);
                self.release_if_over();
                next
            }
            Kind::H2(incoming) => incoming.poll_frame(cx),
            Kind::Observed(observed) => observed.poll_next(cx),
            Kind::Replay(reader) => reader.poll_frame(cx),
            Kind::Limited(limited) => limited.poll_next(cx),
            Kind::Peeked(peeked) => peeked.poll_next(cx),
            Kind::Boxed(body) => body.as_mut().poll_frame(cx),
        }
    }

    /// Whether a request body goes the other way still.
    pub(crate) fn uploads(&self) -> bool {
        match &self.0 {
            Kind::Response(source) => source.uploads(),
            Kind::H2(incoming) => incoming.uploads(),
            Kind::Observed(observed) => observed.body.uploads(),
            Kind::Limited(limited) => limited.uploads(),
            Kind::Peeked(peeked) => peeked.uploads(),
            _ => false,
        }
    }

    /// Move on what is left of the request body that goes the other way. Ready when nothing
    /// is left of it.
    pub(crate) fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            Kind::Response(source) => {
                let polled = source.poll_upload(cx);
                self.release_if_over();
                polled
            }
            Kind::H2(incoming) => incoming.poll_upload(cx),
            Kind::Observed(observed) => observed.body.poll_upload(cx),
            Kind::Limited(limited) => limited.poll_upload(cx),
            Kind::Peeked(peeked) => peeked.poll_upload(cx),
            _ => Poll::Ready(()),
        }
    }

    fn release_if_over(&mut self) {
        if let Kind::Response(source) = &self.0
            && source.is_over()
            && let Kind::Response(source) = std::mem::replace(&mut self.0, Kind::Empty)
        {
            source.release();
        }
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl From<Bytes> for Body {
    fn from(data: Bytes) -> Self {
        Self::full(data)
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.0 {
            Kind::Empty => "empty",
            Kind::Full(_) => "full",
            Kind::Request { .. } => "http/1 request",
            Kind::Response(_) => "http/1 response",
            Kind::H2(_) => "http/2",
            Kind::Observed(observed) => return observed.body.fmt(f),
            Kind::Replay(_) => "replay",
            Kind::Limited(_) => "limited",
            Kind::Peeked(_) => "peeked",
            Kind::Boxed(_) => "boxed",
        };
        f.debug_tuple("Body").field(&kind).finish()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.poll_next(cx)
    }

    fn is_end_stream(&self) -> bool {
        Self::is_end_stream(self)
    }

    fn size_hint(&self) -> SizeHint {
        self.exact_length()
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

struct Observed {
    body: Body,
    /// Taken when the end was told.
    observer: Option<Rc<dyn Observer>>,
}

impl Observed {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Next {
        let next = self.body.poll_next(cx);
        let Poll::Ready(frame) = &next else {
            return next;
        };
        if let Some(observer) = &self.observer {
            match frame {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        observer.data(data.len());
                    }
                    if let Some(trailers) = frame.trailers_ref() {
                        self.end(&End::Complete {
                            trailers: Some(trailers),
                        });
                    } else if self.body.is_end_stream() {
                        self.end(&End::Complete { trailers: None });
                    }
                }
                Some(Err(error)) => self.end(&End::Failed(error)),
                None => self.end(&End::Complete { trailers: None }),
            }
        }
        next
    }

    fn end(&mut self, end: &End<'_>) {
        if let Some(observer) = self.observer.take() {
            observer.end(match end {
                End::Complete { trailers } => End::Complete {
                    trailers: *trailers,
                },
                End::Failed(error) => End::Failed(error),
                End::Dropped => End::Dropped,
            });
        }
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        if self.observer.is_some() {
            if self.body.is_end_stream() {
                self.end(&End::Complete { trailers: None });
            } else {
                self.end(&End::Dropped);
            }
        }
    }
}

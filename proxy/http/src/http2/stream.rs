//! The two directions of one stream, the same for server and client.

use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue};
use http_body::Frame;

use crate::{Body, BodyError, Reset, body::Next, lease::Lease, refuse::grpc_message};

/// A body that comes in, and on the client's side the rest of the one that goes out.
pub(crate) struct Incoming {
    stream: RecvStream,
    /// Looked at before the others, to see whether it is all.
    first: Option<Bytes>,
    state: State,
    outgoing: Option<Outgoing>,
    /// Held until the body is over.
    _lease: Option<Lease>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Data,
    Trailers,
    Done,
}

impl Incoming {
    pub(super) fn new(
        stream: RecvStream,
        outgoing: Option<Outgoing>,
        lease: Option<Lease>,
    ) -> Self {
        Self {
            stream,
            first: None,
            state: State::Data,
            outgoing,
            _lease: lease,
        }
    }

    /// The body of a request. One that has come in whole with its head, as a unary call of
    /// gRPC has, can be sent a second time where the first server turns it down.
    pub(super) fn request(mut stream: RecvStream) -> Body {
        let mut cx = Context::from_waker(Waker::noop());
        let first = match stream.poll_data(&mut cx) {
            Poll::Ready(Some(Ok(data))) => data,
            // Trailers and errors are met again by the body's first poll.
            Poll::Ready(_) | Poll::Pending => Bytes::new(),
        };
        let _ = stream.flow_control().release_capacity(first.len());
        if stream.is_end_stream() {
            return Body::full(first);
        }
        let mut incoming = Self::new(stream, None, None);
        incoming.first = Some(first).filter(|first| !first.is_empty());
        Body::h2(Box::new(incoming))
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.first.is_none() && (self.state == State::Done || self.stream.is_end_stream())
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Next {
        if let Poll::Ready(Err(PumpError::Body(error))) = self.poll_outgoing(cx) {
            return Poll::Ready(Some(Err(error)));
        }
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        loop {
            match self.state {
                State::Data => match ready!(self.stream.poll_data(cx)) {
                    Some(Ok(data)) => {
                        // It is asked for only when the piece before it was sent on, so the
                        // window is what bounds the memory.
                        let _ = self.stream.flow_control().release_capacity(data.len());
                        if !data.is_empty() {
                            return Poll::Ready(Some(Ok(Frame::data(data))));
                        }
                    }
                    // "The response is complete; send no more" (RFC 9113 §8.1).
                    Some(Err(error)) if error.reason() == Some(Reason::NO_ERROR) => {
                        self.state = State::Done;
                    }
                    Some(Err(error)) => return Poll::Ready(Some(Err(self.fail(error)))),
                    None => self.state = State::Trailers,
                },
                State::Trailers => {
                    let trailers = match ready!(self.stream.poll_trailers(cx)) {
                        Ok(trailers) => trailers,
                        Err(error) => return Poll::Ready(Some(Err(self.fail(error)))),
                    };
                    self.state = State::Done;
                    if let Some(trailers) = trailers {
                        return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                    }
                }
                State::Done => return Poll::Ready(None),
            }
        }
    }

    pub(crate) fn uploads(&self) -> bool {
        self.outgoing.is_some()
    }

    pub(crate) fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_outgoing(cx).map(|_| ())
    }

    fn poll_outgoing(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PumpError>> {
        let Some(outgoing) = &mut self.outgoing else {
            return Poll::Ready(Ok(()));
        };
        let result = ready!(outgoing.poll(cx));
        self.outgoing = None;
        Poll::Ready(result)
    }

    fn fail(&mut self, error: h2::Error) -> BodyError {
        self.state = State::Done;
        body_error(error)
    }
}

/// A body that goes out.
pub(super) struct Outgoing {
    pub(super) body: Body,
    stream: SendStream<Bytes>,
    /// Something of the body was taken.
    pub(super) started: bool,
    /// A failure becomes a `grpc-status`: the client has had its head and waits for one.
    grpc: bool,
}

/// Why a body could not be sent.
pub(super) enum PumpError {
    /// It could not be had; the peer has been told.
    Body(BodyError),
    /// The peer does not want it any more, or is gone; the other direction says more.
    Stream,
}

impl Outgoing {
    pub(super) fn new(body: Body, stream: SendStream<Bytes>, grpc: bool) -> Self {
        Self {
            body,
            stream,
            started: false,
            grpc,
        }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PumpError>> {
        loop {
            ready!(self.poll_room(cx))?;
            let sent = match ready!(self.body.poll_next(cx)) {
                Some(Ok(frame)) => {
                    self.started = true;
                    match frame.into_data() {
                        Ok(data) => {
                            let last = self.body.is_end_stream();
                            if data.is_empty() && !last {
                                continue;
                            }
                            let sent = self.stream.send_data(data, last);
                            if sent.is_ok() && !last {
                                continue;
                            }
                            sent
                        }
                        Err(frame) => match frame.into_trailers() {
                            Ok(trailers) => self.stream.send_trailers(trailers),
                            Err(_) => continue,
                        },
                    }
                }
                None => self.stream.send_data(Bytes::new(), true),
                Some(Err(error)) => {
                    self.fail(&error);
                    return Poll::Ready(Err(PumpError::Body(error)));
                }
            };
            return Poll::Ready(sent.map_err(|_| PumpError::Stream));
        }
    }

    /// Wait until the peer's window takes something. A piece is then given to `h2` whole,
    /// which holds what does not fit.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PumpError>> {
        self.stream.reserve_capacity(1);
        while self.stream.capacity() == 0 {
            match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(Err(PumpError::Stream)),
            }
        }
        match self.stream.poll_reset(cx) {
            Poll::Ready(_) => Poll::Ready(Err(PumpError::Stream)),
            Poll::Pending => Poll::Ready(Ok(())),
        }
    }

    fn fail(&mut self, error: &BodyError) {
        if self.grpc && !matches!(error, BodyError::Reset(_)) {
            let refusal = error.refusal();
            let mut trailers = HeaderMap::with_capacity(2);
            trailers.insert("grpc-status", HeaderValue::from(refusal.reason.grpc_code()));
            trailers.insert("grpc-message", grpc_message(&refusal.message));
            let _ = self.stream.send_trailers(trailers);
            return;
        }
        self.stream.send_reset(match error {
            BodyError::Reset(Reset(reason)) => *reason,
            BodyError::Malformed(_) | BodyError::Length => Reason::PROTOCOL_ERROR,
            BodyError::Incomplete | BodyError::Io(_) | BodyError::Gone | BodyError::Refused(_) => {
                Reason::CANCEL
            }
        });
    }
}

pub(super) fn body_error(error: h2::Error) -> BodyError {
    match error.reason() {
        Some(reason) if error.is_reset() => BodyError::Reset(Reset(reason)),
        _ if error.is_io() => BodyError::Io(
            error
                .into_io()
                .unwrap_or_else(|| std::io::ErrorKind::Other.into()),
        ),
        _ => BodyError::Io(std::io::Error::other(error)),
    }
}

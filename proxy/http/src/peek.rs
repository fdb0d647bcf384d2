//! A response body of which the first frames were looked at.

use std::{
    collections::VecDeque,
    future::poll_fn,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;

use crate::{
    Body, BodyError,
    body::{Next, Remaining},
};

pub(crate) struct Peeked {
    front: VecDeque<Result<Frame<Bytes>, BodyError>>,
    body: Body,
}

impl Body {
    /// Look at the trailers of a body that has at most one frame before them: wait for the
    /// first frame, and take the second only if it is here already, for it may be a stream
    /// that goes on. Returns the trailers, and the body with all that was looked at.
    pub async fn peek_trailers(mut self) -> (Option<HeaderMap>, Self) {
        if self.is_end_stream() {
            return (None, self);
        }
        let mut front = VecDeque::with_capacity(2);
        front.extend(poll_fn(|cx| self.poll_next(cx)).await);
        if matches!(front.front(), Some(Ok(frame)) if frame.is_data()) && !self.is_end_stream() {
            let second = poll_fn(|cx| {
                Poll::Ready(match self.poll_next(cx) {
                    Poll::Ready(next) => next,
                    Poll::Pending => None,
                })
            });
            front.extend(second.await);
        }
        let trailers = match front.back() {
            Some(Ok(frame)) => frame.trailers_ref().cloned(),
            _ => None,
        };
        (trailers, Self::peeked(Peeked { front, body: self }))
    }
}

impl Peeked {
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Next {
        match self.front.pop_front() {
            Some(frame) => Poll::Ready(Some(frame)),
            None => self.body.poll_next(cx),
        }
    }

    pub(crate) fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.body.poll_upload(cx)
    }

    pub(crate) fn uploads(&self) -> bool {
        self.body.uploads()
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.front.is_empty() && self.body.is_end_stream()
    }

    pub(crate) fn remaining(&self) -> Remaining {
        let mut length = 0;
        for frame in &self.front {
            match frame {
                Ok(frame) if let Some(data) = frame.data_ref() => length += data.len() as u64,
                _ => return Remaining::Unknown,
            }
        }
        match self.body.exact_length() {
            None => Remaining::Unknown,
            Some(rest) if rest + length == 0 => Remaining::Nothing,
            Some(rest) => Remaining::Exactly(rest + length),
        }
    }
}

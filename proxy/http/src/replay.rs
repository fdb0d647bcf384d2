//! A request body that can be sent a second time.
//!
//! What is sent is kept until the answer is accepted, up to a limit. A second reading gives
//! what was kept, byte for byte, and goes on with what still comes from the client; or it is
//! refused, when something was not kept. There is one reader at a time: a newer one begins
//! with its first poll, and what an older exchange still holds reads nothing any more. So no
//! byte is sent twice in one try, whenever the try before it failed.
//!
//! Small pieces are copied and large ones shared: a client that sends single bytes does not
//! make us keep a handle for each.

use std::{cell::RefCell, cmp::Ordering, rc::Rc, task::Context};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::Frame;
use tokio::time::Instant;

use crate::{
    Body, BodyError,
    body::{Next, Remaining},
};

/// From this length on a piece is shared instead of copied.
const SHARED: usize = 4 * 1024;

/// The hold that somebody who decides about another try has on a request body.
#[derive(Clone)]
pub struct Replay(Rc<RefCell<State>>);

/// One reading of the body.
pub(crate) struct Reader {
    state: Rc<RefCell<State>>,
    number: u32,
}

#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct State {
    source: Body,
    limit: usize,
    /// What is taken is kept, for another reading.
    keeps: bool,
    /// All that was taken is kept.
    whole: bool,
    /// Readers that may still read.
    readers: usize,
    pieces: Vec<Bytes>,
    /// Small pieces behind the others.
    tail: BytesMut,
    kept: usize,
    trailers: Option<HeaderMap>,
    /// The source has given all.
    ended: bool,
    /// The reader that reads, and whether it is still there.
    reader: u32,
    led: bool,
    /// The number of the last one that was made.
    last: u32,
    at: At,
    /// When the last frame was handed on, and whether it was the last of all.
    moved: Instant,
    flushed: Option<Instant>,
}

/// Where the reader is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    /// At this kept piece.
    Kept(usize),
    /// Past all that is kept.
    Source,
    Over,
}

impl Replay {
    /// Wrap a body; at most `limit` bytes of it are kept. One that is known to be longer is
    /// not kept at all.
    #[must_use]
    pub fn new(body: Body, limit: usize) -> (Body, Self) {
        let length = body.exact_length().unwrap_or(0);
        let fits = usize::try_from(length).is_ok_and(|length| length <= limit);
        let now = Instant::now();
        let ended = body.is_end_stream();
        let state = Rc::new(RefCell::new(State {
            source: body,
            limit: if fits { limit } else { 0 },
            keeps: true,
            whole: true,
            readers: 1,
            pieces: Vec::new(),
            tail: BytesMut::new(),
            kept: 0,
            trailers: None,
            ended,
            reader: 0,
            led: true,
            last: 0,
            at: if ended { At::Over } else { At::Source },
            moved: now,
            flushed: ended.then_some(now),
        }));
        let reader = Reader {
            state: Rc::clone(&state),
            number: 0,
        };
        (Body::replay(reader), Self(state))
    }

    /// The body once more, from its start; none where something of it is gone. Whoever has
    /// read it so far reads no more.
    #[must_use]
    pub fn again(&self) -> Option<Body> {
        let reader = Reader::next(&self.0)?;
        self.0.borrow_mut().begin(reader.number);
        Some(Body::replay(reader))
    }

    /// The body for somebody else, where it has come in whole and all of it is kept.
    #[must_use]
    pub fn snapshot(&self) -> Option<Body> {
        let mut state = self.0.borrow_mut();
        if !state.ended || !state.whole {
            return None;
        }
        state.seal();
        let copy = State {
            source: Body::empty(),
            pieces: state.pieces.clone(),
            tail: BytesMut::new(),
            trailers: state.trailers.clone(),
            readers: 1,
            reader: 0,
            led: true,
            last: 0,
            at: At::Kept(0),
            flushed: None,
            ..*state
        };
        let state = Rc::new(RefCell::new(copy));
        Some(Body::replay(Reader { state, number: 0 }))
    }

    /// Whether [`Self::again`] has it.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let state = self.0.borrow();
        state.keeps && state.whole
    }

    /// Nobody will want it again: keep no more, and of what was kept only what is still to be
    /// read. A stream may go on for days.
    pub fn release(&self) {
        let mut state = self.0.borrow_mut();
        state.keeps = false;
        state.settle();
    }

    /// When the reader in charge had handed all of it on.
    #[must_use]
    pub fn flushed(&self) -> Option<Instant> {
        self.0.borrow().flushed
    }

    /// When something of it was handed on last.
    #[must_use]
    pub fn moved(&self) -> Instant {
        self.0.borrow().moved
    }
}

impl std::fmt::Debug for Replay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.0.borrow();
        f.debug_struct("Replay")
            .field("kept", &state.kept)
            .field("whole", &state.whole)
            .finish_non_exhaustive()
    }
}

impl Reader {
    fn next(state: &Rc<RefCell<State>>) -> Option<Self> {
        let number = {
            let mut state = state.borrow_mut();
            if !state.keeps || !state.whole {
                return None;
            }
            state.last += 1;
            state.readers += 1;
            state.last
        };
        Some(Self {
            state: Rc::clone(state),
            number,
        })
    }

    pub(crate) fn again(&self) -> Option<Self> {
        Self::next(&self.state)
    }

    /// Whether it can give the body from its start.
    pub(crate) fn is_whole(&self) -> bool {
        self.state.borrow().whole
    }

    pub(crate) fn poll_frame(&self, cx: &mut Context<'_>) -> Next {
        self.state.borrow_mut().poll_frame(self.number, cx)
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.state.borrow().is_end_stream(self.number)
    }

    pub(crate) fn remaining(&self) -> Remaining {
        self.state.borrow().remaining(self.number)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.state.borrow_mut();
        state.readers -= 1;
        state.led &= self.number != state.reader;
        state.settle();
    }
}

impl State {
    /// Let go of what nobody will read: all readers are gone, or the only one is past it.
    fn settle(&mut self) {
        let past = self.led && self.readers == 1 && !matches!(self.at, At::Kept(_));
        if !self.keeps && (self.readers == 0 || past) {
            self.forget();
        }
    }

    /// No other reading is possible, or wanted.
    fn forget(&mut self) {
        self.keeps = false;
        self.whole = false;
        self.pieces = Vec::new();
        self.tail = BytesMut::new();
        self.kept = 0;
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push(self.tail.split().freeze());
        }
    }

    fn begin(&mut self, reader: u32) {
        self.reader = reader;
        self.led = true;
        self.seal();
        self.at = At::Kept(0);
        self.flushed = None;
    }

    fn poll_frame(&mut self, reader: u32, cx: &mut Context<'_>) -> Next {
        use std::task::Poll::Ready;
        if reader > self.reader && self.whole {
            self.begin(reader);
        }
        if reader != self.reader {
            return Ready(Some(Err(BodyError::Gone)));
        }
        if let At::Kept(index) = self.at {
            if let Some(piece) = self.pieces.get(index) {
                let data = piece.clone();
                self.at = At::Kept(index + 1);
                self.progress();
                return Ready(Some(Ok(Frame::data(data))));
            }
            self.at = At::Source;
            self.settle();
        }
        if self.at == At::Over {
            return Ready(None);
        }
        if self.ended {
            self.at = At::Over;
            self.progress();
            let trailers = self.trailers.clone();
            return Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let next = std::task::ready!(self.source.poll_next(cx));
        match &next {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.keep(data);
                    self.ended = self.source.is_end_stream();
                } else if let Some(trailers) = frame.trailers_ref() {
                    self.keep_trailers(trailers);
                    self.ended = true;
                }
            }
            Some(Err(_)) => {
                self.forget();
            }
            None => self.ended = true,
        }
        if self.ended {
            self.at = At::Over;
        }
        self.progress();
        Ready(next)
    }

    /// Something was handed on.
    fn progress(&mut self) {
        self.moved = Instant::now();
        let all = self.ended && self.trailers.is_none() && self.at == At::Kept(self.pieces.len());
        if all || self.at == At::Over {
            self.at = At::Over;
            self.flushed = Some(self.moved);
        }
    }

    fn keep(&mut self, data: &Bytes) {
        if !self.has_room(data.len()) {
            return;
        }
        if data.len() >= SHARED {
            self.seal();
            self.pieces.push(data.clone());
        } else {
            self.tail.extend_from_slice(data);
        }
    }

    fn keep_trailers(&mut self, trailers: &HeaderMap) {
        let length = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
            name.as_str().len() + value.len()
        };
        if self.has_room(trailers.iter().map(length).sum()) {
            self.trailers = Some(trailers.clone());
        }
    }

    fn has_room(&mut self, length: usize) -> bool {
        if !self.keeps || self.kept + length > self.limit {
            self.forget();
            return false;
        }
        self.kept += length;
        true
    }

    fn is_end_stream(&self, reader: u32) -> bool {
        if reader > self.reader {
            return self.ended && self.kept == 0 && self.whole;
        }
        reader == self.reader
            && match self.at {
                At::Kept(_) => false,
                At::Source => self.source.is_end_stream() && self.trailers.is_none(),
                At::Over => true,
            }
    }

    fn remaining(&self, reader: u32) -> Remaining {
        let lengths = |pieces: &[Bytes]| pieces.iter().map(Bytes::len).sum::<usize>();
        let ahead = match (reader.cmp(&self.reader), self.at) {
            (Ordering::Less, _) => return Remaining::Unknown,
            (Ordering::Greater, _) => lengths(&self.pieces) + self.tail.len(),
            (Ordering::Equal, At::Kept(index)) => lengths(&self.pieces[index..]),
            (Ordering::Equal, At::Source) => 0,
            (Ordering::Equal, At::Over) => return Remaining::Nothing,
        };
        if self.trailers.is_some() {
            // A length would leave no place for what follows the data.
            return Remaining::Unknown;
        }
        let source = if self.ended {
            Some(0)
        } else {
            self.source.exact_length()
        };
        match source.map(|source| source + ahead as u64) {
            Some(0) => Remaining::Nothing,
            Some(length) => Remaining::Exactly(length),
            None => Remaining::Unknown,
        }
    }
}

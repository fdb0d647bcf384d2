//! A connection with what was read and not used yet, and what is to be written.
//!
//! An idle connection holds no buffer. Reads go into a scratch buffer of the thread and what
//! arrived is copied into a piece of its own size, because a head is small and lives as long
//! as its request; only a body that comes in big pieces is read into a buffer directly.
//! Writes are gathered, so that a head and the first piece of its body leave in one call and,
//! under TLS, in one record.

use std::{
    cell::RefCell,
    collections::VecDeque,
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::parse::Length;

/// A TLS record's plaintext: one read never brings more from one.
const SCRATCH: usize = 16 * 1024;
/// From a read of this size on, the next one goes into a buffer of the body's own.
const BULK: usize = 8 * 1024;
/// What a bulk body reads into: four TLS records for one allocation.
const BULK_BUFFER: usize = 64 * 1024;
/// Data up to this size is copied behind the head rather than written from where it is.
const SMALL: usize = 2 * 1024;
/// No more small data is gathered beyond this.
const STAGED_MAX: usize = 16 * 1024;
/// Slices in one vectored write.
const SLICES: usize = 16;

thread_local! {
    static READ: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH]);
    /// Buffers for heads, which connections only hold while they have something to write.
    static STAGING: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// The two sides of a byte stream, as one connection uses them.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Unpin + 'static> Stream for T {}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct Buffered<I> {
    io: I,
    /// Read and not used yet.
    pub input: BytesMut,
    /// How much of it was looked at in vain.
    looked_at: usize,
    /// The peer has closed its side.
    pub eof: bool,
    /// Data comes in big pieces.
    bulk: bool,
    staged: Vec<u8>,
    queue: VecDeque<Bytes>,
    unflushed: bool,
    /// Something was written since this was last set to false.
    pub has_written: bool,
}

impl<I: Stream> Buffered<I> {
    pub(crate) fn new(io: I) -> Self {
        Self {
            io,
            input: BytesMut::new(),
            looked_at: 0,
            eof: false,
            bulk: false,
            staged: Vec::new(),
            queue: VecDeque::new(),
            unflushed: false,
            has_written: false,
        }
    }

    pub(crate) fn io(&self) -> &I {
        &self.io
    }

    /// Read once, behind what is there. `Ok(0)` is the end.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.eof {
            return Poll::Ready(Ok(0));
        }
        READ.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer))?;
            let read = buffer.filled();
            self.eof = read.is_empty();
            self.input.extend_from_slice(read);
            Poll::Ready(Ok(read.len()))
        })
    }

    /// At most `limit` bytes: what was read before, else what one read brings. Empty at the
    /// end.
    pub(crate) fn poll_data(
        &mut self,
        limit: u64,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Bytes>> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        if self.input.is_empty() {
            if self.eof {
                return Poll::Ready(Ok(Bytes::new()));
            }
            if self.bulk && limit > BULK {
                ready!(self.poll_bulk(cx))?;
            } else {
                let read = ready!(self.poll_fill(cx))?;
                self.bulk = read >= BULK;
            }
        }
        Poll::Ready(Ok(self.take_input(limit)))
    }

    fn poll_bulk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.input.capacity() < BULK {
            self.input.reserve(BULK_BUFFER);
        }
        let read = ready!(pin!(self.io.read_buf(&mut self.input)).poll(cx))?;
        self.eof = read == 0;
        if read < BULK {
            // A piece of its own size, so that the big buffer does not stay for it.
            self.bulk = false;
            self.input = BytesMut::from(&self.input[..]);
        }
        Poll::Ready(Ok(()))
    }

    /// Take what is there, at most `limit` bytes.
    pub(crate) fn take_input(&mut self, limit: usize) -> Bytes {
        if self.input.len() > limit || self.bulk {
            let at = limit.min(self.input.len());
            self.input.split_to(at).freeze()
        } else {
            std::mem::take(&mut self.input).freeze()
        }
    }

    /// Whether parsing a head again can have another result than the last time: only a new
    /// line end brings one nearer to its end. So a peer that sends one byte at a time makes
    /// us parse at most once per header, of which there is a limit.
    pub(crate) fn worth_parsing(&mut self, max_head: usize) -> bool {
        let new = &self.input[self.looked_at.min(self.input.len())..];
        let first = self.looked_at == 0;
        let worth =
            !new.is_empty() && (first || new.contains(&b'\n')) || self.input.len() >= max_head;
        self.looked_at = self.input.len();
        worth
    }

    /// A head was taken off the input.
    pub(crate) fn parsed(&mut self) {
        self.looked_at = 0;
    }

    /// The whole body, if it is here and has a known length.
    pub(crate) fn take_whole(&mut self, length: Length) -> Option<Bytes> {
        let Length::Exactly(length) = length else {
            return None;
        };
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length <= self.input.len())?;
        Some(self.take_input(length))
    }

    /// Where a head, or other small things in front of data, are written to.
    pub(crate) fn stage(&mut self) -> &mut Vec<u8> {
        debug_assert!(
            self.queue.is_empty(),
            "what is staged goes before what is queued"
        );
        if self.staged.capacity() == 0 {
            self.staged = STAGING
                .with_borrow_mut(Vec::pop)
                .unwrap_or_else(|| Vec::with_capacity(4 * 1024));
        }
        &mut self.staged
    }

    /// Whether more can be gathered before writing.
    pub(crate) fn has_room(&self) -> bool {
        self.queue.is_empty() && self.staged.len() < STAGED_MAX
    }

    /// Add data behind everything else.
    pub(crate) fn push(&mut self, data: Bytes) {
        let small = if self.io.is_write_vectored() {
            SMALL
        } else {
            STAGED_MAX
        };
        if self.queue.is_empty() && data.len() <= small {
            self.stage().extend_from_slice(&data);
        } else {
            self.queue.push_back(data);
        }
    }

    /// Add a few bytes behind everything else.
    pub(crate) fn push_small(&mut self, bytes: &[u8]) {
        if self.queue.is_empty() {
            self.stage().extend_from_slice(bytes);
        } else {
            self.queue.push_back(Bytes::copy_from_slice(bytes));
        }
    }

    /// Write all that was gathered, and flush.
    pub(crate) fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut written = 0;
        while !self.queue.is_empty() || written < self.staged.len() {
            let result = self.poll_write_once(written, cx);
            match result {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => {
                    self.unflushed = true;
                    self.has_written = true;
                    written += count;
                    while written > self.staged.len() {
                        written -= self.consume_queued(written - self.staged.len());
                    }
                    while self.queue.front().is_some_and(Bytes::is_empty) {
                        self.queue.pop_front();
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.staged.drain(..written);
                    return Poll::Pending;
                }
            }
        }
        if self.staged.capacity() != 0 {
            self.give_staging_back();
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_once(&mut self, written: usize, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let io = Pin::new(&mut self.io);
        let staged = &self.staged[written..];
        if self.queue.is_empty() {
            return io.poll_write(cx, staged);
        }
        if !io.is_write_vectored() {
            let first = if staged.is_empty() {
                &self.queue[0]
            } else {
                staged
            };
            return io.poll_write(cx, first);
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut count = 0;
        let rest = self.queue.iter().map(|data| &data[..]);
        for data in std::iter::once(staged)
            .filter(|staged| !staged.is_empty())
            .chain(rest)
            .take(SLICES)
        {
            slices[count] = IoSlice::new(data);
            count += 1;
        }
        io.poll_write_vectored(cx, &slices[..count])
    }

    /// Take up to `count` written bytes off the queue's front; returns how many.
    fn consume_queued(&mut self, count: usize) -> usize {
        let Some(front) = self.queue.front_mut() else {
            return count;
        };
        let taken = count.min(front.len());
        front.advance(taken);
        if front.is_empty() {
            self.queue.pop_front();
        }
        taken
    }

    fn give_staging_back(&mut self) {
        let mut staged = std::mem::take(&mut self.staged);
        staged.clear();
        if staged.capacity() <= 4 * STAGED_MAX {
            STAGING.with_borrow_mut(|pool| {
                if pool.len() < 32 {
                    pool.push(staged);
                }
            });
        }
    }

    /// Hold nothing that is not needed between two messages.
    pub(crate) fn release_buffers(&mut self) {
        self.bulk = false;
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
    }

    /// Close our side, after all that was gathered.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_out(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    /// Whether nothing is left to be written.
    pub(crate) fn is_written(&self) -> bool {
        self.staged.is_empty() && self.queue.is_empty() && !self.unflushed
    }
}

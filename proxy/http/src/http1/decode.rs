//! Reads bodies. Chunks are merged and cut as they arrive; what travels on is framed anew,
//! so that no chunk extension and no unusual size line gets past us.

use std::task::{Context, Poll, ready};

use bytes::Buf;
use http::HeaderMap;
use http_body::Frame;

use super::{
    io::{Buffered, Stream},
    parse::{self, Length, Limits, Malformed},
};
use crate::body::{BodyError, Next, Remaining};

/// A chunk's size line, extensions included.
const MAX_SIZE_LINE: usize = 256;
/// Extensions are dropped, so what all those of one body cost us is bounded.
const MAX_EXTENSIONS: usize = 16 * 1024;
/// 2^60 bytes are more than any body, and cannot overflow.
const MAX_SIZE_DIGITS: usize = 15;

#[derive(Debug)]
pub(crate) struct Decoder {
    state: State,
    limits: Limits,
    /// Bytes of chunk extensions so far.
    extensions: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Done,
    Failed,
    /// So many bytes are left.
    Length(u64),
    /// At the start of a size line.
    ChunkSize,
    ChunkData(u64),
    /// At the CRLF after a chunk's data.
    ChunkEnd,
    /// Behind the last chunk's size line.
    Trailers,
    /// Until the connection ends.
    Close,
}

/// What the bytes at hand led to.
enum Step {
    Again,
    NeedMore,
    Trailers(HeaderMap),
}

impl Decoder {
    pub(crate) fn new(length: Length, limits: Limits) -> Self {
        let state = match length {
            Length::None => State::Done,
            Length::Exactly(length) => State::Length(length),
            Length::Chunked => State::ChunkSize,
            Length::Close => State::Close,
        };
        Self {
            state,
            limits,
            extensions: 0,
        }
    }

    /// All that comes from here on is the body.
    pub(crate) fn become_tunnel(&mut self) {
        self.state = State::Close;
    }

    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    pub(crate) fn remaining(&self) -> Remaining {
        match self.state {
            State::Done => Remaining::Nothing,
            State::Length(left) => Remaining::Exactly(left),
            _ => Remaining::Unknown,
        }
    }

    pub(crate) fn poll_frame<I: Stream>(
        &mut self,
        io: &mut Buffered<I>,
        cx: &mut Context<'_>,
    ) -> Next {
        let next = self.poll_state(io, cx);
        if let Poll::Ready(Some(Err(_))) = next {
            self.state = State::Failed;
        }
        next
    }

    fn poll_state<I: Stream>(&mut self, io: &mut Buffered<I>, cx: &mut Context<'_>) -> Next {
        loop {
            match self.state {
                State::Done => return Poll::Ready(None),
                State::Failed => return Poll::Ready(Some(Err(BodyError::Gone))),
                State::Length(left) | State::ChunkData(left) => {
                    let data = ready!(io.poll_data(left, cx))?;
                    if data.is_empty() {
                        return Poll::Ready(Some(Err(BodyError::Incomplete)));
                    }
                    self.take(left, data.len(), io);
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                State::Close => {
                    let data = ready!(io.poll_data(u64::MAX, cx))?;
                    if data.is_empty() {
                        self.state = State::Done;
                        return Poll::Ready(None);
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                State::ChunkEnd | State::ChunkSize | State::Trailers => match self.step(io)? {
                    Step::Again => {}
                    Step::NeedMore => {
                        if ready!(io.poll_fill(cx))? == 0 {
                            return Poll::Ready(Some(Err(BodyError::Incomplete)));
                        }
                    }
                    Step::Trailers(trailers) => {
                        return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                    }
                },
            }
        }
    }

    fn take<I: Stream>(&mut self, left: u64, taken: usize, io: &mut Buffered<I>) {
        let left = left - taken as u64;
        self.state = match self.state {
            State::Length(_) if left == 0 => State::Done,
            State::Length(_) => State::Length(left),
            _ if left > 0 => State::ChunkData(left),
            _ => State::ChunkEnd,
        };
        // Often the end of the body is here already, and its reader need not ask again. An
        // error is met again by the reader's next poll, after the data in front of it.
        while matches!(self.state, State::ChunkEnd | State::ChunkSize)
            || (self.state == State::Trailers && io.input.starts_with(b"\r\n"))
        {
            if !matches!(self.step(io), Ok(Step::Again)) {
                break;
            }
        }
    }

    fn step<I: Stream>(&mut self, io: &mut Buffered<I>) -> Result<Step, BodyError> {
        match self.state {
            State::ChunkEnd => {
                if !b"\r\n".starts_with(&io.input[..io.input.len().min(2)]) {
                    return Err(BodyError::Malformed("no line end after a chunk"));
                }
                if io.input.len() < 2 {
                    return Ok(Step::NeedMore);
                }
                io.input.advance(2);
                self.state = State::ChunkSize;
            }
            State::ChunkSize => {
                let line = &io.input[..io.input.len().min(MAX_SIZE_LINE)];
                let Some(end) = line.iter().position(|byte| *byte == b'\n') else {
                    return if line.len() == MAX_SIZE_LINE {
                        Err(BodyError::Malformed("a chunk's size line is too long"))
                    } else {
                        Ok(Step::NeedMore)
                    };
                };
                let (size, digits) = parse_size(&line[..end]).map_err(BodyError::Malformed)?;
                self.extensions += end - 1 - digits;
                if self.extensions > MAX_EXTENSIONS {
                    return Err(BodyError::Malformed("too many chunk extensions"));
                }
                io.input.advance(end + 1);
                self.state = if size == 0 {
                    State::Trailers
                } else {
                    State::ChunkData(size)
                };
            }
            State::Trailers => {
                if io.input.starts_with(b"\r\n") {
                    io.input.advance(2);
                    self.state = State::Done;
                    return Ok(Step::Again);
                }
                if !io.worth_parsing(self.limits.max_head) {
                    return Ok(Step::NeedMore);
                }
                let Some(trailers) =
                    parse::trailers(&mut io.input, self.limits).map_err(body_error)?
                else {
                    return Ok(Step::NeedMore);
                };
                io.parsed();
                self.state = State::Done;
                if !trailers.is_empty() {
                    return Ok(Step::Trailers(trailers));
                }
            }
            _ => {}
        }
        Ok(Step::Again)
    }
}

/// The size on a chunk's size line, which comes without its LF, and how many digits it has.
fn parse_size(line: &[u8]) -> Result<(u64, usize), &'static str> {
    let Some(line) = line.strip_suffix(b"\r") else {
        return Err("a chunk's size line ends in a bare LF");
    };
    let digits = line
        .iter()
        .take_while(|byte| byte.is_ascii_hexdigit())
        .count();
    if digits == 0 || digits > MAX_SIZE_DIGITS {
        return Err("invalid chunk size");
    }
    let extension = &line[digits..];
    let blanks = extension
        .iter()
        .take_while(|byte| matches!(byte, b' ' | b'\t'))
        .count();
    // Blanks are allowed before an extension and, since some servers pad, at the end.
    if extension.get(blanks).is_some_and(|byte| *byte != b';') {
        return Err("invalid chunk size");
    }
    if extension
        .iter()
        .any(|byte| byte.is_ascii_control() && *byte != b'\t')
    {
        return Err("control character in a chunk extension");
    }
    let size = line[..digits].iter().fold(0_u64, |size, digit| {
        size * 16 + u64::from(char::from(*digit).to_digit(16).unwrap_or(0))
    });
    Ok((size, digits))
}

fn body_error(malformed: Malformed) -> BodyError {
    BodyError::Malformed(match malformed {
        Malformed::Syntax(what) => what,
        Malformed::TooLarge => "the trailers are larger than the limit",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_line_has_one_meaning_or_none() {
        assert_eq!(parse_size(b"1aF\r"), Ok((0x1af, 3)));
        assert_eq!(parse_size(b"0\r"), Ok((0, 1)));
        assert_eq!(parse_size(b"5;name=value\r"), Ok((5, 1)));
        assert_eq!(parse_size(b"5  \r"), Ok((5, 1)));
        for wrong in [
            &b"\r"[..],
            b"5",
            b"+5\r",
            b"-5\r",
            b"0x5\r",
            b" 5\r",
            b"5 5\r",
            b"5\x0b\r",
            b"5;a\rb\r",
            b"5;\0\r",
            b"1000000000000000\r",
            b";a\r",
        ] {
            assert!(
                parse_size(wrong).is_err(),
                "{:?}",
                String::from_utf8_lossy(wrong)
            );
        }
    }
}

//! HTTP/1.1: answers with a `content-length`, and nothing else.

use std::{future::poll_fn, pin::Pin, task::ready};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWriteExt, ReadBuf},
    net::TcpStream,
};

use super::Scratch;
use crate::{
    arguments::Load,
    wire::{self, head_end, header},
};

const MAX_HEAD: usize = 16 << 10;

/// A connection.
pub struct Client {
    stream: TcpStream,
    request: Bytes,
    size: usize,
    scratch: Scratch,
    head: Vec<u8>,
    /// The last answer said that it is the last.
    closing: bool,
}

impl Client {
    /// Use a connected stream.
    pub fn new(stream: TcpStream, load: &Load, scratch: Scratch) -> Self {
        let request = wire::http1_request(&load.host, load.body, load.keepalive);
        Self {
            stream,
            request,
            size: load.body,
            scratch,
            head: Vec::new(),
            closing: false,
        }
    }

    /// Tell whether the server has not yet closed it, nor said that it will.
    pub async fn reusable(&self) -> bool {
        !self.closing && super::open(&self.stream).await
    }

    /// Make one request.
    pub async fn request(&mut self) -> anyhow::Result<usize> {
        self.stream.write_all(&self.request).await?;
        self.head.clear();
        let head = self.head().await?;
        self.closing = head.closing;
        let mut left = head.left;
        while left > 0 {
            let read = self.read().await?;
            if read == 0 || read > left {
                bail!("the body has not the stated length");
            }
            left -= read;
        }
        Ok(self.size)
    }

    async fn head(&mut self) -> anyhow::Result<Head> {
        loop {
            let read = self.read().await?;
            let scratch = self.scratch.0.borrow();
            // Nearly always the whole head comes at once and is not copied.
            let end = if self.head.is_empty() {
                head_end(&scratch[..read]).map(|end| (facts(&scratch[..end]), end))
            } else {
                let before = self.head.len();
                self.head.extend_from_slice(&scratch[..read]);
                head_end(&self.head).map(|end| (facts(&self.head[..end]), end - before))
            };
            if let Some((facts, end)) = end {
                let (length, closing) = facts?;
                if length != self.size {
                    bail!("asked for {} bytes, offered {length}", self.size);
                }
                let left = length
                    .checked_sub(read - end)
                    .context("the body has more than its stated length")?;
                return Ok(Head { left, closing });
            }
            if read == 0 || self.head.len() + read > MAX_HEAD {
                bail!("the connection ended before the answer");
            }
            if self.head.is_empty() {
                self.head.extend_from_slice(&scratch[..read]);
            }
        }
    }

    async fn read(&mut self) -> anyhow::Result<usize> {
        poll_fn(|context| {
            let mut scratch = self.scratch.0.borrow_mut();
            let mut buffer = ReadBuf::new(&mut scratch);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
            Ok(buffer.filled().len()).into()
        })
        .await
    }
}

/// What the head of an answer leaves to do.
struct Head {
    /// How much of the body is still to come.
    left: usize,
    /// Whether no other answer follows.
    closing: bool,
}

/// Return the length of the body and whether the connection ends after it.
fn facts(head: &[u8]) -> anyhow::Result<(usize, bool)> {
    if !head.starts_with(b"HTTP/1.1 200") {
        let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        bail!("{}", String::from_utf8_lossy(line));
    }
    let length = header(head, b"content-length").context("the answer has no content-length")?;
    let closing =
        header(head, b"connection").is_some_and(|value| value.eq_ignore_ascii_case(b"close"));
    Ok((std::str::from_utf8(length)?.parse()?, closing))
}

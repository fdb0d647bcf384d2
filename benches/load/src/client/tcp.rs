//! Requests and answers that begin with their length: to a proxy, bytes.

use std::{future::poll_fn, pin::Pin, task::ready};

use anyhow::bail;
use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWriteExt, ReadBuf},
    net::TcpStream,
};

use super::Scratch;
use crate::{
    arguments::Load,
    wire::{self, TCP_PREFIX},
};

/// A connection.
pub struct Client {
    stream: TcpStream,
    request: Bytes,
    size: usize,
    scratch: Scratch,
}

impl Client {
    /// Use a connected stream.
    pub fn new(stream: TcpStream, load: &Load, scratch: Scratch) -> anyhow::Result<Self> {
        let request = wire::tcp_request(u32::try_from(load.body)?);
        Ok(Self {
            stream,
            request,
            size: load.body,
            scratch,
        })
    }

    /// Tell whether the server has not yet closed it.
    pub async fn reusable(&self) -> bool {
        super::open(&self.stream).await
    }

    /// Make one request.
    pub async fn request(&mut self) -> anyhow::Result<usize> {
        self.stream.write_all(&self.request).await?;
        let whole = TCP_PREFIX + self.size;
        let mut done = 0;
        while done < whole {
            let read = poll_fn(|context| {
                let mut scratch = self.scratch.0.borrow_mut();
                let mut buffer = ReadBuf::new(&mut scratch);
                ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
                std::io::Result::Ok(buffer.filled().len()).into()
            })
            .await?;
            if read == 0 || done + read > whole {
                bail!("the answer has not the length that was asked for");
            }
            done += read;
        }
        Ok(self.size)
    }
}

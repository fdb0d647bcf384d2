//! gRPC: unary calls, one at a time on each HTTP/2 connection, with their trailers.

use std::{future::poll_fn, task::Poll};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};
use tokio::net::TcpStream;

use crate::{
    arguments::Load,
    wire::{self, CONNECTION_WINDOW, GRPC_PREFIX, METHOD, STREAM_WINDOW},
};

/// A connection.
pub struct Client {
    send: Option<SendRequest<Bytes>>,
    uri: Uri,
    message: Bytes,
    size: usize,
}

impl Client {
    /// Begin HTTP/2 on a connected stream.
    pub async fn new(stream: TcpStream, load: &Load) -> anyhow::Result<Self> {
        let (send, connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(stream)
            .await?;
        tokio::task::spawn_local(connection);
        Ok(Self {
            send: Some(send),
            uri: format!("http://{}{METHOD}", load.host).parse()?,
            message: wire::grpc_request(u32::try_from(load.body)?),
            size: load.body,
        })
    }

    /// Tell whether the server has not yet ended it.
    pub async fn reusable(&mut self) -> bool {
        let Some(send) = &mut self.send else {
            return false;
        };
        poll_fn(|context| Poll::Ready(!matches!(send.poll_ready(context), Poll::Ready(Err(_)))))
            .await
    }

    /// Make one call.
    pub async fn request(&mut self) -> anyhow::Result<usize> {
        let send = self.send.take().context("the connection has ended")?;
        let mut send = send.ready().await?;
        let (answer, mut body) = send.send_request(self.head(), false)?;
        self.send = Some(send);
        body.send_data(self.message.clone(), true)?;
        let answer = answer.await?;
        if answer.status() != 200 {
            bail!("HTTP status {}", answer.status());
        }
        if let Some(early) = answer.headers().get("grpc-status") {
            bail!(
                "grpc-status {early:?} without an answer: {:?}",
                answer.headers().get("grpc-message")
            );
        }
        let mut body = answer.into_body();
        let mut read = 0;
        while let Some(data) = body.data().await {
            let length = data?.len();
            read += length;
            body.flow_control().release_capacity(length)?;
        }
        let trailers = body
            .trailers()
            .await?
            .context("the answer has no trailers")?;
        if trailers.get("grpc-status").map(HeaderValue::as_bytes) != Some(b"0") {
            bail!("grpc-status {:?}", trailers.get("grpc-status"));
        }
        if read != GRPC_PREFIX + self.size {
            bail!("the message has not the length that was asked for");
        }
        Ok(self.size)
    }

    fn head(&self) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = HeaderMap::from_iter([
            (
                http::header::CONTENT_TYPE,
                HeaderValue::from_static("application/grpc"),
            ),
            (http::header::TE, HeaderValue::from_static("trailers")),
            (
                http::header::USER_AGENT,
                HeaderValue::from_static("tulle-load/1"),
            ),
        ]);
        request
    }
}

//! Keeps a stream of the control plane open.
//!
//! A stream may end at any time and for any reason; what it said stays true until the next
//! one says otherwise. Only the codes that mean "asking is useless" end the following.

use std::{marker::PhantomData, time::Duration};

use http::uri::PathAndQuery;
use prost::Message;
use tokio::time::{self, Instant};
use tonic::{
    Code, Request, Status, Streaming,
    client::Grpc,
    codec::{BufferSettings, Codec},
    metadata::MetadataValue,
};
use tonic_prost::ProstCodec;
use tracing::debug;
use tulle_config::{Backoff, StreamLimits};

use crate::{ControlChannel, backoff::Pauses, recovery::Probe};

/// Tonic takes 8 KiB per stream ahead of the first message; most messages have less than 1.
const BUFFER: usize = 512;

/// 50,000 endpoints with their labels.
const MAX_MESSAGE: usize = 32 * 1024 * 1024;

/// A stream that lived so long was a good one: the next pause is short again.
const PROVEN: Duration = Duration::from_secs(1);

/// The request metadata that names capabilities.
const CAPABILITIES: &str = "tulle-capabilities";

/// What to follow.
pub(crate) struct Follow<Q> {
    pub(crate) channel: ControlChannel,
    pub(crate) path: &'static str,
    pub(crate) request: Q,
    pub(crate) limits: StreamLimits,
    pub(crate) backoff: Backoff,
    /// Codes that end it.
    pub(crate) terminal: &'static [Code],
    /// What the peer is told that this proxy understands, by commas.
    pub(crate) capabilities: Option<&'static str>,
}

/// How one stream ended.
enum Ended {
    /// By the peer's choice, or past our own limits.
    Cleanly,
    /// No first message in time, which was pause enough.
    Silent,
    Failed(Status),
}

impl<Q: Message + Clone + 'static> Follow<Q> {
    /// Hand every message to `on`, with whether it is the first of its stream, until the
    /// control plane answers with a terminal code. That answer is returned.
    pub(crate) async fn run<M>(&self, mut on: impl FnMut(M, bool)) -> Status
    where
        M: Message + Default + 'static,
    {
        let mut pauses = Pauses::new(self.backoff.min, self.backoff.max);
        let mut probe: Option<Probe> = None;
        loop {
            let opened = Instant::now();
            let mut fresh = true;
            let ended = self
                .stream(|message| {
                    if fresh {
                        probe = None;
                        self.channel.recovery().recovered();
                    }
                    on(message, fresh);
                    fresh = false;
                })
                .await;
            if !fresh && opened.elapsed() >= PROVEN {
                pauses.reset();
            }
            match ended {
                Ended::Failed(status) if self.terminal.contains(&status.code()) => return status,
                Ended::Failed(status) => {
                    debug!(path = self.path, code = ?status.code(), message = status.message(), "stream ended");
                    let pause = pauses.next(rand::random());
                    if concerns_all(status.code()) {
                        self.channel
                            .recovery()
                            .pause(&mut probe, pause, rand::random())
                            .await;
                        continue;
                    }
                    time::sleep(pause).await;
                }
                Ended::Cleanly if fresh => time::sleep(pauses.next(rand::random())).await,
                Ended::Cleanly | Ended::Silent => {
                    time::sleep(self.backoff.min.mul_f64(1.0 - rand::random::<f64>() / 2.0)).await;
                }
            }
            probe = None;
        }
    }

    /// One stream from its opening to its end.
    async fn stream<M>(&self, mut on: impl FnMut(M)) -> Ended
    where
        M: Message + Default + 'static,
    {
        self.channel.connected().await;
        let opened = Instant::now();
        let initial = self.limits.initial.map(|initial| opened + initial);
        // Boxed: opening takes far more room than reading, and only for a moment.
        let opening = Box::pin(self.open());
        let mut stream = match within(initial, opening).await {
            Some(Ok(stream)) => stream,
            Some(Err(status)) => return Ended::Failed(status),
            None => return Ended::Silent,
        };
        let mut deadline = initial;
        let mut heard = false;
        loop {
            match within(deadline, stream.message()).await {
                Some(Ok(Some(message))) => on(message),
                Some(Ok(None)) => return Ended::Cleanly,
                Some(Err(status)) => return Ended::Failed(status),
                None if heard => return Ended::Cleanly,
                None => return Ended::Silent,
            }
            heard = true;
            let idle = self.limits.idle.map(|idle| Instant::now() + idle);
            let lifetime = self.limits.lifetime.map(|lifetime| opened + lifetime);
            deadline = [idle, lifetime].into_iter().flatten().min();
        }
    }

    async fn open<M>(&self) -> Result<Streaming<M>, Status>
    where
        M: Message + Default + 'static,
    {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        let path = PathAndQuery::from_static(self.path);
        let mut request = Request::new(self.request.clone());
        if let Some(capabilities) = self.capabilities {
            let value = MetadataValue::from_static(capabilities);
            request.metadata_mut().insert(CAPABILITIES, value);
        }
        let response = grpc
            .server_streaming(request, path, SmallBuffers::default())
            .await?;
        Ok(response.into_inner())
    }
}

/// Whether a failure is likely to be every stream's, and not of what this one asks.
fn concerns_all(code: Code) -> bool {
    !matches!(
        code,
        Code::NotFound | Code::PermissionDenied | Code::Unauthenticated
    )
}

async fn within<F: Future>(deadline: Option<Instant>, future: F) -> Option<F::Output> {
    match deadline {
        Some(deadline) => time::timeout_at(deadline, future).await.ok(),
        None => Some(future.await),
    }
}

/// Protobuf with buffers that fit thousands of streams.
struct SmallBuffers<Q, M>(PhantomData<(Q, M)>);

impl<Q, M> Default for SmallBuffers<Q, M> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<Q, M> Codec for SmallBuffers<Q, M>
where
    Q: Message + 'static,
    M: Message + Default + 'static,
{
    type Encode = Q;
    type Decode = M;
    type Encoder = <ProstCodec<Q, M> as Codec>::Encoder;
    type Decoder = <ProstCodec<Q, M> as Codec>::Decoder;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<Q, M>::raw_encoder(BufferSettings::new(BUFFER, BUFFER))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<Q, M>::raw_decoder(BufferSettings::new(BUFFER, BUFFER))
    }
}

//! Copies of requests for another backend, whose answers nobody waits for.
//!
//! A copy never holds the request up: one whose body is here goes at once, any other when
//! the primary has been answered, which it rarely is before its body is whole. What is too
//! long to be kept is not copied, and where too many copies are on their way none is added.

use std::{rc::Rc, sync::Arc, time::Duration};

use http_body::Body as _;
use tokio::time::{Instant, timeout};
use tulle_http::{Body, End, Interim, Request};
use tulle_policy::{Backend, Meta};
use tulle_telemetry::ResponseFacts;

use crate::{
    Shard,
    balancer::Balancer,
    destination::{Compiled, RouteMetrics},
    node::Attempt,
};

/// A longer request is not copied.
pub(crate) const MAX_BYTES: usize = 64 * 1024;

/// Copies on their way, per shard. With bodies of the size above, 16 MiB.
const MAX_COPIES: usize = 256;

/// Time for one copy, from the choice of an endpoint to the end of the answer.
const COPY_TIME: Duration = Duration::from_secs(10);

/// What of an answer that nobody wants is read, so that its connection can be used again.
const DRAIN_BYTES: usize = 64 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// A backend that gets a copy.
pub(crate) struct Target {
    balancer: Rc<Balancer>,
    metrics: Rc<RouteMetrics>,
}

impl Target {
    /// None where the backend does not exist.
    pub(crate) fn new(
        compiled: &Compiled,
        route: &Arc<Meta>,
        backend: &Arc<Backend>,
        grpc: bool,
    ) -> Option<Self> {
        Some(Self {
            balancer: compiled.mirror(backend)?,
            metrics: compiled.metrics(route, backend, grpc),
        })
    }
}

/// A request to be copied.
pub(crate) struct Mirrored {
    shard: Rc<Shard>,
    head: http::Request<()>,
    targets: Box<[Target]>,
}

impl Mirrored {
    pub(crate) fn new(shard: &Rc<Shard>, head: http::Request<()>, targets: Box<[Target]>) -> Self {
        Self {
            shard: shard.clone(),
            head,
            targets,
        }
    }

    /// Send the copies, where the body can be copied.
    pub(crate) fn send(self, body: impl Fn() -> Option<Body>) {
        for target in self.targets {
            if self.shard.copies.get() >= MAX_COPIES {
                return;
            }
            let Some(body) = body() else { return };
            let request = self.head.clone().map(|()| body);
            let place = Place::take(&self.shard);
            tokio::task::spawn_local(async move {
                let sent = timeout(COPY_TIME, send(&place.0, &target, request));
                if sent.await.is_err() {
                    tracing::debug!("a copy of a request took too long");
                }
            });
        }
    }
}

/// One copy on its way.
struct Place(Rc<Shard>);

impl Place {
    fn take(shard: &Rc<Shard>) -> Self {
        shard.copies.set(shard.copies.get() + 1);
        Self(shard.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.copies.set(self.0.copies.get() - 1);
    }
}

async fn send(shard: &Shard, target: &Target, request: Request) {
    target.metrics.backend.begin();
    let queue = shard.config.outbound.queue_capacity;
    let Ok(node) = target.balancer.choose(queue).await else {
        return;
    };
    let attempt = Attempt::start(node);
    let begun = Instant::now();
    match attempt.node.http.send(request, Interim::none()).await {
        Ok(response) => {
            let facts = ResponseFacts::of(&response);
            attempt.answered(&response, facts);
            read(response.into_body(), usize::MAX).await;
            let end = End::Complete { trailers: None };
            let ended = facts.end(&end);
            attempt.ended(ended, &end);
            attempt.node.requests.end(ended, begun.elapsed());
            target.metrics.backend.end(ended, begun.elapsed());
        }
        Err(error) if error.request.is_some() => shard.put_aside(&attempt.node, &error.refusal),
        Err(_) => attempt.lost(),
    }
}

/// Read what is left of an answer that nobody wants, if it is short, so that its connection
/// can be used again.
pub(crate) fn drain(body: Body) {
    if !body.is_end_stream() {
        tokio::task::spawn_local(timeout(DRAIN_TIME, read(body, DRAIN_BYTES)));
    }
}

async fn read(mut body: Body, limit: usize) {
    let mut body = std::pin::Pin::new(&mut body);
    let mut seen = 0;
    while let Some(Ok(frame)) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        seen += frame.data_ref().map_or(0, bytes::Bytes::len);
        if seen > limit {
            return;
        }
    }
}

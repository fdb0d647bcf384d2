use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream},
    sync::{Mutex as AsyncMutex, mpsc, oneshot},
    task::AbortHandle,
};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming, body::Body, codegen::Service};
use tulle_api::{
    destination::{
        DestinationProfile, GetDestination, Update,
        destination_server::{Destination, DestinationServer},
    },
    identity::{
        CertifyRequest, CertifyResponse,
        identity_server::{Identity, IdentityServer},
    },
    inbound::{
        PortSpec, Server,
        inbound_server_policies_server::{InboundServerPolicies, InboundServerPoliciesServer},
    },
    outbound::{
        OutboundPolicy, TrafficSpec,
        outbound_policies_server::{OutboundPolicies, OutboundPoliciesServer},
    },
    trust::{
        Report, State,
        trust_roots_server::{TrustRoots, TrustRootsServer},
    },
};

/// Enough that a test never waits for the proxy to read.
const QUEUE: usize = 64;

type Answers<M> = Pin<Box<dyn Stream<Item = Result<M, Status>> + Send>>;

/// A stream that the proxy has opened; dropping it ends the stream with OK.
#[derive(Debug)]
pub struct Subscriber<Q, M> {
    /// What was asked.
    pub request: Q,
    /// What the proxy says that it understands beyond the stock protocol.
    pub capabilities: Option<String>,
    answers: mpsc::Sender<Result<M, Status>>,
}

impl<Q, M> Subscriber<Q, M> {
    /// Send one message.
    ///
    /// # Panics
    ///
    /// When the proxy has left the stream.
    pub async fn send(&self, message: M) {
        assert!(
            self.answers.send(Ok(message)).await.is_ok(),
            "the proxy has left the stream"
        );
    }

    /// End the stream with this status.
    pub async fn fail(self, status: Status) {
        // The proxy may have left already, which is the same to the test.
        let _ = self.answers.send(Err(status)).await;
    }

    /// Wait until the proxy has left the stream.
    pub async fn left(&self) {
        self.answers.closed().await;
    }

    /// Whether the proxy has left the stream.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.answers.is_closed()
    }
}

/// A call that is answered once.
#[derive(Debug)]
pub struct Asked<Q, M> {
    /// What was asked.
    pub request: Q,
    answer: oneshot::Sender<Result<M, Status>>,
}

impl<Q, M> Asked<Q, M> {
    /// Answer it. A caller who has given up does not hear it.
    pub fn answer(self, answer: Result<M, Status>) {
        let _ = self.answer.send(answer);
    }
}

/// A proxy that follows the trust bundle and reports what it trusts.
#[derive(Debug)]
pub struct TrustCall {
    /// What the proxy reports.
    pub reports: Streaming<Report>,
    answers: mpsc::Sender<Result<State, Status>>,
}

impl TrustCall {
    /// Send a bundle.
    ///
    /// # Panics
    ///
    /// When the proxy has left the stream.
    pub async fn send(&self, state: State) {
        assert!(
            self.answers.send(Ok(state)).await.is_ok(),
            "the proxy has left the stream"
        );
    }

    /// End the stream with this status.
    pub async fn fail(self, status: Status) {
        let _ = self.answers.send(Err(status)).await;
    }
}

/// Calls in the order of their arrival.
#[derive(Debug)]
struct Line<C> {
    sender: mpsc::UnboundedSender<C>,
    receiver: AsyncMutex<mpsc::UnboundedReceiver<C>>,
}

impl<C> Line<C> {
    fn new() -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        Self {
            sender,
            receiver: AsyncMutex::new(receiver),
        }
    }

    async fn next(&self) -> C {
        self.receiver
            .lock()
            .await
            .recv()
            .await
            .expect("the sender is beside it")
    }

    fn try_next(&self) -> Option<C> {
        self.receiver.try_lock().ok()?.try_recv().ok()
    }
}

#[derive(Debug)]
struct Inner {
    /// Absent: the control plane is away.
    connections: Mutex<Option<Vec<AbortHandle>>>,
    endpoints: Line<Subscriber<GetDestination, Update>>,
    profiles: Line<Subscriber<GetDestination, DestinationProfile>>,
    ports: Line<Subscriber<PortSpec, Server>>,
    policies: Line<Subscriber<TrafficSpec, OutboundPolicy>>,
    certify: Line<Asked<CertifyRequest, CertifyResponse>>,
    /// Absent: a stock control plane, which lacks the service.
    trust: Option<Line<TrustCall>>,
}

/// The control plane: all services on every connection.
#[derive(Clone, Debug)]
pub struct ControlPlane(Arc<Inner>);

impl Default for ControlPlane {
    fn default() -> Self {
        Self::new()
    }
}

impl ControlPlane {
    /// Ours: with `TrustRoots`.
    #[must_use]
    pub fn new() -> Self {
        Self::with(Some(Line::new()))
    }

    /// One that has never heard of `TrustRoots`.
    #[must_use]
    pub fn stock() -> Self {
        Self::with(None)
    }

    fn with(trust: Option<Line<TrustCall>>) -> Self {
        Self(Arc::new(Inner {
            connections: Mutex::new(Some(Vec::new())),
            endpoints: Line::new(),
            profiles: Line::new(),
            ports: Line::new(),
            policies: Line::new(),
            certify: Line::new(),
            trust,
        }))
    }

    /// Go away: every connection breaks and new ones are refused.
    pub fn stop(&self) {
        for connection in self.0.connections.lock().take().into_iter().flatten() {
            connection.abort();
        }
    }

    /// Come back.
    pub fn start(&self) {
        self.0.connections.lock().get_or_insert_default();
    }

    /// How many connections there have been since it came.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.0.connections.lock().as_ref().map_or(0, Vec::len)
    }

    /// Connect in memory.
    ///
    /// # Errors
    ///
    /// Connection refused, while the control plane is away.
    pub fn connect(&self) -> io::Result<DuplexStream> {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        self.serve(theirs)?;
        Ok(ours)
    }

    /// Serve a connection that was accepted somewhere else.
    ///
    /// # Errors
    ///
    /// Connection refused, while the control plane is away.
    pub fn serve(
        &self,
        io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> io::Result<()> {
        let mut connections = self.0.connections.lock();
        let Some(connections) = connections.as_mut() else {
            return Err(io::ErrorKind::ConnectionRefused.into());
        };
        let plane = self.clone();
        let service = hyper::service::service_fn(move |request| {
            let plane = plane.clone();
            async move { Ok::<_, Infallible>(plane.route(request).await) }
        });
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(io), service);
        connections.push(tokio::spawn(connection).abort_handle());
        Ok(())
    }

    /// Calls without a connection: each reaches the services directly, and fails while the
    /// control plane is away.
    #[must_use]
    pub fn channel(&self) -> DirectChannel {
        DirectChannel(self.clone())
    }

    async fn route<B>(&self, request: http::Request<B>) -> http::Response<Body>
    where
        B: hyper::body::Body + Send + 'static,
        B::Error: Into<tonic::codegen::StdError> + Send,
    {
        let service = request
            .uri()
            .path()
            .split('/')
            .nth(1)
            .unwrap_or_default()
            .to_owned();
        let this = self.clone();
        let answer = match service.as_str() {
            "io.linkerd.proxy.destination.Destination" => {
                DestinationServer::new(this).call(request).await
            }
            "io.linkerd.proxy.inbound.InboundServerPolicies" => {
                InboundServerPoliciesServer::new(this).call(request).await
            }
            "io.linkerd.proxy.outbound.OutboundPolicies" => {
                OutboundPoliciesServer::new(this).call(request).await
            }
            "io.linkerd.proxy.identity.Identity" => IdentityServer::new(this).call(request).await,
            "tulle.trust.TrustRoots" if self.0.trust.is_some() => {
                TrustRootsServer::new(this).call(request).await
            }
            _ => Ok(Status::unimplemented(service).into_http()),
        };
        match answer {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    /// The next stream of endpoints.
    pub async fn endpoints(&self) -> Subscriber<GetDestination, Update> {
        self.0.endpoints.next().await
    }

    /// The next profile stream.
    pub async fn profile(&self) -> Subscriber<GetDestination, DestinationProfile> {
        self.0.profiles.next().await
    }

    /// A profile stream, if one is waiting.
    #[must_use]
    pub fn waiting_profile(&self) -> Option<Subscriber<GetDestination, DestinationProfile>> {
        self.0.profiles.try_next()
    }

    /// The next stream of a port's policy.
    pub async fn port(&self) -> Subscriber<PortSpec, Server> {
        self.0.ports.next().await
    }

    /// The next stream of an address's policy.
    pub async fn policy(&self) -> Subscriber<TrafficSpec, OutboundPolicy> {
        self.0.policies.next().await
    }

    /// A policy stream, if one is waiting.
    #[must_use]
    pub fn waiting_policy(&self) -> Option<Subscriber<TrafficSpec, OutboundPolicy>> {
        self.0.policies.try_next()
    }

    /// The next request for a certificate.
    pub async fn certify(&self) -> Asked<CertifyRequest, CertifyResponse> {
        self.0.certify.next().await
    }

    /// The next proxy that follows the trust bundle.
    ///
    /// # Panics
    ///
    /// On a stock control plane.
    pub async fn trust(&self) -> TrustCall {
        self.0
            .trust
            .as_ref()
            .expect("a control plane with TrustRoots")
            .next()
            .await
    }
}

/// Carries calls to the control plane in the same process.
#[derive(Clone, Debug)]
pub struct DirectChannel(ControlPlane);

impl Service<http::Request<Body>> for DirectChannel {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let plane = self.0.clone();
        Box::pin(async move {
            if plane.0.connections.lock().is_none() {
                return Ok(Status::unavailable("the control plane is away").into_http());
            }
            Ok(plane.route(request).await)
        })
    }
}

/// Queue a stream for the test and answer with what the test will send.
fn subscribe<Q, M: Send + 'static>(
    line: &Line<Subscriber<Q, M>>,
    request: Request<Q>,
) -> Response<Answers<M>> {
    let (answers, stream) = mpsc::channel(QUEUE);
    let capabilities = request.metadata().get("tulle-capabilities");
    let capabilities = capabilities.and_then(|value| Some(value.to_str().ok()?.to_owned()));
    // The line's receiver lives as long as the control plane.
    let _ = line.sender.send(Subscriber {
        request: request.into_inner(),
        capabilities,
        answers,
    });
    Response::new(Box::pin(ReceiverStream::new(stream)))
}

#[tonic::async_trait]
impl Destination for ControlPlane {
    type GetStream = Answers<Update>;
    type GetProfileStream = Answers<DestinationProfile>;

    async fn get(
        &self,
        request: Request<GetDestination>,
    ) -> Result<Response<Self::GetStream>, Status> {
        Ok(subscribe(&self.0.endpoints, request))
    }

    async fn get_profile(
        &self,
        request: Request<GetDestination>,
    ) -> Result<Response<Self::GetProfileStream>, Status> {
        Ok(subscribe(&self.0.profiles, request))
    }
}

#[tonic::async_trait]
impl InboundServerPolicies for ControlPlane {
    type WatchPortStream = Answers<Server>;

    async fn get_port(&self, _: Request<PortSpec>) -> Result<Response<Server>, Status> {
        Err(Status::unimplemented("the proxy never asks this"))
    }

    async fn watch_port(
        &self,
        request: Request<PortSpec>,
    ) -> Result<Response<Self::WatchPortStream>, Status> {
        Ok(subscribe(&self.0.ports, request))
    }
}

#[tonic::async_trait]
impl OutboundPolicies for ControlPlane {
    type WatchStream = Answers<OutboundPolicy>;

    async fn get(&self, _: Request<TrafficSpec>) -> Result<Response<OutboundPolicy>, Status> {
        Err(Status::unimplemented("the proxy never asks this"))
    }

    async fn watch(
        &self,
        request: Request<TrafficSpec>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Ok(subscribe(&self.0.policies, request))
    }
}

#[tonic::async_trait]
impl Identity for ControlPlane {
    async fn certify(
        &self,
        request: Request<CertifyRequest>,
    ) -> Result<Response<CertifyResponse>, Status> {
        let (answer, answered) = oneshot::channel();
        let _ = self.0.certify.sender.send(Asked {
            request: request.into_inner(),
            answer,
        });
        let gone = |_| Status::unavailable("the test has dropped the request");
        answered.await.map_err(gone)?.map(Response::new)
    }
}

#[tonic::async_trait]
impl TrustRoots for ControlPlane {
    type WatchStream = Answers<State>;

    async fn watch(
        &self,
        request: Request<Streaming<Report>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (answers, stream) = mpsc::channel(QUEUE);
        if let Some(line) = &self.0.trust {
            let _ = line.sender.send(TrustCall {
                reports: request.into_inner(),
                answers,
            });
        }
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

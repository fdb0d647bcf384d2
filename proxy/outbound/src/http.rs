//! Requests: each is routed, balanced and followed to its end.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
};

use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use tokio::time::Instant;
use tulle_core::{Direction, Reason, Refusal};
use tulle_http::{
    End, Expired, Facts as Words, Forever, Interim, Patience, Request, Reset, Response, SendError,
    Service, grpc_status, headers, redirect, refuse,
};
use tulle_policy::{
    Answer, Backend, BackendKind, Facts, Filter, PathMatched, RouteBackend, apply_request,
    apply_response, mirrors,
    outbound::{ClientPolicy, Protocol, RouteMatch, Rule},
};
use tulle_telemetry::{Ended, NO_STATUS, ResponseFacts, Slot};
use tulle_trace::Span;

use crate::{
    Shard,
    balancer::Balancer,
    destination::{Compiled, Destination, RouteMetrics},
    ingress,
    mirror::{self, Mirrored},
    node::{Attempt, Node},
    observe::Following,
    plan::{MAX_REQUEST_BYTES, Plan},
    profile::Profiled,
    retry::{self, Accepted, Event, Failure, Spare, Tries},
    watched::Watched,
};

/// Serves the requests of one connection.
pub(crate) struct HttpService {
    shard: Rc<Shard>,
    destination: Rc<Destination>,
    client: SocketAddr,
}

impl HttpService {
    pub(crate) fn new(
        shard: &Rc<Shard>,
        destination: &Rc<Destination>,
        client: SocketAddr,
    ) -> Rc<Self> {
        Rc::new(Self {
            shard: shard.clone(),
            destination: destination.clone(),
            client,
        })
    }

    async fn forward(
        &self,
        mut request: Request,
        interim: Interim,
        grpc: bool,
        span: Option<&Span>,
    ) -> Result<Response, Failure> {
        let arrived = Instant::now();
        let shard = &self.shard;
        let slot = shard.in_flight.take()?;
        let compiled = self.destination.for_requests()?;
        let required = request.headers_mut().remove(headers::REQUIRE_ID);
        let route = find(&compiled.policy, &request)?;
        let mut path = route.path;
        if !route.filters.is_empty() {
            path = apply_request(&route.filters, path, &mut request, || shard.random())?;
        }
        self.destination.budget.request(arrived);
        let exchange = Exchange {
            service: self,
            compiled: &compiled,
            rule: route.rule,
            path,
            arrived,
            grpc,
            interim,
            last: RefCell::new(None),
            profile: route.profile.map(|route| compiled.profiled(route)),
            required,
            span,
        };
        if let Some(profile) = exchange.profile.clone() {
            return Box::pin(exchange.as_profiled(&profile, request, slot)).await;
        }
        if route.rule.is_plain() {
            exchange.as_it_is(request, slot).await
        } else {
            // Its state is large, and most requests do not need it.
            Box::pin(exchange.as_planned(request, slot)).await
        }
    }

    fn answer(&self, failure: &Failure, words: Words) -> Response {
        let refusal = match failure {
            Failure::Answered(Answer::Redirect { status, location }) => {
                return redirect(*status, location.clone());
            }
            Failure::Answered(Answer::GrpcStatus { code, message }) => {
                let refusal = Refusal::new(Reason::FailureInjected, message.to_string());
                let refusal = refusal.by(&self.resource());
                self.note(&refusal);
                return grpc_status(*code, &refusal, words);
            }
            Failure::Answered(Answer::Refuse(refusal)) => refusal,
            Failure::Sending(error) => &error.refusal,
            Failure::Late(expired) => &expired.refusal().by(&self.resource()),
        };
        self.note(refusal);
        match failure {
            Failure::Sending(error) => error.response(words),
            Failure::Answered(_) | Failure::Late(_) => refuse(refusal, words),
        }
    }

    /// What a refusal names that names nothing closer to its cause.
    fn resource(&self) -> String {
        self.destination.resource()
    }

    fn note(&self, refusal: &Refusal) {
        let target = self.destination.target;
        self.shard.request_refused(refusal, target);
    }
}

impl HttpService {
    /// Answer one request for the destination.
    async fn serve(&self, mut request: Request, interim: Interim) -> Response {
        let words = Words::of(&request).on(Direction::Outbound);
        let span = self.shard.tracer.server(Direction::Outbound, &mut request);
        let forwarding = self.forward(request, interim, words.is_grpc(), span.as_ref());
        let response = match forwarding.await {
            Ok(mut response) => {
                // What a remote proxy says of an error is for us, not for the application.
                let head = response.headers_mut();
                head.remove(headers::PROXY_ERROR);
                head.remove(headers::PROXY_CONNECTION_CLOSE);
                response
            }
            Err(mut failure) => {
                failure.blame(&self.resource());
                self.answer(&failure, words)
            }
        };
        match span {
            Some(span) => span.observe(response),
            None => response,
        }
    }
}

impl Service for HttpService {
    async fn call(&self, mut request: Request, interim: Interim) -> Response {
        if !self.shard.config.outbound.ingress {
            return self.serve(request, interim).await;
        }
        let words = Words::of(&request);
        let found = ingress::destination(&self.shard, &self.destination, &mut request);
        match Box::pin(found).await {
            Ok(destination) => {
                let service = Self::new(&self.shard, &destination, self.client);
                Box::pin(service.serve(request, interim)).await
            }
            Err(refusal) => self.refuse(&refusal, words),
        }
    }

    fn refuse(&self, refusal: &Refusal, words: Words) -> Response {
        self.note(refusal);
        refuse(refusal, words.on(Direction::Outbound))
    }
}

/// One request, from its route to the head of its response.
struct Exchange<'a> {
    service: &'a HttpService,
    compiled: &'a Rc<Compiled>,
    rule: &'a Rule,
    /// What of the path as it is now the rule matched.
    path: PathMatched,
    arrived: Instant,
    grpc: bool,
    interim: Interim,
    /// The endpoint of the try before.
    last: RefCell<Option<Rc<Node>>>,
    /// The route of the service profile that the rule is of.
    profile: Option<Rc<Profiled>>,
    /// The identity that the endpoint has to have.
    required: Option<HeaderValue>,
    /// Where the request belongs to a trace.
    span: Option<&'a Span>,
}

/// The backend of a try.
struct Target<'a> {
    chosen: &'a RouteBackend<Filter>,
    balancer: Rc<Balancer>,
    metrics: Rc<RouteMetrics>,
}

/// A response, before it is passed on.
struct Sent {
    response: Response,
    facts: ResponseFacts,
    attempt: Attempt,
    /// When the try began.
    begun: Instant,
}

impl<'a> Exchange<'a> {
    /// Send a request for which the rule asks nothing special. What was provably not
    /// processed is tried once more.
    async fn as_it_is(&self, mut request: Request, slot: Slot) -> Result<Response, Failure> {
        let mut may_retry = self.rule.default_retry;
        let upload = if may_retry {
            retry::keep(&mut request, MAX_REQUEST_BYTES)
        } else {
            None
        };
        let target = self.target(&mut request)?;
        loop {
            let mut error = match self.deliver(&target, request, &mut Forever).await {
                Ok(sent) => {
                    if let Some(upload) = upload {
                        upload.release();
                    }
                    if may_retry != self.rule.default_retry {
                        self.note(Event::Succeeded);
                    }
                    return Ok(self.accept(&target, sent, slot));
                }
                Err(Failure::Sending(error)) => error,
                Err(failure) => return Err(self.failed(&target, failure)),
            };
            match error.request.take() {
                Some(unsent) if may_retry && self.may_try(Instant::now()) => {
                    self.note(Event::Again);
                    may_retry = false;
                    request = *unsent;
                }
                _ => return Err(self.failed(&target, Failure::Sending(error))),
            }
        }
    }

    /// Send a request as its plan says, which the rule or the request itself has.
    async fn as_planned(&self, mut request: Request, slot: Slot) -> Result<Response, Failure> {
        let plan = Plan::new(self.rule, request.headers_mut());
        if plan.retry.is_some() {
            // The numbers begin at 0 and not with the first retry.
            self.compiled.retries(&self.rule.meta, self.grpc);
        }
        let kept = if self.rule.mirrors {
            mirror::MAX_BYTES
        } else {
            0
        };
        let connect = request.method() == Method::CONNECT;
        let tries = Planned {
            exchange: self,
            asked: plan.retry.is_some(),
            target: RefCell::new(None),
            mirrored: RefCell::new(None),
        };
        let accepted = retry::run(&plan, kept, self.arrived, request, &tries).await;
        let Accepted {
            sent: Tried { mut sent, target },
            timer,
            upload,
        } = accepted.map_err(|failure| match &*tries.target.borrow() {
            Some(target) => self.failed(target, failure),
            None => failure,
        })?;
        if let Some(upload) = upload {
            if let Some(mirrored) = tries.mirrored.into_inner() {
                mirrored.send(|| upload.snapshot());
            }
            upload.release();
        }
        let status = sent.response.status();
        let tunnel = status == StatusCode::SWITCHING_PROTOCOLS || (connect && status.is_success());
        if !tunnel {
            sent.response = sent.response.map(|body| timer.after_head(body));
        }
        Ok(self.accept(&target, sent, slot))
    }

    /// Send a request as a service profile says: its time is over when no head of a response
    /// is there, however long the rest of that takes.
    async fn as_profiled(
        &self,
        profile: &Profiled,
        mut request: Request,
        slot: Slot,
    ) -> Result<Response, Failure> {
        profile.begin(&mut request, self.arrived);
        let sending = async {
            if self.rule.is_plain() {
                self.as_it_is(request, slot).await
            } else {
                self.as_planned(request, slot).await
            }
        };
        let Some(limit) = profile.timeout() else {
            return sending.await;
        };
        tokio::time::timeout(limit, sending)
            .await
            .unwrap_or_else(|_| {
                let ended = Ended {
                    status: NO_STATUS,
                    grpc_status: None,
                    failure: true,
                    error: "timeout",
                };
                profile.end(ended, limit);
                let message = format!("HTTP response timeout after {limit:?}");
                Err(Refusal::new(Reason::Timeout, message).into())
            })
    }

    /// Choose a backend, and do to the request what it asks for.
    fn target(&self, request: &mut Request) -> Result<Target<'a>, Failure> {
        let (chosen, balancer) = self.compiled.backend(&self.rule.distribution)?;
        if !chosen.filters.is_empty() {
            let random = || self.service.shard.random();
            apply_request(&chosen.filters, self.path, request, random)?;
        }
        name_host(request, &chosen.backend, self.service.destination.target);
        let backend = &chosen.backend;
        let host = self.compiled.hostname(request);
        let metrics = self
            .compiled
            .metrics_for(&self.rule.meta, backend, self.grpc, host);
        Ok(Target {
            chosen,
            balancer,
            metrics,
        })
    }

    /// Give a request to an endpoint; to one after the other, while they cannot be connected
    /// to, until the balancer fails fast.
    async fn deliver(
        &self,
        target: &Target<'_>,
        mut request: Request,
        patience: &mut impl Patience,
    ) -> Result<Sent, Failure> {
        let shard = &self.service.shard;
        let queue = shard.config.outbound.queue_capacity;
        target.metrics.backend.begin();
        loop {
            let node = match self.another(target) {
                Some(node) => node,
                None => patience.within(target.balancer.choose(queue)).await??,
            };
            if let Some(required) = &self.required {
                has_identity(&node, required)?;
            }
            if let Some(profile) = &self.profile {
                profile.attempt();
            }
            let attempt = Attempt::start(node);
            let begun = Instant::now();
            let watched = Watched {
                shard,
                client: self.service.client,
                route: &self.rule.meta,
                span: self.span,
            };
            let sending = watched.send(&attempt.node, request, self.interim.clone());
            let mut error = match patience.within(sending).await {
                Ok(Ok(response)) => {
                    let facts = ResponseFacts::of(&response);
                    attempt.answered(&response, facts);
                    return Ok(Sent {
                        response,
                        facts,
                        attempt,
                        begun,
                    });
                }
                Ok(Err(error)) => error,
                Err(expired) => {
                    let failure = Failure::Late(expired);
                    self.lost(target, &attempt, begun, &failure, true);
                    return Err(failure);
                }
            };
            match error.request.take() {
                Some(unsent) if error.refusal.reason != Reason::ConnectionLost => {
                    shard.put_aside(&attempt.node, &error.refusal);
                    request = *unsent;
                }
                unsent => {
                    let blamed = unsent.is_none();
                    error.request = unsent;
                    let failure = Failure::Sending(error);
                    self.lost(target, &attempt, begun, &failure, blamed);
                    return Err(failure);
                }
            }
        }
    }

    /// An endpoint other than the one of the try before.
    fn another(&self, target: &Target<'_>) -> Option<Rc<Node>> {
        let last = self.last.borrow();
        target.balancer.other_than(last.as_ref()?)
    }

    /// A try brought no response; `blamed`: its endpoint is to be.
    #[cold]
    fn lost(
        &self,
        target: &Target<'_>,
        attempt: &Attempt,
        begun: Instant,
        failure: &Failure,
        blamed: bool,
    ) {
        if blamed {
            attempt.lost();
        }
        let ended = unanswered(failure);
        if let Some(profile) = &self.profile {
            profile.tried(ended, begun.elapsed());
        }
        target.metrics.backend.end(ended, begun.elapsed());
        let error = match failure {
            Failure::Late(_) => "timeout",
            _ => "unclassified",
        };
        let status = failure.status();
        attempt.node.requests.end(
            Ended {
                status,
                error,
                ..ended
            },
            begun.elapsed(),
        );
        self.last.replace(Some(attempt.node.clone()));
    }

    /// The request ends without a response.
    #[cold]
    fn failed(&self, target: &Target<'_>, failure: Failure) -> Failure {
        if !matches!(
            failure,
            Failure::Answered(Answer::Redirect { .. } | Answer::GrpcStatus { .. })
        ) {
            let ended = unanswered(&failure);
            target.metrics.route.end(ended, self.arrived.elapsed());
            if let Some(profile) = &self.profile {
                profile.end(ended, self.arrived.elapsed());
            }
        }
        failure
    }

    /// Pass a response on, and follow it to its end.
    fn accept(&self, target: &Target<'_>, sent: Sent, slot: Slot) -> Response {
        let Sent {
            mut response,
            facts,
            attempt,
            begun,
        } = sent;
        apply_response(&target.chosen.filters, response.headers_mut());
        apply_response(&self.rule.filters, response.headers_mut());
        let following = Rc::new(Following {
            arrived: self.arrived,
            sent: begun,
            facts,
            attempt,
            metrics: target.metrics.clone(),
            profile: self.profile.clone(),
            first_data: Cell::new(None),
            service: (self.service.shard.clone(), self.service.destination.target),
            _slot: slot,
        });
        response.map(|body| body.observed(following))
    }

    fn may_try(&self, now: Instant) -> bool {
        self.service.destination.budget.take(now)
    }

    #[cold]
    fn note(&self, event: Event) {
        if let Some(profile) = &self.profile {
            profile.note(event);
        }
        self.compiled
            .retries(&self.rule.meta, self.grpc)
            .note(event);
    }
}

/// The tries of a request that has a plan.
struct Planned<'e, 'a> {
    exchange: &'e Exchange<'a>,
    /// Somebody asks for retries, and has set a limit.
    asked: bool,
    /// Where the last try went.
    target: RefCell<Option<Rc<Target<'a>>>>,
    /// Copies that wait for the request's body.
    mirrored: RefCell<Option<Mirrored>>,
}

/// A response, and where it comes from.
struct Tried<'a> {
    sent: Sent,
    target: Rc<Target<'a>>,
}

impl AsMut<Response> for Tried<'_> {
    fn as_mut(&mut self) -> &mut Response {
        &mut self.sent.response
    }
}

impl<'a> Planned<'_, 'a> {
    /// The backend of a try. One that is given a request back stays as it was, since its
    /// filters have been run.
    fn target(&self, request: &mut Request, fresh: bool) -> Result<Rc<Target<'a>>, Failure> {
        if !fresh && let Some(target) = &*self.target.borrow() {
            return Ok(target.clone());
        }
        let first = self.target.borrow().is_none();
        let target = Rc::new(self.exchange.target(request)?);
        if first && self.exchange.rule.mirrors {
            self.mirror(&target, request);
        }
        self.target.replace(Some(target.clone()));
        Ok(target)
    }

    fn mirror(&self, target: &Target<'a>, request: &Request) {
        let Exchange {
            service,
            compiled,
            rule,
            grpc,
            ..
        } = self.exchange;
        let random = || service.shard.random();
        let backends: Box<[_]> = mirrors(&rule.filters, random)
            .chain(mirrors(&target.chosen.filters, random))
            .filter_map(|backend| mirror::Target::new(compiled, &rule.meta, backend, *grpc))
            .collect();
        if backends.is_empty() || retry::is_tunnel(request) {
            return;
        }
        let Spare { head, body } = Spare::of(request);
        let mirrored = Mirrored::new(&service.shard, head, backends);
        match body {
            Some(body) => mirrored.send(|| body.copy()),
            None => {
                self.mirrored.replace(Some(mirrored));
            }
        }
    }
}

impl<'a> Tries for Planned<'_, 'a> {
    type Sent = Tried<'a>;

    async fn send(
        &self,
        mut request: Request,
        fresh: bool,
        patience: &mut impl Patience,
    ) -> Result<Tried<'a>, Failure> {
        let target = self.target(&mut request, fresh)?;
        let sent = self.exchange.deliver(&target, request, patience).await?;
        Ok(Tried { sent, target })
    }

    fn rejected(&self, tried: Tried<'a>, trailers: Option<&HeaderMap>) {
        let Sent {
            response,
            facts,
            attempt,
            begun,
        } = tried.sent;
        let end = End::Complete { trailers };
        let ended = facts.end(&end);
        if let Some(profile) = &self.exchange.profile {
            profile.tried(ended, begun.elapsed());
        }
        attempt.node.load.observe(begun.elapsed(), Instant::now());
        attempt.ended(ended, &end);
        attempt.node.requests.end(ended, begun.elapsed());
        tried.target.metrics.backend.end(ended, begun.elapsed());
        self.exchange.last.replace(Some(attempt.node.clone()));
        mirror::drain(response.into_body());
    }

    fn may_try(&self, now: Instant) -> bool {
        match &self.exchange.profile {
            Some(profile) if self.asked => profile.may_try(now),
            _ => self.asked || self.exchange.may_try(now),
        }
    }

    fn note(&self, event: Event) {
        self.exchange.note(event);
    }

    fn random(&self) -> u64 {
        self.exchange.service.shard.random()
    }
}

/// Whether an endpoint is the one that the request wants to be at.
#[cold]
fn has_identity(node: &Node, required: &HeaderValue) -> Result<(), Refusal> {
    let found = node.identity();
    if found.is_some_and(|found| found.as_str().as_bytes() == required.as_bytes()) {
        return Ok(());
    }
    let found = found.map_or("none", |id| id.as_str());
    let message = format!("required id {required:?}; found {found:?}");
    Err(Refusal::new(Reason::IdentityRequired, message))
}

/// For the numbers: a request that no endpoint has answered.
fn unanswered(failure: &Failure) -> Ended {
    let error = match failure {
        Failure::Late(Expired::Request(_)) => "REQUEST_TIMEOUT",
        Failure::Late(Expired::Idle(_)) => "IDLE_TIMEOUT",
        Failure::Late(_) => "RESPONSE_HEADERS_TIMEOUT",
        Failure::Sending(error) if error.reset.is_some_and(Reset::is_refused) => "REFUSED",
        Failure::Sending(SendError { refusal, .. })
        | Failure::Answered(Answer::Refuse(refusal)) => match refusal.reason {
            Reason::FailFast | Reason::NoEndpoints => "FAIL_FAST",
            Reason::Overloaded | Reason::QueueFull => "LOAD_SHED",
            Reason::ConnectFailed | Reason::ConnectTimeout | Reason::ConnectionLost => "IO",
            _ => "UNKNOWN",
        },
        Failure::Answered(_) => "UNKNOWN",
    };
    Ended {
        status: NO_STATUS,
        grpc_status: None,
        failure: true,
        error,
    }
}

/// HTTP/1.0 lets a request name no host, and a stock proxy on the other side refuses such a
/// request; so it is given the name that its connection went to.
fn name_host(request: &mut Request, backend: &Backend, target: SocketAddr) {
    let nameless = request.version() == Version::HTTP_10
        && request.uri().authority().is_none()
        && !request.headers().contains_key(header::HOST);
    if nameless {
        let host = match &backend.kind {
            BackendKind::Balance { path, .. } => HeaderValue::from_str(path),
            _ => HeaderValue::from_str(&target.to_string()),
        };
        if let Ok(host) = host {
            request.headers_mut().insert(header::HOST, host);
        }
    }
}

fn find<'a>(policy: &'a ClientPolicy, request: &Request) -> Result<RouteMatch<'a>, Refusal> {
    let facts = Facts::of(request);
    match &policy.protocol {
        Protocol::Detect { http1, http2, .. } => {
            let http2_asked = request.version() == Version::HTTP_2;
            if http2_asked { http2 } else { http1 }.find(&facts)
        }
        Protocol::Http1(routes) | Protocol::Http2(routes) => routes.find(&facts),
        Protocol::Grpc(routes) => routes.find(&facts),
        Protocol::Opaque(_) | Protocol::Tls(_) => {
            // It was taken for HTTP when the connection came, by nothing that was a route.
            Err(Refusal::new(
                Reason::RouteNotFound,
                "no route: the destination is opaque now",
            ))
        }
        protocol @ Protocol::Invalid(_) => Err(protocol
            .refusal()
            .unwrap_or_else(|| Refusal::new(Reason::PolicyInvalid, "invalid client policy"))),
    }
}

//! Requests: each is routed, authorized and only then forwarded.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    pin::pin,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use http::{HeaderName, HeaderValue, header};
use tokio::time::Instant;
use tulle_core::{Direction, Reason, Refusal};
use tulle_http::{
    Facts as Words, Interim, Request, Response, SendError, Service, grpc_status, headers,
    orig_proto, redirect, refuse,
};
use tulle_policy::{Answer, Facts, Grant, Permit, apply_request};
use tulle_telemetry::{AccessLog, LoggedClient, ResponseFacts};
use tulle_trace::Span;

use crate::{
    Shard,
    accept::Peer,
    observe::{Admitted, Authority, Following},
    port::Port,
    watched,
};

/// The name that a client has proved, for the application.
const CLIENT_ID: HeaderName = HeaderName::from_static("l5d-client-id");

/// The logical name that the client's proxy has routed by.
const DST_CANONICAL: HeaderName = HeaderName::from_static("l5d-dst-canonical");

/// Serves the requests of one connection.
pub(crate) struct HttpService {
    shard: Rc<Shard>,
    port: Rc<Port>,
    peer: Peer,
    client_id: Option<HeaderValue>,
    /// Where there is an access log.
    logged: Option<(AccessLog, Rc<LoggedClient>)>,
    /// The handles of the last request: most connections need no others.
    last: RefCell<Option<Rc<Admitted>>>,
}

impl HttpService {
    pub(crate) fn new(shard: &Rc<Shard>, port: Rc<Port>, peer: Peer) -> Rc<Self> {
        let client_id = peer.tls.client_id();
        Rc::new(Self {
            logged: shard
                .access_log
                .clone()
                .map(|log| (log, LoggedClient::new(peer.address, client_id))),
            client_id: client_id.and_then(|id| HeaderValue::from_str(id.as_str()).ok()),
            shard: shard.clone(),
            port,
            peer,
            last: RefCell::new(None),
        })
    }

    /// Route and authorize, then apply the filters of the route, then count against the limits.
    fn admit(&self, request: &mut Request, arrived: Instant) -> Result<Permit, Answer> {
        let policy = self.port.policy_now().map_err(Answer::Refuse)?;
        let matched = policy.route(&Facts::of(request)).map_err(Answer::Refuse)?;
        let tls = &self.peer.tls;
        let permit = policy
            .authorize_request(&matched, self.peer.address.ip(), tls)
            .map_err(|refusal| {
                self.port.denied(&self.shard, tls, matched.meta());
                Answer::Refuse(refusal)
            })?;
        if permit.audited() {
            let (client, target) = (self.peer.address, self.port.target);
            tracing::info!(%client, %target, grant = %permit.grant().authz, "Request allowed");
        }
        if !matched.filters().is_empty() {
            apply_request(matched.filters(), matched.path, request, || {
                self.shard.random()
            })?;
        }
        let now = arrived.saturating_duration_since(self.shard.epoch);
        policy.limit(tls, now).map_err(|limited| {
            self.port.limited(&self.shard, tls, &policy, &limited);
            Answer::Refuse(limited.refusal)
        })?;
        Ok(permit)
    }

    /// Send a request to the application; the permit is what makes that allowed.
    async fn forward(
        &self,
        _permit: Permit,
        mut request: Request,
        interim: Interim,
        span: Option<&Span>,
    ) -> Result<Response, SendError> {
        let attempt = span.map(|span| span.client(&mut request));
        let orig_proto = orig_proto::downgrade(&mut request);
        // What the client itself has written there is no proxy's word.
        headers::strip_reserved(request.headers_mut());
        if let Some(id) = &self.client_id {
            request.headers_mut().insert(CLIENT_ID, id.clone());
        }
        let mut response = watched::attempt(attempt, self.send(request, interim).await)?;
        if let Some(orig_proto) = orig_proto {
            orig_proto.mark(&mut response);
        }
        Ok(response)
    }

    /// Send it as often as it takes, as long as it was provably not processed.
    async fn send(&self, mut request: Request, interim: Interim) -> Result<Response, SendError> {
        let Port { http, patience, .. } = &*self.port;
        patience.over()?;
        let mut lost = false;
        loop {
            let mut error = match http.send(request, interim.clone()).await {
                Ok(response) => {
                    patience.reached();
                    return Ok(response);
                }
                Err(error) => error,
            };
            match (error.refusal.reason, error.request.take()) {
                // A pooled connection that the application has closed meanwhile says nothing
                // about the application; a new one does.
                (Reason::ConnectionLost, Some(unsent)) if !lost => {
                    lost = true;
                    request = *unsent;
                }
                (Reason::ConnectFailed | Reason::ConnectTimeout, Some(unsent)) => {
                    let random = self.shard.random();
                    Box::pin(patience.wait(&error.refusal, random)).await?;
                    request = *unsent;
                }
                _ => return Err(error),
            }
        }
    }

    /// What a request is for, where somebody has asked for it as a label.
    fn authority(&self, request: &Request) -> Authority {
        if !self.shard.config.inbound.authority_labels {
            return None;
        }
        let canonical = request.headers().get(DST_CANONICAL);
        let named = canonical.and_then(|value| value.to_str().ok());
        named
            .or_else(|| request.uri().authority().map(http::uri::Authority::as_str))
            .or_else(|| request.headers().get(header::HOST)?.to_str().ok())
            .map(Into::into)
    }

    fn admitted(&self, grant: &Arc<Grant>, authority: Authority) -> Rc<Admitted> {
        let mut last = self.last.borrow_mut();
        match &*last {
            Some(admitted) if admitted.is_for(grant, &authority) => admitted.clone(),
            _ => {
                let (shard, tls) = (&self.shard, &self.peer.tls);
                let admitted = self.port.admitted(shard, tls, grant, authority);
                last.insert(admitted).clone()
            }
        }
    }

    fn answer(&self, answer: &Answer, words: Words) -> Response {
        match answer {
            Answer::Redirect { status, location } => redirect(*status, location.clone()),
            Answer::GrpcStatus { code, message } => {
                let refusal = Refusal::new(Reason::FailureInjected, message.to_string());
                self.note(&refusal);
                grpc_status(*code, &refusal, words)
            }
            Answer::Refuse(refusal) => {
                self.note(refusal);
                refuse(refusal, words)
            }
        }
    }

    fn note(&self, refusal: &Refusal) {
        let (client, target) = (self.peer.address, self.port.target);
        self.shard.refusals.note(refusal, Some(client), target);
        self.port
            .refused(&self.shard, &self.peer.tls, refusal.reason);
    }

    /// What an answer of ours tells this client.
    fn words(&self, words: Words) -> Words {
        let stranger = self.client_id.is_none() && !self.peer.address.ip().is_loopback();
        words.on(Direction::Inbound).to_stranger(stranger)
    }
}

impl HttpService {
    async fn serve(
        &self,
        mut request: Request,
        interim: Interim,
        words: Words,
        span: Option<&Span>,
    ) -> Response {
        let arrived = Instant::now();
        let slot = match self.shard.in_flight.take() {
            Ok(slot) => slot,
            Err(refusal) => return self.answer(&Answer::Refuse(refusal), words),
        };
        let admission = self.admit(&mut request, arrived);
        let tapped = watched::tap(&self.shard, &self.port, &self.peer, &request, &admission);
        let permit = match admission {
            Ok(permit) => permit,
            Err(answer) => return watched::observe(tapped, self.answer(&answer, words)),
        };
        let grpc = words.is_grpc();
        let admitted = self.admitted(permit.grant(), self.authority(&request));
        admitted.begin(grpc);
        let (request, upload) = admitted.watch(request, grpc);
        let response = match self.forward(permit, request, interim, span).await {
            Ok(response) => response,
            Err(mut error) => {
                error.refusal = error.refusal.by(admitted.server());
                self.note(&error.refusal);
                error.response(words)
            }
        };
        let following = Rc::new(Following {
            arrived,
            grpc,
            facts: ResponseFacts::of(&response),
            admitted,
            upload,
            first_data: Cell::new(None),
            _slot: slot,
        });
        watched::observe(tapped, response.map(|body| body.observed(following)))
    }
}

impl Service for HttpService {
    async fn call(&self, mut request: Request, interim: Interim) -> Response {
        let words = self.words(Words::of(&request));
        let span = self.shard.tracer.server(Direction::Inbound, &mut request);
        let entry = self.logged.as_ref();
        let entry = entry.map(|(log, client)| log.begin(&request, client));
        let response = {
            let mut serving = pin!(self.serve(request, interim, words, span.as_ref()));
            match entry {
                None => serving.await,
                Some(entry) => {
                    // What is logged is the time that a request keeps this proxy busy, not
                    // the time that it waits.
                    let mut busy = Duration::ZERO;
                    let timed = poll_fn(|cx| {
                        let start = Instant::now();
                        let polled = serving.as_mut().poll(cx);
                        busy += start.elapsed();
                        polled
                    });
                    let response = timed.await;
                    entry.follow(response, busy)
                }
            }
        };
        match span {
            Some(span) => span.observe(response),
            None => response,
        }
    }

    fn refuse(&self, refusal: &Refusal, words: Words) -> Response {
        self.note(refusal);
        if let Some((log, client)) = &self.logged {
            log.unread(refusal, client);
        }
        refuse(refusal, self.words(words))
    }
}

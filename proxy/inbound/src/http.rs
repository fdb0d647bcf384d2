//! Requests: each is routed, authorized and only then forwarded.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

use http::{HeaderName, HeaderValue};
use tokio::time::Instant;
use tulle_core::{Direction, Reason, Refusal};
use tulle_http::{
    Facts as Words, Interim, Request, Response, SendError, Service, grpc_status, headers,
    orig_proto, redirect, refuse,
};
use tulle_policy::{Answer, Facts, Grant, Permit, apply_request};
use tulle_telemetry::ResponseFacts;

use crate::{
    Shard,
    accept::Peer,
    observe::{Admitted, Following},
    port::Port,
};

/// The name that a client has proved, for the application.
const CLIENT_ID: HeaderName = HeaderName::from_static("l5d-client-id");

/// Serves the requests of one connection.
pub(crate) struct HttpService {
    shard: Rc<Shard>,
    port: Rc<Port>,
    peer: Peer,
    client_id: Option<HeaderValue>,
    /// The handles of the last request: most connections need no others.
    last: RefCell<Option<Rc<Admitted>>>,
}

impl HttpService {
    pub(crate) fn new(shard: &Rc<Shard>, port: Rc<Port>, peer: Peer) -> Rc<Self> {
        let client_id = peer.tls.client_id();
        Rc::new(Self {
            client_id: client_id.and_then(|id| HeaderValue::from_str(id.as_str()).ok()),
            shard: shard.clone(),
            port,
            peer,
            last: RefCell::new(None),
        })
    }

    /// Route and authorize, then apply the filters of the route.
    fn admit(&self, request: &mut Request) -> Result<Permit, Answer> {
        let policy = self.port.policy_now().map_err(Answer::Refuse)?;
        let matched = policy.route(&Facts::of(request)).map_err(Answer::Refuse)?;
        let permit = policy
            .authorize_request(&matched, self.peer.address.ip(), &self.peer.tls)
            .map_err(Answer::Refuse)?;
        if !matched.filters().is_empty() {
            apply_request(matched.filters(), matched.path, request, || {
                self.shard.random()
            })?;
        }
        Ok(permit)
    }

    /// Send a request to the application; the permit is what makes that allowed.
    async fn forward(
        &self,
        _permit: Permit,
        mut request: Request,
        interim: Interim,
    ) -> Result<Response, SendError> {
        let orig_proto = orig_proto::downgrade(&mut request);
        // What the client itself has written there is no proxy's word.
        headers::strip_reserved(request.headers_mut());
        if let Some(id) = &self.client_id {
            request.headers_mut().insert(CLIENT_ID, id.clone());
        }
        let http = &self.port.http;
        let mut result = http.send(request, interim.clone()).await;
        // A pooled connection that the application has closed meanwhile says nothing about
        // the application; a new one does.
        if let Err(error) = &mut result
            && error.refusal.reason == Reason::ConnectionLost
            && let Some(unsent) = error.request.take()
        {
            result = http.send(*unsent, interim).await;
        }
        result.map(|mut response| {
            if let Some(orig_proto) = orig_proto {
                orig_proto.mark(&mut response);
            }
            response
        })
    }

    fn admitted(&self, grant: &Arc<Grant>) -> Rc<Admitted> {
        let mut last = self.last.borrow_mut();
        match &*last {
            Some(admitted) if admitted.is_for(grant) => admitted.clone(),
            _ => {
                let admitted = self.port.admitted(&self.shard, &self.peer.tls, grant);
                last.insert(admitted).clone()
            }
        }
    }

    fn answer(&self, answer: &Answer, words: Words) -> Response {
        match answer {
            Answer::Redirect { status, location } => redirect(*status, location.clone()),
            Answer::GrpcStatus { code, message } => grpc_status(*code, message),
            Answer::Refuse(refusal) => self.refuse(refusal, words),
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

impl Service for HttpService {
    async fn call(&self, mut request: Request, interim: Interim) -> Response {
        let arrived = Instant::now();
        let words = self.words(Words::of(&request));
        let slot = match self.shard.in_flight.take() {
            Ok(slot) => slot,
            Err(refusal) => return self.refuse(&refusal, words),
        };
        let permit = match self.admit(&mut request) {
            Ok(permit) => permit,
            Err(answer) => return self.answer(&answer, words),
        };
        let grpc = words.is_grpc();
        let admitted = self.admitted(permit.grant());
        admitted.begin(grpc);
        let response = match self.forward(permit, request, interim).await {
            Ok(response) => response,
            Err(error) => {
                self.note(&error.refusal);
                error.response(words)
            }
        };
        let following = Rc::new(Following {
            arrived,
            grpc,
            facts: ResponseFacts::of(&response),
            admitted,
            first_data: Cell::new(None),
            _slot: slot,
        });
        response.map(|body| body.observed(following))
    }

    fn refuse(&self, refusal: &Refusal, words: Words) -> Response {
        self.note(refusal);
        refuse(refusal, self.words(words))
    }
}

//! Requests: each is routed, balanced and followed to its end.

use std::{cell::Cell, net::SocketAddr, rc::Rc};

use http::{HeaderValue, Version, header};
use tokio::time::Instant;
use tulle_core::{Direction, Reason, Refusal};
use tulle_http::{
    Facts as Words, Interim, Request, Response, SendError, Service, grpc_status, headers, redirect,
    refuse,
};
use tulle_policy::{
    Answer, Backend, BackendKind, Facts, apply_request, apply_response,
    outbound::{ClientPolicy, Protocol, RouteMatch},
};
use tulle_telemetry::{Ended, NO_STATUS, ResponseFacts};

use crate::{Shard, destination::Destination, node::Attempt, observe::Following};

/// How often a request that was not processed is given to another connection after one was
/// lost. Endpoints that cannot be connected to are bounded by the fail-fast time instead.
const MAX_LOST: usize = 3;

/// Serves the requests of one connection.
pub(crate) struct HttpService {
    shard: Rc<Shard>,
    destination: Rc<Destination>,
}

/// Why there is no response of an endpoint.
enum Failure {
    /// Something in the policy or in this proxy answers instead.
    Answered(Answer),
    /// No endpoint gave one.
    Sending(SendError),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Answered(Answer::Refuse(refusal))
    }
}

impl From<Answer> for Failure {
    fn from(answer: Answer) -> Self {
        Self::Answered(answer)
    }
}

impl HttpService {
    pub(crate) fn new(shard: &Rc<Shard>, destination: &Rc<Destination>) -> Rc<Self> {
        Rc::new(Self {
            shard: shard.clone(),
            destination: destination.clone(),
        })
    }

    async fn forward(
        &self,
        mut request: Request,
        interim: Interim,
        grpc: bool,
    ) -> Result<Response, Failure> {
        let arrived = Instant::now();
        let shard = &self.shard;
        let slot = shard.in_flight.take()?;
        let compiled = self.destination.for_requests()?;
        let route = find(&compiled.policy, &request)?;
        if !route.filters.is_empty() {
            apply_request(&route.filters, route.path, &mut request, || shard.random())?;
        }
        let (chosen, balancer) = compiled.backend(&route.distribution)?;
        if !chosen.filters.is_empty() {
            apply_request(&chosen.filters, route.path, &mut request, || shard.random())?;
        }
        name_host(&mut request, &chosen.backend, self.destination.target);
        let metrics = compiled.metrics(&route.meta, &chosen.backend, grpc);
        metrics.backend.begin();

        let queue = shard.config.outbound.queue_capacity;
        let failed = |refusal: &Refusal| metrics.route.end(unanswered(refusal), arrived.elapsed());
        let mut lost = 0;
        loop {
            let node = balancer.choose(queue).await.inspect_err(failed)?;
            let attempt = Attempt::start(node);
            let sent = Instant::now();
            let node = &attempt.node;
            match node.http.send(request, interim.clone()).await {
                Ok(mut response) => {
                    let facts = ResponseFacts::of(&response);
                    attempt.answered(&response, &facts);
                    apply_response(&chosen.filters, response.headers_mut());
                    apply_response(&route.filters, response.headers_mut());
                    let following = Rc::new(Following {
                        arrived,
                        sent,
                        facts,
                        attempt,
                        metrics,
                        first_data: Cell::new(None),
                        _slot: slot,
                    });
                    return Ok(response.map(|body| body.observed(following)));
                }
                Err(error) => match error.request {
                    // Provably not processed: another connection may take it.
                    Some(unsent) if error.refusal.reason == Reason::ConnectionLost => {
                        lost += 1;
                        if lost > MAX_LOST {
                            failed(&error.refusal);
                            return Err(error.refusal.into());
                        }
                        request = *unsent;
                    }
                    Some(unsent) => {
                        shard.put_aside(node, &error.refusal);
                        request = *unsent;
                    }
                    None => {
                        attempt.lost();
                        let ended = unanswered(&error.refusal);
                        failed(&error.refusal);
                        metrics.backend.end(ended, sent.elapsed());
                        node.requests.end(
                            Ended {
                                status: error.refusal.status().as_u16(),
                                error: "unclassified",
                                ..ended
                            },
                            sent.elapsed(),
                        );
                        return Err(Failure::Sending(error));
                    }
                },
            }
        }
    }

    fn answer(&self, failure: &Failure, words: Words) -> Response {
        let refusal = match failure {
            Failure::Answered(Answer::Redirect { status, location }) => {
                return redirect(*status, location.clone());
            }
            Failure::Answered(Answer::GrpcStatus { code, message }) => {
                return grpc_status(*code, message);
            }
            Failure::Answered(Answer::Refuse(refusal)) => refusal,
            Failure::Sending(error) => &error.refusal,
        };
        self.note(refusal);
        match failure {
            Failure::Sending(error) => error.response(words),
            Failure::Answered(_) => refuse(refusal, words),
        }
    }

    fn note(&self, refusal: &Refusal) {
        let target = self.destination.target;
        self.shard.refusals.note(refusal, None, target);
    }
}

impl Service for HttpService {
    async fn call(&self, request: Request, interim: Interim) -> Response {
        let words = Words::of(&request).on(Direction::Outbound);
        match self.forward(request, interim, words.is_grpc()).await {
            Ok(mut response) => {
                // What a remote proxy says of an error is for us, not for the application.
                let head = response.headers_mut();
                head.remove(headers::PROXY_ERROR);
                head.remove(headers::PROXY_CONNECTION_CLOSE);
                response
            }
            Err(failure) => self.answer(&failure, words),
        }
    }

    fn refuse(&self, refusal: &Refusal, words: Words) -> Response {
        self.note(refusal);
        refuse(refusal, words.on(Direction::Outbound))
    }
}

/// For the numbers: a request that no endpoint has answered.
const fn unanswered(refusal: &Refusal) -> Ended {
    Ended {
        status: NO_STATUS,
        grpc_status: None,
        failure: true,
        error: match refusal.reason {
            Reason::FailFast | Reason::NoEndpoints => "FAIL_FAST",
            Reason::Overloaded => "LOAD_SHED",
            Reason::ConnectFailed | Reason::ConnectTimeout | Reason::ConnectionLost => "IO",
            _ => "UNKNOWN",
        },
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

//! Tries a request until its answer may be passed on.
//!
//! Two rules decide. *By default* a request that was provably not processed is tried once
//! more, within a budget. Where the *user* asks for retries, that is also done for the
//! statuses that are listed, for fail-fast and for tries that took too long, as often as the
//! limit says. Whoever decides, a request is sent again byte for byte or not at all: where
//! its body is not kept in whole, the answer that there is goes to the client.
//!
//! Where requests go and how they are counted is behind [`Tries`].

use std::time::Duration;

use http::{HeaderMap, Method, StatusCode, header};
use tokio::time::Instant;
use tulle_balance::Backoff;
use tulle_core::{Reason, Refusal};
use tulle_http::{
    Body, Expired, Limits, Patience, Replay, Request, Reset, Response, SendError, Timer,
};
use tulle_metrics::{Counter, Labels, Registry};
use tulle_policy::{Answer, outbound::Retry};

use crate::plan::Plan;

/// Between two tries where the policy does not say: as the stock control plane fills it in.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(25), Duration::from_millis(250), 1.0);

/// Why there is no response of an endpoint.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something in the policy or in this proxy answers instead.
    Answered(Answer),
    /// No endpoint gave one.
    Sending(SendError),
    /// It took too long.
    Late(Expired),
}

impl Failure {
    /// Name what decided it, unless something closer to the cause is named already.
    pub(crate) fn blame(&mut self, resource: &String) {
        match self {
            Self::Answered(Answer::Refuse(refusal)) => refusal.blame(resource),
            Self::Sending(error) => error.refusal.blame(resource),
            Self::Answered(_) | Self::Late(_) => {}
        }
    }
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

impl Failure {
    /// The status of the answer, where it is no redirect.
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::Answered(Answer::Refuse(refusal)) => refusal.status(),
            Self::Answered(_) => StatusCode::OK,
            Self::Sending(error) => error.refusal.status(),
            Self::Late(_) => StatusCode::GATEWAY_TIMEOUT,
        }
        .as_u16()
    }
}

impl From<Expired> for Failure {
    fn from(expired: Expired) -> Self {
        Self::Late(expired)
    }
}

/// What happens to a request besides being sent; for the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// It is tried again.
    Again,
    /// A later try brought what the first did not.
    Succeeded,
    /// It would be tried again, but the limit is reached.
    Limit,
    /// It would be tried again, but its body is not kept.
    Overflow,
    /// It would be tried again, but too many are already.
    Budget,
}

/// The numbers of a route's second tries.
#[derive(Debug)]
pub(crate) struct RetryMetrics {
    again: Counter,
    succeeded: Counter,
    limit: Counter,
    overflow: Counter,
}

impl RetryMetrics {
    pub(crate) fn new(registry: &Registry, grpc: bool, labels: &Labels) -> Self {
        let prefix = if grpc {
            "outbound_grpc"
        } else {
            "outbound_http"
        };
        let counter = |name, help| {
            let name = format!("{prefix}_route_retry_{name}");
            registry.counter(&name, help, labels)
        };
        Self {
            again: counter("requests", "Second and later tries."),
            succeeded: counter("successes", "Requests that a later try brought through."),
            limit: counter(
                "limit_exceeded",
                "Requests that needed more tries than allowed.",
            ),
            overflow: counter(
                "overflow",
                "Requests not tried again, for their size or a budget.",
            ),
        }
    }

    /// Count one.
    pub(crate) fn note(&self, event: Event) {
        match event {
            Event::Again => self.again.inc(),
            Event::Succeeded => self.succeeded.inc(),
            Event::Limit => self.limit.inc(),
            Event::Overflow | Event::Budget => self.overflow.inc(),
        }
    }
}

/// Where tries go.
pub(crate) trait Tries {
    /// A response, and whatever belongs to it.
    type Sent: AsMut<Response>;

    /// Give the request to an endpoint, another than the last one if there is one. `fresh`:
    /// the request is as it came, and not one that was given back.
    async fn send(
        &self,
        request: Request,
        fresh: bool,
        patience: &mut impl Patience,
    ) -> Result<Self::Sent, Failure>;
    /// The response is not passed on; these were its trailers.
    fn rejected(&self, sent: Self::Sent, trailers: Option<&HeaderMap>);
    /// Whether the budget has another try, which it loses.
    fn may_try(&self, now: Instant) -> bool;
    fn note(&self, event: Event);
    fn random(&self) -> u64;
}

/// A response that is passed on, and what is still to be watched.
pub(crate) struct Accepted<S> {
    pub(crate) sent: S,
    pub(crate) timer: Timer,
    pub(crate) upload: Option<Replay>,
}

/// Whether a request leads to a tunnel, which has no end and can't be repeated.
pub(crate) fn is_tunnel(request: &Request) -> bool {
    request.method() == Method::CONNECT || request.headers().contains_key(header::UPGRADE)
}

/// Have the body kept, up to the limit, unless it is here already or is none.
pub(crate) fn keep(request: &mut Request, limit: usize) -> Option<Replay> {
    let body = request.body();
    if body.is_end_stream() || body.is_here() || is_tunnel(request) {
        return None;
    }
    Some(watch(request, limit))
}

fn watch(request: &mut Request, limit: usize) -> Replay {
    let (body, replay) = Replay::new(std::mem::take(request.body_mut()), limit);
    *request.body_mut() = body;
    replay
}

/// Send a request, and again as the plan says. `mirrored` is how much of its body is kept for
/// others than the tries.
///
/// # Errors
/// Where no try brought a response.
pub(crate) async fn run<T: Tries>(
    plan: &Plan<'_>,
    mirrored: usize,
    arrived: Instant,
    mut request: Request,
    tries: &T,
) -> Result<Accepted<T::Sent>, Failure> {
    let tunnel = is_tunnel(&request);
    let mut left = if tunnel { 0 } else { plan.retries() };
    let counts = plan.limits(arrived, left > 0).watch_request();
    let kept = plan.max_request_bytes().max(mirrored);
    let upload = if tunnel || request.body().is_end_stream() || (kept == 0 && !counts) {
        None
    } else if counts {
        Some(watch(&mut request, kept))
    } else {
        keep(&mut request, kept)
    };
    let mut made = 0;
    loop {
        let may_retry = left > 0;
        let spare = (may_retry && plan.retry.is_some()).then(|| Spare::of(&request));
        let mut timer = Timer::new(plan.limits(arrived, may_retry), upload.clone());
        let fresh = made == 0 || plan.retry.is_some();
        let mut outcome = match tries.send(request, fresh, &mut timer).await {
            Err(failure) => Outcome::Nothing(failure),
            Ok(mut sent) => {
                // A client that is still sending may wait for our answer to go on.
                let whole = upload
                    .as_ref()
                    .is_none_or(|upload| upload.flushed().is_some());
                let judging = judge(plan.retry.as_deref(), sent.as_mut(), may_retry && whole);
                match timer.within(judging).await {
                    Ok(judged) => Outcome::Response(sent, judged),
                    Err(expired) => {
                        tries.rejected(sent, None);
                        Outcome::Nothing(expired.into())
                    }
                }
            }
        };
        let unsent = outcome.unsent();
        if !outcome.wants_another(plan, unsent.is_some()) {
            if made > 0 && matches!(outcome, Outcome::Response(..)) {
                tries.note(Event::Succeeded);
            }
            return outcome.accept(timer, upload);
        }
        let again = if !may_retry {
            Err(Event::Limit)
        } else if !spare
            .as_ref()
            .map_or(unsent.is_some(), |spare| spare.is_whole(upload.as_ref()))
        {
            Err(Event::Overflow)
        } else if !tries.may_try(Instant::now()) {
            Err(Event::Budget)
        } else {
            // Not before it is certain: from here on the try before reads nothing any more, and
            // its answer could not be passed on while the client still sends.
            let again = match spare {
                Some(spare) => spare.again(upload.as_ref()),
                None => unsent.map(|unsent| *unsent),
            };
            again.ok_or(Event::Overflow)
        };
        match again {
            Ok(again) => request = again,
            Err(why) => {
                if plan.retry.is_some() || why == Event::Budget {
                    tries.note(why);
                }
                return outcome.accept(timer, upload);
            }
        }
        if let Outcome::Response(sent, judged) = outcome {
            tries.rejected(sent, judged.trailers());
        }
        tries.note(Event::Again);
        left -= 1;
        made += 1;
        if let Some(retry) = &plan.retry {
            pause(plan, retry, arrived, made, tries.random()).await?;
        }
    }
}

/// What came of one try.
enum Outcome<S> {
    Response(S, Judged),
    Nothing(Failure),
}

/// What the policy says of a response.
enum Judged {
    Good,
    /// It is a reason to try again; these were its trailers, where they were looked at.
    Bad(Option<HeaderMap>),
}

impl Judged {
    fn trailers(&self) -> Option<&HeaderMap> {
        match self {
            Self::Good => None,
            Self::Bad(trailers) => trailers.as_ref(),
        }
    }
}

impl<S> Outcome<S> {
    /// The request, where it was given back.
    fn unsent(&mut self) -> Option<Box<Request>> {
        match self {
            Self::Nothing(Failure::Sending(error)) => error.request.take(),
            _ => None,
        }
    }

    fn wants_another(&self, plan: &Plan<'_>, unprocessed: bool) -> bool {
        if unprocessed {
            return true;
        }
        plan.retry.is_some()
            && match self {
                Self::Response(_, judged) => matches!(judged, Judged::Bad(_)),
                Self::Nothing(Failure::Late(expired)) => {
                    matches!(expired, Expired::Head(_) | Expired::Attempt(_))
                }
                Self::Nothing(Failure::Answered(Answer::Refuse(refusal))) => {
                    matches!(refusal.reason, Reason::FailFast | Reason::NoEndpoints)
                }
                Self::Nothing(Failure::Sending(error)) => {
                    error.reset.is_some_and(Reset::is_refused)
                }
                Self::Nothing(Failure::Answered(_)) => false,
            }
    }

    fn accept(self, timer: Timer, upload: Option<Replay>) -> Result<Accepted<S>, Failure> {
        match self {
            Self::Response(sent, _) => Ok(Accepted {
                sent,
                timer,
                upload,
            }),
            Self::Nothing(failure) => Err(failure),
        }
    }
}

/// What is needed to send a request once more from its start.
pub(crate) struct Spare {
    pub(crate) head: http::Request<()>,
    /// The body, where it is here.
    pub(crate) body: Option<Body>,
}

impl Spare {
    pub(crate) fn of(request: &Request) -> Self {
        let mut head = http::Request::new(());
        *head.method_mut() = request.method().clone();
        *head.uri_mut() = request.uri().clone();
        *head.version_mut() = request.version();
        *head.headers_mut() = request.headers().clone();
        *head.extensions_mut() = request.extensions().clone();
        let body = request.body();
        let body = if body.is_end_stream() {
            Some(Body::empty())
        } else {
            body.is_here().then(|| body.copy()).flatten()
        };
        Self { head, body }
    }

    fn is_whole(&self, upload: Option<&Replay>) -> bool {
        upload.map_or(self.body.is_some(), Replay::is_whole)
    }

    fn again(self, upload: Option<&Replay>) -> Option<Request> {
        let body = match upload {
            Some(upload) => upload.again()?,
            None => self.body?,
        };
        Some(self.head.map(|()| body))
    }
}

/// Judge a response; `peeks`: by its trailers too, where they are near.
async fn judge(retry: Option<&Retry>, response: &mut Response, peeks: bool) -> Judged {
    let Some(retry) = retry else {
        return Judged::Good;
    };
    let status = response.status().as_u16();
    let listed = |(start, end): &(u16, u16)| (*start..=*end).contains(&status);
    if retry.statuses.iter().any(listed) {
        return Judged::Bad(None);
    }
    if retry.grpc_codes.is_empty() || !is_grpc(response.headers()) {
        return Judged::Good;
    }
    let bad = |headers: &HeaderMap| {
        grpc_code(headers).is_some_and(|code| retry.grpc_codes.contains(&code))
    };
    if response.headers().contains_key(GRPC_STATUS) {
        let bad = bad(response.headers());
        return if bad { Judged::Bad(None) } else { Judged::Good };
    }
    if !peeks {
        return Judged::Good;
    }
    let (trailers, body) = std::mem::take(response.body_mut()).peek_trailers().await;
    *response.body_mut() = body;
    match trailers {
        Some(trailers) if bad(&trailers) => Judged::Bad(Some(trailers)),
        _ => Judged::Good,
    }
}

const GRPC_STATUS: &str = "grpc-status";

fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

fn grpc_code(headers: &HeaderMap) -> Option<u16> {
    headers.get(GRPC_STATUS)?.to_str().ok()?.parse().ok()
}

/// Wait before the next try, as long as the request's time goes.
async fn pause(
    plan: &Plan<'_>,
    retry: &Retry,
    arrived: Instant,
    made: u32,
    random: u64,
) -> Result<(), Expired> {
    let backoff = match retry.backoff {
        Some(backoff) => Backoff::new(backoff.min, backoff.max, backoff.jitter.into()),
        None => BACKOFF,
    };
    let limits = Limits {
        request: plan.limits(arrived, false).request,
        ..Limits::default()
    };
    let wait = backoff.wait(made, random);
    Timer::new(limits, None)
        .within(tokio::time::sleep(wait))
        .await
}

#[cfg(test)]
mod tests;

//! Requests against a server that fails by script.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    hash::{DefaultHasher, Hasher},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderValue;
use http_body::{Body as _, Frame, SizeHint};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use tulle_http::BodyError;
use tulle_policy::outbound::Timeouts;

use super::*;

/// What a client sends.
#[derive(Clone, Debug, Default)]
struct Sent {
    chunks: Vec<Bytes>,
    trailers: Option<HeaderMap>,
    /// The length is announced.
    announced: bool,
    /// The client goes away instead of ending the body.
    breaks: bool,
    /// Every so many polls find nothing yet.
    late: Option<usize>,
}

impl Sent {
    fn of(chunks: &[&'static str]) -> Self {
        Self {
            chunks: chunks
                .iter()
                .map(|text| Bytes::from_static(text.as_bytes()))
                .collect(),
            ..Self::default()
        }
    }

    fn data(&self) -> Vec<u8> {
        self.chunks.concat()
    }

    fn request(&self) -> Request {
        let source = Source {
            left: self.chunks.clone().into(),
            trailers: self.trailers.clone(),
            announced: self.announced.then(|| self.data().len() as u64),
            breaks: self.breaks,
            late: self.late,
            polls: 0,
        };
        let mut request = Request::new(Body::wrap(source));
        *request.method_mut() = Method::POST;
        request
    }
}

struct Source {
    left: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
    announced: Option<u64>,
    breaks: bool,
    late: Option<usize>,
    polls: usize,
}

impl http_body::Body for Source {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.polls += 1;
        if self
            .late
            .is_some_and(|every| self.polls.is_multiple_of(every))
        {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(match self.left.pop_front() {
            Some(data) => {
                if let Some(length) = &mut self.announced {
                    *length -= data.len() as u64;
                }
                Some(Ok(Frame::data(data)))
            }
            None if self.breaks => Some(Err(BodyError::Incomplete)),
            None => self
                .trailers
                .take()
                .map(|trailers| Ok(Frame::trailers(trailers))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty() && self.trailers.is_none() && !self.breaks
    }

    fn size_hint(&self) -> SizeHint {
        self.announced
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// What a server does with one try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// Read so many frames and refuse the stream, as one that was not looked at.
    Refuse(usize),
    /// Read so many frames and answer with this status.
    Answer(usize, u16),
    /// Read all and answer nothing.
    Hang,
    /// No endpoint takes it.
    FailFast,
    /// Read all and answer with 200.
    Serve,
}

/// What has come of one try.
#[derive(Debug, Default)]
struct Received {
    data: Vec<u8>,
    trailers: Option<HeaderMap>,
    ended: bool,
    failed: bool,
}

impl Received {
    fn hash(data: &[u8], trailers: Option<&HeaderMap>) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write(data);
        for (name, value) in trailers.into_iter().flatten() {
            hasher.write(name.as_str().as_bytes());
            hasher.write(value.as_bytes());
        }
        hasher.finish()
    }
}

/// A try, with what the server holds of it.
struct Exchange {
    response: Response,
    body: Body,
    received: Received,
}

impl AsMut<Response> for Exchange {
    fn as_mut(&mut self) -> &mut Response {
        &mut self.response
    }
}

async fn read(body: &mut Body, received: &mut Received, frames: usize) {
    for _ in 0..frames {
        if received.ended || received.failed {
            return;
        }
        let next = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await;
        take(next, body, received);
    }
}

fn take(next: Option<Result<Frame<Bytes>, BodyError>>, body: &Body, received: &mut Received) {
    match next {
        Some(Ok(frame)) => match frame.into_data() {
            Ok(data) => {
                received.data.extend_from_slice(&data);
                received.ended = body.is_end_stream();
            }
            Err(frame) => {
                received.trailers = frame.into_trailers().ok();
                received.ended = true;
            }
        },
        Some(Err(_)) => received.failed = true,
        None => received.ended = true,
    }
}

/// Servers by script, one act per try; the last one goes on.
struct Script {
    acts: Vec<Act>,
    tried: Cell<usize>,
    done: RefCell<Vec<Received>>,
    /// Exchanges that were given up and still hold their body.
    zombies: RefCell<Vec<(Body, Received)>>,
    zombies_read: bool,
    events: RefCell<Vec<Event>>,
    budget: Cell<u32>,
}

impl Script {
    fn new(acts: &[Act]) -> Self {
        Self {
            acts: acts.to_vec(),
            tried: Cell::new(0),
            done: RefCell::default(),
            zombies: RefCell::default(),
            zombies_read: false,
            events: RefCell::default(),
            budget: Cell::new(u32::MAX),
        }
    }

    fn bury(&self, body: Body, received: Received) {
        self.zombies.borrow_mut().push((body, received));
    }

    /// An exchange that is given up may be polled once more before it is dropped.
    async fn stir(&self) {
        if !self.zombies_read {
            return;
        }
        let mut zombies = self.zombies.take();
        for (body, received) in &mut zombies {
            if !received.ended && !received.failed {
                let next = poll_fn(|cx| match Pin::new(&mut *body).poll_frame(cx) {
                    Poll::Ready(next) => Poll::Ready(Some(next)),
                    Poll::Pending => Poll::Ready(None),
                });
                if let Some(next) = next.await {
                    take(next, body, received);
                }
            }
        }
        self.zombies.replace(zombies);
    }

    fn refusal(reason: Reason) -> Refusal {
        Refusal::new(reason, "by script")
    }
}

impl Tries for Script {
    type Sent = Exchange;

    async fn send(
        &self,
        mut request: Request,
        _: bool,
        patience: &mut impl Patience,
    ) -> Result<Exchange, Failure> {
        let index = self.tried.replace(self.tried.get() + 1);
        let act = *self.acts.get(index).or(self.acts.last()).expect("an act");
        if act == Act::FailFast {
            self.done.borrow_mut().push(Received::default());
            return Err(Self::refusal(Reason::FailFast).into());
        }
        self.stir().await;
        // As the pool does it.
        let copy = request.body().copy();
        let mut body = std::mem::take(request.body_mut());
        let mut received = Received::default();
        let frames = match act {
            Act::Refuse(frames) | Act::Answer(frames, _) => frames,
            Act::Hang | Act::Serve | Act::FailFast => usize::MAX,
        };
        let reading = patience
            .within(read(&mut body, &mut received, frames))
            .await;
        if let Err(expired) = reading {
            self.bury(body, received);
            return Err(expired.into());
        }
        self.stir().await;
        if received.failed {
            // The client is gone, and its request with it.
            self.done.borrow_mut().push(received);
            return Err(Self::refusal(Reason::ConnectionLost).into());
        }
        let status = match act {
            Act::Refuse(_) => {
                let copy = copy.filter(Body::is_whole);
                let request = copy.map(|copy| Box::new(request.map(|_| copy)));
                drop(body);
                self.done.borrow_mut().push(received);
                return Err(Failure::Sending(SendError {
                    refusal: Self::refusal(Reason::ConnectionLost),
                    request,
                    reset: None,
                }));
            }
            Act::Hang => {
                let expired = patience.within(std::future::pending::<()>()).await;
                self.bury(body, received);
                return Err(expired.expect_err("it never ends").into());
            }
            Act::Answer(_, status) => status,
            Act::Serve | Act::FailFast => 200,
        };
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::from_u16(status).expect("a status");
        Ok(Exchange {
            response,
            body,
            received,
        })
    }

    fn rejected(&self, sent: Exchange, _: Option<&HeaderMap>) {
        self.bury(sent.body, sent.received);
    }

    fn may_try(&self, _: Instant) -> bool {
        let left = self.budget.get();
        self.budget.set(left.saturating_sub(1));
        left > 0
    }

    fn note(&self, event: Event) {
        self.events.borrow_mut().push(event);
    }

    fn random(&self) -> u64 {
        0
    }
}

fn retry(max_retries: u32) -> Retry {
    Retry {
        max_retries,
        max_request_bytes: 65_536,
        statuses: Box::new([(500, 599)]),
        grpc_codes: Box::default(),
        timeout: None,
        backoff: None,
    }
}

fn plan(retry: Option<Retry>) -> Plan<'static> {
    Plan {
        retry: retry.map(std::borrow::Cow::Owned),
        timeouts: Timeouts::default(),
        default_retry: true,
    }
}

/// What the client got, and what the server that answered has received.
async fn exchange(
    plan: &Plan<'_>,
    sent: &Sent,
    script: &Script,
) -> Result<(u16, Received), Failure> {
    let accepted = run(plan, 0, Instant::now(), sent.request(), script).await?;
    let Exchange {
        response,
        mut body,
        mut received,
    } = accepted.sent;
    if let Some(upload) = accepted.upload {
        upload.release();
    }
    script.stir().await;
    read(&mut body, &mut received, usize::MAX).await;
    Ok((response.status().as_u16(), received))
}

/// The stock proxy sends it twice.
#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn the_first_chunk_is_sent_once_when_a_retry_follows_refused_stream_or_fail_fast() {
    let sent = Sent {
        late: Some(2),
        ..Sent::of(&["first", "second", "third"])
    };
    for acts in [
        &[Act::Refuse(1), Act::Serve][..],
        &[Act::Refuse(1), Act::FailFast, Act::Serve],
        &[
            Act::Answer(1, 503),
            Act::FailFast,
            Act::Refuse(2),
            Act::Serve,
        ],
    ] {
        let script = Script::new(acts);

        let (status, received) = exchange(&plan(Some(retry(3))), &sent, &script)
            .await
            .expect("a response");

        assert_eq!(status, 200, "{acts:?}");
        assert_eq!(received.data, b"firstsecondthird", "{acts:?}");
        assert!(received.ended);
    }
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn by_default_what_was_refused_is_tried_once_more() {
    let sent = Sent::of(&["first", "second"]);
    let script = Script::new(&[Act::Refuse(1), Act::Serve]);

    let (status, received) = exchange(&plan(None), &sent, &script)
        .await
        .expect("a response");

    assert_eq!((status, &*received.data), (200, &b"firstsecond"[..]));
    assert_eq!(*script.events.borrow(), [Event::Again, Event::Succeeded]);

    let script = Script::new(&[Act::Refuse(1), Act::Refuse(0)]);
    exchange(&plan(None), &sent, &script)
        .await
        .expect_err("a failure");
    assert_eq!(script.tried.get(), 2);

    for act in [Act::Answer(1, 503), Act::FailFast] {
        let script = Script::new(&[act]);
        let _ = exchange(&plan(None), &sent, &script).await;
        assert_eq!(script.tried.get(), 1, "{act:?}");
    }
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn the_default_ends_with_the_budget_and_where_it_is_off() {
    let sent = Sent::of(&["first"]);
    let script = Script::new(&[Act::Refuse(1), Act::Serve]);
    script.budget.set(0);
    exchange(&plan(None), &sent, &script)
        .await
        .expect_err("a failure");
    assert_eq!(script.tried.get(), 1);

    let script = Script::new(&[Act::Refuse(1), Act::Serve]);
    let off = Plan {
        default_retry: false,
        ..plan(None)
    };
    exchange(&off, &sent, &script).await.expect_err("a failure");
    assert_eq!(script.tried.get(), 1);
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn the_last_answer_is_passed_on_when_the_limit_is_reached() {
    let sent = Sent::of(&["x"]);
    let script = Script::new(&[
        Act::Answer(1, 500),
        Act::Answer(1, 501),
        Act::Answer(1, 502),
    ]);
    let begun = Instant::now();

    let (status, _) = exchange(&plan(Some(retry(2))), &sent, &script)
        .await
        .expect("a response");

    assert_eq!(status, 502);
    assert_eq!(
        *script.events.borrow(),
        [Event::Again, Event::Again, Event::Limit]
    );
    // Without jitter, which the script's random number leaves out.
    assert_eq!(begun.elapsed(), Duration::from_millis(25 + 50));
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn an_answer_that_no_budget_lets_be_tried_again_still_gets_the_rest_of_the_body() {
    let sent = Sent::of(&["first", "second"]);
    let script = Script::new(&[Act::Answer(1, 503), Act::Serve]);
    script.budget.set(0);

    let (status, received) = exchange(&plan(Some(retry(3))), &sent, &script)
        .await
        .expect("a response");

    assert!(!received.failed);
    assert_eq!((status, &*received.data), (503, &b"firstsecond"[..]));
    assert_eq!(*script.events.borrow(), [Event::Budget]);
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn a_body_over_the_limit_is_sent_once() {
    let sent = Sent::of(&["12345", "67890"]);
    let script = Script::new(&[Act::Answer(2, 503), Act::Serve]);
    let small = Retry {
        max_request_bytes: 9,
        ..retry(3)
    };

    let (status, received) = exchange(&plan(Some(small)), &sent, &script)
        .await
        .expect("a response");

    assert_eq!((status, &*received.data), (503, &b"1234567890"[..]));
    assert_eq!(*script.events.borrow(), [Event::Overflow]);
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn a_client_that_goes_away_is_not_tried_for_again() {
    let sent = Sent {
        breaks: true,
        ..Sent::of(&["first"])
    };
    let script = Script::new(&[Act::Refuse(1), Act::Serve]);

    exchange(&plan(Some(retry(5))), &sent, &script)
        .await
        .expect_err("a failure");

    assert_eq!(script.tried.get(), 2);
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn a_try_that_hangs_is_given_up_but_the_last_one_is_waited_for() {
    let sent = Sent::of(&["x"]);
    let timeout = Some(Duration::from_secs(1));
    let impatient = plan(Some(Retry {
        timeout,
        ..retry(1)
    }));
    let script = Script::new(&[Act::Hang, Act::Serve]);
    let begun = Instant::now();

    let (status, received) = exchange(&impatient, &sent, &script)
        .await
        .expect("a response");

    assert_eq!((status, &*received.data), (200, &b"x"[..]));
    assert_eq!(begun.elapsed(), Duration::from_millis(1025));

    let script = Script::new(&[Act::Hang]);
    let limited = Plan {
        timeouts: Timeouts {
            request: Some(Duration::from_secs(5)),
            ..Timeouts::default()
        },
        ..impatient
    };
    let begun = Instant::now();
    let failure = exchange(&limited, &sent, &script)
        .await
        .expect_err("a failure");
    assert!(
        matches!(failure, Failure::Late(Expired::Request(_))),
        "{failure:?}"
    );
    assert_eq!(begun.elapsed(), Duration::from_secs(5));
    assert_eq!(script.tried.get(), 2);
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn one_try_may_not_take_longer_than_the_backend_is_given() {
    let sent = Sent::of(&["x"]);
    let script = Script::new(&[Act::Hang]);
    let limited = Plan {
        timeouts: Timeouts {
            backend_request: Some(Duration::from_secs(1)),
            ..Timeouts::default()
        },
        ..plan(Some(retry(1)))
    };
    let begun = Instant::now();

    let failure = exchange(&limited, &sent, &script)
        .await
        .expect_err("a failure");

    assert!(
        matches!(failure, Failure::Late(Expired::Attempt(_))),
        "{failure:?}"
    );
    assert_eq!(begun.elapsed(), Duration::from_millis(2025));
}

/// A gRPC response with these pieces, and this status behind them.
fn grpc(pieces: &[&'static str], status: &'static str) -> Response {
    let sent = Sent {
        trailers: Some(HeaderMap::from_iter([(
            http::HeaderName::from_static(GRPC_STATUS),
            HeaderValue::from_static(status),
        )])),
        ..Sent::of(pieces)
    };
    let mut response = Response::new(sent.request().into_body());
    let value = HeaderValue::from_static("application/grpc+proto");
    response.headers_mut().insert(header::CONTENT_TYPE, value);
    response
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn a_grpc_status_is_a_reason_in_the_head_and_behind_one_message() {
    let unavailable = Retry {
        statuses: Box::default(),
        grpc_codes: Box::new([14]),
        ..retry(1)
    };
    let is_bad = async |mut response: Response, peeks| {
        let judged = judge(Some(&unavailable), &mut response, peeks).await;
        let mut received = Received::default();
        read(response.body_mut(), &mut received, usize::MAX).await;
        (matches!(judged, Judged::Bad(_)), received.data)
    };

    assert_eq!(
        is_bad(grpc(&["x"], "14"), true).await,
        (true, b"x".to_vec())
    );
    assert_eq!(
        is_bad(grpc(&["x"], "0"), true).await,
        (false, b"x".to_vec())
    );
    assert_eq!(
        is_bad(grpc(&["x", "y"], "14"), true).await,
        (false, b"xy".to_vec())
    );
    // A client that is still sending may wait for the head.
    assert_eq!(is_bad(grpc(&[], "14"), false).await, (false, Vec::new()));
    let mut at_once = grpc(&[], "0");
    let status = HeaderValue::from_static("14");
    at_once.headers_mut().insert(GRPC_STATUS, status);
    assert!(is_bad(at_once, false).await.0);
}

const CASES: usize = 100_000;

fn random_case(random: &mut SmallRng) -> (Sent, Plan<'static>, Script) {
    let chunks = (0..random.random_range(0..6))
        .map(|_| {
            let most = *[0, 3, 40, 5000]
                .get(random.random_range(0..4))
                .unwrap_or(&0);
            let length = random.random_range(0..=most);
            let mut data = vec![0; length];
            random.fill(&mut data[..]);
            Bytes::from(data)
        })
        .collect();
    let trailers = random.random_bool(0.3).then(|| {
        let value = HeaderValue::from(random.random::<u32>());
        HeaderMap::from_iter([(http::HeaderName::from_static("x-sum"), value)])
    });
    let sent = Sent {
        chunks,
        announced: trailers.is_none() && random.random_bool(0.3),
        trailers,
        breaks: random.random_bool(0.05),
        late: random.random_bool(0.5).then(|| random.random_range(2..4)),
    };
    let timeout = random.random_bool(0.3).then(|| Duration::from_millis(100));
    let with = random.random_bool(0.8).then(|| Retry {
        max_request_bytes: *[0, 1, 50, 4096, 65_536]
            .get(random.random_range(0..5))
            .unwrap_or(&0),
        timeout,
        ..retry(random.random_range(0..4))
    });
    let acts: Vec<Act> = (0..random.random_range(1..5))
        .map(|_| {
            let frames = random.random_range(0..8);
            match random.random_range(0..6) {
                0 => Act::Refuse(frames),
                1 => Act::Answer(frames, 503),
                2 => Act::Answer(frames, 200),
                3 if timeout.is_some() => Act::Hang,
                4 => Act::FailFast,
                _ => Act::Serve,
            }
        })
        .collect();
    let plan = Plan {
        timeouts: Timeouts {
            // Ends what hangs when nothing else does.
            request: Some(Duration::from_secs(10)),
            ..Timeouts::default()
        },
        ..plan(with)
    };
    let mut script = Script::new(&acts);
    script.zombies_read = random.random_bool(0.5);
    (sent, plan, script)
}

/// Whatever the chunks, the point of failure, trailers and limit: a server receives what the
/// client sent, or a beginning of it where the exchange broke; never anything else.
#[test]
fn a_body_is_replayed_byte_for_byte_or_not_at_all() {
    let seed = std::env::var("TULLE_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(rand::random::<u64>);
    println!("TULLE_SEED={seed}");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let retried = Rc::new(Cell::new(0));
    runtime.block_on(async {
        let mut random = SmallRng::seed_from_u64(seed);
        for case in 0..CASES {
            let (sent, plan, script) = random_case(&mut random);
            let what = || {
                format!(
                    "seed {seed} case {case}: {:?} {plan:?} {sent:?}",
                    script.acts
                )
            };

            let outcome = exchange(&plan, &sent, &script).await;

            let all = sent.data();
            if let Ok((_, received)) = &outcome
                && !sent.breaks
            {
                assert!(received.ended && !received.failed, "{}", what());
                let is = Received::hash(&received.data, received.trailers.as_ref());
                let was = Received::hash(&all, sent.trailers.as_ref());
                assert_eq!(is, was, "{}", what());
            }
            let others = script.zombies.borrow();
            let done = script.done.borrow();
            for received in others.iter().map(|(_, received)| received).chain(&*done) {
                assert!(all.starts_with(&received.data), "{}", what());
            }
            let tries = script.tried.get();
            assert!(tries <= 1 + plan.retries() as usize, "{}", what());
            if tries > 1 {
                retried.set(retried.get() + 1);
            }
        }
    });
    // It must not be true for want of retries.
    assert!(retried.get() > CASES / 10, "{} retried", retried.get());
}

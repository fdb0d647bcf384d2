//! Serves one HTTP/1 connection.
//!
//! Requests are answered one after the other. What a client sends ahead stays unread, but
//! for one buffer, until its turn comes. A request that is malformed is answered here with
//! 400 or 431, and the connection ends: where the next request begins is then unknown.
//!
//! A client that has closed its own side still gets its answer; one whose connection is
//! reset gets none, and the service's future is dropped.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{Method, Response as HttpResponse, StatusCode, Version, header};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, Sleep},
};
use tulle_core::{Reason, Refusal};

use super::{
    Http1Options,
    decode::Decoder,
    encode::{self, Answering, Framing, Outgoing, PumpError, Sink},
    io::{Buffered, Stream},
    parse::{self, Length, Limits, Malformed, RequestHead, Switch},
};
use crate::{
    Body, Drain, Facts, Interim, Response, ServeError, Service,
    body::{Next, Remaining, RequestSource},
    drain::{Stage, Watch},
    headers::tokens,
    linger::{DISCARD_MAX, DISCARD_TIME, Linger, linger},
};

/// Serve a connection until both sides are done with it.
///
/// # Errors
///
/// When it ended otherwise. A malformed request has been answered.
pub async fn serve<I, S>(
    io: I,
    service: Rc<S>,
    options: &Http1Options,
    drain: Drain,
) -> Result<(), ServeError>
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
    S: Service,
{
    let connection = Rc::new(Connection::new(io, options.limits()));
    let mut idle = Idle {
        watch: drain.watch(),
        timeout: options.idle_timeout,
        timer: None,
    };
    drop(drain);
    loop {
        match connection.next_head(options, &mut idle).await? {
            Turn::Head(head) => {
                if !connection.exchange(head, &*service, &idle.watch).await? {
                    return connection.close().await;
                }
            }
            Turn::Malformed(malformed) => {
                let refusal = malformed.request_refusal();
                let answer = service.refuse(&refusal, Facts::unread(Version::HTTP_11));
                connection.answer_malformed(answer).await;
                return Err(ServeError::Malformed(refusal));
            }
            Turn::Partial => {
                let refusal = ServeError::late();
                let answer = service.refuse(&refusal, Facts::unread(Version::HTTP_11));
                connection.answer_malformed(answer).await;
                return Err(ServeError::HeadTimeout);
            }
            Turn::End => return connection.close().await,
        }
    }
}

/// What the wait for a request ended with.
#[expect(
    clippy::large_enum_variant,
    reason = "the common case; a box would be an allocation"
)]
enum Turn {
    Head(RequestHead),
    Malformed(Malformed),
    /// A head was begun, and its rest is not here yet.
    Partial,
    /// The client is done, or we are.
    End,
}

/// What ends the wait for the next request.
struct Idle {
    watch: Watch,
    timeout: Option<Duration>,
    /// Armed at most once per time-out, whatever the number of requests meanwhile.
    timer: Option<(Pin<Box<Sleep>>, Instant)>,
}

impl Idle {
    fn poll(&mut self, since: &mut Option<Instant>, cx: &mut Context<'_>) -> Poll<()> {
        if self.watch.poll(Stage::Closed, cx).is_ready() {
            return Poll::Ready(());
        }
        let Some(timeout) = self.timeout else {
            return Poll::Pending;
        };
        let deadline = *since.get_or_insert_with(Instant::now) + timeout;
        loop {
            let (timer, armed_for) = self
                .timer
                .get_or_insert_with(|| (Box::pin(tokio::time::sleep_until(deadline)), deadline));
            ready!(timer.as_mut().poll(cx));
            if *armed_for >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
            *armed_for = deadline;
        }
    }
}

struct Connection<I>(RefCell<State<I>>);

/// A response whose head is on its way.
struct Responding {
    body: Body,
    outgoing: Outgoing,
    close: bool,
    tunnel: bool,
    /// The client was not told to go on with its body, and may never.
    abandons: bool,
}

struct State<I> {
    io: Buffered<I>,
    limits: Limits,
    decoder: Decoder,
    /// Counts exchanges, so that a body that outlives its own reads nothing of the next.
    epoch: u32,
    /// 1xx may be sent.
    interim: bool,
    /// The client may hold its body back until it is told to go on.
    awaits_continue: bool,
}

impl<I: Stream> Connection<I> {
    fn new(io: I, limits: Limits) -> Self {
        Self(RefCell::new(State {
            io: Buffered::new(io),
            limits,
            decoder: Decoder::new(Length::None, limits),
            epoch: 0,
            interim: false,
            awaits_continue: false,
        }))
    }

    async fn next_head(&self, options: &Http1Options, idle: &mut Idle) -> io::Result<Turn> {
        let mut since = None;
        match poll_fn(|cx| self.0.borrow_mut().poll_turn(cx, &mut since, idle)).await? {
            Turn::Partial => {}
            turn => return Ok(turn),
        }
        // Rare, so its state is not a part of every connection's.
        Box::pin(async {
            let rest = poll_fn(|cx| self.0.borrow_mut().poll_rest(cx));
            tokio::time::timeout(options.header_timeout, rest)
                .await
                .unwrap_or(Ok(Turn::Partial))
        })
        .await
    }

    /// Answer one request; resolves to whether another one may follow. What is large is put
    /// into boxes or dropped before anything is waited for, so that a connection is not as
    /// large as a request while it is idle.
    fn exchange<'a, S: Service>(
        self: &'a Rc<Self>,
        head: RequestHead,
        service: &'a S,
        watch: &'a Watch,
    ) -> impl Future<Output = Result<bool, ServeError>> + 'a {
        let answering = Answering {
            head: head.request.method() == Method::HEAD,
            http10: head.request.version() == Version::HTTP_10,
            switch: head.switch,
        };
        let keep_alive = head.keep_alive;
        let mut call = self.call(head, service);
        async move {
            let mut responding = poll_fn(|cx| match call.as_mut().poll(cx) {
                Poll::Ready(response) => {
                    let keep_alive = keep_alive && !watch.reached(Stage::Draining);
                    Poll::Ready(Ok(
                        self.begin_response(response, answering, keep_alive, service)
                    ))
                }
                Poll::Pending => self.0.borrow_mut().poll_meanwhile(cx).map(Err),
            })
            .await?;
            drop(call);
            match poll_fn(|cx| self.poll_response(&mut responding, cx)).await {
                Ok(()) => {}
                Err(PumpError::Io(error)) => return Err(error.into()),
                Err(PumpError::Body(error)) => {
                    // The client gets what there is, and sees that the end is missing.
                    poll_fn(|cx| self.0.borrow_mut().io.poll_write_out(cx)).await?;
                    return Err(ServeError::ResponseFailed(error.to_string()));
                }
            }
            let Responding {
                mut body,
                close,
                tunnel,
                abandons,
                ..
            } = responding;
            if tunnel {
                poll_fn(|cx| self.0.borrow_mut().io.poll_shutdown(cx)).await?;
            }
            if !abandons {
                // The server has answered early, and still gets what it was promised.
                poll_fn(|cx| body.poll_upload(cx)).await;
            }
            if tunnel {
                return Ok(false);
            }
            drop(body);
            if self.0.borrow_mut().end(close) {
                return Ok(!close);
            }
            Ok(Box::pin(self.end_early(close)).await)
        }
    }

    fn call<'a, S: Service>(
        self: &Rc<Self>,
        head: RequestHead,
        service: &'a S,
    ) -> Pin<Box<impl Future<Output = Response> + 'a>> {
        let (epoch, whole) = self.0.borrow_mut().begin(&head);
        let source: Rc<dyn RequestSource> = Rc::<Self>::clone(self);
        let body = whole.unwrap_or_else(|| Body::request(Rc::clone(&source), epoch));
        let request = head.request.map(|()| body);
        Box::pin(service.call(request, Interim::http1(source, epoch)))
    }

    /// Gather the head of a response.
    fn begin_response(
        &self,
        mut response: Response,
        answering: Answering,
        keep_alive: bool,
        service: &impl Service,
    ) -> Responding {
        let framing = encode::response_framing(&response, answering).unwrap_or_else(|| {
            let what = "the response's head contradicts itself";
            let refusal = Refusal::new(Reason::BadResponse, what);
            response = service.refuse(&refusal, Facts::unread(Version::HTTP_11));
            Framing::Nothing
        });
        let tunnel = framing == Framing::Raw
            && (response.status() == StatusCode::SWITCHING_PROTOCOLS
                || answering.switch == Switch::Connect);
        let mut state = self.0.borrow_mut();
        let close = !keep_alive || framing == Framing::Raw || state.must_close(&response);
        let out = state.io.stage();
        encode::response(out, &response, framing, answering, close && !tunnel);
        state.interim = false;
        let abandons = state.abandons_body();
        if tunnel {
            state.decoder.become_tunnel();
        }
        Responding {
            body: response.into_body(),
            outgoing: Outgoing::new(framing),
            close,
            tunnel,
            abandons,
        }
    }

    fn poll_response(
        &self,
        responding: &mut Responding,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), PumpError>> {
        let Responding { body, outgoing, .. } = responding;
        let pumped = outgoing.poll_pump(body, Shared(self), cx);
        if pumped.is_pending() {
            // Blocked by the client's slowness in reading, perhaps.
            let _ = body.poll_upload(cx);
            if let Poll::Ready(error) = self.0.borrow_mut().poll_meanwhile(cx) {
                return Poll::Ready(Err(PumpError::Io(error)));
            }
        }
        pumped
    }

    /// Tell the client that nothing more comes. It may be gone already.
    async fn close(&self) -> Result<(), ServeError> {
        let _ = poll_fn(|cx| self.0.borrow_mut().io.poll_shutdown(cx)).await;
        Ok(())
    }

    /// End an exchange of which something is unread; returns whether another may follow.
    async fn end_early(&self, close: bool) -> bool {
        if !close {
            let rest = poll_fn(|cx| self.0.borrow_mut().poll_discard_body(cx));
            if matches!(tokio::time::timeout(DISCARD_TIME, rest).await, Ok(true)) {
                self.0.borrow_mut().end(false);
                return true;
            }
        }
        linger(Shared(self)).await;
        false
    }

    async fn answer_malformed(&self, response: Response) {
        {
            let mut state = self.0.borrow_mut();
            let answering = Answering {
                head: false,
                http10: false,
                switch: Switch::No,
            };
            encode::response(
                state.io.stage(),
                &response,
                Framing::Nothing,
                answering,
                true,
            );
        }
        Box::pin(linger(Shared(self))).await;
    }
}

impl<I: Stream> State<I> {
    fn poll_turn(
        &mut self,
        cx: &mut Context<'_>,
        since: &mut Option<Instant>,
        idle: &mut Idle,
    ) -> Poll<io::Result<Turn>> {
        if let Poll::Ready(turn) = self.poll_rest(cx) {
            return Poll::Ready(turn);
        }
        // A line end that some clients send behind a body begins no request.
        if *self.io.input == *b"\r\n" {
            self.io.input.clear();
            self.io.parsed();
        }
        if !self.io.input.is_empty() {
            return Poll::Ready(Ok(Turn::Partial));
        }
        self.io.release_buffers();
        idle.poll(since, cx).map(|()| Ok(Turn::End))
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Turn>> {
        loop {
            if self.io.worth_parsing(self.limits.max_head) {
                match parse::request(&mut self.io.input, self.limits) {
                    Ok(Some(head)) => {
                        self.io.parsed();
                        return Poll::Ready(Ok(Turn::Head(head)));
                    }
                    Ok(None) => {}
                    Err(malformed) => return Poll::Ready(Ok(Turn::Malformed(malformed))),
                }
            }
            if ready!(self.io.poll_fill(cx))? == 0 {
                return Poll::Ready(Ok(Turn::End));
            }
        }
    }

    /// Begin an exchange; its epoch, and the request's body if it is here in whole.
    fn begin(&mut self, head: &RequestHead) -> (u32, Option<Body>) {
        self.epoch = self.epoch.wrapping_add(1);
        self.interim = head.request.version() != Version::HTTP_10;
        self.awaits_continue = head.expects_continue;
        let whole = match head.length {
            Length::None if head.switch == Switch::No => Some(Body::empty()),
            length => self.io.take_whole(length).map(Body::full),
        };
        let left = if whole.is_some() {
            Length::None
        } else {
            head.length
        };
        self.decoder = Decoder::new(left, self.limits);
        (self.epoch, whole)
    }

    /// While the service works: send 1xx on, and notice a client that is gone.
    fn poll_meanwhile(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if !self.io.is_written()
            && let Poll::Ready(Err(error)) = self.io.poll_write_out(cx)
        {
            return Poll::Ready(error);
        }
        if self.decoder.is_done()
            && self.io.input.is_empty()
            && !self.io.eof
            && let Poll::Ready(Err(error)) = self.io.poll_fill(cx)
        {
            return Poll::Ready(error);
        }
        Poll::Pending
    }

    /// Whether the connection cannot go on after this response.
    fn must_close(&self, response: &Response) -> bool {
        let asked_to = response
            .headers()
            .get_all(header::CONNECTION)
            .iter()
            .any(|value| {
                tokens(value.as_bytes()).any(|token| token.eq_ignore_ascii_case(b"close"))
            });
        // An answer to a request whose body was not wanted: is the rest worth reading?
        let unread = response.body().is_end_stream()
            && !response.body().uploads()
            && match self.decoder.remaining() {
                Remaining::Nothing => false,
                Remaining::Exactly(left) => left > DISCARD_MAX,
                Remaining::Unknown => true,
            };
        asked_to || unread || self.io.eof || self.abandons_body()
    }

    fn abandons_body(&self) -> bool {
        self.awaits_continue && !self.decoder.is_done()
    }

    /// After the response: whether nothing of the request is left unread.
    fn end(&mut self, close: bool) -> bool {
        self.epoch = self.epoch.wrapping_add(1);
        self.decoder.is_done() && (!close || self.io.input.is_empty())
    }

    fn poll_discard_body(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut left = DISCARD_MAX;
        loop {
            match ready!(self.decoder.poll_frame(&mut self.io, cx)) {
                None => return Poll::Ready(true),
                Some(Err(_)) => return Poll::Ready(false),
                Some(Ok(frame)) => {
                    let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                    match left.checked_sub(length) {
                        Some(rest) => left = rest,
                        None => return Poll::Ready(false),
                    }
                }
            }
        }
    }
}

impl<I: Stream> RequestSource for Connection<I> {
    fn poll_frame(&self, epoch: u32, cx: &mut Context<'_>) -> Next {
        let State {
            io,
            decoder,
            epoch: current,
            ..
        } = &mut *self.0.borrow_mut();
        if *current != epoch {
            return Poll::Ready(Some(Err(crate::BodyError::Gone)));
        }
        decoder.poll_frame(io, cx)
    }

    fn remaining(&self, epoch: u32) -> Remaining {
        let state = self.0.borrow();
        if state.epoch == epoch {
            state.decoder.remaining()
        } else {
            Remaining::Unknown
        }
    }

    fn informational(&self, epoch: u32, response: &HttpResponse<()>) {
        let mut state = self.0.borrow_mut();
        if state.epoch == epoch && state.interim {
            state.awaits_continue &= response.status() != StatusCode::CONTINUE;
            encode::informational(state.io.stage(), response);
        }
    }
}

struct Shared<'a, I>(&'a Connection<I>);

impl<I: Stream> Sink for Shared<'_, I> {
    type Io = I;
    fn with<R>(&mut self, act: impl FnOnce(&mut Buffered<I>) -> R) -> R {
        act(&mut self.0.0.borrow_mut().io)
    }
}

impl<I: Stream> Linger for Shared<'_, I> {
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|io| io.poll_shutdown(cx))
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let data = ready!(self.with(|io| io.poll_data(DISCARD_MAX, cx)))?;
        Poll::Ready(Ok(data.len()))
    }
}

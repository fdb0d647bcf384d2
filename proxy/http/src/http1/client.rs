//! One HTTP/1 connection to a server.
//!
//! A connection is moved into the exchange that it serves: the response's body owns it, and
//! when both bodies have ended cleanly it goes home to the pool. Whatever happens otherwise
//! (an early answer, a body that is dropped, bytes that nobody asked for) drops it, and so
//! closes it: a connection in an unknown state cannot be used again by mistake.

use std::{
    future::poll_fn,
    io,
    rc::Rc,
    task::{Context, Poll, ready},
};

use http::{Method, StatusCode, Version, header};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};
use tulle_core::Reason;

use super::{
    Http1Options,
    decode::Decoder,
    encode::{self, Framing, Outgoing, PumpError},
    io::{Buffered, Stream},
    parse::{self, Asked, Length, Limits, ResponseHead},
};
use crate::{
    Body, BodyError, Interim, Request, Response, SendError,
    body::{Next, Remaining, ResponseSource},
    error::{Failed, Fate},
    lease::Lease,
};

/// More 1xx heads than this before a response are an attack.
const MAX_INTERIM: u32 = 64;

/// A connection between two exchanges.
pub struct Connection<I>(Box<Exchange<I>>);

impl<I> std::fmt::Debug for Connection<I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("idle_since", &self.0.idle_since)
            .finish_non_exhaustive()
    }
}

/// Where connections go that can be used again.
pub(crate) trait Home<I> {
    fn take_back(&self, connection: Connection<I>);
}

/// What an idle connection is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    Good,
    /// The server closed it, or said something that nobody asked for.
    Dead,
}

impl<I: AsyncRead + AsyncWrite + Unpin + 'static> Connection<I> {
    /// Speak HTTP/1 over `io`.
    #[must_use]
    pub fn new(io: I, options: &Http1Options) -> Self {
        let limits = options.limits();
        Self(Box::new(Exchange {
            io: Buffered::new(io),
            decoder: Decoder::new(Length::None, limits),
            limits,
            upload: None,
            keep_alive: true,
            idle_since: Instant::now(),
            home: None,
            lease: None,
        }))
    }

    /// Send a request and wait for the head of its response. The body of the response owns
    /// the connection.
    ///
    /// # Errors
    ///
    /// When no response came.
    pub async fn send(
        self,
        mut request: Request,
        interim: &Interim,
    ) -> Result<Response, SendError> {
        let sent = self.exchange(&mut request, interim, None, None).await;
        sent.map_err(|failed| failed.into_error(request))
    }

    /// Send the request; where there is no response, it is left as it was unless its fate
    /// says otherwise.
    pub(crate) async fn exchange(
        self,
        request: &mut Request,
        interim: &Interim,
        home: Option<Rc<dyn Home<I>>>,
        lease: Option<Lease>,
    ) -> Result<Response, Failed> {
        let mut exchange = self.0;
        exchange.home = home;
        exchange.lease = lease;
        let mut sending = exchange.begin(request);
        let head = poll_fn(|cx| exchange.poll_head(request, &mut sending, interim, cx)).await;
        match head {
            Ok(head) => Ok(exchange.respond(request, head, sending)),
            Err(error) => {
                let fate = sending.fate(request, &error, exchange.io.has_written);
                Err(Failed { error, fate })
            }
        }
    }

    pub(crate) fn io(&self) -> &I {
        self.0.io.io()
    }

    pub(crate) fn idle_since(&self) -> Instant {
        self.0.idle_since
    }

    /// Look whether the server has closed the connection. Wakes when that may change.
    pub(crate) fn poll_health(&mut self, cx: &mut Context<'_>) -> Health {
        let exchange = &mut *self.0;
        if exchange.io.input.is_empty()
            && !exchange.io.eof
            && exchange.io.poll_fill(cx).is_pending()
        {
            Health::Good
        } else {
            Health::Dead
        }
    }
}

struct Exchange<I> {
    io: Buffered<I>,
    decoder: Decoder,
    limits: Limits,
    /// What is left of the request's body once the response has begun.
    upload: Option<Upload>,
    keep_alive: bool,
    idle_since: Instant,
    home: Option<Rc<dyn Home<I>>>,
    lease: Option<Lease>,
}

struct Upload {
    body: Body,
    outgoing: Outgoing,
}

/// A request of which the response has not begun.
struct Sending {
    /// The body once more, where it is known in whole.
    copy: Option<Body>,
    outgoing: Outgoing,
    asked: Asked,
    /// All was written.
    sent: bool,
    /// Writing failed; what the server said before may explain why.
    failed: Option<io::Error>,
    interims: u32,
    /// Something came from the server.
    heard: bool,
}

impl Sending {
    fn fate(self, request: &mut Request, error: &SendError, has_written: bool) -> Fate {
        if self.outgoing.started {
            let Some(copy) = self.copy.filter(Body::is_whole) else {
                return Fate::Spent;
            };
            *request.body_mut() = copy;
        }
        match (has_written, error.refusal.reason) {
            (false, _) => Fate::Unprocessed,
            (true, Reason::ConnectionLost) if !self.heard => Fate::Unknown,
            (true, _) => Fate::Spent,
        }
    }
}

impl<I: Stream> Exchange<I> {
    fn begin(&mut self, request: &Request) -> Sending {
        let framing = encode::request_framing(request);
        let asked = Asked {
            head: request.method() == Method::HEAD,
            connect: request.method() == Method::CONNECT,
            upgrade: request.version() == Version::HTTP_11
                && request.headers().contains_key(header::UPGRADE),
        };
        self.io.has_written = false;
        encode::request(self.io.stage(), request, framing, asked.upgrade);
        Sending {
            copy: request.body().copy(),
            outgoing: Outgoing::new(framing),
            asked,
            sent: false,
            failed: None,
            interims: 0,
            heard: false,
        }
    }

    fn poll_head(
        &mut self,
        request: &mut Request,
        sending: &mut Sending,
        interim: &Interim,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ResponseHead, SendError>> {
        if !sending.sent && sending.failed.is_none() {
            match sending
                .outgoing
                .poll_pump(request.body_mut(), &mut self.io, cx)
            {
                Poll::Ready(Ok(())) => sending.sent = true,
                Poll::Ready(Err(PumpError::Io(error))) => sending.failed = Some(error),
                Poll::Ready(Err(PumpError::Body(error))) => {
                    return Poll::Ready(Err(error.refusal().into()));
                }
                Poll::Pending => {}
            }
        }
        loop {
            if self.io.worth_parsing(self.limits.max_head) {
                sending.heard = true;
                match parse::response(&mut self.io.input, self.limits, sending.asked) {
                    Ok(Some(head)) => {
                        self.io.parsed();
                        if !is_interim(&head) {
                            return Poll::Ready(Ok(head));
                        }
                        sending.interims += 1;
                        if sending.interims > MAX_INTERIM {
                            return Poll::Ready(Err(bad_response("too many 1xx responses")));
                        }
                        interim.send(head.response);
                        continue;
                    }
                    Ok(None) => {}
                    Err(malformed) => return Poll::Ready(Err(bad_response(malformed.text()))),
                }
            }
            match ready!(self.io.poll_fill(cx)) {
                Ok(0) if sending.heard => {
                    return Poll::Ready(Err(bad_response("connection closed within a head")));
                }
                Ok(0) => return Poll::Ready(Err(lost(sending.failed.as_ref()))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(lost(Some(&error)))),
            }
        }
    }

    fn respond(
        mut self: Box<Self>,
        request: &mut Request,
        head: ResponseHead,
        sending: Sending,
    ) -> Response {
        let Sending {
            mut outgoing,
            sent,
            failed,
            ..
        } = sending;
        self.keep_alive =
            head.keep_alive && request.version() != Version::HTTP_10 && failed.is_none();
        let uploads = head.tunnel || (!sent && failed.is_none());
        // A body that is here already frees its connection at once.
        let whole = if uploads {
            None
        } else {
            self.io.take_whole(head.length)
        };
        let left = if whole.is_some() {
            Length::None
        } else {
            head.length
        };
        self.decoder = Decoder::new(left, self.limits);
        if head.tunnel {
            self.decoder.become_tunnel();
            outgoing = Outgoing::new(Framing::Raw);
        }
        if uploads {
            self.upload = Some(Upload {
                body: std::mem::take(request.body_mut()),
                outgoing,
            });
        }
        head.response.map(|()| {
            if self.is_over() {
                self.release();
                whole.map_or_else(Body::empty, Body::full)
            } else {
                Body::response(self)
            }
        })
    }

    /// Move the request's body on. An error is the body's; one of the connection only ends
    /// the upload, since what the server has said may still be read.
    fn poll_pump(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        let Some(upload) = &mut self.upload else {
            return Poll::Ready(Ok(()));
        };
        match ready!(
            upload
                .outgoing
                .poll_pump(&mut upload.body, &mut self.io, cx)
        ) {
            Ok(()) => {
                if upload.outgoing.framing == Framing::Raw {
                    // The other direction of a tunnel goes on.
                    let _ = ready!(self.io.poll_shutdown(cx));
                }
                self.upload = None;
                Poll::Ready(Ok(()))
            }
            Err(error) => {
                self.upload = None;
                self.keep_alive = false;
                Poll::Ready(match error {
                    PumpError::Io(_) => Ok(()),
                    PumpError::Body(error) => Err(error),
                })
            }
        }
    }
}

impl<I: Stream> ResponseSource for Exchange<I> {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Next {
        if let Poll::Ready(Err(error)) = self.poll_pump(cx) {
            return Poll::Ready(Some(Err(error)));
        }
        self.decoder.poll_frame(&mut self.io, cx)
    }

    fn remaining(&self) -> Remaining {
        self.decoder.remaining()
    }

    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_pump(cx).map(|_| ())
    }

    fn uploads(&self) -> bool {
        self.upload.is_some()
    }

    fn is_over(&self) -> bool {
        self.decoder.is_done() && !self.uploads()
    }

    fn release(mut self: Box<Self>) {
        self.lease = None;
        // Bytes behind the response belong to nobody: the next request must not find them.
        if self.keep_alive
            && self.io.input.is_empty()
            && !self.io.eof
            && self.io.is_written()
            && let Some(home) = self.home.take()
        {
            self.idle_since = Instant::now();
            self.io.release_buffers();
            home.take_back(Connection(self));
        }
    }
}

fn is_interim(head: &ResponseHead) -> bool {
    let status = head.response.status();
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

fn bad_response(what: &'static str) -> SendError {
    SendError::new(Reason::BadResponse, what)
}

fn lost(error: Option<&io::Error>) -> SendError {
    match error {
        Some(error) => SendError::new(Reason::ConnectionLost, error.to_string()),
        None => SendError::new(
            Reason::ConnectionLost,
            "connection closed before message completed",
        ),
    }
}

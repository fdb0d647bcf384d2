//! One HTTP/2 connection to a server, shared by any number of requests.
//!
//! A task of its own drives the connection. A request is handed back to the caller when the
//! server cannot have processed it: the connection was ending before it was sent, or the
//! server refused the stream or named it as not seen in its GOAWAY.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use h2::{
    Reason as H2Reason, RecvStream,
    client::{ResponseFuture, SendRequest},
};
use http::{HeaderValue, Method, header};
use tokio::io::{AsyncRead, AsyncWrite};
use tulle_core::{Reason, Refusal};

use super::{
    Http2Options,
    keep_alive::{Heard, KeepAlive},
    stream::{Incoming, Outgoing, PumpError},
};
use crate::{
    Body, BodyError, Interim, Request, Reset, Response, SendError,
    error::{Failed, Fate},
    headers::strip_hop_by_hop,
    lease::Lease,
    orig_proto::set_authority,
};

/// A handle to a connection; cheap to clone. The connection ends when its handles and its
/// requests do.
#[derive(Clone)]
pub struct Connection(Rc<Handle>);

struct Handle {
    sender: SendRequest<Bytes>,
    driver: Rc<Driver>,
    in_flight: Rc<Cell<usize>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // `h2` does not notice by itself that nobody can send any more.
        if let Some(waker) = self.driver.waker.take() {
            waker.wake();
        }
    }
}

#[derive(Default)]
struct Driver {
    waker: RefCell<Option<Waker>>,
    ended: Cell<bool>,
}

impl Driver {
    fn wake_by(&self, waker: &Waker) {
        let mut known = self.waker.borrow_mut();
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
    }
}

impl Connection {
    /// Speak HTTP/2 over `io`, driven by a task of the current shard.
    ///
    /// # Errors
    ///
    /// When the preface could not be sent.
    pub async fn connect<I>(io: I, options: &Http2Options) -> Result<Self, Refusal>
    where
        I: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let io = Heard::new(io);
        let heard = io.handle();
        let (sender, mut connection) = builder(options)
            .handshake::<_, Bytes>(io)
            .await
            .map_err(|error| refusal(&error))?;
        let mut keep_alive = KeepAlive::new(connection.ping_pong(), heard, options);
        let driver = Rc::new(Driver::default());
        let shared = Rc::clone(&driver);
        tokio::task::spawn_local(async move {
            poll_fn(|cx| {
                if Pin::new(&mut connection).poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                shared.wake_by(cx.waker());
                keep_alive
                    .as_mut()
                    .map_or(Poll::Pending, |keep_alive| keep_alive.poll(cx))
            })
            .await;
            shared.ended.set(true);
        });
        Ok(Self(Rc::new(Handle {
            sender,
            driver,
            in_flight: Rc::default(),
        })))
    }

    /// Whether the connection still lives; it may be going away.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.0.driver.ended.get()
    }

    /// Whether a request can still be sent: the server has not said that it is going away.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.is_open()
            && !matches!(
                self.0
                    .sender
                    .clone()
                    .poll_ready(&mut Context::from_waker(Waker::noop())),
                Poll::Ready(Err(_))
            )
    }

    /// Requests whose exchange is not over.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.0.in_flight.get()
    }

    /// Whether the server takes another request now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.in_flight() < self.0.sender.current_max_send_streams()
    }

    /// Send a request and wait for the head of its response.
    ///
    /// # Errors
    ///
    /// When no response came.
    pub async fn send(
        &self,
        mut request: Request,
        interim: &Interim,
    ) -> Result<Response, SendError> {
        let sent = self.exchange(&mut request, interim).await;
        sent.map_err(|failed| failed.into_error(request))
    }

    /// Send the request; where there is no response, it is left as it was unless its fate
    /// says otherwise.
    pub(crate) async fn exchange(
        &self,
        request: &mut Request,
        interim: &Interim,
    ) -> Result<Response, Failed> {
        let lease = Lease::new(&self.0.in_flight);
        let tunnel = request.method() == Method::CONNECT;
        let ended = request.body().is_end_stream() && !tunnel;
        let sent = self
            .0
            .sender
            .clone()
            .send_request(wire_head(request), ended);
        let (response, stream) = sent.map_err(|error| Failed {
            error: send_error(&error),
            fate: Fate::Unprocessed,
        })?;
        let copy = request.body().copy();
        let body = std::mem::take(request.body_mut());
        let outgoing = (!ended).then(|| Outgoing::new(body, stream, false));
        let mut exchange = Exchange {
            response,
            outgoing,
            hold: tunnel,
            copy,
        };
        match poll_fn(|cx| exchange.poll(interim, cx)).await {
            Ok(response) => Ok(exchange.respond(response, tunnel, lease)),
            Err(Failure::Body(error)) => Err(Failed {
                error: error.refusal().into(),
                fate: Fate::Spent,
            }),
            Err(Failure::Stream(error)) => {
                let fate = match exchange.body_again() {
                    Some(body) if was_not_processed(&error) => {
                        *request.body_mut() = body;
                        Fate::Unprocessed
                    }
                    _ => Fate::Spent,
                };
                Err(Failed {
                    error: send_error(&error),
                    fate,
                })
            }
        }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

fn builder(options: &Http2Options) -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(options.stream_window)
        .initial_connection_window_size(options.connection_window)
        .max_frame_size(options.max_frame_size)
        .max_header_list_size(options.max_header_list)
        .max_send_buffer_size(options.max_send_buffer);
    builder
}

/// What goes onto the wire: nothing of one hop, and the authority in its own place.
fn wire_head(request: &Request) -> http::Request<()> {
    let mut head = http::Request::new(());
    *head.method_mut() = request.method().clone();
    *head.uri_mut() = request.uri().clone();
    *head.version_mut() = http::Version::HTTP_2;
    *head.headers_mut() = request.headers().clone();
    strip_hop_by_hop(head.headers_mut());
    if let Some(host) = head.headers_mut().remove(header::HOST)
        && head.uri().authority().is_none()
    {
        set_authority(head.uri_mut(), &host);
    }
    if let Some(length @ 1..) = request.body().exact_length()
        && head.method() != Method::CONNECT
    {
        let entry = head.headers_mut().entry(header::CONTENT_LENGTH);
        entry.or_insert_with(|| HeaderValue::from(length));
    }
    head
}

struct Exchange {
    response: ResponseFuture,
    outgoing: Option<Outgoing>,
    /// What is to be sent belongs into a tunnel that is not open yet.
    hold: bool,
    /// The body once more, where it is known in whole.
    copy: Option<Body>,
}

enum Failure {
    Body(BodyError),
    Stream(h2::Error),
}

impl Exchange {
    fn poll(
        &mut self,
        interim: &Interim,
        cx: &mut Context<'_>,
    ) -> Poll<Result<http::Response<RecvStream>, Failure>> {
        if !self.hold
            && let Some(outgoing) = &mut self.outgoing
        {
            match outgoing.poll(cx) {
                Poll::Ready(Ok(())) => self.outgoing = None,
                Poll::Ready(Err(PumpError::Body(error))) => {
                    return Poll::Ready(Err(Failure::Body(error)));
                }
                // The response says why, or fails too. The body stays, in case that nothing
                // of it was taken.
                Poll::Ready(Err(PumpError::Stream)) => self.hold = true,
                Poll::Pending => {}
            }
        }
        while let Poll::Ready(Some(Ok(head))) = self.response.poll_informational(cx) {
            interim.send(head);
        }
        Pin::new(&mut self.response)
            .poll(cx)
            .map_err(Failure::Stream)
    }

    fn respond(self, response: http::Response<RecvStream>, tunnel: bool, lease: Lease) -> Response {
        // Held back and still not wanted: the server has answered without it.
        let open = !self.hold || (tunnel && response.status().is_success());
        let outgoing = self.outgoing.filter(|_| open);
        let (mut head, stream) = response.into_parts();
        strip_hop_by_hop(&mut head.headers);
        let body = if stream.is_end_stream() && outgoing.is_none() {
            Body::empty()
        } else {
            Body::h2(Box::new(Incoming::new(stream, outgoing, Some(lease))))
        };
        Response::from_parts(head, body)
    }

    fn body_again(self) -> Option<Body> {
        match self.outgoing {
            Some(outgoing) if !outgoing.started => Some(outgoing.body),
            _ => self.copy.filter(Body::is_whole),
        }
    }
}

/// Whether the server says, or the order of events proves, that the request had no effect.
fn was_not_processed(error: &h2::Error) -> bool {
    error.is_remote()
        && (error.is_go_away()
            || (error.is_reset() && error.reason() == Some(H2Reason::REFUSED_STREAM)))
}

fn refusal(error: &h2::Error) -> Refusal {
    let reason = if error.is_library() {
        Reason::BadResponse
    } else {
        Reason::ConnectionLost
    };
    Refusal::new(reason, format!("HTTP/2: {error}"))
}

fn send_error(error: &h2::Error) -> SendError {
    let reset = error.reason().filter(|_| error.is_reset()).map(Reset);
    SendError {
        refusal: refusal(error),
        request: None,
        reset,
    }
}

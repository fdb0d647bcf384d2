//! Serves one HTTP/2 connection.
//!
//! Each stream is a task of its own on the shard. On drain the client gets a GOAWAY that
//! lets requests in that are on their way, and the connection ends with its last stream.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    pin::pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use h2::{Reason as H2Reason, RecvStream, server::SendResponse};
use http::{HeaderValue, Method, StatusCode, Version, header};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Duration, Instant},
};
use tulle_core::{Reason, Refusal};

use super::{
    Http2Options,
    keep_alive::{Heard, KeepAlive},
    stream::{Incoming, Outgoing, PumpError},
};
use crate::{
    Body, Drain, Facts, Interim, Request, Reset, Response, ServeError, Service, drain::Stage,
    headers::strip_hop_by_hop, http1::is_host, linger::linger, orig_proto::set_authority,
};

/// Requests that a client may give up within [`RESET_WINDOW`] after they were begun. Each
/// costs an upstream request, which is the point of the rapid-reset attack.
const MAX_RESETS: u32 = 1_000;
const RESET_WINDOW: Duration = Duration::from_secs(1);

/// Serve a connection until both sides are done with it.
///
/// # Errors
///
/// When it ended otherwise.
pub async fn serve<I, S>(
    io: I,
    service: Rc<S>,
    options: &Http2Options,
    drain: Drain,
) -> Result<(), ServeError>
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
    S: Service,
{
    let io = Heard::new(io);
    let served = serve_until_end(&io, Rc::clone(&service), options, drain).await;
    let facts = Facts::unread(Version::HTTP_2);
    match &served {
        Err(ServeError::Http2(error)) => {
            if !error.is_remote() {
                let refusal = Refusal::new(Reason::BadRequest, error.to_string());
                drop(service.refuse(&refusal, facts));
            }
            // The client shall read the GOAWAY.
            linger(io).await;
        }
        Err(ServeError::HeadTimeout) => drop(service.refuse(&ServeError::late(), facts)),
        _ => {}
    }
    served
}

async fn serve_until_end<I, S>(
    io: &Heard<I>,
    service: Rc<S>,
    options: &Http2Options,
    drain: Drain,
) -> Result<(), ServeError>
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
    S: Service,
{
    let handshake = builder(options).handshake::<_, Bytes>(io.handle());
    let mut connection = tokio::time::timeout(options.handshake_timeout, handshake)
        .await
        .map_err(|_| ServeError::HeadTimeout)?
        .map_err(serve_error)?;
    let mut keep_alive = KeepAlive::new(connection.ping_pong(), io.handle(), options);
    let mut watch = drain.watch();
    drop(drain);
    let mut draining = false;
    let resets = Rc::new(Resets::default());
    poll_fn(|cx| {
        if !draining && watch.poll(Stage::Draining, cx).is_ready() {
            draining = true;
            connection.graceful_shutdown();
        }
        loop {
            match connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    if resets.too_many() {
                        connection.abrupt_shutdown(H2Reason::ENHANCE_YOUR_CALM);
                        continue;
                    }
                    let stream = Stream {
                        respond,
                        resets: Rc::clone(&resets),
                    };
                    tokio::task::spawn_local(stream.serve(request, Rc::clone(&service)));
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(serve_error(error))),
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => break,
            }
        }
        match &mut keep_alive {
            Some(keep_alive) => keep_alive
                .poll(cx)
                .map(|()| Err(ServeError::KeepAliveTimeout)),
            None => Poll::Pending,
        }
    })
    .await
}

fn builder(options: &Http2Options) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(options.stream_window)
        .initial_connection_window_size(options.connection_window)
        .max_concurrent_streams(options.max_concurrent_streams)
        .max_frame_size(options.max_frame_size)
        .max_header_list_size(options.max_header_list)
        .max_send_buffer_size(options.max_send_buffer)
        .max_pending_accept_reset_streams(options.max_pending_resets);
    builder
}

fn serve_error(error: h2::Error) -> ServeError {
    if error.is_io() {
        return match error.into_io() {
            Some(error) => ServeError::Io(error),
            None => ServeError::Io(std::io::ErrorKind::Other.into()),
        };
    }
    ServeError::Http2(error)
}

/// How many streams the client has given up lately.
#[derive(Default)]
struct Resets {
    count: Cell<u32>,
    since: Cell<Option<Instant>>,
}

impl Resets {
    fn add(&self) {
        let now = Instant::now();
        if self
            .since
            .get()
            .is_none_or(|since| now > since + RESET_WINDOW)
        {
            self.since.set(Some(now));
            self.count.set(0);
        }
        self.count.set(self.count.get() + 1);
    }

    fn too_many(&self) -> bool {
        self.count.get() > MAX_RESETS
    }
}

struct Stream {
    respond: SendResponse<Bytes>,
    resets: Rc<Resets>,
}

impl Stream {
    async fn serve<S: Service>(mut self, request: http::Request<RecvStream>, service: Rc<S>) {
        let Some(request) = receive(request) else {
            let refusal = Refusal::new(Reason::BadRequest, "the request names no one target");
            drop(service.refuse(&refusal, Facts::unread(Version::HTTP_2)));
            self.respond.send_reset(H2Reason::PROTOCOL_ERROR);
            return;
        };
        let facts = Facts::of(&request);
        let method = request.method().clone();
        let respond = Rc::new(RefCell::new(self.respond));
        let response = {
            let mut call = pin!(service.call(request, Interim::http2(Rc::clone(&respond))));
            poll_fn(|cx| match call.as_mut().poll(cx) {
                Poll::Ready(response) => Poll::Ready(Some(response)),
                Poll::Pending => respond.borrow_mut().poll_reset(cx).map(|_| None),
            })
            .await
        };
        let Some(response) = response else {
            self.resets.add();
            return;
        };
        if let Some(Reset(reason)) = response.extensions().get() {
            respond.borrow_mut().send_reset(*reason);
            return;
        }
        let sent = answer(
            response,
            &method,
            facts,
            &*service,
            &mut respond.borrow_mut(),
        );
        let Some((mut outgoing, ended)) = sent else {
            return;
        };
        if !ended {
            match poll_fn(|cx| poll_answer(&mut outgoing, cx)).await {
                Ok(()) => {}
                Err(PumpError::Stream) => return self.resets.add(),
                Err(PumpError::Body(_)) => return,
            }
        }
        // The server has answered early, and still gets what it was promised.
        poll_fn(|cx| outgoing.body.poll_upload(cx)).await;
    }
}

fn poll_answer(outgoing: &mut Outgoing, cx: &mut Context<'_>) -> Poll<Result<(), PumpError>> {
    let polled = outgoing.poll(cx);
    if polled.is_pending() {
        // Blocked by the client's slowness in reading, perhaps.
        let _ = outgoing.body.poll_upload(cx);
    }
    polled
}

/// Make the request one that HTTP/1 can carry too: one authority, one target. `None`: it is
/// malformed. `:authority` decides, whatever `host` says, as the target does in HTTP/1.
fn receive(request: http::Request<RecvStream>) -> Option<Request> {
    let (mut head, stream) = request.into_parts();
    if head.uri.authority().is_none() {
        let mut hosts = head.headers.get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next().cloned(), hosts.next()) else {
            return None;
        };
        set_authority(&mut head.uri, &host);
    }
    let authority = head.uri.authority()?;
    if !is_host(authority.as_str().as_bytes()) || authority.host().is_empty() {
        return None;
    }
    head.headers.remove(header::HOST);
    if head.method != Method::CONNECT {
        let path = head.uri.path();
        let asterisk = path == "*" && head.method == Method::OPTIONS;
        if !path.starts_with('/') && !asterisk {
            return None;
        }
    }
    let connect = head.method == Method::CONNECT;
    let body = if stream.is_end_stream() {
        Body::empty()
    } else if connect {
        Body::h2(Box::new(Incoming::new(stream, None, None)))
    } else {
        Incoming::request(stream)
    };
    Some(http::Request::from_parts(head, body))
}

/// Send the head; what may follow, and whether nothing does.
fn answer(
    mut response: Response,
    method: &Method,
    facts: Facts,
    service: &impl Service,
    respond: &mut SendResponse<Bytes>,
) -> Option<(Outgoing, bool)> {
    if response.status().is_informational() {
        let refusal = Refusal::new(Reason::BadResponse, "a switch of protocols over HTTP/2");
        response = service.refuse(&refusal, facts);
    }
    let (mut head, body) = response.into_parts();
    strip_hop_by_hop(&mut head.headers);
    head.version = Version::HTTP_2;
    let tunnel = *method == Method::CONNECT && head.status.is_success();
    let bodiless = *method == Method::HEAD
        || head.status == StatusCode::NO_CONTENT
        || head.status == StatusCode::NOT_MODIFIED
        || (body.is_end_stream() && !tunnel);
    if tunnel {
        head.headers.remove(header::CONTENT_LENGTH);
    } else if let Some(length @ 1..) = body.exact_length() {
        head.headers
            .entry(header::CONTENT_LENGTH)
            .or_insert_with(|| HeaderValue::from(length));
    }
    let response = http::Response::from_parts(head, ());
    // It fails where the client has reset the stream meanwhile.
    let stream = respond.send_response(response, bodiless).ok()?;
    Some((Outgoing::new(body, stream, facts.is_grpc()), bodiless))
}

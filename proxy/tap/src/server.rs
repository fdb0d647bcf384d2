//! The port for watchers: mesh TLS, one identity, a few connections.

use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::server::conn::http2;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_stream::Stream;
use tonic::{Request, Response, Status};
use tulle_api::tap::{
    ObserveRequest, TapEvent,
    observe_request::{Extract, extract, extract::http::Extract as OfHttp},
    tap_server::{Tap, TapServer as Generated},
};
use tulle_config::Tap as Settings;
use tulle_core::Id;
use tulle_tls::{Hello, Store};
use tulle_transport::{AcceptedOptions, ListenOptions, accept, listen};

use crate::{
    Match, Taps,
    taps::{MAX_TAPS, Watch},
};

/// Enough for a watcher on a slow link to begin its handshake.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// A watcher that is gone is noticed after the interval and the time-out.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// Enough to be told that one may not watch. Nobody who may not holds one of the places for
/// longer.
const REFUSAL_TIME: Duration = Duration::from_secs(10);

/// Connections at a time: anyone can open one, so that one more is closed at once.
const MAX_CONNECTIONS: usize = 64;

/// A question is short.
const MAX_QUESTION: usize = 64 * 1024;

/// Lets one client watch.
pub struct TapServer {
    settings: Settings,
    accepted: AcceptedOptions,
    store: Store,
    taps: Taps,
    connections: Cell<usize>,
}

impl TapServer {
    /// Build the server; nothing is opened yet.
    #[must_use]
    pub fn new(
        settings: Settings,
        accepted: AcceptedOptions,
        store: Store,
        taps: Taps,
    ) -> Rc<Self> {
        Rc::new(Self {
            settings,
            accepted,
            store,
            taps,
            connections: Cell::new(0),
        })
    }

    /// Bind the port; must be called in the runtime that serves it.
    ///
    /// # Errors
    /// Where it is taken or not ours.
    pub fn bind(&self) -> std::io::Result<TcpListener> {
        listen(self.settings.listen, &ListenOptions::default())
    }

    /// Accept connections until the listener breaks.
    ///
    /// # Errors
    /// What the listener broke of.
    pub async fn serve(self: Rc<Self>, listener: TcpListener) -> std::io::Result<()> {
        loop {
            let accepted = accept(&listener, &self.accepted).await?;
            if self.connections.get() < MAX_CONNECTIONS {
                self.connections.set(self.connections.get() + 1);
                let server = self.clone();
                tokio::task::spawn_local(async move {
                    if let Err(why) = server.connection(accepted.io).await {
                        tracing::debug!(client = %accepted.peer, %why, "tap connection ended");
                    }
                    server.connections.set(server.connections.get() - 1);
                });
            }
        }
    }

    async fn connection(&self, io: TcpStream) -> Result<(), Box<dyn std::error::Error>> {
        match tulle_tls::read_client_hello(io, HELLO_TIMEOUT).await? {
            Hello::Plain(io) => refuse(io, "mesh TLS is required").await,
            Hello::Tls { sni, io } => {
                let credentials = self.store.current().ok_or("there is no certificate yet")?;
                if sni.as_deref() != credentials.name().map(Id::as_str) {
                    return Err("asked for another name".into());
                }
                let accepted = tulle_tls::accept(io, &credentials).await?;
                if accepted.client_id.as_ref() == Some(&self.settings.client) {
                    serve(accepted.io, Watching(Ok(self.taps.clone()))).await
                } else {
                    refuse(accepted.io, "this client may not watch requests").await
                }
            }
        }
    }
}

/// Tell a client why it may not watch.
async fn refuse(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    why: &'static str,
) -> Result<(), Box<dyn std::error::Error>> {
    tokio::time::timeout(REFUSAL_TIME, serve(io, Watching(Err(why)))).await?
}

/// Answer one client's calls.
async fn serve(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    watching: Watching,
) -> Result<(), Box<dyn std::error::Error>> {
    let service = Generated::new(watching).max_decoding_message_size(MAX_QUESTION);
    http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(u32::try_from(MAX_TAPS * 2).unwrap_or(u32::MAX))
        .serve_connection(TokioIo::new(io), TowerToHyperService::new(service))
        .await
        .map_err(Into::into)
}

/// The service for one client; whoever may not watch is told why.
struct Watching(Result<Taps, &'static str>);

#[tonic::async_trait]
impl Tap for Watching {
    type ObserveStream = Events;

    async fn observe(&self, request: Request<ObserveRequest>) -> Result<Response<Events>, Status> {
        let taps = self
            .0
            .as_ref()
            .map_err(|why| Status::unauthenticated(*why))?;
        let asked = request.into_inner();
        if asked.limit == 0 {
            return Err(Status::invalid_argument("the limit must be above 0"));
        }
        let wanted = Match::from_wire(asked.r#match)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let headers = wants_headers(asked.extract);
        let (events, watch) = taps.watch(wanted, asked.limit, headers).ok_or_else(|| {
            Status::resource_exhausted(format!("{MAX_TAPS} watch already; try again later"))
        })?;
        Ok(Response::new(Events {
            events,
            watch: Some(watch),
        }))
    }
}

fn wants_headers(asked: Option<Extract>) -> bool {
    matches!(
        asked.and_then(|asked| asked.extract),
        Some(extract::Extract::Http(extract::Http {
            extract: Some(OfHttp::Headers(_)),
        }))
    )
}

/// Everything that one watcher is told. It ends when as many requests as were asked for have
/// ended.
struct Events {
    events: mpsc::Receiver<TapEvent>,
    watch: Option<Watch>,
}

impl Stream for Events {
    type Item = Result<TapEvent, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.watch.as_ref().is_some_and(Watch::is_full) {
            self.watch = None;
        }
        Poll::Ready(ready!(self.events.poll_recv(cx)).map(Ok))
    }
}

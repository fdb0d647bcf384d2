//! Which protocol a connection speaks, and who serves it.

use std::{net::SocketAddr, rc::Rc};

use tokio::{net::TcpStream, time::Instant};
use tulle_core::{Reason, Refusal};
use tulle_http::{http1, http2};
use tulle_policy::outbound::Protocol;
use tulle_telemetry::Counted;
use tulle_transport::{Detected, First, Prefixed, detect_http, fill, first_speaker};

use crate::{
    Shard,
    destination::{Compiled, Destination},
    http::HttpService,
    tcp,
};

/// The application's connection, with what has been read of it.
pub(crate) type Client = Prefixed<Counted<TcpStream>>;

/// Serve a connection whose destination is known. HTTP/1 is what most connections speak, and
/// most are idle, so the state of everything else is put into boxes.
pub(crate) async fn serve(
    shard: &Rc<Shard>,
    destination: &Rc<Destination>,
    compiled: Rc<Compiled>,
    mut client: Client,
    peer: SocketAddr,
) -> Result<(), Refusal> {
    if let Some(refusal) = compiled.policy.protocol.refusal() {
        // What the client speaks is not known, so it can be told nothing.
        return Err(refusal);
    }
    let target = destination.target;
    let connections = compiled.protocol_connections();
    connections.accepted();
    match &compiled.policy.protocol {
        Protocol::Opaque(_) => {
            return Box::pin(tcp::forward(shard, &compiled, target, client, None)).await;
        }
        Protocol::Tls(_) => {
            return Box::pin(tcp::forward_tls(shard, &compiled, target, client)).await;
        }
        Protocol::Http2(_) | Protocol::Grpc(_) => {
            Box::pin(serve_http2(shard, destination, client, peer)).await;
            return Ok(());
        }
        Protocol::Http1(_) | Protocol::Invalid(_) => {}
        Protocol::Detect { .. } => {
            let begun = Instant::now();
            let detecting = Box::pin(detect(shard, destination, &compiled, &mut client));
            let spoken = detecting.await;
            connections.detected(result_label(&spoken), begun.elapsed());
            match spoken? {
                Spoken::Client(Detected::Http2) => {
                    Box::pin(serve_http2(shard, destination, client, peer)).await;
                    return Ok(());
                }
                Spoken::Client(Detected::Http1) => {}
                Spoken::Client(_) => {
                    return Box::pin(tcp::forward(shard, &compiled, target, client, None)).await;
                }
                Spoken::Server(leg) => {
                    let leg = Some(*leg);
                    return Box::pin(tcp::forward(shard, &compiled, target, client, leg)).await;
                }
                Spoken::Nobody => return Ok(()),
            }
        }
    }
    // The policy may change, and this one need not be kept for as long as the connection.
    drop(compiled);
    let service = HttpService::new(shard, destination, peer);
    let options = &shard.http1;
    if let Err(error) = http1::serve(client, service, options, shard.drain.handle()).await {
        tracing::debug!(%error, target = %destination.target, "HTTP/1 connection ended");
    }
    Ok(())
}

async fn serve_http2(
    shard: &Rc<Shard>,
    destination: &Rc<Destination>,
    client: Client,
    peer: SocketAddr,
) {
    let service = HttpService::new(shard, destination, peer);
    let options = &shard.http2;
    if let Err(error) = http2::serve(client, service, options, shard.drain.handle()).await {
        tracing::debug!(%error, target = %destination.target, "HTTP/2 connection ended");
    }
}

/// What detection found.
enum Spoken {
    Client(Detected),
    /// The server speaks first, or nobody spoke for the whole time: bytes go over this leg.
    Server(Box<tcp::Leg>),
    Nobody,
}

/// The stock proxy's words for what was found.
const fn result_label(spoken: &Result<Spoken, Refusal>) -> &'static str {
    match spoken {
        Ok(Spoken::Client(Detected::Http1)) => "http/1",
        Ok(Spoken::Client(Detected::Http2)) => "http/2",
        Ok(Spoken::Client(_)) => "not_http",
        Ok(Spoken::Server(_)) => "read_timeout",
        Ok(Spoken::Nobody) | Err(_) => "error",
    }
}

async fn detect(
    shard: &Rc<Shard>,
    destination: &Destination,
    compiled: &Compiled,
    client: &mut Client,
) -> Result<Spoken, Refusal> {
    let target = destination.target;
    let patience = shard.server_first.borrow().patience(target, Instant::now());
    let limit = shard.config.outbound.detect_timeout;
    let open = async { tcp::open(shard, compiled).await.ok() };
    let first = first_speaker(fill(client), patience, limit, open)
        .await
        .map_err(|error| client_lost(&error))?;
    match first {
        First::Client => {}
        First::ClientGone => return Ok(Spoken::Nobody),
        First::Server(leg) => {
            shard
                .server_first
                .borrow_mut()
                .learn(target, leg.prefix(), Instant::now());
            return Ok(Spoken::Server(Box::new(leg)));
        }
        First::Nobody(Some(leg)) => return Ok(Spoken::Server(Box::new(leg))),
        First::Nobody(None) => return Ok(Spoken::Client(Detected::NotHttp)),
    }
    loop {
        match detect_http(client.prefix()) {
            Detected::NeedMore => {
                let more = tokio::time::timeout(limit, fill(client)).await;
                // What does not go on is not HTTP; the server may know what to do with it.
                if !matches!(more, Ok(Ok(true))) {
                    return Ok(Spoken::Client(Detected::NotHttp));
                }
            }
            detected => return Ok(Spoken::Client(detected)),
        }
    }
}

fn client_lost(error: &std::io::Error) -> Refusal {
    Refusal::new(
        Reason::ConnectionLost,
        format!("the client's connection broke: {error}"),
    )
}

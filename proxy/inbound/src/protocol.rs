//! What is spoken inside a connection whose client is known.

use std::{io, rc::Rc, sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};
use tulle_core::{ClientTls, Reason, Refusal};
use tulle_http::{ServeError, http1, http2};
use tulle_policy::inbound::{Protocol, ServerPolicy};
use tulle_transport::{Detected, First, detect_http, fill, first_speaker};

use crate::{
    Shard,
    accept::{Client, Peer},
    detection::Found,
    http::HttpService,
    live::while_admitted,
    port::Port,
    tcp,
};

/// A connection on its way to the application.
pub(crate) struct Connection {
    pub(crate) port: Rc<Port>,
    pub(crate) policy: Arc<ServerPolicy>,
    pub(crate) peer: Peer,
    pub(crate) client: Client,
}

/// Serve by the port's protocol, detecting it where policy says so. HTTP/1 is what most
/// connections speak, and most are idle: it is returned, so that what has led to it goes.
pub(crate) async fn serve(
    shard: &Rc<Shard>,
    connection: Connection,
) -> Result<Option<Http1>, Refusal> {
    let Connection {
        port,
        policy,
        peer,
        mut client,
    } = connection;
    let detected = match &policy.protocol {
        // What passes through to the application is not looked at.
        _ if matches!(peer.tls, ClientTls::Opaque { .. }) => Detected::NotHttp,
        // What makes no sense authorizes nobody, whatever it is forwarded as.
        Protocol::Opaque | Protocol::Tls | Protocol::Invalid(_) => Detected::NotHttp,
        Protocol::Http2(_) | Protocol::Grpc(_) => Detected::Http2,
        // An upgraded peer speaks HTTP/2 to an HTTP/1 port; what is neither is HTTP/1's to refuse.
        Protocol::Http1(_) => {
            let limit = shard.config.inbound.detect_timeout;
            match Box::pin(detect(&policy, limit, &mut client)).await {
                Ok(Detected::Http2) => Detected::Http2,
                _ => Detected::Http1,
            }
        }
        Protocol::Detect { timeout, .. } => {
            let start = Instant::now();
            let spoken = fill(&mut client);
            let waiting = Box::pin(first(shard, &port, &policy, &peer, spoken));
            match waiting.await? {
                First::Client => {
                    let detected = Box::pin(detect(&policy, *timeout, &mut client)).await;
                    port.detected(shard, &policy, found(&detected), start);
                    detected?
                }
                First::ClientGone | First::Nobody(None) => return Ok(None),
                First::Server(leg) | First::Nobody(Some(leg)) => {
                    let copying = tcp::copy(shard, &port, policy.clone(), &peer, client, leg);
                    return Box::pin(copying).await.map(|()| None);
                }
            }
        }
    };
    match detected {
        Detected::Http1 => return Ok(Some(Http1 { port, peer, client })),
        Detected::Http2 => {
            drop(policy);
            Box::pin(serve_http2(shard, port, peer, client)).await;
        }
        Detected::NotHttp | Detected::NeedMore => {
            Box::pin(tcp::forward(shard, &port, policy, &peer, client)).await?;
        }
    }
    Ok(None)
}

/// A connection that speaks HTTP/1.
pub(crate) struct Http1 {
    pub(crate) port: Rc<Port>,
    pub(crate) peer: Peer,
    pub(crate) client: Client,
}

impl Http1 {
    /// Serve it; refusals are responses.
    pub(crate) async fn serve(self, shard: &Rc<Shard>) {
        let Self { port, peer, client } = self;
        let service = HttpService::new(shard, port.clone(), peer.clone());
        let serving = http1::serve(client, service, &shard.http1, shard.drain.handle());
        let served = while_admitted(&port, &peer, serving).await;
        ended(shard, &port, &peer, served);
    }
}

/// Serve HTTP/2; refusals are responses.
pub(crate) async fn serve_http2(shard: &Rc<Shard>, port: Rc<Port>, peer: Peer, client: Client) {
    let service = HttpService::new(shard, port.clone(), peer.clone());
    let serving = http2::serve(client, service, &shard.http2, shard.drain.handle());
    let served = while_admitted(&port, &peer, serving).await;
    ended(shard, &port, &peer, served);
}

/// An HTTP connection is over.
fn ended(shard: &Shard, port: &Port, peer: &Peer, served: Result<Result<(), ServeError>, Refusal>) {
    match served {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::debug!(%error, target = %port.target, "HTTP connection ended");
        }
        Err(refusal) => {
            port.count_connection(shard, &peer.tls, "inbound_tcp_authz_terminate");
            shard.connection_refused(&refusal, peer.address, port.target);
        }
    }
}

/// Who speaks first. The application is asked only where the server's own authorizations
/// admit this client to the connection as a whole.
pub(crate) async fn first(
    shard: &Rc<Shard>,
    port: &Rc<Port>,
    policy: &Arc<ServerPolicy>,
    peer: &Peer,
    spoken: impl Future<Output = io::Result<bool>>,
) -> Result<First<tcp::Leg>, Refusal> {
    let patience = shard
        .server_first
        .borrow()
        .patience(port.target, Instant::now());
    let start = Instant::now();
    let limit = shard.config.inbound.detect_timeout;
    let open = async {
        let permit = policy
            .authorize_connection(peer.address.ip(), &peer.tls)
            .ok()?;
        tcp::open(port, permit).await.ok()
    };
    let first = first_speaker(spoken, patience, limit, open)
        .await
        .map_err(|error| client_lost(&error))?;
    match &first {
        First::Server(leg) => {
            port.detected(shard, policy, Found::NotHttp, start);
            shard
                .server_first
                .borrow_mut()
                .learn(port.target, leg.prefix(), Instant::now());
        }
        First::Nobody(leg) => {
            port.detected(shard, policy, Found::Nothing, start);
            if leg.is_none() {
                return Err(silent(policy));
            }
            silence_is_tcp(policy)?;
        }
        First::Client | First::ClientGone => {}
    }
    Ok(first)
}

/// In the words of the numbers.
fn found(detected: &Result<Detected, Refusal>) -> Found {
    match detected {
        Ok(Detected::Http1) => Found::Http1,
        Ok(Detected::Http2) => Found::Http2,
        Ok(Detected::NotHttp | Detected::NeedMore) => Found::NotHttp,
        Err(refusal) if refusal.reason == Reason::ProtocolUnknown => Found::Nothing,
        Err(_) => Found::Error,
    }
}

async fn detect(
    policy: &ServerPolicy,
    limit: Duration,
    client: &mut Client,
) -> Result<Detected, Refusal> {
    let detected = timeout(limit, async {
        loop {
            match detect_http(client.prefix()) {
                Detected::NeedMore => {
                    if !fill(client).await? {
                        return Ok(Detected::NotHttp);
                    }
                }
                detected => return Ok(detected),
            }
        }
    });
    match detected.await {
        Ok(detected) => detected.map_err(|error| client_lost(&error)),
        Err(_) => silence_is_tcp(policy).map(|()| Detected::NotHttp),
    }
}

/// A client that waits until detection gives up must not get past the routes, nor past a limit
/// of requests: where there is such a thing, what is not known to be something else is refused.
fn silence_is_tcp(policy: &ServerPolicy) -> Result<(), Refusal> {
    if policy.judges_requests() {
        Err(silent(policy))
    } else {
        Ok(())
    }
}

fn silent(policy: &ServerPolicy) -> Refusal {
    let what = "the client did not show its protocol in time";
    Refusal::new(Reason::ProtocolUnknown, what).by(&policy.meta)
}

fn client_lost(error: &io::Error) -> Refusal {
    Refusal::new(
        Reason::ConnectionLost,
        format!("the client's connection broke: {error}"),
    )
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use tulle_policy::RateLimit;
    use tulle_testkit::messages;

    use super::*;

    #[test]
    fn silence_does_not_get_past_a_limit_of_requests() {
        let mut policy = ServerPolicy::from_proto(messages::server("all-unauthenticated"));
        assert!(silence_is_tcp(&policy).is_ok());

        policy.rate_limit = Some(RateLimit {
            meta: policy.meta.clone(),
            total: NonZeroU32::new(1),
            identity: None,
            overrides: Box::default(),
        });

        let refusal = silence_is_tcp(&policy).unwrap_err();
        assert_eq!(refusal.reason, Reason::ProtocolUnknown);
    }
}

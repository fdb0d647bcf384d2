//! From an accepted socket to a protocol: whose TLS it is, and what is spoken inside.

use std::{net::SocketAddr, rc::Rc, sync::Arc};

use tokio::net::TcpStream;
use tulle_core::{ClientTls, Id, NoTls, Reason, Refusal};
use tulle_policy::inbound::{Protocol, ServerPolicy};
use tulle_telemetry::Counted;
use tulle_tls::{Hello, Io};
use tulle_transport::{First, Prefixed, Session, read_header};

use crate::{
    Shard,
    port::Port,
    protocol::{self, Connection, Http1},
    tcp,
};

/// The client's connection; bytes that were read of it can be given back.
pub(crate) type Client = Prefixed<Counted<Io>>;

/// Who the client is.
#[derive(Clone)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    pub(crate) tls: ClientTls,
}

/// Serve a connection that was going to `target`. One that speaks HTTP/1 is returned instead.
///
/// # Errors
/// Where it is refused before its protocol is known, or as a whole.
pub(crate) async fn accept(
    shard: &Rc<Shard>,
    io: TcpStream,
    address: SocketAddr,
    target: SocketAddr,
) -> Result<Option<Http1>, Refusal> {
    let inbound = &shard.config.inbound;
    if !inbound.is_local(target.ip()) {
        return Err(Refusal::new(
            Reason::AddressRefused,
            "not an address of this workload",
        ));
    }
    if target.port() == inbound.listen.port() {
        return direct(shard, io, address, target).await;
    }
    let port = shard.port(target);
    let policy = port.policy().await?;
    match &policy.protocol {
        Protocol::Opaque => {
            let peer = Peer {
                address,
                tls: ClientTls::None(NoTls::PortSkipped),
            };
            let client = Counted::new(Io::from(io), port.client_metrics(shard, &peer.tls));
            let client = Prefixed::new(client);
            Box::pin(tcp::forward(shard, &port, policy, &peer, client)).await?;
            Ok(None)
        }
        _ => redirected(shard, io, address, port, policy).await,
    }
}

/// A connection that another proxy made to this proxy's own port: it must be the mesh's TLS
/// with a client certificate, and say in a header which port it means.
async fn direct(
    shard: &Rc<Shard>,
    io: TcpStream,
    address: SocketAddr,
    target: SocketAddr,
) -> Result<Option<Http1>, Refusal> {
    let opening = Box::pin(open_direct(shard, io, address, target));
    let (session, connection) = opening.await?;
    let Connection {
        port,
        policy,
        peer,
        client,
    } = connection;
    match (session, &policy.protocol) {
        // Whatever the client's proxy calls it: on an opaque port it is bytes.
        (Session::Opaque, _) | (_, Protocol::Opaque | Protocol::Tls) => {
            Box::pin(tcp::forward(shard, &port, policy, &peer, client)).await?;
        }
        (Session::Http1, _) => return Ok(Some(Http1 { port, peer, client })),
        (Session::Http2, _) => Box::pin(protocol::serve_http2(shard, port, peer, client)).await,
    }
    Ok(None)
}

/// Who opened the connection, and what its header says.
async fn open_direct(
    shard: &Rc<Shard>,
    io: TcpStream,
    address: SocketAddr,
    target: SocketAddr,
) -> Result<(Session, Connection), Refusal> {
    let timeout = shard.config.inbound.detect_timeout;
    let hello = tulle_tls::read_client_hello(io, timeout)
        .await
        .map_err(tls_failed)?;
    let Hello::Tls { sni, io } = hello else {
        return Err(Refusal::new(
            Reason::TlsFailed,
            "the proxy's own port speaks mesh TLS only",
        ));
    };
    let credentials = shard.store.ready().await;
    if sni.as_deref() != credentials.name().map(Id::as_str) {
        return Err(Refusal::new(
            Reason::TlsFailed,
            "the client asked for another name",
        ));
    }
    let accepted = tulle_tls::accept(io, &credentials)
        .await
        .map_err(tls_failed)?;
    if !accepted.transport_header {
        return Err(Refusal::new(
            Reason::TlsFailed,
            "the client sends no transport header",
        ));
    }
    if accepted.client_id.is_none() {
        return Err(Refusal::new(
            Reason::Unauthorized,
            "the client has no certificate",
        ));
    }
    let mut io = Io::from(accepted.io);
    let header = read_header(&mut io, timeout).await;
    let header = header.map_err(|error| Refusal::new(Reason::TlsFailed, error.to_string()))?;
    if !header.name.is_empty() {
        return Err(Refusal::new(
            Reason::RouteNotFound,
            "this proxy is no gateway",
        ));
    }
    let target = SocketAddr::new(target.ip(), header.port);
    if header.port == shard.config.inbound.listen.port() {
        return Err(Refusal::new(
            Reason::Loop,
            "the connection would come back to this proxy",
        ));
    }

    let port = shard.port(target);
    let policy = port.policy().await?;
    let peer = Peer {
        address,
        tls: ClientTls::Established {
            client_id: accepted.client_id,
        },
    };
    shard.announced(&header, &peer.tls);
    let client = Prefixed::new(Counted::new(io, port.client_metrics(shard, &peer.tls)));
    let connection = Connection {
        port,
        policy,
        peer,
        client,
    };
    Ok((header.session, connection))
}

/// A connection that was redirected on its way to the application.
async fn redirected(
    shard: &Rc<Shard>,
    io: TcpStream,
    address: SocketAddr,
    port: Rc<Port>,
    policy: Arc<ServerPolicy>,
) -> Result<Option<Http1>, Refusal> {
    let identifying = Box::pin(identify(shard, io, address, port, policy));
    match identifying.await? {
        None => Ok(None),
        Some(connection) => protocol::serve(shard, connection).await,
    }
}

/// Whose TLS it is, if any; none where the server spoke first and it is over.
async fn identify(
    shard: &Rc<Shard>,
    io: TcpStream,
    address: SocketAddr,
    port: Rc<Port>,
    policy: Arc<ServerPolicy>,
) -> Result<Option<Connection>, Refusal> {
    let plain = Peer {
        address,
        tls: ClientTls::None(no_tls(address)),
    };
    let io = match wait_for_client(shard, &port, &policy, &plain, io).await? {
        Waited::Client(io) => io,
        Waited::Served => return Ok(None),
    };
    let timeout = shard.config.inbound.detect_timeout;
    let (peer, io) = match tulle_tls::read_client_hello(io, timeout)
        .await
        .map_err(tls_failed)?
    {
        Hello::Plain(io) => (plain, Io::from(io)),
        Hello::Tls { sni, io } => {
            let credentials = shard.store.ready().await;
            if sni.as_deref() == credentials.name().map(Id::as_str) {
                let accepted = tulle_tls::accept(io, &credentials)
                    .await
                    .map_err(tls_failed)?;
                let tls = ClientTls::Established {
                    client_id: accepted.client_id,
                };
                (Peer { address, tls }, Io::from(accepted.io))
            } else {
                let tls = port.passing(sni);
                (Peer { address, tls }, Io::from(io.into_prefixed()))
            }
        }
    };
    let client = Prefixed::new(Counted::new(io, port.client_metrics(shard, &peer.tls)));
    Ok(Some(Connection {
        port,
        policy,
        peer,
        client,
    }))
}

enum Waited {
    /// The client has spoken or is waited for by the next phase.
    Client(TcpStream),
    /// The server spoke first, and the connection is over.
    Served,
}

/// Where the protocol is to be detected and the client is silent, ask the application whether
/// it speaks first; only for a client whom policy admits as it is, without TLS.
async fn wait_for_client(
    shard: &Rc<Shard>,
    port: &Rc<Port>,
    policy: &Arc<ServerPolicy>,
    peer: &Peer,
    io: TcpStream,
) -> Result<Waited, Refusal> {
    if !matches!(policy.protocol, Protocol::Detect { .. }) {
        return Ok(Waited::Client(io));
    }
    let first = {
        let spoken = async {
            let mut byte = [0];
            io.peek(&mut byte).await.map(|bytes| bytes > 0)
        };
        protocol::first(shard, port, policy, peer, spoken).await?
    };
    match first {
        First::Client | First::ClientGone | First::Nobody(None) => Ok(Waited::Client(io)),
        First::Server(leg) | First::Nobody(Some(leg)) => {
            let client = Counted::new(Io::from(io), port.client_metrics(shard, &peer.tls));
            let client = Prefixed::new(client);
            tcp::copy(shard, port, policy.clone(), peer, client, leg).await?;
            Ok(Waited::Served)
        }
    }
}

fn no_tls(address: SocketAddr) -> NoTls {
    if address.ip().is_loopback() {
        NoTls::Loopback
    } else {
        NoTls::NotFromRemote
    }
}

fn tls_failed(error: impl std::error::Error) -> Refusal {
    Refusal::new(Reason::TlsFailed, error.to_string())
}

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use crate::{AcceptedOptions, orig_dst};

/// How many connections wait in the kernel where nothing else is configured; capped there by
/// `net.core.somaxconn`.
const BACKLOG: u32 = 4096;

/// The pause after an accept that failed for want of descriptors or memory: trying at once
/// would spin, since the connection stays in the backlog.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(20);

/// How to listen.
#[derive(Clone, Copy, Debug, Default)]
pub struct ListenOptions {
    /// Absent: as many as the kernel allows, up to 4,096.
    pub backlog: Option<u32>,
    /// Several listeners share the address, one per shard.
    pub reuse_port: bool,
}

/// An accepted connection, its options set.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub io: TcpStream,
    /// Who connected; an IPv4 client of a dual-stack listener is an IPv4 address.
    pub peer: SocketAddr,
    /// Where the connection arrived.
    pub local: SocketAddr,
    /// Where it was going before the packet rules redirected it; see [`orig_dst`].
    pub orig_dst: Option<SocketAddr>,
}

/// Listen on `addr`. `[::]` takes IPv4 too, and becomes `0.0.0.0` where the kernel has no
/// IPv6; every other address is taken as it is.
///
/// # Errors
///
/// What the kernel says: the address is in use, not ours, or not allowed.
pub fn listen(addr: SocketAddr, options: &ListenOptions) -> io::Result<TcpListener> {
    let any_v6 = addr.is_ipv6() && addr.ip().is_unspecified();
    match bind(addr, options) {
        Err(error) if any_v6 && lacks_ipv6(&error) => bind(
            (IpAddr::from(Ipv4Addr::UNSPECIFIED), addr.port()).into(),
            options,
        ),
        result => result,
    }
}

fn bind(addr: SocketAddr, options: &ListenOptions) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(addr),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    if addr.is_ipv6() {
        socket.set_only_v6(!addr.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&addr.into())?;
    let backlog = options.backlog.unwrap_or(BACKLOG);
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    TcpListener::from_std(socket.into())
}

/// Wait for a connection that is still there, set its options and look where it was going.
/// Cancel-safe. Errors that only concern one connection are passed over, and those that end
/// when something is closed are waited for.
///
/// # Errors
///
/// Only what will not go away: the listener itself is broken.
pub async fn accept(listener: &TcpListener, options: &AcceptedOptions) -> io::Result<Accepted> {
    loop {
        match listener.accept().await {
            Ok((io, peer)) => match set_up(io, peer, *options) {
                Ok(accepted) => return Ok(accepted),
                Err(error) => tracing::debug!(%peer, %error, "accepted connection dropped"),
            },
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::BADF | Errno::INVAL | Errno::NOTSOCK | Errno::FAULT) => {
                    return Err(error);
                }
                Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    tracing::warn!(%error, "cannot accept connections");
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                }
                // The client was gone before we came, or a network error of its connection
                // that accept(2) passes on.
                _ => tracing::debug!(%error, "accept failed"),
            },
        }
    }
}

fn set_up(io: TcpStream, peer: SocketAddr, options: AcceptedOptions) -> io::Result<Accepted> {
    options.set(&SockRef::from(&io))?;
    let local = canonical(io.local_addr()?);
    let orig_dst = orig_dst(&io)?;
    Ok(Accepted {
        io,
        peer: canonical(peer),
        local,
        orig_dst,
    })
}

fn lacks_ipv6(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL)
    )
}

/// An IPv4 address that came as a v4-mapped IPv6 one is an IPv4 address.
pub(crate) fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn arrives(listener: &str, client: &str) -> Option<Accepted> {
        let listener = listen(listener.parse().unwrap(), &ListenOptions::default()).ok()?;
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect((client, port)).await.ok()?;
        let accepted = accept(&listener, &AcceptedOptions::default())
            .await
            .unwrap();
        assert_eq!(accepted.peer, client.local_addr().unwrap());
        Some(accepted)
    }

    #[tokio::test]
    async fn the_unspecified_address_takes_both_families() {
        let v4 = arrives("[::]:0", "127.0.0.1").await.unwrap();
        assert_eq!(v4.local.ip(), Ipv4Addr::LOCALHOST);

        if let Some(v6) = arrives("[::]:0", "::1").await {
            assert!(v6.peer.is_ipv6());
        }
    }

    #[tokio::test]
    async fn loopback_of_one_family_leaves_the_other_alone() {
        assert!(arrives("[::1]:0", "127.0.0.1").await.is_none());
    }

    #[tokio::test]
    async fn shards_share_a_port_only_when_asked() {
        let shared = ListenOptions {
            reuse_port: true,
            ..ListenOptions::default()
        };
        let first = listen("127.0.0.1:0".parse().unwrap(), &shared).unwrap();
        let addr = first.local_addr().unwrap();

        assert!(listen(addr, &shared).is_ok());
        assert!(listen(addr, &ListenOptions::default()).is_err());
    }

    #[tokio::test]
    async fn options_are_set_on_what_is_accepted() {
        let listener = listen("127.0.0.1:0".parse().unwrap(), &ListenOptions::default()).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let options = AcceptedOptions {
            keepalive: Some(Duration::from_secs(10)),
            user_timeout: Some(Duration::from_secs(30)),
        };

        let accepted = accept(&listener, &options).await.unwrap();

        let socket = SockRef::from(&accepted.io);
        assert!(socket.tcp_nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        assert_eq!(
            socket.tcp_keepalive_time().unwrap(),
            Duration::from_secs(10)
        );
        assert_eq!(socket.tcp_user_timeout().unwrap(), options.user_timeout);
    }
}

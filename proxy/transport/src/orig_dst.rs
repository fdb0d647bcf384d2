use std::{io, net::SocketAddr};

use rustix::io::Errno;
use socket2::SockRef;
use tokio::net::TcpStream;

use crate::accept::canonical;

/// Where an accepted connection was going before the packet rules redirected it.
///
/// `None`: nothing translates addresses here, so it was not redirected. Where connection
/// tracking is active, a connection that came directly answers its own local address:
/// compare the two before forwarding, or the connection comes back.
///
/// # Errors
///
/// Any answer of the kernel that does not mean "not redirected".
pub fn orig_dst(io: &TcpStream) -> io::Result<Option<SocketAddr>> {
    let socket = SockRef::from(io);
    // An IPv4 client of a dual-stack listener is asked for on the IPv4 level.
    let answer = match canonical(io.peer_addr()?) {
        SocketAddr::V4(_) => socket.original_dst_v4(),
        SocketAddr::V6(_) => socket.original_dst_v6(),
    };
    match answer {
        Ok(addr) => Ok(addr.as_socket().map(canonical)),
        Err(error) => match Errno::from_io_error(&error) {
            // No entry; no address translation for this family; no connection tracking.
            Some(Errno::NOENT | Errno::NOPROTOOPT | Errno::OPNOTSUPP) => Ok(None),
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_direct_connection_has_none_or_its_own_address() {
        for listen in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let Ok(listener) = TcpListener::bind(listen).await else {
                continue;
            };
            let mut addr = listener.local_addr().unwrap();
            if addr.ip().is_unspecified() {
                addr.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
            }
            let _client = TcpStream::connect(addr).await.unwrap();
            let (io, _) = listener.accept().await.unwrap();

            let answer = orig_dst(&io).unwrap();

            assert!(answer.is_none_or(|dst| dst == addr), "{listen}: {answer:?}");
        }
    }
}

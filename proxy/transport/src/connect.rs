use std::{io, net::SocketAddr, time::Duration};

use rustix::io::Errno;
use socket2::SockRef;
use tokio::{
    net::{TcpSocket, TcpStream},
    time,
};
use tulle_core::Reason;

use crate::AcceptedOptions;

/// How to connect.
#[derive(Clone, Copy, Debug)]
pub struct ConnectOptions {
    /// For the TCP handshake.
    pub timeout: Duration,
    /// As in [`AcceptedOptions`].
    pub keepalive: Option<Duration>,
    /// As in [`AcceptedOptions`].
    pub user_timeout: Option<Duration>,
    /// `SO_MARK`, by which the packet rules know the proxy's own connections where it has no
    /// user id of its own. Needs `CAP_NET_ADMIN` or, since Linux 5.17, `CAP_NET_RAW`.
    pub mark: Option<u32>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Somebody answered: nothing listens there.
    #[error("connection to {addr} refused")]
    Refused {
        /// The address.
        addr: SocketAddr,
    },
    /// Nobody answered.
    #[error("connection to {addr} not established within {after:?}")]
    Timeout {
        /// The address.
        addr: SocketAddr,
        /// The time that it was given.
        after: Duration,
    },
    /// There is no way there, or this machine lacks something.
    #[error("cannot connect to {addr}: {source}")]
    Io {
        /// The address.
        addr: SocketAddr,
        /// What the kernel says.
        source: io::Error,
    },
}

impl ConnectError {
    /// The stable code.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Timeout { .. } => Reason::ConnectTimeout,
            Self::Refused { .. } | Self::Io { .. } => Reason::ConnectFailed,
        }
    }
}

/// Connect, with every option set before the first packet leaves.
///
/// # Errors
///
/// See [`ConnectError`].
pub async fn connect(
    addr: SocketAddr,
    options: &ConnectOptions,
) -> Result<TcpStream, ConnectError> {
    let timeout = ConnectError::Timeout {
        addr,
        after: options.timeout,
    };
    let socket = socket(addr, options).map_err(|source| ConnectError::Io { addr, source })?;
    let Ok(result) = time::timeout(options.timeout, socket.connect(addr)).await else {
        return Err(timeout);
    };
    result.map_err(|source| match Errno::from_io_error(&source) {
        Some(Errno::CONNREFUSED) => ConnectError::Refused { addr },
        Some(Errno::TIMEDOUT) => timeout,
        _ => ConnectError::Io { addr, source },
    })
}

fn socket(addr: SocketAddr, options: &ConnectOptions) -> io::Result<TcpSocket> {
    let socket = if addr.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    let ConnectOptions {
        keepalive,
        user_timeout,
        mark,
        ..
    } = *options;
    {
        let socket = SockRef::from(&socket);
        AcceptedOptions {
            keepalive,
            user_timeout,
        }
        .set(&socket)?;
        if let Some(mark) = mark {
            socket.set_mark(mark)?;
        }
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const OPTIONS: ConnectOptions = ConnectOptions {
        timeout: Duration::from_millis(200),
        keepalive: Some(Duration::from_secs(10)),
        user_timeout: Some(Duration::from_secs(30)),
        mark: None,
    };

    #[tokio::test]
    async fn options_are_set_on_what_is_connected() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();

        let io = connect(listener.local_addr().unwrap(), &OPTIONS)
            .await
            .unwrap();

        let socket = SockRef::from(&io);
        assert!(socket.tcp_nodelay().unwrap());
        assert_eq!(
            socket.tcp_keepalive_time().unwrap(),
            Duration::from_secs(10)
        );
        assert_eq!(
            socket.tcp_keepalive_interval().unwrap(),
            Duration::from_secs(1)
        );
        assert_eq!(socket.tcp_user_timeout().unwrap(), OPTIONS.user_timeout);
    }

    #[tokio::test]
    async fn a_port_where_nothing_listens_refuses() {
        let addr = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap();

        let error = connect(addr, &OPTIONS).await.unwrap_err();

        assert!(matches!(error, ConnectError::Refused { .. }), "{error}");
        assert_eq!(error.reason(), Reason::ConnectFailed);
    }

    #[tokio::test]
    async fn a_full_backlog_is_a_timeout() {
        // With a backlog of 0 one connection is queued, and the next SYN is dropped.
        let listener = TcpSocket::new_v4().unwrap();
        listener.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = listener.listen(0).unwrap();
        let addr = listener.local_addr().unwrap();
        let _queued = TcpStream::connect(addr).await.unwrap();

        let error = connect(addr, &OPTIONS).await.unwrap_err();

        assert!(matches!(error, ConnectError::Timeout { .. }), "{error}");
        assert_eq!(error.reason(), Reason::ConnectTimeout);
    }
}

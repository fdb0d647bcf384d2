use std::{io, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// Between two probes of a connection that has been silent for the keep-alive time. Linux's
/// default of 75 s would find a cut link only after minutes.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Unanswered probes before the connection is given up: with a keep-alive of 10 s a peer
/// whose link is cut is left after 13 s.
const PROBES: u32 = 3;

/// How an accepted connection finds out that its peer is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AcceptedOptions {
    /// Silence before the first probe; absent: no probes.
    pub keepalive: Option<Duration>,
    /// How long sent data may stay unacknowledged; absent: what the kernel does, about 15
    /// minutes. It also replaces the number of probes.
    pub user_timeout: Option<Duration>,
}

/// Let the peer see a reset instead of an end when the connection is dropped, as it must where
/// the other side of a forwarded connection broke.
pub fn reset_on_drop(io: &TcpStream) {
    if let Err(error) = io.set_zero_linger() {
        tracing::debug!(%error, "cannot reset a connection");
    }
}

impl AcceptedOptions {
    /// Set them, and nodelay, on a socket: once, without registering it anew.
    pub(crate) fn set(self, socket: &SockRef<'_>) -> io::Result<()> {
        socket.set_tcp_nodelay(true)?;
        if let Some(keepalive) = self.keepalive {
            socket.set_tcp_keepalive(
                &TcpKeepalive::new()
                    .with_time(keepalive)
                    .with_interval(PROBE_INTERVAL)
                    .with_retries(PROBES),
            )?;
        }
        if let Some(timeout) = self.user_timeout {
            socket.set_tcp_user_timeout(Some(timeout))?;
        }
        Ok(())
    }
}

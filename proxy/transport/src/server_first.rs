//! Which destinations speak before their clients do (`MySQL`, SMTP, SSH …), as far as that
//! has been seen.
//!
//! A memory shortens the wait for a silent client and does nothing else: whether bytes may
//! flow is decided by policy each time.

use std::{collections::HashMap, future::poll_fn, io, net::SocketAddr, time::Duration};

use tokio::time::{Instant, sleep};

use crate::Unread;

/// How long a client may be silent before the server is asked whether it speaks first:
/// long enough that a client which does speak first has spoken.
pub const PATIENCE: Duration = Duration::from_millis(50);

/// The same for a destination that spoke first lately.
pub const PATIENCE_REMEMBERED: Duration = Duration::from_millis(1);

const LIFETIME: Duration = Duration::from_mins(10);
const CAPACITY: usize = 1024;

/// What has been seen.
#[derive(Debug, Default)]
pub struct ServerFirst {
    seen: HashMap<SocketAddr, Instant>,
}

impl ServerFirst {
    /// How long to wait for the client of a connection to `destination`.
    #[must_use]
    pub fn patience(&self, destination: SocketAddr, now: Instant) -> Duration {
        match self.seen.get(&destination) {
            Some(at) if now.duration_since(*at) < LIFETIME => PATIENCE_REMEMBERED,
            _ => PATIENCE,
        }
    }

    /// Note the first bytes of a server that spoke first. An HTTP server that answers a
    /// silent client (with a 408, say) does not make its port opaque.
    pub fn learn(&mut self, destination: SocketAddr, first_bytes: &[u8], now: Instant) {
        let http = b"HTTP/";
        let shared = first_bytes.len().min(http.len());
        if first_bytes[..shared] == http[..shared] {
            return;
        }
        if self.seen.len() >= CAPACITY && !self.seen.contains_key(&destination) {
            self.seen.retain(|_, at| now.duration_since(*at) < LIFETIME);
            if self.seen.len() >= CAPACITY {
                let oldest = self
                    .seen
                    .iter()
                    .min_by_key(|(_, at)| **at)
                    .map(|(key, _)| *key);
                oldest.and_then(|key| self.seen.remove(&key));
            }
        }
        self.seen.insert(destination, now);
    }

    /// Forget a destination whose client spoke first after all.
    pub fn forget(&mut self, destination: SocketAddr) {
        self.seen.remove(&destination);
    }
}

/// Who spoke first on a connection whose protocol is not known yet.
#[derive(Debug)]
pub enum First<L> {
    /// The client; what it said is still to be read.
    Client,
    /// The client ended its side without a word.
    ClientGone,
    /// The server, on the leg that was opened to ask it; what it said is still to be read.
    Server(L),
    /// Nobody, for as long as detection may take.
    Nobody(Option<L>),
}

/// Wait for the first bytes; `client` tells whether the client spoke or ended its side. A
/// client that is silent for `patience` lets `open` run, which must open a leg only where
/// policy permits the connection as a whole. A client that speaks after that closes the leg
/// unused: nothing is ever written to it here.
///
/// # Errors
/// Where the client's connection breaks.
pub async fn first_speaker<L: Unread>(
    client: impl Future<Output = io::Result<bool>>,
    patience: Duration,
    limit: Duration,
    open: impl Future<Output = Option<L>>,
) -> io::Result<First<L>> {
    tokio::pin!(client);
    tokio::select! {
        biased;
        spoken = &mut client => return spoken.map(client_first),
        () = sleep(patience) => {}
    }
    let rest = sleep(limit.saturating_sub(patience));
    tokio::pin!(rest);
    let leg = tokio::select! {
        biased;
        spoken = &mut client => return spoken.map(client_first),
        () = &mut rest => return Ok(First::Nobody(None)),
        leg = open => leg,
    };
    if let Some(mut leg) = leg {
        tokio::select! {
            biased;
            spoken = &mut client => return spoken.map(client_first),
            spoken = fill(&mut leg) => match spoken {
                Ok(true) => return Ok(First::Server(leg)),
                // A leg that the server closes without a word tells nothing: the client is
                // asked on.
                Ok(false) | Err(_) => drop(leg),
            },
            () = &mut rest => return Ok(First::Nobody(Some(leg))),
        }
    }
    tokio::select! {
        biased;
        spoken = client => spoken.map(client_first),
        () = rest => Ok(First::Nobody(None)),
    }
}

const fn client_first<L>(spoken: bool) -> First<L> {
    if spoken {
        First::Client
    } else {
        First::ClientGone
    }
}

/// Read more, behind what is already the next to be read; false where the peer has ended its
/// side. Cancel-safe.
///
/// # Errors
/// Where the connection breaks.
pub async fn fill<I: Unread>(io: &mut I) -> io::Result<bool> {
    poll_fn(|cx| io.poll_fill(cx)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    #[test]
    fn a_destination_is_remembered_for_ten_minutes() {
        let mut memory = ServerFirst::default();
        let now = Instant::now();

        memory.learn(destination(25), b"220 ready", now);

        assert_eq!(memory.patience(destination(25), now), PATIENCE_REMEMBERED);
        assert_eq!(memory.patience(destination(26), now), PATIENCE);
        assert_eq!(memory.patience(destination(25), now + LIFETIME), PATIENCE);
    }

    #[test]
    fn bytes_that_may_begin_an_http_response_teach_nothing() {
        for bytes in [&b"HTTP/1.1 408"[..], b"HTTP", b"H", b""] {
            let mut memory = ServerFirst::default();
            let now = Instant::now();

            memory.learn(destination(80), bytes, now);

            assert_eq!(memory.patience(destination(80), now), PATIENCE);
        }
    }

    #[test]
    fn the_memory_is_bounded_and_loses_the_oldest() {
        let mut memory = ServerFirst::default();
        let now = Instant::now();

        for port in 0..2000 {
            memory.learn(
                destination(port),
                b"220",
                now + Duration::from_millis(port.into()),
            );
        }

        assert_eq!(memory.seen.len(), CAPACITY);
        let later = now + Duration::from_secs(3);
        assert_eq!(
            memory.patience(destination(1999), later),
            PATIENCE_REMEMBERED
        );
        assert_eq!(memory.patience(destination(1), later), PATIENCE);
    }
}

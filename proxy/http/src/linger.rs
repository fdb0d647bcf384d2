//! Closes a connection so that its peer reads what was said last.
//!
//! Closing a socket on which something is unread makes the kernel send a reset, and that can
//! destroy an answer before the peer has read it. So our side is closed first, and what comes
//! is read and thrown away until the peer closes too: for a while, and up to an amount.

use std::{
    future::poll_fn,
    io,
    task::{Context, Poll, ready},
    time::Duration,
};

/// What is read and thrown away.
pub(crate) const DISCARD_MAX: u64 = 256 * 1024;
/// And for how long.
pub(crate) const DISCARD_TIME: Duration = Duration::from_secs(1);

pub(crate) trait Linger {
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Read something and drop it; 0 is the end.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>>;
}

/// Close, with patience. How it ends does not matter to anybody.
pub(crate) async fn linger(mut io: impl Linger) {
    let mut left = DISCARD_MAX;
    let closing = poll_fn(|cx| {
        ready!(io.poll_shutdown(cx))?;
        loop {
            let count = ready!(io.poll_discard(cx))? as u64;
            left = left.saturating_sub(count);
            if count == 0 || left == 0 {
                return Poll::Ready(io::Result::Ok(()));
            }
        }
    });
    let _ = tokio::time::timeout(DISCARD_TIME, closing).await;
}

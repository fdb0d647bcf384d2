//! Copies between two connections, both ways at once, until both directions have ended.
//!
//! A direction ends when its source does: then its sink is shut down for writing and the
//! other direction goes on, so a half-closed connection works through us. An error on either
//! side ends both directions: bytes were lost, and the other side must not take what it got
//! for everything.
//!
//! Memory: reads go into a buffer that belongs to the thread and is only lent for the time of
//! one poll, so a connection that waits for its source holds none. Only what a slow sink did
//! not take is kept, and how much that can be adapts: 4 KiB at first, doubled by every read
//! that fills it up to 64 KiB, halved whenever the sink is slow.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::Scratch;

const MIN_READ: usize = 4 * 1024;
const MAX_READ: usize = 64 * 1024;

/// Reads in a row before other tasks and the sockets get their turn: at 64 KiB each well
/// under a millisecond.
const READS_PER_TURN: usize = 4;

/// Is told how much has been copied.
pub trait Observer {
    /// So many more bytes were taken by the sink.
    fn copied(&self, flow: Flow, bytes: usize);
}

/// For whoever does not count.
impl Observer for () {
    fn copied(&self, _: Flow, _: usize) {}
}

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// From the side that connected to the side that was connected to.
    ToServer,
    /// Back.
    ToClient,
}

/// One of the two connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that was accepted.
    Client,
    /// The one that was made for it.
    Server,
}

/// How the copying ended.
#[derive(Debug)]
pub enum Ended<C> {
    /// Both directions came to their end and were shut down.
    Complete,
    /// The caller's future came first.
    Cancelled(C),
    /// A side broke. Pass it on by resetting the other instead of closing it.
    Failed(Side, io::Error),
}

/// Copy until both directions have ended, a side breaks or `cancel` completes. Takes
/// `&mut` connections too, for whoever wants to reset them afterwards.
pub async fn duplex<C, S, O, F>(
    mut client: C,
    mut server: S,
    observer: &O,
    cancel: F,
) -> Ended<F::Output>
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
    O: Observer,
    F: Future,
{
    let mut cancel = pin!(cancel);
    let mut to_server = Half::new(Flow::ToServer);
    let mut to_client = Half::new(Flow::ToClient);
    poll_fn(|cx| {
        if let Poll::Ready(output) = cancel.as_mut().poll(cx) {
            return Poll::Ready(Ended::Cancelled(output));
        }
        let forth = to_server.poll(cx, &mut client, &mut server, observer);
        if let Poll::Ready(Err((side, error))) = forth {
            return Poll::Ready(Ended::Failed(side, error));
        }
        let back = to_client.poll(cx, &mut server, &mut client, observer);
        if let Poll::Ready(Err((side, error))) = back {
            return Poll::Ready(Ended::Failed(side, error));
        }
        if forth.is_ready() && back.is_ready() {
            return Poll::Ready(Ended::Complete);
        }
        Poll::Pending
    })
    .await
}

/// One direction.
struct Half {
    flow: Flow,
    state: State,
    /// The most that the next read may take.
    limit: usize,
}

enum State {
    Reading,
    /// The sink has not taken these yet, from the index on.
    Writing(Box<[u8]>, usize),
    Flushing,
    ShuttingDown,
    Done,
}

type Failure = (Side, io::Error);

impl Half {
    const fn new(flow: Flow) -> Self {
        Self {
            flow,
            state: State::Reading,
            limit: MIN_READ,
        }
    }

    fn poll<I, O>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut I,
        sink: &mut O,
        observer: &impl Observer,
    ) -> Poll<Result<(), Failure>>
    where
        I: AsyncRead + Unpin,
        O: AsyncWrite + Unpin,
    {
        let (source_side, sink_side) = match self.flow {
            Flow::ToServer => (Side::Client, Side::Server),
            Flow::ToClient => (Side::Server, Side::Client),
        };
        let mut reads = 0;
        loop {
            match &mut self.state {
                State::Reading => {
                    if reads == READS_PER_TURN {
                        return later(cx);
                    }
                    reads += 1;
                    let mut scratch = Scratch::lend();
                    let mut buf = ReadBuf::new(&mut scratch[..self.limit]);
                    ready!(Pin::new(&mut *source).poll_read(cx, &mut buf))
                        .map_err(|error| (source_side, error))?;
                    let read = buf.filled();
                    if read.is_empty() {
                        self.state = State::ShuttingDown;
                        continue;
                    }
                    let whole = read.len() == self.limit;
                    let taken = write(cx, sink, read).map_err(|error| (sink_side, error))?;
                    observer.copied(self.flow, taken);
                    if taken < read.len() {
                        self.state = State::Writing(read[taken..].into(), 0);
                        self.limit = (self.limit / 2).max(MIN_READ);
                        return Poll::Pending;
                    }
                    if whole {
                        self.limit = (self.limit * 2).min(MAX_READ);
                    }
                    self.state = State::Flushing;
                }
                State::Writing(bytes, from) => {
                    let taken =
                        write(cx, sink, &bytes[*from..]).map_err(|error| (sink_side, error))?;
                    observer.copied(self.flow, taken);
                    *from += taken;
                    if *from < bytes.len() {
                        return Poll::Pending;
                    }
                    self.state = State::Flushing;
                }
                // A sink that encrypts took the bytes but may not have passed them on: reading
                // more before it has would only pile them up here.
                State::Flushing => {
                    ready!(Pin::new(&mut *sink).poll_flush(cx))
                        .map_err(|error| (sink_side, error))?;
                    self.state = State::Reading;
                }
                State::ShuttingDown => match ready!(Pin::new(&mut *sink).poll_shutdown(cx)) {
                    Err(error) if error.kind() != io::ErrorKind::NotConnected => {
                        return Poll::Ready(Err((sink_side, error)));
                    }
                    _ => self.state = State::Done,
                },
                State::Done => return Poll::Ready(Ok(())),
            }
        }
    }
}

/// Go on after the other tasks and a look at the sockets.
fn later(cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
    let _ = pin!(tokio::task::yield_now()).poll(cx);
    Poll::Pending
}

/// Write as much as the sink takes now.
fn write<O>(cx: &mut Context<'_>, sink: &mut O, bytes: &[u8]) -> io::Result<usize>
where
    O: AsyncWrite + Unpin,
{
    let mut taken = 0;
    while taken < bytes.len() {
        match Pin::new(&mut *sink).poll_write(cx, &bytes[taken..]) {
            Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(Ok(more)) => taken += more,
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => break,
        }
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, future::pending};

    use proptest::prelude::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
        join,
        sync::oneshot,
    };

    use super::*;

    #[derive(Default)]
    struct Counts(RefCell<[usize; 2]>);

    impl Observer for Counts {
        fn copied(&self, flow: Flow, bytes: usize) {
            self.0.borrow_mut()[usize::from(flow == Flow::ToClient)] += bytes;
        }
    }

    fn pair(capacity: usize) -> (DuplexStream, DuplexStream) {
        tokio::io::duplex(capacity)
    }

    #[tokio::test]
    async fn a_half_closed_connection_still_carries_the_other_direction() {
        let (mut client, near) = pair(64);
        let (far, mut server) = pair(64);
        let counts = Counts::default();
        let talk = async {
            client.write_all(b"question").await.unwrap();
            client.shutdown().await.unwrap();
            let mut question = Vec::new();
            server.read_to_end(&mut question).await.unwrap();
            server.write_all(b"answer").await.unwrap();
            server.shutdown().await.unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            (question, answer)
        };

        let (ended, (question, answer)) = join!(duplex(near, far, &counts, pending::<()>()), talk);

        assert!(matches!(ended, Ended::Complete));
        assert_eq!(
            (&question[..], &answer[..]),
            (&b"question"[..], &b"answer"[..])
        );
        assert_eq!(*counts.0.borrow(), [8, 6]);
    }

    #[tokio::test]
    async fn a_sink_that_takes_nothing_stops_the_source() {
        let (mut client, near) = pair(1024);
        let (far, _server) = pair(1024);
        let (cancel, cancelled) = oneshot::channel::<()>();
        let flood = async {
            let mut sent = 0;
            while let Ok(taken) =
                tokio::time::timeout(std::time::Duration::from_secs(1), client.write(&[0; 512]))
                    .await
            {
                sent += taken.unwrap();
            }
            cancel.send(()).unwrap();
            sent
        };
        tokio::time::pause();

        let (ended, sent) = join!(duplex(near, far, &(), cancelled), flood);

        assert!(matches!(ended, Ended::Cancelled(Ok(()))));
        assert!(sent <= 2 * 1024 + MIN_READ, "{sent}");
    }

    #[tokio::test]
    async fn the_caller_can_end_it_and_keeps_the_connections() {
        let (_client, mut near) = pair(64);
        let (mut far, mut server) = pair(64);

        let ended = duplex(&mut near, &mut far, &(), async { "denied" }).await;

        assert!(matches!(ended, Ended::Cancelled("denied")));
        far.write_all(b"still open").await.unwrap();
        drop(far);
        let mut rest = String::new();
        server.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "still open");
    }

    #[tokio::test]
    async fn the_side_that_broke_is_named() {
        let (mut client, near) = pair(64);
        let far = tokio_test::io::Builder::new()
            .write(b"question")
            .read_error(io::ErrorKind::ConnectionReset.into())
            .build();
        client.write_all(b"question").await.unwrap();

        let ended = duplex(near, far, &(), pending::<()>()).await;

        let Ended::Failed(side, error) = ended else {
            panic!("{ended:?}")
        };
        assert_eq!(
            (side, error.kind()),
            (Side::Server, io::ErrorKind::ConnectionReset)
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn bytes_arrive_as_they_were_sent(
            forth in prop::collection::vec(any::<u8>(), 0..100_000),
            back in prop::collection::vec(any::<u8>(), 0..100_000),
            capacities in prop::array::uniform2(1..80_000_usize),
            chunks in prop::array::uniform2(1..70_000_usize),
        ) {
            tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
                let (client, near) = pair(capacities[0]);
                let (far, server) = pair(capacities[1]);
                let (mut client_read, mut client_write) = tokio::io::split(client);
                let (mut server_read, mut server_write) = tokio::io::split(server);
                let counts = Counts::default();
                let (mut got_forth, mut got_back) = (Vec::new(), Vec::new());
                let (ended, ..) = join!(
                    duplex(near, far, &counts, pending::<()>()),
                    async {
                        for chunk in forth.chunks(chunks[0]) {
                            client_write.write_all(chunk).await.unwrap();
                        }
                        client_write.shutdown().await.unwrap();
                    },
                    async {
                        for chunk in back.chunks(chunks[1]) {
                            server_write.write_all(chunk).await.unwrap();
                        }
                        server_write.shutdown().await.unwrap();
                    },
                    async { client_read.read_to_end(&mut got_back).await.unwrap() },
                    async { server_read.read_to_end(&mut got_forth).await.unwrap() },
                );
                assert!(matches!(ended, Ended::Complete));
                assert!(got_forth == forth && got_back == back);
                assert_eq!(*counts.0.borrow(), [forth.len(), back.len()]);
            });
        }
    }
}

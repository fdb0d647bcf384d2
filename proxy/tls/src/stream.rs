//! An encrypted stream over a socket.
//!
//! rustls does the protocol through its unbuffered interface, so the buffers are ours: one
//! system call reads as much ciphertext as the caller has room for, another writes up to four
//! records, both through the thread's scratch buffers. A connection at rest holds no buffer,
//! one in the middle of a record holds what came of it, and one whose peer is slow holds what
//! the socket did not take.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustls::{
    CommonState, Error,
    client::{ClientConnectionData, UnbufferedClientConnection},
    server::{ServerConnectionData, UnbufferedServerConnection},
    unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tulle_transport::{SCRATCH_SIZE, Scratch};

/// The largest record, with its header.
const MAX_RECORD: usize = 5 + 16 * 1024 + 256;

/// The most that one system call reads; the largest unfinished record comes before it.
const MAX_READ: usize = SCRATCH_SIZE - MAX_RECORD;

/// The most plaintext that one system call writes: four full records.
const MAX_WRITE: usize = 64 * 1024;

/// Ciphertext up to this length waits for the write that follows and goes with it: the last
/// flight of a handshake, a session ticket.
const MAX_JOINED: usize = 8 * 1024;

/// The protocol's state, of either side.
pub(crate) trait Session: Unpin {
    type Data;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data>;

    fn state(&self) -> &CommonState;
}

impl Session for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn state(&self) -> &CommonState {
        self
    }
}

impl Session for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn state(&self) -> &CommonState {
        self
    }
}

pub(crate) struct TlsStream<S> {
    tcp: TcpStream,
    session: S,
    /// Ciphertext that means nothing before more of it comes.
    partial: Vec<u8>,
    given: Given,
    /// Why nothing can be read any more, for whoever has read what came before.
    failed: Option<Error>,
    closed: bool,
}

/// What the session gave out.
#[derive(Default)]
struct Given {
    /// Plaintext for which its reader had no room.
    plaintext: Queue,
    /// Ciphertext for the socket.
    ciphertext: Queue,
    /// The peer has said that no more comes.
    end: bool,
}

impl<S: Session> TlsStream<S> {
    /// `received` has been read from the socket already.
    pub(crate) fn new(tcp: TcpStream, session: S, received: Vec<u8>) -> Self {
        Self {
            tcp,
            session,
            partial: received,
            given: Given::default(),
            failed: None,
            closed: false,
        }
    }

    pub(crate) const fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    pub(crate) fn state(&self) -> &CommonState {
        self.session.state()
    }

    /// Shake hands. Our last flight is still to be flushed: a server's is a session ticket,
    /// which can wait for the bytes that follow.
    pub(crate) async fn handshake(&mut self) -> io::Result<()> {
        let mut received = std::mem::take(&mut self.partial);
        let used = poll_fn(|cx| Poll::Ready(self.advance(cx, &mut received, None))).await?;
        received.drain(..used);
        self.partial = received;
        poll_fn(|cx| {
            while self.state().is_handshaking() {
                ready!(self.poll_send(cx))?;
                if !ready!(self.poll_receive(cx, None))? {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Read from the socket once, and decrypt; false at its end.
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        out: Option<&mut ReadBuf<'_>>,
    ) -> Poll<io::Result<bool>> {
        ready!(self.tcp.poll_read_ready(cx))?;
        let mut scratch = Scratch::lend();
        let kept = self.partial.len();
        if kept > SCRATCH_SIZE - MAX_RECORD {
            return Poll::Ready(Err(invalid(Error::General("message too long".to_owned()))));
        }
        scratch[..kept].copy_from_slice(&self.partial);
        let room = out
            .as_ref()
            .map_or(0, |out| out.remaining())
            .clamp(MAX_RECORD, MAX_READ);
        let end = SCRATCH_SIZE.min(kept + room);
        let mut buf = ReadBuf::new(&mut scratch[kept..end]);
        ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut buf))?;
        let filled = kept + buf.filled().len();
        if filled == kept {
            return Poll::Ready(Ok(false));
        }
        let used = self.advance(cx, &mut scratch[..filled], out)?;
        if used == filled || self.given.end || self.failed.is_some() {
            self.partial = Vec::new();
        } else {
            self.partial.clear();
            self.partial.extend_from_slice(&scratch[used..filled]);
        }
        Poll::Ready(Ok(true))
    }

    /// Let the session have `received`, and tell the peer if it breaks the protocol.
    fn advance(
        &mut self,
        cx: &mut Context<'_>,
        received: &mut [u8],
        mut out: Option<&mut ReadBuf<'_>>,
    ) -> io::Result<usize> {
        let before = out.as_ref().map(|out| out.remaining());
        let (used, result) = advance(
            &mut self.session,
            &mut self.given,
            received,
            out.as_deref_mut(),
            |_, _| (),
        );
        if let Err(error) = result {
            while self.state().wants_write() {
                let status = self.session.process(&mut received[used..]);
                let Ok(ConnectionState::EncodeTlsData(mut data)) = status.state else {
                    break;
                };
                if self
                    .given
                    .ciphertext
                    .encode(|buffer| data.encode(buffer))
                    .is_err()
                {
                    break;
                }
            }
            // If the socket does not take the alert now, the peer will do without.
            let _ = self.poll_send(cx);
            self.failed = Some(error.clone());
            if out.map(|out| out.remaining()) == before && self.given.plaintext.is_empty() {
                return Err(invalid(error));
            }
        }
        Ok(used)
    }

    /// Send what waits for the socket.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.given.ciphertext.is_empty() {
            let bytes = self.given.ciphertext.rest();
            let sent = ready!(Pin::new(&mut self.tcp).poll_write(cx, bytes))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.given.ciphertext.take(sent);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Session> AsyncRead for TlsStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = out.remaining();
        if !this.given.plaintext.is_empty() {
            let bytes = this.given.plaintext.rest();
            let taken = bytes.len().min(before);
            out.put_slice(&bytes[..taken]);
            this.given.plaintext.take(taken);
        }
        while out.remaining() == before && before > 0 && !this.given.end {
            if let Some(error) = &this.failed {
                return Poll::Ready(Err(invalid(error.clone())));
            }
            match this.poll_receive(cx, Some(out)) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    // The peer may wait for just this.
                    if let Poll::Ready(Err(error)) = this.poll_send(cx) {
                        return Poll::Ready(Err(error));
                    }
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Session> AsyncWrite for TlsStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        plain: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let plain = &plain[..plain.len().min(MAX_WRITE)];
        if plain.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if this.closed || this.failed.is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if this.given.ciphertext.rest().len() > MAX_JOINED {
            ready!(this.poll_send(cx))?;
        }

        let mut scratch = Scratch::lend();
        let (used, result) = advance(
            &mut this.session,
            &mut this.given,
            &mut this.partial,
            None,
            |traffic, waiting| {
                let length = waiting.rest().len();
                scratch[..length].copy_from_slice(waiting.rest());
                let encrypted = traffic.encrypt(plain, &mut scratch[length..])?;
                *waiting = Queue::default();
                Ok::<_, EncryptError>(length + encrypted)
            },
        );
        this.partial.drain(..used);
        let length = match result.map_err(invalid)? {
            Some(length) => length.map_err(io::Error::other)?,
            None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        };

        let mut sent = 0;
        while sent < length {
            match Pin::new(&mut this.tcp).poll_write(cx, &scratch[sent..length]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(more)) => sent += more,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    this.given
                        .ciphertext
                        .bytes
                        .extend_from_slice(&scratch[sent..length]);
                    break;
                }
            }
        }
        Poll::Ready(Ok(plain.len()))
    }

    /// The slices become one record as far as they fit into one.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut filled = slices.iter().filter(|slice| !slice.is_empty());
        let Some(first) = filled.next() else {
            return Poll::Ready(Ok(0));
        };
        if first.len() >= MAX_WRITE || filled.next().is_none() {
            return self.poll_write(cx, first);
        }
        let mut joined = Scratch::lend();
        let mut length = 0;
        for slice in slices {
            let taken = slice.len().min(MAX_WRITE - length);
            joined[length..length + taken].copy_from_slice(&slice[..taken]);
            length += taken;
        }
        self.poll_write(cx, &joined[..length])
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_send(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.closed && this.failed.is_none() {
            this.closed = true;
            let (used, result) = advance(
                &mut this.session,
                &mut this.given,
                &mut this.partial,
                None,
                |traffic, waiting| {
                    let mut close = [0; 256];
                    let length = traffic.queue_close_notify(&mut close)?;
                    waiting.bytes.extend_from_slice(&close[..length]);
                    Ok::<_, EncryptError>(())
                },
            );
            this.partial.drain(..used);
            if let Some(closing) = result.map_err(invalid)? {
                closing.map_err(io::Error::other)?;
            }
        }
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.tcp).poll_shutdown(cx)
    }
}

/// Let the session have `received` up to where it needs more, and then write if it can.
/// Returns how much is used up and what `write` made.
fn advance<S: Session, R>(
    session: &mut S,
    given: &mut Given,
    received: &mut [u8],
    mut out: Option<&mut ReadBuf<'_>>,
    mut write: impl FnMut(&mut WriteTraffic<'_, S::Data>, &mut Queue) -> R,
) -> (usize, Result<Option<R>, Error>) {
    let mut used = 0;
    loop {
        let UnbufferedStatus { mut discard, state } = session.process(&mut received[used..]);
        let state = match state {
            Ok(state) => state,
            Err(error) => return (used + discard, Err(error)),
        };
        let ended = match state {
            ConnectionState::ReadTraffic(mut traffic) => loop {
                match traffic.next_record() {
                    Some(Ok(record)) => {
                        discard += record.discard;
                        given.plaintext.put(record.payload, out.as_deref_mut());
                    }
                    Some(Err(error)) => break Some(Err(error)),
                    None => break None,
                }
            },
            ConnectionState::EncodeTlsData(mut data) => given
                .ciphertext
                .encode(|buffer| data.encode(buffer))
                .err()
                .map(Err),
            ConnectionState::TransmitTlsData(data) => {
                data.done();
                None
            }
            ConnectionState::PeerClosed => {
                given.end = true;
                None
            }
            ConnectionState::WriteTraffic(mut traffic) => {
                Some(Ok(Some(write(&mut traffic, &mut given.ciphertext))))
            }
            ConnectionState::BlockedHandshake | ConnectionState::Closed => Some(Ok(None)),
            _ => Some(Err(Error::General(
                "early data was never offered".to_owned(),
            ))),
        };
        used += discard;
        if let Some(result) = ended {
            return (used, result);
        }
    }
}

/// Bytes that are appended at the end and taken from the front; no allocation while empty.
#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    taken: usize,
}

impl Queue {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn take(&mut self, count: usize) {
        self.taken += count;
        if self.taken == self.bytes.len() {
            *self = Self::default();
        }
    }

    /// Give the bytes to whoever reads, and keep those for which it has no room.
    fn put(&mut self, bytes: &[u8], out: Option<&mut ReadBuf<'_>>) {
        let mut rest = bytes;
        if let Some(out) = out.filter(|_| self.is_empty()) {
            let (now, later) = bytes.split_at(bytes.len().min(out.remaining()));
            out.put_slice(now);
            rest = later;
        }
        self.bytes.extend_from_slice(rest);
    }

    fn encode(
        &mut self,
        mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
    ) -> Result<(), Error> {
        let end = self.bytes.len();
        if let Err(EncodeError::InsufficientSize(needed)) = encode(&mut []) {
            self.bytes.resize(end + needed.required_size, 0);
            if encode(&mut self.bytes[end..]).is_ok() {
                return Ok(());
            }
        }
        Err(Error::General("nothing to encode".to_owned()))
    }
}

fn invalid(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rustls::{
        ClientConfig, HandshakeKind, RootCertStore, ServerConfig,
        crypto::{CryptoProvider, aws_lc_rs},
        pki_types::{CertificateDer, pem::PemObject},
    };
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        join,
        net::{TcpListener, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    };
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;
    use crate::{
        Accepted, ClientIo, Credentials, Hello, ServerIo, accept,
        authority::{Authority, CLIENT, Leaf, WEB, target},
        connect, read_client_hello,
    };

    async fn sockets() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (client, server) = join!(
            TcpStream::connect(listener.local_addr().unwrap()),
            listener.accept()
        );
        (client.unwrap(), server.unwrap().0)
    }

    async fn accepted(tcp: TcpStream, server: &Credentials) -> Result<Accepted, crate::TlsError> {
        match read_client_hello(tcp, crate::HANDSHAKE_TIMEOUT)
            .await
            .unwrap()
        {
            Hello::Tls { io, .. } => accept(io, server).await,
            Hello::Plain(_) => panic!("plain"),
        }
    }

    async fn pair() -> (ClientIo, ServerIo) {
        let root = Authority::new();
        let (client, server) = (root.credentials(CLIENT), root.credentials(WEB));
        let (near, far) = sockets().await;
        let target = target(WEB);
        let (near, far) = join!(
            connect(near, &client, &target, false),
            accepted(far, &server)
        );
        (near.unwrap(), far.unwrap().io)
    }

    /// Copies what comes in small pieces, and spoils the byte at `spoilt`.
    async fn forward(
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        pieces: Vec<usize>,
        spoilt: Option<usize>,
    ) {
        let mut total = 0;
        let mut buffer = vec![0; 70_000];
        for piece in pieces.iter().cycle() {
            let Ok(read) = from.read(&mut buffer[..*piece]).await else {
                break;
            };
            if let Some(at) = spoilt.and_then(|spoilt| spoilt.checked_sub(total))
                && at < read
            {
                buffer[at] ^= 1;
            }
            total += read;
            if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
    }

    /// A connected pair of sockets with a [`forward`] each way in between.
    async fn through(pieces: Vec<usize>, spoilt: Option<usize>) -> (TcpStream, TcpStream) {
        let ((client, near), (far, server)) = (sockets().await, sockets().await);
        near.set_nodelay(true).unwrap();
        far.set_nodelay(true).unwrap();
        let ((near_read, near_write), (far_read, far_write)) =
            (near.into_split(), far.into_split());
        tokio::spawn(forward(near_read, far_write, pieces.clone(), spoilt));
        tokio::spawn(forward(far_read, near_write, pieces, None));
        (client, server)
    }

    async fn write<W: AsyncWrite + Unpin>(io: &mut W, bytes: &[u8], sizes: &[usize]) {
        let mut rest = bytes;
        for size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (first, later) = rest.split_at((*size).min(rest.len()));
            let slices = [IoSlice::new(first), IoSlice::new(later)];
            let written = io.write_vectored(&slices).await.unwrap();
            rest = &rest[written..];
        }
        io.shutdown().await.unwrap();
    }

    async fn read<R: AsyncRead + Unpin>(io: &mut R, sizes: &[usize]) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        let mut buffer = vec![0; 100_000];
        for size in sizes.iter().cycle() {
            match io.read(&mut buffer[..*size]).await? {
                0 => break,
                read => all.extend_from_slice(&buffer[..read]),
            }
        }
        Ok(all)
    }

    fn block_on<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(future)
    }

    fn sizes() -> impl Strategy<Value = Vec<usize>> {
        prop::collection::vec(
            prop_oneof![1..100_usize, 1..2000_usize, 1..70_000_usize],
            1..8,
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn bytes_survive_any_chunking(
            bytes in prop::collection::vec(any::<u8>(), 0..300_000),
            pieces in sizes(), writes in sizes(), reads in sizes(),
        ) {
            block_on(async {
                let root = Authority::new();
                let (client, server) = (root.credentials(CLIENT), root.credentials(WEB));
                let (near, far) = through(pieces, None).await;
                let target = target(WEB);
                let (near, far) =
                    join!(connect(near, &client, &target, true), accepted(far, &server));
                let (mut near, mut far) = (near.unwrap(), far.unwrap().io);

                let (heard, ()) = join!(read(&mut far, &reads), write(&mut near, &bytes, &writes));
                assert!(heard.unwrap() == bytes);
                let (heard, ()) = join!(read(&mut near, &reads), write(&mut far, &bytes, &writes));
                assert!(heard.unwrap() == bytes);
            });
        }

        #[test]
        fn spoilt_bytes_never_arrive(
            spoilt in 0..60_000_usize, pieces in sizes(),
        ) {
            block_on(async {
                let root = Authority::new();
                let (client, server) = (root.credentials(CLIENT), root.credentials(WEB));
                let (near, far) = through(pieces, Some(spoilt)).await;
                let target = target(WEB);
                let bytes = vec![7; 60_000];
                let talking = async {
                    let mut near = connect(near, &client, &target, true).await?;
                    near.write_all(&bytes).await?;
                    near.shutdown().await?;
                    near.read_u8().await.map_err(crate::TlsError::from)
                };
                let listening = async {
                    let Ok(Hello::Tls { io, .. }) =
                        read_client_hello(far, crate::HANDSHAKE_TIMEOUT).await
                    else { return };
                    let Ok(Accepted { mut io, .. }) = accept(io, &server).await else { return };
                    let mut heard = Vec::new();
                    let result = io.read_to_end(&mut heard).await;
                    // The version in a record's header means nothing, so it may be spoilt.
                    assert!(heard.iter().all(|byte| *byte == 7));
                    assert!(result.is_err() || heard.len() == bytes.len());
                };
                let _: (Result<u8, _>, ()) = join!(talking, listening);
            });
        }
    }

    #[tokio::test]
    async fn a_peer_may_change_its_keys_and_ask_for_ours() {
        let root = Authority::new();
        let server = root.credentials(WEB);
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(root.pem.as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (near, far) = sockets().await;
        let connector = TlsConnector::from(Arc::new(config));
        let (near, far) = join!(
            connector.connect(WEB.try_into().unwrap(), near),
            accepted(far, &server)
        );
        let (mut near, mut far) = (near.unwrap(), far.unwrap().io);

        for _ in 0..5 {
            near.get_mut().1.refresh_traffic_keys().unwrap();
            near.write_all(b"question").await.unwrap();
            near.flush().await.unwrap();
            let mut heard = [0; 8];
            far.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, b"question");
            far.write_all(b"response").await.unwrap();
            near.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, b"response");
        }
    }

    #[tokio::test]
    async fn a_server_may_ask_for_another_key_share() {
        let root = Authority::new();
        let (chain, key) = root.issue(Leaf::dns(WEB));
        let provider = CryptoProvider {
            kx_groups: vec![aws_lc_rs::kx_group::SECP384R1],
            ..aws_lc_rs::default_provider()
        };
        let config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let (near, far) = sockets().await;
        let (client, target) = (root.credentials(CLIENT), target(WEB));
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (near, far) = join!(connect(near, &client, &target, false), acceptor.accept(far));
        let (mut near, mut far) = (near.unwrap(), far.unwrap());

        near.write_all(b"question").await.unwrap();
        let mut heard = [0; 8];
        far.read_exact(&mut heard).await.unwrap();

        assert_eq!(&heard, b"question");
        assert_eq!(
            near.0.state().handshake_kind(),
            Some(HandshakeKind::FullWithHelloRetryRequest)
        );
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_stops_the_writer() {
        let (mut near, _far) = pair().await;
        let chunk = vec![0; 1024 * 1024];

        let mut taken = 0;
        poll_fn(|cx| {
            loop {
                match Pin::new(&mut near.0).poll_write(cx, &chunk) {
                    Poll::Ready(written) => taken += written.unwrap(),
                    Poll::Pending => break Poll::Ready(()),
                }
            }
        })
        .await;

        assert!(taken > 0);
        assert!(near.0.given.ciphertext.rest().len() <= MAX_WRITE + MAX_JOINED + 256);
    }

    #[tokio::test]
    async fn a_connection_at_rest_holds_no_buffer() {
        let (mut near, mut far) = pair().await;
        let bytes = vec![1; 200_000];
        let mut heard = vec![0; bytes.len()];
        let (written, read) = join!(near.write_all(&bytes), far.read_exact(&mut heard));
        written.unwrap();
        read.unwrap();
        far.write_all(b"the ticket goes with it").await.unwrap();
        near.read_exact(&mut [0; 23]).await.unwrap();

        for held in [
            &near.0.partial,
            &near.0.given.plaintext.bytes,
            &near.0.given.ciphertext.bytes,
            &far.0.partial,
            &far.0.given.plaintext.bytes,
            &far.0.given.ciphertext.bytes,
        ] {
            assert_eq!(held.capacity(), 0);
        }
    }
}

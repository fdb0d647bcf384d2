//! Whether a connection begins with TLS, and which server it asks for.
//!
//! The first byte that no `ClientHello` has decides for plaintext at once. Else the hello is
//! read until it is whole, in however many segments and records it comes: with a
//! post-quantum key share it is larger than a segment. Reading it is left to rustls; what
//! rustls cannot read is still TLS, of somebody else. Every byte is kept, so that whatever is
//! not ours passes through untouched.

use std::{io, time::Duration};

use bytes::{Bytes, BytesMut};
use rustls::server::Acceptor;
use tokio::{
    net::TcpStream,
    time::{self, Instant},
};
use tulle_transport::Prefixed;

/// The longest hello: a large one with a post-quantum key share and a ticket has 4 KiB.
pub const MAX_HELLO: usize = 16 * 1024;

/// From the first byte of a hello to its last.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// A usual hello in one read.
const READ_SIZE: usize = 4 * 1024;

/// A handshake record of any version of TLS.
const TLS_BEGINS: [u8; 2] = [22, 3];

/// How a connection begins.
#[derive(Debug)]
pub enum Hello {
    /// With something else than TLS.
    Plain(Prefixed<TcpStream>),
    /// With a `ClientHello`.
    Tls {
        /// The server that it asks for, in lower case; absent where it names none.
        sni: Option<String>,
        /// The connection, to accept or to pass through.
        io: HelloIo,
    },
}

/// A connection whose `ClientHello` has been read.
#[derive(Debug)]
pub struct HelloIo {
    seen: Bytes,
    tcp: TcpStream,
}

impl HelloIo {
    /// The connection as it came, to be passed through.
    #[must_use]
    pub fn into_prefixed(self) -> Prefixed<TcpStream> {
        Prefixed::with_prefix(self.seen, self.tcp)
    }

    pub(crate) fn into_parts(self) -> (Bytes, TcpStream) {
        (self.seen, self.tcp)
    }
}

/// Why it cannot be told how a connection begins.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HelloError {
    /// The client said nothing in the time that it was given.
    #[error("client silent for {0:?}")]
    Silent(Duration),
    /// The client began a `ClientHello` and did not finish it in 10 s.
    #[error("ClientHello not finished within {HELLO_TIMEOUT:?}")]
    Timeout,
    /// The hello is longer than [`MAX_HELLO`].
    #[error("ClientHello longer than {MAX_HELLO} bytes")]
    TooLong,
    /// The client closed the connection before it said enough.
    #[error("connection closed before it began")]
    Closed,
    /// The connection broke.
    #[error("connection lost before it began: {0}")]
    Io(#[from] io::Error),
}

/// Read how a connection begins.
///
/// # Errors
///
/// See [`HelloError`]. The connection is closed with it.
pub async fn read_client_hello(tcp: TcpStream, timeout: Duration) -> Result<Hello, HelloError> {
    let mut reader = HelloReader::new(tcp);
    let Ok(result) = time::timeout(timeout, reader.next()).await else {
        return Err(if reader.seen.is_empty() {
            HelloError::Silent(timeout)
        } else {
            HelloError::Timeout
        });
    };
    result
}

/// Reads how a connection begins, for whoever does something else meanwhile.
pub struct HelloReader {
    /// Gone once [`Self::next`] has answered.
    tcp: Option<TcpStream>,
    seen: BytesMut,
    parser: HelloParser,
    /// Set with the first byte.
    deadline: Option<Instant>,
}

/// What the first bytes of a connection are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begins {
    /// Something else than TLS.
    Plain,
    /// A `ClientHello`.
    Tls {
        /// The server that it asks for, in lower case; absent where it names none.
        sni: Option<String>,
    },
}

/// Decides from its first bytes how a connection begins.
#[derive(Default)]
pub struct HelloParser {
    /// How much rustls has.
    parsed: usize,
    /// Made for the first byte of what may be a hello.
    rustls: Option<Box<Acceptor>>,
}

impl HelloReader {
    /// Nothing is allocated until the client speaks.
    #[must_use]
    pub fn new(tcp: TcpStream) -> Self {
        Self {
            tcp: Some(tcp),
            seen: BytesMut::new(),
            parser: HelloParser::default(),
            deadline: None,
        }
    }

    /// Wait until it is known how the connection begins; as long as it takes where the client
    /// is silent. Cancel-safe: what has been read stays here.
    ///
    /// # Errors
    ///
    /// See [`HelloError`]; also [`HelloError::Closed`] if it has answered before.
    pub async fn next(&mut self) -> Result<Hello, HelloError> {
        let begins = loop {
            if let Some(begins) = self.parser.look(&self.seen)? {
                break begins;
            }
            self.read().await?;
        };
        let tcp = self.tcp.take().ok_or(HelloError::Closed)?;
        let seen = std::mem::take(&mut self.seen).freeze();
        Ok(match begins {
            Begins::Plain => Hello::Plain(Prefixed::with_prefix(seen, tcp)),
            Begins::Tls { sni } => Hello::Tls {
                sni,
                io: HelloIo { seen, tcp },
            },
        })
    }

    /// Whether the client has said nothing yet.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.seen.is_empty()
    }

    /// The connection as it came, undecided; nothing if [`Self::next`] has given it away.
    #[must_use]
    pub fn into_prefixed(self) -> Option<Prefixed<TcpStream>> {
        self.tcp
            .map(|tcp| Prefixed::with_prefix(self.seen.freeze(), tcp))
    }

    async fn read(&mut self) -> Result<(), HelloError> {
        let tcp = self.tcp.as_ref().ok_or(HelloError::Closed)?;
        loop {
            match self.deadline {
                None => tcp.readable().await?,
                Some(deadline) => time::timeout_at(deadline, tcp.readable())
                    .await
                    .map_err(|_| HelloError::Timeout)??,
            }
            self.seen.reserve(READ_SIZE);
            match tcp.try_read_buf(&mut self.seen) {
                Ok(0) => return Err(HelloError::Closed),
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.deadline
            .get_or_insert_with(|| Instant::now() + HELLO_TIMEOUT);
        Ok(())
    }
}

impl HelloParser {
    /// Look at everything that has been read, which only grows from one call to the next;
    /// nothing where more is needed.
    ///
    /// # Errors
    ///
    /// [`HelloError::TooLong`].
    pub fn look(&mut self, seen: &[u8]) -> Result<Option<Begins>, HelloError> {
        let shared = seen.len().min(TLS_BEGINS.len());
        if seen[..shared] != TLS_BEGINS[..shared] {
            return Ok(Some(Begins::Plain));
        }
        while self.parsed < seen.len() {
            let rustls = self.rustls.get_or_insert_default();
            let mut unparsed = &seen[self.parsed..];
            match rustls.read_tls(&mut unparsed) {
                Ok(taken) if taken > 0 => self.parsed += taken,
                // rustls takes no more: nothing of this kind is a hello.
                _ => return Ok(Some(Begins::Tls { sni: None })),
            }
            match rustls.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    let sni = accepted
                        .client_hello()
                        .server_name()
                        .map(str::to_ascii_lowercase);
                    return Ok(Some(Begins::Tls { sni }));
                }
                Err(_) => return Ok(Some(Begins::Tls { sni: None })),
            }
        }
        if seen.len() >= MAX_HELLO {
            return Err(HelloError::TooLong);
        }
        Ok(None)
    }
}

impl std::fmt::Debug for HelloParser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HelloParser")
            .field("parsed", &self.parsed)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rustls::{ClientConfig, ClientConnection, RootCertStore, crypto::aws_lc_rs};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        join,
        net::TcpListener,
    };

    use super::*;

    /// The hello of an ordinary client, grown by `alpn` to any size.
    fn hello(server: &str, alpn: usize) -> Vec<u8> {
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(RootCertStore::empty())
                .with_no_client_auth();
        config.alpn_protocols = (0..alpn)
            .map(|i| format!("{i:0200}").into_bytes())
            .collect();
        let name = server.to_owned().try_into().unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    /// The same message in records of `size` bytes.
    fn in_records(hello: &[u8], size: usize) -> Vec<u8> {
        let message = &hello[5..];
        message
            .chunks(size)
            .flat_map(|part| {
                let length = u16::try_from(part.len()).unwrap().to_be_bytes();
                [&[22, 3, 1], &length[..], part].concat()
            })
            .collect()
    }

    async fn sockets() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (client, server) = join!(
            TcpStream::connect(listener.local_addr().unwrap()),
            listener.accept()
        );
        let client = client.unwrap();
        client.set_nodelay(true).unwrap();
        (client, server.unwrap().0)
    }

    /// What is decided of these bytes (TLS without a name is an empty one), and the bytes that
    /// can be read again.
    async fn read(bytes: &[u8], chunk: usize) -> Result<(Option<String>, Vec<u8>), HelloError> {
        let (mut client, server) = sockets().await;
        let sending = async {
            for chunk in bytes.chunks(chunk) {
                // The reader may have closed the connection by now.
                if client.write_all(chunk).await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
            let _ = client.shutdown().await;
        };
        let reading = async {
            let (sni, mut io) = match read_client_hello(server, Duration::from_mins(1)).await? {
                Hello::Plain(io) => (None, io),
                Hello::Tls { sni, io } => (Some(sni.unwrap_or_default()), io.into_prefixed()),
            };
            let mut again = Vec::new();
            io.read_to_end(&mut again).await.unwrap();
            Ok((sni, again))
        };
        join!(sending, reading).1
    }

    #[tokio::test]
    async fn a_hello_may_come_one_byte_at_a_time() {
        let bytes = hello("Web.Example.com", 0);
        assert!(bytes.len() > 1200, "no post-quantum key share in it");

        let (sni, again) = read(&bytes, 1).await.unwrap();

        assert_eq!(sni.as_deref(), Some("web.example.com"));
        assert!(again == bytes);
    }

    #[tokio::test]
    async fn a_hello_may_be_large_and_spread_over_records() {
        let bytes = hello("web.example.com", 60);
        assert!(bytes.len() > 12_000 && bytes.len() < MAX_HELLO);

        for bytes in [in_records(&bytes, 100), in_records(&bytes, 5000), bytes] {
            let (sni, again) = read(&bytes, 4000).await.unwrap();
            assert_eq!(sni.as_deref(), Some("web.example.com"));
            assert!(again == bytes);
        }
    }

    #[tokio::test]
    async fn a_hello_that_is_too_long_is_refused() {
        let bytes = hello("web.example.com", 100);
        assert!(bytes.len() > MAX_HELLO);

        let result = read(&bytes, 4000).await;

        assert!(matches!(result, Err(HelloError::TooLong)), "{result:?}");
    }

    #[tokio::test]
    async fn a_hello_that_names_no_server_is_tls_all_the_same() {
        for bytes in [
            hello("10.0.0.1", 0),
            b"\x16\x03\x01\x00\x05nonsense".to_vec(),
        ] {
            let (sni, again) = read(&bytes, 4000).await.unwrap();
            assert_eq!(sni.as_deref(), Some(""));
            assert!(again == bytes);
        }
    }

    #[tokio::test]
    async fn one_byte_that_no_hello_has_decides() {
        let (mut client, server) = sockets().await;
        client.write_all(b"G").await.unwrap();

        let hello = read_client_hello(server, Duration::from_mins(1))
            .await
            .unwrap();

        let Hello::Plain(io) = hello else {
            panic!("{hello:?}")
        };
        assert_eq!(io.prefix(), b"G");
    }

    #[tokio::test]
    async fn a_reader_that_is_interrupted_loses_nothing() {
        let bytes = hello("web.example.com", 0);
        let (mut client, server) = sockets().await;
        let mut reader = HelloReader::new(server);
        assert!(reader.is_silent());

        for part in bytes.chunks(100) {
            client.write_all(part).await.unwrap();
            let impatient = time::timeout(Duration::from_millis(1), reader.next());
            if let Ok(decided) = impatient.await {
                let Hello::Tls { sni, io } = decided.unwrap() else {
                    panic!("plain")
                };
                assert_eq!(sni.as_deref(), Some("web.example.com"));
                assert_eq!(io.into_prefixed().prefix(), bytes);
                return;
            }
            assert!(!reader.is_silent());
        }
        panic!("undecided");
    }

    #[tokio::test]
    async fn an_undecided_connection_can_be_had_back() {
        let (mut client, server) = sockets().await;
        let mut reader = HelloReader::new(server);
        client.write_all(b"\x16\x03\x01").await.unwrap();
        while reader.is_silent() {
            let _ = time::timeout(Duration::from_millis(1), reader.next()).await;
        }

        let io = reader.into_prefixed().unwrap();

        assert_eq!(io.prefix(), b"\x16\x03\x01");
    }

    #[tokio::test]
    async fn a_hello_must_be_finished_in_time_and_a_silent_client_need_not_speak() {
        let (mut client, server) = sockets().await;
        let mut reader = HelloReader::new(server);
        time::pause();
        let silent = time::timeout(Duration::from_hours(1), reader.next()).await;
        assert!(silent.is_err());

        time::resume();
        client.write_all(b"\x16\x03\x01\x02").await.unwrap();
        while reader.is_silent() {
            let _ = time::timeout(Duration::from_millis(1), reader.next()).await;
        }
        time::pause();
        let begun = Instant::now();
        let result = reader.next().await;

        assert!(matches!(result, Err(HelloError::Timeout)));
        assert!(begun.elapsed() <= HELLO_TIMEOUT);
    }

    #[tokio::test]
    async fn a_connection_that_ends_before_it_begins_is_closed() {
        for bytes in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00"] {
            let result = read(bytes, 4000).await;
            assert!(matches!(result, Err(HelloError::Closed)), "{result:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_byte_of_foreign_tls_can_be_read_again(
            alpn in 0..60_usize,
            record in 200..20_000_usize,
            chunk in 1..5000_usize,
            after in prop::collection::vec(any::<u8>(), 0..5000),
        ) {
            let mut bytes = in_records(&hello("foreign.example.com", alpn), record.min(16_000));
            bytes.extend(after);

            let (sni, again) = block_on(read(&bytes, chunk)).unwrap();

            prop_assert_eq!(sni.as_deref(), Some("foreign.example.com"));
            prop_assert!(again == bytes);
        }

        #[test]
        fn anything_is_decided_or_refused_and_kept(
            like_tls in any::<bool>(),
            bytes in prop::collection::vec(any::<u8>(), 1..20_000),
            chunk in 1..5000_usize,
        ) {
            let bytes = if like_tls { [&TLS_BEGINS[..], &bytes].concat() } else { bytes };
            match block_on(read(&bytes, chunk)) {
                Ok((sni, again)) => {
                    prop_assert_eq!(sni.is_some(), bytes.starts_with(&TLS_BEGINS));
                    prop_assert!(again == bytes);
                }
                Err(HelloError::Closed | HelloError::TooLong) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn block_on<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(future)
    }
}

//! The handshake on both sides, and the connection that it leads to.

use std::{
    fmt,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rustls::{
    CommonState, HandshakeKind,
    client::UnbufferedClientConnection,
    pki_types::{ServerName, UnixTime},
    server::UnbufferedServerConnection,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    time,
};
use tulle_core::{Id, TlsTarget};
use tulle_transport::header;

use crate::{Credentials, HelloIo, TlsError, stream::TlsStream, verify::first_name};

/// Long enough for a slow handshake over a congested link, short enough that a peer that only
/// connects cannot hold a slot for long.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that mesh TLS was accepted on.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub io: ServerIo,
    /// Whom the client proved to be; absent where it presented no certificate.
    pub client_id: Option<Id>,
    /// Whether a transport header comes first.
    pub transport_header: bool,
}

/// The accepting end of a mesh TLS connection.
pub struct ServerIo(pub(crate) TlsStream<UnbufferedServerConnection>);

/// The connecting end of a mesh TLS connection.
pub struct ClientIo(pub(crate) TlsStream<UnbufferedClientConnection>);

/// Accept mesh TLS; only where the hello asked for our own name.
///
/// # Errors
///
/// See [`TlsError`].
pub async fn accept(hello: HelloIo, credentials: &Credentials) -> Result<Accepted, TlsError> {
    let server = credentials.server.as_ref().ok_or(TlsError::NoCertificate)?;
    let (hello, tcp) = hello.into_parts();
    let session = UnbufferedServerConnection::new(Arc::clone(&server.config))?;
    let mut io = TlsStream::new(tcp, session, hello.into());
    in_time(io.handshake()).await?;
    let chain = io.state().peer_certificates().unwrap_or_default();
    if let Some((leaf, intermediates)) = chain.split_first()
        && is_resumed(io.state())
    {
        server
            .verifier
            .verify_client_cert(leaf, intermediates, now(credentials))?;
    }
    let client_id = chain.first().and_then(first_name);
    let transport_header = io.state().alpn_protocol() == Some(header::ALPN);
    Ok(Accepted {
        io: ServerIo(io),
        client_id,
        transport_header,
    })
}

/// Connect with mesh TLS to whom discovery named; `transport_header` announces one.
///
/// # Errors
///
/// See [`TlsError`]. That the server does not trust our certificate comes later, as the error
/// of the first read.
pub async fn connect(
    tcp: TcpStream,
    credentials: &Arc<Credentials>,
    target: &TlsTarget,
    transport_header: bool,
) -> Result<ClientIo, TlsError> {
    let name = ServerName::try_from(target.server_name.to_string())
        .map_err(|_| TlsError::BadServerName(Arc::clone(&target.server_name)))?;
    let endpoint = credentials.endpoint(tcp.peer_addr().map_err(TlsError::Io)?, target)?;
    let alpn = if transport_header {
        vec![header::ALPN.to_vec()]
    } else {
        Vec::new()
    };
    let config = Arc::clone(&endpoint.config);
    let session = UnbufferedClientConnection::new_with_alpn(config, name, alpn)?;
    let mut io = TlsStream::new(tcp, session, Vec::new());
    in_time(async {
        io.handshake().await?;
        io.flush().await
    })
    .await?;
    if is_resumed(io.state()) {
        let chain = io.state().peer_certificates().unwrap_or_default();
        let verified = match chain.split_first() {
            Some((leaf, rest)) => endpoint.verifier.verify(leaf, rest, now(credentials)),
            None => Err(rustls::Error::NoCertificatesPresented),
        };
        if let Err(error) = verified {
            endpoint.sessions.clear();
            return Err(error.into());
        }
    }
    if transport_header && io.state().alpn_protocol() != Some(header::ALPN) {
        return Err(TlsError::NoTransportHeader);
    }
    Ok(ClientIo(io))
}

async fn in_time(handshake: impl Future<Output = io::Result<()>>) -> Result<(), TlsError> {
    match time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(result) => result.map_err(TlsError::from),
        Err(_) => Err(TlsError::Timeout(HANDSHAKE_TIMEOUT)),
    }
}

/// Anything but a handshake in which certificates were verified.
fn is_resumed(state: &CommonState) -> bool {
    !matches!(
        state.handshake_kind(),
        Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest)
    )
}

fn now(credentials: &Credentials) -> UnixTime {
    credentials
        .clock
        .current_time()
        .unwrap_or_else(UnixTime::now)
}

impl ServerIo {
    /// The socket.
    #[must_use]
    pub const fn tcp(&self) -> &TcpStream {
        self.0.tcp()
    }
}

impl ClientIo {
    /// The socket.
    #[must_use]
    pub const fn tcp(&self) -> &TcpStream {
        self.0.tcp()
    }
}

macro_rules! delegate {
    ($io:ident) => {
        impl AsyncRead for $io {
            fn poll_read(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                Pin::new(&mut self.0).poll_read(cx, buf)
            }
        }

        impl AsyncWrite for $io {
            fn poll_write(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &[u8],
            ) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.0).poll_write(cx, buf)
            }

            fn poll_write_vectored(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
            }

            fn is_write_vectored(&self) -> bool {
                true
            }

            fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.0).poll_flush(cx)
            }

            fn poll_shutdown(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
            ) -> Poll<io::Result<()>> {
                Pin::new(&mut self.0).poll_shutdown(cx)
            }
        }

        impl fmt::Debug for $io {
            /// Only where it is connected to: nothing of the session may reach a log.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($io)).field(self.tcp()).finish()
            }
        }
    };
}

delegate!(ServerIo);
delegate!(ClientIo);

#[cfg(test)]
mod tests {
    use rcgen::SanType;
    use rustls::{AlertDescription, CertificateError};
    use tokio::{io::AsyncReadExt, join, net::TcpListener};
    use tulle_core::Reason;

    use super::*;
    use crate::{
        CredentialsError, Hello, Io,
        authority::{Authority, CLIENT, Clock, HOUR, Leaf, WEB, target},
        read_client_hello,
    };

    type Ends = (Result<ClientIo, TlsError>, Result<Accepted, TlsError>);

    async fn sockets() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        connected(&listener, addr).await
    }

    async fn connected(
        listener: &TcpListener,
        addr: std::net::SocketAddr,
    ) -> (TcpStream, TcpStream) {
        let (client, server) = join!(TcpStream::connect(addr), listener.accept());
        (client.unwrap(), server.unwrap().0)
    }

    /// One handshake over these sockets.
    async fn handshake(
        (near, far): (TcpStream, TcpStream),
        client: &Arc<Credentials>,
        target: &TlsTarget,
        header: bool,
        server: &Credentials,
    ) -> Ends {
        let accepting = async {
            match read_client_hello(far, HANDSHAKE_TIMEOUT).await {
                Ok(Hello::Tls { io, .. }) => accept(io, server).await,
                other => panic!("{other:?}"),
            }
        };
        join!(connect(near, client, target, header), accepting)
    }

    async fn both(client: &Arc<Credentials>, server: &Credentials) -> Ends {
        handshake(sockets().await, client, &target(WEB), false, server).await
    }

    async fn say(from: &mut (impl AsyncWrite + Unpin), to: &mut (impl AsyncRead + Unpin)) {
        let said: Vec<u8> = (0..100_000_u32).map(|i| i.to_le_bytes()[1]).collect();
        let mut heard = vec![0; said.len()];
        let (sent, received) = join!(
            async {
                from.write_all(&said).await?;
                from.flush().await
            },
            to.read_exact(&mut heard)
        );
        sent.unwrap();
        received.unwrap();
        assert!(heard == said);
    }

    #[tokio::test]
    async fn both_ends_learn_who_the_other_is_and_bytes_flow() {
        let root = Authority::new();
        let (client, server) = (root.credentials(CLIENT), root.credentials(WEB));

        for header in [false, true] {
            let ends = handshake(sockets().await, &client, &target(WEB), header, &server).await;

            let (mut near, mut far) = (ends.0.unwrap(), ends.1.unwrap());
            assert_eq!(far.client_id, Some(Id::new(CLIENT)));
            assert_eq!(far.transport_header, header);
            say(&mut near, &mut far.io).await;
            say(&mut far.io, &mut near).await;
        }
    }

    #[tokio::test]
    async fn a_server_with_another_name_is_an_identity_mismatch() {
        let root = Authority::new();
        let expected = TlsTarget {
            server_name: CLIENT.into(),
            id: Id::new(WEB),
        };

        let ends = handshake(
            sockets().await,
            &root.credentials(CLIENT),
            &expected,
            false,
            &root.credentials(CLIENT),
        )
        .await;

        let error = ends.0.unwrap_err();
        assert!(
            matches!(&error, TlsError::IdentityMismatch { expected } if *expected == Id::new(WEB))
        );
        assert_eq!(error.reason(), Reason::IdentityMismatch);
        assert!(matches!(ends.1.unwrap_err(), TlsError::Refused(_)));
    }

    #[tokio::test]
    async fn an_expired_server_is_not_trusted() {
        let root = Authority::new();
        let past = Clock::default();
        past.set(-10 * HOUR);
        let leaf = Leaf {
            valid: (-20 * HOUR, -HOUR),
            ..Leaf::dns(WEB)
        };
        let server = root.credentials_at(WEB, leaf, &past);

        let ends = both(&root.credentials(CLIENT), &server).await;

        let error = ends.0.unwrap_err();
        assert!(
            matches!(
                error,
                TlsError::Untrusted(CertificateError::ExpiredContext { .. })
            ),
            "{error}"
        );
    }

    #[tokio::test]
    async fn an_expired_client_is_not_trusted() {
        let root = Authority::new();
        let past = Clock::default();
        past.set(-10 * HOUR);
        let leaf = Leaf {
            valid: (-20 * HOUR, -HOUR),
            ..Leaf::dns(CLIENT)
        };
        let client = root.credentials_at(CLIENT, leaf, &past);
        let old = root.credentials_at(
            WEB,
            Leaf {
                valid: (-20 * HOUR, HOUR),
                ..Leaf::dns(WEB)
            },
            &Clock::default(),
        );

        let ends = both(&client, &old).await;

        let error = ends.1.unwrap_err();
        assert!(
            matches!(
                error,
                TlsError::Untrusted(CertificateError::ExpiredContext { .. })
            ),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_foreign_root_is_not_trusted_by_either_end() {
        let (ours, theirs) = (Authority::new(), Authority::new());
        let foreign = theirs.credentials(WEB);

        let (near, far) = both(&ours.credentials(CLIENT), &foreign).await;
        let error = near.unwrap_err();
        assert!(
            matches!(error, TlsError::Untrusted(CertificateError::UnknownIssuer)),
            "{error}"
        );
        assert!(
            matches!(far, Err(TlsError::Refused(AlertDescription::UnknownCA))),
            "{far:?}"
        );

        let trusting = {
            let (chain, key) = ours.issue(Leaf::dns(CLIENT));
            let both = format!("{}{}", ours.pem, theirs.pem);
            Arc::new(Credentials::new(&Id::new(CLIENT), chain, key, &both).unwrap())
        };
        let (near, far) = both(&trusting, &foreign).await;
        let error = far.unwrap_err();
        assert!(
            matches!(error, TlsError::Untrusted(CertificateError::UnknownIssuer)),
            "{error}"
        );
        let told = near.unwrap().read_u8().await.unwrap_err();
        assert!(matches!(
            TlsError::from(told),
            TlsError::Refused(AlertDescription::UnknownCA)
        ));
    }

    #[tokio::test]
    async fn a_client_without_a_certificate_is_let_in_as_nobody() {
        let root = Authority::new();
        let client = Arc::new(Credentials::anonymous(&root.pem).unwrap());

        let (near, far) = both(&client, &root.credentials(WEB)).await;

        let mut far = far.unwrap();
        assert_eq!(far.client_id, None);
        say(&mut near.unwrap(), &mut far.io).await;
    }

    #[tokio::test]
    async fn a_uri_proves_a_uri_under_any_server_name() {
        let root = Authority::new();
        let uri = "spiffe://cluster.local/ns/shop/sa/web";
        let leaf = || Leaf::names(vec![SanType::URI(uri.try_into().unwrap())]);
        let server = root.try_credentials(uri, leaf()).unwrap();
        let target = TlsTarget {
            server_name: "web".into(),
            id: Id::new(uri),
        };

        let client = Arc::new(root.try_credentials(uri, leaf()).unwrap());
        let (near, far) = handshake(sockets().await, &client, &target, false, &server).await;

        near.unwrap();
        assert_eq!(far.unwrap().client_id, Some(Id::new(uri)));
    }

    #[test]
    fn neither_common_names_nor_wildcards_prove_anything() {
        let root = Authority::new();
        let name = SanType::DnsName("other".try_into().unwrap());
        let common = Leaf {
            common_name: Some(WEB),
            ..Leaf::names(vec![name])
        };
        let wildcard = WEB.replacen("web", "*", 1);

        for (name, leaf) in [
            (WEB, common),
            (WEB, Leaf::dns(&wildcard)),
            (&wildcard, Leaf::dns(&wildcard)),
        ] {
            let result = root.try_credentials(name, leaf);
            assert!(
                matches!(result, Err(CredentialsError::WrongName(_))),
                "{result:?}"
            );
        }
    }

    #[test]
    fn credentials_that_no_peer_would_accept_are_refused() {
        let root = Authority::new();
        let name = Id::new(WEB);
        let (chain, _) = root.issue(Leaf::dns(WEB));
        let (_, other_key) = root.issue(Leaf::dns(WEB));

        let result = Credentials::new(&name, chain.clone(), other_key.clone_key(), &root.pem);
        assert!(matches!(result, Err(CredentialsError::Key(_))));

        let foreign = Authority::new().pem;
        let result = Credentials::new(&name, chain, other_key, &foreign);
        assert!(matches!(result, Err(CredentialsError::Untrusted(_))));

        let p384 = Leaf {
            algorithm: &rcgen::PKCS_ECDSA_P384_SHA384,
            ..Leaf::dns(WEB)
        };
        assert!(matches!(
            root.try_credentials(WEB, p384),
            Err(CredentialsError::Key(_))
        ));

        for pem in [
            "",
            "no PEM",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
        ] {
            let result = Credentials::anonymous(pem);
            assert!(matches!(result, Err(CredentialsError::Roots(_))), "{pem:?}");
        }
    }

    /// Connects over and over to one listener, and tells each time whether both ends resumed.
    struct Pair {
        listener: TcpListener,
        client: Arc<Credentials>,
        server: Arc<Credentials>,
    }

    impl Pair {
        async fn new(client: Arc<Credentials>, server: Arc<Credentials>) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            Self {
                listener,
                client,
                server,
            }
        }

        async fn ends(&self) -> Ends {
            let addr = self.listener.local_addr().unwrap();
            let sockets = connected(&self.listener, addr).await;
            handshake(sockets, &self.client, &target(WEB), true, &self.server).await
        }

        async fn resumes(&self) -> bool {
            let (near, far) = self.ends().await;
            let (mut near, mut far) = (near.unwrap(), far.unwrap());
            // The ticket comes with the first bytes.
            say(&mut far.io, &mut near).await;
            assert_eq!(far.client_id, Some(Id::new(CLIENT)));
            assert!(far.transport_header);
            assert_eq!(is_resumed(near.0.state()), is_resumed(far.io.0.state()));
            is_resumed(near.0.state())
        }
    }

    #[tokio::test]
    async fn a_second_connection_resumes_and_the_client_is_still_known() {
        let root = Authority::new();
        let pair = Pair::new(root.credentials(CLIENT), root.credentials(WEB)).await;

        assert!(!pair.resumes().await);
        for _ in 0..3 {
            assert!(pair.resumes().await);
        }
    }

    #[tokio::test]
    async fn a_new_certificate_on_either_end_forgets_the_sessions() {
        let root = Authority::new();
        let mut pair = Pair::new(root.credentials(CLIENT), root.credentials(WEB)).await;
        assert!(!pair.resumes().await);

        pair.server = root.credentials(WEB);
        assert!(!pair.resumes().await);
        assert!(pair.resumes().await);

        pair.client = root.credentials(CLIENT);
        assert!(!pair.resumes().await);
    }

    #[tokio::test]
    async fn a_resumed_client_whose_certificate_expired_meanwhile_is_refused() {
        let root = Authority::new();
        let clock = Clock::default();
        let long = Leaf {
            valid: (-HOUR, 20 * HOUR),
            ..Leaf::dns(WEB)
        };
        let server = root.credentials_at(WEB, long, &clock);
        let pair = Pair::new(root.credentials(CLIENT), server).await;
        assert!(!pair.resumes().await);

        clock.set(2 * HOUR);
        let (_, far) = pair.ends().await;

        let error = far.unwrap_err();
        assert!(
            matches!(
                error,
                TlsError::Untrusted(CertificateError::ExpiredContext { .. })
            ),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_resumed_server_whose_certificate_expired_meanwhile_is_refused_and_forgotten() {
        let root = Authority::new();
        let clock = Clock::default();
        let long = Leaf {
            valid: (-HOUR, 20 * HOUR),
            ..Leaf::dns(CLIENT)
        };
        let client = root.credentials_at(CLIENT, long, &clock);
        let pair = Pair::new(client, root.credentials(WEB)).await;
        assert!(!pair.resumes().await);

        clock.set(2 * HOUR);
        let (near, _) = pair.ends().await;
        let error = near.unwrap_err();
        assert!(
            matches!(
                error,
                TlsError::Untrusted(CertificateError::ExpiredContext { .. })
            ),
            "{error}"
        );

        clock.set(0);
        assert!(!pair.resumes().await);
    }

    #[tokio::test]
    async fn another_replica_of_the_service_is_a_full_handshake() {
        let root = Authority::new();
        let client = root.credentials(CLIENT);
        let one = Pair::new(Arc::clone(&client), root.credentials(WEB)).await;
        let other = Pair::new(client, root.credentials(WEB)).await;

        assert!(!one.resumes().await);
        assert!(!other.resumes().await);
        assert!(one.resumes().await);
        assert!(other.resumes().await);
    }

    #[tokio::test]
    async fn head_and_body_written_at_once_are_one_record() {
        let root = Authority::new();
        let (near, far) = both(&root.credentials(CLIENT), &root.credentials(WEB)).await;
        let (near, far) = (near.unwrap(), far.unwrap());
        let mut io = Io::from(far.io);

        let bufs = [
            IoSlice::new(b"head"),
            IoSlice::new(b""),
            IoSlice::new(b"body"),
        ];
        let written = io.write_vectored(&bufs).await.unwrap();
        io.flush().await.unwrap();

        let mut wire = [0; 2048];
        let mut records = Vec::new();
        let length = near.tcp().peek(&mut wire).await.unwrap();
        let mut rest = &wire[..length];
        while let [kind, _, _, high, low, ..] = *rest {
            let length = usize::from(u16::from_be_bytes([high, low]));
            records.push((kind, length));
            rest = &rest[5 + length..];
        }
        assert_eq!(written, 8);
        // The session ticket, and the eight bytes with their type and authentication tag.
        assert_eq!(records.len(), 2, "{records:?}");
        assert_eq!(records[1], (23, 8 + 17));
    }

    #[tokio::test]
    async fn an_end_without_close_notify_is_no_end_of_file() {
        let root = Authority::new();
        let (client, server) = (root.credentials(CLIENT), root.credentials(WEB));

        let (near, far) = both(&client, &server).await;
        let mut near = near.unwrap();
        drop(far);
        let error = near.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);

        let (near, far) = both(&client, &server).await;
        let (mut near, mut far) = (near.unwrap(), far.unwrap().io);
        far.write_all(b"last words").await.unwrap();
        far.shutdown().await.unwrap();
        let mut heard = String::new();
        near.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "last words");
        // The other direction is still open.
        say(&mut near, &mut far).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_says_nothing_is_a_timeout() {
        let root = Authority::new();
        let (near, _far) = sockets().await;

        let error = connect(near, &root.credentials(CLIENT), &target(WEB), false)
            .await
            .unwrap_err();

        assert!(matches!(error, TlsError::Timeout(_)), "{error}");
    }

    #[tokio::test]
    async fn a_server_that_does_not_speak_tls_is_told_apart() {
        let root = Authority::new();
        let (near, mut far) = sockets().await;
        far.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();

        let error = connect(near, &root.credentials(CLIENT), &target(WEB), false)
            .await
            .unwrap_err();

        assert!(matches!(error, TlsError::Protocol(_)), "{error}");
    }

    #[tokio::test]
    async fn anonymous_credentials_cannot_accept() {
        let root = Authority::new();
        let nobody = Credentials::anonymous(&root.pem).unwrap();

        let (_, far) = both(&root.credentials(CLIENT), &nobody).await;

        assert!(matches!(far, Err(TlsError::NoCertificate)));
    }
}

//! How a connection begins: whatever comes, in whatever pieces, is decided the same way, and every byte can be read
//! again by whoever the connection is passed on to.

use std::{cell::OnceCell, net, os::fd::OwnedFd, os::unix::net::UnixStream, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::Runtime,
};
use tulle_tls::{Hello, HelloError, HelloReader, MAX_HELLO};

/// Nothing here waits for anything, so this is a reader that hangs.
const STUCK: Duration = Duration::from_secs(5);

thread_local! {
    static RUNTIME: OnceCell<Runtime> = const { OnceCell::new() };
}

/// What is decided of the bytes, and the bytes that can be read afterwards.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Plain(Vec<u8>),
    Tls(Option<String>, Vec<u8>),
    Closed,
    TooLong,
}

/// The first byte says how large the pieces are.
pub fn check(data: &[u8]) {
    let [piece, bytes @ ..] = data else {
        return;
    };
    let piece = usize::from(*piece).pow(2) + 1;
    RUNTIME.with(|runtime| {
        let runtime = runtime.get_or_init(|| {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            runtime.enable_all().build().expect("a runtime")
        });
        runtime.block_on(async {
            let outcome = read(bytes, piece).await;
            match &outcome {
                Outcome::Plain(again) => assert!(again == bytes, "bytes lost"),
                Outcome::Tls(sni, again) => {
                    assert!(again == bytes, "bytes lost");
                    let sni = sni.as_deref().unwrap_or("-");
                    assert_eq!(sni, sni.to_ascii_lowercase());
                }
                Outcome::TooLong => assert!(bytes.len() >= MAX_HELLO),
                Outcome::Closed => {}
            }
            // A longer one may be whole by the time it is looked at, or not.
            if bytes.len() < MAX_HELLO {
                assert_eq!(outcome, read(bytes, usize::MAX).await, "the pieces matter");
            }
        });
    });
}

async fn read(bytes: &[u8], piece: usize) -> Outcome {
    let (mut client, server) = sockets();
    let writing = async move {
        for piece in bytes.chunks(piece) {
            // The reader may have closed the connection by now.
            if client.write_all(piece).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    let reading = async {
        let (sni, mut io) = match HelloReader::new(server).next().await {
            Ok(Hello::Plain(io)) => (None, io),
            Ok(Hello::Tls { sni, io }) => (Some(sni), io.into_prefixed()),
            Err(HelloError::TooLong) => return Outcome::TooLong,
            Err(HelloError::Closed) => return Outcome::Closed,
            Err(error) => panic!("{error}"),
        };
        let mut again = Vec::new();
        io.read_to_end(&mut again).await.expect("the rest");
        match sni {
            None => Outcome::Plain(again),
            Some(sni) => Outcome::Tls(sni, again),
        }
    };
    let both = async { tokio::join!(writing, reading).1 };
    tokio::time::timeout(STUCK, both).await.expect("an end")
}

/// Sockets that need no port: the reader only reads and writes.
fn sockets() -> (tokio::net::UnixStream, TcpStream) {
    let (client, server) = UnixStream::pair().expect("sockets");
    client.set_nonblocking(true).expect("a socket");
    server.set_nonblocking(true).expect("a socket");
    let server = net::TcpStream::from(OwnedFd::from(server));
    (
        tokio::net::UnixStream::from_std(client).expect("a socket"),
        TcpStream::from_std(server).expect("a socket"),
    )
}

//! The origin: answers with as many bytes as the request asks for, from memory, with as little work as it can.

use std::{
    cell::Cell, cell::RefCell, collections::HashMap, io, net::SocketAddr, rc::Rc, time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
};

use crate::{
    arguments::Listen,
    wire::{self, CONNECTION_WINDOW, GRPC_PREFIX, STREAM_WINDOW, TCP_PREFIX, TCP_REQUEST},
};

/// Answers up to this size are kept ready as one piece; larger ones are written from the same block again and again.
const BLOCK: usize = 1 << 20;
const BACKLOG: u32 = 4096;
/// A request of ours is far shorter, even with all that proxies add.
const READ_BYTES: usize = 4 << 10;

/// Listen until the process is ended.
pub async fn run(listen: Listen) -> anyhow::Result<()> {
    let answers = Rc::new(Answers::new());
    let slow = Rc::new(Cell::new(Duration::ZERO));
    let never = Rc::new(Cell::new(Duration::ZERO));
    for address in listen.http1 {
        let delay = if listen.slow == Some(address) {
            slow.clone()
        } else {
            never.clone()
        };
        let answers = answers.clone();
        accept(address, move |stream| {
            http1(stream, answers.clone(), delay.clone())
        })?;
    }
    for address in listen.tcp {
        let answers = answers.clone();
        accept(address, move |stream| tcp(stream, answers.clone()))?;
    }
    for address in listen.grpc {
        let answers = answers.clone();
        accept(address, move |stream| grpc(stream, answers.clone()))?;
    }
    println!("{{\"event\":\"ready\"}}");
    let mut begin = signal(SignalKind::user_defined1())?;
    let mut end = signal(SignalKind::user_defined2())?;
    loop {
        tokio::select! {
            _ = begin.recv() => slow.set(listen.delay),
            _ = end.recv() => slow.set(Duration::ZERO),
        }
    }
}

fn accept<F>(address: SocketAddr, serve: impl Fn(TcpStream) -> F + 'static) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>> + 'static,
{
    let listener = bind(address).with_context(|| format!("cannot listen on {address}"))?;
    tokio::task::spawn_local(async move {
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                // The kernel refuses it only for a socket that is gone already.
                let _ = stream.set_nodelay(true);
                let served = serve(stream);
                // A connection that breaks is the generator's to count.
                tokio::task::spawn_local(async move { drop(served.await) });
            }
        }
    });
    Ok(())
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        tokio::net::TcpSocket::new_v4()
    } else {
        tokio::net::TcpSocket::new_v6()
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Which form an answer has.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Form {
    Http1 { close: bool },
    Grpc,
    Tcp,
}

/// Whole answers, made once.
struct Answers {
    block: Bytes,
    ready: RefCell<HashMap<(Form, usize), Bytes>>,
}

impl Answers {
    fn new() -> Self {
        // Not zeros, and not worth compressing.
        let block = (0..BLOCK)
            .map(|at| b'a' + u8::try_from(at * 31 % 26).unwrap_or_default())
            .collect();
        Self {
            block,
            ready: RefCell::default(),
        }
    }

    /// Return an answer, and how much of its body must still be written from the block.
    fn answer(&self, form: Form, size: usize) -> (Bytes, usize) {
        let first = size.min(BLOCK);
        let mut ready = self.ready.borrow_mut();
        let made = ready.entry((form, size)).or_insert_with(|| {
            let mut bytes = match form {
                Form::Http1 { close } => wire::http1_head(size, close).to_vec(),
                Form::Grpc => [&[0], &length(size)[..]].concat(),
                Form::Tcp => length(size).to_vec(),
            };
            debug_assert!(bytes.len() >= TCP_PREFIX.min(GRPC_PREFIX));
            bytes.extend_from_slice(&self.block[..first]);
            bytes.into()
        });
        (made.clone(), size - first)
    }

    async fn write(&self, stream: &mut TcpStream, form: Form, size: usize) -> io::Result<()> {
        let (first, mut left) = self.answer(form, size);
        stream.write_all(&first).await?;
        while left > 0 {
            let next = left.min(BLOCK);
            stream.write_all(&self.block[..next]).await?;
            left -= next;
        }
        Ok(())
    }
}

fn length(size: usize) -> [u8; 4] {
    // A request states the size in four bytes too.
    u32::try_from(size).unwrap_or(u32::MAX).to_be_bytes()
}

async fn http1(
    mut stream: TcpStream,
    answers: Rc<Answers>,
    delay: Rc<Cell<Duration>>,
) -> anyhow::Result<()> {
    let mut buffer = Vec::with_capacity(READ_BYTES);
    loop {
        while let Some(asked) = wire::read_http1_request(&buffer).map_err(anyhow::Error::msg)? {
            buffer.drain(..asked.head);
            if !delay.get().is_zero() {
                tokio::time::sleep(delay.get()).await;
            }
            answers
                .write(&mut stream, Form::Http1 { close: asked.close }, asked.size)
                .await?;
            if asked.close {
                return Ok(stream.shutdown().await?);
            }
        }
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

async fn tcp(mut stream: TcpStream, answers: Rc<Answers>) -> anyhow::Result<()> {
    let mut buffer = Vec::with_capacity(TCP_REQUEST);
    loop {
        while buffer.len() >= TCP_REQUEST {
            let size = wire::word(&buffer[4..]);
            buffer.drain(..TCP_REQUEST);
            answers.write(&mut stream, Form::Tcp, size).await?;
        }
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

async fn grpc(stream: TcpStream, answers: Rc<Answers>) -> anyhow::Result<()> {
    let mut connection = h2::server::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(1_000)
        .handshake(stream)
        .await?;
    while let Some(call) = connection.accept().await {
        let (request, respond) = call?;
        let answers = answers.clone();
        tokio::task::spawn_local(async move {
            drop(call_answer(request.into_body(), respond, &answers).await);
        });
    }
    Ok(())
}

async fn call_answer(
    mut body: h2::RecvStream,
    mut respond: h2::server::SendResponse<Bytes>,
    answers: &Answers,
) -> anyhow::Result<()> {
    let mut message = Vec::with_capacity(GRPC_PREFIX + 4);
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        message.extend_from_slice(&data);
    }
    let size = wire::read_grpc_request(&message).context("not a request of ours")?;
    let head = Response::builder()
        .header("content-type", "application/grpc")
        .body(())?;
    let mut send = respond.send_response(head, false)?;
    // What exceeds the window waits inside h2, without being copied.
    let (first, mut left) = answers.answer(Form::Grpc, size);
    send.send_data(first, false)?;
    while left > 0 {
        let next = left.min(BLOCK);
        send.send_data(answers.block.slice(..next), false)?;
        left -= next;
    }
    let status = (
        http::HeaderName::from_static("grpc-status"),
        HeaderValue::from_static("0"),
    );
    send.send_trailers(HeaderMap::from_iter([status]))?;
    Ok(())
}

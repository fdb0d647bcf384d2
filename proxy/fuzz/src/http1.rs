//! HTTP/1 as a proxy passes it on, with a strict reader of our own on the other side, so that the codec is not
//! measured by itself.
//!
//! Requests: whatever a client sends, the endpoint reads whole requests, none of which has two readings, and at most
//! one that was broken off; what it was sent once comes through a second time unchanged. Responses: whatever an
//! endpoint answers, the client reads no more responses than it sent requests, each of which ends where it should.
//! Time is virtual: a proxy that waits for what will not come has hung.

use std::{cell::RefCell, rc::Rc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex},
    runtime::Runtime,
    sync::mpsc,
    task::LocalSet,
};
use tulle_core::{Reason, Refusal};
use tulle_http::{
    DrainSignal, Facts, Interim, Request, Response, Service,
    http1::{self, Http1Options},
    pool::{Connect, Mode, Pool, PoolOptions, Session},
};

/// Longer than every time-out on the way.
const STUCK: Duration = Duration::from_hours(24);

/// What a client sends where responses are random, two bits for each.
const REQUESTS: [(&str, &str); 4] = [
    ("GET", "GET / HTTP/1.1\r\nhost: a\r\n\r\n"),
    ("HEAD", "HEAD / HTTP/1.1\r\nhost: a\r\n\r\n"),
    (
        "POST",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n",
    ),
    (
        "GET",
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    ),
];

thread_local! {
    static RUNTIME: Runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
}

/// How the bytes travel.
#[derive(Clone, Copy)]
struct Way {
    /// The size of what is written at once.
    piece: usize,
    /// What a connection holds.
    buffer: usize,
    /// The endpoint answers before it has read the request's body.
    early: bool,
}

impl Way {
    fn new(piece: u8, buffer: u8) -> Self {
        Self {
            piece: usize::from(piece).pow(2) + 1,
            buffer: 32 << (buffer & 7),
            early: buffer & 8 != 0,
        }
    }
}

/// One message as the reader takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Heard {
    line: String,
    fields: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    trailers: Vec<(String, Vec<u8>)>,
}

/// The first two bytes say how the others, a client's, travel.
pub fn check_requests(data: &[u8]) {
    let [piece, buffer, bytes @ ..] = data else {
        return;
    };
    let way = Way::new(*piece, *buffer);
    run(async {
        let (heard, raw) = pass_requests(bytes, way).await;
        let (again, _) = pass_requests(&raw, way).await;
        assert_eq!(
            heard, again,
            "what was passed on means something else the second time"
        );
    });
}

/// The first three bytes say how the others, an endpoint's, travel, and what was asked.
pub fn check_responses(data: &[u8]) {
    let [piece, buffer, asked, bytes @ ..] = data else {
        return;
    };
    let way = Way::new(*piece, *buffer);
    let asked = (0..4).map(|at| REQUESTS[usize::from(asked >> (2 * at) & 3)]);
    run(pass_responses(bytes.to_vec(), asked.collect(), way));
}

fn run(travel: impl Future<Output = ()>) {
    RUNTIME.with(|runtime| {
        let ended =
            LocalSet::new().block_on(runtime, async { tokio::time::timeout(STUCK, travel).await });
        ended.expect("an end");
    });
}

/// The whole requests that the endpoint reads, and their bytes.
async fn pass_requests(bytes: &[u8], way: Way) -> (Vec<Heard>, Vec<u8>) {
    let heard = Rc::new(RefCell::new((Vec::new(), Vec::new())));
    let (client, mut connections) = proxy(way.buffer);
    let hearing = Rc::clone(&heard);
    tokio::task::spawn_local(async move {
        while let Some(io) = connections.recv().await {
            let hearing = Rc::clone(&hearing);
            tokio::task::spawn_local(async move { answer(io, way, &hearing).await });
        }
    });

    let (read, mut write) = tokio::io::split(client);
    let bytes = bytes.to_vec();
    let writing = async move {
        write_in_pieces(&mut write, &bytes, way.piece).await;
        write
    };
    let reading = async {
        let mut rest = Vec::new();
        let mut read = read;
        // An endpoint that hangs up is heard of by an end, or a reset.
        let _ = read.read_to_end(&mut rest).await;
        rest
    };
    let (write, answers) = tokio::join!(writing, reading);
    drop(write);
    check_answers(&answers);
    settle().await;
    heard.take()
}

/// A client hears status lines and bodies of ours and of the endpoint's alone.
fn check_answers(answers: &[u8]) {
    assert!(
        answers.is_empty() || answers.starts_with(b"HTTP/1."),
        "not a response: {}",
        answers.escape_ascii()
    );
}

/// Answer each request of a connection, and note it once it is whole.
async fn answer(io: DuplexStream, way: Way, heard: &RefCell<(Vec<Heard>, Vec<u8>)>) {
    let (read, mut write) = tokio::io::split(io);
    let mut reader = Reader::new(read);
    while let Some((line, fields)) = reader.head().await {
        let method = check_request_line(&line);
        check_fields(&fields);
        let hosts = fields.iter().filter(|(name, _)| name == "host").count();
        assert!(hosts <= 1, "{hosts} hosts");
        // A method whose response has no body needs a status that says so to everybody.
        let response: &[u8] = match method {
            "HEAD" => b"HTTP/1.1 204 No Content\r\n\r\n",
            _ => b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        };
        let tunnel = method == "CONNECT";
        if way.early && !tunnel && write.write_all(response).await.is_err() {
            return;
        }
        let Some((body, trailers)) = reader.body(framing(&fields, Framing::Nothing)).await else {
            return;
        };
        note(
            heard,
            &mut reader.taken,
            Heard {
                line,
                fields,
                body,
                trailers,
            },
        );
        // What follows a CONNECT are not requests.
        if tunnel || (!way.early && write.write_all(response).await.is_err()) {
            return;
        }
    }
}

fn note(heard: &RefCell<(Vec<Heard>, Vec<u8>)>, taken: &mut Vec<u8>, request: Heard) {
    let mut heard = heard.borrow_mut();
    heard.0.push(request);
    heard.1.append(taken);
}

async fn pass_responses(bytes: Vec<u8>, asked: Vec<(&str, &str)>, way: Way) {
    let (client, mut connections) = proxy(way.buffer);
    tokio::task::spawn_local(async move {
        while let Some(io) = connections.recv().await {
            let bytes = bytes.clone();
            tokio::task::spawn_local(async move {
                let (mut read, mut write) = tokio::io::split(io);
                let mut request = [0; 512];
                if !way.early && matches!(read.read(&mut request).await, Ok(0) | Err(_)) {
                    return;
                }
                let answering = async move {
                    write_in_pieces(&mut write, &bytes, way.piece).await;
                };
                let reading =
                    async move { while matches!(read.read(&mut request).await, Ok(1..)) {} };
                tokio::join!(answering, reading);
            });
        }
    });

    let (read, mut write) = tokio::io::split(client);
    let requests: String = asked.iter().map(|(_, request)| *request).collect();
    let writing = async move {
        write_in_pieces(&mut write, requests.as_bytes(), way.piece).await;
        write
    };
    let reading = async {
        let mut reader = Reader::new(read);
        for (method, _) in asked {
            if !hear_response(&mut reader, method).await {
                return;
            }
        }
        assert!(
            reader.head().await.is_none(),
            "more responses than requests"
        );
    };
    let (write, ()) = tokio::join!(writing, reading);
    drop(write);
    settle().await;
}

/// Read the final response to one request; say whether others may follow.
async fn hear_response(reader: &mut Reader<impl AsyncRead + Unpin>, method: &str) -> bool {
    loop {
        let Some((line, fields)) = reader.head().await else {
            return false;
        };
        let status = check_status_line(&line);
        check_fields(&fields);
        let found = framing(&fields, Framing::ToTheEnd);
        match status {
            101 => return false,
            100..200 => assert!(
                !matches!(found, Framing::Chunked | Framing::Length(1..)),
                "{line} with a body"
            ),
            204 | 304 => return true,
            _ if method == "HEAD" => return true,
            _ => {
                let whole = reader.body(found).await.is_some();
                return whole && !matches!(found, Framing::ToTheEnd);
            }
        }
    }
}

/// A client's connection to a proxy, and the connections that it opens to the endpoint.
fn proxy(buffer: usize) -> (DuplexStream, mpsc::UnboundedReceiver<DuplexStream>) {
    let (accepted, connections) = mpsc::unbounded_channel();
    let pool = Pool::new(
        Dial { buffer, accepted },
        Mode::AsReceived,
        PoolOptions::default(),
    );
    let (client, io) = duplex(buffer);
    tokio::task::spawn_local(async move {
        let (_trigger, drain) = DrainSignal::new();
        let options = Http1Options::default();
        // How it ends is the client's doing.
        let _ = http1::serve(io, Rc::new(Forward(pool)), &options, drain).await;
    });
    (client, connections)
}

struct Dial {
    buffer: usize,
    accepted: mpsc::UnboundedSender<DuplexStream>,
}

impl Connect for Dial {
    type Io = DuplexStream;

    async fn connect(&self, _session: Session) -> Result<DuplexStream, Refusal> {
        let (io, peer) = duplex(self.buffer);
        self.accepted
            .send(peer)
            .map_err(|_| Refusal::new(Reason::ConnectFailed, "gone"))?;
        Ok(io)
    }
}

struct Forward(Pool<Dial>);

impl Service for Forward {
    async fn call(&self, request: Request, interim: Interim) -> Response {
        let facts = Facts::of(&request);
        match self.0.send(request, interim).await {
            Ok(response) => response,
            Err(error) => error.response(facts),
        }
    }
}

async fn write_in_pieces(io: &mut (impl AsyncWrite + Unpin), bytes: &[u8], piece: usize) {
    for piece in bytes.chunks(piece) {
        // Refusing to hear more is the reader's right.
        if io.write_all(piece).await.is_err() {
            return;
        }
        tokio::task::yield_now().await;
    }
    let _ = io.shutdown().await;
}

/// Let every other task do what it can.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[derive(Clone, Copy, Debug)]
enum Framing {
    Nothing,
    Length(usize),
    Chunked,
    ToTheEnd,
}

/// What the fields say of the body; there is one way to say it.
fn framing(fields: &[(String, Vec<u8>)], otherwise: Framing) -> Framing {
    let named = |wanted: &str| -> Vec<_> {
        let mut all = Vec::new();
        for (name, value) in fields {
            if name == wanted {
                all.push(String::from_utf8_lossy(value).into_owned());
            }
        }
        all
    };
    match (
        &named("content-length")[..],
        &named("transfer-encoding")[..],
    ) {
        ([], []) => otherwise,
        ([length], []) => {
            let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
            assert!(digits, "a length {length:?}");
            // A body of more than memory can hold does not come.
            Framing::Length(length.parse().unwrap_or(usize::MAX))
        }
        ([], [coding]) => {
            assert_eq!(coding, "chunked");
            Framing::Chunked
        }
        both => panic!("ambiguous: {both:?}"),
    }
}

fn check_request_line(line: &str) -> &str {
    let words: Vec<_> = line.split(' ').collect();
    let [method, target, "HTTP/1.1" | "HTTP/1.0"] = words[..] else {
        panic!("not a request line: {line:?}");
    };
    assert!(is_token(method.as_bytes()), "a method {method:?}");
    let visible = !target.is_empty() && target.bytes().all(|byte| byte > b' ' && byte != 0x7f);
    assert!(visible, "a target {target:?}");
    method
}

fn check_status_line(line: &str) -> u16 {
    let rest = line
        .strip_prefix("HTTP/1.1 ")
        .or(line.strip_prefix("HTTP/1.0 "));
    let status = rest.and_then(|rest| rest.get(..3)?.parse().ok());
    let Some(status @ 100..1000) = status else {
        panic!("not a status line: {line:?}");
    };
    assert!(line.bytes().all(is_text), "a reason in {line:?}");
    status
}

fn check_fields(fields: &[(String, Vec<u8>)]) {
    for (name, value) in fields {
        assert!(is_token(name.as_bytes()), "a field {name:?}");
        assert!(
            value.iter().all(|byte| is_text(*byte)),
            "{name}: {}",
            value.escape_ascii()
        );
    }
}

/// A `tchar` of RFC 9110 §5.6.2, all of them.
fn is_token(word: &[u8]) -> bool {
    let tchar = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !word.is_empty() && word.iter().all(tchar)
}

const fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// Takes nothing that is not exactly as the standard writes it.
struct Reader<R> {
    io: R,
    buffer: Vec<u8>,
    /// What was read of the message so far.
    taken: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    const fn new(io: R) -> Self {
        Self {
            io,
            buffer: Vec::new(),
            taken: Vec::new(),
        }
    }

    async fn more(&mut self) -> bool {
        matches!(self.io.read_buf(&mut self.buffer).await, Ok(1..))
    }

    async fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < count {
            if !self.more().await {
                return None;
            }
        }
        let taken: Vec<_> = self.buffer.drain(..count).collect();
        self.taken.extend_from_slice(&taken);
        Some(taken)
    }

    /// A line without its end.
    async fn line(&mut self) -> Option<Vec<u8>> {
        let end = loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                break end;
            }
            if !self.more().await {
                return None;
            }
        };
        let mut line = self.take(end + 1).await?;
        line.truncate(end);
        assert_eq!(line.pop(), Some(b'\r'), "a bare line feed");
        assert!(
            !line.contains(&b'\r') && !line.contains(&0),
            "a line {}",
            line.escape_ascii()
        );
        Some(line)
    }

    async fn fields(&mut self) -> Option<Vec<(String, Vec<u8>)>> {
        let mut fields = Vec::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Some(fields);
            }
            let colon = line.iter().position(|byte| *byte == b':').expect("a colon");
            let name = String::from_utf8_lossy(&line[..colon]).to_ascii_lowercase();
            fields.push((name, line[colon + 1..].trim_ascii().to_vec()));
        }
    }

    async fn head(&mut self) -> Option<(String, Vec<(String, Vec<u8>)>)> {
        let line = self.line().await?;
        let fields = self.fields().await?;
        Some((String::from_utf8_lossy(&line).into_owned(), fields))
    }

    /// The body and its trailers; none where it was broken off.
    async fn body(&mut self, framing: Framing) -> Option<(Vec<u8>, Vec<(String, Vec<u8>)>)> {
        let mut body = Vec::new();
        match framing {
            Framing::Nothing => {}
            Framing::Length(length) => body = self.take(length).await?,
            Framing::ToTheEnd => {
                while self.more().await {}
                body.append(&mut self.buffer);
            }
            Framing::Chunked => loop {
                let line = self.line().await?;
                let digits = std::str::from_utf8(&line).expect("digits");
                let hexadecimal = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
                assert!(hexadecimal, "a size {digits:?}");
                let size = usize::from_str_radix(digits, 16).expect("a size");
                if size == 0 {
                    let trailers = self.fields().await?;
                    check_fields(&trailers);
                    return Some((body, trailers));
                }
                body.extend(self.take(size).await?);
                assert_eq!(self.take(2).await?, b"\r\n", "the end of a chunk");
            },
        }
        Some((body, Vec::new()))
    }
}

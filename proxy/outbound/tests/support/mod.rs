//! The outbound half of one worker between a client, servers and a control plane, all of which
//! the test plays.

use std::{cell::RefCell, collections::HashMap, net::SocketAddr, rc::Rc, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Handle,
    task::{LocalSet, spawn_local},
};
use tulle_config::{ClientH2, Config, HostPort};
use tulle_discovery::{ControlChannel, Dial, DialError, Dialed, Discovery};
use tulle_http::{DrainSignal, http2::Http2Options};
use tulle_metrics::Registry;
use tulle_outbound::{Parts, Shard};
use tulle_testkit::ControlPlane;
use tulle_tls::Store;
use tulle_transport::Accepted;

struct InMemory(ControlPlane);

impl Dial for InMemory {
    async fn dial(&self) -> Result<Dialed, DialError> {
        Ok(Dialed {
            io: Box::new(self.0.connect()?),
            usable: None,
        })
    }
}

/// The proxy under test.
pub struct Proxy {
    pub plane: ControlPlane,
    pub registry: Registry,
    shard: Rc<Shard>,
}

impl Proxy {
    /// `extra` are variables of the configuration.
    pub fn new(extra: &[(&str, &str)]) -> Self {
        let plane = ControlPlane::new();
        let config = config(extra);
        let addr = HostPort {
            host: "control".into(),
            port: 1,
        };
        let windows = ClientH2 {
            initial_stream_window: 65_535,
            initial_connection_window: 1 << 20,
        };
        let (runtime, registry) = (Handle::current(), Registry::new());
        let channel = ControlChannel::new(&addr, InMemory(plane.clone()), windows, &runtime);
        let shard = Shard::new(Parts {
            discovery: Discovery::over(&config, channel.clone(), channel, &registry, &runtime),
            config: Arc::new(config),
            registry: registry.clone(),
            store: Store::new(),
            drain: DrainSignal::new().0,
            http2: Http2Options::default(),
            shards: 1,
            taps: tulle_tap::Taps::default(),
            tracer: tulle_trace::Tracer::default(),
        });
        Self {
            plane,
            registry,
            shard,
        }
    }

    /// A connection of the application to this address.
    pub async fn connect(&self, target: &str) -> Client {
        let (client, io) = pair().await;
        let peer = io.peer_addr().expect("a connected socket");
        let local = io.local_addr().expect("a bound socket");
        let orig_dst = Some(target.parse().expect("address:port"));
        let accepted = Accepted {
            io,
            peer,
            local,
            orig_dst,
        };
        spawn_local(tulle_outbound::serve(self.shard.clone(), accepted));
        Client(client)
    }

    /// Whether a line is in the numbers.
    #[allow(dead_code, reason = "not every test looks")]
    #[track_caller]
    pub fn assert_shown(&self, line: &str) {
        let shown = self.registry.render();
        let name = line.split('{').next().unwrap_or(line);
        let family: Vec<_> = shown
            .lines()
            .filter(|shown| shown.starts_with(name))
            .collect();
        assert!(family.contains(&line), "{line}\nis not among\n{family:#?}");
    }
}

/// The application's end of a connection.
pub struct Client(pub TcpStream);

impl Client {
    /// Send a request without a body; return status and body of the response.
    pub async fn get(&mut self, path: &str, headers: &[&str]) -> (u16, String) {
        let start = format!("GET {path} HTTP/1.1");
        let request = [&[start.as_str()], headers, &["", ""]]
            .concat()
            .join("\r\n");
        self.0.write_all(request.as_bytes()).await.expect("sent");
        let head = read_head(&mut self.0).await.expect("a response");
        let length =
            field(&head, "content-length").map_or(0, |length| length.parse().expect("a length"));
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await.expect("a body");
        let status = head[9..12].parse().expect("a status");
        (status, String::from_utf8(body).expect("text"))
    }
}

/// An HTTP/1 server that gives these answers in turn, and the last one for ever. The body of
/// each is the head of its request.
pub async fn server(statuses: &[u16]) -> (SocketAddr, Rc<RefCell<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("bound");
    let seen = Rc::new(RefCell::new(Vec::new()));
    let heads = seen.clone();
    let statuses = Rc::new(statuses.to_vec());
    spawn_local(async move {
        while let Ok((mut io, _)) = listener.accept().await {
            let (heads, statuses) = (heads.clone(), statuses.clone());
            spawn_local(async move {
                while let Some(head) = read_head(&mut io).await {
                    let turn = heads.borrow().len().min(statuses.len() - 1);
                    let status = statuses[turn];
                    heads.borrow_mut().push(head.clone());
                    let length = head.len();
                    let answer =
                        format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\n\r\n{head}");
                    if io.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (addr, seen)
}

/// Run a test on one thread, as a shard does.
pub async fn local<T>(test: impl Future<Output = T>) -> T {
    LocalSet::new().run_until(test).await
}

/// A field of a head.
pub fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

async fn read_head(io: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

pub async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("bound");
    let (one, other) = tokio::join!(TcpStream::connect(addr), listener.accept());
    (one.expect("connected"), other.expect("accepted").0)
}

fn config(extra: &[(&str, &str)]) -> Config {
    let mut variables: HashMap<&str, &str> = [
        ("DESTINATION_SVC_ADDR", "control:1"),
        ("DESTINATION_SVC_NAME", "control"),
        ("POLICY_SVC_ADDR", "control:1"),
        ("POLICY_SVC_NAME", "control"),
        ("IDENTITY_SVC_ADDR", "127.0.0.1:8080"),
        ("POLICY_WORKLOAD", "workload"),
        ("DESTINATION_PROFILE_NETWORKS", "10.0.0.0/8"),
        ("DESTINATION_PROFILE_SUFFIXES", "svc.cluster.local."),
        ("IDENTITY_TOKEN_FILE", "/token"),
        ("IDENTITY_TRUST_ANCHORS", "-----BEGIN CERTIFICATE-----"),
        ("IDENTITY_LOCAL_NAME", "web.shop"),
    ]
    .into();
    variables.extend(extra.iter().copied());
    let lookup =
        |name: &str| Some((*variables.get(name.strip_prefix("LINKERD2_PROXY_")?)?).to_owned());
    Config::from_env(lookup).expect("a valid configuration")
}

//! The command line, read once into typed values.

use std::{net::SocketAddr, str::FromStr, time::Duration};

use anyhow::{Context, bail};
use bytes::Bytes;

/// What a mistake is answered with.
pub const HELP: &str = "\
Usage: tulle-load origin [--http1 ADDRESS]… [--grpc ADDRESS]… [--tcp ADDRESS]… [--slow ADDRESS --slow-ms MS]
       tulle-load run --protocol http1|grpc|tcp --target ADDRESS [OPTIONS]
       tulle-load watch --target ADDRESS --path PATH --message HEX --subscribers N

origin answers with as many bytes as the request asks for. SIGUSR1 makes the HTTP/1 server at --slow wait
before each answer, SIGUSR2 ends that.

run prints {\"event\":\"begin\"} and {\"event\":\"end\"} around what it measures and one JSON line at the end.
  --connections N   each with one request at a time [1]
  --rate R          requests per second, Poisson arrivals; without it each connection is always busy
  --seconds S       how long to measure [5]
  --warmup S        how long to run before that [1]
  --requests N      end after so many requests; nothing is left out as warm-up
  --body BYTES      of each answer [1024]
  --no-keepalive    a new connection for each request
  --idle N          hold so many more connections, each after one request
  --host NAME       the name to ask for [the target]
  --seed N          of the arrivals [1]

watch opens so many connections with the same gRPC stream on each, and prints when messages have reached all.
";

/// What to do.
#[derive(Debug, PartialEq)]
pub enum Command {
    /// Answer requests.
    Origin(Listen),
    /// Make requests.
    Run(Load),
    /// Follow a stream.
    Watch(Watch),
}

/// Which stream to follow.
#[derive(Debug, PartialEq)]
pub struct Watch {
    /// Whom to ask.
    pub target: SocketAddr,
    /// The gRPC method.
    pub path: String,
    /// The request with its prefix.
    pub message: Bytes,
    /// How many follow it.
    pub subscribers: usize,
}

/// Where the origin listens.
#[derive(Debug, Default, PartialEq)]
pub struct Listen {
    /// HTTP/1.1.
    pub http1: Vec<SocketAddr>,
    /// gRPC over HTTP/2 with prior knowledge.
    pub grpc: Vec<SocketAddr>,
    /// Requests and answers that begin with their length.
    pub tcp: Vec<SocketAddr>,
    /// Which of the HTTP/1 servers can be slow.
    pub slow: Option<SocketAddr>,
    /// How slow.
    pub delay: Duration,
}

/// The protocol between generator and origin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// gRPC: one unary call at a time on an HTTP/2 connection.
    Grpc,
    /// Bytes that no proxy knows.
    Tcp,
}

/// What the generator does.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    /// How to ask.
    pub protocol: Protocol,
    /// Whom to ask.
    pub target: SocketAddr,
    /// The authority of a request.
    pub host: String,
    /// How many requests may be under way at once.
    pub connections: usize,
    /// Arrivals per second; none means as fast as the answers come.
    pub rate: Option<f64>,
    /// The measured time.
    pub measured: Duration,
    /// The time before it.
    pub warmup: Duration,
    /// Where the run ends by number instead of by time.
    pub requests: Option<u64>,
    /// The size of an answer's body.
    pub body: usize,
    /// Whether a connection carries more than one request.
    pub keepalive: bool,
    /// Connections that are only held.
    pub idle: usize,
    /// Seeds the arrivals.
    pub seed: u64,
}

impl Command {
    /// Read the arguments after the program's name.
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        match arguments.next().as_deref() {
            Some("origin") => origin(arguments).map(Self::Origin),
            Some("run") => load(arguments).map(Self::Run),
            Some("watch") => watch(arguments).map(Self::Watch),
            Some(other) => bail!("{other:?} is none of origin, run and watch"),
            None => bail!("what to do is missing"),
        }
    }
}

fn origin(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<Listen> {
    let mut listen = Listen::default();
    while let Some(flag) = arguments.next() {
        match flag.as_str() {
            "--http1" => listen.http1.push(value(&flag, &mut arguments)?),
            "--grpc" => listen.grpc.push(value(&flag, &mut arguments)?),
            "--tcp" => listen.tcp.push(value(&flag, &mut arguments)?),
            "--slow" => listen.slow = Some(value(&flag, &mut arguments)?),
            "--slow-ms" => listen.delay = Duration::from_millis(value(&flag, &mut arguments)?),
            _ => bail!("unknown flag {flag}"),
        }
    }
    Ok(listen)
}

fn load(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<Load> {
    let (mut protocol, mut target, mut host) = (None, None, None);
    let mut load = Load {
        protocol: Protocol::Http1,
        target: SocketAddr::from(([127, 0, 0, 1], 0)),
        host: String::new(),
        connections: 1,
        rate: None,
        measured: Duration::from_secs(5),
        warmup: Duration::from_secs(1),
        requests: None,
        body: 1024,
        keepalive: true,
        idle: 0,
        seed: 1,
    };
    while let Some(flag) = arguments.next() {
        match flag.as_str() {
            "--protocol" => protocol = Some(value(&flag, &mut arguments)?),
            "--target" => target = Some(value(&flag, &mut arguments)?),
            "--host" => host = Some(value(&flag, &mut arguments)?),
            "--connections" => load.connections = value(&flag, &mut arguments)?,
            "--rate" => load.rate = Some(value(&flag, &mut arguments)?),
            "--seconds" => load.measured = seconds(&flag, &mut arguments)?,
            "--warmup" => load.warmup = seconds(&flag, &mut arguments)?,
            "--requests" => load.requests = Some(value(&flag, &mut arguments)?),
            "--body" => load.body = value(&flag, &mut arguments)?,
            "--no-keepalive" => load.keepalive = false,
            "--idle" => load.idle = value(&flag, &mut arguments)?,
            "--seed" => load.seed = value(&flag, &mut arguments)?,
            _ => bail!("unknown flag {flag}"),
        }
    }
    load.protocol = protocol.context("--protocol is missing")?;
    load.target = target.context("--target is missing")?;
    load.host = host.unwrap_or_else(|| load.target.to_string());
    if load.requests.is_some() {
        load.warmup = Duration::ZERO;
    }
    if load
        .rate
        .is_some_and(|rate| !(rate.is_finite() && rate > 0.0))
    {
        bail!("--rate must be above zero");
    }
    Ok(load)
}

fn watch(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<Watch> {
    let (mut target, mut path, mut message, mut subscribers) = (None, None, None, None);
    while let Some(flag) = arguments.next() {
        match flag.as_str() {
            "--target" => target = Some(value(&flag, &mut arguments)?),
            "--path" => path = Some(value(&flag, &mut arguments)?),
            "--message" => message = Some(grpc_message(&value::<String>(&flag, &mut arguments)?)?),
            "--subscribers" => subscribers = Some(value(&flag, &mut arguments)?),
            _ => bail!("unknown flag {flag}"),
        }
    }
    Ok(Watch {
        target: target.context("--target is missing")?,
        path: path.context("--path is missing")?,
        message: message.context("--message is missing")?,
        subscribers: subscribers.context("--subscribers is missing")?,
    })
}

/// Decode a message written as hexadecimal digits and put its prefix before it.
fn grpc_message(digits: &str) -> anyhow::Result<Bytes> {
    let body = digits
        .as_bytes()
        .chunks(2)
        .map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?))
        .collect::<anyhow::Result<Vec<u8>>>()
        .context("--message must be hexadecimal digits")?;
    let length = u32::try_from(body.len())?.to_be_bytes();
    Ok([&[0], &length[..], &body].concat().into())
}

impl FromStr for Protocol {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "http1" => Ok(Self::Http1),
            "grpc" => Ok(Self::Grpc),
            "tcp" => Ok(Self::Tcp),
            _ => bail!("{text:?} is none of http1, grpc and tcp"),
        }
    }
}

fn value<T>(flag: &str, arguments: &mut impl Iterator<Item = String>) -> anyhow::Result<T>
where
    T: FromStr,
    T::Err: std::fmt::Display,
{
    let text = arguments
        .next()
        .with_context(|| format!("{flag} needs a value"))?;
    text.parse()
        .map_err(|error| anyhow::anyhow!("{flag}: {text:?}: {error}"))
}

fn seconds(flag: &str, arguments: &mut impl Iterator<Item = String>) -> anyhow::Result<Duration> {
    let number: f64 = value(flag, arguments)?;
    Duration::try_from_secs_f64(number).with_context(|| format!("{flag}: {number} is no time"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> anyhow::Result<Command> {
        Command::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn a_run_by_number_has_no_warm_up() {
        let Ok(Command::Run(load)) =
            parse("run --protocol grpc --target 127.0.0.1:80 --requests 9")
        else {
            panic!("the line is valid");
        };

        assert_eq!(load.requests, Some(9));
        assert_eq!(load.warmup, Duration::ZERO);
        assert_eq!(load.host, "127.0.0.1:80");
    }

    #[test]
    fn a_message_gets_the_prefix_of_grpc() {
        let message = grpc_message("0aff").unwrap();

        assert_eq!(message.as_ref(), [0, 0, 0, 0, 2, 0x0a, 0xff]);
    }

    #[test]
    fn a_mistake_names_its_flag() {
        for (line, named) in [
            ("run --target 127.0.0.1:80", "--protocol"),
            ("run --protocol http1 --target web:80", "--target"),
            (
                "run --protocol http1 --target 127.0.0.1:80 --rate 0",
                "--rate",
            ),
            ("origin --http1", "--http1"),
        ] {
            let error = parse(line).unwrap_err().to_string();

            assert!(error.contains(named), "{error}");
        }
    }
}

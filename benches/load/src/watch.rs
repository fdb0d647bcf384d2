//! Many subscribers of one gRPC stream: when did each of them get each message?
//!
//! One connection per subscriber, as proxies have. Messages are counted and not read; every subscriber gets the
//! same ones in the same order. For each message that all have got, one line of JSON says when (in nanoseconds of
//! the wall clock, so that whoever caused the message can subtract when that was).

use std::{cell::RefCell, io::Write as _, rc::Rc, time::SystemTime};

use anyhow::{Context as _, bail};
use bytes::{Buf as _, Bytes, BytesMut};
use http::{Method, Request};
use tokio::{net::TcpStream, sync::Semaphore, task::JoinSet};

use crate::{
    arguments::Watch,
    wire::{CONNECTION_WINDOW, GRPC_PREFIX, STREAM_WINDOW, word},
};

/// More at once overflow the server's queue.
const CONNECTING: usize = 32;

/// Arrival times by message, until all subscribers have it.
struct Arrivals {
    subscribers: usize,
    done: usize,
    waiting: Vec<Vec<u128>>,
}

/// Subscribe until the process is ended.
pub async fn run(watch: Watch) -> anyhow::Result<()> {
    let watch = Rc::new(watch);
    let connecting = Rc::new(Semaphore::new(CONNECTING));
    let arrivals = Rc::new(RefCell::new(Arrivals {
        subscribers: watch.subscribers,
        done: 0,
        waiting: Vec::new(),
    }));
    let mut tasks = JoinSet::new();
    for _ in 0..watch.subscribers {
        tasks.spawn_local(subscribe(
            watch.clone(),
            connecting.clone(),
            arrivals.clone(),
        ));
    }
    match tasks.join_next().await {
        Some(ended) => ended?,
        None => bail!("there is no subscriber"),
    }
}

async fn subscribe(
    watch: Rc<Watch>,
    connecting: Rc<Semaphore>,
    arrivals: Rc<RefCell<Arrivals>>,
) -> anyhow::Result<()> {
    let permit = connecting.acquire().await?;
    let stream = TcpStream::connect(watch.target).await?;
    stream.set_nodelay(true)?;
    let (send, connection) = h2::client::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .handshake::<_, Bytes>(stream)
        .await?;
    tokio::task::spawn_local(connection);
    let mut send = send.ready().await?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("http://{}{}", watch.target, watch.path))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    let (answer, mut body) = send.send_request(request, false)?;
    body.send_data(watch.message.clone(), true)?;
    let mut body = answer.await?.into_body();
    let mut permit = Some(permit);
    let (mut rest, mut number) = (BytesMut::new(), 0);
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        rest.extend_from_slice(&data);
        while let Some(whole) = message_length(&rest).filter(|whole| *whole <= rest.len()) {
            rest.advance(whole);
            permit.take();
            arrivals.borrow_mut().arrived(number)?;
            number += 1;
        }
    }
    let status = body
        .trailers()
        .await?
        .context("the stream ended without a status")?;
    bail!(
        "the stream ended: {:?} {:?}",
        status.get("grpc-status"),
        status.get("grpc-message")
    )
}

fn message_length(bytes: &[u8]) -> Option<usize> {
    (bytes.len() >= GRPC_PREFIX).then(|| GRPC_PREFIX + word(&bytes[1..]))
}

impl Arrivals {
    fn arrived(&mut self, number: usize) -> anyhow::Result<()> {
        let at = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)?
            .as_nanos();
        if self.waiting.len() <= number {
            self.waiting.resize_with(number + 1, Vec::new);
        }
        self.waiting[number].push(at);
        if self.waiting[number].len() == self.subscribers {
            // In the order of arrival already.
            let times = std::mem::take(&mut self.waiting[number]);
            let last = times.len() - 1;
            println!(
                "{{\"event\":\"message\",\"number\":{},\"first_ns\":{},\"p50_ns\":{},\"p99_ns\":{},\"last_ns\":{}}}",
                self.done,
                times[0],
                times[last / 2],
                times[last * 99 / 100],
                times[last]
            );
            std::io::stdout().flush()?;
            self.done += 1;
        }
        Ok(())
    }
}

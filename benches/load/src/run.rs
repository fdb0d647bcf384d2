//! One measurement: connect, warm up, measure, sum up.

use std::{cell::RefCell, io::Write as _, rc::Rc, time::Duration};

use anyhow::bail;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    arguments::Load,
    client::{Client, Scratch},
    record::Record,
    schedule::{Arrivals, Schedule},
};

/// What is under way at the end may take so long, else it counts as failed.
const DRAIN: Duration = Duration::from_secs(2);
/// After a failure, lest a refusing server makes the closed loop spin.
const PAUSE: Duration = Duration::from_millis(10);
/// A proxy that is just starting may still be refusing.
const CONNECT: Duration = Duration::from_secs(20);
/// More at once overflow the listeners' queues.
const CONNECTING: usize = 32;

struct Shared {
    load: Load,
    schedule: Schedule,
    record: RefCell<Record>,
    scratch: Scratch,
    connecting: Semaphore,
    connected: Semaphore,
}

/// Run one measurement and print it.
pub async fn run(load: Load) -> anyhow::Result<()> {
    let (measured, warmup, connections) = (load.measured, load.warmup, load.connections);
    let shared = Rc::new(Shared {
        schedule: Schedule::new(load.rate.is_some(), load.requests),
        record: RefCell::default(),
        scratch: Scratch::new(),
        connecting: Semaphore::new(CONNECTING),
        connected: Semaphore::new(0),
        load,
    });
    let idle = hold(&shared).await?;

    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        tasks.spawn_local(connection(shared.clone()));
    }
    let all = shared.connected.acquire_many(u32::try_from(connections)?);
    if timeout(CONNECT, all).await.is_err() {
        bail!(
            "not all connections to {} could be opened",
            shared.load.target
        );
    }

    if let Some(rate) = shared.load.rate {
        let arrivals = Arrivals::new(Instant::now(), rate, shared.load.seed);
        let shared = shared.clone();
        tokio::task::spawn_local(async move { shared.schedule.pace(arrivals).await });
    }
    if shared.load.requests.is_some() {
        shared.record.borrow_mut().begin(Instant::now());
        say("begin");
        shared.schedule.begin(connections);
        // A connection ends when no request is left.
        while tasks.join_next().await.is_some() {}
        shared.record.borrow_mut().end(Instant::now());
        say("end");
    } else {
        shared.schedule.begin(if shared.load.rate.is_none() {
            connections
        } else {
            0
        });
        sleep(warmup).await;
        shared.record.borrow_mut().begin(Instant::now());
        say("begin");
        sleep(measured).await;
        shared.record.borrow_mut().end(Instant::now());
        say("end");
        let unsent = shared.schedule.end();
        let drained = timeout(DRAIN, async { while tasks.join_next().await.is_some() {} }).await;
        let late = if drained.is_err() { tasks.len() } else { 0 };
        shared.record.borrow_mut().unsent(unsent + late);
    }
    drop(idle);
    println!("{}", shared.record.take().summary());
    Ok(())
}

/// Open the connections that are only held, each with one request behind it.
async fn hold(shared: &Rc<Shared>) -> anyhow::Result<Vec<Client>> {
    let mut opening = JoinSet::new();
    for _ in 0..shared.load.idle {
        let shared = shared.clone();
        opening.spawn_local(async move {
            let permit = shared.connecting.acquire().await?;
            let mut client = Client::connect(&shared.load, &shared.scratch).await?;
            client.request().await?;
            drop(permit);
            anyhow::Ok(client)
        });
    }
    let mut held = Vec::with_capacity(shared.load.idle);
    while let Some(opened) = opening.join_next().await {
        held.push(opened??);
    }
    Ok(held)
}

async fn connection(shared: Rc<Shared>) -> anyhow::Result<()> {
    let mut client = None;
    if shared.load.keepalive {
        client = Some(first(&shared).await);
    }
    shared.connected.add_permits(1);
    while let Some(due) = shared.schedule.next().await {
        match answer(&mut client, &shared).await {
            Ok(bytes) => shared
                .record
                .borrow_mut()
                .answered(due, Instant::now(), bytes),
            Err(error) => {
                shared
                    .record
                    .borrow_mut()
                    .failed(due, &format!("{error:#}"));
                client = None;
                sleep(PAUSE).await;
            }
        }
    }
    Ok(())
}

/// Connect before anything is due; the server may only just be starting.
async fn first(shared: &Shared) -> Client {
    loop {
        let permit = shared.connecting.acquire().await;
        if let Ok(client) = Client::connect(&shared.load, &shared.scratch).await {
            return client;
        }
        drop(permit);
        sleep(PAUSE).await;
    }
}

async fn answer(client: &mut Option<Client>, shared: &Shared) -> anyhow::Result<usize> {
    if let Some(connected) = client
        && !connected.reusable().await
    {
        *client = None;
    }
    let connected = match client {
        Some(connected) => connected,
        None => client.insert(Client::connect(&shared.load, &shared.scratch).await?),
    };
    let bytes = connected.request().await?;
    if !shared.load.keepalive {
        *client = None;
    }
    Ok(bytes)
}

fn say(event: &str) {
    println!("{{\"event\":\"{event}\"}}");
    // Whoever reads this samples the proxies' CPU time now; without a reader it goes nowhere.
    let _ = std::io::stdout().flush();
}

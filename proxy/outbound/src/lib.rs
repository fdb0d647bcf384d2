//! Serves the connections that the local application opens.
//!
//! The phases: where was it going → what is known of that destination → which protocol does
//! it speak → which backend → which endpoint. Requests are balanced one by one, other
//! connections as a whole. Nothing here knows the inbound half.

mod balancer;
mod budget;
mod connections;
mod connector;
mod destination;
mod http;
mod ingress;
mod judge;
mod labels;
mod mirror;
mod node;
mod observe;
mod plan;
mod profile;
mod retry;
mod serve;
mod shard;
mod tcp;
mod watched;

use std::{net::SocketAddr, rc::Rc, time::Duration};

use tokio::net::TcpStream;
use tulle_core::{Reason, Refusal};
use tulle_telemetry::Counted;
use tulle_transport::{Accepted, Prefixed};

pub use crate::shard::{Parts, Shard};

/// How long a connection waits for the first word about its destination. The stock proxy
/// waits for ever; a client that is told has a chance to try again.
const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(10);

/// Serve one connection until it ends.
pub async fn serve(shard: Rc<Shard>, accepted: Accepted) {
    let Accepted {
        io,
        peer,
        local,
        orig_dst,
    } = accepted;
    let target = orig_dst.unwrap_or(local);
    if let Err(refusal) = accept(&shard, io, peer, local, target).await {
        shard.connection_refused(&refusal, peer, target);
    }
}

async fn accept(
    shard: &Rc<Shard>,
    io: TcpStream,
    peer: SocketAddr,
    local: SocketAddr,
    target: SocketAddr,
) -> Result<(), Refusal> {
    if target == local {
        return Err(loops());
    }
    shard.refuse_loop(target)?;
    let client = Prefixed::new(Counted::new(io, shard.accepted_metrics(target)));
    let destination = shard.destination(target);
    let serving = async {
        let compiled = destination.ready(DISCOVERY_TIMEOUT).await?;
        serve::serve(shard, &destination, compiled, client, peer).await
    };
    let served = serving.await;
    served.map_err(|refusal: Refusal| refusal.by(&destination.resource()))
}

fn loops() -> Refusal {
    Refusal::new(Reason::Loop, "the connection would come back to this proxy")
}

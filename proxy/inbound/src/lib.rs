//! Serves the connections that arrive for the local application.
//!
//! The phases run in an order that is a security property: where was it going → what does
//! policy say of that port → is it the mesh's TLS → which protocol → authorize → forward.
//! Nothing reaches the application before `authorize` has returned a `Permit`, and what is
//! not known refuses. Nothing here knows the outbound half.

mod accept;
mod application;
mod detection;
mod http;
mod live;
mod observe;
mod port;
mod protocol;
mod shard;
mod tcp;
mod watched;

use std::rc::Rc;

use tulle_transport::Accepted;

pub use crate::shard::{Parts, Shard};

/// Serve one connection until it ends.
pub async fn serve(shard: Rc<Shard>, accepted: Accepted) {
    let Accepted {
        io,
        peer,
        local,
        orig_dst,
    } = accepted;
    let target = orig_dst.unwrap_or(local);
    // In a box, because it takes more room than an idle connection does afterwards.
    let accepting = Box::pin(accept::accept(&shard, io, peer, target));
    match accepting.await {
        Ok(None) => {}
        Ok(Some(http1)) => http1.serve(&shard).await,
        Err(refusal) => shard.connection_refused(&refusal, peer, target),
    }
}

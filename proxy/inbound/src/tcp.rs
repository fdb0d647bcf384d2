//! Connections that are forwarded as bytes, authorized for as long as they live.

use std::{rc::Rc, sync::Arc};

use tokio::net::TcpStream;
use tulle_core::{Reason, Refusal};
use tulle_policy::{Permit, inbound::ServerPolicy};
use tulle_telemetry::Counted;
use tulle_transport::{Ended, Prefixed, duplex, reset_on_drop};

use crate::{
    Shard,
    accept::{Client, Peer},
    port::Port,
};

/// A connection to the application.
pub(crate) type Leg = Prefixed<Counted<TcpStream>>;

/// Connect to the application; the permit is what makes that allowed.
pub(crate) async fn open(port: &Port, _permit: Permit) -> Result<Leg, Refusal> {
    Ok(Prefixed::new(port.application.open().await?))
}

/// Authorize, connect and copy.
///
/// # Errors
/// Where the client is not admitted, or no longer, or the application cannot be reached.
pub(crate) async fn forward(
    shard: &Rc<Shard>,
    port: &Rc<Port>,
    policy: Arc<ServerPolicy>,
    peer: &Peer,
    client: Client,
) -> Result<(), Refusal> {
    let permit = policy.authorize_connection(peer.address.ip(), &peer.tls);
    let permit = permit.inspect_err(|_| {
        port.count_connection(shard, &peer.tls, "inbound_tcp_authz_deny");
    })?;
    let leg = open(port, permit).await?;
    copy(shard, port, policy, peer, client, leg).await
}

/// Copy until both sides have ended, a policy takes the permit back, or the grace of a
/// shutdown is over. What ends before its end is a reset for both: neither may take what it
/// got for everything.
///
/// # Errors
/// Where a policy took the permit back.
pub(crate) async fn copy(
    shard: &Rc<Shard>,
    port: &Rc<Port>,
    policy: Arc<ServerPolicy>,
    peer: &Peer,
    mut client: Client,
    mut leg: Leg,
) -> Result<(), Refusal> {
    port.count_connection(shard, &peer.tls, "inbound_tcp_authz_allow");
    let drain = shard.drain.handle();
    let revoked = async {
        tokio::select! {
            refusal = revoked(port, policy, peer) => {
                port.count_connection(shard, &peer.tls, "inbound_tcp_authz_terminate");
                refusal
            }
            () = drain.closed() => {
                Refusal::new(Reason::Draining, "the grace of the shutdown is over")
            }
        }
    };
    let ended = duplex(&mut client, &mut leg, &(), revoked).await;
    if !matches!(ended, Ended::Complete) {
        client.get_ref().get_ref().reset_on_drop();
        reset_on_drop(leg.get_ref().get_ref());
    }
    match ended {
        Ended::Complete => Ok(()),
        Ended::Cancelled(refusal) => Err(refusal),
        Ended::Failed(side, error) => {
            tracing::debug!(?side, %error, target = %port.target, "connection broke");
            Ok(())
        }
    }
}

/// Wait until a policy no longer admits the client.
async fn revoked(port: &Port, mut policy: Arc<ServerPolicy>, peer: &Peer) -> Refusal {
    loop {
        policy = port.policy_after(&policy).await;
        let permit = policy.authorize_connection(peer.address.ip(), &peer.tls);
        if let Err(mut refusal) = permit {
            if refusal.reason == Reason::Unauthorized {
                refusal.reason = Reason::Revoked;
            }
            return refusal;
        }
    }
}

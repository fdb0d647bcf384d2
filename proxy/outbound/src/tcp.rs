//! Connections that are balanced as a whole.

use std::rc::Rc;

use tulle_core::{Reason, Refusal};
use tulle_policy::outbound::Protocol;
use tulle_telemetry::Counted;
use tulle_tls::Io;
use tulle_transport::{Ended, Prefixed, duplex, reset_on_drop};

use crate::{Shard, balancer::Node, destination::Compiled, serve::Client};

/// A connection to an endpoint; it counts towards the endpoint's load while it lives.
pub(crate) type Leg = Prefixed<Counted<Io, Load>>;

/// One connection's share of an endpoint's load.
pub(crate) struct Load(Rc<Node>);

impl Load {
    fn start(node: Rc<Node>) -> Self {
        node.load.start();
        Self(node)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.load.finish();
    }
}

/// Open a leg to an endpoint of the opaque route.
///
/// # Errors
/// Where the route forbids it, or no endpoint can be reached for the fail-fast time.
pub(crate) async fn open(shard: &Shard, compiled: &Compiled) -> Result<Leg, Refusal> {
    let rule = match &compiled.policy.protocol {
        Protocol::Opaque(routes) | Protocol::Detect { opaque: routes, .. } => routes.find()?,
        // The name that the client asks for is not looked at yet: the route of no name.
        Protocol::Tls(routes) => routes.find(None)?,
        _ => {
            return Err(Refusal::new(
                Reason::ProtocolUnknown,
                "the destination speaks HTTP only",
            ));
        }
    };
    let (chosen, balancer) = compiled.backend(&rule.distribution)?;
    if let Some(filter) = chosen.filters.first() {
        return Err(filter.refusal());
    }
    let queue = shard.config.outbound.tcp_queue_capacity;
    loop {
        let node = balancer.choose(queue).await?;
        let load = Load::start(node.clone());
        match node.connector.open_measured(&node.load).await {
            Ok(connection) => {
                node.gate.succeeded();
                return Ok(Prefixed::new(connection.guarding(load)));
            }
            Err(refusal) => shard.put_aside(&node, &refusal),
        }
    }
}

/// Open a leg and copy.
pub(crate) async fn forward(
    shard: &Shard,
    compiled: &Compiled,
    client: Client,
) -> Result<(), Refusal> {
    let leg = open(shard, compiled).await?;
    copy(shard, client, leg).await;
    Ok(())
}

/// Copy until both sides have ended or the grace of a shutdown is over. What ends before its
/// end is a reset for both: neither may take what it got for everything.
pub(crate) async fn copy(shard: &Shard, mut client: Client, mut leg: Leg) {
    let drain = shard.drain.handle();
    let ended = duplex(&mut client, &mut leg, &(), drain.closed()).await;
    if matches!(ended, Ended::Complete) {
        return;
    }
    reset_on_drop(client.get_ref().get_ref());
    leg.get_ref().get_ref().reset_on_drop();
    if let Ended::Failed(side, error) = ended {
        tracing::debug!(?side, %error, "connection broke");
    }
}

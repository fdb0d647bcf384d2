//! Connections that are balanced as a whole.

use std::{net::SocketAddr, rc::Rc};

use tokio::time::timeout;
use tulle_core::{Reason, Refusal};
use tulle_policy::outbound::{Protocol, TcpRule};
use tulle_telemetry::Counted;
use tulle_tls::{Begins, HelloParser, Io};
use tulle_transport::{Ended, Prefixed, duplex, fill, reset_on_drop};

use crate::{Shard, balancer::Traffic, destination::Compiled, node::Node, serve::Client};

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

/// Where a connection that is not HTTP goes.
struct Way<'a> {
    traffic: Traffic,
    rule: &'a TcpRule,
}

impl<'a> Way<'a> {
    /// # Errors
    /// Where no route takes it, or the route forbids it.
    fn find(compiled: &'a Compiled, sni: Option<&str>) -> Result<Self, Refusal> {
        let (traffic, rule) = match &compiled.policy.protocol {
            Protocol::Opaque(routes) | Protocol::Detect { opaque: routes, .. } => {
                (Traffic::Tcp, routes.find()?)
            }
            Protocol::Tls(routes) => (Traffic::Tls, routes.find(sni)?),
            _ => {
                return Err(Refusal::new(
                    Reason::ProtocolUnknown,
                    "the destination speaks HTTP only",
                ));
            }
        };
        Ok(Self { traffic, rule })
    }

    /// # Errors
    /// Where a filter forbids it, or no endpoint can be reached for the fail-fast time.
    async fn open(&self, shard: &Shard, compiled: &Compiled) -> Result<Leg, Refusal> {
        let (chosen, balancer) = compiled.backend_for(self.traffic, &self.rule.distribution)?;
        if let Some(filter) = chosen.filters.first() {
            return Err(filter.refusal());
        }
        let queue = shard.config.outbound.tcp_queue_capacity;
        loop {
            let node = balancer.choose(queue).await?;
            let load = Load::start(node.clone());
            match node.connector.open_measured(&node.load).await {
                Ok(connection) => {
                    node.reached();
                    return Ok(Prefixed::new(connection.guarding(load)));
                }
                Err(refusal) => shard.put_aside(&node, &refusal),
            }
        }
    }
}

/// Open a leg to an endpoint of the opaque route, to learn whether the server speaks first.
///
/// # Errors
/// Where the route forbids it, or no endpoint can be reached for the fail-fast time.
pub(crate) async fn open(shard: &Shard, compiled: &Compiled) -> Result<Leg, Refusal> {
    Way::find(compiled, None)?.open(shard, compiled).await
}

/// The stock proxy's words for why a route's connection could not be made.
const fn error_label(refusal: &Refusal) -> &'static str {
    match refusal.reason {
        Reason::Unauthorized => "forbidden",
        Reason::BackendInvalid => "invalid_backend",
        Reason::PolicyInvalid => "invalid_policy",
        _ => "unexpected",
    }
}

/// Copy over the leg that there is, or a new one.
pub(crate) async fn forward(
    shard: &Shard,
    compiled: &Compiled,
    target: SocketAddr,
    client: Client,
    leg: Option<Leg>,
) -> Result<(), Refusal> {
    let way = Way::find(compiled, None)?;
    go(shard, compiled, target, client, way, (None, leg)).await
}

/// Read which server a TLS client asks for, open a leg by that name and copy all of it.
pub(crate) async fn forward_tls(
    shard: &Shard,
    compiled: &Compiled,
    target: SocketAddr,
    mut client: Client,
) -> Result<(), Refusal> {
    let limit = shard.config.outbound.detect_timeout;
    let asked = match timeout(limit, server_name(&mut client)).await {
        Ok(asked) => asked?,
        // Who says nothing asks for no name.
        Err(_) => None,
    };
    let way = Way::find(compiled, asked.as_deref())?;
    go(
        shard,
        compiled,
        target,
        client,
        way,
        (asked.as_deref(), None),
    )
    .await
}

async fn go(
    shard: &Shard,
    compiled: &Compiled,
    target: SocketAddr,
    client: Client,
    way: Way<'_>,
    (sni, leg): (Option<&str>, Option<Leg>),
) -> Result<(), Refusal> {
    let route = &way.rule.meta;
    let mut counted = compiled.connections(way.traffic, route, target, sni).open();
    let leg = match leg {
        Some(leg) => leg,
        None => way.open(shard, compiled).await.inspect_err(|refusal| {
            counted.fail(error_label(refusal));
        })?,
    };
    copy(shard, client, leg).await;
    Ok(())
}

/// The name in the client's hello; what has been read of it stays to be read.
async fn server_name(client: &mut Client) -> Result<Option<String>, Refusal> {
    let mut parser = HelloParser::default();
    let lost = |error: &dyn std::error::Error| {
        let message = format!("the client's hello cannot be read: {error}");
        Refusal::new(Reason::ConnectionLost, message)
    };
    loop {
        let begins = parser.look(client.prefix());
        match begins.map_err(|error| lost(&error))? {
            Some(Begins::Tls { sni }) => return Ok(sni),
            Some(Begins::Plain) => return Ok(None),
            None => {}
        }
        if !fill(client).await.map_err(|error| lost(&error))? {
            return Ok(None);
        }
    }
}

/// Copy until both sides have ended or the grace of a shutdown is over. What ends before its
/// end is a reset for both: neither may take what it got for everything.
async fn copy(shard: &Shard, mut client: Client, mut leg: Leg) {
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

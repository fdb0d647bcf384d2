use std::{net::SocketAddr, pin::pin};

use tokio::net::{TcpListener, TcpStream};
use tracing::error;
use tulle_config::Config;
use tulle_core::Direction;
use tulle_http::Drain;
use tulle_transport::{Accepted, AcceptedOptions, ListenOptions, accept, listen};

use crate::AppError;

/// A connection on its way from the shard that accepted it to the one that serves it.
pub(crate) struct Handed {
    direction: Direction,
    socket: std::net::TcpStream,
    peer: SocketAddr,
    local: SocketAddr,
    orig_dst: Option<SocketAddr>,
    /// Keeps the process alive on the way.
    hold: Drain,
}

impl Handed {
    /// Take the socket out of this shard's reactor.
    pub(crate) fn new(
        direction: Direction,
        accepted: Accepted,
        hold: Drain,
    ) -> std::io::Result<Self> {
        let Accepted {
            io,
            peer,
            local,
            orig_dst,
        } = accepted;
        Ok(Self {
            direction,
            socket: io.into_std()?,
            peer,
            local,
            orig_dst,
            hold,
        })
    }

    /// Put it into this shard's.
    pub(crate) fn take(self) -> std::io::Result<(Direction, Accepted, Drain)> {
        let Self {
            direction,
            socket,
            peer,
            local,
            orig_dst,
            hold,
        } = self;
        let io = TcpStream::from_std(socket)?;
        Ok((
            direction,
            Accepted {
                io,
                peer,
                local,
                orig_dst,
            },
            hold,
        ))
    }
}

/// One port of the data path.
pub(crate) struct Listener {
    pub(crate) direction: Direction,
    socket: TcpListener,
    options: AcceptedOptions,
}

/// Bind all ports of the data path; must be called in the runtime that accepts.
pub(crate) fn bind(config: &Config) -> Result<Vec<Listener>, AppError> {
    let inbound = &config.inbound;
    let mut listeners = vec![Listener {
        direction: Direction::Inbound,
        socket: bind_one(inbound.listen, inbound.backlog)?,
        options: AcceptedOptions {
            keepalive: inbound.accept_keepalive,
            user_timeout: inbound.accept_user_timeout,
        },
    }];
    let outbound = &config.outbound;
    for address in &outbound.listen {
        let socket = match bind_one(*address, outbound.backlog) {
            // A machine without IPv6 has no `::1`, and nothing that would come from there.
            Err(_) if address.is_ipv6() && outbound.listen.len() > 1 => continue,
            result => result?,
        };
        listeners.push(Listener {
            direction: Direction::Outbound,
            socket,
            options: AcceptedOptions {
                keepalive: outbound.accept_keepalive,
                user_timeout: outbound.accept_user_timeout,
            },
        });
    }
    Ok(listeners)
}

fn bind_one(address: SocketAddr, backlog: Option<u32>) -> Result<TcpListener, AppError> {
    let options = ListenOptions {
        backlog,
        ..ListenOptions::default()
    };
    listen(address, &options).map_err(|source| AppError::Listen { address, source })
}

impl Listener {
    /// Accept until the signal to drain or until the listener itself breaks; `take` must not
    /// wait. Who has connected by the time of the signal is still served: the kernel has told
    /// the client that it is, and would reset what waits in the backlog.
    pub(crate) async fn accept(self, take: impl Fn(Direction, Accepted), drain: Drain) {
        let mut signaled = pin!(drain.signaled());
        loop {
            let accepted = tokio::select! {
                biased;
                accepted = accept(&self.socket, &self.options) => accepted,
                () = &mut signaled => return,
            };
            match accepted {
                Ok(accepted) => take(self.direction, accepted),
                Err(error) => {
                    error!(%error, direction = self.direction.label(), "the listener broke");
                    return;
                }
            }
        }
    }
}

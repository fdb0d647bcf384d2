//! HTTP connections that are open, and the end of those that a changed policy shuts out.
//!
//! Each request is authorized when it comes, so a connection whose client is no longer let in
//! anywhere has nothing to wait for; but a response that lasts, such as a stream of events,
//! would go on for as long as it likes.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    pin::pin,
    rc::{Rc, Weak},
    task::{Poll, Waker},
};

use tokio::task::spawn_local;
use tulle_core::{Reason, Refusal};
use tulle_policy::inbound::ServerPolicy;

use crate::{accept::Peer, port::Port};

/// The open HTTP connections of a port, followed by one task for all of them.
#[derive(Default)]
pub(crate) struct Live {
    connections: RefCell<Vec<Weak<Connection>>>,
    followed: Cell<bool>,
}

struct Connection {
    peer: Peer,
    revoked: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// Serve until the connection ends, or its client is let in nowhere any more.
///
/// # Errors
/// `revoked` in the second case; what served the connection is dropped then.
pub(crate) async fn while_admitted<T>(
    port: &Rc<Port>,
    peer: &Peer,
    serving: impl Future<Output = T>,
) -> Result<T, Refusal> {
    let connection = port.live.enter(port, peer);
    let mut serving = pin!(serving);
    poll_fn(|cx| {
        if connection.revoked.get() {
            let what = "a changed policy no longer admits the client";
            return Poll::Ready(Err(Refusal::new(Reason::Revoked, what)));
        }
        connection.wake_by(cx.waker());
        serving.as_mut().poll(cx).map(Ok)
    })
    .await
}

impl Live {
    fn enter(&self, port: &Rc<Port>, peer: &Peer) -> Rc<Connection> {
        let connection = Rc::new(Connection {
            peer: peer.clone(),
            revoked: Cell::new(false),
            waker: RefCell::default(),
        });
        let mut connections = self.connections.borrow_mut();
        if connections.len() == connections.capacity() {
            connections.retain(|connection| connection.strong_count() > 0);
        }
        connections.push(Rc::downgrade(&connection));
        if !self.followed.replace(true) {
            spawn_local(follow(Rc::downgrade(port)));
        }
        connection
    }

    /// Another policy is in force.
    fn judge(&self, policy: &ServerPolicy) {
        let connections = self.connections.borrow();
        for connection in connections.iter().filter_map(Weak::upgrade) {
            let Peer { address, tls } = &connection.peer;
            if !policy.admits(address.ip(), tls) {
                connection.revoked.set(true);
                if let Some(waker) = &*connection.waker.borrow() {
                    waker.wake_by_ref();
                }
            }
        }
    }
}

impl Connection {
    /// A task keeps its waker, so this is mostly one comparison.
    fn wake_by(&self, waker: &Waker) {
        let mut known = self.waker.borrow_mut();
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
    }
}

/// Judge the connections of a port whenever its policy changes, until nobody uses the port.
async fn follow(port: Weak<Port>) {
    let Some(view) = port.upgrade().map(|port| port.view()) else {
        return;
    };
    let mut seen = view.generation();
    loop {
        seen = view.next_generation(seen).await;
        let Some(port) = port.upgrade() else { return };
        if let Ok(policy) = port.policy_now() {
            port.live.judge(&policy);
        }
    }
}

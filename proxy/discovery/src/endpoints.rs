//! What the messages of a stream of endpoints add up to.
//!
//! The set outlives its stream: until the next stream's first `add` it stays as it is, and
//! that `add` replaces it. Nothing but the control plane's word makes a set empty.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use tulle_api::{
    destination::{AddrSet, Update, WeightedAddrSet, update},
    net::TcpAddress,
};
use tulle_core::Endpoint;
use tulle_policy::endpoint_from_proto;

/// The endpoints of a name, sorted by address.
pub type Endpoints = Arc<[Arc<Endpoint>]>;

#[derive(Debug, Default)]
pub(crate) struct EndpointSet {
    /// Absent until the control plane has said something.
    known: Option<Endpoints>,
    /// The next `add` replaces what is known.
    reset: bool,
}

impl EndpointSet {
    pub(crate) const fn is_unknown(&self) -> bool {
        self.known.is_none()
    }

    /// There are none, as far as anybody knows.
    pub(crate) fn clear(&mut self) -> Endpoints {
        Arc::clone(self.known.insert(Arc::new([])))
    }

    /// A new stream begins.
    pub(crate) const fn begin(&mut self) {
        self.reset = true;
    }

    /// Take a message in; return the new set where it differs from the one before.
    pub(crate) fn apply(&mut self, update: Update) -> Option<Endpoints> {
        let next = match update.update? {
            update::Update::Add(set) => self.added(&set)?,
            update::Update::Remove(set) => self.removed(&set)?,
            update::Update::NoEndpoints(_) => Arc::new([]),
        };
        self.reset = false;
        if self.known.as_ref() == Some(&next) {
            return None;
        }
        self.known = Some(Arc::clone(&next));
        Some(next)
    }

    /// An `add` of nothing says nothing, and neither does one of nothing that can be read.
    fn added(&self, set: &WeightedAddrSet) -> Option<Endpoints> {
        let before = self.by_addr();
        let mut next = if self.reset {
            BTreeMap::new()
        } else {
            before.clone()
        };
        let mut any = false;
        for addr in &set.addrs {
            let Some(endpoint) = endpoint_from_proto(addr, &set.metric_labels) else {
                continue;
            };
            any = true;
            // The same one keeps its place in memory, so that balancers recognise it cheaply.
            let same = before
                .get(&endpoint.addr)
                .filter(|known| ***known == endpoint);
            next.insert(
                endpoint.addr,
                same.cloned().unwrap_or_else(|| Arc::new(endpoint)),
            );
        }
        any.then(|| next.into_values().collect())
    }

    /// A stream that begins with `remove` breaks the protocol: there is nothing to remove.
    fn removed(&self, set: &AddrSet) -> Option<Endpoints> {
        if self.reset {
            return None;
        }
        let mut next = self.by_addr();
        for addr in set.addrs.iter().filter_map(socket_addr) {
            next.remove(&addr);
        }
        Some(next.into_values().collect())
    }

    fn by_addr(&self) -> BTreeMap<SocketAddr, Arc<Endpoint>> {
        let known = self.known.iter().flat_map(|known| known.iter());
        known
            .map(|endpoint| (endpoint.addr, Arc::clone(endpoint)))
            .collect()
    }
}

fn socket_addr(addr: &TcpAddress) -> Option<SocketAddr> {
    use tulle_api::net::ip_address::Ip;

    let ip = match addr.ip.as_ref()?.ip.as_ref()? {
        Ip::Ipv4(bits) => std::net::Ipv4Addr::from(*bits).into(),
        Ip::Ipv6(ip) => {
            std::net::Ipv6Addr::from((u128::from(ip.first) << 64) | u128::from(ip.last)).into()
        }
    };
    Some(SocketAddr::new(ip, u16::try_from(addr.port).ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tulle_testkit::messages::{add, endpoint, no_endpoints, remove};

    use super::*;

    #[derive(Clone, Debug)]
    enum Event {
        Begin,
        Add(Vec<u8>),
        Remove(Vec<u8>),
        Empty,
    }

    fn event() -> impl Strategy<Value = Event> {
        let hosts = || proptest::collection::vec(1_u8..6, 0..4);
        prop_oneof![
            Just(Event::Begin),
            Just(Event::Empty),
            hosts().prop_map(Event::Add),
            hosts().prop_map(Event::Remove),
        ]
    }

    fn addr(host: u8) -> String {
        format!("10.0.0.{host}:80")
    }

    proptest! {
        /// Against the plainest telling of the rules.
        #[test]
        fn a_set_is_what_the_control_plane_said_last(events in proptest::collection::vec(event(), 0..40)) {
            let mut set = EndpointSet::default();
            let (mut expected, mut reset) = (std::collections::BTreeSet::new(), false);
            for event in events {
                let before = expected.clone();
                let known = !set.is_unknown();
                let (update, told) = match &event {
                    Event::Begin => {
                        set.begin();
                        reset = true;
                        continue;
                    }
                    Event::Add(hosts) => {
                        if reset && !hosts.is_empty() {
                            expected.clear();
                        }
                        expected.extend(hosts.iter().copied());
                        reset &= hosts.is_empty();
                        (add(hosts.iter().map(|host| endpoint(&addr(*host))).collect()), !hosts.is_empty())
                    }
                    Event::Remove(hosts) => {
                        if !reset {
                            expected.retain(|host| !hosts.contains(host));
                        }
                        let addrs: Vec<_> = hosts.iter().map(|host| addr(*host)).collect();
                        (remove(&addrs.iter().map(String::as_str).collect::<Vec<_>>()), !reset)
                    }
                    Event::Empty => {
                        expected.clear();
                        reset = false;
                        (no_endpoints(), true)
                    }
                };

                let shown = set.apply(update);

                prop_assert_eq!(shown.is_some(), told && (!known || expected != before));
                if let Some(shown) = shown {
                    let shown: Vec<_> = shown.iter().map(|endpoint| endpoint.addr.to_string()).collect();
                    prop_assert_eq!(shown, expected.iter().map(|host| addr(*host)).collect::<Vec<_>>());
                }
            }
        }
    }
}

use std::{
    collections::{BTreeSet, HashSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;
use tulle_core::DefaultPolicy;

use crate::{
    Backoff, Ports, ServerH2, parse,
    reader::{KEEPALIVE, Reader, USER_TIMEOUT},
};

/// What concerns connections that arrive for the local application.
#[derive(Clone, Debug)]
pub struct Inbound {
    /// Where redirected connections arrive.
    pub listen: SocketAddr,
    /// The workload's own addresses; empty means that any target is taken for local.
    pub ips: HashSet<IpAddr>,
    /// Ports whose policy must be known before the proxy is ready. The admin port is one.
    pub ports: BTreeSet<u16>,
    /// Holds for a port of which the control plane says that it knows nothing.
    pub default_policy: DefaultPolicy,
    /// What the default policy's `cluster-*` means.
    pub cluster_networks: Vec<IpNet>,
    /// Opaque under the default policy.
    pub opaque_ports: Ports,
    /// Until the client must have shown its protocol.
    pub detect_timeout: Duration,
    /// To the application.
    pub connect_timeout: Duration,
    /// Between attempts to reach the application.
    pub connect_backoff: Backoff,
    /// TCP keep-alive towards clients; 0 turns it off.
    pub accept_keepalive: Option<Duration>,
    /// `TCP_USER_TIMEOUT` towards clients; 0 leaves it to the system.
    pub accept_user_timeout: Option<Duration>,
    /// TCP keep-alive towards the application; absent: off.
    pub connect_keepalive: Option<Duration>,
    /// `TCP_USER_TIMEOUT` towards the application; absent: the system's.
    pub connect_user_timeout: Option<Duration>,
    /// Of the listening socket; absent: the system's.
    pub backlog: Option<u32>,
    /// Requests that may wait for the application.
    pub queue_capacity: usize,
    /// How long they wait.
    pub failfast: Duration,
    /// Requests in flight before more are shed.
    pub max_in_flight: usize,
    /// Idle HTTP/1 connections kept to one port of the application.
    pub max_idle: usize,
    /// How long they are kept.
    pub pool_idle_timeout: Duration,
    /// HTTP/2 towards clients.
    pub server_h2: ServerH2,
    /// Metrics may carry the authority that a client sent, however many those are.
    pub authority_labels: bool,
}

impl Inbound {
    pub(crate) fn read(reader: &mut Reader<'_>, admin_port: u16) -> Self {
        let default_policy =
            reader.or("INBOUND_DEFAULT_POLICY", DefaultPolicy::default(), |text| {
                DefaultPolicy::from_name(text)
                    .ok_or_else(|| format!("{text:?} is not the name of a default policy"))
            });
        let cluster_networks = reader.or("POLICY_CLUSTER_NETWORKS", Vec::new(), parse::networks);
        if default_policy.needs_cluster_networks() && cluster_networks.is_empty() {
            let problem = format!(
                "is required by the default policy {}",
                default_policy.name()
            );
            reader.mistake("POLICY_CLUSTER_NETWORKS", problem);
        }
        let mut ports: BTreeSet<u16> = reader
            .or("INBOUND_PORTS", Ports::default(), parse::ports)
            .iter()
            .collect();
        ports.insert(admin_port);
        Self {
            listen: reader.or(
                "INBOUND_LISTEN_ADDR",
                SocketAddr::from((Ipv4Addr::UNSPECIFIED, 4143)),
                parse::socket_addr,
            ),
            ips: reader.or("INBOUND_IPS", HashSet::new(), addresses),
            ports,
            default_policy,
            cluster_networks,
            opaque_ports: reader.or(
                "INBOUND_PORTS_DISABLE_PROTOCOL_DETECTION",
                Ports::default(),
                parse::ports,
            ),
            detect_timeout: reader.or(
                "INBOUND_DETECT_TIMEOUT",
                Duration::from_secs(10),
                parse::duration,
            ),
            connect_timeout: reader.or(
                "INBOUND_CONNECT_TIMEOUT",
                Duration::from_millis(300),
                parse::duration,
            ),
            connect_backoff: Backoff::read(reader, "INBOUND", Duration::from_secs(10)),
            accept_keepalive: reader.or_off("INBOUND_ACCEPT_KEEPALIVE", KEEPALIVE),
            accept_user_timeout: reader.or_off("INBOUND_ACCEPT_USER_TIMEOUT", USER_TIMEOUT),
            connect_keepalive: reader.optional("INBOUND_CONNECT_KEEPALIVE", parse::duration),
            connect_user_timeout: reader.optional("INBOUND_CONNECT_USER_TIMEOUT", parse::duration),
            backlog: reader.optional("INBOUND_TCP_LISTEN_BACKLOG", parse::number),
            queue_capacity: reader.or("INBOUND_HTTP_QUEUE_CAPACITY", 10_000, parse::count),
            failfast: reader.or(
                "INBOUND_HTTP_FAILFAST_TIMEOUT",
                Duration::from_secs(1),
                parse::duration,
            ),
            max_in_flight: reader.or("INBOUND_MAX_IN_FLIGHT", 100_000, parse::count),
            max_idle: reader.or("MAX_IDLE_CONNS_PER_ENDPOINT", 10_000, parse::number),
            pool_idle_timeout: reader.or(
                "INBOUND_HTTP1_CONNECTION_POOL_IDLE_TIMEOUT",
                Duration::from_secs(3),
                parse::duration,
            ),
            server_h2: ServerH2::read(reader, "INBOUND"),
            authority_labels: reader.or(
                "INBOUND_METRICS_AUTHORITY_LABELS",
                false,
                |text| match text {
                    "unsafe" => Ok(true),
                    _ => Err(format!(
                        "{text:?} is not \"unsafe\", the only value that it takes"
                    )),
                },
            ),
        }
    }

    /// Whether a connection to this address is for the workload: any is, where its own
    /// addresses are not known.
    #[must_use]
    pub fn is_local(&self, ip: IpAddr) -> bool {
        self.ips.is_empty() || self.ips.contains(&ip)
    }
}

fn addresses(text: &str) -> Result<HashSet<IpAddr>, String> {
    let parse = |item: &str| {
        item.parse::<IpAddr>()
            .map_err(|_| format!("{item:?} is not an address such as 10.0.0.1"))
    };
    Ok(parse::list(text, parse)?.into_iter().collect())
}

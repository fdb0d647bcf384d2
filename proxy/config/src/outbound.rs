use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use crate::{
    Backoff, ClientH2, ServerH2, parse,
    reader::{KEEPALIVE, Reader, USER_TIMEOUT},
};

/// What concerns connections that the local application opens.
#[derive(Clone, Debug)]
pub struct Outbound {
    /// Where redirected connections arrive: one address, or one per family.
    pub listen: Vec<SocketAddr>,
    /// Until the client must have shown its protocol.
    pub detect_timeout: Duration,
    /// To an endpoint.
    pub connect_timeout: Duration,
    /// Between attempts to reach an endpoint.
    pub connect_backoff: Backoff,
    /// TCP keep-alive towards the application; absent: off.
    pub accept_keepalive: Option<Duration>,
    /// `TCP_USER_TIMEOUT` towards the application; absent: the system's.
    pub accept_user_timeout: Option<Duration>,
    /// TCP keep-alive towards endpoints; 0 turns it off.
    pub connect_keepalive: Option<Duration>,
    /// `TCP_USER_TIMEOUT` towards endpoints; 0 leaves it to the system.
    pub connect_user_timeout: Option<Duration>,
    /// Of the listening sockets; absent: the system's.
    pub backlog: Option<u32>,
    /// Requests that may wait for an endpoint.
    pub queue_capacity: usize,
    /// How long a balancer is without a ready endpoint before requests fail at once.
    pub failfast: Duration,
    /// The same for connections that are not HTTP.
    pub tcp_queue_capacity: usize,
    /// The same for connections that are not HTTP.
    pub tcp_failfast: Duration,
    /// Requests in flight before more are shed.
    pub max_in_flight: usize,
    /// Idle HTTP/1 connections kept to one endpoint.
    pub max_idle: usize,
    /// How long they are kept.
    pub pool_idle_timeout: Duration,
    /// How soon an address that the control plane did not know may be asked for again.
    pub discovery_idle: Duration,
    /// HTTP/2 towards the application.
    pub server_h2: ServerH2,
    /// HTTP/2 towards endpoints and the control plane.
    pub client_h2: ClientH2,
    /// Whether `l5d-proxy-error` and its like are shown to the application.
    pub informational_headers: bool,
    /// Requests say by `l5d-dst-override`, or by their host, which service they are for.
    pub ingress: bool,
    /// Metrics may carry the host that the application asked for.
    pub hostname_labels: bool,
}

impl Outbound {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Self {
        let ingress = reader.or("INGRESS_MODE", false, parse::boolean);
        Self {
            ingress,
            listen: listen(reader),
            detect_timeout: reader.or(
                "OUTBOUND_DETECT_TIMEOUT",
                Duration::from_secs(10),
                parse::duration,
            ),
            connect_timeout: reader.or(
                "OUTBOUND_CONNECT_TIMEOUT",
                Duration::from_secs(1),
                parse::duration,
            ),
            connect_backoff: Backoff::read(reader, "OUTBOUND", Duration::from_mins(1)),
            accept_keepalive: reader.optional("OUTBOUND_ACCEPT_KEEPALIVE", parse::duration),
            accept_user_timeout: reader.optional("OUTBOUND_ACCEPT_USER_TIMEOUT", parse::duration),
            connect_keepalive: reader.or_off("OUTBOUND_CONNECT_KEEPALIVE", KEEPALIVE),
            connect_user_timeout: reader.or_off("OUTBOUND_CONNECT_USER_TIMEOUT", USER_TIMEOUT),
            backlog: reader.optional("OUTBOUND_TCP_LISTEN_BACKLOG", parse::number),
            queue_capacity: reader.or("OUTBOUND_HTTP_QUEUE_CAPACITY", 10_000, parse::count),
            failfast: reader.or(
                "OUTBOUND_HTTP_FAILFAST_TIMEOUT",
                Duration::from_secs(3),
                parse::duration,
            ),
            tcp_queue_capacity: reader.or("OUTBOUND_TCP_QUEUE_CAPACITY", 10_000, parse::count),
            tcp_failfast: reader.or(
                "OUTBOUND_TCP_FAILFAST_TIMEOUT",
                Duration::from_secs(3),
                parse::duration,
            ),
            max_in_flight: reader.or("OUTBOUND_MAX_IN_FLIGHT", 100_000, parse::count),
            max_idle: reader.or(
                "OUTBOUND_MAX_IDLE_CONNS_PER_ENDPOINT",
                10_000,
                parse::number,
            ),
            pool_idle_timeout: reader.or(
                "OUTBOUND_HTTP1_CONNECTION_POOL_IDLE_TIMEOUT",
                Duration::from_secs(3),
                parse::duration,
            ),
            discovery_idle: reader.or(
                "OUTBOUND_DISCOVERY_IDLE_TIMEOUT",
                Duration::from_secs(5),
                parse::duration,
            ),
            server_h2: ServerH2::read(reader, "OUTBOUND"),
            client_h2: ClientH2::read(reader),
            informational_headers: !reader.or(
                "OUTBOUND_DISABLE_INFORMATIONAL_HEADERS",
                ingress,
                parse::boolean,
            ),
            hostname_labels: reader.or("OUTBOUND_METRICS_HOSTNAME_LABELS", false, parse::boolean),
        }
    }
}

fn listen(reader: &mut Reader<'_>) -> Vec<SocketAddr> {
    let several = reader.optional("OUTBOUND_LISTEN_ADDRS", |text| {
        let addresses = parse::list(text, parse::socket_addr)?;
        match addresses.len() {
            1 | 2 => Ok(addresses),
            _ => Err(format!("{text:?} is not one address, or two by comma")),
        }
    });
    let single = reader.optional("OUTBOUND_LISTEN_ADDR", parse::socket_addr);
    several.unwrap_or_else(|| {
        vec![single.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 4140)))]
    })
}

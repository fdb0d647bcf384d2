use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::net::lookup_host;
use tulle_config::HostPort;

/// Every address of a host; at least one.
///
/// `localhost` is known without asking. A name that ends in a dot is asked as it is, so that
/// no search list applies, and then without the dot, since a hosts file has none.
pub(crate) async fn resolve(addr: &HostPort) -> io::Result<Vec<SocketAddr>> {
    if let Some(ip) = addr.ip() {
        return Ok(vec![SocketAddr::new(ip, addr.port)]);
    }
    if addr.is_localhost() {
        let ips: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        return Ok(ips.map(|ip| SocketAddr::new(ip, addr.port)).to_vec());
    }
    let mut addrs: Vec<_> = match lookup_host((addr.host.as_str(), addr.port)).await {
        Ok(addrs) => addrs.collect(),
        Err(error) => match addr.host.strip_suffix('.') {
            Some(host) => lookup_host((host, addr.port)).await?.collect(),
            None => return Err(error),
        },
    };
    addrs.dedup();
    if addrs.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the name has no address",
        ));
    }
    Ok(addrs)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn resolved(host: &str) -> Vec<String> {
        let addr = HostPort {
            host: host.to_owned(),
            port: 80,
        };
        let addrs = resolve(&addr).await.unwrap_or_default();
        addrs.iter().map(ToString::to_string).collect()
    }

    #[tokio::test]
    async fn addresses_and_localhost_need_no_resolver() {
        assert_eq!(resolved("192.0.2.1").await, ["192.0.2.1:80"]);
        assert_eq!(resolved("2001:db8::1").await, ["[2001:db8::1]:80"]);
        assert_eq!(resolved("localhost").await, ["127.0.0.1:80", "[::1]:80"]);
        assert_eq!(resolved("LocalHost.").await, ["127.0.0.1:80", "[::1]:80"]);
    }
}

//! The formats of values. Every error says what was expected, never only what was found.

use std::{net::SocketAddr, ops::RangeInclusive, time::Duration};

use ipnet::IpNet;

use crate::{HostPort, Ports, Suffix};

/// `100ms`, `10s`, `5m`, `1h`, `1d` or `0`, one unit each.
///
/// # Errors
/// What was expected.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration such as 100ms, 10s, 5m, 1h or 1d");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (count, unit) = text.split_at(digits);
    let count: u64 = count.parse().map_err(|_| wrong())?;
    let milliseconds = match unit {
        "ms" => Some(count),
        "s" => count.checked_mul(1_000),
        "m" => count.checked_mul(60_000),
        "h" => count.checked_mul(3_600_000),
        "d" => count.checked_mul(86_400_000),
        _ => None,
    };
    milliseconds.map(Duration::from_millis).ok_or_else(wrong)
}

pub(crate) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

pub(crate) fn number<N: std::str::FromStr>(text: &str) -> Result<N, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is not a whole number in the range allowed here"))
}

/// A number of things of which there must be at least one.
pub(crate) fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err(format!("{text:?} is not a whole number above 0")),
        Ok(count) => Ok(count),
    }
}

pub(crate) fn fraction(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value >= 0.0 => Ok(value),
        _ => Err(format!("{text:?} is not a number of at least 0")),
    }
}

pub(crate) fn socket_addr(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is not an address such as 127.0.0.1:4140"))
}

pub(crate) fn host_port(text: &str) -> Result<HostPort, String> {
    let wrong = || format!("{text:?} is not host:port");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port = port
        .parse()
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(wrong)?;
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    if let Some(bare) = bare {
        bare.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?;
    } else if !is_host_name(host) {
        return Err(wrong());
    }
    Ok(HostPort {
        host: bare.unwrap_or(host).to_owned(),
        port,
    })
}

fn is_host_name(host: &str) -> bool {
    !host.is_empty()
        && host.len() <= 254
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

pub(crate) fn ports(text: &str) -> Result<Ports, String> {
    list(text, port_range).map(Ports::new)
}

fn port_range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let wrong = || format!("{text:?} is neither a port such as 80 nor a range such as 443-445");
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let first: u16 = first.trim().parse().map_err(|_| wrong())?;
    let last: u16 = last.trim().parse().map_err(|_| wrong())?;
    if first == 0 || first > last {
        Err(wrong())
    } else {
        Ok(first..=last)
    }
}

/// Networks by comma; an address alone is the network of that address.
pub(crate) fn networks(text: &str) -> Result<Vec<IpNet>, String> {
    list(text, |item| {
        item.parse::<IpNet>()
            .or_else(|_| item.parse::<std::net::IpAddr>().map(IpNet::from))
            .map_err(|_| format!("{item:?} is not a network such as 10.0.0.0/8 or fd00::/8"))
    })
}

pub(crate) fn suffixes(text: &str) -> Result<Vec<Suffix>, String> {
    list(text, |item| {
        Suffix::new(item).ok_or_else(|| format!("{item:?} is neither a DNS name nor \".\""))
    })
}

pub(crate) fn list<T>(
    text: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    text.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .map(parse)
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_have_a_unit_unless_they_are_zero() {
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert_eq!(duration("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(duration("365d"), Ok(Duration::from_hours(24 * 365)));
        for wrong in [
            "",
            "10",
            "1.5s",
            "-1s",
            "s",
            "10 s",
            "10ns",
            "99999999999999999999s",
        ] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn hosts_may_end_with_a_dot_and_addresses_of_six_stand_in_brackets() {
        let named = HostPort {
            host: "dst.linkerd.svc.cluster.local.".into(),
            port: 8086,
        };
        assert_eq!(host_port("dst.linkerd.svc.cluster.local.:8086"), Ok(named));
        assert_eq!(
            host_port("[::1]:80"),
            Ok(HostPort {
                host: "::1".into(),
                port: 80
            })
        );
        for wrong in [
            "",
            "host",
            "host:",
            ":80",
            "host:0",
            "host:65536",
            "::1:80",
            "[x]:80",
            "a b:1",
        ] {
            assert!(host_port(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn port_sets_are_ports_and_ranges() {
        let set = ports("80, 443-445,").unwrap();

        assert_eq!(set.iter().collect::<Vec<_>>(), [80, 443, 444, 445]);
        assert!(set.contains(444) && !set.contains(446));
        for wrong in ["0", "5-4", "a", "1-65536", "-"] {
            assert!(ports(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in "\\PC{0,24}") {
            let _ = duration(&text);
            let _ = host_port(&text);
            let _ = ports(&text);
            let _ = networks(&text);
            let _ = suffixes(&text);
        }
    }
}

use std::fmt;

use tulle_api::{http_route, tls_route};

use crate::{Invalid, invalid::required, wire};

/// The hosts, or names in a TLS handshake, that a route is for. Compared without case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum HostPattern {
    Exact(Box<str>),
    /// With the dot before it; empty takes every host.
    Suffix(Box<str>),
}

/// The better of two matches is the greater one: exact ones over suffixes, then the longer one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum HostRank {
    /// The route names no host.
    Any,
    Suffix(usize),
    Exact(usize),
}

impl HostPattern {
    pub(crate) fn from_host(wire: http_route::HostMatch) -> Result<Self, Invalid> {
        use http_route::host_match::Match;
        match required(wire.r#match, "the host")? {
            Match::Exact(host) => Self::exact(&host),
            Match::Suffix(suffix) => Self::suffix(&suffix.reverse_labels),
        }
    }

    pub(crate) fn from_sni(wire: tls_route::SniMatch) -> Result<Self, Invalid> {
        use tls_route::sni_match::Match;
        match required(wire.r#match, "the server name")? {
            Match::Exact(name) => Self::exact(&name),
            Match::Suffix(suffix) => Self::suffix(&suffix.reverse_labels),
        }
    }

    pub(crate) fn rank(&self, host: &str) -> Option<HostRank> {
        match self {
            Self::Exact(exact) => host
                .eq_ignore_ascii_case(exact)
                .then_some(HostRank::Exact(exact.len())),
            Self::Suffix(suffix) => {
                let (head, tail) = host
                    .as_bytes()
                    .split_at_checked(host.len().checked_sub(suffix.len())?)?;
                (!head.is_empty() && tail.eq_ignore_ascii_case(suffix.as_bytes()))
                    .then_some(HostRank::Suffix(suffix.len()))
            }
        }
    }

    /// The best that any of a route's hosts makes of a request's.
    pub(crate) fn best(patterns: &[Self], host: Option<&str>) -> Option<HostRank> {
        if patterns.is_empty() {
            return Some(HostRank::Any);
        }
        patterns
            .iter()
            .filter_map(|pattern| pattern.rank(host?))
            .max()
    }

    fn exact(host: &str) -> Result<Self, Invalid> {
        let bare = host.strip_suffix('.').unwrap_or(host);
        let address = bare
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let legal = match address {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => wire::is_dns_name(bare),
        };
        if !legal {
            return Err(Invalid::new(format_args!("{host:?} is no host")));
        }
        Ok(Self::Exact(bare.to_ascii_lowercase().into()))
    }

    fn suffix(reverse_labels: &[String]) -> Result<Self, Invalid> {
        let mut suffix = String::new();
        for label in reverse_labels.iter().rev() {
            if !wire::is_dns_label(label) {
                return Err(Invalid::new(format_args!(
                    "{label:?} is no label of a host"
                )));
            }
            suffix.push('.');
            suffix.push_str(&label.to_ascii_lowercase());
        }
        Ok(Self::Suffix(suffix.into()))
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Suffix(suffix) => write!(f, "*{suffix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suffix(labels: &[&str]) -> HostPattern {
        let reversed: Vec<_> = labels.iter().rev().map(|&label| label.to_owned()).collect();
        HostPattern::suffix(&reversed).expect("legal labels")
    }

    #[test]
    fn a_suffix_takes_what_is_under_it_and_not_itself() {
        let pattern = suffix(&["Shop", "example"]);

        for (host, rank) in [
            ("web.shop.example", Some(HostRank::Suffix(13))),
            ("a.b.SHOP.example", Some(HostRank::Suffix(13))),
            ("shop.example", None),
            (".shop.example", None),
            ("workshop.example", None),
            ("web.shop.example.org", None),
        ] {
            assert_eq!(pattern.rank(host), rank, "{host}");
        }
        assert_eq!(suffix(&[]).rank("anything"), Some(HostRank::Suffix(0)));
    }

    #[test]
    fn an_exact_host_beats_a_suffix_and_a_longer_suffix_a_shorter_one() {
        let patterns = [suffix(&["example"]), suffix(&["shop", "example"])];
        let exact = HostPattern::exact("a.example.").expect("a host");

        assert_eq!(
            HostPattern::best(&patterns, Some("web.shop.example")),
            Some(HostRank::Suffix(13))
        );
        assert!(exact.rank("A.example") > suffix(&["example"]).rank("a.example"));
        assert_eq!(HostPattern::best(&patterns, Some("web.shop")), None);
        assert_eq!(HostPattern::best(&patterns, None), None);
        assert_eq!(HostPattern::best(&[], None), Some(HostRank::Any));
    }

    #[test]
    fn what_is_no_host_is_invalid() {
        for host in ["", "a..b", "a b", "a:80", "*.example", "[::g]", "ä.example"] {
            assert!(HostPattern::exact(host).is_err(), "{host}");
        }
        for host in [
            "web",
            "web.shop.svc.cluster.local.",
            "10.0.0.1",
            "[fd77::1]",
        ] {
            assert!(HostPattern::exact(host).is_ok(), "{host}");
        }
    }
}

//! `tulle-proxy init`: the packet rules that bring a pod's connections to its proxy.
//!
//! The same rules serve a Kubernetes init container and a pod on one machine. They name the
//! proxy by user id and by mark, since a user namespace with a single id has no second user.
//! Loading is one transaction and replaces what an earlier run loaded.

use std::{
    fmt::Write as _,
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context, bail};

/// What `--help` prints.
pub const HELP: &str = "\
Redirect a pod's TCP connections to its proxy (run in the pod's network namespace).

Usage: tulle-proxy init [OPTIONS]

  --incoming-proxy-port PORT        where the proxy accepts inbound connections [4143]
  --outgoing-proxy-port PORT        where the proxy accepts outbound connections [4140]
  --proxy-uid UID|none              the proxy's user, never redirected [2102]
  --proxy-gid GID                   the proxy's group, never redirected [none]
  --mark MARK                       what the proxy marks its packets with, never redirected
  --inbound-ports-to-ignore LIST    ports and ranges, beside 4190 and 4191 [none]
  --outbound-ports-to-ignore LIST   ports and ranges [none]
  --subnets-to-ignore LIST          source networks whose connections go past the proxy [none]
  --ports-to-redirect LIST          redirect only these inbound ports [all]
  --print                           print the rules and load nothing
";

/// The rules' parameters.
#[derive(Debug, PartialEq, Eq)]
pub struct Rules {
    incoming_proxy_port: u16,
    outgoing_proxy_port: u16,
    /// Absent where a user namespace has a single user.
    proxy_uid: Option<u32>,
    proxy_gid: Option<u32>,
    mark: Option<u32>,
    inbound_ignored: Vec<Ports>,
    outbound_ignored: Vec<Ports>,
    subnets_ignored: Vec<ipnet::IpNet>,
    inbound_redirected: Vec<Ports>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            incoming_proxy_port: 4143,
            outgoing_proxy_port: 4140,
            proxy_uid: Some(2102),
            proxy_gid: None,
            mark: None,
            inbound_ignored: vec![Ports {
                first: 4190,
                last: 4191,
            }],
            outbound_ignored: Vec::new(),
            subnets_ignored: Vec::new(),
            inbound_redirected: Vec::new(),
        }
    }
}

/// A port or a range, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ports {
    first: u16,
    last: u16,
}

/// Load the rules, or print them.
pub fn run(arguments: &[String]) -> anyhow::Result<()> {
    if arguments
        .iter()
        .any(|argument| argument == "--help" || argument == "-h")
    {
        print!("{HELP}");
        return Ok(());
    }
    let print_only = arguments.iter().any(|argument| argument == "--print");
    let rules = Rules::parse(arguments)?.nft();
    if print_only {
        print!("{rules}");
        return Ok(());
    }
    load(&rules)
}

fn load(rules: &str) -> anyhow::Result<()> {
    let mut nft = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("nft does not start; install the package nftables")?;
    let mut stdin = nft.stdin.take().context("nft has no standard input")?;
    stdin
        .write_all(rules.as_bytes())
        .context("nft did not take the rules")?;
    drop(stdin);
    let output = nft.wait_with_output().context("nft did not end")?;
    if !output.status.success() {
        bail!(
            "nft refused the rules ({}): {}\nThe kernel needs nf_tables with nat and redirect, and this process CAP_NET_ADMIN.",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

impl Rules {
    /// Read the flags; `--flag value` and `--flag=value` are the same.
    ///
    /// Whoever exempts nobody would send the proxy's own packets back to it.
    fn parse(arguments: &[String]) -> anyhow::Result<Self> {
        let mut rules = Self::default();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            if argument == "--print" {
                continue;
            }
            let (flag, value) = match argument.split_once('=') {
                Some((flag, value)) => (flag, value.to_owned()),
                None => (
                    argument.as_str(),
                    rest.next()
                        .with_context(|| format!("{argument} needs a value"))?
                        .clone(),
                ),
            };
            let number = || {
                value
                    .parse()
                    .with_context(|| format!("{flag}: {value:?} is no number"))
            };
            match flag {
                "--incoming-proxy-port" => rules.incoming_proxy_port = port(flag, &value)?,
                "--outgoing-proxy-port" => rules.outgoing_proxy_port = port(flag, &value)?,
                "--proxy-uid" if value == "none" => rules.proxy_uid = None,
                "--proxy-uid" => rules.proxy_uid = Some(number()?),
                "--proxy-gid" => rules.proxy_gid = Some(number()?),
                "--mark" => rules.mark = Some(number()?),
                "--inbound-ports-to-ignore" => rules.inbound_ignored.extend(ports(flag, &value)?),
                "--outbound-ports-to-ignore" => rules.outbound_ignored.extend(ports(flag, &value)?),
                "--ports-to-redirect" => rules.inbound_redirected.extend(ports(flag, &value)?),
                "--subnets-to-ignore" => rules.subnets_ignored.extend(subnets(flag, &value)?),
                _ => bail!("unknown flag {flag}; see tulle-proxy init --help"),
            }
        }
        if rules.proxy_uid.is_none() && rules.mark.is_none() {
            bail!("--proxy-uid none needs --mark: the proxy's own packets must be told apart");
        }
        Ok(rules)
    }

    /// The table, as text for `nft -f`. Every `redirect` names TCP in its own rule, which
    /// nft demands.
    fn nft(&self) -> String {
        let mut text = String::new();
        text.push_str("table inet tulle_proxy\ndelete table inet tulle_proxy\n");
        text.push_str("table inet tulle_proxy {\n");

        text.push_str("  chain inbound {\n    type nat hook prerouting priority -100\n");
        text.push_str("    iifname \"lo\" return\n");
        ignore(&mut text, &self.inbound_ignored);
        for subnet in &self.subnets_ignored {
            let family = if subnet.addr().is_ipv4() { "ip" } else { "ip6" };
            let _ = writeln!(text, "    {family} saddr {subnet} return");
        }
        let only = match set(&self.inbound_redirected) {
            Some(ports) => format!("tcp dport {ports}"),
            None => "meta l4proto tcp".to_owned(),
        };
        let _ = writeln!(
            text,
            "    {only} redirect to :{}\n  }}",
            self.incoming_proxy_port
        );

        text.push_str("  chain outbound {\n    type nat hook output priority -100\n");
        if let Some(uid) = self.proxy_uid {
            let _ = writeln!(text, "    meta skuid {uid} return");
        }
        if let Some(gid) = self.proxy_gid {
            let _ = writeln!(text, "    meta skgid {gid} return");
        }
        if let Some(mark) = self.mark {
            let _ = writeln!(text, "    meta mark {mark:#x} return");
        }
        text.push_str("    oifname \"lo\" return\n");
        ignore(&mut text, &self.outbound_ignored);
        let _ = writeln!(
            text,
            "    meta l4proto tcp redirect to :{}\n  }}\n}}",
            self.outgoing_proxy_port
        );
        text
    }
}

fn ignore(text: &mut String, ports: &[Ports]) {
    if let Some(ports) = set(ports) {
        let _ = writeln!(text, "    tcp dport {ports} return");
    }
}

/// Ports as an anonymous set, merged, since nft refuses intervals that overlap.
fn set(ports: &[Ports]) -> Option<String> {
    let mut sorted = ports.to_vec();
    sorted.sort_by_key(|ports| ports.first);
    let mut merged: Vec<Ports> = Vec::new();
    for next in sorted {
        match merged.last_mut() {
            Some(last) if u32::from(next.first) <= u32::from(last.last) + 1 => {
                last.last = last.last.max(next.last);
            }
            _ => merged.push(next),
        }
    }
    let texts: Vec<String> = merged
        .iter()
        .map(|ports| {
            if ports.first == ports.last {
                ports.first.to_string()
            } else {
                format!("{}-{}", ports.first, ports.last)
            }
        })
        .collect();
    (!texts.is_empty()).then(|| format!("{{ {} }}", texts.join(", ")))
}

fn port(flag: &str, text: &str) -> anyhow::Result<u16> {
    match text.parse() {
        Ok(0) | Err(_) => bail!("{flag}: {text:?} is no port; a port is a number from 1 to 65535"),
        Ok(port) => Ok(port),
    }
}

fn ports(flag: &str, list: &str) -> anyhow::Result<Vec<Ports>> {
    items(list)
        .map(|item| {
            let (begin, end) = item.split_once('-').unwrap_or((item, item));
            let range = Ports {
                first: port(flag, begin)?,
                last: port(flag, end)?,
            };
            if range.first > range.last {
                bail!("{flag}: the range {item} ends before it begins");
            }
            Ok(range)
        })
        .collect()
}

fn subnets(flag: &str, list: &str) -> anyhow::Result<Vec<ipnet::IpNet>> {
    items(list)
        .map(|item| {
            item.parse()
                .with_context(|| format!("{flag}: {item:?} is no network"))
        })
        .collect()
}

fn items(list: &str) -> impl Iterator<Item = &str> {
    list.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nft(arguments: &[&str]) -> String {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        Rules::parse(&arguments).unwrap().nft()
    }

    #[test]
    fn the_proxy_is_exempted_by_user_and_by_mark_before_anything_is_redirected() {
        let rules = nft(&["--proxy-uid", "77", "--mark=11596"]);

        let user = rules.find("meta skuid 77 return").unwrap();
        let mark = rules.find("meta mark 0x2d4c return").unwrap();
        let redirect = rules.find("redirect to :4140").unwrap();
        assert!(user < redirect && mark < redirect);
    }

    #[test]
    fn ignored_ports_are_merged_with_those_of_the_proxy_itself() {
        let rules = nft(&["--inbound-ports-to-ignore", "4567,4568,4189"]);

        assert!(rules.contains("tcp dport { 4189-4191, 4567-4568 } return"));
    }

    #[test]
    fn a_proxy_without_a_user_of_its_own_is_told_by_its_mark_alone() {
        let rules = nft(&["--proxy-uid", "none", "--mark", "7"]);

        assert!(rules.contains("meta mark 0x7 return"));
        assert!(!rules.contains("skuid"));
    }

    #[test]
    fn rules_that_exempt_nobody_are_refused() {
        let arguments = ["--proxy-uid=none".to_owned()];

        assert!(Rules::parse(&arguments).is_err());
    }

    #[test]
    fn networks_are_let_in_by_their_family() {
        let rules = nft(&["--subnets-to-ignore", "10.1.0.0/16, fd00::/8"]);

        assert!(rules.contains("ip saddr 10.1.0.0/16 return"));
        assert!(rules.contains("ip6 saddr fd00::/8 return"));
    }

    #[test]
    fn a_value_that_is_no_port_is_refused_by_name() {
        for bad in ["0", "65536", "web", "9-3"] {
            let arguments = ["--outbound-ports-to-ignore".to_owned(), bad.to_owned()];

            let error = Rules::parse(&arguments).unwrap_err().to_string();

            assert!(error.contains("--outbound-ports-to-ignore"), "{error}");
        }
    }
}

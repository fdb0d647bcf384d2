use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;
use tulle_core::AccessFormat;

use crate::{
    ConfigErrors, ControlAddr, Identity, Inbound, Outbound, StreamLimits, Suffix, Tap, Trace,
    Workers, parse, reader::Reader,
};

/// Settings that change what the stock proxy does and that this one does not know. They are
/// named in the log so that nobody waits for an effect.
const NOT_SUPPORTED: [&str; 3] = [
    "INBOUND_GATEWAY_SUFFIXES",
    "INBOUND_PORTS_REQUIRE_IDENTITY",
    "INBOUND_PORTS_REQUIRE_TLS",
];

/// Everything the environment says.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who this proxy is.
    pub identity: Identity,
    /// Endpoints and profiles.
    pub destination: ControlAddr,
    /// Inbound and outbound policies.
    pub policy: ControlAddr,
    /// How long streams to those are kept, where they are not on loopback.
    pub control_streams: StreamLimits,
    /// Sent verbatim with every policy request.
    pub policy_workload: String,
    /// Sent verbatim with every destination request.
    pub destination_context: String,
    /// Profiles are looked up for addresses in these networks only.
    pub profile_networks: Vec<IpNet>,
    /// Profiles are looked up for names under these suffixes only.
    pub profile_suffixes: Vec<Suffix>,
    /// Towards the application.
    pub inbound: Inbound,
    /// From the application.
    pub outbound: Outbound,
    /// Metrics, readiness and the like.
    pub admin_listen: SocketAddr,
    /// Who may watch requests; absent: nobody.
    pub tap: Option<Tap>,
    /// Where spans go; absent: there are none.
    pub trace: Option<Trace>,
    /// How long a shutdown waits for connections to end.
    pub shutdown_grace: Duration,
    /// Whether `POST /shutdown` is heard.
    pub shutdown_endpoint: bool,
    /// A filter in the syntax of `tracing-subscriber`.
    pub log: String,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Whether there is a line for each request, and how it looks.
    pub access_log: Option<AccessFormat>,
    /// How many shards run.
    pub workers: Workers,
    /// `SO_MARK` of every socket that the proxy opens, where packets are told apart by it.
    pub mark: Option<u32>,
    /// How long a series without a user is still shown.
    pub metrics_retain_idle: Duration,
    /// Series above that number are counted together; absent: the registry's own ceiling.
    pub metrics_max_series: Option<usize>,
    /// Variables that are set and have no effect here.
    pub ignored: Vec<String>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Plain,
    /// One object per line.
    Json,
}

impl Config {
    /// Read everything through `lookup`, which answers with a variable's value.
    ///
    /// # Errors
    ///
    /// Every variable that is missing or cannot be understood, all together.
    pub fn from_env(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigErrors> {
        let mut reader = Reader::new(&lookup);
        let config = Self::read(&mut reader);
        reader.finish(config)
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let identity = Identity::read(reader);
        let destination = ControlAddr::read(reader, "DESTINATION");
        let policy = ControlAddr::read(reader, "POLICY");
        let policy_workload = reader.required("POLICY_WORKLOAD", |text| Ok(text.to_owned()));
        let admin_listen = reader.or(
            "ADMIN_LISTEN_ADDR",
            SocketAddr::from((Ipv4Addr::LOCALHOST, 4191)),
            parse::socket_addr,
        );
        let tap = Tap::read(reader);
        let trace = Trace::read(reader);
        let inbound = Inbound::read(reader, admin_listen.port());
        let outbound = Outbound::read(reader);
        let control_streams = StreamLimits::read(reader);
        let destination_context = reader.text("DESTINATION_CONTEXT").unwrap_or_default();
        let profile_networks =
            reader.or("DESTINATION_PROFILE_NETWORKS", Vec::new(), parse::networks);
        let profile_suffixes = reader
            .optional("DESTINATION_PROFILE_SUFFIXES", parse::suffixes)
            .unwrap_or_else(|| Suffix::new("svc.cluster.local").into_iter().collect());
        let shutdown_grace = reader.or(
            "SHUTDOWN_GRACE_PERIOD",
            Duration::from_mins(2),
            parse::duration,
        );
        let shutdown_endpoint = reader.or("SHUTDOWN_ENDPOINT_ENABLED", false, parse::boolean);
        let log_format = reader.or("LOG_FORMAT", LogFormat::Plain, log_format);
        let log = reader
            .text("LOG")
            .map_or_else(|| "warn,tulle=info".to_owned(), |log| own_log(&log));
        let access_log = reader.optional("ACCESS_LOG", access_format);
        let workers = Workers::read(reader);
        let mark = reader.optional("TULLE_PROXY_MARK", mark);
        let metrics_retain_idle = reader.or(
            "METRICS_RETAIN_IDLE",
            Duration::from_mins(10),
            parse::duration,
        );
        let metrics_max_series = reader.optional("TULLE_PROXY_METRICS_MAX_SERIES", parse::number);
        Some(Self {
            identity: identity?,
            destination: destination?,
            policy: policy?,
            control_streams,
            policy_workload: policy_workload?,
            destination_context,
            profile_networks,
            profile_suffixes,
            inbound,
            outbound,
            admin_listen,
            tap,
            trace,
            shutdown_grace,
            shutdown_endpoint,
            log,
            log_format,
            access_log,
            workers,
            mark,
            metrics_retain_idle,
            metrics_max_series,
            ignored: ignored(reader),
        })
    }

    /// Write down once what the proxy runs with. Nothing in it is secret: the token is a path
    /// and the roots are a number.
    pub fn log_once(&self) {
        tracing::info!(
            name = %self.identity.local_name,
            identity = %self.identity.server.addr,
            destination = %self.destination.addr,
            policy = %self.policy.addr,
            workload = %self.policy_workload,
            inbound = %self.inbound.listen,
            outbound = ?self.outbound.listen,
            admin = %self.admin_listen,
            watcher = self.tap.as_ref().map(|tap| tap.client.as_str()),
            collector = ?self.trace.as_ref().map(|trace| &trace.collector.addr),
            default_policy = self.inbound.default_policy.name(),
            "configured"
        );
        tracing::debug!(config = ?self, "configured in full");
        for variable in &self.ignored {
            tracing::warn!(%variable, "is set and has no effect in this proxy");
        }
    }
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    match text.to_ascii_lowercase().as_str() {
        "plain" => Ok(LogFormat::Plain),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("{text:?} is neither plain nor json")),
    }
}

fn access_format(text: &str) -> Result<AccessFormat, String> {
    AccessFormat::from_name(text).ok_or_else(|| format!("{text:?} is neither apache nor json"))
}

/// Charts write filters for the stock proxy's modules; ours have another name.
fn own_log(filter: &str) -> String {
    let directives = filter
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty());
    let own = directives.map(|directive| match directive.split_once('=') {
        Some((target, level)) if target.starts_with("linkerd") => format!("tulle={level}"),
        _ => directive.to_owned(),
    });
    own.collect::<Vec<_>>().join(",")
}

/// Decimal, or hexadecimal as packet filters print it.
fn mark(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("{text:?} is not a packet mark such as 0x1062"))
}

fn ignored(reader: &Reader<'_>) -> Vec<String> {
    let on = |name: &&&str| {
        reader
            .text(name)
            .is_some_and(|value| value.trim() != "false")
    };
    NOT_SUPPORTED
        .iter()
        .filter(on)
        .map(|name| format!("LINKERD2_PROXY_{name}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};

    use tulle_core::{DefaultPolicy, Id};

    use super::*;
    use crate::{HostPort, Mistake};

    const PEM: &str = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";

    fn minimum() -> HashMap<String, String> {
        [
            ("DESTINATION_SVC_ADDR", "127.0.0.1:8086"),
            ("POLICY_SVC_ADDR", "localhost.:8090"),
            ("IDENTITY_SVC_ADDR", "[::1]:8080"),
            ("POLICY_WORKLOAD", r#"{"ns":"t","pod":"a"}"#),
            ("IDENTITY_TOKEN_FILE", "/tmp/token"),
            ("IDENTITY_TRUST_ANCHORS", PEM),
            (
                "IDENTITY_LOCAL_NAME",
                "a.t.serviceaccount.identity.linkerd.cluster.local",
            ),
        ]
        .into_iter()
        .map(|(name, value)| (format!("LINKERD2_PROXY_{name}"), value.to_owned()))
        .collect()
    }

    fn read(extra: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
        let mut variables = minimum();
        for (name, value) in extra {
            let name = if name.starts_with("TULLE")
                || ["HOSTNAME", "OTEL_RESOURCE_ATTRIBUTES"].contains(name)
            {
                (*name).to_owned()
            } else {
                format!("LINKERD2_PROXY_{name}")
            };
            variables.insert(name, (*value).to_owned());
        }
        Config::from_env(|name| variables.get(name).cloned())
    }

    fn mistakes(extra: &[(&str, &str)]) -> Vec<String> {
        let short = |mistake: Mistake| {
            mistake
                .variable
                .trim_start_matches("LINKERD2_PROXY_")
                .to_owned()
        };
        read(extra).unwrap_err().0.into_iter().map(short).collect()
    }

    #[test]
    fn the_minimum_is_enough_and_everything_else_has_the_stock_default() {
        let config = read(&[]).unwrap();

        assert_eq!(config.identity.min_refresh, Duration::from_secs(10));
        assert_eq!(config.inbound.listen, "0.0.0.0:4143".parse().unwrap());
        assert_eq!(
            config.inbound.default_policy,
            DefaultPolicy::AllUnauthenticated
        );
        assert_eq!(config.inbound.ports, BTreeSet::from([4191]));
        assert_eq!(config.outbound.listen, ["127.0.0.1:4140".parse().unwrap()]);
        assert_eq!(config.outbound.failfast, Duration::from_secs(3));
        assert_eq!(config.outbound.connect_backoff.max, Duration::from_mins(1));
        assert_eq!(config.inbound.connect_backoff.max, Duration::from_secs(10));
        assert_eq!(config.control_streams, StreamLimits::default());
        assert_eq!(config.shutdown_grace, Duration::from_mins(2));
        assert_eq!(config.workers.count(8), 1);
        assert!(config.profile_suffixes[0].contains("web.shop.svc.cluster.local"));
        assert!(config.profile_networks.is_empty());
        assert!(config.outbound.informational_headers);
    }

    #[test]
    fn nothing_set_names_every_required_variable_at_once() {
        let names: Vec<_> = Config::from_env(|_| None)
            .unwrap_err()
            .0
            .into_iter()
            .map(|m| m.variable)
            .collect();

        assert_eq!(
            names,
            [
                "LINKERD2_PROXY_IDENTITY_SVC_ADDR",
                "LINKERD2_PROXY_IDENTITY_TOKEN_FILE",
                "LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS",
                "LINKERD2_PROXY_IDENTITY_LOCAL_NAME",
                "LINKERD2_PROXY_DESTINATION_SVC_ADDR",
                "LINKERD2_PROXY_POLICY_SVC_ADDR",
                "LINKERD2_PROXY_POLICY_WORKLOAD",
            ]
        );
    }

    #[test]
    fn mistakes_of_different_sections_are_reported_together() {
        let found = mistakes(&[
            ("INBOUND_CONNECT_TIMEOUT", "100"),
            (
                "OUTBOUND_LISTEN_ADDRS",
                "127.0.0.1:1,127.0.0.1:2,127.0.0.1:3",
            ),
            ("INBOUND_IPS", "10.0.0.1,nonsense"),
            ("TULLE_PROXY_MARK", "x"),
        ]);

        assert_eq!(
            found,
            [
                "INBOUND_IPS",
                "INBOUND_CONNECT_TIMEOUT",
                "OUTBOUND_LISTEN_ADDRS",
                "TULLE_PROXY_MARK"
            ]
        );
    }

    #[test]
    fn a_control_address_elsewhere_needs_the_name_of_its_server() {
        let addr = (
            "DESTINATION_SVC_ADDR",
            "linkerd-dst.linkerd.svc.cluster.local.:8086",
        );

        assert_eq!(mistakes(&[addr]), ["DESTINATION_SVC_NAME"]);
        let config = read(&[addr, ("DESTINATION_SVC_NAME", "Dst.Linkerd")]).unwrap();
        assert_eq!(
            config.destination,
            ControlAddr {
                addr: HostPort {
                    host: "linkerd-dst.linkerd.svc.cluster.local.".into(),
                    port: 8086
                },
                name: Some(Id::new("dst.linkerd")),
                loopback: false,
            }
        );
    }

    #[test]
    fn loopback_addresses_and_localhost_are_plaintext_whatever_name_is_given() {
        let config = read(&[("POLICY_SVC_NAME", "somebody")]).unwrap();

        for address in [&config.destination, &config.policy, &config.identity.server] {
            assert!(address.loopback, "{address:?}");
            assert_eq!(address.name, None);
        }
    }

    #[test]
    fn policies_by_cluster_network_need_the_networks() {
        for policy in ["cluster-authenticated", "cluster-unauthenticated", "audit"] {
            assert_eq!(
                mistakes(&[("INBOUND_DEFAULT_POLICY", policy)]),
                ["POLICY_CLUSTER_NETWORKS"]
            );
        }
        let networks = ("POLICY_CLUSTER_NETWORKS", "10.0.0.0/8,fd00::/8");
        let config = read(&[("INBOUND_DEFAULT_POLICY", "audit"), networks]).unwrap();
        assert_eq!(config.inbound.cluster_networks.len(), 2);
        assert_eq!(
            mistakes(&[("INBOUND_DEFAULT_POLICY", "allow")]),
            ["INBOUND_DEFAULT_POLICY"]
        );
    }

    #[test]
    fn stream_limits_must_grow() {
        let limits = |initial, idle, lifetime| {
            [
                ("CONTROL_STREAM_INITIAL_TIMEOUT", initial),
                ("CONTROL_STREAM_IDLE_TIMEOUT", idle),
                ("CONTROL_STREAM_LIFETIME", lifetime),
            ]
        };

        assert!(read(&limits("3s", "5m", "1h")).is_ok());
        assert!(read(&limits("3s", "", "1h")).is_ok());
        assert_eq!(
            mistakes(&limits("6m", "5m", "1h")),
            ["CONTROL_STREAM_INITIAL_TIMEOUT"]
        );
        assert_eq!(
            mistakes(&limits("3s", "2h", "1h")),
            ["CONTROL_STREAM_IDLE_TIMEOUT"]
        );
        assert_eq!(
            mistakes(&limits("2h", "", "1h")),
            ["CONTROL_STREAM_INITIAL_TIMEOUT"]
        );
    }

    #[test]
    fn an_empty_value_is_an_unset_one() {
        let config = read(&[
            ("LOG", ""),
            ("INBOUND_PORTS", " "),
            ("TULLE_PROXY_WORKERS", ""),
        ]);

        assert_eq!(config.unwrap().log, "warn,tulle=info");
    }

    #[test]
    fn filters_written_for_the_stock_proxy_reach_our_modules() {
        let config = read(&[("LOG", "warn,linkerd=debug,hickory=error")]).unwrap();

        assert_eq!(config.log, "warn,tulle=debug,hickory=error");
    }

    #[test]
    fn the_name_may_come_as_server_id_and_server_name_if_they_agree() {
        let unset = ("IDENTITY_LOCAL_NAME", "");

        let both = [
            unset,
            ("IDENTITY_SERVER_ID", "a.b"),
            ("IDENTITY_SERVER_NAME", "a.b"),
        ];
        assert_eq!(read(&both).unwrap().identity.local_name, Id::new("a.b"));
        let other = [
            unset,
            ("IDENTITY_SERVER_ID", "a.b"),
            ("IDENTITY_SERVER_NAME", "a.c"),
        ];
        assert_eq!(mistakes(&other), ["IDENTITY_SERVER_ID"]);
        assert_eq!(
            mistakes(&[unset, ("IDENTITY_SERVER_ID", "a.b")]),
            ["IDENTITY_LOCAL_NAME"]
        );
    }

    #[test]
    fn identity_cannot_be_turned_off_or_come_from_spire() {
        assert_eq!(
            mistakes(&[("IDENTITY_DISABLED", "true")]),
            ["IDENTITY_DISABLED"]
        );
        assert_eq!(
            mistakes(&[("IDENTITY_SPIRE_SOCKET", "unix:///run/spire")]),
            ["IDENTITY_SPIRE_SOCKET"]
        );
    }

    #[test]
    fn workers_follow_the_processors_unless_fixed() {
        let count =
            |extra: &[(&str, &str)], processors| read(extra).unwrap().workers.count(processors);

        assert_eq!(count(&[("CORES_MAX", "4")], 8), 4);
        assert_eq!(count(&[("CORES_MAX", "4")], 2), 2);
        assert_eq!(count(&[("CORES", "3")], 8), 3);
        assert_eq!(count(&[("CORES_MAX_RATIO", "0.25")], 8), 2);
        assert_eq!(
            count(&[("CORES_MAX_RATIO", "0.01"), ("CORES_MIN", "2")], 8),
            2
        );
        assert_eq!(count(&[("TULLE_PROXY_WORKERS", "6")], 2), 6);
    }

    #[test]
    fn what_is_printed_holds_no_certificate() {
        let text = format!("{:?}", read(&[]).unwrap());

        assert!(!text.contains("BEGIN CERTIFICATE"), "{text}");
        assert!(text.contains("trust_anchors: 1"), "{text}");
    }

    #[test]
    fn without_a_name_nobody_taps_and_without_a_collector_nothing_is_traced() {
        let config = read(&[("CONTROL_LISTEN_ADDR", "[::]:4190")]).unwrap();

        assert_eq!((config.tap, config.trace), (None, None));
    }

    #[test]
    fn a_collector_elsewhere_needs_a_name_and_the_last_attribute_of_a_key_counts() {
        let collector = ("TRACE_COLLECTOR_SVC_ADDR", "collector.tracing:4317");

        assert_eq!(mistakes(&[collector]), ["TRACE_COLLECTOR_SVC_NAME"]);
        let config = read(&[
            ("TAP_SVC_NAME", "Tap.Viz"),
            collector,
            ("TRACE_COLLECTOR_SVC_NAME", "collector.tracing"),
            (
                "TRACE_EXTRA_ATTRIBUTES",
                "k8s.pod.ip=\"10.0.0.1\"\ncluster=a",
            ),
            ("OTEL_RESOURCE_ATTRIBUTES", "cluster=b,team=c"),
            ("HOSTNAME", "web-1"),
        ]);
        let config = config.unwrap();
        assert_eq!(config.tap.unwrap().client, Id::new("tap.viz"));
        let trace = config.trace.unwrap();
        assert_eq!(trace.hostname.as_deref(), Some("web-1"));
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(
            trace.attributes,
            [
                pair("k8s.pod.ip", "10.0.0.1"),
                pair("cluster", "a"),
                pair("cluster", "b"),
                pair("team", "c")
            ]
        );
    }

    #[test]
    fn settings_without_effect_are_named() {
        let unknown = ("INBOUND_PORTS_REQUIRE_TLS", "8080");
        let config = read(&[unknown, ("INBOUND_GATEWAY_SUFFIXES", "")]).unwrap();

        assert_eq!(config.ignored, ["LINKERD2_PROXY_INBOUND_PORTS_REQUIRE_TLS"]);
    }

    #[test]
    fn an_ingress_shows_no_informational_headers_unless_it_is_told_to() {
        let shown = |extra: &[(&str, &str)]| {
            let outbound = read(extra).unwrap().outbound;
            (outbound.ingress, outbound.informational_headers)
        };

        let ingress = ("INGRESS_MODE", "true");
        assert_eq!(shown(&[]), (false, true));
        assert_eq!(shown(&[ingress]), (true, false));
        let told = ("OUTBOUND_DISABLE_INFORMATIONAL_HEADERS", "false");
        assert_eq!(shown(&[ingress, told]), (true, true));
    }
}

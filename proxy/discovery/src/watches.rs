//! One task per subject: what the control plane says about it, put into its view.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use parking_lot::Mutex;
use tonic::Code;
use tracing::{info, warn};
use tulle_api::{
    destination::{DestinationProfile, GetDestination, Update},
    inbound::{PortSpec, Server},
    net::{IPv6, IpAddress, TcpAddress, ip_address::Ip},
    outbound::{OutboundPolicy, TrafficSpec, traffic_spec::Target},
};
use tulle_policy::{
    inbound::{self, ServerPolicy},
    outbound::{self, ClientPolicy},
};

use crate::{
    ControlChannel, EndpointsState, OutboundState, Publisher, ServerState,
    ask::{Heard, Last, ask},
    destination::{Answer, Destination, Subject},
    endpoints::EndpointSet,
    follow::Follow,
    settings::Settings,
};

/// What this proxy understands of an outbound policy beyond the stock one: rewrites, mirrors and
/// the other additions to routes. A control plane that does not know the word ignores it.
const CAPABILITIES: &str = "routes";

/// Codes after which asking again changes nothing.
const USELESS: &[Code] = &[Code::InvalidArgument, Code::FailedPrecondition];

/// The same for the client's policy, where "not found" is an answer, and a control plane may
/// lack the service.
const NO_POLICY: &[Code] = &[
    Code::InvalidArgument,
    Code::FailedPrecondition,
    Code::NotFound,
    Code::Unimplemented,
];

/// The same for profiles.
const NO_PROFILE: &[Code] = &[
    Code::InvalidArgument,
    Code::FailedPrecondition,
    Code::Unimplemented,
];

/// Keep a port's policy current. Once the control plane has given one, the environment's
/// default never takes its place: that could let in whom the policy shuts out.
pub(crate) async fn port(
    port: u16,
    channel: ControlChannel,
    settings: Arc<Settings>,
    publisher: Publisher<ServerState>,
) {
    let follow = Follow {
        channel,
        path: "/io.linkerd.proxy.inbound.InboundServerPolicies/WatchPort",
        request: PortSpec {
            workload: settings.workload.clone(),
            port: port.into(),
        },
        limits: settings.policy_limits,
        backoff: settings.inbound_backoff,
        terminal: USELESS,
        capabilities: None,
    };
    let mut last = Last::default();
    let mut pending = true;
    let mut before: Option<Arc<ServerPolicy>> = None;
    ask(
        follow,
        &publisher,
        settings.idle,
        |heard: Heard<Server>| match heard {
            Heard::Message { message, .. } => {
                pending = false;
                if last.differs(&message) {
                    let policy = ServerPolicy::from_proto(message);
                    if let inbound::Protocol::Invalid(why) = &policy.protocol {
                        warn!(port, %why, "the port's policy makes no sense; refusing everything");
                    }
                    let policy = Arc::new(match &before {
                        Some(before) => policy.in_place_of(before),
                        None => policy,
                    });
                    before = Some(policy.clone());
                    publisher.publish(ServerState::Known(policy));
                }
            }
            Heard::Refused { status, .. } if pending => {
                pending = false;
                info!(
                    port,
                    why = status.message(),
                    "no policy for the port; its default holds"
                );
                publisher.publish(ServerState::Known(settings.default_policy(port)));
            }
            Heard::Refused { .. } => {}
        },
    )
    .await;
}

/// Keep current where traffic to an address or a name goes.
pub(crate) async fn outbound(
    subject: Subject,
    policy: ControlChannel,
    destination: ControlChannel,
    settings: Arc<Settings>,
    publisher: Publisher<OutboundState>,
) {
    let has_profile = settings.has_profile(&subject);
    let answers = Mutex::new(Destination::new(subject.clone(), has_profile));
    let by_policy = client_policy(&subject, policy, &settings, &publisher, &answers);
    if has_profile {
        let by_profile = profile(&subject, destination, &settings, &publisher, &answers);
        tokio::join!(by_policy, by_profile);
    } else {
        by_policy.await;
    }
}

async fn client_policy(
    subject: &Subject,
    channel: ControlChannel,
    settings: &Settings,
    publisher: &Publisher<OutboundState>,
    answers: &Mutex<Destination>,
) {
    let follow = Follow {
        channel,
        path: "/io.linkerd.proxy.outbound.OutboundPolicies/Watch",
        request: TrafficSpec {
            source_workload: settings.workload.clone(),
            target: Some(match subject {
                Subject::Addr(addr) => Target::Addr(tcp_address(*addr)),
                Subject::Name(name) => Target::Authority(name.to_string()),
            }),
        },
        limits: settings.policy_limits,
        backoff: settings.outbound_backoff,
        terminal: NO_POLICY,
        capabilities: Some(CAPABILITIES),
    };
    let mut last = Last::default();
    let show = |answer| {
        if let Some(state) = answers.lock().policy(answer) {
            publisher.publish(state);
        }
    };
    ask(follow, publisher, settings.idle, |heard: Heard<OutboundPolicy>| match heard {
        Heard::Message { message, .. } => {
            if last.differs(&message) {
                let policy = ClientPolicy::from_proto(message);
                if let outbound::Protocol::Invalid(why) = &policy.protocol {
                    warn!(destination = %subject, %why, "the destination's policy makes no sense; refusing everything");
                }
                show(Answer::Known(Arc::new(policy)));
            }
        }
        Heard::Refused { times, .. } if withstands(answers.lock().has_policy(), times) => {}
        Heard::Refused { status, times } => {
            if last.forget() || times == 1 {
                show(match status.code() {
                    Code::NotFound | Code::Unimplemented => Answer::Nothing,
                    _ => Answer::Refused(status.message().to_owned()),
                });
            }
        }
    })
    .await;
}

async fn profile(
    subject: &Subject,
    channel: ControlChannel,
    settings: &Settings,
    publisher: &Publisher<OutboundState>,
    answers: &Mutex<Destination>,
) {
    let follow = Follow {
        channel,
        path: "/io.linkerd.proxy.destination.Destination/GetProfile",
        request: get(&subject.to_string(), settings),
        limits: settings.destination_limits,
        backoff: settings.outbound_backoff,
        terminal: NO_PROFILE,
        capabilities: None,
    };
    let mut last = Last::default();
    let show = |answer| {
        if let Some(state) = answers.lock().profile(answer) {
            publisher.publish(state);
        }
    };
    ask(
        follow,
        publisher,
        settings.idle,
        |heard: Heard<DestinationProfile>| match heard {
            Heard::Message { message, .. } => {
                if last.differs(&message) {
                    show(Answer::Known(message));
                }
            }
            Heard::Refused { times, .. } if withstands(answers.lock().has_profile(), times) => {}
            Heard::Refused { times, .. } => {
                if last.forget() || times == 1 {
                    show(Answer::Nothing);
                }
            }
        },
    )
    .await;
}

/// Keep the endpoints of a name current.
pub(crate) async fn endpoints(
    path: Arc<str>,
    channel: ControlChannel,
    settings: Arc<Settings>,
    publisher: Publisher<EndpointsState>,
) {
    let follow = Follow {
        channel,
        path: "/io.linkerd.proxy.destination.Destination/Get",
        request: get(&path, &settings),
        limits: settings.destination_limits,
        backoff: settings.outbound_backoff,
        terminal: USELESS,
        capabilities: None,
    };
    let mut set = EndpointSet::default();
    ask(follow, &publisher, settings.idle, |heard: Heard<Update>| match heard {
        Heard::Message { message, fresh } => {
            if fresh {
                set.begin();
            }
            if let Some(endpoints) = set.apply(message) {
                publisher.publish(EndpointsState::Known(endpoints));
            }
        }
        Heard::Refused { status, .. } if set.is_unknown() => {
            warn!(%path, why = status.message(), "the control plane has no endpoints for this name");
            let none = set.clear();
            publisher.publish(EndpointsState::Known(none));
        }
        Heard::Refused { .. } => {}
    })
    .await;
}

/// What is known outlives one answer that there is nothing: a control plane that comes back
/// may give it before it knows anything itself. It does not outlive two, given apart.
const fn withstands(known: bool, times: u32) -> bool {
    known && times == 1
}

fn get(path: &str, settings: &Settings) -> GetDestination {
    GetDestination {
        scheme: String::new(),
        path: path.to_owned(),
        context_token: settings.context.clone(),
    }
}

fn tcp_address(addr: SocketAddr) -> TcpAddress {
    let ip = match addr.ip() {
        IpAddr::V4(ip) => Ip::Ipv4(ip.to_bits()),
        #[expect(clippy::cast_possible_truncation, reason = "the halves are meant")]
        IpAddr::V6(ip) => Ip::Ipv6(IPv6 {
            first: (ip.to_bits() >> 64) as u64,
            last: ip.to_bits() as u64,
        }),
    };
    TcpAddress {
        ip: Some(IpAddress { ip: Some(ip) }),
        port: addr.port().into(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Handle;
    use tulle_config::{ClientH2, Config, HostPort};

    use super::*;
    use crate::{Dial, DialError, Dialed, view};

    struct Nowhere;

    impl Dial for Nowhere {
        async fn dial(&self) -> Result<Dialed, DialError> {
            std::future::pending().await
        }
    }

    fn settings() -> Arc<Settings> {
        let lookup = |name: &str| match name.trim_start_matches("LINKERD2_PROXY_") {
            "DESTINATION_SVC_ADDR" | "POLICY_SVC_ADDR" | "IDENTITY_SVC_ADDR" => Some("[::1]:1"),
            "POLICY_WORKLOAD" | "IDENTITY_TOKEN_FILE" | "IDENTITY_LOCAL_NAME" => Some("x"),
            "IDENTITY_TRUST_ANCHORS" => Some("-----BEGIN CERTIFICATE-----"),
            _ => None,
        };
        let config = Config::from_env(|name| lookup(name).map(str::to_owned)).unwrap();
        Arc::new(Settings::new(&config))
    }

    #[tokio::test]
    async fn a_task_takes_at_most_two_kilobytes_per_stream() {
        let addr = HostPort {
            host: "nowhere".into(),
            port: 1,
        };
        let windows = ClientH2 {
            initial_stream_window: 65_535,
            initial_connection_window: 65_535,
        };
        let channel = ControlChannel::new(&addr, Nowhere, windows, &Handle::current());
        let settings = settings();

        let of_port = port(
            80,
            channel.clone(),
            settings.clone(),
            view(ServerState::Pending).0,
        );
        let (publisher, _) = view(EndpointsState::Pending);
        let of_name = endpoints(
            "web:80".into(),
            channel.clone(),
            settings.clone(),
            publisher,
        );
        let (publisher, _) = view(OutboundState::Pending);
        let addr = Subject::Addr(([10, 0, 0, 1], 80).into());
        let of_addr = outbound(addr, channel.clone(), channel, settings, publisher);

        let sizes = [
            size_of_val(&of_port),
            size_of_val(&of_name),
            size_of_val(&of_addr) / 2,
        ];
        assert!(sizes.iter().all(|size| *size <= 2048), "{sizes:?}");
    }
}

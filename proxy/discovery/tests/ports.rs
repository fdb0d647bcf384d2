//! Whom the workload's ports let in.

mod support;

use std::time::Duration;

use support::discovery;
use tokio::time::{sleep, timeout};
use tonic::Status;
use tulle_api::inbound::{PortSpec, Server};
use tulle_discovery::{Discovery, ServerState};
use tulle_policy::inbound::Protocol;
use tulle_testkit::{ControlPlane, Subscriber, messages::server};

/// The name of the policy in force; what makes no sense has none.
async fn name(discovery: &Discovery, port: u16) -> String {
    sleep(Duration::from_secs(1)).await;
    match &*discovery.server(port).get() {
        ServerState::Pending => "pending".to_owned(),
        ServerState::Known(policy) => match &policy.protocol {
            Protocol::Invalid(_) => "invalid".to_owned(),
            Protocol::Opaque => format!("opaque {}", policy.meta.name),
            _ => policy.meta.name.to_string(),
        },
    }
}

/// The stream of a port, past the admin port's.
async fn stream(plane: &ControlPlane, port: u32) -> Subscriber<PortSpec, Server> {
    loop {
        let stream = plane.port().await;
        if stream.request.port == port {
            return stream;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_ports_that_the_configuration_names_are_asked_for_at_once_and_make_ready() {
    let plane = ControlPlane::new();
    let discovery = discovery(&plane, &[("INBOUND_PORTS", "8080")]);

    let (first, second) = (plane.port().await, plane.port().await);
    assert_eq!(first.request.workload, "workload");
    let mut ports = [first.request.port, second.request.port];
    ports.sort_unstable();
    assert_eq!(ports, [4191, 8080]);

    first.send(server("a")).await;
    let minute = Duration::from_mins(1);
    assert!(
        timeout(minute, discovery.ready()).await.is_err(),
        "one port is not known"
    );
    second.send(server("b")).await;
    assert!(timeout(minute, discovery.ready()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_port_is_unknown_until_the_first_message_and_follows_every_one() {
    let plane = ControlPlane::new();
    let discovery = discovery(&plane, &[]);
    assert_eq!(name(&discovery, 80).await, "pending");

    let stream = stream(&plane, 80).await;
    stream.send(server("a")).await;
    assert_eq!(name(&discovery, 80).await, "a");
    stream.send(server("b")).await;
    assert_eq!(name(&discovery, 80).await, "b");

    let generation = discovery.server(80).generation();
    stream.send(server("b")).await;
    assert_eq!(name(&discovery, 80).await, "b");
    assert_eq!(discovery.server(80).generation(), generation);
}

#[tokio::test(start_paused = true)]
async fn a_port_that_the_control_plane_refuses_has_the_default_policy() {
    let plane = ControlPlane::new();
    let extra = [
        ("INBOUND_DEFAULT_POLICY", "deny"),
        ("INBOUND_PORTS_DISABLE_PROTOCOL_DETECTION", "25"),
    ];
    let discovery = discovery(&plane, &extra);
    for port in [80, 25] {
        let _ = discovery.server(port);
        stream(&plane, port.into())
            .await
            .fail(Status::invalid_argument(""))
            .await;
    }

    assert_eq!(name(&discovery, 80).await, "deny");
    assert_eq!(name(&discovery, 25).await, "opaque deny");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_pod_is_asked_for_until_it_is_known() {
    let plane = ControlPlane::new();
    let discovery = discovery(&plane, &[]);
    let _ = discovery.server(80);

    for _ in 0..5 {
        stream(&plane, 80).await.fail(Status::not_found("")).await;
        assert_eq!(name(&discovery, 80).await, "pending");
    }
    stream(&plane, 80).await.send(server("a")).await;

    assert_eq!(name(&discovery, 80).await, "a");
}

#[tokio::test(start_paused = true)]
async fn the_default_never_takes_the_place_of_a_policy() {
    let plane = ControlPlane::new();
    let discovery = discovery(&plane, &[]);
    let _ = discovery.server(80);
    stream(&plane, 80).await.send(server("strict")).await;
    assert_eq!(name(&discovery, 80).await, "strict");

    plane.stop();
    assert_eq!(name(&discovery, 80).await, "strict");
    plane.start();
    for _ in 0..3 {
        stream(&plane, 80)
            .await
            .fail(Status::invalid_argument(""))
            .await;
    }

    assert_eq!(name(&discovery, 80).await, "strict");
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_makes_no_sense_refuses_everything() {
    let plane = ControlPlane::new();
    let discovery = discovery(&plane, &[]);
    let _ = discovery.server(80);
    let stream = stream(&plane, 80).await;
    stream.send(server("a")).await;

    stream
        .send(Server {
            protocol: None,
            ..server("a")
        })
        .await;

    assert_eq!(name(&discovery, 80).await, "invalid");
}

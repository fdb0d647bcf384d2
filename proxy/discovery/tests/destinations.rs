//! Where traffic to an address goes, by what the policy and the profile say.

mod support;

use std::{net::SocketAddr, time::Duration};

use support::discovery;
use tokio::time::{sleep, timeout};
use tonic::{Code, Status};
use tulle_api::{destination::DestinationProfile, outbound::traffic_spec::Target};
use tulle_core::Reason;
use tulle_discovery::{OutboundState, Seen, View};
use tulle_policy::{BackendKind, outbound::Protocol};
use tulle_testkit::{
    ControlPlane,
    messages::{endpoint_of, endpoint_profile, service_meta, service_policy},
};

/// What a state is, in a word or two.
fn word(state: &OutboundState) -> String {
    let policy = match state {
        OutboundState::Pending => return "pending".to_owned(),
        OutboundState::Refused(refusal) => return refusal.reason.code().to_owned(),
        OutboundState::Known(policy) => policy,
    };
    let protocol = match &policy.protocol {
        Protocol::Detect { .. } => "detect",
        Protocol::Opaque(_) => "opaque",
        Protocol::Invalid(_) => return "invalid".to_owned(),
        _ => "other",
    };
    match &policy.backends()[0].kind {
        BackendKind::Forward(to) => {
            let id = to.tls.as_ref().map_or("nobody", |tls| tls.id.as_str());
            format!("{protocol} {} {id}", to.addr)
        }
        BackendKind::Balance { path, .. } => format!("{protocol} {path}"),
        BackendKind::Fail => "fail".to_owned(),
    }
}

async fn known(view: &View<OutboundState>) -> String {
    let decided =
        |state: &OutboundState| (!matches!(state, OutboundState::Pending)).then(|| word(state));
    timeout(Duration::from_mins(1), view.until(decided))
        .await
        .expect("decided within a minute")
}

async fn pending(view: &View<OutboundState>) -> bool {
    sleep(Duration::from_secs(1)).await;
    word(&view.get()) == "pending"
}

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("address:port")
}

fn opaque() -> DestinationProfile {
    DestinationProfile {
        opaque_protocol: true,
        ..DestinationProfile::default()
    }
}

#[tokio::test(start_paused = true)]
async fn the_policy_rules_once_both_answers_are_there() {
    let plane = ControlPlane::new();
    let discovery = discovery(&plane, &[]);
    let view = discovery.outbound(addr("10.1.0.1:80"));
    let policy = plane.policy().await;
    assert_eq!(policy.request.source_workload, "workload");
    assert_eq!(policy.capabilities.as_deref(), Some("routes"));

    policy.send(service_policy("web", "web:80")).await;
    assert!(pending(&view).await);

    let profile = plane.profile().await;
    assert_eq!(profile.request.path, "10.1.0.1:80");
    assert_eq!(profile.capabilities, None);
    profile.send(DestinationProfile::default()).await;
    assert_eq!(known(&view).await, "detect web:80");
}

#[tokio::test(start_paused = true)]
async fn a_profile_that_is_refused_is_an_answer_and_one_that_is_away_is_none() {
    for (code, answers) in [
        (Code::InvalidArgument, true),
        (Code::FailedPrecondition, true),
        (Code::Unimplemented, true),
        (Code::NotFound, false),
        (Code::Unavailable, false),
        (Code::Unknown, false),
    ] {
        let plane = ControlPlane::new();
        let discovery = discovery(&plane, &[]);
        let view = discovery.outbound(addr("10.1.0.1:80"));
        plane
            .policy()
            .await
            .send(service_policy("web", "web:80"))
            .await;

        plane.profile().await.fail(Status::new(code, "")).await;

        assert_eq!(pending(&view).await, !answers, "{code:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_profile_is_asked_for_outside_the_profile_networks() {
    let plane = ControlPlane::new();
    let discovery = discovery(&plane, &[]);
    let view = discovery.outbound(addr("192.0.2.1:80"));

    plane
        .policy()
        .await
        .send(service_policy("web", "web:80"))
        .await;

    assert_eq!(known(&view).await, "detect web:80");
    assert!(plane.waiting_profile().is_none());
}

#[tokio::test(start_paused = true)]
async fn an_opaque_profile_makes_the_policy_opaque_and_back() {
    let plane = ControlPlane::new();
    let discovery = discovery(&plane, &[]);
    let view = discovery.outbound(addr("10.1.0.1:80"));
    plane
        .policy()
        .await
        .send(service_policy("web", "web:80"))
        .await;
    let profile = plane.profile().await;

    profile.send(opaque()).await;
    assert_eq!(known(&view).await, "opaque web:80");

    let mut seen = Seen::default();
    view.changed(&mut seen).await;
    profile.send(DestinationProfile::default()).await;
    assert_eq!(word(&*view.changed(&mut seen).await), "detect web:80");
}

#[tokio::test(start_paused = true)]
async fn without_a_policy_the_profile_stands_in_and_without_both_the_address_itself() {
    let of_service = DestinationProfile {
        fully_qualified_name: "web.shop.svc.cluster.local".to_owned(),
        parent_ref: Some(service_meta("web")),
        ..DestinationProfile::default()
    };
    let of_endpoint = endpoint_profile(endpoint_of("10.1.0.1:80", "web.shop"));
    let opaque_endpoint = DestinationProfile {
        opaque_protocol: true,
        ..of_endpoint.clone()
    };
    for (code, profile, expected) in [
        (
            Code::NotFound,
            Some(of_endpoint.clone()),
            "detect 10.1.0.1:80 web.shop",
        ),
        (
            Code::Unimplemented,
            Some(of_endpoint),
            "detect 10.1.0.1:80 web.shop",
        ),
        (
            Code::NotFound,
            Some(opaque_endpoint),
            "opaque 10.1.0.1:80 web.shop",
        ),
        (
            Code::NotFound,
            Some(of_service),
            "detect web.shop.svc.cluster.local:80",
        ),
        (
            Code::NotFound,
            Some(DestinationProfile::default()),
            "detect 10.1.0.1:80 nobody",
        ),
        (Code::NotFound, None, "detect 10.1.0.1:80 nobody"),
    ] {
        let plane = ControlPlane::new();
        let discovery = discovery(&plane, &[]);
        let view = discovery.outbound(addr("10.1.0.1:80"));

        plane.policy().await.fail(Status::new(code, "")).await;
        let stream = plane.profile().await;
        match profile {
            Some(profile) => stream.send(profile).await,
            None => stream.fail(Status::invalid_argument("")).await,
        }

        assert_eq!(known(&view).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_bad_question_refuses_the_connection() {
    for code in [Code::InvalidArgument, Code::FailedPrecondition] {
        let plane = ControlPlane::new();
        let discovery = discovery(&plane, &[]);
        let view = discovery.outbound(addr("192.0.2.1:80"));

        plane
            .policy()
            .await
            .fail(Status::new(code, "bad workload"))
            .await;

        assert_eq!(known(&view).await, Reason::PolicyInvalid.code());
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_makes_no_sense_takes_the_place_of_the_last_good_one() {
    let plane = ControlPlane::new();
    let discovery = discovery(&plane, &[]);
    let view = discovery.outbound(addr("192.0.2.1:80"));
    let stream = plane.policy().await;
    stream.send(service_policy("web", "web:80")).await;
    let mut seen = Seen::default();
    view.changed(&mut seen).await;
    known(&view).await;

    let mut nonsense = service_policy("web", "web:80");
    nonsense.metadata = None;
    stream.send(nonsense).await;

    view.changed(&mut seen).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(word(&view.get()), "invalid");
}

#[tokio::test(start_paused = true)]
async fn a_repetition_wakes_nobody() {
    let plane = ControlPlane::new();
    let discovery = discovery(&plane, &[]);
    let view = discovery.outbound(addr("10.1.0.1:80"));
    let (policy, profile) = (plane.policy().await, plane.profile().await);
    policy.send(service_policy("web", "web:80")).await;
    profile.send(DestinationProfile::default()).await;
    known(&view).await;
    let generation = view.generation();

    policy.send(service_policy("web", "web:80")).await;
    profile.send(DestinationProfile::default()).await;
    // Of a service's profile nothing but "opaque" counts.
    profile
        .send(endpoint_profile(endpoint_of("10.1.0.1:80", "web.shop")))
        .await;
    sleep(Duration::from_secs(1)).await;

    assert_eq!(view.generation(), generation);
}

#[tokio::test(start_paused = true)]
async fn what_is_known_survives_a_restart_and_one_hasty_not_found() {
    let plane = ControlPlane::new();
    let discovery = discovery(&plane, &[]);
    let view = discovery.outbound(addr("192.0.2.1:80"));
    plane
        .policy()
        .await
        .send(service_policy("web", "web:80"))
        .await;
    known(&view).await;
    let generation = view.generation();

    plane.stop();
    sleep(Duration::from_mins(2)).await;
    plane.start();
    plane.policy().await.fail(Status::not_found("")).await;
    plane
        .policy()
        .await
        .send(service_policy("web", "web:80"))
        .await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(view.generation(), generation);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_stays_gone_is_believed_to_be_gone() {
    let plane = ControlPlane::new();
    let discovery = discovery(&plane, &[]);
    let view = discovery.outbound(addr("192.0.2.1:80"));
    let stream = plane.policy().await;
    stream.send(service_policy("web", "web:80")).await;
    known(&view).await;

    stream.fail(Status::not_found("")).await;
    plane.policy().await.fail(Status::not_found("")).await;
    sleep(Duration::from_secs(1)).await;

    assert_eq!(word(&view.get()), "detect 192.0.2.1:80 nobody");
}

#[tokio::test(start_paused = true)]
async fn an_address_that_was_unknown_is_asked_for_again_when_it_is_used_again() {
    let plane = ControlPlane::new();
    let discovery = discovery(&plane, &[]);
    let view = discovery.outbound(addr("192.0.2.1:80"));
    plane.policy().await.fail(Status::not_found("")).await;
    assert_eq!(known(&view).await, "detect 192.0.2.1:80 nobody");
    drop(view);
    sleep(Duration::from_hours(1)).await;
    assert!(plane.waiting_policy().is_none(), "nobody is interested");

    let view = discovery.outbound(addr("192.0.2.1:80"));
    plane
        .policy()
        .await
        .send(service_policy("web", "web:80"))
        .await;
    sleep(Duration::from_secs(1)).await;

    assert_eq!(word(&view.get()), "detect web:80");
}

#[tokio::test(start_paused = true)]
async fn a_profile_with_overrides_sends_a_services_traffic_elsewhere() {
    let plane = ControlPlane::new();
    let discovery = discovery(&plane, &[]);
    let view = discovery.outbound(addr("10.1.0.1:80"));
    let policy = plane.policy().await;
    let profile = plane.profile().await;
    policy.send(service_policy("web", "web:80")).await;
    let plain = DestinationProfile {
        fully_qualified_name: "web.shop.svc.cluster.local".into(),
        ..DestinationProfile::default()
    };
    profile.send(plain.clone()).await;
    assert_eq!(known(&view).await, "detect web:80");

    let overrides = vec![tulle_api::destination::WeightedDst {
        authority: "web-2.shop.svc.cluster.local:80".into(),
        weight: 1,
        backend_ref: None,
    }];
    profile
        .send(DestinationProfile {
            dst_overrides: overrides,
            ..plain.clone()
        })
        .await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(known(&view).await, "detect web-2.shop.svc.cluster.local:80");

    profile.send(plain).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(known(&view).await, "detect web:80");
}

#[tokio::test(start_paused = true)]
async fn a_name_is_asked_for_by_its_authority() {
    let plane = ControlPlane::new();
    let discovery = discovery(&plane, &[]);
    let view = discovery.named(&"web.shop.svc.cluster.local:8080".into());
    let policy = plane.policy().await;
    let Some(Target::Authority(asked)) = &policy.request.target else {
        panic!("{:?}", policy.request);
    };
    assert_eq!(asked, "web.shop.svc.cluster.local:8080");
    let profile = plane.profile().await;
    assert_eq!(profile.request.path, "web.shop.svc.cluster.local:8080");

    let known_by_profile = DestinationProfile {
        fully_qualified_name: "web.shop.svc.cluster.local".into(),
        ..DestinationProfile::default()
    };
    profile.send(known_by_profile).await;
    assert!(pending(&view).await);
    policy.fail(Status::not_found("no policy by name")).await;

    assert_eq!(known(&view).await, "detect web.shop.svc.cluster.local:8080");
}

#[tokio::test(start_paused = true)]
async fn a_name_that_the_control_plane_does_not_know_leads_nowhere() {
    let plane = ControlPlane::new();
    let discovery = discovery(&plane, &[]);
    for name in ["nowhere.example:80", "nowhere.shop.svc.cluster.local:80"] {
        let view = discovery.named(&name.into());

        plane.policy().await.fail(Status::not_found("no")).await;

        assert_eq!(known(&view).await, "route_not_found");
    }
}

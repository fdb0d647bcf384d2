//! What becomes of a name's endpoints over the lives of streams and control planes.

mod support;

use std::{sync::Arc, time::Duration};

use support::discovery;
use tokio::time::{Instant, sleep, timeout};
use tonic::Status;
use tulle_api::destination::{GetDestination, Update};
use tulle_discovery::{EndpointsState, Seen, View};
use tulle_testkit::{
    ControlPlane, Subscriber,
    messages::{add, endpoint, endpoint_of, no_endpoints, remove},
};

fn addrs(state: &EndpointsState) -> Option<Vec<String>> {
    match state {
        EndpointsState::Pending => None,
        EndpointsState::Known(known) => Some(
            known
                .iter()
                .map(|endpoint| endpoint.addr.to_string())
                .collect(),
        ),
    }
}

/// The next change, as addresses.
async fn next(view: &View<EndpointsState>, seen: &mut Seen) -> Vec<String> {
    loop {
        if let Some(known) = addrs(&*view.changed(seen).await) {
            return known;
        }
    }
}

/// Whether nothing changes for longer than any pause.
async fn nothing_changes(view: &View<EndpointsState>, seen: &mut Seen) -> bool {
    timeout(Duration::from_mins(1), view.changed(seen))
        .await
        .is_err()
}

/// Answer this many streams and keep them open.
async fn answer(plane: &ControlPlane, count: usize) -> Vec<Subscriber<GetDestination, Update>> {
    let mut streams = Vec::new();
    while streams.len() < count {
        let stream = plane.endpoints().await;
        stream.send(add(vec![endpoint("10.0.0.1:80")])).await;
        streams.push(stream);
    }
    streams
}

fn path(text: &str) -> Arc<str> {
    text.into()
}

#[tokio::test(start_paused = true)]
async fn later_messages_of_a_stream_add_and_remove() {
    let plane = ControlPlane::new();
    let discovery = discovery(&plane, &[]);
    let view = discovery.endpoints(&path("web:80"));
    let mut seen = Seen::default();
    let stream = plane.endpoints().await;
    assert_eq!(stream.request.path, "web:80");
    assert_eq!(stream.request.context_token, "context");

    stream.send(add(vec![endpoint("10.0.0.1:80")])).await;
    assert_eq!(next(&view, &mut seen).await, ["10.0.0.1:80"]);
    stream.send(add(vec![endpoint("10.0.0.2:80")])).await;
    assert_eq!(next(&view, &mut seen).await, ["10.0.0.1:80", "10.0.0.2:80"]);
    stream.send(remove(&["10.0.0.1:80"])).await;
    assert_eq!(next(&view, &mut seen).await, ["10.0.0.2:80"]);
    stream.send(no_endpoints()).await;
    assert_eq!(next(&view, &mut seen).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_restarted_control_plane_changes_nothing_until_it_speaks_and_then_replaces_all() {
    let plane = ControlPlane::new();
    let discovery = discovery(&plane, &[]);
    let view = discovery.endpoints(&path("web:80"));
    let mut seen = Seen::default();
    let stream = plane.endpoints().await;
    stream
        .send(add(vec![endpoint("10.0.0.1:80"), endpoint("10.0.0.2:80")]))
        .await;
    assert_eq!(next(&view, &mut seen).await.len(), 2);

    plane.stop();
    assert!(nothing_changes(&view, &mut seen).await);
    plane.start();
    let back = Instant::now();
    let stream = plane.endpoints().await;
    assert!(
        back.elapsed() < Duration::from_secs(5),
        "{:?}",
        back.elapsed()
    );
    assert!(nothing_changes(&view, &mut seen).await);

    stream.send(add(vec![endpoint("10.0.0.3:80")])).await;
    assert_eq!(next(&view, &mut seen).await, ["10.0.0.3:80"]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_or_fails_is_opened_again_and_empties_nothing() {
    let plane = ControlPlane::new();
    let discovery = discovery(&plane, &[]);
    let view = discovery.endpoints(&path("web:80"));
    let mut seen = Seen::default();
    plane
        .endpoints()
        .await
        .send(add(vec![endpoint("10.0.0.1:80")]))
        .await;
    assert_eq!(next(&view, &mut seen).await.len(), 1);

    for status in [
        Status::ok(""),
        Status::unavailable(""),
        Status::not_found(""),
        Status::internal(""),
    ] {
        plane.endpoints().await.fail(status).await;
    }
    // Of a protocol error nothing is believed either.
    plane.endpoints().await.send(remove(&["10.0.0.1:80"])).await;

    assert!(nothing_changes(&view, &mut seen).await);
}

#[tokio::test(start_paused = true)]
async fn a_repetition_wakes_nobody_and_a_change_of_identity_does() {
    let plane = ControlPlane::new();
    let discovery = discovery(&plane, &[]);
    let view = discovery.endpoints(&path("web:80"));
    let mut seen = Seen::default();
    let stream = plane.endpoints().await;
    stream
        .send(add(vec![endpoint("10.0.0.1:80"), endpoint("10.0.0.2:80")]))
        .await;
    assert_eq!(next(&view, &mut seen).await.len(), 2);
    let EndpointsState::Known(before) = (*view.get()).clone() else {
        unreachable!()
    };

    stream.send(add(vec![endpoint("10.0.0.2:80")])).await;
    stream.send(remove(&["10.0.0.9:80"])).await;
    stream.send(add(Vec::new())).await;
    assert!(nothing_changes(&view, &mut seen).await);

    stream
        .send(add(vec![endpoint_of("10.0.0.2:80", "web.shop")]))
        .await;
    assert_eq!(next(&view, &mut seen).await.len(), 2);
    let EndpointsState::Known(after) = (*view.get()).clone() else {
        unreachable!()
    };
    assert!(
        Arc::ptr_eq(&before[0], &after[0]),
        "the unchanged one is the same one"
    );
    assert!(after[1].tls.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_refused_has_no_endpoints_unless_some_are_known() {
    let plane = ControlPlane::new();
    let discovery = discovery(&plane, &[]);
    let unknown = discovery.endpoints(&path("nonsense"));
    plane
        .endpoints()
        .await
        .fail(Status::invalid_argument("no such thing"))
        .await;
    assert_eq!(next(&unknown, &mut Seen::default()).await, [""; 0]);

    let known = discovery.endpoints(&path("web:80"));
    let mut seen = Seen::default();
    let stream = plane.endpoints().await;
    stream.send(add(vec![endpoint("10.0.0.1:80")])).await;
    assert_eq!(next(&known, &mut seen).await.len(), 1);
    stream.fail(Status::failed_precondition("")).await;
    assert!(nothing_changes(&known, &mut seen).await);
}

#[tokio::test(start_paused = true)]
async fn more_streams_than_a_connection_may_carry_get_further_connections() {
    let plane = ControlPlane::new();
    let discovery = discovery(&plane, &[]);

    // The server's limit is 200, and one stream is the admin port's.
    let views: Vec<_> = (0..450)
        .map(|name| discovery.endpoints(&path(&format!("{name}:80"))))
        .collect();
    let _streams = answer(&plane, views.len()).await;
    for view in &views {
        assert_eq!(next(view, &mut Seen::default()).await.len(), 1);
    }

    assert_eq!(plane.connections(), 3);
}

#[tokio::test(start_paused = true)]
async fn streams_that_back_off_come_back_together_when_one_of_them_hears_something() {
    let plane = ControlPlane::new();
    let discovery = discovery(&plane, &[]);
    let views: Vec<_> = (0..20)
        .map(|name| discovery.endpoints(&path(&format!("{name}:80"))))
        .collect();
    // Something between answers for a control plane that is down, for three minutes.
    let down = Instant::now();
    let mut asked = 0;
    while down.elapsed() < Duration::from_mins(3) {
        plane
            .endpoints()
            .await
            .fail(Status::unavailable("no route"))
            .await;
        asked += 1;
    }
    assert!(asked < 500, "asked {asked} times");

    let back = Instant::now();
    let _streams = answer(&plane, views.len()).await;
    for view in &views {
        next(view, &mut Seen::default()).await;
    }

    assert!(
        back.elapsed() < Duration::from_secs(5),
        "{:?}",
        back.elapsed()
    );
}

const LIMITS: [(&str, &str); 3] = [
    ("CONTROL_STREAM_INITIAL_TIMEOUT", "3s"),
    ("CONTROL_STREAM_IDLE_TIMEOUT", "5m"),
    ("CONTROL_STREAM_LIFETIME", "1h"),
];

#[tokio::test(start_paused = true)]
async fn a_stream_without_a_first_message_is_opened_again_soon_and_as_often_as_it_takes() {
    let plane = ControlPlane::new();
    let discovery = discovery(&plane, &LIMITS);
    let view = discovery.endpoints(&path("web:80"));

    let begun = Instant::now();
    for _ in 0..20 {
        plane.endpoints().await.left().await;
    }
    assert!(
        begun.elapsed() > Duration::from_secs(59),
        "{:?}",
        begun.elapsed()
    );
    assert!(
        begun.elapsed() < Duration::from_secs(63),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(*view.get(), EndpointsState::Pending);

    plane.endpoints().await.send(no_endpoints()).await;
    assert_eq!(next(&view, &mut Seen::default()).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_left_when_it_is_idle_or_old_and_what_it_said_stays() {
    let plane = ControlPlane::new();
    let discovery = discovery(&plane, &LIMITS);
    let view = discovery.endpoints(&path("web:80"));
    let mut seen = Seen::default();
    let stream = plane.endpoints().await;
    stream.send(add(vec![endpoint("10.0.0.1:80")])).await;
    next(&view, &mut seen).await;

    let begun = Instant::now();
    stream.left().await;
    assert_eq!(begun.elapsed().as_secs(), 300);

    let stream = plane.endpoints().await;
    let begun = Instant::now();
    while !stream.has_left() {
        stream.send(add(vec![endpoint("10.0.0.1:80")])).await;
        sleep(Duration::from_mins(1)).await;
    }
    assert!(
        (3600..=3660).contains(&begun.elapsed().as_secs()),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(next(&view, &mut Seen::default()).await, ["10.0.0.1:80"]);
}

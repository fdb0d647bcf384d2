//! A proxy's certificate over its life, with a control plane that the test plays.

use std::{path::PathBuf, time::Duration};

use tokio::time::{Instant, sleep, timeout};
use tonic::Status;
use tulle_api::{
    identity::{CertifyRequest, CertifyResponse},
    trust::{Report, State},
};
use tulle_config::{ControlAddr, HostPort};
use tulle_core::Id;
use tulle_identity::{Identity, IdentityError};
use tulle_metrics::Registry;
use tulle_testkit::{Asked, Authority, ControlPlane, TrustCall};
use tulle_tls::Store;

const NAME: &str = "web.shop.serviceaccount.identity.linkerd.cluster.local";
const HOUR: Duration = Duration::from_hours(1);
const SECOND: Duration = Duration::from_secs(1);

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("tulle-identity-{}-{test}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary folder");
        Self(path)
    }

    fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).expect("the folder is there");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct Proxy {
    plane: ControlPlane,
    store: Store,
    registry: Registry,
    folder: Folder,
    _task: tokio::task::JoinSet<()>,
}

fn config(folder: &Folder, authority: &Authority) -> tulle_config::Identity {
    tulle_config::Identity {
        dir: Some(folder.0.clone()),
        token_file: folder.0.join("token"),
        trust_anchors_pem: authority.roots_pem(),
        local_name: Id::new(NAME),
        server: ControlAddr {
            addr: HostPort {
                host: "127.0.0.1".into(),
                port: 8080,
            },
            name: None,
            loopback: true,
        },
        min_refresh: Duration::from_secs(10),
        max_refresh: 24 * HOUR,
    }
}

fn start(test: &str, plane: ControlPlane, authority: &Authority) -> Proxy {
    let folder = Folder::new(test);
    folder.write("token", b"first\n");
    let (store, registry) = (Store::new(), Registry::new());
    let identity = Identity::new(&config(&folder, authority), "workload", &store, &registry)
        .expect("a new key");
    let mut task = tokio::task::JoinSet::new();
    task.spawn(identity.run(plane.channel()));
    Proxy {
        plane,
        store,
        registry,
        folder,
        _task: task,
    }
}

impl Proxy {
    /// The next request for a certificate, answered; with how long it took to come.
    async fn certified(
        &self,
        authority: &Authority,
        lifetime: Duration,
    ) -> (Duration, CertifyRequest) {
        let begun = Instant::now();
        let asked = self.asked().await;
        let request = asked.request.clone();
        asked.answer(Ok(authority.certify(&request, lifetime)));
        (begun.elapsed(), request)
    }

    async fn asked(&self) -> Asked<CertifyRequest, CertifyResponse> {
        timeout(48 * HOUR, self.plane.certify())
            .await
            .expect("asked within two days")
    }

    fn metric(&self, line: &str) -> bool {
        self.registry
            .render()
            .lines()
            .any(|rendered| rendered == line)
    }
}

/// The next report.
async fn report(call: &mut TrustCall) -> Report {
    let report = timeout(HOUR, call.reports.message())
        .await
        .expect("reported within an hour");
    report.expect("an open stream").expect("a report")
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).to_vec()
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_asked_for_by_name_and_token_and_published() {
    let authority = Authority::new("root");
    let proxy = start("published", ControlPlane::stock(), &authority);
    assert!(proxy.store.current().is_none());

    let (_, request) = proxy.certified(&authority, HOUR).await;
    let credentials = proxy.store.ready().await;

    assert_eq!(request.identity, NAME);
    assert_eq!(request.token, b"first");
    assert_eq!(credentials.name(), Some(&Id::new(NAME)));
    sleep(SECOND).await;
    assert!(proxy.metric("control_identity_cert_refreshes_total{result=\"ok\"} 1"));
}

#[tokio::test(start_paused = true)]
async fn renewal_is_due_at_70_percent_of_the_life_and_reads_the_token_again() {
    let authority = Authority::new("root");
    let proxy = start("renewal", ControlPlane::stock(), &authority);
    proxy.certified(&authority, HOUR).await;
    proxy.store.ready().await;
    proxy.folder.write("token", b"second");

    let (after, request) = proxy.certified(&authority, HOUR).await;

    let due = HOUR.mul_f64(0.7);
    assert!(after.abs_diff(due) < 2 * SECOND, "{after:?}");
    assert_eq!(request.token, b"second");
}

#[tokio::test(start_paused = true)]
async fn renewal_is_never_sooner_than_the_shortest_refresh_nor_later_than_the_longest() {
    let authority = Authority::new("root");
    let proxy = start("clamped", ControlPlane::stock(), &authority);
    proxy.certified(&authority, 5 * SECOND).await;

    let (after, _) = proxy.certified(&authority, 1000 * HOUR).await;
    assert!(after.abs_diff(10 * SECOND) < SECOND, "{after:?}");

    let (after, _) = proxy.certified(&authority, HOUR).await;
    assert!(after.abs_diff(24 * HOUR) < 2 * SECOND, "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn before_the_first_certificate_failures_are_tried_again_soon_then_every_shortest_refresh() {
    let authority = Authority::new("root");
    let proxy = start("first", ControlPlane::stock(), &authority);

    let mut pauses = Vec::new();
    proxy
        .asked()
        .await
        .answer(Err(Status::unavailable("no issuer")));
    for _ in 0..8 {
        let begun = Instant::now();
        proxy
            .asked()
            .await
            .answer(Err(Status::failed_precondition("who?")));
        pauses.push(begun.elapsed());
    }

    assert!(pauses[0] < Duration::from_millis(300), "{pauses:?}");
    assert!(pauses[..6].is_sorted(), "{pauses:?}");
    assert!(
        pauses[7] >= 10 * SECOND && pauses[7] <= 11 * SECOND,
        "{pauses:?}"
    );
    assert!(proxy.store.current().is_none());
    proxy.certified(&authority, HOUR).await;
    proxy.store.ready().await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_renewal_leaves_the_certificate_and_is_tried_again_every_shortest_refresh() {
    let authority = Authority::new("root");
    let proxy = start("failed", ControlPlane::stock(), &authority);
    proxy.certified(&authority, HOUR).await;
    let before = proxy.store.ready().await;

    for _ in 0..3 {
        proxy.asked().await.answer(Err(Status::unavailable("")));
    }
    let (after, _) = proxy.certified(&authority, HOUR).await;

    assert!(after >= 10 * SECOND && after <= 11 * SECOND, "{after:?}");
    sleep(SECOND).await;
    let current = proxy.store.current().unwrap();
    assert!(!std::sync::Arc::ptr_eq(&before, &current));
    assert!(proxy.metric("control_identity_cert_refreshes_total{result=\"error\"} 3"));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_no_peer_would_accept_is_not_published() {
    let authority = Authority::new("root");
    let foreign = Authority::new("foreign");
    let proxy = start("unusable", ControlPlane::stock(), &authority);

    let asked = proxy.asked().await;
    let answer = foreign.certify(&asked.request, HOUR);
    asked.answer(Ok(answer));
    let asked = proxy.asked().await;
    let mut answer = authority.certify(&asked.request, HOUR);
    answer.valid_until = None;
    asked.answer(Ok(answer));
    let asked = proxy.asked().await;
    let (chain, _) = authority.issue("somebody.else", HOUR);
    let mut answer = authority.certify(&asked.request, HOUR);
    answer.leaf_certificate = chain[0].to_vec();
    asked.answer(Ok(answer));
    let asked = proxy.asked().await;

    assert!(proxy.store.current().is_none());
    let answer = authority.certify(&asked.request, HOUR);
    asked.answer(Ok(answer));
    proxy.store.ready().await;
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_not_there_yet_is_waited_for() {
    let authority = Authority::new("root");
    let proxy = start("token", ControlPlane::stock(), &authority);
    proxy.folder.write("token", b"\n");
    sleep(60 * SECOND).await;
    proxy.folder.write("token", b"late");

    let mut request = proxy.certified(&authority, HOUR).await.1;
    if request.token == b"first" {
        request = proxy.certified(&authority, HOUR).await.1;
    }

    assert_eq!(request.token, b"late");
}

#[tokio::test(start_paused = true)]
async fn a_new_bundle_comes_into_force_at_once_and_brings_a_new_certificate() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let proxy = start("bundle", ControlPlane::new(), &old);
    proxy.certified(&old, HOUR).await;
    let first = proxy.store.ready().await;
    let mut trust = proxy.plane.trust().await;
    let said = report(&mut trust).await;
    assert_eq!(said.workload, "workload");
    assert_eq!(said.bundle_sha256, sha256(old.roots_pem().as_bytes()));
    assert_eq!(said.issuer_sha256, sha256(&old.issuer_der()));
    assert!(said.leaf_valid_until.is_some());

    let both = old.roots_pem() + &new.roots_pem();
    trust
        .send(State {
            bundle_pem: both.clone(),
            renew_epoch: 0,
        })
        .await;
    let said = report(&mut trust).await;
    assert_eq!(said.bundle_sha256, sha256(both.as_bytes()));
    assert_eq!(
        said.issuer_sha256,
        sha256(&old.issuer_der()),
        "the certificate is still the old one"
    );
    assert!(!std::sync::Arc::ptr_eq(
        &first,
        &proxy.store.current().unwrap()
    ));

    let (after, _) = proxy.certified(&new, HOUR).await;
    assert!(after < SECOND, "{after:?}");
    assert_eq!(
        report(&mut trust).await.issuer_sha256,
        sha256(&new.issuer_der())
    );
}

#[tokio::test(start_paused = true)]
async fn a_bundle_that_shuts_out_the_own_certificate_waits_for_a_new_one() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let proxy = start("shut-out", ControlPlane::new(), &old);
    proxy.certified(&old, HOUR).await;
    let first = proxy.store.ready().await;
    let mut trust = proxy.plane.trust().await;
    report(&mut trust).await;

    trust
        .send(State {
            bundle_pem: new.roots_pem(),
            renew_epoch: 0,
        })
        .await;
    let asked = proxy.asked().await;
    assert!(std::sync::Arc::ptr_eq(
        &first,
        &proxy.store.current().unwrap()
    ));
    let answer = new.certify(&asked.request, HOUR);
    asked.answer(Ok(answer));

    let said = report(&mut trust).await;
    assert_eq!(said.bundle_sha256, sha256(new.roots_pem().as_bytes()));
}

#[tokio::test(start_paused = true)]
async fn a_grown_epoch_renews_at_once_and_a_repeated_one_does_not() {
    let authority = Authority::new("root");
    let proxy = start("epoch", ControlPlane::new(), &authority);
    proxy.certified(&authority, HOUR).await;
    let mut trust = proxy.plane.trust().await;
    assert_eq!(report(&mut trust).await.renewed_epoch, 0);
    let state = State {
        bundle_pem: authority.roots_pem(),
        renew_epoch: 7,
    };

    trust.send(state.clone()).await;
    let (after, _) = proxy.certified(&authority, HOUR).await;
    assert!(after < SECOND, "{after:?}");
    assert_eq!(report(&mut trust).await.renewed_epoch, 7);

    trust.send(state.clone()).await;
    trust
        .send(State {
            bundle_pem: "nonsense".to_owned(),
            ..state
        })
        .await;
    let (after, _) = proxy.certified(&authority, HOUR).await;
    assert!(after > HOUR / 2, "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn the_stream_of_bundles_is_opened_again_after_a_restart() {
    let authority = Authority::new("root");
    let proxy = start("trust-restart", ControlPlane::new(), &authority);
    proxy.certified(&authority, 24 * HOUR).await;
    let mut trust = proxy.plane.trust().await;
    report(&mut trust).await;

    trust.fail(Status::unavailable("")).await;
    proxy.plane.stop();
    sleep(60 * SECOND).await;
    proxy.plane.start();
    let begun = Instant::now();
    let mut trust = proxy.plane.trust().await;

    assert!(begun.elapsed() <= 10 * SECOND);
    assert_eq!(report(&mut trust).await.workload, "workload");
}

#[tokio::test(start_paused = true)]
async fn a_control_plane_without_trust_roots_is_asked_once() {
    let authority = Authority::new("root");
    let proxy = start("unimplemented", ControlPlane::new(), &authority);
    proxy.certified(&authority, 1000 * HOUR).await;
    let trust = proxy.plane.trust().await;

    trust.fail(Status::unimplemented("")).await;

    assert!(timeout(23 * HOUR, proxy.plane.trust()).await.is_err());
    let (after, _) = proxy.certified(&authority, HOUR).await;
    assert!(
        after.abs_diff(HOUR) < 10 * SECOND,
        "renewal goes on: {after:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_key_and_request_in_the_folder_are_used_and_nothing_is_written_there() {
    let authority = Authority::new("root");
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new([NAME.to_owned()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let request = params.serialize_request(&key).unwrap();
    let folder = Folder::new("folder");
    folder.write("token", b"token");
    folder.write("key.p8", &key.serialize_der());
    folder.write("csr.der", request.der());
    let (store, registry) = (Store::new(), Registry::new());
    let plane = ControlPlane::stock();

    let identity = Identity::new(&config(&folder, &authority), "w", &store, &registry).unwrap();
    let task = tokio::spawn(identity.run(plane.channel()));
    let asked = plane.certify().await;

    assert_eq!(
        asked.request.certificate_signing_request,
        request.der().to_vec()
    );
    let answer = authority.certify(&asked.request, HOUR);
    asked.answer(Ok(answer));
    store.ready().await;
    assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 3);
    task.abort();
}

#[test]
fn a_key_that_is_none_and_anchors_that_are_none_are_found_at_the_start() {
    let authority = Authority::new("root");
    let folder = Folder::new("bad-key");
    let (store, registry) = (Store::new(), Registry::new());
    let mut config = config(&folder, &authority);
    config.trust_anchors_pem = "-----BEGIN CERTIFICATE-----".to_owned();
    let anchors = Identity::new(&config, "w", &store, &registry).unwrap_err();

    config.trust_anchors_pem = authority.roots_pem();
    folder.write("key.p8", b"not a key");
    let key = Identity::new(&config, "w", &store, &registry).unwrap_err();

    assert!(matches!(anchors, IdentityError::Anchors(_)), "{anchors}");
    assert!(matches!(key, IdentityError::Key(_)), "{key}");
    assert!(!format!("{key}").contains("not a key"));
}

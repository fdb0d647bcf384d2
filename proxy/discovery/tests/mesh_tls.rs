//! The control plane over the network: who is asked for a name, and who gives one.

#![allow(clippy::unwrap_used, reason = "a test's panic is its report")]

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{net::TcpListener, runtime::Handle};
use tulle_api::identity::{CertifyRequest, identity_client::IdentityClient};
use tulle_config::{ClientH2, ControlAddr, HostPort};
use tulle_core::{Id, Reason};
use tulle_discovery::{ControlChannel, Dial, DialError, NetDial};
use tulle_testkit::{Authority, ControlPlane};
use tulle_tls::{Credentials, Hello, Store, accept, read_client_hello};
use tulle_transport::ConnectOptions;

const CONTROL: &str = "identity.linkerd";
const WEB: &str = "web.shop";
const HOUR: Duration = Duration::from_hours(1);

/// A control plane behind mesh TLS, and whom it has seen.
struct Behind {
    plane: ControlPlane,
    addr: ControlAddr,
    clients: Arc<Mutex<Vec<Option<Id>>>>,
}

async fn behind(authority: &Authority, name: &str) -> Behind {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let addr = HostPort {
        host: "127.0.0.1".into(),
        port: listener.local_addr().unwrap().port(),
    };
    let credentials = credentials(authority, name, &authority.roots_pem());
    let (plane, clients) = (ControlPlane::stock(), Arc::<Mutex<Vec<_>>>::default());
    let (served, seen) = (plane.clone(), Arc::clone(&clients));
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok(Hello::Tls { io, .. }) = read_client_hello(tcp, HOUR).await else {
                continue;
            };
            // A client that is refused is the test's subject.
            let Ok(accepted) = accept(io, &credentials).await else {
                continue;
            };
            seen.lock().push(accepted.client_id);
            served.serve(accepted.io).unwrap();
        }
    });
    let addr = ControlAddr {
        addr,
        name: Some(Id::new(CONTROL)),
        loopback: false,
    };
    Behind {
        plane,
        addr,
        clients,
    }
}

fn credentials(authority: &Authority, name: &str, roots_pem: &str) -> Credentials {
    let (chain, key) = authority.issue(name, HOUR);
    Credentials::new(&Id::new(name), chain, key, roots_pem).unwrap()
}

fn options() -> ConnectOptions {
    let timeout = Duration::from_secs(1);
    ConnectOptions {
        timeout,
        keepalive: None,
        user_timeout: None,
        mark: None,
    }
}

fn channel(dial: NetDial) -> ControlChannel {
    let addr = HostPort {
        host: "control".into(),
        port: 1,
    };
    let windows = ClientH2 {
        initial_stream_window: 65_535,
        initial_connection_window: 1 << 20,
    };
    ControlChannel::new(&addr, dial, windows, &Handle::current())
}

/// Make a call and have it answered.
async fn call(channel: &ControlChannel, authority: &Authority, plane: &ControlPlane) {
    let mut params = rcgen::CertificateParams::new([WEB.to_owned()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let key = rcgen::KeyPair::generate().unwrap();
    let request = CertifyRequest {
        identity: WEB.to_owned(),
        token: b"token".to_vec(),
        certificate_signing_request: params.serialize_request(&key).unwrap().der().to_vec(),
    };
    let mut client = IdentityClient::new(channel.clone());
    let answered = async {
        let asked = plane.certify().await;
        let answer = authority.certify(&asked.request, HOUR);
        asked.answer(Ok(answer));
    };
    // The first attempt may meet the connection on which the certificate is refused.
    let asking = async { while client.certify(request.clone()).await.is_err() {} };
    tokio::join!(asking, answered);
}

#[tokio::test]
async fn the_certifying_service_is_reached_without_a_certificate_and_then_with_it() {
    let authority = Authority::new("root");
    let control = behind(&authority, CONTROL).await;
    let store = Store::new();
    let anonymous = Arc::new(Credentials::anonymous(&authority.roots_pem()).unwrap());
    let dial = NetDial::before_certified(&control.addr, options(), &store, anonymous);
    let channel = channel(dial);

    call(&channel, &authority, &control.plane).await;
    store.set(credentials(&authority, WEB, &authority.roots_pem()));
    call(&channel, &authority, &control.plane).await;

    assert_eq!(*control.clients.lock(), [None, Some(Id::new(WEB))]);
}

#[tokio::test]
async fn a_proxy_whose_certificate_is_refused_certifies_without_it() {
    let (authority, foreign) = (Authority::new("root"), Authority::new("foreign"));
    let control = behind(&authority, CONTROL).await;
    let store = Store::new();
    let roots = authority.roots_pem() + &foreign.roots_pem();
    store.set(credentials(&foreign, WEB, &roots));
    let anonymous = Arc::new(Credentials::anonymous(&roots).unwrap());
    let dial = NetDial::before_certified(&control.addr, options(), &store, anonymous);

    call(&channel(dial), &authority, &control.plane).await;

    assert_eq!(*control.clients.lock(), [None]);
}

#[tokio::test]
async fn other_services_are_not_connected_to_before_there_is_a_certificate() {
    let authority = Authority::new("root");
    let control = behind(&authority, CONTROL).await;
    let store = Store::new();
    let dial = NetDial::new(&control.addr, options(), &store);

    let mut dialling = tokio_test::task::spawn(dial.dial());
    tokio_test::assert_pending!(dialling.poll());
    store.set(credentials(&authority, WEB, &authority.roots_pem()));

    assert!(dialling.await.is_ok());
}

#[tokio::test]
async fn a_server_with_another_name_is_not_the_control_plane() {
    let authority = Authority::new("root");
    let control = behind(&authority, "somebody.else").await;
    let store = Store::new();
    store.set(credentials(&authority, WEB, &authority.roots_pem()));

    let error = NetDial::new(&control.addr, options(), &store)
        .dial()
        .await
        .unwrap_err();

    let DialError::Tls { source, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(source.reason(), Reason::IdentityMismatch);
}

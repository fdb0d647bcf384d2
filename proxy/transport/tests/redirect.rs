//! Original destinations and marks, with the kernel's own packet rules.
//!
//! The test runs itself again in a network namespace of its own; where the machine does not
//! allow one, or has no `nft`, it says so and passes.

use std::{env, net::SocketAddr, process::Command, time::Duration};

use tokio::{join, net::TcpStream};
use tulle_transport::{
    AcceptedOptions, ConnectOptions, ListenOptions, accept, connect, listen, orig_dst,
};

const INSIDE: &str = "TULLE_TEST_INSIDE";

const MARK: u32 = 0x2d4c;

const RULES: &str = "
    ip link set lo up &&
    ip route add local 10.1.0.0/16 dev lo && ip -6 route add local fd01::/64 dev lo &&
    nft -f - <<'END'
table inet test {
  chain output {
    type nat hook output priority -100; policy accept;
    meta mark 0x2d4c return
    tcp dport 9999 redirect to :4140
  }
}
END
";

#[tokio::test]
async fn a_redirected_connection_knows_where_it_was_going() {
    if env::var_os(INSIDE).is_some() {
        inside().await;
        return;
    }
    if !in_namespace(RULES, &[]).status.success() {
        println!("skipped: no network namespace with nft rules on this machine");
        return;
    }

    let this = env::current_exe().expect("a test is a file");
    let test = "a_redirected_connection_knows_where_it_was_going";
    let script = format!(
        "{RULES}\nexec {} --exact {test} --nocapture",
        this.display()
    );
    let output = in_namespace(&script, &[(INSIDE, "1")]);

    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn in_namespace(script: &str, variables: &[(&str, &str)]) -> std::process::Output {
    Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "sh", "-c", script])
        .envs(variables.iter().copied())
        .output()
        .unwrap_or_else(|error| panic!("no unshare: {error}"))
}

async fn inside() {
    let unset = AcceptedOptions::default();
    let listener = listen(addr("[::]:4140"), &ListenOptions::default()).expect("a free port");

    for destination in ["10.1.2.3:9999", "[fd01::3]:9999"].map(addr) {
        let accepting = accept(&listener, &unset);
        let (client, accepted) = join!(TcpStream::connect(destination), accepting);
        let (_client, accepted) = (client.expect("redirected"), accepted.expect("listening"));

        assert_eq!(accepted.orig_dst, Some(destination));
        assert_eq!(
            orig_dst(&accepted.io).expect("a connection"),
            Some(destination)
        );
        assert!(accepted.local.ip().is_loopback());
    }

    let options = ConnectOptions {
        timeout: Duration::from_secs(5),
        keepalive: None,
        user_timeout: None,
        mark: Some(MARK),
    };
    let marked = connect(addr("10.1.2.3:9999"), &options).await;
    assert!(
        marked.is_err(),
        "what the proxy marks is not redirected to it"
    );

    let direct = addr("10.1.2.3:4140");
    let (_client, accepted) = join!(connect(direct, &options), accept(&listener, &unset));
    let accepted = accepted.expect("listening");
    assert!(accepted.orig_dst.is_none_or(|dst| dst == accepted.local));
}

fn addr(addr: &str) -> SocketAddr {
    addr.parse().expect("an address")
}

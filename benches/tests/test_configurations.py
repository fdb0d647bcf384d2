import json
from pathlib import Path

import pytest

from benches import certificates, configurations
from benches.certificates import Certificates
from benches.configurations import Hop, Pair, Side


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.mark.parametrize("side", ["client", "server"])
def test_every_peer_proves_itself_and_verifies_the_other_over_tls_1_3(made: Certificates, side: Side) -> None:
    pair = Pair("h2", "http1", made)
    own = made.client if side == "client" else made.server
    texts = {
        "haproxy": configurations.haproxy(pair, side),
        "nginx": configurations.nginx(Pair("h1", "http1", made), side, "/tmp"),
        "nghttpx": " ".join(configurations.nghttpx(pair, side)),
        "envoy": configurations.envoy(pair, side),
    }

    for name, text in texts.items():
        certificate = own.both if name == "haproxy" else own.chain
        assert str(certificate) in text, name
        assert str(made.authority) in text, name
        assert any(version in text for version in ("TLSv1.3", "TLSv1_3")), name


@pytest.mark.parametrize(
    ("hop", "protocol", "expected"),
    [("h1", "http1", "alpn http/1.1"), ("h2", "grpc", "alpn h2"), ("tcp", "tcp", "mode tcp")],
)
def test_haproxy_speaks_what_the_topology_is_named_after(
    made: Certificates, hop: Hop, protocol: str, expected: str
) -> None:
    text = configurations.haproxy(Pair(hop, protocol, made), "client")

    assert expected in text
    assert ("proto h2" in text) == (protocol == "grpc")


def test_envoys_limits_are_above_every_cell(made: Certificates) -> None:
    bootstrap = json.loads(configurations.envoy(Pair("h2", "http1", made), "client"))

    limits = bootstrap["static_resources"]["clusters"][0]["circuit_breakers"]["thresholds"][0]

    assert set(limits.values()) == {configurations.MANY}


def test_keys_are_readable_by_the_users_that_proxies_run_as(made: Certificates) -> None:
    modes = {Path(each.key).stat().st_mode & 0o777 for each in (made.client, made.server)}

    assert modes == {0o644}

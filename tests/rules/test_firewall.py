"""What of a pod's traffic goes past its proxy."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tulle.model.ports import PortSet
from tulle.rules.firewall import Firewall, arguments

PROXY = Path(sys.executable).parent / "tulle-proxy"


def test_by_default_only_the_proxy_and_its_ports_are_exempted() -> None:
    assert arguments(Firewall()) == (
        "--incoming-proxy-port=4143",
        "--outgoing-proxy-port=4140",
        "--proxy-uid=2102",
        "--mark=11596",
        "--inbound-ports-to-ignore=4190,4191,4567,4568",
        "--outbound-ports-to-ignore=4567,4568",
        "--subnets-to-ignore=",
    )


def test_a_proxy_without_a_uid_is_told_by_its_mark_alone() -> None:
    assert {"--proxy-uid=none", "--mark=11596"} <= set(arguments(Firewall(proxy_uid=None)))


@pytest.mark.skipif(shutil.which("nft") is None, reason="nft is not installed")
@pytest.mark.skipif(not PROXY.exists(), reason="tulle-proxy is not installed beside this Python")
@pytest.mark.parametrize(
    "firewall",
    [
        Firewall(),
        Firewall(proxy_uid=None, proxy_gid=5, skip_inbound=PortSet.parse("1-65535"), skip_outbound=PortSet()),
        Firewall(skip_subnets=("10.1.0.0/16", "fd00::/8")),
    ],
)
def test_the_proxy_and_nft_take_what_they_are_told(firewall: Firewall) -> None:
    init = [str(PROXY), "init", *arguments(firewall)]

    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", '"$@" && "$@"', "sh", *init],
        text=True,
        capture_output=True,
        check=False,
    )
    if "unshare" in done.stderr:
        pytest.skip(f"no user namespace here: {done.stderr.strip()}")

    assert (done.returncode, done.stderr) == (0, "")

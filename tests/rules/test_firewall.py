"""The packet rules of a meshed pod."""

import shutil
import subprocess

import pytest

from tulle.model.ports import PortSet
from tulle.rules.firewall import Firewall, ruleset


def chains(firewall: Firewall) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in ruleset(firewall).splitlines():
        if line.startswith("  chain "):
            found[line.split()[1]] = rules = []
        elif line.startswith("    "):
            rules.append(line.strip())
    return found


def test_by_default_all_tcp_goes_through_the_proxy() -> None:
    assert chains(Firewall()) == {
        "out": [
            "type nat hook output priority -100; policy accept;",
            "meta skuid 2102 return",
            "meta mark 0x2d4c return",
            'oifname "lo" return',
            "tcp dport { 4567-4568 } return",
            "meta l4proto tcp redirect to :4140",
        ],
        "in": [
            "type nat hook prerouting priority -100; policy accept;",
            'iifname "lo" return',
            "tcp dport { 4190-4191, 4567-4568 } return",
            "meta l4proto tcp redirect to :4143",
        ],
    }


def test_a_proxy_without_a_uid_is_told_by_its_mark_alone() -> None:
    out = chains(Firewall(proxy_uid=None))["out"]

    assert not any("skuid" in rule for rule in out)
    assert "meta mark 0x2d4c return" in out


def test_a_group_is_let_through_too_where_it_is_set() -> None:
    assert "meta skgid 3000 return" in chains(Firewall(proxy_gid=3000))["out"]


def test_nothing_to_skip_makes_no_empty_set() -> None:
    out = chains(Firewall(skip_outbound=PortSet()))["out"]

    assert not any("dport" in rule for rule in out)


def test_overlapping_ports_are_joined() -> None:
    rules = chains(Firewall(skip_outbound=PortSet.parse("80-90,85-100,101,3306")))["out"]

    assert "tcp dport { 80-101, 3306 } return" in rules


def test_networks_are_let_in_by_their_family() -> None:
    rules = chains(Firewall(skip_subnets=("10.1.0.0/16", "fd00::/8")))["in"]

    assert rules[3:5] == ["ip saddr 10.1.0.0/16 return", "ip6 saddr fd00::/8 return"]


def test_loading_replaces_what_was_there() -> None:
    assert ruleset(Firewall()).startswith("table inet tulle\ndelete table inet tulle\n")


@pytest.mark.skipif(shutil.which("nft") is None, reason="nft is not installed")
@pytest.mark.parametrize(
    "firewall",
    [
        Firewall(),
        Firewall(proxy_uid=None, proxy_gid=5, skip_inbound=PortSet.parse("1-65535"), skip_outbound=PortSet()),
        Firewall(skip_subnets=("10.1.0.0/16", "fd00::/8")),
    ],
)
def test_nft_takes_the_rules(firewall: Firewall) -> None:
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--net", "nft", "-f", "-"],
        input=ruleset(firewall) * 2,
        text=True,
        capture_output=True,
        check=False,
    )
    if "unshare" in done.stderr:
        pytest.skip(f"no user namespace here: {done.stderr.strip()}")

    assert (done.returncode, done.stderr) == (0, "")

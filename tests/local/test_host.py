import os
from pathlib import Path

import pytest

from tulle.local import host
from tulle.local.host import Finding


def test_a_missing_tool_is_told_with_the_line_that_installs_it() -> None:
    assert host.tool("no-such-tool", "some-package") == Finding(
        "no-such-tool", "bad", "not installed", "install it with: sudo apt-get install -y some-package"
    )


@pytest.mark.parametrize(
    ("version", "verdict"), [("1.0.5", "bad"), ("1.0.6", "good"), ("1.1", "good"), ("2.0", "good")]
)
async def test_nftables_must_be_new_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, verdict: str
) -> None:
    nft = tmp_path / "nft"
    nft.write_text(f"#!/bin/sh\necho 'nftables v{version} (Lester Gooch)'\n")
    nft.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    assert (await host.nft()).verdict == verdict


async def test_what_ubuntu_forbids_is_told_with_the_line_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unshare = tmp_path / "unshare"
    unshare.write_text(
        "#!/bin/sh\necho 'unshare: write failed /proc/self/uid_map: Operation not permitted'\nexit 1\n"
    )
    unshare.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    restricted = "kernel/apparmor_restrict_unprivileged_userns"
    monkeypatch.setattr(host, "setting", lambda name: "1" if name == restricted else None)

    finding = await host.namespaces()

    assert finding.verdict == "bad"
    assert "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0" in finding.fix
    assert "or run it as root: sudo " in finding.fix


async def test_a_trial_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "TRIAL_S", 0.05)

    assert await host.tried(["sleep", "60"]) == (1, "sleep did not end within 0.05 s")


def test_a_port_that_is_taken_is_told() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        assert host.unbindable(port) == f"127.0.0.1:{port} is taken (Address already in use)"
    assert host.unbindable(port) is None

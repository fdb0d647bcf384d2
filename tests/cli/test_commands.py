import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.cli.sockets import Server, sockets
from tulle.cli import output
from tulle.cli.main import main
from tulle.local.places import Process, StateFile, places

Servers = tuple[Server, Server]
Captured = pytest.CaptureFixture[str]

WEB = {
    "name": "web-7f-abcde",
    "namespace": "default",
    "phase": "Running",
    "ready": True,
    "restarts": 1,
    "address": "10.77.0.5",
    "addresses": ["10.77.0.5", "fd77::5"],
    "identity": "web.default.serviceaccount.identity.linkerd.cluster.local",
    "meshed": True,
    "note": None,
    "pid": 7,
    "workload": "Deployment/web",
}
OLD = WEB | {"name": "old-0", "meshed": False, "identity": None, "workload": "StatefulSet/old"}
LATE = WEB | {
    "name": "late",
    "phase": "Pending",
    "ready": False,
    "note": "exit code 1, again in 2 s",
    "address": None,
}
STATE = {
    "name": "default",
    "phase": "running",
    "pods": [WEB, OLD, LATE],
    "published": [
        {"service": "web", "namespace": "default", "host": "127.0.0.1", "port": 8080, "target": 80}
    ],
}
STATS = {
    "pods": {
        "default/web-7f-abcde": {
            "requests_per_s": 123.456,
            "success_rate": 0.99999,
            "p50_ms": 1.234,
            "p99_ms": 12.34,
            "tcp_open": 3,
            "certificate_expires": None,
            "inbound": {"success_total": 1, "failure_total": 0},
        }
    }
}


def answers(servers: Servers, state: Any = STATE, stats: Any = STATS) -> None:
    servers[0].answers["/v1/state"] = (200, state)
    servers[1].answers["/v1/stats"] = (200, stats)


def test_ps_as_json_is_a_list_of_exactly_these_keys(servers: Servers, capsys: Captured) -> None:
    answers(servers)

    assert main(["ps", "-o", "json"]) == 0

    found = json.loads(capsys.readouterr().out)
    assert found[0] == {
        "name": "web-7f-abcde",
        "phase": "Running",
        "ready": True,
        "restarts": 1,
        "address": "10.77.0.5",
        "identity": "web.default.serviceaccount.identity.linkerd.cluster.local",
        "requests_per_s": 123.456,
        "success_rate": 0.99999,
        "p50_ms": 1.234,
        "p99_ms": 12.34,
    }
    assert found[1]["requests_per_s"] is None
    assert all(list(pod) == list(found[0]) for pod in found)


def test_ps_shows_numbers_identity_and_what_is_not_meshed(servers: Servers, capsys: Captured) -> None:
    answers(servers)

    assert main(["ps"]) == 0

    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "NAME PHASE READY RESTARTS ADDRESS IDENTITY CERT RPS SUCCESS P50 P99",
        "web-7f-abcde Running yes 1 10.77.0.5 web.default - 123 99.99% 1.23 ms 12.3 ms",
        "old-0 Running yes 1 10.77.0.5 not meshed: add linkerd.io/inject: enabled - - - - -",
        "late Pending: exit code 1, again in 2 s no 1 - web.default - - - - -",
        "",
        "default/web is at http://127.0.0.1:8080/",
    ]


def test_ps_shows_pods_also_while_the_controller_is_away(servers: Servers, capsys: Captured) -> None:
    servers[0].answers["/v1/state"] = (200, STATE)
    servers[1].answers["/v1/stats"] = (503, {"error": "starting"})

    assert main(["ps", "-o", "wide"]) == 0

    assert "Deployment/web" in capsys.readouterr().out


def test_logs_are_copied_as_they_are(servers: Servers, capsys: Captured) -> None:
    answers(servers)
    servers[0].answers["/v1/logs/default/web-7f-abcde"] = (200, "one\n[red]two\n")

    assert main(["logs", "web", "--tail", "5"]) == 0

    assert capsys.readouterr().out == "one\n[red]two\n"
    assert servers[0].asked[-1][1] == "/v1/logs/default/web-7f-abcde?follow=0&tail=5"


def test_a_pod_that_is_not_there_is_told_with_those_that_are(servers: Servers, capsys: Captured) -> None:
    answers(servers)

    assert main(["logs", "shop"]) == 1

    assert capsys.readouterr().err == (
        'error: no pod is called "shop"; there are: late, old-0, web-7f-abcde\n'
    )


def test_scale_and_restart_ask_the_supervisor(servers: Servers) -> None:
    servers[0].answers |= {"/v1/scale": (200, {"problems": []}), "/v1/restart": (200, {"problems": []})}

    assert main(["scale", "web", "--replicas", "3"]) == 0
    assert main(["restart", "Deployment/web"]) == 0

    assert servers[0].asked == [
        ("POST", "/v1/scale", {"workload": "web", "replicas": 3}),
        ("POST", "/v1/restart", {"workload": "Deployment/web"}),
    ]


def test_what_the_mesh_refuses_is_told_in_its_words(servers: Servers, capsys: Captured) -> None:
    servers[0].answers["/v1/scale"] = (404, {"error": "there is no workload shop"})

    assert main(["scale", "shop", "--replicas", "3"]) == 1

    assert capsys.readouterr().err == "error: there is no workload shop\n"


def test_endpoints_are_a_table(servers: Servers, capsys: Captured) -> None:
    endpoint = {
        "address": "10.77.0.5",
        "port": 80,
        "identity": "web.default.x",
        "hint": "h2",
        "inbound_port": None,
        "labels": {"pod": "web-1", "namespace": "default"},
    }
    servers[1].answers["/v1/diagnostics/endpoints"] = (200, {"exists": True, "endpoints": [endpoint]})

    assert main(["diagnostics", "endpoints", "web.default.svc.cluster.local:80"]) == 0

    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1] == ["default", "10.77.0.5", "80", "web-1", "h2", "web.default.x"]
    assert servers[1].asked[0][1].endswith("?authority=web.default.svc.cluster.local%3A80")


def test_a_rotation_says_what_it_waits_for(servers: Servers, capsys: Captured) -> None:
    answer = {
        "phase": "distributing",
        "root": {"expires": 0, "sha256": "ab" * 32},
        "reported": ["default/web"],
        "blockers": [{"pod": "default/old", "reason": "never reported"}],
    }
    servers[1].answers["/v1/identity/rotate"] = (200, answer)

    assert main(["identity", "rotate", "--root"]) == 0

    assert "default/old: never reported" in capsys.readouterr().out
    assert servers[1].asked == [
        ("POST", "/v1/identity/rotate", {"root": True, "plan": False, "force": False})
    ]


def test_one_running_mesh_needs_no_name_and_two_do(capsys: Captured) -> None:
    with sockets("shop") as (supervisor, _):
        supervisor.answers["/v1/state"] = (200, STATE)

        assert main(["ps"]) == 0
        with sockets("farm"):
            assert main(["ps"]) == 2

    assert "several meshes run (farm, shop)" in capsys.readouterr().err


def test_starting_twice_names_the_running_mesh(servers: Servers, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "a.yaml").write_text("apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n")

    assert main(["up", str(tmp_path)]) == 1

    assert 'a mesh called "default" runs already' in capsys.readouterr().err


def test_a_mistake_in_a_manifest_starts_nothing(home: Path, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "a.yaml").write_text("apiVersion: v1\nkind: Namespace\nmetadata: {nam: a}\n")

    assert main(["up", str(tmp_path)]) == 2

    error = capsys.readouterr().err
    assert f"{tmp_path}/a.yaml:3: metadata.nam: unknown field; did you mean name?" in error
    assert not (home / "run").exists()


def test_down_cleans_up_after_a_mesh_that_was_killed(home: Path, capsys: Captured) -> None:
    place = places("default", os.environ)
    place.make()
    place.write(StateFile("default", (Process(os.getpid(), 1, "a stranger with the same number"),)))

    assert main(["down"]) == 0

    assert not place.state.exists()
    assert place.persistent.exists()
    assert main(["down", "--volumes"]) == 0
    assert not place.persistent.exists()


def test_check_of_manifests_tells_what_would_fail(tmp_path: Path, capsys: Captured) -> None:
    import socket

    from tulle.local.host import manifests

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (tmp_path / "a.yaml").write_text(
            "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n"
            f"spec: {{type: LoadBalancer, ports: [{{port: {port}}}]}}\n---\n"
            "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n"
            "spec: {containers: [{name: c, image: i, command: [no-such-program]}]}\n"
        )

        bad = [finding for finding in manifests([tmp_path], []) if finding.verdict == "bad"]
        moved = manifests([tmp_path], [f"1234=web:{port}"])

    assert [finding.what for finding in bad] == [f"port {port}", "command"]
    assert f"--publish {port + 1}=default/web:{port}" in bad[0].fix
    assert bad[1].found == f'{tmp_path}/a.yaml:9: this machine has no "no-such-program"'
    assert [finding.what for finding in moved if finding.verdict == "bad"] == ["command"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "-"), (0, "0"), (0.126, "0.13"), (3, "3.00"), (12.34, "12.3"), (1234.5, "1234")],
)
def test_numbers_have_as_many_digits_as_matter(value: float | None, shown: str) -> None:
    assert output.number(value) == shown


@pytest.mark.parametrize(
    ("share", "shown"), [(None, "-"), (1.0, "100.00%"), (0.999999, "99.99%"), (0.5, "50.00%"), (0.0, "0.00%")]
)
def test_everything_succeeded_only_when_everything_did(share: float | None, shown: str) -> None:
    assert output.percent(share) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-1, "expired"), (59, "59s"), (119, "119s"), (7000, "117m"), (86000, "24h"), (200000, "2d")],
)
def test_durations_are_in_their_largest_unit(seconds: float, shown: str) -> None:
    assert output.duration(seconds) == shown

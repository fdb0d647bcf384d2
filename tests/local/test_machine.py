"""A mesh of unmeshed pods on this machine: network, isolation, storage, life cycle, and what is left of it."""

import asyncio
import os
import shutil
import signal
import socket
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.local.machine import Machine, children, eventually, free_port, get, leftovers, machine
from tests.local.manifests import OUTSIDE, app, headless, published
from tulle.model.errors import MeshError, NotFound

pytestmark = [pytest.mark.root]


async def test_pods_find_and_reach_each_other_by_every_name_and_family(mesh: Machine) -> None:
    await mesh.up(app(mesh) + published(mesh) + app(mesh, "api", replicas=2) + headless("api"))
    names = {pod["name"] for pod in await mesh.pods("api")}
    addresses = {address for pod in await mesh.pods("api") for address in pod["addresses"]}

    for host in ("api", "api.default", "api.default.svc", "api.default.svc.cluster.local"):
        assert await mesh.fetch(f"http://{host}/") in names
    cluster = await mesh.ask("resolve", name="api")
    assert await mesh.fetch(f"http://[{cluster[1]}]/") in names
    assert {await mesh.fetch(f"http://{cluster[0]}/") for _ in range(30)} == names
    assert set(await mesh.ask("resolve", name="api-all")) == addresses


async def test_what_leads_nowhere_is_refused_at_once(mesh: Machine) -> None:
    await mesh.up(app(mesh) + published(mesh) + app(mesh, "none", replicas=0))

    for url, reason in (
        ("http://none/", "Connection refused"),
        ("http://nothing/", "Name or service not known|Temporary failure|No address"),
        ("http://192.0.2.1/", "Network is unreachable"),
    ):
        with pytest.raises(OSError, match=reason):
            await mesh.fetch(url)


async def test_a_pod_is_kept_from_the_mesh_the_host_and_other_pods(mesh: Machine) -> None:
    await mesh.up(app(mesh) + published(mesh))
    (mesh.persistent_dir / "secret").write_text("x")

    who = await mesh.ask("who")
    processes = await mesh.ask("processes")

    assert who == {"uid": 65534, "gid": 65534, "capabilities": ["0000000000000000"]}
    assert processes[0] == 1
    assert len(processes) <= 3
    for hidden in (mesh.state_dir, mesh.persistent_dir, Path("/proc/1/root/etc")):
        with pytest.raises(OSError, match=r"No such file|Permission denied"):
            await mesh.ask("list", path=str(hidden))
    for place in ("/etc/x", "/usr/x", str(mesh.manifests / "x")):
        with pytest.raises(OSError, match=r"Read-only file system|Permission denied"):
            await mesh.ask("write", path=place, text="x")


async def test_a_pod_has_a_tmp_of_its_own(mesh: Machine) -> None:
    await mesh.up(app(mesh) + published(mesh) + app(mesh, "other"))

    await mesh.ask("write", path="/tmp/mine", text="x")

    assert "mine" in await mesh.ask("list", path="/tmp")
    with pytest.raises(OSError, match="500"):
        await mesh.fetch("http://other/read?path=/tmp/mine")
    assert not Path("/tmp/mine").exists()


async def test_settings_reach_a_pod_by_environment_and_by_file_and_files_change_in_place(
    mesh: Machine,
) -> None:
    config = """
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {level: %s, "app.conf": "a=%s"}
---
apiVersion: v1
kind: Secret
metadata: {name: keys}
stringData: {token: s3cret}
---
"""
    text = published(mesh) + app(
        mesh,
        spec="volumeMounts:\n"
        "        - {name: all, mountPath: /etc/settings}\n"
        "        - {name: keys, mountPath: /data/keys}\n"
        "        - {name: work, mountPath: /var/lib/tulle-test/deep}\n"
        "        - {name: facts, mountPath: /facts}\n"
        "        env: [{name: ADDRESS, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]\n"
        "        envFrom: [{secretRef: {name: keys}}]",
        pod="volumes:\n"
        "      - {name: all, configMap: {name: settings}}\n"
        "      - {name: keys, secret: {secretName: keys, defaultMode: 0400}}\n"
        "      - {name: work, emptyDir: {}}\n"
        "      - {name: facts, downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}]}}",
    )
    await mesh.up(config % ("debug", 1) + text)
    before = await mesh.pod("web")

    environment = await mesh.ask("env")
    assert (environment["token"], environment["ADDRESS"]) == ("s3cret", before["address"])
    assert await mesh.ask("read", path="/etc/settings/app.conf") == "a=1"
    assert await mesh.ask("read", path="/data/keys/token") == "s3cret"
    assert await mesh.ask("read", path="/facts/name") == before["name"]
    assert await mesh.ask("write", path="/var/lib/tulle-test/deep/x", text="kept") == 4
    assert not Path("/var/lib/tulle-test").exists()
    with pytest.raises(OSError, match="Read-only"):
        await mesh.ask("write", path="/etc/settings/app.conf", text="x")

    mesh.write(config % ("debug", 2) + text)

    async def changed() -> bool:
        return bool(await mesh.ask("read", path="/etc/settings/app.conf") == "a=2")

    await eventually(changed, "the file did not change")
    assert (await mesh.pod("web"))["name"] == before["name"]


async def test_a_stateful_set_has_names_order_and_storage_that_stays(mesh: Machine) -> None:
    text = (
        published(mesh)
        + f"""
apiVersion: v1
kind: Service
metadata: {{name: db}}
spec: {{clusterIP: None, selector: {{app: web}}, ports: [{{port: 8000}}]}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: db}}
spec:
  serviceName: db
  replicas: 2
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}, {OUTSIDE}}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - name: main
        command: [python3, {mesh.manifests}/app.py, "8000"]
        readinessProbe: {{tcpSocket: {{port: 8000}}}}
        volumeMounts: [{{name: data, mountPath: /data}}]
  volumeClaimTemplates:
  - metadata: {{name: data}}
    spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Gi}}}}}}
"""
    )
    await mesh.up(text)

    assert [pod["name"] for pod in await mesh.pods("db")] == ["db-0", "db-1"]
    assert await mesh.fetch("http://db-1.db:8000/") == "db-1"
    await mesh.fetch("http://db-0.db:8000/write?path=/data/x&text=kept")
    with pytest.raises(OSError, match="500"):
        await mesh.fetch("http://db-1.db:8000/read?path=/data/x")

    before = {pod["pid"] for pod in await mesh.pods("db")}
    await mesh.post("/v1/restart", workload="db")

    async def restarted() -> bool:
        pods = await mesh.pods("db")
        return len(pods) == 2 and all(pod["ready"] and pod["pid"] not in before for pod in pods)

    await eventually(restarted, "not restarted")
    assert await mesh.fetch("http://db-0.db:8000/read?path=/data/x") == "kept"


async def test_a_killed_container_comes_back(mesh: Machine) -> None:
    await mesh.up(app(mesh) + published(mesh))
    before = await mesh.pod("web")

    with pytest.raises((OSError, IndexError)):
        await mesh.ask("die")
    await eventually(lambda: _restarted(mesh, "web"), "not restarted")

    after = (await mesh.settled())[0]
    assert (after["name"], after["address"]) == (before["name"], before["address"])
    assert await mesh.ask("name") == before["name"]


async def _restarted(mesh: Machine, prefix: str) -> bool:
    return bool((await mesh.pod(prefix))["restarts"] > 0)


async def test_every_process_of_the_mesh_may_be_killed_and_comes_back(mesh: Machine) -> None:
    await mesh.up(app(mesh) + published(mesh) + app(mesh, "api"))
    init = mesh.init

    for wanted in ("sleep infinity", "tulle.serve.dns", "tulle.serve.gateway"):
        victims = children(init, wanted)
        assert victims
        for victim in victims:
            os.kill(victim, signal.SIGKILL)

        async def new(wanted: str = wanted, victims: list[int] = victims) -> bool:
            current = children(init, wanted)
            return len(current) == len(victims) and not set(current) & set(victims)

        await eventually(new, f"{wanted} did not come back")
        await mesh.settled()
        name = (await mesh.pod("api"))["name"]
        await eventually(partial(_answers, mesh, name), f"no answer after {wanted} was killed")


async def _answers(mesh: Machine, name: str) -> bool:
    return bool(await mesh.fetch("http://api/") == name)


async def test_a_job_runs_to_its_end_and_is_tried_again_when_it_fails(mesh: Machine) -> None:
    job = """
apiVersion: batch/v1
kind: Job
metadata: {name: %s}
spec:
  backoffLimit: 1
  template:
    metadata: {annotations: {linkerd.io/inject: disabled}}
    spec:
      restartPolicy: Never
      initContainers: [{name: first, command: [sh, -c, "echo first > /scratch/x"], volumeMounts: [{name: w, mountPath: /scratch}]}]
      containers: [{name: main, command: [sh, -c, "cat /scratch/x; exit %d"], volumeMounts: [{name: w, mountPath: /scratch}]}]
      volumes: [{name: w, emptyDir: {}}]
---
"""
    mesh.write(job % ("good", 0) + job % ("bad", 3))
    await mesh.start()

    async def ended() -> bool:
        pods = await mesh.pods()
        return sorted(pod["phase"] for pod in pods) == ["Failed", "Failed", "Succeeded"]

    await eventually(ended, "not ended")
    good = await mesh.pod("good")
    assert await mesh.log(good["name"]) == "first\n"
    assert "ended with code 3" in (await mesh.pods("bad"))[0]["note"]


async def test_a_pod_that_is_not_ready_gets_no_request_and_one_that_is_dead_starts_again(
    mesh: Machine,
) -> None:
    liveness = "livenessProbe: {httpGet: {path: /healthy, port: http}, periodSeconds: 1, failureThreshold: 4}"
    await mesh.up(app(mesh) + published(mesh) + app(mesh, "api", replicas=2, spec=liveness))
    sick = (await mesh.pods("api"))[0]

    await mesh.fetch(f"http://{sick['address']}:8000/write?path=/tmp/sick&text=x")
    await eventually(lambda: _ready(mesh, sick["name"], False), "still ready")

    well = (await mesh.pods("api"))[1]["name"]

    async def alone() -> bool:
        return {await mesh.fetch("http://api/") for _ in range(10)} == {well}

    await eventually(alone, "it still gets requests")
    # Its /tmp ends with the container, so the next one is well again.
    await eventually(lambda: _ready(mesh, sick["name"], True), "not ready again")
    assert (await mesh.pod(sick["name"]))["restarts"] == 1


async def _ready(mesh: Machine, name: str, wanted: bool) -> bool:
    return bool((await mesh.pod(name))["ready"] is wanted)


async def test_probes_of_every_kind_are_asked_inside_the_pod(mesh: Machine) -> None:
    text = "".join(
        app(mesh, name, spec=f"startupProbe: {{{probe}, periodSeconds: 1}}")
        for name, probe in (
            ("tcp", "tcpSocket: {port: http}"),
            ("exec", "exec: {command: [test, -d, /tmp]}"),
            ("http", "httpGet: {path: /healthy, port: 8000, httpHeaders: [{name: x, value: y}]}"),
        )
    )

    await mesh.up(text)

    assert all(pod["ready"] for pod in await mesh.pods())


async def test_a_grpc_health_check_is_asked_for_its_service(mesh: Machine) -> None:
    shutil.copyfile(Path(__file__).with_name("health.py"), mesh.manifests / "health.py")
    text = "".join(
        f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}, {OUTSIDE}}}
spec:
  containers:
  - name: main
    command: [{sys.executable}, {mesh.manifests}/health.py, "9000", shop]
    readinessProbe: {{grpc: {{port: 9000, service: {asked}}}, timeoutSeconds: 5}}
---
"""
        for name, asked in (("well", "shop"), ("sick", "bank"))
    )
    mesh.write(text)
    await mesh.start()

    await eventually(lambda: _ready(mesh, "well", True), "not ready")

    async def sick() -> bool:
        return "health status 2 instead of SERVING" in (await mesh.pod("sick"))["note"]

    await eventually(sick, "the answer was not told")


async def test_a_rolling_restart_loses_no_request(mesh: Machine) -> None:
    await mesh.up(app(mesh) + published(mesh) + app(mesh, "api", replicas=2))
    before = {pod["name"] for pod in await mesh.pods("api")}
    failures: list[str] = []
    answers: set[str] = set()
    done = asyncio.Event()

    async def load() -> None:
        while not done.is_set():
            try:
                answers.add(await mesh.fetch("http://api/"))
            except OSError as error:
                failures.append(str(error))

    loads = [asyncio.create_task(load()) for _ in range(4)]
    await mesh.post("/v1/restart", workload="deploy/api")

    async def replaced() -> bool:
        pods = await mesh.pods("api")
        return len(pods) == 2 and not before & {pod["name"] for pod in pods}

    await eventually(replaced, "not replaced")
    done.set()
    await asyncio.gather(*loads)

    assert failures == []
    assert len(answers) == 4


async def test_scaling_takes_effect_at_once_and_what_cannot_be_scaled_says_so(mesh: Machine) -> None:
    await mesh.up(app(mesh) + published(mesh))

    await mesh.post("/v1/scale", workload="web", replicas=3)
    await eventually(lambda: _count(mesh, 3), "not scaled")
    await mesh.post("/v1/scale", workload="web", replicas=1)
    await eventually(lambda: _count(mesh, 1), "not scaled back")

    with pytest.raises(NotFound, match="Deployment/web"):
        await mesh.post("/v1/scale", workload="nothing", replicas=1)


async def _count(mesh: Machine, wanted: int) -> bool:
    pods = await mesh.pods("web")
    return len(pods) == wanted and all(pod["ready"] for pod in pods)


async def test_an_edit_takes_effect_at_once_and_one_with_a_mistake_changes_nothing(mesh: Machine) -> None:
    await mesh.up(app(mesh) + published(mesh))
    before = await mesh.pod("web")

    mesh.write(app(mesh).replace("replicas", "replicaz") + published(mesh))
    await eventually(lambda: _problems(mesh), "no problem was said")
    assert "did you mean replicas?" in (await mesh.state())["problems"][0]
    assert await mesh.pod("web") == before

    mesh.write(app(mesh, note='"new"') + published(mesh))

    async def replaced() -> bool:
        pods = await mesh.pods("web")
        return len(pods) == 1 and pods[0]["ready"] and pods[0]["name"] != before["name"]

    await eventually(replaced, "not replaced")
    assert (await mesh.state())["problems"] == []


async def _problems(mesh: Machine) -> bool:
    return bool((await mesh.state())["problems"])


async def test_a_mistake_at_the_start_starts_nothing_and_is_told_with_its_place(mesh: Machine) -> None:
    mesh.write(app(mesh).replace("python3", "no-such-program"))
    await mesh.start()

    said = await mesh.words()

    assert mesh.process is not None
    assert mesh.process.returncode == 1
    assert f"{mesh.manifests}/app.yaml:15" in said
    assert 'no program "no-such-program"' in said


async def test_a_taken_port_is_told_with_the_flag_that_moves_it(mesh: Machine) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", mesh.port))
        other.listen()
        mesh.write(app(mesh) + published(mesh))
        await mesh.start()
        said = await mesh.words()
        assert "--publish" in said

        wanted, mesh.port = mesh.port, free_port()
        await mesh.up(
            app(mesh) + published(mesh).replace(str(mesh.port), str(wanted)),
            f"--publish={mesh.port}=web-out:{wanted}",
        )

        assert await mesh.ask("name") == (await mesh.pod("web"))["name"]


async def test_two_meshes_live_side_by_side(mesh: Machine) -> None:
    async with machine() as other:
        await mesh.up(app(mesh) + published(mesh))
        await other.up(app(other) + published(other))

        assert await mesh.ask("name") == (await mesh.pod("web"))["name"]
        assert await other.ask("name") == (await other.pod("web"))["name"]
        with pytest.raises(MeshError):
            await mesh.post("/v1/restart", workload=(await other.pod("web"))["name"])


@pytest.mark.parametrize("how", ["terminate", "stop", "kill the supervisor", "kill the outer process"])
async def test_nothing_is_left_of_a_mesh_that_ended(mesh: Machine, how: str) -> None:
    await mesh.up(app(mesh) + published(mesh))
    assert mesh.process is not None

    match how:
        case "terminate":
            mesh.process.terminate()
        case "stop":
            await mesh.post("/v1/stop")
        case "kill the supervisor":
            os.kill(mesh.init, signal.SIGKILL)
        case _:
            mesh.process.kill()
    await mesh.process.communicate()

    await eventually(lambda: not leftovers(mesh.base), "something is left")
    with pytest.raises(OSError, match=r"refused|Connect"):
        await get(mesh.port, "/")
    if how in ("terminate", "stop"):
        assert mesh.process.returncode == 0
        assert not (mesh.state_dir / "pods").exists()

"""A mesh for tests: started from text or a folder, called from inside, and hurt on purpose.

    async def test_a_denied_client_is_refused(live_mesh: LiveMesh) -> None:
        await live_mesh.up(MANIFESTS)

        await live_mesh.deny("web", 8080)

        assert (await live_mesh.call("client", "http://web:8080/")).status == 403

The fixture `live_mesh` comes with the package as a pytest plug-in. Everything is done from outside, to the processes,
the links and the manifests of a real mesh; no part of the mesh knows that it is tested. Beside it is `mesh`
(`tulle.testing.policy`), which only asks what manifests would do.
"""

import asyncio
import itertools
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tulle.local.enter import descendants, inside_network, program
from tulle.mesh import PROXY, Mesh, State
from tulle.model.errors import MeshError, NotFound
from tulle.testing.policy import Call, PolicyMesh

__all__ = ["Answer", "Call", "LiveMesh", "PolicyMesh"]

CUT = """
table inet cut {{
  chain in {{ type filter hook input priority -400; policy accept;
    iifname "{device}" drop
  }}
  chain out {{ type filter hook output priority -400; policy accept;
    oifname "{device}" drop
  }}
}}
"""
DEVICE = "eth0"
"""What every pod's link is called inside it."""
COUNTER = itertools.count(1)
TAKEN_S = 10.0
LOOK_S = 0.02
"""How long the control plane may take for a manifest, and how often it is asked."""

CALL = """
import http.client, json, sys, urllib.parse
wish = json.load(sys.stdin)
url = urllib.parse.urlsplit(wish["url"])
try:
    connection = http.client.HTTPConnection(url.hostname, url.port or 80, timeout=wish["timeout_s"])
    path = (url.path or "/") + ("?" + url.query if url.query else "")
    connection.request(wish["method"], path, wish["body"].encode("latin-1") or None, wish["headers"])
    answer = connection.getresponse()
    body = answer.read().decode("latin-1")
    said = {"status": answer.status, "headers": [[k.lower(), v] for k, v in answer.getheaders()], "body": body}
except (OSError, http.client.HTTPException) as error:
    said = {"error": f"{type(error).__name__}: {error}"}
json.dump(said, sys.stdout)
"""
"""One request from inside a pod, with nothing but the standard library."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call brought: a status, or the error of a connection that brought none."""

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    error: str | None = None

    def json(self) -> object:
        """Return the body as JSON."""
        return json.loads(self.body)


class LiveMesh:
    """One mesh of one test."""

    def __init__(self, home: Path) -> None:
        self.folder = home / "manifests"
        self._environment = {**os.environ, "TULLE_STATE_DIR": str(home / "s")}
        self.api = Mesh(f"t{os.getpid()}-{next(COUNTER)}", environment=self._environment)

    @property
    def name(self) -> str:
        """The mesh's name."""
        return self.api.name

    def tell(self, **settings: str) -> None:
        """Set variables of the environment in which it will be started."""
        self._environment |= settings
        self.api = Mesh(self.name, environment=self._environment)

    async def up(
        self,
        *sources: str | Path,
        publish: Iterable[str] = (),
        ready: bool = True,
        timeout_s: float = 60,
    ) -> State:
        """Start with manifests and wait until every pod is ready.

        Args:
            sources: texts of YAML, and files or folders, which are copied so that a test may edit them.
            publish: as for `tulle up --publish`.
            ready: whether to wait.
            timeout_s: how long to wait.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for index, source in enumerate(sources):
            if isinstance(source, str):
                (self.folder / f"{index}.yaml").write_text(source)
            elif source.is_dir():
                shutil.copytree(source, self.folder, dirs_exist_ok=True)
            else:
                shutil.copy(source, self.folder)
        await self.api.up(self.folder, publish=list(publish))
        return await self.api.wait_ready(timeout_s) if ready else await self.api.state()

    async def write(self, name: str, text: str) -> tuple[str, ...]:
        """Write a manifest into the folder and have it read now; return what is wrong with it."""
        (self.folder / name).write_text(text)
        return await self.api.apply()

    async def remove(self, name: str) -> tuple[str, ...]:
        """Remove a manifest from the folder and have that noticed now."""
        (self.folder / name).unlink()
        return await self.api.apply()

    async def call(
        self,
        client: str,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeout_s: float = 10,
    ) -> Answer:
        """Make one HTTP/1.1 request from inside a pod, as its application would."""
        wish = {
            "url": url,
            "method": method,
            "headers": dict(headers or {}),
            "body": body.decode("latin-1"),
            "timeout_s": timeout_s,
        }
        done = await self.api.exec(client, [sys.executable, "-c", CALL], stdin=json.dumps(wish).encode())
        if done.code != 0:
            raise MeshError(f"no call could be made from {client}: {done.stderr.decode(errors='replace')}")
        said = json.loads(done.stdout)
        if "error" in said:
            return Answer(error=said["error"])
        return Answer(said["status"], dict(said["headers"]), said["body"].encode("latin-1"))

    # Processes

    def processes(self) -> dict[int, str]:
        """Return the host's numbers of all processes of the mesh, with their command lines."""
        written = self.api.places.read()
        if written is None:
            return {}
        roots = {process.pid for process in written.processes if process.alive()}
        roots |= {written.init} if written.init is not None else set()
        return {pid: program(pid) for root in roots for pid in (root, *descendants(root)) if program(pid)}

    async def pid(self, what: str) -> int:
        """Return the host's number of a process: `supervisor`, `controller`, `POD`, or `POD/proxy`.

        Raises:
            NotFound: there is none.
        """
        if what == "supervisor":
            written = self.api.places.read()
            if written is not None and written.init is not None:
                return written.init
        elif what == "controller":
            for pid, command in self.processes().items():
                if "tulle.serve.controller" in command:
                    return pid
        elif what.endswith("/proxy"):
            return await self.api.process(what.removesuffix("/proxy"), container=PROXY)
        else:
            return await self.api.process(what)
        raise NotFound(f"{what} does not run")

    async def kill(self, what: str, number: int = signal.SIGKILL) -> int:
        """Send a signal to a process, SIGKILL unless told; the names are those of `pid`."""
        pid = await self.pid(what)
        os.kill(pid, number)
        return pid

    # Links

    async def cut(self, pod: str) -> None:
        """Drop every packet from and to a pod, without a reset: its link is gone."""
        await self._in_network(pod, ["nft", "-f", "-"], CUT.format(device=DEVICE))

    async def slow(self, pod: str, kbit_per_s: int) -> None:
        """Let a pod send no faster than this."""
        limit = ["tbf", "rate", f"{kbit_per_s}kbit", "burst", "8kb", "latency", "2s"]
        await self._in_network(pod, ["tc", "qdisc", "replace", "dev", DEVICE, "root", *limit])

    async def mend(self, pod: str) -> None:
        """Undo `cut` and `slow`."""
        script = f"nft delete table inet cut 2>/dev/null; tc qdisc del dev {DEVICE} root 2>/dev/null; true"
        await self._in_network(pod, ["sh", "-c", f"PATH=$PATH:/usr/sbin:/sbin; {script}"])

    async def _in_network(self, pod: str, command: list[str], text: str = "") -> None:
        arguments = inside_network(await self.api.holder(pod), command, rootless=os.geteuid() != 0)
        process = await asyncio.create_subprocess_exec(
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate(text.encode())
        if process.returncode != 0:
            raise MeshError(f"{command[0]} in the network of {pod}: {said.decode(errors='replace').strip()}")

    # Policy

    async def deny(self, workload: str, port: int, *, but: Iterable[str] = ()) -> str:
        """Refuse every client of a workload's port, but those of these identities; return the manifest's name.

        The workload's pods are found by the label `app`. To end it, `remove` the manifest.

        Raises:
            MeshError: the mesh did not take it.
        """
        namespace = (await self.api.pod(workload)).namespace
        # Of several Servers on a port the first by name owns it.
        name = f"0-deny-{workload}-{port}"
        identities = json.dumps(list(but) or ["nobody.invalid"])
        text = POLICY.format(
            name=name, namespace=namespace, workload=workload, port=port, identities=identities
        )
        file = f"{namespace}-{name}.yaml"
        problems = await self.write(file, text)
        if problems:
            raise MeshError("\n".join(problems))
        await self._owned(f"{namespace}/{workload}", port, name)
        return file

    async def _owned(self, pod: str, port: int, server: str) -> None:
        """Return when the control plane has put a Server in charge of a port."""
        owner: object = None
        deadline = asyncio.get_running_loop().time() + TAKEN_S
        while asyncio.get_running_loop().time() < deadline:
            labels = (await self.api.inbound_policy(pod, port)).get("labels")
            owner = labels.get("name") if isinstance(labels, dict) else None
            if owner == server:
                return
            await asyncio.sleep(LOOK_S)
        raise MeshError(
            f"port {port} of {pod} is owned by {owner}, not by the Server {server}: "
            "is there an older one, or has the pod no label `app`?"
        )

    def said(self) -> str:
        """Return the end of the supervisor's log."""
        try:
            return "\n".join(self.api.places.log.read_text(errors="replace").splitlines()[-100:])
        except OSError:
            return "nothing"


POLICY = """
apiVersion: policy.linkerd.io/v1beta3
kind: Server
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{podSelector: {{matchLabels: {{app: {workload}}}}}, port: {port}}}
---
apiVersion: policy.linkerd.io/v1alpha1
kind: MeshTLSAuthentication
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{identities: {identities}}}
---
apiVersion: policy.linkerd.io/v1alpha1
kind: AuthorizationPolicy
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  targetRef: {{group: policy.linkerd.io, kind: Server, name: {name}}}
  requiredAuthenticationRefs: [{{group: policy.linkerd.io, kind: MeshTLSAuthentication, name: {name}}}]
"""

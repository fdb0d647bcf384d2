"""Our pair, whole: controller, its proxy, and the two proxies with all that a meshed pod has.

Certificates come from the controller, the environment from the same plan that injects a pod, the packet rules from
`tulle-proxy init`. The server's pod admits only clients that the mesh's authority named, so an answer is proof of
mutual TLS and of policy. The stock proxy runs in the same place, under the same controller.
"""

import secrets
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benches import rig, world
from benches.rig import (
    ADDRESSES,
    CLIENT,
    CONTROL,
    GRPC,
    HTTP1,
    LOAD_CORE,
    PROXY_CORE,
    PROXY_UID,
    SERVER,
    TCP,
    BenchError,
    Process,
    Rig,
)
from tulle.lib import tokens
from tulle.local.control import DESTINATION_PORT, IDENTITY_PORT, MANIFEST, NAME, NAMESPACE, POLICY_PORT
from tulle.local.proxy import make_key
from tulle.model.workload import Pod
from tulle.rules.decode import decode
from tulle.rules.injection import Injection, Membership, Site, Subject, plan, written

TRUST_DOMAIN = "cluster.local"
NETWORKS = ("10.0.0.0/8",)
SERVICE_ADDRESS = "10.78.0.1"
SERVICE_PORTS = {80: HTTP1, 81: GRPC, 82: TCP}
TARGETS = {"http1": f"{SERVICE_ADDRESS}:80", "grpc": f"{SERVICE_ADDRESS}:81", "tcp": f"{SERVICE_ADDRESS}:82"}
APPLICATION = f"""
apiVersion: v1
kind: ServiceAccount
metadata: {{name: NAME, namespace: bench}}
---
apiVersion: v1
kind: Pod
metadata: {{name: NAME, namespace: bench}}
spec:
  serviceAccountName: NAME
  containers:
  - name: application
    command: [application]
    ports: [{{containerPort: {HTTP1}}}, {{containerPort: {GRPC}}}, {{containerPort: {TCP}}}]
"""
ANNOTATIONS = {
    "config.linkerd.io/opaque-ports": f"{TCP},82",
    "config.linkerd.io/default-inbound-policy": "all-authenticated",
}
LOG_ENVIRONMENT = {"LINKERD2_PROXY_LOG": "warn"}


@dataclass(frozen=True, slots=True)
class Binaries:
    """What is measured, and what of ours is needed for it."""

    pair: str
    """Ours or the stock one."""
    own: str
    """Makes the packet rules, and is the controller's proxy in either case."""


class Mesh:
    """A running mesh of two pods."""

    def __init__(
        self,
        place: Rig,
        binaries: Binaries,
        folder: Path,
        *,
        workers: int,
        core: str,
        environment: Mapping[str, str],
    ) -> None:
        self.world = world.World()
        self.proxies: dict[str, Process] = {}
        self.controller: Process | None = None
        self._place = place
        self._binaries = binaries
        self._folder = folder
        self._workers = workers
        self._core = core
        self._environment = {**LOG_ENVIRONMENT, **environment}

    @property
    def pair(self) -> tuple[Process, Process]:
        """Return the two proxies between generator and origin."""
        return self.proxies[CLIENT], self.proxies[SERVER]

    async def start_controller(self) -> None:
        """Start the controller, and return when it answers."""
        state, persistent = self._folder / "state", self._folder / "persistent"
        argv = [sys.executable, "-m", "tulle.serve.controller", "--pod-ip", ADDRESSES[CONTROL]]
        argv += ["--state-dir", str(state), "--persistent-dir", str(persistent)]
        environment = {"PYTHONPATH": str(self._place.root), "TULLE_LOG": "warning"}
        self.controller = await self._place.start(
            "controller", argv, where=CONTROL, core=LOAD_CORE, environment=environment
        )
        await rig.reachable(self.controller, ADDRESSES[CONTROL], POLICY_PORT)

    async def redirect(self, name: str) -> None:
        """Load a pod's packet rules."""
        firewall = self.injection(name).firewall
        argv = [self._binaries.own, "init", "--proxy-uid", str(PROXY_UID)]
        argv += ["--inbound-ports-to-ignore", written(firewall.skip_inbound)]
        argv += ["--outbound-ports-to-ignore", written(firewall.skip_outbound)]
        await rig.inside(name, *argv)

    async def start_proxy(self, name: str) -> Process:
        """Start a pod's proxy, or start it again, and return when it is ready."""
        process = self.proxies[name] = await self.launch_proxy(name)
        await rig.ready(process, ADDRESSES[name])
        return process

    async def launch_proxy(self, name: str, *, before: Sequence[str] = ()) -> Process:
        """Start a pod's proxy under the programs `before`, ready or not."""
        injection = self.injection(name)
        binary = self._binaries.own if name == CONTROL else self._binaries.pair
        own = binary == self._binaries.own
        self._write_identity(name, injection, with_key=not own)
        environment = {**injection.environment, **self._environment}
        workers = [] if name == CONTROL or not own else ["--workers", str(self._workers)]
        return await self._place.start(
            f"proxy-{name}",
            [*before, binary, *workers],
            where=name,
            core=LOAD_CORE if name == CONTROL else self._core,
            uid=PROXY_UID,
            environment=environment,
        )

    def injection(self, name: str) -> Injection:
        """Return how a pod is meshed."""
        manifest = MANIFEST if name == CONTROL else APPLICATION.replace("NAME", name)
        spec = next(each.spec for each in decode([(name, manifest)]).accepted() if isinstance(each, Pod))
        namespace, pod = (NAMESPACE, NAME) if name == CONTROL else ("bench", f"{name}-0")
        annotations = {} if name == CONTROL else ANNOTATIONS
        addresses = (ADDRESSES[name], *(rig.BACKENDS if name == SERVER else ()))
        subject = Subject(pod, namespace, "local", addresses, spec, annotations, {})
        return plan(subject, self._site(name), Membership(meshed=True))

    def _site(self, name: str) -> Site:
        controller = "127.0.0.1" if name == CONTROL else ADDRESSES[CONTROL]
        suffix = f"serviceaccount.identity.{NAMESPACE}.{TRUST_DOMAIN}"
        return Site(
            identity_address=f"{controller}:{IDENTITY_PORT}",
            destination_address=f"{controller}:{DESTINATION_PORT}",
            policy_address=f"{controller}:{POLICY_PORT}",
            control_identity=f"{NAME}.{NAMESPACE}.{suffix}",
            trust_anchors=(self._folder / "persistent" / "identity" / "ca-bundle.crt").read_text(),
            identity_folder=str(self._folder / name),
            token_file=str(self._folder / name / "token"),
            cluster_networks=NETWORKS,
            identity_suffix=suffix,
            cluster_domain=TRUST_DOMAIN,
            has_proxy_uid=True,
        )

    def _write_identity(self, name: str, injection: Injection, *, with_key: bool) -> None:
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        namespace, account, pod = (NAMESPACE, NAME, NAME) if name == CONTROL else ("bench", name, f"{name}-0")
        key = (self._folder / "state" / "token.key").read_bytes()
        token = folder / "token"
        token.unlink(missing_ok=True)
        token.write_bytes(tokens.mint(key, tokens.Subject(namespace, account, pod)))
        if with_key:
            make_key(folder, injection.identity, (PROXY_UID, PROXY_UID))


def find(root: Path) -> Path:
    """Return our proxy: the build for wheels, else the one for development."""
    for profile in ("dist", "release"):
        path = root / "target" / profile / "tulle-proxy"
        if path.exists():
            return path
    raise BenchError("tulle-proxy is not built; run: cargo build --profile dist -p tulle-proxy")


def snapshot(backends: Sequence[str]) -> tuple[list[world.Json], list[world.Json]]:
    """Return what the controller is told: a client, a service, and the pods behind it."""
    objects: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in ("bench", NAMESPACE)
    ]
    objects.append(world.service(SERVER, "bench", SERVICE_ADDRESS, SERVICE_PORTS, ANNOTATIONS))
    ports = tuple(SERVICE_PORTS.values())
    pods = [
        world.pod(NAME, NAMESPACE, NAME, ADDRESSES[CONTROL], app=NAME, ports=[POLICY_PORT], annotations={}),
        world.pod(
            "client-0", "bench", CLIENT, ADDRESSES[CLIENT], app=CLIENT, ports=ports, annotations=ANNOTATIONS
        ),
    ]
    pods += [
        world.pod(
            f"server-{number}", "bench", SERVER, address, app=SERVER, ports=ports, annotations=ANNOTATIONS
        )
        for number, address in enumerate(backends)
    ]
    return objects, pods


@asynccontextmanager
async def controller_only(place: Rig, binaries: Binaries, backends: Sequence[str]) -> AsyncIterator[Mesh]:
    """Start a controller that can be reached without a proxy, and end it in the end."""
    async with _prepared(place, binaries, snapshot(backends), 1, PROXY_CORE, {}) as mesh:
        await mesh.start_controller()
        yield mesh


@asynccontextmanager
async def running(
    place: Rig,
    binaries: Binaries,
    *,
    backends: Sequence[str] = (ADDRESSES[SERVER],),
    policies: Sequence[world.Json] = (),
    environment: Mapping[str, str] | None = None,
    workers: int = 1,
    core: str = PROXY_CORE,
) -> AsyncIterator[Mesh]:
    """Start everything; end everything in the end.

    Args:
        place: where.
        binaries: what.
        backends: the addresses behind the service.
        policies: objects beside the service.
        environment: what the two proxies are told besides.
        workers: of each of the two proxies.
        core: where the two proxies run.
    """
    objects, pods = snapshot(backends)
    known = ([*objects, *policies], pods)
    async with _prepared(place, binaries, known, workers, core, environment or {}) as mesh:
        await mesh.start_controller()
        for name in (CONTROL, CLIENT, SERVER):
            await mesh.redirect(name)
            await mesh.start_proxy(name)
        yield mesh


@asynccontextmanager
async def _prepared(
    place: Rig,
    binaries: Binaries,
    known: tuple[Sequence[world.Json], Sequence[world.Json]],
    workers: int,
    core: str,
    environment: Mapping[str, str],
) -> AsyncIterator[Mesh]:
    folder = place.folder / f"mesh-{secrets.token_hex(4)}"
    for part in ("state", "persistent"):
        (folder / part).mkdir(parents=True)
    (folder / "state" / "token.key").write_bytes(secrets.token_bytes(tokens.KEY_BYTES))
    mesh = Mesh(place, binaries, folder, workers=workers, core=core, environment=environment)
    await mesh.world.state(*known)
    async with mesh.world.served(folder / "state" / "supervisor.sock"):
        try:
            yield mesh
        finally:
            controller = [mesh.controller] if mesh.controller else []
            await place.stop([*mesh.proxies.values(), *controller])
            for name in (CONTROL, CLIENT, SERVER):
                await rig.inside(name, "nft", "flush", "ruleset")

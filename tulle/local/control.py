"""The pod that the controller runs in: meshed like any other, but its application is ours.

The controller sees the mesh's folders, which no other pod does, and is told apart by that only: it has namespaces,
addresses and a proxy of its own, which certifies over loopback. It starts before its proxy, not after, because it
is what the proxy asks.
"""

import asyncio
from collections.abc import Callable, Mapping

from tulle.local.addresses import Pair
from tulle.local.ground import Ground
from tulle.local.helpers import Helper, Launch
from tulle.local.order import NODE
from tulle.local.plan import retry_delay_s
from tulle.local.proxy import Host, Proxy, unless
from tulle.local.sandbox import Sandbox
from tulle.model.errors import BugError, SettingError, TulleError
from tulle.model.workload import Pod
from tulle.rules import firewall
from tulle.rules.decode import decode
from tulle.rules.injection import Injection, Membership, Site, Subject, plan

NAMESPACE, NAME = "linkerd", "linkerd-destination"
IDENTITY_PORT, DESTINATION_PORT, POLICY_PORT = 8080, 8086, 8090
MANIFEST = f"""
apiVersion: v1
kind: ServiceAccount
metadata: {{name: {NAME}, namespace: {NAMESPACE}}}
---
apiVersion: v1
kind: Pod
metadata:
  name: {NAME}
  namespace: {NAMESPACE}
  labels: {{linkerd.io/control-plane-component: destination}}
spec:
  serviceAccountName: {NAME}
  containers:
  - name: controller
    command: [controller]
    ports:
    - {{name: ident-grpc, containerPort: {IDENTITY_PORT}}}
    - {{name: dest-grpc, containerPort: {DESTINATION_PORT}}}
    - {{name: policy-grpc, containerPort: {POLICY_PORT}}}
"""
MEMBER = Membership(meshed=True)


class _Lost(Exception):
    """The pod's namespaces ended under it."""


class ControlPod:
    """The controller and its proxy, from `keep` until `stop`."""

    def __init__(
        self,
        ground: Ground,
        addresses: Pair,
        site: Callable[[], Site | None],
        command: Callable[[], tuple[list[str], Mapping[str, str]]],
        inherited: Callable[[], Mapping[str, str]],
    ) -> None:
        self._ground = ground
        self.addresses = addresses
        self._site = site
        self._command = command
        self._inherited = inherited
        self._stopping = asyncio.Event()
        self._sandbox: Sandbox | None = None
        self.proxy: Proxy | None = None
        self.controller: Helper | None = None
        self.injection: Injection | None = None
        self.spec = _manifest()
        self.note = ""

    @property
    def ready(self) -> bool:
        """Say whether proxies can reach it."""
        return self.proxy is not None and self.proxy.is_ready

    @property
    def restarts(self) -> int:
        """How often one of its processes was started again."""
        return sum(each.restarts for each in (self.proxy, self.controller) if each)

    @property
    def pid(self) -> int | None:
        """The process that holds its namespaces."""
        return self._sandbox.pid if self._sandbox else None

    async def keep(self) -> None:
        """Live until `stop`."""
        failures = 0
        while not self._stopping.is_set():
            begun = self._ground.clock()
            try:
                await self._live()
            except* (TulleError, OSError) as errors:
                self.note = str(errors.exceptions[0])
            except* _Lost:
                self.note = "its namespaces ended and were made anew"
            self.proxy = self.controller = None
            self._ground.changed()
            failures = failures + 1 if self._ground.clock() - begun < 10 else 0
            await unless(self._stopping, retry_delay_s(failures))

    def stop(self) -> None:
        """Begin to end it; `keep` returns when that is done."""
        self._stopping.set()

    async def load_services(self, rules: str) -> None:
        """Replace the rules for services."""
        if self._sandbox:
            await self._sandbox.load(rules)

    async def _live(self) -> None:
        ground = self._ground
        # Its rules must not wait for the trust anchors, which only it can make.
        sandbox = self._sandbox = await Sandbox.open(
            ground.spawner,
            ground.bridge,
            hostname=NAME,
            addresses=self.addresses,
            rules=ground.service_rules(),
            redirect=ground.redirect(self._firewall()),
        )
        try:
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(self._watch(sandbox))
                controller = self.controller = Helper(ground, "controller", self._launch, pod=NAME)
                group.create_task(controller.keep())
                while self._site() is None and not self._stopping.is_set():
                    await unless(self._stopping, 0.02)
                if not self._stopping.is_set():
                    self.injection = self._inject()
                    folder = ground.state / "pods" / NAMESPACE / NAME / "proxy"
                    host = Host(NAMESPACE, NAME, NAME, self.addresses[0], folder)
                    proxy = self.proxy = Proxy(ground, sandbox, host, self._inject, ground.changed)
                    group.create_task(proxy.keep())
                    ground.changed()
                    await self._stopping.wait()
                    await proxy.stop()
                await controller.stop()
                watching.cancel()
        finally:
            self._sandbox = None
            await sandbox.close()

    async def _watch(self, sandbox: Sandbox) -> None:
        await sandbox.lost()
        raise _Lost

    def _launch(self) -> Launch:
        if self._sandbox is None:
            raise BugError("the controller is started without its namespaces")
        argv, environment = self._command()
        return Launch(argv, self._sandbox.namespaces.only("net"), environment)

    def _firewall(self) -> firewall.Firewall:
        return firewall.Firewall(proxy_uid=firewall.PROXY_UID if self._ground.many_ids else None)

    def _inject(self) -> Injection:
        site = self._site()
        if site is None:
            raise SettingError("the mesh's trust anchors are gone")
        subject = Subject(NAME, NAMESPACE, NODE, self.addresses, self.spec.spec, {}, self._inherited())
        return plan(subject, site, MEMBER)


def _manifest() -> Pod:
    decoded = decode([("tulle", MANIFEST)])
    for item in decoded.accepted():
        if isinstance(item, Pod):
            return item
    raise BugError("the controller's own manifest has no pod")

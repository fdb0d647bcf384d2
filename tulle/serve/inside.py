"""The supervisor: the first process of a mesh, from whose end everything else of the mesh ends.

Starting order: token key, network, pods' ground, manifests (a mistake ends the start), name server and gateway, the
socket for others, pods. It ends in the opposite order on SIGTERM or `/v1/stop`.
"""

import asyncio
import contextlib
import secrets
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import uvicorn
import watchfiles

from tulle.lib import log
from tulle.local import logs, outside
from tulle.local.addresses import BRIDGE, CLUSTER_DOMAIN, PodAddresses
from tulle.local.api import Api
from tulle.local.control import DESTINATION_PORT, IDENTITY_PORT, NAME, NAMESPACE, POLICY_PORT, ControlPod
from tulle.local.desired import Folder
from tulle.local.doors import Doors
from tulle.local.edits import being_written
from tulle.local.ground import Ground
from tulle.local.handover import send
from tulle.local.helpers import Helper, Launch
from tulle.local.places import Places, StateFile
from tulle.local.processes import Spawner
from tulle.local.proxy import IDENTITY_FOLDER, TOKEN_FILE
from tulle.local.runner import Runner
from tulle.local.sandbox import Bridge
from tulle.local.settings import Settings
from tulle.local.startable import startable
from tulle.model.errors import ManifestError
from tulle.model.objects import Problem
from tulle.rules.decode import decode_paths
from tulle.rules.injection import Site

KEY_BYTES = 32
NAMES_PORT = 53
# Upstream's default: the private networks.
CLUSTER_NETWORKS = ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "fd00::/8")
FOLDER_BACK_S = 1.0
FILE_WRITTEN_S = 0.05


class _HttpServer(uvicorn.Server):
    """uvicorn without its signal handlers: the process has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Supervisor:
    """Everything that one mesh consists of."""

    def __init__(self, settings: Settings, process: StateFile) -> None:
        self._settings = settings
        self._process = process
        self._hand_here, self._hand_there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._hand_here.setblocking(False)
        self._supply_here, self._supply_there = outside.open_supply()
        self._doors = Doors(settings.moved)
        self._control: ControlPod | None = None
        self._reachable = False
        addresses = PodAddresses()
        self._control_addresses = addresses.take()
        self._runner = Runner(settings.name, addresses, self._doors, self._startable, time.monotonic)
        self._log = log.logger("supervisor")

    async def run(self) -> None:
        """Start, serve, and stop when asked to."""
        settings = self._settings
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._runner.stop)
        key = _token_key(settings.state / "token.key")
        spawner = Spawner()
        bridge = await Bridge.make(spawner, egress=settings.egress)
        ground = self._ground(spawner, bridge, key)
        problems = await self._apply()
        if problems:
            raise ManifestError(problems)
        control = self._control = ControlPod(
            ground,
            self._control_addresses,
            lambda: self._site("127.0.0.1"),
            self._controller,
            lambda: self._runner.folder.namespaces.get(NAMESPACE, {}),
        )
        questions = await _name_sockets(spawner, bridge)
        leaving = await _leaving_sockets(spawner, bridge) if settings.egress else []
        names = Helper(ground, "dns", lambda: self._names(bridge, questions))
        gateway = Helper(ground, "gateway", lambda: self._gateway(bridge, leaving))
        async with asyncio.TaskGroup() as group:
            others = [
                group.create_task(self._serve()),
                group.create_task(self._watch()),
                group.create_task(logs.keep_short(settings.state / "logs")),
                group.create_task(names.keep()),
                group.create_task(gateway.keep()),
                group.create_task(self._hand_over()),
            ]
            if settings.egress:
                others.append(group.create_task(outside.supply(self._supply_here)))
            await self._runner.run(ground, control)
            await asyncio.gather(names.stop(), gateway.stop())
            for other in others:
                other.cancel()
        # Files in it may belong to ids that nobody outside may remove.
        shutil.rmtree(settings.state / "pods", ignore_errors=True)

    # Its parts

    def _ground(self, spawner: Spawner, bridge: Bridge, key: bytes) -> Ground:
        settings = self._settings
        folders = {path if path.is_dir() else path.parent for path in settings.paths}
        return Ground(
            spawner=spawner,
            bridge=bridge,
            state=settings.state,
            persistent=settings.persistent,
            many_ids=settings.many_ids,
            path=settings.path,
            reach=tuple(dict.fromkeys([*_installation(), *(str(folder) for folder in sorted(folders))])),
            hidden=(str(settings.state.parent), str(settings.persistent.parent)),
            token_key=key,
            site=self._pods_site,
            service_rules=lambda: self._runner.service_rules,
            changed=self._runner.changed,
            clock=time.monotonic,
            proxy=settings.proxy,
            stock_proxy=settings.stock_proxy,
        )

    def _startable(self, folder: Folder) -> list[Problem]:
        has_proxy = self._settings.proxy is not None or self._settings.stock_proxy is not None
        return startable(folder, self._settings.path, has_proxy=has_proxy)

    def _pods_site(self) -> Site | None:
        """Return where pods find the mesh; a proxy that starts before the controller's would only wait longer."""
        if self._control is not None and self._control.ready:
            self._reachable = True
        return self._site(self._control_addresses[0]) if self._reachable else None

    def _site(self, controller: str) -> Site | None:
        """Return where proxies find the mesh; None until the controller has made the trust anchors."""
        try:
            anchors = (self._settings.persistent / "identity" / "ca-bundle.crt").read_text()
        except FileNotFoundError:
            return None
        suffix = f"serviceaccount.identity.{NAMESPACE}.{CLUSTER_DOMAIN}"
        return Site(
            identity_address=f"{controller}:{IDENTITY_PORT}",
            destination_address=f"{controller}:{DESTINATION_PORT}",
            policy_address=f"{controller}:{POLICY_PORT}",
            control_identity=f"{NAME}.{NAMESPACE}.{suffix}",
            trust_anchors=anchors,
            identity_folder=IDENTITY_FOLDER,
            token_file=TOKEN_FILE,
            cluster_networks=CLUSTER_NETWORKS,
            identity_suffix=suffix,
            cluster_domain=CLUSTER_DOMAIN,
            has_proxy_uid=self._settings.many_ids,
        )

    def _controller(self) -> tuple[list[str], Mapping[str, str]]:
        settings = self._settings
        argv = [sys.executable, "-m", "tulle.serve.controller"]
        argv += ["--state-dir", str(settings.state), "--persistent-dir", str(settings.persistent)]
        for address in self._control_addresses:
            argv += ["--pod-ip", address]
        return argv, settings.environment

    def _names(self, bridge: Bridge, sockets: Sequence[socket.socket]) -> Launch:
        argv = [sys.executable, "-m", "tulle.serve.dns", "--supervisor", str(self._socket)]
        descriptors = tuple(each.fileno() for each in sockets)
        argv += [f"--socket={descriptor}" for descriptor in descriptors]
        if bridge.egress:
            argv.append(f"--outside={self._supply_there.fileno()}")
            argv += [f"--upstream={address}" for address in _resolvers()]
            descriptors += (self._supply_there.fileno(),)
        return Launch(argv, bridge.namespaces, self._settings.environment, descriptors)

    def _gateway(self, bridge: Bridge, leaving: Sequence[socket.socket]) -> Launch:
        # A new one has no doors yet; what the old one did not read does no harm.
        self._send_doors()
        argv = [sys.executable, "-m", "tulle.serve.gateway", "--supervisor", str(self._socket)]
        argv += ["--control", str(self._hand_there.fileno())]
        descriptors = [self._hand_there.fileno()]
        if bridge.egress:
            argv.append(f"--outside={self._supply_there.fileno()}")
            argv += [f"--leaving={each.fileno()}" for each in leaving]
            descriptors += [self._supply_there.fileno(), *(each.fileno() for each in leaving)]
        return Launch(argv, bridge.namespaces, self._settings.environment, tuple(descriptors))

    @property
    def _socket(self) -> Path:
        return self._settings.state / "supervisor.sock"

    # What it waits for

    async def _apply(self) -> tuple[Problem, ...]:
        decoded = await asyncio.to_thread(decode_paths, self._settings.paths)
        return self._runner.apply(decoded.objects, decoded.problems)

    async def _watch(self) -> None:
        """Take over edited manifests, until cancelled."""
        folders = {path if path.is_dir() else path.parent for path in self._settings.paths}
        while True:
            try:
                async for _ in watchfiles.awatch(*folders, recursive=False, debounce=100, step=20):
                    while being_written(self._settings.paths, time.time()):  # noqa: ASYNC110 (a file is no event)
                        await asyncio.sleep(FILE_WRITTEN_S)
                    # Whoever asks for it by `_apply` is told instead.
                    for problem in await self._apply():
                        self._log.warning("manifest not taken over", problem=str(problem))
            except FileNotFoundError:
                # The folder is being replaced as a whole; what runs goes on.
                await asyncio.sleep(FOLDER_BACK_S)

    async def _hand_over(self) -> None:
        """Hand changed doors to the gateway, until cancelled."""
        generation = 0
        while True:
            generation, _ = await self._doors.open_now.next(generation)
            self._send_doors()

    def _send_doors(self) -> None:
        # A gateway that reads nothing is about to be started anew, and gets them then.
        with contextlib.suppress(BlockingIOError):
            send(self._hand_here, self._doors.open_now.value or ())

    async def _serve(self) -> None:
        """Answer others, until cancelled; from then on the mesh counts as started."""
        settings = self._settings
        listener = socket.socket(socket.AF_UNIX)
        self._socket.unlink(missing_ok=True)
        listener.bind(str(self._socket))
        self._socket.chmod(0o600)
        listener.listen()
        Places(settings.name, settings.state, settings.persistent).write(self._process)
        api = Api(self._runner, settings.state / "logs", self._apply, self._runner.stop)
        config = uvicorn.Config(api.application(), log_config=None, access_log=False, lifespan="off")
        await _HttpServer(config).serve(sockets=[listener])


def run(settings: Settings, process: StateFile) -> None:
    """Run a mesh until it is stopped; `process` is what to write down about us."""
    log.configure()
    asyncio.run(Supervisor(settings, process).run())


async def _name_sockets(spawner: Spawner, bridge: Bridge) -> list[socket.socket]:
    """Open the sockets at which pods ask for names."""
    sockets: list[socket.socket] = []
    for address in BRIDGE:
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            opened = await spawner.socket(bridge.namespaces, family, kind)
            opened.bind((address, NAMES_PORT))
            if kind == socket.SOCK_STREAM:
                opened.listen()
            sockets.append(opened)
    return sockets


async def _leaving_sockets(spawner: Spawner, bridge: Bridge) -> list[socket.socket]:
    """Open the sockets at which the gateway takes over what goes outside."""
    sockets: list[socket.socket] = []
    for family in outside.FAMILIES:
        opened = await spawner.socket(bridge.namespaces, family)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", outside.PORT))
        opened.listen()
        sockets.append(opened)
    return sockets


def _resolvers() -> list[str]:
    try:
        return outside.resolvers(outside.RESOLVER_FILE.read_text())
    except OSError:
        return []


def _installation() -> list[str]:
    """Return where Python and the mesh itself are installed, which programs in pods may need."""
    package = Path(__file__).parents[2]
    return [str(Path(folder).resolve()) for folder in (sys.prefix, sys.base_prefix, package)]


def _token_key(file: Path) -> bytes:
    """Make the key with which the pods' tokens are signed; it dies with the mesh."""
    key = secrets.token_bytes(KEY_BYTES)
    file.unlink(missing_ok=True)
    file.touch(0o600)
    file.write_bytes(key)
    return key

"""The controller: identity, destination and policy for one mesh, from one world.

Started inside its pod's network namespace, behind a proxy of its own: gRPC is plaintext on loopback
(for that proxy as a client) and on the pod's own address (where that proxy forwards what came in over
mutual TLS; every packet from outside is redirected to it first). The API for people is a Unix socket.

Starting order: authority, gRPC (certificates are answered at once, streams are held), API, sources.
"""

import argparse
import asyncio
import contextlib
import ipaddress
import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Literal

import grpc.aio
import uvicorn
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.exposition import make_asgi_app
from starlette.types import ASGIApp

from tulle.destination.index import DestinationIndex
from tulle.destination.service import DestinationService
from tulle.explain.ground import CLUSTER_NETWORKS, CONTROLLER_ACCOUNT, Ground
from tulle.identity.authority import Lifetimes, MeshAuthority
from tulle.identity.service import IdentityService
from tulle.identity.store import Store
from tulle.lib import log, tokens
from tulle.lib.clock import wall_clock
from tulle.lib.settings import Reader
from tulle.lib.stream import SERVER_OPTIONS, Gate
from tulle.model.errors import SettingError, TulleError
from tulle.model.pod import ADMIN_PORT, TrustDomain
from tulle.model.service import ObjectName
from tulle.model.source import Source
from tulle.model.update import Update
from tulle.model.world import World
from tulle.policy.authorizations import DefaultPolicy
from tulle.policy.index import PolicyIndex
from tulle.policy.service import PolicyService
from tulle.serve import controller_api
from tulle.sources.local import LocalSource
from tulle.sources.service import SourceService, load_plugins
from tulle.viz.scraper import Scraper
from tulle.viz.tap import Tapper

IDENTITY_PORT, DESTINATION_PORT, POLICY_PORT, ADMIN_LISTEN = 8080, 8086, 8090, 9996
# Often enough to notice the last third of even a short test issuer's life.
ISSUER_CHECK_SECONDS = 5.0
# Longer than news of a pod takes, shorter than the 3 s that a proxy waits for a first message.
POD_PATIENCE_SECONDS = 1.0
# Streams end at once; only unary calls in flight are worth waiting for.
GRACE_SECONDS = 1.0


class LogFormat(Enum):
    """For people or for machines."""

    CONSOLE = "console"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Settings:
    """All that a controller is told."""

    state: Path
    persistent: Path
    pod_ips: tuple[str, ...]
    lifetimes: Lifetimes
    trust: TrustDomain
    cluster_domain: str
    cluster_networks: tuple[str, ...]
    default_policy: DefaultPolicy
    log_level: str
    log_format: LogFormat


def settings(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Raises SettingError."""
    parser = argparse.ArgumentParser(prog="python -m tulle.serve.controller")
    parser.add_argument("--state-dir", type=Path, required=True, help="sockets and the token key")
    parser.add_argument(
        "--persistent-dir", type=Path, required=True, help="what outlives the mesh's processes"
    )
    parser.add_argument(
        "--pod-ip", action="append", default=[], help="an address of this pod; may be repeated"
    )
    options = parser.parse_args(arguments)
    reader = Reader(environment)
    defaults = Lifetimes()
    domain = reader.text("TULLE_CLUSTER_DOMAIN", "cluster.local")
    made = Settings(
        state=options.state_dir,
        persistent=options.persistent_dir,
        pod_ips=tuple(address for item in options.pod_ip for address in item.split(",") if address),
        lifetimes=Lifetimes(
            leaf=reader.duration("TULLE_LEAF_LIFETIME", defaults.leaf),
            issuer=reader.duration("TULLE_ISSUER_LIFETIME", defaults.issuer),
            root=reader.duration("TULLE_ROOT_LIFETIME", defaults.root),
        ),
        trust=TrustDomain(reader.text("TULLE_TRUST_DOMAIN", domain)),
        cluster_domain=domain,
        cluster_networks=reader.networks("TULLE_CLUSTER_NETWORKS", CLUSTER_NETWORKS),
        default_policy=reader.choice("TULLE_DEFAULT_INBOUND_POLICY", DefaultPolicy.ALL_UNAUTHENTICATED),
        log_level=reader.text("TULLE_LOG", "info"),
        log_format=reader.choice("TULLE_LOG_FORMAT", LogFormat.CONSOLE),
    )
    if reader.mistakes:
        raise SettingError("\n".join(reader.mistakes))
    return made


class Controller:
    """Everything that one controller process consists of."""

    def __init__(self, chosen: Settings, sources: Sequence[Source], token_key: bytes) -> None:
        self.world = World()
        self.gate = Gate()
        self.authority = MeshAuthority(
            Store(chosen.persistent / "identity"),
            trust=chosen.trust,
            lifetimes=chosen.lifetimes,
            clock=wall_clock,
            expected=self._meshed_pods,
        )
        self.identity = IdentityService(
            self.authority,
            trust=chosen.trust,
            verify=lambda token: tokens.verify(token_key, token),
            identity_of=lambda name: self._identity_of(name, chosen.trust),
        )
        destinations = DestinationIndex(self.world, chosen.trust, cluster_domain=chosen.cluster_domain)
        self.destination = DestinationService(destinations, self.gate, cluster_domain=chosen.cluster_domain)
        self.policy = PolicyService(
            PolicyIndex(
                self.world,
                cluster_domain=chosen.cluster_domain,
                cluster_networks=chosen.cluster_networks,
                default=chosen.default_policy,
                trust=chosen.trust,
                controller=chosen.trust.identity(chosen.trust.control_namespace, CONTROLLER_ACCOUNT),
            ),
            self.gate,
            cluster_domain=chosen.cluster_domain,
            patience=POD_PATIENCE_SECONDS,
        )
        self.sources = SourceService(sources, publish=self._publish, known=self._know, clock=wall_clock)
        self.scraper = Scraper(self._scrape_targets)
        self.tapper = Tapper(self.world.pods, self.world.pod_at)
        self.registry = CollectorRegistry()
        self._updates = Counter("tulle_controller_updates", "Changes of the world", registry=self.registry)
        self._register_metrics()
        self.api = controller_api.build(
            controller_api.Parts(
                self.gate,
                self.sources,
                self.scraper,
                self.tapper,
                self.destination,
                self.policy,
                self.authority,
                Ground(self.world, self.policy, destinations, chosen.trust, chosen.cluster_domain),
                chosen.cluster_domain,
                tuple(map(ipaddress.ip_network, chosen.cluster_networks)),
            )
        )

    def server(self, addresses: Sequence[str]) -> grpc.aio.Server:
        """Build the gRPC server; every address serves everything."""
        server = grpc.aio.server(options=SERVER_OPTIONS)
        server.add_generic_rpc_handlers(
            (*self.identity.handlers(), self.destination.handlers(), *self.policy.handlers())
        )
        for address in addresses:
            server.add_insecure_port(address)
        return server

    async def keep_issuer(self) -> None:
        """Replace the issuer before it expires, for as long as the process lives."""
        while True:
            self.authority.renew_issuer_in_time()
            await asyncio.sleep(ISSUER_CHECK_SECONDS)

    def _publish(self, updates: list[Update]) -> None:
        self._updates.inc(len(updates))
        touched: set[str] = set(self.world.apply(updates))
        self.destination.touch(touched)
        self.policy.touch(touched)
        self.authority.settle()

    def _know(self) -> None:
        self.gate.open()
        self.authority.settle()

    def _meshed_pods(self) -> frozenset[ObjectName] | None:
        if not self.gate.is_open:
            return None
        return frozenset(pod.name for pod in self.world.pods() if pod.meshed and not pod.terminating)

    def _identity_of(self, name: ObjectName, trust: TrustDomain) -> str | None:
        pod = self.world.pod(name)
        return trust.identity(name.namespace, pod.service_account) if pod else None

    def _scrape_targets(self) -> dict[str, str]:
        return {
            str(pod.name): f"http://{_bracketed(pod.addresses[0])}:{ADMIN_PORT}/metrics"
            for pod in self.world.pods()
            if pod.meshed and pod.addresses and not pod.terminating
        }

    def _register_metrics(self) -> None:
        streams = Gauge("tulle_controller_streams", "Streams open", ["kind"], registry=self.registry)
        views = Gauge("tulle_controller_views", "Distinct answers held", ["kind"], registry=self.registry)
        for kind, of in {
            "endpoints": self.destination.endpoints,
            "profile": self.destination.profiles,
            "inbound": self.policy.inbound,
            "outbound": self.policy.outbound,
        }.items():
            streams.labels(kind).set_function(lambda of=of: of.followers)  # type: ignore[misc]
            views.labels(kind).set_function(lambda of=of: len(of))  # type: ignore[misc]
        issuer = Gauge("issuer_cert_ttl_seconds", "Seconds until the issuer expires", registry=self.registry)
        issuer.set_function(lambda: (self.authority.state.issuer.expires - wall_clock()).total_seconds())


class _HttpServer(uvicorn.Server):
    """uvicorn without its signal handlers: the process has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def run(chosen: Settings, sources: Sequence[Source]) -> None:
    """Serve until SIGTERM or SIGINT."""
    controller = Controller(chosen, sources, _token_key(chosen.state / "token.key"))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = controller.server(_listen_on(chosen.pod_ips))
    await server.start()
    api = _http(controller.api, _unix_socket(chosen.state / "controller.sock"))
    admin = _http(make_asgi_app(controller.registry), _loopback_socket(ADMIN_LISTEN))
    async with asyncio.TaskGroup() as tasks:
        running = [
            tasks.create_task(controller.sources.run(), name="sources"),
            tasks.create_task(controller.scraper.run(), name="scraper"),
            tasks.create_task(controller.keep_issuer(), name="issuer"),
        ]
        serving = [tasks.create_task(one.serve([listener])) for one, listener in (api, admin)]
        await stop.wait()
        for task in running:
            task.cancel()
        for one, _ in (api, admin):
            one.should_exit = True
        await server.stop(GRACE_SECONDS)
        await asyncio.wait(serving)


def main() -> int:
    """Run the process; return its exit code."""
    try:
        chosen = settings(sys.argv[1:], os.environ)
        form: Literal["console", "json"] = "json" if chosen.log_format is LogFormat.JSON else "console"
        log.configure(level=chosen.log_level, form=form)
        sources = [LocalSource(chosen.state / "supervisor.sock"), *load_plugins()]
        asyncio.run(run(chosen, sources))
    except TulleError as error:
        sys.stderr.write(f"controller: {error}\n")
        return 64
    return 0


def _listen_on(pod_ips: Sequence[str]) -> list[str]:
    hosts = ("127.0.0.1", *map(_bracketed, pod_ips))
    return [f"{host}:{port}" for host in hosts for port in (IDENTITY_PORT, DESTINATION_PORT, POLICY_PORT)]


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _http(app: ASGIApp, listener: socket.socket) -> tuple[_HttpServer, socket.socket]:
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=int(GRACE_SECONDS)
    )
    return _HttpServer(config), listener


def _unix_socket(path: Path) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    path.chmod(0o600)
    return listener


def _loopback_socket(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    return listener


def _token_key(path: Path) -> bytes:
    try:
        key = path.read_bytes()
    except OSError as error:
        raise SettingError(
            f"{path}: {error.strerror}; the supervisor makes it before it starts a controller"
        ) from error
    if len(key) != tokens.KEY_BYTES:
        raise SettingError(f"{path}: {len(key)} bytes, not the {tokens.KEY_BYTES} of a token key")
    return key


if __name__ == "__main__":
    sys.exit(main())

"""A pod's proxy: a process beside the pod's containers, in its network and nothing else of it.

It sees the mesh's processes and not the pod's, and the pod sees neither it nor its key and token. It is started
again whenever it ends, at once the first time; meanwhile the pod is not ready.
"""

import asyncio
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tulle.lib import tokens
from tulle.local.containers import User
from tulle.local.ground import Ground
from tulle.local.plan import retry_delay_s
from tulle.local.probes import ProbeFailed, Target, http_status
from tulle.local.processes import Child
from tulle.local.rootfs import Mount, Root
from tulle.local.sandbox import Sandbox
from tulle.model.errors import HostError, SettingError
from tulle.rules.injection import BINARY, Injection

CONTAINER = "linkerd-proxy"
STOCK = "stock"
IDENTITY_FOLDER = "/tulle/identity"
TOKEN_FILE = "/tulle/token"

MAX_COMMON_NAME = 64
READY_POLL_S = 0.05
READY_TIMEOUT_S = 1.0
DRAIN_S = 5.0
"""How long a proxy may take to end after its application, before it is killed."""


@dataclass(frozen=True, slots=True)
class Host:
    """The pod that a proxy serves."""

    namespace: str
    name: str
    service_account: str
    address: str
    folder: Path
    etc: tuple[Mount, ...] = ()
    """The pod's names: a proxy may be told of others by name."""


class Proxy:
    """Keeps one proxy running from `keep` until `stop`."""

    def __init__(
        self,
        ground: Ground,
        sandbox: Sandbox,
        host: Host,
        inject: Callable[[], Injection],
        changed: Callable[[], None],
    ) -> None:
        self._ground = ground
        self._sandbox = sandbox
        self._host = host
        self._inject = inject
        self._changed = changed
        self._child: Child | None = None
        self._stopping = asyncio.Event()
        self._ready = asyncio.Event()
        self.restarts = 0
        self.note = ""

    @property
    def is_ready(self) -> bool:
        """Say whether it said that it is ready, since it was last started."""
        return self._ready.is_set()

    async def ready(self) -> None:
        """Return when it is ready."""
        await self._ready.wait()

    async def keep(self) -> None:
        """Run it, and again when it ends, until it is stopped."""
        failures = 0
        while not self._stopping.is_set():
            begun = self._ground.clock()
            try:
                await self._run()
            except (HostError, SettingError, OSError) as error:
                self._say(f"the proxy cannot be started: {error}")
            self._ready.clear()
            self._changed()
            if self._stopping.is_set():
                return
            self.restarts += 1
            failures = failures + 1 if self._ground.clock() - begun < 10 else 0
            await unless(self._stopping, retry_delay_s(failures))

    async def stop(self) -> None:
        """Let it finish what it carries, then end it."""
        self._stopping.set()
        child = self._child
        if child is None or not child.running:
            return
        child.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(DRAIN_S):
                await child.wait()
        except TimeoutError:
            child.signal(signal.SIGKILL)
            await child.wait()

    async def _run(self) -> None:
        # Planned anew at each start: the trust anchors may be others by now.
        injection = self._inject()
        binary = self._binary(injection)
        user = User(injection.uid, injection.gid or injection.uid)
        identity, token = self._files(user)
        if binary != self._ground.proxy:
            make_key(identity, injection.identity, self._owner(user))
        log = self._ground.log(self._host.namespace, self._host.name, CONTAINER, self._owner(user)[0])
        try:
            child = self._child = await self._ground.start(
                [binary],
                environment=injection.environment,
                folder="/",
                user=user,
                root=Root(
                    mounts=(
                        Mount(str(identity), IDENTITY_FOLDER),
                        Mount(str(token), TOKEN_FILE, True),
                        *self._host.etc,
                    ),
                    hidden=self._ground.hidden,
                    reach=(*self._ground.reach, os.path.dirname(os.path.realpath(binary)), binary),
                ),
                inside=self._sandbox.namespaces.only("net"),
                log=log,
                keep_mark=not self._ground.many_ids,
            )
        finally:
            os.close(log)
        try:
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(self._watch_ready(child, injection.admin_port))
                code = await child.wait()
                watching.cancel()
        finally:
            # It is outside the pod's PID namespace, so nobody else ends it when the pod is lost.
            child.signal(signal.SIGKILL)
        if not self._stopping.is_set():
            self._say(f"the proxy ended with code {code}")

    async def _watch_ready(self, child: Child, port: int) -> None:
        target = Target(
            self._ground.spawner, self._sandbox.namespaces, self._host.address, {}, _no_commands, Path()
        )
        while child.running:
            try:
                async with asyncio.timeout(READY_TIMEOUT_S):
                    if await http_status(target, self._host.address, port, "/ready") == 200:
                        self._ready.set()
                        self._say("")
                        return
            except (OSError, TimeoutError, ProbeFailed, asyncio.IncompleteReadError):
                pass  # It has not come so far yet.
            await asyncio.sleep(READY_POLL_S)

    def _files(self, user: User) -> tuple[Path, Path]:
        """Write what only the proxy may read."""
        owner = self._owner(user)
        identity, token = self._host.folder / "identity", self._host.folder / "token"
        identity.mkdir(parents=True, exist_ok=True)
        subject = tokens.Subject(self._host.namespace, self._host.service_account, self._host.name)
        token.unlink(missing_ok=True)
        token.write_bytes(tokens.mint(self._ground.token_key, subject))
        token.chmod(0o400)
        identity.chmod(0o700)
        os.chown(token, *owner)
        os.chown(identity, *owner)
        return identity, token

    def _owner(self, user: User) -> tuple[int, int]:
        return (user.uid, user.gid) if self._ground.many_ids else (0, 0)

    def _binary(self, injection: Injection) -> str:
        """Return which program the proxy is: ours, unless the pod names another one."""
        wanted = injection.annotations.get(BINARY, "")
        binary = self._ground.stock_proxy if wanted == STOCK else wanted or self._ground.proxy
        if binary is None:
            missing = "TULLE_STOCK_PROXY is not set" if wanted == STOCK else "tulle-proxy is not installed"
            raise SettingError(f"{missing}; install it or take the pod out with linkerd.io/inject: disabled")
        return binary

    def _say(self, note: str) -> None:
        if note != self.note:
            self.note = note
            self._changed()


def make_key(folder: Path, identity: str, owner: tuple[int, int]) -> None:
    """Write the key and the request that a stock proxy expects to find."""
    key_file, request_file = folder / "key.p8", folder / "csr.der"
    if key_file.exists() and request_file.exists():
        return
    key = ec.generate_private_key(ec.SECP256R1())
    # A common name has at most 64 characters, an identity may have more; only the alternative name counts.
    common = [x509.NameAttribute(NameOID.COMMON_NAME, identity)] if len(identity) <= MAX_COMMON_NAME else []
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name(common))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(identity)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    for file, content in (
        (key_file, key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())),
        (request_file, request.public_bytes(Encoding.DER)),
    ):
        file.touch(0o600)
        file.write_bytes(content)
        os.chown(file, *owner)


async def unless(event: asyncio.Event, seconds: float) -> None:
    """Wait, or until the event."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass


async def _no_commands(_: tuple[str, ...]) -> int:
    raise ProbeFailed("the proxy has no commands to run")

"""The namespaces of one pod, held by a process that only sleeps.

It is the first process of the pod's PID namespace, so the kernel ends whatever runs in the pod when it ends, and
nothing in a pod can see or signal what runs outside. The order matters: addresses and rules are there before
anything of the pod's runs, so no packet leaves past the proxy.
"""

import asyncio
import os
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from tulle.local import kernel, outside
from tulle.local.addresses import Pair
from tulle.local.network import bridge_batch, link_batch, pod_batch, unlink_batch
from tulle.local.processes import Child, Command, Namespaces, Spawner, open_namespaces
from tulle.model.errors import HostError

# The new /proc shows only the pod. Ports below 1024 need no privilege, as in container runtimes. Ignoring SIGCHLD
# lets the kernel collect orphans, which only a first process may do.
LOW_PORTS = "echo 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start"
HOLD = (
    f"mount -t proc -o nosuid,nodev,noexec proc /proc && {LOW_PORTS} && echo held"
    " && exec env --ignore-signal=CHLD sleep infinity"
)
FRESH = (
    kernel.CLONE_NEWNET | kernel.CLONE_NEWUTS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWPID | kernel.CLONE_NEWNS
)


@dataclass(frozen=True, slots=True)
class Bridge:
    """The network that joins the pods; with `egress` it leads outside, too."""

    namespaces: Namespaces
    egress: bool

    @classmethod
    async def make(cls, spawner: Spawner, *, egress: bool) -> "Bridge":
        """Make the bridge in a network namespace of its own."""
        made = await spawner.new_network()
        await _checked(spawner, ["sh", "-c", LOW_PORTS], "", made, "the mesh's network")
        await _batch(spawner, bridge_batch(), made, "the mesh's network")
        if egress:
            await _checked(spawner, ["nft", "-f", "-"], outside.rules(), made, "the way outside")
        return cls(made, egress)


class Sandbox:
    """A pod's namespaces, from `open` until `close`."""

    def __init__(
        self, spawner: Spawner, bridge: Bridge, holder: Child, namespaces: Namespaces, addresses: Pair
    ) -> None:
        self._spawner = spawner
        self._bridge = bridge
        self._holder = holder
        self._addresses = addresses
        self.namespaces = namespaces

    @property
    def pid(self) -> int:
        """The process that holds the namespaces."""
        return self._holder.pid

    @classmethod
    async def open(
        cls,
        spawner: Spawner,
        bridge: Bridge,
        *,
        hostname: str,
        addresses: Pair,
        rules: str,
        redirect: Sequence[str] = (),
    ) -> "Sandbox":
        """Make the namespaces, join them to the bridge and load packet rules.

        `redirect` is the command that leads the pod's traffic to its proxy, where it has one.

        Raises HostError with what the kernel or a tool said.
        """
        holder = await _hold(spawner, hostname)
        try:
            namespaces = open_namespaces(holder.pid)
        except FileNotFoundError:
            raise HostError(f"the namespaces of {hostname} ended while they were made") from None
        sandbox = cls(spawner, bridge, holder, namespaces, addresses)
        try:
            await _batch(spawner, link_batch(addresses, namespaces.path("net")), bridge.namespaces, hostname)
            ways_out = outside.routes() if bridge.egress else ()
            await _batch(spawner, pod_batch(addresses, ways_out), namespaces.only("net"), hostname)
            if redirect:
                inside = namespaces.only("net")
                await _checked(spawner, redirect, "", inside, "the proxy's packet rules")
            await sandbox.load(rules)
        except BaseException:
            await sandbox.close()
            raise
        return sandbox

    async def load(self, rules: str) -> None:
        """Replace the services' packet rules."""
        if rules:
            inside = self.namespaces.only("net")
            await _checked(self._spawner, ["nft", "-f", "-"], rules, inside, "the packet rules")

    async def lost(self) -> None:
        """Return when the namespaces are gone without having been closed."""
        await self._holder.wait()

    async def close(self) -> None:
        """End everything in the pod."""
        self._holder.signal(signal.SIGKILL)
        await self._holder.wait()
        self.namespaces.close()
        # Where the pod never came onto the bridge, there is nothing to take off it.
        text = unlink_batch(self._addresses)
        await self._spawner.run(["ip", "-batch", "-"], stdin=text, inside=self._bridge.namespaces)


async def _hold(spawner: Spawner, hostname: str) -> Child:
    heard, said = os.pipe2(os.O_CLOEXEC)
    try:
        holder = await spawner.spawn(
            Command(
                ["sh", "-c", HOLD],
                dict(os.environ),
                stdout=said,
                stderr=said,
                fresh=FRESH,
                prepare=lambda: socket.sethostname(hostname),
            )
        )
    except OSError as error:
        os.close(heard)
        raise HostError(f"cannot make namespaces for {hostname}: {error}") from error
    finally:
        os.close(said)
    answer = await _line(heard)
    if answer != "held":
        holder.signal(signal.SIGKILL)
        await holder.wait()
        raise HostError(f"cannot make namespaces for {hostname}: {answer or 'their first process ended'}")
    return holder


async def _line(descriptor: int) -> str:
    """Read what a process says first; closes the descriptor."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", 0)
    )
    try:
        return (await reader.readline()).decode(errors="replace").strip()
    finally:
        transport.close()


async def _batch(spawner: Spawner, text: str, inside: Namespaces, what: str) -> None:
    await _checked(spawner, ["ip", "-batch", "-"], text, inside, what)


async def _checked(spawner: Spawner, argv: Sequence[str], text: str, inside: Namespaces, what: str) -> None:
    done = await spawner.run(argv, stdin=text, inside=inside)
    if done.code != 0:
        raise HostError(f"{argv[0]} could not set up {what}: {done.output or f'exit code {done.code}'}")

"""Policies for one port of one pod of the shared mesh, and clients that knock at it in every protocol."""

import asyncio
import contextlib
import itertools
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from e2e import bridges, grpcs, http2
from e2e.conftest import Field
from e2e.http1 import Recorder, ask, get
from e2e.pods import Pod, Served, eventually

SERVER = """
apiVersion: policy.linkerd.io/v1beta3
kind: Server
metadata: {{name: {name}}}
spec: {{podSelector: {{matchLabels: {{app: {pod}}}}}, port: {port}, proxyProtocol: {protocol}}}
"""
NAMES = """
apiVersion: policy.linkerd.io/v1alpha1
kind: MeshTLSAuthentication
metadata: {{name: {name}}}
spec: {{identities: [{identities}]}}
"""
ALLOW = """
apiVersion: policy.linkerd.io/v1alpha1
kind: AuthorizationPolicy
metadata: {{name: {name}}}
spec:
  targetRef: {{group: {group}, kind: {kind}, name: {target}}}
  requiredAuthenticationRefs: [{{group: policy.linkerd.io, kind: {authentication}, name: {by}}}]
"""
POLICY_GROUP = "policy.linkerd.io"
COUNTER = itertools.count(1)


def joined(*documents: str) -> str:
    """Make one manifest of several objects."""
    return "---".join(documents)


def identity(pod: Pod) -> str:
    """Return the name that a pod of the shared mesh proves."""
    return f"{pod.name}.default.serviceaccount.identity.linkerd.cluster.local"


def server(name: str, pod: Pod, port: int, protocol: str = "unknown") -> str:
    """Return a Server of one port of one pod, which lets nobody in."""
    return SERVER.format(name=name, pod=pod.name, port=port, protocol=protocol)


def allow(
    name: str,
    *,
    target: str,
    by: str,
    kind: str = "Server",
    group: str = POLICY_GROUP,
    authentication: str = "MeshTLSAuthentication",
) -> str:
    """Return an AuthorizationPolicy."""
    return ALLOW.format(
        name=name, target=target, by=by, kind=kind, group=group, authentication=authentication
    )


def allow_names(name: str, *identities: str) -> str:
    """Return what lets these identities use the Server of the same name."""
    quoted = ", ".join(f'"{each}"' for each in identities)
    return joined(NAMES.format(name=name, identities=quoted), allow(name, target=name, by=name))


def fresh(what: str) -> str:
    """Return a name that no other test uses."""
    return f"{what}-{next(COUNTER)}"


@contextlib.asynccontextmanager
async def applied(field: Field, text: str) -> AsyncIterator[None]:
    """Have a manifest while the block runs; the proxies follow within moments."""
    name = f"{fresh('policy')}.yaml"
    problems = await field.mesh.write(name, text)
    assert not problems, problems
    try:
        yield
    finally:
        await field.mesh.remove(name)


async def owned(field: Field, pod: Pod, port: int, server: str) -> None:
    """Return when the control plane has put a Server in charge of a port."""

    async def asked() -> bool:
        policy: dict[str, Any] = await field.mesh.api.inbound_policy(pod.name, port)
        return bool(policy["labels"]["name"] == server)

    await eventually(asked, f"{server} owns {pod.name}:{port}")


@dataclass(frozen=True, slots=True)
class Speaker:
    """A protocol: how it is served inside a pod, and how a client asks."""

    serving: Callable[[Pod, int], contextlib.AbstractAsyncContextManager[Served]]
    knock: Callable[[Pod, Pod, int], Awaitable[str]]
    served: str
    refused: str


@contextlib.asynccontextmanager
async def _grpc(pod: Pod, port: int) -> AsyncIterator[Served]:
    async with grpcs.server() as (_, address), bridges.out_of(pod, address, port=port) as served:
        yield served


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()


async def _ask_http1(client: Pod, server: Pod, port: int) -> str:
    async with await client.connect(server.name, port) as stream:
        return str((await ask(stream, get())).status)


async def _ask_http2(client: Pod, server: Pod, port: int) -> str:
    async with await client.connect(server.name, port) as stream:
        return str((await http2.Client(stream).ask())[":status"])


async def _ask_grpc(client: Pod, server: Pod, port: int) -> str:
    async with bridges.into(client, server.name, port) as entrance, grpcs.channel(entrance) as channel:
        return (await grpcs.unary(channel, b"x")).code


def hello() -> bytes:
    """Return what a TLS client says first."""
    outgoing = ssl.MemoryBIO()
    context = ssl.create_default_context()
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="shop.example")
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def _says(first: bytes) -> Callable[[Pod, Pod, int], Awaitable[str]]:
    async def knock(client: Pod, server: Pod, port: int) -> str:
        async with await client.connect(server.name, port) as stream:
            stream.write(first)
            try:
                return "echoed" if await stream.exactly(len(first)) == first else "other bytes"
            except (asyncio.IncompleteReadError, ConnectionError) as error:
                return "some bytes" if getattr(error, "partial", b"") else "closed"

    return knock


SPEAKERS = {
    "HTTP/1": Speaker(lambda pod, port: pod.serving(Recorder(), port=port), _ask_http1, "200", "403"),
    "HTTP/2": Speaker(lambda pod, port: pod.serving(http2.Server(), port=port), _ask_http2, "200", "403"),
    "gRPC": Speaker(_grpc, _ask_grpc, "StatusCode.OK", "StatusCode.PERMISSION_DENIED"),
    "bytes": Speaker(
        lambda pod, port: pod.serving(_echo, port=port), _says(b"\x00\x01 bytes\r\n"), "echoed", "closed"
    ),
    "TLS": Speaker(lambda pod, port: pod.serving(_echo, port=port), _says(hello()), "echoed", "closed"),
}

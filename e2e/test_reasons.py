"""Each thing that can go wrong on the way has a code of its own, the right one, on the right side and in its phase."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass

import pytest

from e2e import http1
from e2e.conftest import CONTROLLER, OPAQUE_PORT, Field, kind, pod
from e2e.http1 import Recorder, get
from e2e.pods import Handler, Pod, eventually
from e2e.policy.rules import applied, fresh, owned, server
from e2e.policy.test_limits import limited
from e2e.routes.rig import ask, manifests, service, until
from e2e.routes.test_egress import NETWORK, change_network, outside
from e2e.routes.test_egress import ask as egress

ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}, annotations: {{{annotations}}}}}
spec:
  parentRefs: [{{group: "", kind: Service, name: {name}, port: 80}}]
  rules: [{{matches: [{{path: {{type: PathPrefix, value: {path}}}}}], backendRefs: [{{name: {backend}, port: 80}}]{more}}}]
"""
TCP_ROUTE = """
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TCPRoute
metadata: {{name: {name}}}
spec:
  parentRefs: [{{group: "", kind: Service, name: {name}, port: 80}}]
  rules: [{{backendRefs: [{{name: lost, port: 80}}]}}]
"""
COUNTED = re.compile(r"^tulle_refusals_total\{(.*)\} (\d+)$", re.MULTILINE)
SLOW_S = 15
"""The longest that a proxy waits for a client before it closes is 10 s."""


@dataclass(frozen=True, slots=True)
class Said:
    """What is said of a refusal."""

    code: str
    hop: str
    phase: str
    resource: str


def said(message: http1.Message) -> Said:
    """Read the header of a refusal."""
    code, *rest = (message["tulle-reason"] or "").split("; ")
    named = dict(part.split("=", 1) for part in rest)
    return Said(code, named["hop"], named["phase"], named.get("resource", "").strip('"'))


async def counts(field: Field, of: Pod) -> dict[Said, int]:
    """Return what a pod's proxy has refused so far."""
    text = await field.mesh.api.proxy_metrics(of.name)
    found: dict[Said, int] = {}
    for labels, count in COUNTED.findall(text):
        named = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        of_kind = Said(named["reason"], named["direction"], named["phase"], named["resource"])
        found[of_kind] = int(count)
    return found


async def counted(field: Field, of: Pod, cause: Callable[[], Awaitable[object]]) -> Said:
    """Return what a pod's proxy counts while something happens that is refused without an answer."""
    before = await counts(field, of)
    new: list[Said] = []

    async def grown() -> bool:
        new[:] = [key for key, count in (await counts(field, of)).items() if count > before.get(key, 0)]
        return bool(new)

    await cause()
    await eventually(grown, "a refusal is counted")
    assert len(new) == 1, new
    return new[0]


async def speak(client: Pod, host: str, port: int, words: bytes = b"\x00\x01 not HTTP\r\n") -> None:
    """Say something on a connection, or nothing, and wait until it is closed."""
    with contextlib.suppress(ConnectionError):
        async with await client.connect(host, port) as stream:
            if words:
                stream.write(words)
            async with asyncio.timeout(SLOW_S):
                await stream.reader.read(-1)


async def told(client: Pod, host: str, port: int, request: bytes) -> Said:
    """Return what the answer to a request says."""
    async with await client.connect(host, port) as stream:
        stream.write(request)
        async with asyncio.timeout(SLOW_S):
            return said(await http1.read_response(stream.reader))


@contextlib.contextmanager
def halted(pid: int) -> Iterator[None]:
    """Have a process stand still while the block runs."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def saying(words: bytes, *, pause: bool = False) -> Handler:
    """Return a server that answers a request with these bytes and hangs up, or never does."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await http1.read_head(reader)
        writer.write(words)
        await writer.drain()
        if pause:
            await asyncio.Event().wait()

    return handler


@contextlib.asynccontextmanager
async def added(field: Field, what: str, annotations: dict[str, str]) -> AsyncIterator[Pod]:
    """Have one more pod while the block runs, with a proxy that is told something else than the others."""
    name = fresh(what)
    async with manifests(field, name, pod(name, kind("ours") | annotations)):

        async def there() -> bool:
            return any(each.name == name and each.ready for each in await field.mesh.api.pods())

        await eventually(there, f"{name} is ready", within_s=60)
        found = await field.mesh.api.pod(name)
        first, second = (*found.addresses, "")[:2]
        made = Pod(field.mesh, name, first, second)
        try:
            yield made
        finally:
            made.close()


def environment(**variables: str) -> dict[str, str]:
    """Return the annotation that gives a proxy variables."""
    listed = json.dumps([{"name": name, "value": value} for name, value in variables.items()])
    return {"config.linkerd.io/proxy-additional-env": listed.replace('"', '\\"')}


def small(field: Field) -> contextlib.AbstractAsyncContextManager[Pod]:
    """Have a pod whose proxy carries one request and lets one wait."""
    variables = environment(
        LINKERD2_PROXY_INBOUND_MAX_IN_FLIGHT="1", LINKERD2_PROXY_OUTBOUND_HTTP_QUEUE_CAPACITY="1"
    )
    return added(field, "small", variables)


def route(name: str, backend: str, *, path: str = "/", more: str = "", **annotations: str) -> str:
    """Return a route of a service; annotations are time-outs."""
    pairs = ", ".join(f'timeout.linkerd.io/{key}: "{value}"' for key, value in annotations.items())
    return ROUTE.format(name=name, backend=backend, path=path, more=more, annotations=pairs)


async def routed(field: Field, text: Callable[[str], str], code: str, handler: Handler | None = None) -> Said:
    """Return what a client is told whose service has a route."""
    client, host, name = field["client-ours"], field["server-ours"], fresh("routed")
    handler = handler or Recorder()
    async with host.serving(handler) as served:
        texts = service(name, host.name, served.port), text(name)
        async with manifests(field, name, *texts):
            answer = await until(
                lambda: ask(client, name, get("/")), lambda message: message.reason == code, code
            )
            return said(answer)


async def bad_request(field: Field) -> Said:
    words = b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n"
    return await told(field["client-ours"], "server-ours", field["server-ours"].next_port(), words)


async def headers_too_large(field: Field) -> Said:
    words = get(more=f"x-large: {'x' * 70_000}\r\n")
    return await told(field["client-ours"], "server-ours", field["server-ours"].next_port(), words)


async def head_timeout(field: Field) -> Said:
    words = b"GET / HTTP/1.1\r\nhost: a\r\n"
    return await told(field["client-ours"], "server-ours", field["server-ours"].next_port(), words)


async def protocol_unknown(field: Field) -> Said:
    of = field["deny-ours"]
    return await counted(field, of, lambda: speak(field["plain-client"], of.name, of.next_port(), b""))


async def route_not_found(field: Field) -> Said:
    return await routed(field, lambda name: route(name, name, path="/elsewhere"), "route_not_found")


async def unauthorized(field: Field) -> Said:
    of = field["deny-ours"]
    return await told(field["client-ours"], of.name, of.next_port(), get())


async def revoked(field: Field) -> Said:
    of, name = field["server-ours"], fresh("revoked")
    port = of.next_port()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)

    async def deny() -> None:
        async with applied(field, server(name, of, port)):
            await owned(field, of, port, name)
            assert await stream.rest() == b""

    async with of.serving(echo, port=port), await field["client-ours"].connect(of.name, port) as stream:
        stream.write(b"\x00\x01\r\n")
        assert await stream.exactly(4) == b"\x00\x01\r\n"
        return await counted(field, of, deny)


async def policy_unknown(field: Field) -> Said:
    of = field["server-ours"]
    controller = await field.mesh.api.process(CONTROLLER)
    with halted(controller):
        # A port that the pod does not name, so that nobody has asked for its policy yet.
        return await counted(field, of, lambda: speak(field["plain-client"], of.address, 7777))


async def rate_limited(field: Field) -> Said:
    of, client, name = field["server-ours"], field["client-ours"], fresh("limited")
    port = of.next_port()
    text = limited(name, of, port, "total: {requestsPerSecond: 1}")
    async with applied(field, text), of.serving(Recorder(), port=port):
        await owned(field, of, port, name)
        return said(
            await until(
                lambda: ask(client, of.name, get(), port=port),
                lambda message: message.status == 429,
                "the limit is reached",
            )
        )


async def overloaded(field: Field) -> Said:
    client = field["client-ours"]
    async with small(field) as of, of.serving(saying(b"", pause=True)) as served:
        async with await client.connect(of.name, served.port) as stream:
            stream.write(get())
            await eventually(lambda: served.accepted == 1, "the first request is there")
            return await told(client, of.name, served.port, get())


async def queue_full(field: Field) -> Said:
    async with small(field) as client, await client.connect("empty", 80) as first:
        first.write(get())
        answers = asyncio.gather(*(told(client, "empty", 80, get()) for _ in range(2)))
        return min(await answers, key=lambda each: each.code != "queue_full")


async def fail_fast(field: Field) -> Said:
    of = field["plain-server"]
    return await told(field["client-ours"], of.name, of.next_port(), get())


async def no_endpoints(field: Field) -> Said:
    return await told(field["client-ours"], "empty", 80, get())


async def port_undefined(field: Field) -> Said:
    client = field["client-ours"]
    return await counted(field, client, lambda: speak(client, "server-ours", 7, get()))


async def backend_invalid(field: Field) -> Said:
    assert (await routed(field, lambda name: route(name, "lost"), "backend_invalid")).phase == "resolve"
    client, name = field["client-ours"], fresh("bytes")
    texts = service(name, "server-ours", 9001), TCP_ROUTE.format(name=name)
    async with manifests(field, name, *texts):
        return await counted(field, client, lambda: speak(client, name, 80))


async def failure_injected(field: Field) -> Said:
    client, port = field["client-ours"], 80
    network = NETWORK.format(namespace="default", verdict="Deny")
    async with manifests(field, fresh("egress"), network), outside(field, client):
        answer = await until(
            lambda: egress(client, port), lambda message: message.status == 403, "the way out is closed"
        )
        return said(answer)


async def address_refused(field: Field) -> Said:
    of, client = field["server-ours"], field["plain-client"]
    await change_network(of, "address", "replace", "198.51.100.9/32", "dev", "eth0")
    await change_network(client, "route", "replace", "198.51.100.9/32", "dev", "eth0")
    try:
        return await counted(field, of, lambda: speak(client, "198.51.100.9", 9001, get()))
    finally:
        await change_network(client, "route", "delete", "198.51.100.9/32")
        await change_network(of, "address", "delete", "198.51.100.9/32", "dev", "eth0")


async def connect_failed(field: Field) -> Said:
    of = field["server-ours"]
    return await counted(field, of, lambda: speak(field["client-ours"], of.name, OPAQUE_PORT))


async def connect_timeout(field: Field) -> Said:
    of = field["server-ours"]
    passer = await of.passer()
    with passer.make(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("0.0.0.0", OPAQUE_PORT))
        # With a backlog of 0 one connection is queued, and what comes then is not answered.
        listener.listen(0)
        with passer.make(socket.AF_INET, socket.SOCK_STREAM) as queued:
            await asyncio.get_running_loop().sock_connect(queued, ("127.0.0.1", OPAQUE_PORT))
            return await counted(field, of, lambda: speak(field["client-ours"], of.name, OPAQUE_PORT))


async def identity_required(field: Field) -> Said:
    client, of = field["client-ours"], field["server-ours"]
    async with of.serving(Recorder()) as served:
        return await told(client, of.name, served.port, get(more="l5d-require-id: somebody.else\r\n"))


async def tls_failed(field: Field) -> Said:
    of = field["server-ours"]
    return await counted(field, of, lambda: speak(field["plain-client"], of.address, 4143, get()))


async def connection_lost(field: Field) -> Said:
    of = field["server-ours"]
    async with of.serving(saying(b"")) as served:
        return await told(field["client-ours"], of.name, served.port, get())


async def bad_response(field: Field) -> Said:
    of = field["server-ours"]
    async with of.serving(saying(b"\x00\x01\x02 nonsense\r\n\r\n")) as served:
        return await told(field["client-ours"], of.name, served.port, get())


async def timeout(field: Field) -> Said:
    never = saying(b"", pause=True)
    return await routed(field, lambda name: route(name, name, request="200ms"), "timeout", never)


async def response_timeout(field: Field) -> Said:
    never = saying(b"", pause=True)
    return await routed(field, lambda name: route(name, name, response="200ms"), "response_timeout", never)


async def idle_timeout(field: Field) -> Said:
    never = saying(b"", pause=True)
    return await routed(field, lambda name: route(name, name, idle="200ms"), "idle_timeout", never)


async def backend_timeout(field: Field) -> Said:
    never = saying(b"", pause=True)
    more = ", timeouts: {backendRequest: 200ms}"
    return await routed(field, lambda name: route(name, name, more=more), "backend_timeout", never)


async def loop(field: Field) -> Said:
    client = field["client-ours"]
    return await counted(field, client, lambda: speak(client, "127.0.0.1", 4140, get()))


CASES: dict[Callable[[Field], Awaitable[Said]], tuple[str, str]] = {
    bad_request: ("outbound", "request"),
    headers_too_large: ("outbound", "request"),
    head_timeout: ("outbound", "request"),
    protocol_unknown: ("inbound", "request"),
    route_not_found: ("outbound", "policy"),
    unauthorized: ("inbound", "policy"),
    revoked: ("inbound", "policy"),
    policy_unknown: ("inbound", "resolve"),
    rate_limited: ("inbound", "policy"),
    overloaded: ("inbound", "queue"),
    queue_full: ("outbound", "queue"),
    fail_fast: ("outbound", "queue"),
    no_endpoints: ("outbound", "resolve"),
    port_undefined: ("outbound", "resolve"),
    backend_invalid: ("outbound", "resolve"),
    failure_injected: ("outbound", "policy"),
    address_refused: ("inbound", "resolve"),
    connect_failed: ("inbound", "connect"),
    connect_timeout: ("inbound", "connect"),
    identity_required: ("outbound", "tls"),
    tls_failed: ("inbound", "tls"),
    connection_lost: ("inbound", "response"),
    bad_response: ("inbound", "response"),
    timeout: ("outbound", "response"),
    response_timeout: ("outbound", "response"),
    idle_timeout: ("outbound", "response"),
    backend_timeout: ("outbound", "response"),
    loop: ("outbound", "resolve"),
}


@pytest.mark.parametrize("cause", CASES, ids=lambda cause: cause.__name__)
async def test_a_failure_has_the_code_the_side_and_the_phase_that_are_right(
    field: Field, cause: Callable[[Field], Awaitable[Said]]
) -> None:
    found = await cause(field)

    hop, phase = CASES[cause]
    assert (found.code, found.hop, found.phase) == (cause.__name__, hop, phase)


def test_there_are_at_least_25_of_them() -> None:
    assert len({cause.__name__ for cause in CASES}) >= 25


async def test_a_refusal_names_the_server_the_limit_or_the_service_that_decided(field: Field) -> None:
    assert (await unauthorized(field)).resource == "default/deny"
    assert (await rate_limited(field)).resource.startswith("policy.linkerd.io/")
    assert (await no_endpoints(field)).resource == "core/Service/default/empty:80"


async def test_who_has_proved_no_name_learns_the_code_alone(field: Field) -> None:
    of = field["deny-ours"]

    answer = await ask(field["plain-client"], of.name, get(), port=of.next_port())

    assert said(answer) == Said("unauthorized", "inbound", "policy", "")
    assert answer["l5d-proxy-error"] is None

"""What tests of routes share: manifests that hold for one block, and servers that say who they are."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

from e2e import http1
from e2e.conftest import Field
from e2e.pods import Pod, Served, eventually

SERVICE = """
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}, annotations: {{{annotations}}}}}
spec: {{selector: {{app: {app}}}, ports: [{{name: main, port: 80, targetPort: {port}{more}}}]}}
---
"""


def service(
    name: str,
    app: str,
    port: int,
    *,
    namespace: str = "default",
    app_protocol: str = "",
    annotations: dict[str, str] | None = None,
) -> str:
    """Return a service whose port 80 is a pod's port."""
    return SERVICE.format(
        name=name,
        namespace=namespace,
        app=app,
        port=port,
        more=f", appProtocol: {app_protocol}" if app_protocol else "",
        annotations=", ".join(f'{key}: "{value}"' for key, value in (annotations or {}).items()),
    )


@contextlib.asynccontextmanager
async def manifests(field: Field, name: str, *texts: str) -> AsyncIterator[None]:
    """Have manifests in the mesh while the block runs."""
    assert await field.mesh.write(f"{name}.yaml", "\n---\n".join(texts)) == ()
    try:
        yield
    finally:
        await field.mesh.remove(f"{name}.yaml")


@contextlib.asynccontextmanager
async def answering(
    pod: Pod, more: str = "", *, port: int | None = None
) -> AsyncIterator[tuple[Served, http1.Recorder]]:
    """Serve HTTP/1 in a pod while the block runs; the body is the pod's name."""
    recorder = http1.Recorder(http1.answer(pod.name.encode(), more=more))
    async with pod.serving(recorder, port=port) as served:
        yield served, recorder


async def ask(client: Pod, host: str, request: bytes, *, port: int = 80) -> http1.Message:
    """Make one request on a connection of its own."""
    async with await client.connect(host, port) as stream:
        return await http1.ask(stream, request)


async def until(
    answer: Callable[[], Awaitable[http1.Message]], right: Callable[[http1.Message], bool], what: str
) -> http1.Message:
    """Ask until the answer is right: a change of routes takes its way through the mesh."""
    last: list[http1.Message] = []

    async def is_right() -> bool:
        try:
            last.append(await answer())
        except (OSError, EOFError, TimeoutError):
            return False
        return right(last[-1])

    try:
        await eventually(is_right, what)
    except AssertionError as error:
        raise AssertionError(f"{error}; the last answer was {last[-1:]}") from error
    return last[-1]


def asking(client: Pod, host: str, path: str = "/", **more: str) -> Callable[[], Awaitable[http1.Message]]:
    """Return what makes a request with these headers, as often as wanted."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in more.items())
    return partial(ask, client, host, http1.get(path, host=host, more=lines))


def is_status(status: int) -> Callable[[http1.Message], bool]:
    """Return what says whether an answer has a status."""
    return lambda message: message.status == status


def is_from(pod: Pod) -> Callable[[http1.Message], bool]:
    """Return what says whether a pod has answered."""
    return lambda message: message.body == pod.name.encode()

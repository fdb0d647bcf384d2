"""Asks a mesh's two Unix sockets, and turns what goes wrong there into our own errors."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import httpx2
import msgspec

from tulle.model.errors import BugError, MeshError, NotFound, NotRunning, PeerError, SettingError

Shape = TypeVar("Shape")

ANSWER_S = 30
"""Far more than any answer takes; a hung process must not hang the command line."""
LOGS = {"supervisor": "supervisor.log", "controller": "linkerd/linkerd-destination/controller.log"}
"""Where each process writes down what it does, for who reads an error to look on."""


class Refusal(msgspec.Struct):
    """How either process says no."""

    error: str = ""


class Client:
    """One of the sockets of a mesh."""

    def __init__(self, mesh: str, socket: Path) -> None:
        self._mesh = mesh
        self._socket = socket
        self._process = socket.stem
        self._log = socket.parent / "logs" / LOGS.get(self._process, "")

    async def get(self, path: str, shape: type[Shape], query: Mapping[str, str] | None = None) -> Shape:
        """Ask for something.

        Raises:
            NotRunning: nobody listens at the supervisor's socket.
            NotFound: what the path names is not in the mesh.
            MeshError: the mesh says no.
            PeerError: the answer has another shape.
        """
        return decoded(await self._ask("GET", path, query, None), shape)

    async def post(self, path: str, body: object, shape: type[Shape]) -> Shape:
        """Ask for something to be done; raises what `get` raises."""
        return decoded(await self._ask("POST", path, None, body), shape)

    async def text(self, path: str, query: Mapping[str, str]) -> AsyncGenerator[str]:
        """Yield text as it arrives; raises what `get` raises."""
        async with (
            self._translated(),
            self._connected(None) as client,
            client.stream("GET", f"http://mesh{path}", params=dict(query)) as response,
        ):
            if response.status_code >= 400:
                self._refuse(response.status_code, await response.aread())
            async for chunk in response.aiter_text():
                yield chunk

    async def _ask(self, method: str, path: str, query: Mapping[str, str] | None, body: object) -> bytes:
        async with self._connected(ANSWER_S) as client, self._translated():
            content = None if body is None else msgspec.json.encode(body)
            headers = {"content-type": "application/json"}
            response = await client.request(
                method, f"http://mesh{path}", params=query, content=content, headers=headers
            )
            if response.status_code >= 400:
                self._refuse(response.status_code, response.content)
            return response.content

    def _refuse(self, status: int, content: bytes) -> None:
        """Raise the error that an answer is about."""
        try:
            text = msgspec.json.decode(content, type=Refusal).error
        except msgspec.MsgspecError:
            text = ""
        if status >= 500 and status != httpx2.codes.SERVICE_UNAVAILABLE:
            raise BugError(f"the {self._process} failed ({text or status}); the reason is in {self._log}")
        kind = {404: NotFound, 422: SettingError}.get(status, MeshError)
        raise kind(text or f"the {self._process} answered {status}")

    def _away(self) -> MeshError:
        """Return what it means that nobody listens."""
        if self._process == "supervisor":
            return NotRunning(f'no mesh called "{self._mesh}" answers; start one with: tulle up')
        return MeshError(
            f'the {self._process} of "{self._mesh}" does not answer; a mesh without a meshed pod has none, '
            f"and one that has just ended is being started again; see {self._log}"
        )

    @asynccontextmanager
    async def _connected(self, limit_s: float | None) -> AsyncIterator[httpx2.AsyncClient]:
        # Without `verify=False` every client would read the system's certificates, for a socket without TLS.
        transport = httpx2.AsyncHTTPTransport(uds=str(self._socket), verify=False)
        timeout = httpx2.Timeout(limit_s, connect=5)
        async with httpx2.AsyncClient(transport=transport, timeout=timeout, trust_env=False) as client:
            yield client

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        try:
            yield
        except httpx2.ConnectError as error:
            raise self._away() from error
        except httpx2.TimeoutException as error:
            raise MeshError(
                f"the {self._process} did not answer within {ANSWER_S} s; see {self._log}"
            ) from error
        except httpx2.TransportError as error:
            raise MeshError(
                f"the {self._process} ended in the middle of an answer; try again, and see {self._log}"
            ) from error


def decoded(content: bytes, shape: type[Shape]) -> Shape:
    """Return an answer in the shape that was expected."""
    try:
        return msgspec.json.decode(content or b"{}", type=shape)
    except msgspec.MsgspecError as error:
        raise PeerError(f"the mesh's answer has a shape of another version: {error}") from error

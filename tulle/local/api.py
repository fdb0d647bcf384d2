"""What the supervisor answers on its socket: the watch for the mesh's processes, the rest for people.

Every answer is the newest value of something that the runner publishes; nothing is computed here.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tulle.local import logs
from tulle.local.runner import Runner
from tulle.model.errors import NotFound, TulleError
from tulle.model.objects import Problem

Handler = Callable[[Request], Awaitable[Response]]
Apply = Callable[[], Awaitable[tuple[Problem, ...]]]
SAFE = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")


class Which(msgspec.Struct, frozen=True):
    """A workload, as people write it."""

    workload: str


class HowMany(msgspec.Struct, frozen=True):
    """A workload and the pods it shall have."""

    workload: str
    replicas: int


class Api:
    """The handlers."""

    def __init__(self, runner: Runner, folder: Path, apply: Apply, stop: Callable[[], None]) -> None:
        self._runner = runner
        self._logs = folder
        self._apply = apply
        self._stop = stop

    def application(self) -> Starlette:
        """Return what a server runs."""
        routes: list[tuple[str, Handler, str]] = [
            ("/v1/watch", self.watch, "GET"),
            ("/v1/state", self.state, "GET"),
            ("/v1/logs/{namespace}/{pod}", self.log, "GET"),
            ("/v1/restart", self.restart, "POST"),
            ("/v1/scale", self.scale, "POST"),
            ("/v1/apply", self.apply, "POST"),
            ("/v1/stop", self.stop, "POST"),
        ]
        return Starlette(
            routes=[Route(path, _answered(handler), methods=[method]) for path, handler, method in routes],
            exception_handlers={Exception: _failed},
        )

    async def watch(self, _: Request) -> Response:
        """Stream snapshots; a slow reader misses those that newer ones replaced."""

        async def lines() -> AsyncIterator[bytes]:
            generation = 0
            while True:
                generation, line = await self._runner.snapshots.next(generation)
                yield line

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    async def state(self, _: Request) -> Response:
        """Say how everything is."""
        newest = await self._runner.states.next(0)
        return Response(newest[1], media_type="application/json")

    async def log(self, request: Request) -> Response:
        """Return what a container said."""
        namespace, pod = request.path_params["namespace"], request.path_params["pod"]
        container = request.query_params.get("container")
        if not all(SAFE.fullmatch(part) for part in (namespace, pod, container or "x")):
            raise NotFound(f"no pod is called {namespace}/{pod}")
        file = self._log_file(namespace, pod, container)
        tail = request.query_params.get("tail", "")
        follow = request.query_params.get("follow") == "1"
        return StreamingResponse(
            logs.read(file, tail=int(tail) if tail.isdigit() else None, follow=follow),
            media_type="text/plain; charset=utf-8",
        )

    async def restart(self, request: Request) -> Response:
        """Replace the pods of a workload."""
        self._runner.restart(msgspec.json.decode(await request.body(), type=Which).workload)
        return _done()

    async def scale(self, request: Request) -> Response:
        """Change how many pods a workload has."""
        wanted = msgspec.json.decode(await request.body(), type=HowMany)
        self._runner.scale(wanted.workload, max(0, wanted.replicas))
        return _done()

    async def apply(self, _: Request) -> Response:
        """Read the manifests again now."""
        return _done(await self._apply())

    async def stop(self, _: Request) -> Response:
        """Begin to stop everything."""
        self._stop()
        return _done()

    def _log_file(self, namespace: str, pod: str, container: str | None) -> Path:
        folder = self._logs / namespace / pod
        found = self._runner.pod(namespace, pod)
        if container is None and found is not None:
            container = found.order.spec.containers[0].name
        names = sorted(file.stem for file in folder.glob("*.log"))
        if container is None and names:
            container = names[0]
        if found is None and not names:
            raise NotFound(f"no pod is called {namespace}/{pod}")
        if container not in names:
            raise NotFound(
                f"container {container} of {pod} has said nothing; there are: {', '.join(names) or 'none'}"
            )
        return folder / f"{container}.log"


def _answered(handler: Handler) -> Handler:
    """Turn our own errors into answers: the only place where a kind becomes a status."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except msgspec.MsgspecError as error:
            return JSONResponse({"error": f"the request cannot be read: {error}"}, 400)
        except NotFound as error:
            return JSONResponse({"error": str(error)}, 404)
        except TulleError as error:
            return JSONResponse({"error": str(error)}, 409)

    return answer


async def _failed(_: Request, error: Exception) -> Response:
    """Name a mistake of ours; the server writes all of it into the log."""
    return JSONResponse({"error": repr(error)}, 500)


def _done(problems: tuple[Problem, ...] = ()) -> Response:
    return JSONResponse({"problems": [str(problem) for problem in problems]})

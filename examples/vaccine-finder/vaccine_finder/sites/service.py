"""The sites over HTTP.

A replica can be told to be slow (`POST /admin/slow?ms=400`, 0 ends it), so that one can watch callers avoid
it. Probes are answered at once all the same: a slow replica is not a dead one. Every answer says who gave
it.
"""

import asyncio
import logging
import socket

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from vaccine_finder.json_http import answer, healthz, invalid, refuse
from vaccine_finder.sites.index import SiteIndex
from vaccine_finder.towns import Town
from vaccine_finder.wire.messages import Place

MOST_SITES = 100
SLOWEST_MS = 60_000

log = logging.getLogger(__name__)


class SitesService:
    """One replica."""

    def __init__(self, index: SiteIndex, towns: tuple[Town, ...]) -> None:
        self._index = index
        self._places = {town.name: Place(town.name, town.latitude, town.longitude) for town in towns}
        self._slow_ms = 0
        self._name = socket.gethostname()

    def app(self) -> Starlette:
        """Return the application."""
        return Starlette(
            routes=[
                Route("/healthz", healthz),
                Route("/places", self.places),
                Route("/sites", self.near),
                Route("/sites/some", self.some),
                Route("/admin/slow", self.slow, methods=["POST"]),
            ],
            exception_handlers={msgspec.ValidationError: invalid},
        )

    async def places(self, request: Request) -> Response:
        """Answer the places that a search can start from."""
        return await self._answer(list(self._places.values()))

    async def near(self, request: Request) -> Response:
        """Answer the nearest sites that have a vaccine: `?place=…&vaccine=…&limit=…`."""
        query = request.query_params
        place = self._places.get(query.get("place", ""))
        if place is None:
            return refuse(404, "no such place")
        limit = msgspec.convert(query.get("limit", "20"), int, strict=False)
        found = self._index.near(
            place.latitude,
            place.longitude,
            vaccine=query.get("vaccine", ""),
            limit=max(1, min(limit, MOST_SITES)),
        )
        return await self._answer(found)

    async def some(self, request: Request) -> Response:
        """Answer sites by their ids, without those that do not exist: `?id=1&id=2`."""
        numbers = msgspec.convert(request.query_params.getlist("id"), list[int], strict=False)
        return await self._answer(self._index.some(numbers[:MOST_SITES]))

    async def slow(self, request: Request) -> Response:
        """Make this replica slow from now on: `?ms=…`."""
        given = msgspec.convert(request.query_params.get("ms", ""), int, strict=False)
        self._slow_ms = max(0, min(given, SLOWEST_MS))
        log.info("slow_ms=%d", self._slow_ms)
        return answer({"replica": self._name, "slow_ms": self._slow_ms})

    async def _answer(self, value: object) -> Response:
        if self._slow_ms:
            await asyncio.sleep(self._slow_ms / 1000)
        response = answer(value)
        response.headers["served-by"] = self._name
        return response

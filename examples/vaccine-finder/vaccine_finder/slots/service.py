"""Slots and bookings over HTTP.

Writes wait for the disk, so they run in one thread of their own, one after another; reads are answered
directly from a second connection.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from datetime import date, datetime, time
from typing import TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from vaccine_finder.json_http import answer, healthz, invalid, refuse
from vaccine_finder.slots.ledger import Ledger, NotBookedError
from vaccine_finder.wire.messages import Wanted

MOST_SITES = 100
MOST_TIMES = 500
LONGEST_KEY = 64

_STATUS = {"no_such_slot": 404, "taken": 409, "in_the_past": 409, "key_was_used_for_another_booking": 422}

Written = TypeVar("Written")

log = logging.getLogger(__name__)


class SlotsService:
    """The only one who sells slots."""

    def __init__(self, reader: Ledger, writer: Ledger, writer_thread: Executor) -> None:
        self._reader = reader
        self._writer = writer
        self._writer_thread = writer_thread

    def app(self) -> Starlette:
        """Return the application."""
        family = "/families/{family}/bookings"
        return Starlette(
            routes=[
                Route("/healthz", healthz),
                Route("/free", self.free),
                Route("/bookings", self.book, methods=["POST"]),
                Route(family, self.of_family),
                Route(family + "/{key}", self.cancel, methods=["DELETE"]),
            ],
            exception_handlers={msgspec.ValidationError: invalid, msgspec.DecodeError: invalid},
        )

    async def free(self, request: Request) -> Response:
        """Answer the next free slots of some sites: `?site=1&site=2&limit=…`."""
        query = request.query_params
        sites = msgspec.convert(query.getlist("site"), list[int], strict=False)
        limit = msgspec.convert(query.get("limit", "4"), int, strict=False)
        return answer(
            self._reader.free(sites[:MOST_SITES], after=datetime.now(), limit=max(1, min(limit, MOST_TIMES)))
        )

    async def book(self, request: Request) -> Response:
        """Book a slot under the key of the header `idempotency-key`."""
        key = request.headers.get("idempotency-key", "")
        if not 0 < len(key) <= LONGEST_KEY:
            return refuse(400, f"the header idempotency-key must have 1 to {LONGEST_KEY} characters")
        wanted = msgspec.json.decode(await request.body(), type=Wanted)
        try:
            booking = await self._write(lambda: self._writer.book(wanted, key=key, now=datetime.now()))
        except NotBookedError as error:
            log.info("not booked: %s site=%d starts=%s", error.reason, wanted.site, wanted.starts)
            return refuse(_STATUS[error.reason], error.reason)
        log.info("booked: key=%s site=%d starts=%s", key, booking.site, booking.starts)
        return answer(booking, 201)

    async def of_family(self, request: Request) -> Response:
        """Answer what a family has booked for today and later."""
        today = datetime.combine(date.today(), time())
        return answer(self._reader.of_family(request.path_params["family"], after=today))

    async def cancel(self, request: Request) -> Response:
        """Give a slot back; doing so twice is no mistake."""
        key, family = request.path_params["key"], request.path_params["family"]
        booking = await self._write(lambda: self._writer.cancel(key, family=family))
        if booking is None:
            return refuse(404, "no such booking")
        log.info("cancelled: key=%s site=%d starts=%s", key, booking.site, booking.starts)
        return answer(booking)

    async def _write(self, write: Callable[[], Written]) -> Written:
        return await asyncio.get_running_loop().run_in_executor(self._writer_thread, write)

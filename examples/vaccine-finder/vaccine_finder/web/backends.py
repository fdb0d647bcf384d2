"""The four services that `web` asks, and what becomes of their failures.

Only `slots` is asked again: it has one replica, so its restart is a time without any. Every request to it
may be repeated (a booking carries its idempotency key), so `web` does so until `BRIDGE_S` have passed. All
others are asked once; keeping their replicas reachable is the business of what lies between.
"""

import asyncio
import logging
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import grpc
import httpx2
import msgspec

from vaccine_finder.web.stated import Stated
from vaccine_finder.wire import eligibility_pb2, members_pb2
from vaccine_finder.wire.messages import Booking, Found, FreeTimes, Place, Site, Wanted

# Longer than `slots` needs to stop, be rescheduled and start; shorter than people wait.
BRIDGE_S = 20.0
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 1.0

_GRPC_TIMEOUT_S = 5.0
_PASSING = frozenset({502, 503, 504})

Answer = TypeVar("Answer")
Query: TypeAlias = Mapping[str, str | int | list[int]]

log = logging.getLogger(__name__)


class UnavailableError(Exception):
    """A service gave no answer; the text names it."""


class NotFoundError(Exception):
    """A service knows no such thing."""


class RefusedError(Exception):
    """`slots` refused a booking for good; `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Backends:
    """The clients, all of which keep their connections."""

    sites: httpx2.AsyncClient
    slots: httpx2.AsyncClient
    eligibility: grpc.aio.Channel
    members: grpc.aio.Channel

    async def catalogue(self) -> eligibility_pb2.CatalogueReply:
        """Return the words of the search form."""
        call = self.eligibility.unary_unary(
            "/vaccine_finder.eligibility.Eligibility/Catalogue",
            request_serializer=eligibility_pb2.CatalogueRequest.SerializeToString,
            response_deserializer=eligibility_pb2.CatalogueReply.FromString,
        )
        reply: eligibility_pb2.CatalogueReply = await _rpc(
            "eligibility", call, eligibility_pb2.CatalogueRequest()
        )
        return reply

    async def eligible(self, stated: Stated) -> Sequence[eligibility_pb2.Eligible]:
        """Return what the person is eligible for; raises NotFoundError for a word not in the catalogue."""
        call = self.eligibility.unary_unary(
            "/vaccine_finder.eligibility.Eligibility/Check",
            request_serializer=eligibility_pb2.Profile.SerializeToString,
            response_deserializer=eligibility_pb2.Verdict.FromString,
        )
        profile = eligibility_pb2.Profile(
            age=stated.age, occupation=stated.occupation, conditions=stated.conditions
        )
        verdict: eligibility_pb2.Verdict = await _rpc("eligibility", call, profile)
        return verdict.vaccines

    async def family(self, number: str) -> members_pb2.Family:
        """Return a family; raises NotFoundError."""
        call = self.members.unary_unary(
            "/vaccine_finder.members.Members/FindFamily",
            request_serializer=members_pb2.FamilyRequest.SerializeToString,
            response_deserializer=members_pb2.Family.FromString,
        )
        family: members_pb2.Family = await _rpc("members", call, members_pb2.FamilyRequest(number=number))
        return family

    async def places(self) -> Sequence[Place]:
        """Return the places that a search can start from."""
        return _decode(await self._ask_sites("/places"), list[Place])

    async def near(self, place: str, vaccine: str, limit: int) -> Sequence[Found]:
        """Return the nearest sites that have a vaccine; raises NotFoundError for an unknown place."""
        query: Query = {"place": place, "vaccine": vaccine, "limit": limit}
        return _decode(await self._ask_sites("/sites", query), list[Found])

    async def some_sites(self, numbers: Collection[int]) -> Mapping[int, Site]:
        """Return the sites of these ids, without those that do not exist."""
        if not numbers:
            return {}
        sites = _decode(await self._ask_sites("/sites/some", {"id": list(numbers)}), list[Site])
        return {site.id: site for site in sites}

    async def free(self, sites: Sequence[int], limit: int) -> Sequence[FreeTimes]:
        """Return the next free slots of some sites."""
        request = self.slots.build_request("GET", "/free", params={"site": list(sites), "limit": limit})
        return _decode(await self._ask_slots(request), list[FreeTimes])

    async def book(self, wanted: Wanted, key: str) -> Booking:
        """Book a slot; raises RefusedError."""
        request = self.slots.build_request(
            "POST", "/bookings", content=msgspec.json.encode(wanted), headers={"idempotency-key": key}
        )
        return _decode(await self._ask_slots(request), Booking)

    async def bookings(self, family: str) -> Sequence[Booking]:
        """Return what a family has booked."""
        request = self.slots.build_request("GET", f"/families/{family}/bookings")
        return _decode(await self._ask_slots(request), list[Booking])

    async def cancel(self, family: str, key: str) -> Booking:
        """Give a slot back; raises NotFoundError."""
        request = self.slots.build_request("DELETE", f"/families/{family}/bookings/{key}")
        return _decode(await self._ask_slots(request), Booking)

    async def _ask_sites(self, path: str, query: Query | None = None) -> httpx2.Response:
        try:
            return await self.sites.get(path, params=query)
        except httpx2.TransportError as error:
            raise UnavailableError("sites") from error

    async def _ask_slots(self, request: httpx2.Request) -> httpx2.Response:
        clock = asyncio.get_running_loop().time
        give_up, pause = clock() + BRIDGE_S, _FIRST_PAUSE_S
        while True:
            cause: Exception | None = None
            try:
                response = await self.slots.send(request)
                if response.status_code not in _PASSING:
                    return response
            except httpx2.TransportError as error:
                cause = error
            if clock() + pause > give_up:
                raise UnavailableError("slots") from cause
            log.info("slots gave no answer to %s %s, asking again", request.method, request.url.path)
            await asyncio.sleep(pause * random.uniform(0.5, 1))
            pause = min(pause * 2, _LONGEST_PAUSE_S)


async def _rpc(service: str, call: Any, request: Any) -> Any:
    try:
        return await call(request, timeout=_GRPC_TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        if error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT):
            raise NotFoundError(error.details()) from error
        raise UnavailableError(f"{service} ({error.code().name}: {error.details()})") from error


def _decode(response: httpx2.Response, kind: type[Answer]) -> Answer:
    if response.status_code == 404:
        raise NotFoundError(response.text)
    if response.status_code in (409, 422):
        raise RefusedError(msgspec.json.decode(response.content, type=dict[str, str])["reason"])
    if response.is_error:
        raise UnavailableError(f"{response.url.host} ({response.status_code})")
    return msgspec.json.decode(response.content, type=kind)

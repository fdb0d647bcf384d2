"""Requests go where they are answered soonest."""

import asyncio
import contextlib

from e2e import http1
from e2e.conftest import BALANCED, Field
from e2e.http1 import ask, get
from e2e.pods import Handler

REQUESTS = 600
CLIENTS = 12
SLOW_S = 0.3
"""An answer of the slow replica; the others take about a millisecond."""


async def shares(field: Field, which: str, slow: str | None) -> dict[str, int]:
    """Return how many of some requests each replica got, when one of them answers late."""
    counted = dict.fromkeys(BALANCED, 0)

    def replica(name: str) -> Handler:
        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            loop = asyncio.get_running_loop()
            while not reader.at_eof():
                await http1.read_request(reader)
                counted[name] += 1
                if name == slow:
                    loop.call_later(SLOW_S, writer.write, http1.answer())
                else:
                    writer.write(http1.answer())

        return handler

    async def client() -> None:
        async with await field[f"client-{which}"].connect("balanced", port) as stream:
            while sum(counted.values()) < REQUESTS:
                assert (await ask(stream, get())).status == 200

    async with contextlib.AsyncExitStack() as stack:
        port = field[BALANCED[0]].next_port()
        for name in BALANCED:
            await stack.enter_async_context(field[name].serving(replica(name), port=port))
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(client())
    return counted


async def test_equal_replicas_get_equal_shares(field: Field, which: str) -> None:
    counted = await shares(field, which, None)

    assert min(counted.values()) > 0.15 * sum(counted.values()), counted


async def test_a_slow_replica_is_left(field: Field, which: str) -> None:
    slow = BALANCED[0]

    counted = await shares(field, which, slow)

    assert 0 < counted[slow] < 0.15 * sum(counted.values()), counted

"""Clients that send what HTTP/2 allows in amounts that it does not mean: a proxy pays little and serves on."""

import asyncio
import contextlib
import itertools
import struct
from collections.abc import Callable, Iterator

import pytest

from e2e import http2
from e2e.conftest import Field
from e2e.measures import Memory, cpu_s
from e2e.pods import Stream

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS, DATA, RST_STREAM, SETTINGS, PING, CONTINUATION = 1, 0, 3, 4, 6, 9
END_STREAM, END_HEADERS = 1, 4

# Never indexed literals, so that no state is needed to write them (RFC 7541, section 6.2.2).
REQUEST = b"\x82\x86\x84\x41\x06server"
POST = b"\x83\x86\x84\x41\x06server"
BATCH = 1000
FRAMES = 100_000
HUGE = 64 << 20
WRITE_S = 2
GROWTH_MIB = 16
CPU_S = 8
"""For a build without optimisation on a busy machine; a stock client library would notice far less."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return one frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def rapid_reset() -> Iterator[bytes]:
    """Open streams and reset each at once (CVE-2023-44487)."""
    for stream in range(1, 2 * FRAMES, 2):
        yield frame(HEADERS, END_HEADERS | END_STREAM, stream, REQUEST) + frame(
            RST_STREAM, 0, stream, b"\x00\x00\x00\x08"
        )


def continuation_flood() -> Iterator[bytes]:
    """Begin a header block that never ends (CVE-2024-27316)."""
    yield frame(HEADERS, 0, 1, REQUEST)
    for number in range(HUGE // 16_000):
        yield frame(CONTINUATION, 0, 1, b"\x00\x07x-%05d\x7f\xe1\x7b" % (number % 100_000) + b"a" * 15_968)


def empty_data_flood() -> Iterator[bytes]:
    """Send data that holds nothing (CVE-2019-9518)."""
    yield frame(HEADERS, END_HEADERS, 1, POST)
    yield from itertools.repeat(frame(DATA, 0, 1), FRAMES)


def settings_flood() -> Iterator[bytes]:
    """Ask for an acknowledgement again and again, and read none (CVE-2019-9515)."""
    yield from itertools.repeat(frame(SETTINGS, 0, 0), HUGE // 9)


def ping_flood() -> Iterator[bytes]:
    """Ask for an echo again and again, and read none (CVE-2019-9512)."""
    yield from itertools.repeat(frame(PING, 0, 0, b"tulle-01"), HUGE // 17)


FLOODS: dict[str, Callable[[], Iterator[bytes]]] = {
    "rapid reset": rapid_reset,
    "continuation": continuation_flood,
    "empty data": empty_data_flood,
    "settings": settings_flood,
    "ping": ping_flood,
}
PATHS = {"inbound": ("plain-client", "server-ours"), "outbound": ("client-ours", "server-ours")}


async def pour(stream: Stream, frames: Iterator[bytes]) -> str:
    """Write frames until there are no more, or the other side closes, or takes no more for a while."""
    try:
        while batch := b"".join(itertools.islice(frames, BATCH)):
            stream.write(batch)
            async with asyncio.timeout(WRITE_S):
                await stream.writer.drain()
    except ConnectionError:
        return "closed"
    except TimeoutError:
        return "held back"
    return "taken"


@pytest.mark.parametrize("direction", PATHS)
@pytest.mark.parametrize("flood", FLOODS)
async def test_a_flood_costs_little_and_hurts_nobody_else(field: Field, direction: str, flood: str) -> None:
    client, server = (field[name] for name in PATHS[direction])
    victim = server if direction == "inbound" else client
    pid = await field.mesh.pid(f"{victim.name}/proxy")

    async with server.serving(http2.Server()) as served:
        async with await client.connect(server.name, served.port) as warm:
            assert (await http2.Client(warm).ask())[":status"] == "200"
        memory, before = Memory(pid), cpu_s(pid)
        async with await client.connect(server.name, served.port) as stream:
            stream.writer.transport.set_write_buffer_limits(1 << 16)
            if flood in ("settings", "ping"):
                stream.writer.transport.pause_reading()  # type: ignore[attr-defined]
            stream.write(PREFACE + frame(SETTINGS, 0, 0))
            outcome = await pour(stream, FLOODS[flood]())
            async with await client.connect(server.name, served.port) as other:
                assert (await http2.Client(other).ask())[":status"] == "200"
            with contextlib.suppress(ConnectionError):
                stream.writer.transport.abort()

        used = cpu_s(pid) - before
        assert memory.grown_mib() < GROWTH_MIB, outcome
        assert used < CPU_S, outcome
        assert outcome == ("held back" if flood in ("settings", "ping") else "closed")
        print(f"{direction}, {flood}: {outcome}, {memory.grown_mib():.1f} MiB, {used:.2f} s")  # noqa: T201

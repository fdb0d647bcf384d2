"""A link that is cut without a reset: whoever waits on it is told within 13 s, and everybody else goes elsewhere."""

import asyncio
import time

from e2e.conftest import OPAQUE_PORT, pod
from e2e.faults.steady import CLIENT, loading, server
from e2e.pods import Pod, Stream, eventually
from tulle.testing import LiveMesh

LEFT_S = 13.0
CONNECT_S = 1.0
LATE_S = 1.0
"""What a machine that is busy with something else may add."""
SETTINGS = b"\0\0\0\4\0\0\0\0\0"
H2_REQUEST = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SETTINGS
H1_REQUEST = b"GET / HTTP/1.1\r\nhost: server\r\n\r\n"
BANNER = b"\x00\x01 hello"


def h2_headers(authority: bytes) -> bytes:
    """Return the frame that asks for / over HTTP/2: three indexed fields and the authority as it is."""
    fields = b"\x82\x86\x84\x01" + bytes([len(authority)]) + authority
    return len(fields).to_bytes(3) + b"\1\5\0\0\0\1" + fields


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take in whatever comes and say nothing, but what HTTP/2 begins with."""
    while data := await reader.read(1 << 16):
        if data.startswith(b"PRI"):
            writer.write(SETTINGS + b"\0\0\0\4\1\0\0\0\0")


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send everything back."""
    while data := await reader.read(1 << 16):
        writer.write(data)


async def left_after(stream: Stream, since: float, finished: bytes = b"") -> float:
    """Return how long after a moment a connection ended, or had the bytes that stand for that."""
    seen = b""
    while True:
        try:
            data = await asyncio.wait_for(stream.reader.read(1 << 16), LEFT_S + 10)
        except ConnectionError:
            data = b""
        seen += data
        if not data or (finished and finished in seen):
            return time.monotonic() - since


async def test_whoever_waits_on_a_cut_link_is_told_within_13_seconds(mesh: LiveMesh) -> None:
    opaque = {"config.linkerd.io/opaque-ports": str(OPAQUE_PORT)}
    await mesh.up(pod("client", opaque), pod("server", opaque))
    client = Pod(mesh, "client", "", "")
    host = Pod(mesh, "server", "", "")
    try:
        async with (
            host.serving(silent) as http1,
            host.serving(silent) as http2,
            host.serving(echo, port=OPAQUE_PORT),
            await client.connect("server", http1.port) as h1,
            await client.connect("server", http2.port) as h2,
            await client.connect("server", OPAQUE_PORT) as idle,
            await client.connect("server", OPAQUE_PORT) as writing,
        ):
            h2.write(H2_REQUEST + h2_headers(b"server:%d" % http2.port))
            h1.write(H1_REQUEST)
            for tcp in (idle, writing):
                tcp.write(BANNER)
                assert await tcp.exactly(len(BANNER)) == BANNER
            await eventually(lambda: bool(http1.accepted and http2.accepted), "both requests at the server")

            await mesh.cut("server")
            cut = time.monotonic()
            writing.write(BANNER)
            seen = await asyncio.gather(
                left_after(h1, cut, b"HTTP/1.1 50"),
                left_after(h2, cut, b"\1\4\0\0\0\1"),
                left_after(idle, cut),
                left_after(writing, cut),
            )
            await mesh.mend("server")
        figures = dict(zip(("http1", "http2", "tcp idle", "tcp writing"), seen, strict=True))
        print({name: round(value, 1) for name, value in figures.items()})  # noqa: T201
        assert all(value <= LEFT_S + LATE_S for value in figures.values()), figures
    finally:
        client.close()
        host.close()


async def test_clients_go_elsewhere_while_a_replicas_link_is_cut(mesh: LiveMesh) -> None:
    state = await mesh.up(CLIENT, server())
    victim = next(each.name for each in state.pods if each.workload == "Deployment/web")

    async with loading(mesh, rate=200, connections=20, methods="GET") as clients:
        await mesh.cut(victim)
        begun = (await clients.report()).seconds
        report = await clients.report()
        while report.seconds < begun + LEFT_S + 6:
            report = await clients.more(100)
        await mesh.mend(victim)
    print(f"{report.failed} failed, last trouble {report.trouble_ended - begun:.1f} s after the cut")  # noqa: T201
    # A request that was waiting is tried again, and may meet the same replica, to which no connection is made then.
    assert report.trouble_ended <= begun + LEFT_S + CONNECT_S + LATE_S, report
    assert report.failed <= 20, report

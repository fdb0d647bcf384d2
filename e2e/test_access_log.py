"""Each request has a line in the access log, however it ended."""

import json
import socket
import struct
from functools import partial

import pytest

from e2e import http1
from e2e.conftest import Field
from e2e.http1 import Recorder, get
from e2e.pods import Pod, Stream, eventually
from e2e.routes.rig import ask
from e2e.test_reasons import added, saying

AGENT = 'user-agent: a "quoted" one\r\n'


async def lines(of: Pod, marked: str) -> list[str]:
    """Return the lines of a proxy that hold a mark."""
    said = [text async for text in of.mesh.api.logs(of.name, container="linkerd-proxy")]
    return [line for line in "".join(said).splitlines() if marked in line]


@pytest.mark.parametrize("form", ["apache", "json"])
async def test_answered_refused_malformed_and_given_up_each_have_one_line(field: Field, form: str) -> None:
    client = field["client-ours"]
    async with added(field, "logged", {"config.linkerd.io/access-log": form}) as of:
        name = of.name
        async with of.serving(Recorder()) as served:
            for path in ("/a", "/b"):
                assert (await ask(client, name, get(path, more=AGENT), port=served.port)).status == 200
        assert (await ask(client, name, get("/away"), port=of.next_port())).status == 504
        async with of.serving(saying(b"", pause=True)) as served:
            async with await field["plain-client"].connect(name, served.port) as stream:
                stream.write(get("/left"))
                await eventually(partial(arrived, served), "the request is there")
                reset(stream)

                async def noticed() -> bool:
                    return bool(await lines(of, "/left"))

                await eventually(noticed, "the proxy has noticed")
        async with await field["plain-client"].connect(name, of.next_port()) as stream:
            await malformed(stream)

        async def written() -> bool:
            marks = ("/a ", "/b ", "/away ", "/left ", " 400 ") if form == "apache" else MARKS
            return all([len(await lines(of, mark)) == 1 for mark in marks])

        await eventually(written, "every line is written")
        if form == "apache":
            line = (await lines(of, "/a "))[0]
            assert f" {client.name}.default.serviceaccount.identity.linkerd.cluster.local - [" in line
            assert line.endswith(('/1.1" 200 5', '/2.0" 200 5'))
            assert (await lines(of, "/left "))[0].endswith(" 000 0")
        else:
            entry = json.loads((await lines(of, '/a"'))[0])
            assert (entry["status"], entry["response_bytes"]) == (200, "5")
            assert entry["user_agent"] == 'a "quoted" one'
            assert 0 < int(entry["processing_ns"]) < int(entry["total_ns"])


MARKS = ('/a"', '/b"', '/away"', '/left"', '"status":400')


def arrived(served: object) -> bool:
    return getattr(served, "accepted", 0) == 1


def reset(stream: Stream) -> None:
    """Go without a farewell: a client that only says that it has said everything still waits for its answer."""
    made = stream.writer.get_extra_info("socket")
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.writer.transport.abort()


async def malformed(stream: Stream) -> None:
    stream.write(b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n")
    assert (await http1.read_response(stream.reader)).status == 400

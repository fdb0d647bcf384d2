"""HTTP/1 through two proxies: every framing and every way that a message ends."""

import asyncio
import base64
import os

import pytest

from e2e import http1
from e2e.conftest import Field, Pair
from e2e.http1 import Message, Recorder, answer, ask, get
from e2e.measures import Memory, stalled
from e2e.pods import Pod, Stream, chunks
from e2e.seeds import seeded

IDENTITY = "{}.default.serviceaccount.identity.linkerd.cluster.local"


def only_ours(pair: Pair) -> bool:
    """Say whether no stock proxy takes part: it cannot do everything that ours must."""
    return pair.client.name.endswith("ours") and pair.server.name.endswith("ours")


async def test_an_http_1_0_client_is_answered_and_its_connection_closed(pair: Pair) -> None:
    recorder = Recorder()

    async with pair.server.serving(recorder) as served:
        async with await pair.client.connect(pair.server.name, served.port) as stream:
            stream.write(b"GET /old HTTP/1.0\r\n\r\n")
            received = await stream.rest()

    assert received.startswith(b"HTTP/1.")
    assert received.endswith(b"\r\n\r\nhello")
    assert b"transfer-encoding" not in received.lower()
    assert [each.target for each in recorder.seen] == ["/old"]


async def test_an_http_1_0_server_ends_its_answer_with_its_connection(pair: Pair) -> None:
    async def old(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await http1.read_request(reader)
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 100_000)

    async with pair.server.serving(old) as served:
        async with await pair.client.connect(pair.server.name, served.port) as stream:
            response = await ask(stream, get())

    assert response.body == b"x" * 100_000


async def test_one_connection_carries_many_requests(pair: Pair) -> None:
    recorder = Recorder()

    async with pair.server.serving(recorder) as served:
        async with await pair.client.connect(pair.server.name, served.port) as stream:
            for number in range(30):
                response = await ask(stream, get(f"/{number}"))
                assert (response.status, response.body) == (200, b"hello")

    assert [each.target for each in recorder.seen] == [f"/{number}" for number in range(30)]


async def test_a_client_that_says_close_is_closed_after_its_answer(pair: Pair) -> None:
    async with pair.server.serving(Recorder()) as served:
        async with await pair.client.connect(pair.server.name, served.port) as stream:
            response = await ask(stream, get(more="connection: close\r\n"))
            await stream.closed()

    assert response.body == b"hello"


async def test_a_server_that_closes_each_time_costs_no_request(pair: Pair) -> None:
    async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await http1.read_request(reader)
        writer.write(answer(b"bye", more="connection: close\r\n"))

    async with pair.server.serving(closing) as served:
        async with await pair.client.connect(pair.server.name, served.port) as stream:
            bodies = [(await ask(stream, get())).body for _ in range(10)]

    assert bodies == [b"bye"] * 10


async def test_chunked_bodies_are_byte_exact_however_they_are_cut(pair: Pair) -> None:
    source = seeded()
    question, reply = source.randbytes(400_000), source.randbytes(400_000)
    recorded: list[Message] = []

    def cut(data: bytes) -> bytes:
        pieces = chunks(data, iter(lambda: source.choice((1, 2, 15, 255, 4096, 17_000)), 0))
        return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"

    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        recorded.append(await http1.read_request(reader))
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        await pour(writer, cut(reply))

    async def pour(writer: asyncio.StreamWriter, data: bytes) -> None:
        for piece in chunks(data, iter(lambda: source.choice((1, 13, 999, 20_000)), 0)):
            writer.write(piece)
            await writer.drain()

    async with pair.server.serving(server) as served:
        async with await pair.client.connect(pair.server.name, served.port) as stream:
            stream.write(b"POST / HTTP/1.1\r\nhost: server\r\ntransfer-encoding: chunked\r\n\r\n")
            pouring = asyncio.create_task(pour(stream.writer, cut(question)))
            async with asyncio.timeout(30):
                response = await http1.read_response(stream.reader)
            await pouring

    assert recorded[0].body == question
    assert response.body == reply


async def test_trailers_arrive_with_the_body(pair: Pair) -> None:
    recorder = Recorder(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n"
        b"5\r\nhello\r\n0\r\nx-sum: of the answer\r\n\r\n"
    )
    request = (
        b"POST / HTTP/1.1\r\nhost: server\r\nte: trailers\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n"
        b"2\r\nhi\r\n0\r\nx-sum: of the question\r\n\r\n"
    )

    async with pair.server.serving(recorder) as served:
        async with await pair.client.connect(pair.server.name, served.port) as stream:
            response = await ask(stream, request)

    assert (response.body, recorder.seen[0].body) == (b"hello", b"hi")
    if only_ours(pair):
        assert response.trailers == [("x-sum", "of the answer")]
        assert recorder.seen[0].trailers == [("x-sum", "of the question")]


async def test_a_client_that_waits_for_100_gets_it_and_then_sends_its_body(pair: Pair) -> None:
    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await http1.read_head(reader)
        assert head["expect"] == "100-continue"
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(int(head["content-length"] or 0))
        writer.write(answer(body.upper()))

    async with pair.server.serving(server) as served:
        async with await pair.client.connect(pair.server.name, served.port) as stream:
            interim = await ask(
                stream, b"PUT / HTTP/1.1\r\nhost: server\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n"
            )
            response = await ask(stream, b"body")

    assert (interim.status, response.status, response.body) == (100, 200, b"BODY")


async def test_a_refused_expectation_reaches_the_client_without_its_body(pair: Pair) -> None:
    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await http1.read_head(reader)
        writer.write(answer(b"too large", status="413 Content Too Large", more="connection: close\r\n"))

    async with pair.server.serving(server) as served:
        async with await pair.client.connect(pair.server.name, served.port) as stream:
            response = await ask(
                stream, b"PUT / HTTP/1.1\r\nhost: server\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n"
            )
            # The stock proxy answers the expectation itself.
            if response.status == 100 and not only_ours(pair):
                response = await ask(stream, b"")

    assert (response.status, response.body) == (413, b"too large")


async def test_early_hints_come_before_the_answer(pair: Pair) -> None:
    recorder = Recorder(b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n" + answer(b"page"))

    async with pair.server.serving(recorder) as served:
        async with await pair.client.connect(pair.server.name, served.port) as stream:
            response = await ask(stream, get())
            if only_ours(pair):
                assert (response.status, response["link"]) == (103, "</a.css>")
            if response.status == 103:
                response = await ask(stream, b"")

    assert (response.status, response.body) == (200, b"page")


async def test_pipelined_requests_are_answered_in_order(pair: Pair) -> None:
    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not reader.at_eof():
            request = await http1.read_request(reader)
            writer.write(answer(request.target.encode() + request.body))

    async with pair.server.serving(server) as served:
        async with await pair.client.connect(pair.server.name, served.port) as stream:
            stream.write(
                b"".join(
                    b"POST /%d HTTP/1.1\r\nhost: server\r\ncontent-length: 3\r\n\r\nabc" % number
                    for number in range(20)
                )
            )
            bodies = [(await ask(stream, b"")).body for _ in range(20)]

    assert bodies == [b"/%dabc" % number for number in range(20)]


@pytest.mark.parametrize(
    ("method", "response"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b'HTTP/1.1 304 Not Modified\r\netag: "a"\r\ncontent-length: 5\r\n\r\n'),
    ],
    ids=["head", "head-chunked", "204", "304"],
)
async def test_an_answer_without_a_body_ends_with_its_head(pair: Pair, method: str, response: bytes) -> None:
    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not reader.at_eof():
            request = await http1.read_request(reader)
            writer.write(response if request.target == "/bare" else answer(b"next"))

    async with pair.server.serving(server) as served:
        async with await pair.client.connect(pair.server.name, served.port) as stream:
            bare = await ask(
                stream, f"{method} /bare HTTP/1.1\r\nhost: server\r\n\r\n".encode(), method=method
            )
            following = await ask(stream, get("/next"))

    assert bare.status == int(response[9:12])
    assert following.body == b"next"


async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, source: bytes) -> None:
    """Echo until the client ends, then say goodbye."""
    writer.write(source)
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.write(b"goodbye")
    writer.write_eof()


async def through_tunnel(stream: Stream) -> None:
    """Check that a tunnel carries random bytes both ways, and each end by itself."""
    data = seeded().randbytes(500_000)
    assert await stream.exactly(5) == b"first"

    async def pour() -> None:
        await stream.send(data)
        stream.writer.write_eof()

    pouring = asyncio.create_task(pour())
    assert await stream.exactly(len(data)) == data
    await pouring
    assert await stream.rest() == b"goodbye"


async def test_a_websocket_is_a_tunnel_once_it_is_upgraded(pair: Pair) -> None:
    key = base64.b64encode(os.urandom(16)).decode()
    fields = f"connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: {key}\r\n"

    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await http1.read_head(reader)
        assert (head["upgrade"], head["sec-websocket-key"]) == ("websocket", key)
        assert "upgrade" in (head["connection"] or "").lower()
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
        await tunnel(reader, writer, b"first")

    async with pair.server.serving(server) as served:
        async with await pair.client.connect(pair.server.name, served.port) as stream:
            response = await ask(stream, get("/ws", more=fields))
            assert (response.status, response["upgrade"]) == (101, "websocket")
            await through_tunnel(stream)


async def test_a_refused_upgrade_is_an_ordinary_answer(pair: Pair) -> None:
    recorder = Recorder(answer(b"no", status="426 Upgrade Required"))

    async with pair.server.serving(recorder) as served:
        async with await pair.client.connect(pair.server.name, served.port) as stream:
            response = await ask(stream, get(more="connection: upgrade\r\nupgrade: websocket\r\n"))

    assert (response.status, response.body) == (426, b"no")


async def test_connect_is_a_tunnel_once_it_is_accepted(pair: Pair) -> None:
    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await http1.read_head(reader)
        assert (head.method, head.target) == ("CONNECT", "elsewhere.example:443")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await tunnel(reader, writer, b"first")

    async with pair.server.serving(server) as served:
        async with await pair.client.connect(pair.server.name, served.port) as stream:
            stream.write(b"CONNECT elsewhere.example:443 HTTP/1.1\r\nhost: elsewhere.example:443\r\n\r\n")
            async with asyncio.timeout(15):
                head = await http1.read_head(stream.reader)
            assert head.status == 200
            await through_tunnel(stream)


async def test_large_bodies_cross_in_both_directions(pair: Pair) -> None:
    size = 64 << 20
    piece = os.urandom(1 << 16)
    counted = 0

    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal counted
        head = await http1.read_head(reader)
        left = int(head["content-length"] or 0)
        while left:
            counted += len(got := await reader.read(1 << 20))
            left -= len(got)
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n".encode())
        await pour(writer)

    async def pour(writer: asyncio.StreamWriter) -> None:
        for _ in range(size // len(piece)):
            writer.write(piece)
            await writer.drain()

    async with pair.server.serving(server) as served:
        memory = [
            Memory(await pair.client.mesh.pid(f"{pod.name}/proxy")) for pod in (pair.client, pair.server)
        ]
        async with await pair.client.connect(pair.server.name, served.port) as stream:
            stream.write(f"POST / HTTP/1.1\r\nhost: server\r\ncontent-length: {size}\r\n\r\n".encode())
            async with asyncio.timeout(60):
                await pour(stream.writer)
                head = await http1.read_head(stream.reader)
                received = 0
                while received < size and (data := await stream.reader.read(1 << 20)):
                    received += len(data)
                    assert data[:1] in piece

    assert (head.status, counted, received) == (200, size, size)
    if only_ours(pair):
        assert [each.grown_mib() < 8 for each in memory] == [True, True], [m.grown_mib() for m in memory]


async def test_a_reader_that_stops_holds_back_the_writer_and_not_the_memory_of_a_proxy(pair: Pair) -> None:
    written = 0

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await http1.read_request(reader)
        writer.transport.set_write_buffer_limits(1 << 16)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + bytes(1 << 16) + b"\r\n")
            await writer.drain()
            written += 1 << 16

    async with pair.server.serving(endless) as served:
        memory = [
            Memory(await pair.client.mesh.pid(f"{pod.name}/proxy")) for pod in (pair.client, pair.server)
        ]
        async with await pair.client.connect(pair.server.name, served.port) as stream:
            stream.writer.transport.pause_reading()  # type: ignore[attr-defined]
            stream.write(get())
            await stalled(lambda: written)

    assert written < 64 << 20
    if only_ours(pair):
        assert [each.grown_mib() < 8 for each in memory] == [True, True], [m.grown_mib() for m in memory]


async def test_a_broken_answer_is_not_taken_for_a_whole_one(pair: Pair) -> None:
    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await http1.read_request(reader)
        framing = b"content-length: 10" if request.target == "/length" else b"transfer-encoding: chunked"
        writer.write(
            b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n5\r\nhello\r\n"[: -2 if b"len" in framing else None]
        )

    async with pair.server.serving(server) as served:
        for path in ("/length", "/chunked"):
            async with await pair.client.connect(pair.server.name, served.port) as stream:
                with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                    response = await ask(stream, get(path))
                    assert response.status == 502
                    raise ConnectionError("refused before anything was said, which is as good")


async def test_a_server_sees_that_its_client_went_away_in_its_request(pair: Pair) -> None:
    if pair.client.name.endswith("stock") and pair.server.name.endswith("stock"):
        pytest.skip("a pair of stock proxies does not always pass this on")
    begun, ended = asyncio.Event(), asyncio.Event()

    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await http1.read_head(reader)
        begun.set()
        try:
            while await reader.read(1 << 16):
                pass
        finally:
            ended.set()

    async with pair.server.serving(server) as served, asyncio.timeout(15):
        async with await pair.client.connect(pair.server.name, served.port) as stream:
            await stream.send(b"POST / HTTP/1.1\r\nhost: server\r\ncontent-length: 1000\r\n\r\npart")
            await begun.wait()
        await ended.wait()


async def test_header_fields_keep_their_order_and_repetitions(pair: Pair) -> None:
    recorder = Recorder(
        answer(b"", more="set-cookie: a=1\r\nx-a: 1\r\nset-cookie: b=2\r\nset-cookie: c=3\r\n")
    )

    async with pair.server.serving(recorder) as served:
        async with await pair.client.connect(pair.server.name, served.port) as stream:
            response = await ask(stream, get(more="x-b: 1\r\nx-a: 1\r\nx-b: 2\r\ncookie: a=1; b=2\r\n"))

    cookies = [value for name, value in response.fields if name == "set-cookie"]
    assert cookies == ["a=1", "b=2", "c=3"]
    assert [value for name, value in recorder.seen[0].fields if name == "x-b"] == ["1", "2"]
    assert recorder.seen[0]["cookie"] == "a=1; b=2"


async def test_fields_of_one_connection_are_not_passed_on(pair: Pair) -> None:
    recorder = Recorder()
    more = "connection: keep-alive, x-hop\r\nkeep-alive: timeout=5\r\nx-hop: 1\r\nproxy-connection: keep-alive\r\n"

    async with pair.server.serving(recorder) as served:
        async with await pair.client.connect(pair.server.name, served.port) as stream:
            await ask(stream, get(more=more))

    if only_ours(pair):
        names = {name for name, _ in recorder.seen[0].fields}
        assert not names & {"x-hop", "keep-alive", "proxy-connection"}


async def test_the_server_learns_who_calls_and_cannot_be_lied_to(pair: Pair) -> None:
    recorder = Recorder()
    lie = "l5d-client-id: root.linkerd.serviceaccount.identity.linkerd.cluster.local\r\n"

    async with pair.server.serving(recorder) as served:
        async with await pair.client.connect(pair.server.name, served.port) as stream:
            await ask(stream, get(more=lie))

    assert recorder.seen[0]["l5d-client-id"] == IDENTITY.format(pair.client.name)


async def test_nothing_that_proxies_say_to_each_other_is_seen_outside(pair: Pair) -> None:
    recorder = Recorder()

    async with pair.server.serving(recorder) as served:
        async with await pair.client.connect(pair.server.name, served.port) as stream:
            response = await ask(stream, get())

    spoken = {"l5d-orig-proto", "l5d-proxy-connection", "l5d-proxy-error", "tulle-reason"}
    assert not spoken & {name for name, _ in recorder.seen[0].fields}
    assert not spoken & {name for name, _ in response.fields}


async def test_requests_at_once_are_all_answered_with_their_own(pair: Pair) -> None:
    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not reader.at_eof():
            request = await http1.read_request(reader)
            writer.write(answer(request.body[::-1]))

    async def client(number: int) -> None:
        async with await pair.client.connect(pair.server.name, served.port) as stream:
            for turn in range(5):
                body = f"{number}-{turn}".encode()
                request = b"POST / HTTP/1.1\r\nhost: server\r\ncontent-length: %d\r\n\r\n" % len(body)
                assert (await ask(stream, request + body)).body == body[::-1]

    async with pair.server.serving(server) as served, asyncio.TaskGroup() as group:
        for number in range(40):
            group.create_task(client(number))


async def test_a_client_without_a_proxy_is_served_and_has_no_name(field: Field, which: str) -> None:
    recorder = Recorder()
    server: Pod = field[f"server-{which}"]

    async with server.serving(recorder) as served:
        async with await field["plain-client"].connect(server.name, served.port) as stream:
            response = await ask(stream, get(more="l5d-client-id: somebody\r\n"))

    assert response.body == b"hello"
    assert recorder.seen[0]["l5d-client-id"] is None


async def test_a_server_without_a_proxy_can_be_called(field: Field, which: str) -> None:
    recorder = Recorder()
    server = field["plain-server"]

    async with server.serving(recorder) as served:
        async with await field[f"client-{which}"].connect(server.name, served.port) as stream:
            response = await ask(stream, get())

    assert response.body == b"hello"
    assert recorder.seen[0]["l5d-client-id"] is None

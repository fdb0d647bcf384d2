"""HTTP/2 with prior knowledge through two proxies."""

import asyncio

from e2e import http2
from e2e.conftest import Pair
from e2e.seeds import seeded


async def test_a_body_trailers_and_fields_cross_the_pair(pair: Pair) -> None:
    body = seeded().randbytes(2_000_000)
    server = http2.Server()

    async with pair.server.serving(server) as served:
        async with await pair.client.connect(pair.server.name, served.port) as stream:
            response = await http2.Client(stream).ask(
                "/x?y=1", method="POST", body=body, more=[("x-sum", "1")], trailers=[("x-end", "2")]
            )

    assert (response[":status"], bytes(response.body) == body) == ("200", True)
    assert response.trailers == [("x-sum", "1")]
    seen = server.seen[0]
    assert (seen[":path"], seen[":authority"], seen.trailers) == (
        "/x?y=1",
        "server.example",
        [("x-end", "2")],
    )
    identity = f"{pair.client.name}.default.serviceaccount.identity.linkerd.cluster.local"
    assert seen["l5d-client-id"] == identity


async def test_many_streams_share_a_connection(pair: Pair) -> None:
    async with pair.server.serving(http2.Server()) as served:
        async with await pair.client.connect(pair.server.name, served.port) as stream:
            client = http2.Client(stream)
            bodies = [bytes([n]) * 10_000 for n in range(80)]
            responses = await asyncio.gather(*(client.ask(method="POST", body=body) for body in bodies))

    assert [bytes(response.body) for response in responses] == bodies


async def test_a_reset_of_the_server_is_a_reset_at_the_client(pair: Pair) -> None:
    async with pair.server.serving(http2.Server()) as served:
        async with await pair.client.connect(pair.server.name, served.port) as stream:
            client = http2.Client(stream)
            broken = await client.ask("/reset")
            whole = await client.ask("/")

    assert broken[":status"] != "200"
    assert broken.reset is not None or broken[":status"] == "502"
    assert bytes(whole.body) == b"hello"

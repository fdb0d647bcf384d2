"""One case of each kind of protocol through every combination of proxies: whether they understand each other."""

from e2e import http1
from e2e.conftest import Pair


async def test_http1_crosses_the_pair(pair: Pair) -> None:
    recorder = http1.Recorder()

    async with pair.server.serving(recorder) as served:
        async with await pair.client.connect(pair.server.name, served.port) as stream:
            response = await http1.ask(stream, http1.get("/x?y=1", host="server.example"))

    assert (response.status, response.body) == (200, b"hello")
    assert [(each.method, each.target, each["host"]) for each in recorder.seen] == [
        ("GET", "/x?y=1", "server.example")
    ]
    assert (
        recorder.seen[0]["l5d-client-id"]
        == f"{pair.client.name}.default.serviceaccount.identity.linkerd.cluster.local"
    )

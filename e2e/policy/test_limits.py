"""Requests over a limit are told so with 429, and when to come again."""

from e2e import bridges, grpcs
from e2e.conftest import Field, Pair
from e2e.http1 import Message, Recorder, ask, get
from e2e.pods import Pod, eventually
from e2e.policy.rules import applied, fresh, joined, owned, server

LIMIT = """
apiVersion: policy.linkerd.io/v1alpha1
kind: HTTPLocalRateLimitPolicy
metadata: {{name: {name}}}
spec: {{targetRef: {{group: policy.linkerd.io, kind: Server, name: {name}}}, {limits}}}
"""
OVERRIDE = (
    "identity: {{requestsPerSecond: 2}}, overrides: [{{requestsPerSecond: 1000, "
    "clientRefs: [{{kind: ServiceAccount, name: {name}}}]}}]"
)
MANY = 12


def limited(name: str, of: Pod, port: int, limits: str) -> str:
    """Return a Server that lets anybody in, so often."""
    anybody = server(name, of, port, "HTTP/1").replace("port:", "accessPolicy: all-unauthenticated, port:")
    return joined(anybody, LIMIT.format(name=name, limits=limits))


async def burst(client: Pod, of: Pod, port: int) -> list[Message]:
    """Ask many times, as fast as one connection goes."""
    async with await client.connect(of.name, port) as stream:
        return [await ask(stream, get()) for _ in range(MANY)]


async def statuses(client: Pod, of: Pod, port: int) -> set[int]:
    return {each.status for each in await burst(client, of, port)}


async def test_requests_over_the_limit_are_429_and_the_others_are_served(field: Field, pair: Pair) -> None:
    port, name = pair.server.next_port(), fresh("limited")

    async def in_force() -> bool:
        return 429 in await statuses(pair.client, pair.server, port)

    text = limited(name, pair.server, port, "total: {requestsPerSecond: 2}")
    async with applied(field, text), pair.server.serving(Recorder(), port=port):
        await owned(field, pair.server, port, name)
        await eventually(in_force, "the limit is in force")
        answers = await burst(pair.client, pair.server, port)

    refused = [each for each in answers if each.status == 429]
    assert {each.status for each in answers} <= {200, 429}
    assert len(refused) >= MANY - 4
    if pair.server.name == "server-ours":
        assert all(int(each["retry-after"] or 0) >= 1 for each in refused)
        assert refused[0].reason == "rate_limited"


async def test_each_identity_has_a_bucket_of_its_own_and_an_override_another(
    field: Field, which: str
) -> None:
    of, named, other = field[f"server-{which}"], field["client-ours"], field["deny-ours"]
    port, name = of.next_port(), fresh("limited")
    text = limited(name, of, port, OVERRIDE.format(name=named.name))

    async def in_force() -> bool:
        return 429 in await statuses(other, of, port)

    async with applied(field, text), of.serving(Recorder(), port=port):
        await owned(field, of, port, name)
        await eventually(in_force, "the limit is in force")

        assert await statuses(named, of, port) == {200}
        assert 429 in await statuses(other, of, port)


async def test_a_grpc_call_over_the_limit_is_told_so_as_grpc_does(field: Field, which: str) -> None:
    of, client = field[f"server-{which}"], field["client-ours"]
    port, name = of.next_port(), fresh("limited")
    text = limited(name, of, port, "total: {requestsPerSecond: 2}").replace("HTTP/1", "unknown")

    async def codes() -> set[str]:
        async with bridges.into(client, of.name, port) as entrance, grpcs.channel(entrance) as channel:
            return {(await grpcs.unary(channel, b"x")).code for _ in range(MANY)}

    async def in_force() -> bool:
        return "StatusCode.RESOURCE_EXHAUSTED" in await codes()

    async with applied(field, text), grpcs.server() as (_, address):
        async with bridges.out_of(of, address, port=port):
            await owned(field, of, port, name)
            await eventually(in_force, "the limit is in force")

            assert await codes() <= {"StatusCode.OK", "StatusCode.RESOURCE_EXHAUSTED"}

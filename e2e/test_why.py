"""`why` and live proxies agree, on folders and requests that are drawn by chance.

One mesh runs; the policies of one folder after another are written into it. When its controller gives the answers of
the new folder, the proxies have been sent it. Then every request is made twice: the first time for what a proxy learns
only when it is asked; the second time counts.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

import msgspec
import pytest

from e2e.conftest import kind
from e2e.folders import CLIENTS, PORT, SERVERS, Case, case, workloads
from e2e.pods import Pod, eventually
from e2e.seeds import seeded
from tulle.explain import words
from tulle.explain.answer import Explanation, Question
from tulle.explain.folder import compiled
from tulle.explain.ground import Ground
from tulle.explain.why import explain
from tulle.rules.decode import decode
from tulle.testing import LiveMesh

POLICIES = "policies.yaml"
BASE = workloads(["sleep", "infinity"])


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a client sees: an answer of a proxy's, or what the application of a server got."""

    status: int
    location: str | None = None
    server: str | None = None
    path: str | None = None
    tier: str | None = None
    staff: str | None = None


@pytest.fixture
async def pods(mesh: LiveMesh) -> AsyncIterator[dict[str, Pod]]:
    """Return the pods of a mesh whose servers answer with what they got."""
    await mesh.up(workloads(["sleep", "infinity"], kind("ours")), "# nothing yet\n")
    state = await mesh.api.state()
    found = {pod.name: Pod(mesh, pod.name, *pod.addresses) for pod in state.pods}
    async with AsyncExitStack() as stack:
        for name in SERVERS:
            await stack.enter_async_context(found[name].serving(echo(name), port=PORT))
        try:
            yield found
        finally:
            for pod in found.values():
                pod.close()


@pytest.mark.timeout(300)
async def test_why_and_live_proxies_agree(mesh: LiveMesh, pods: dict[str, Pod]) -> None:
    await agree(mesh, pods, folders=5, requests=50)


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_why_and_live_proxies_agree_on_200_folders(mesh: LiveMesh, pods: dict[str, Pod]) -> None:
    await agree(mesh, pods, folders=200, requests=50)


async def test_what_allow_prints_lets_a_live_client_in(mesh: LiveMesh, pods: dict[str, Pod]) -> None:
    question = Question("web", f"beta:{PORT}", "/items/7", "GET")
    await mesh.deny("beta", PORT)
    await eventually(partial(sees, pods, question, 403), "beta is closed")

    permission = await mesh.api.allow(question)
    assert not await mesh.write("allowed.yaml", permission.manifests)

    await eventually(partial(sees, pods, question, 200), "web gets in")
    other = msgspec.structs.replace(question, path="/items/8")
    assert (await request(pods["web"], other)).status == 403


async def sees(pods: dict[str, Pod], question: Question, status: int) -> bool:
    """Tell whether a request gets this status."""
    return (await request(pods[question.source], question)).status == status


async def agree(mesh: LiveMesh, pods: dict[str, Pod], *, folders: int, requests: int) -> None:
    """Compare `why` with the proxies."""
    # FOLDER repeats a folder of a failure, and those after it.
    first = int(os.environ.get("FOLDER", seeded().randrange(1 << 30)))
    wrong: list[str] = []
    folders_wrong: set[int] = set()
    for seed in range(first, first + folders):
        drawn = case(seed, requests)
        problems = await mesh.write(POLICIES, drawn.policies)
        assert not problems, f"seed {seed}: {problems}"
        ground = of(drawn)
        await eventually(lambda: in_force(mesh, ground, drawn), f"the controller has folder {seed}")  # noqa: B023
        await asyncio.gather(*(ask(pods, drawn, client) for client in CLIENTS))
        for seen in await asyncio.gather(*(ask(pods, drawn, client) for client in CLIENTS)):
            for question, outcome in seen:
                said = explain(ground, question)
                if outcome not in expected(said):
                    folders_wrong.add(seed)
                    path = "\n".join(words.lines(said))
                    wrong.append(f"seed {seed}: {question}\nlive: {outcome}\nwhy: {expected(said)}\n{path}")
    where = f"in folders {sorted(folders_wrong)}, drawn from {first} on"
    assert not wrong, f"{len(wrong)} disagree {where}:\n\n" + "\n\n".join(wrong[:3])


async def in_force(mesh: LiveMesh, ground: Ground, drawn: Case) -> bool:
    """Tell whether the running mesh explains every request as its folder does."""
    for question in drawn.questions:
        there, here = await mesh.api.why(question), explain(ground, question)
        if (there.allowed, expected(there)) != (here.allowed, expected(here)):
            return False
    return True


def of(drawn: Case) -> Ground:
    """Compile a folder."""
    return compiled(decode([("workloads.yaml", BASE), (POLICIES, drawn.policies)]).accepted())


def expected(said: Explanation) -> set[Outcome]:
    """Return what may be seen, by the decision path."""
    if said.outbound and said.outbound.refusal:
        refusal = said.outbound.refusal
        return {Outcome(refusal.status or 0, refusal.location)}
    outcomes: set[Outcome] = set()
    for branch in said.branches:
        if not branch.share:
            continue
        if branch.refused:
            outcomes.add(Outcome(branch.refused.status or 0, branch.refused.location))
            continue
        path, fields = said.asked.path, dict(said.asked.headers)
        for changed in (*branch.changed, *(each for inbound in branch.inbound for each in inbound.changed)):
            if changed.startswith("with "):
                name, _, value = changed.removeprefix("with ").partition(": ")
                fields[name] = value
            elif changed.startswith("the path is now "):
                path = changed.removeprefix("the path is now ")
            else:
                fields.pop(changed.removeprefix("without "), None)
        staff, tier = fields.get("x-staff"), fields.get("x-tier")
        outcomes.add(Outcome(200, None, branch.backend.name, path, tier, staff))
    return outcomes


async def ask(pods: dict[str, Pod], drawn: Case, client: str) -> list[tuple[Question, Outcome]]:
    """Make the requests of one client, one after another."""
    return [
        (question, await request(pods[client], question))
        for question in drawn.questions
        if question.source == client
    ]


async def request(client: Pod, question: Question) -> Outcome:
    """Make one request, on a connection of its own."""
    host = question.target.partition(":")[0]
    head = [f"{question.method} {question.path} HTTP/1.1", f"host: {question.target}", "connection: close"]
    head += [f"{name}: {value}" for name, value in question.headers]
    head += ["content-length: 0"]
    async with await client.connect(host, PORT) as stream:
        await stream.send("\r\n".join([*head, "", ""]).encode())
        answer = await stream.rest()
    top, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = top.decode("latin-1").split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    code = int(status.split(" ")[1]) if status else 0
    if "x-served" not in fields:
        return Outcome(code, fields.get("location"))
    got = json.loads(body)
    return Outcome(code, None, got["server"], got["path"], got.get("x-tier"), got.get("x-staff"))


def echo(name: str):  # noqa: ANN201 (the handler's type is that of pods.Handler)
    """Return an application that answers with what it got."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            first, *lines = head.decode("latin-1").strip().split("\r\n")
            fields = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
            got = {"server": name, "path": first.split(" ")[1]}
            got |= {key: fields[key] for key in ("x-tier", "x-staff") if key in fields}
            body = json.dumps(got).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nx-served: yes\r\ncontent-length: %d\r\n\r\n" % len(body) + body)

    return handler

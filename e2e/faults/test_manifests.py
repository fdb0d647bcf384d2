"""A manifest that is edited while it runs: a mistake is told with file, line and field and changes nothing."""

import re

import pytest

from e2e.faults.steady import CLIENT, loading, replaced, server
from tulle.model.errors import ManifestError
from tulle.testing import LiveMesh

MISTAKES = {
    "a misspelt field": ("replicas:", "replcas:", r"1\.yaml:6: .*replcas.*replicas"),
    "a number that is none": ("containerPort: 8080", "containerPort: http", r"1\.yaml:\d+: .*containerPort"),
    "YAML that is broken": ("{app: web}}", "{app: web", r"1\.yaml:\d+"),
    "a command that is nowhere": ("command: [python3", "command: [pyhton3", r"1\.yaml:\d+: .*pyhton3"),
}


@pytest.fixture
def text() -> str:
    """Return the manifests without a mistake."""
    return server(1)


async def test_a_mistake_is_told_and_what_runs_goes_on(mesh: LiveMesh, text: str) -> None:
    before = await mesh.up(CLIENT, text)

    async with loading(mesh, rate=100, connections=5) as clients:
        for what, (old, new, expected) in MISTAKES.items():
            assert old in text
            problems = await mesh.write("1.yaml", text.replace(old, new, 1))
            print(f"{what}: {problems}")  # noqa: T201
            assert problems, what
            assert any(re.search(expected, problem) for problem in problems), (what, problems)
            await clients.more(50)
        assert {pod.name for pod in (await mesh.api.state()).pods} == {pod.name for pod in before.pods}

        assert await mesh.write("1.yaml", server(1, edition="2")) == ()
        await replaced(mesh, before, 1)
        await clients.more(50)
        await clients.unharmed("mistakes, then a correction")


async def test_a_mistake_starts_nothing_and_all_are_told_at_once(mesh: LiveMesh, text: str) -> None:
    wrong = text.replace("replicas:", "replcas:").replace("targetPort: 8080", "targetPort: [1]")

    with pytest.raises(ManifestError) as told:
        await mesh.up(CLIENT, wrong)

    assert "replcas" in str(told.value)
    assert "targetPort" in str(told.value)
    assert not mesh.api.running

"""Certificates and trust anchors are replaced while clients are busy; no process is, and nobody notices."""

import time

import pytest

from e2e.faults.steady import CLIENT, loading, server
from e2e.pods import eventually
from tulle.mesh import Json
from tulle.testing import LiveMesh


def proxies(mesh: LiveMesh) -> set[int]:
    """Return the numbers of the mesh's proxies."""
    return {pid for pid, line in mesh.processes().items() if "tulle-proxy" in line.split(" ", 1)[0]}


def shown(identity: Json) -> tuple[str, str]:
    """Return the digests of root and issuer."""
    root, issuer = identity["root"], identity["issuer"]
    assert isinstance(root, dict)
    assert isinstance(issuer, dict)
    return str(root["sha256"]), str(issuer["sha256"])


async def steady(mesh: LiveMesh, *, within_s: float = 30) -> Json:
    """Return when a rotation is over."""

    async def over() -> bool:
        return (await mesh.api.identity())["phase"] == "steady"

    try:
        await eventually(over, "the end of a rotation", within_s=within_s)
    except AssertionError as error:
        raise AssertionError(f"{error}: {await mesh.api.identity()}") from None
    return await mesh.api.identity()


async def expiries(mesh: LiveMesh) -> dict[str, float]:
    """Return when each pod's certificate ends, as its proxy says."""
    found: dict[str, float] = {}
    for pod in await mesh.api.pods():
        if pod.meshed and pod.traffic.certificate_expires is not None:
            found[pod.name] = pod.traffic.certificate_expires
    return found


async def test_leaves_that_live_for_seconds_are_renewed_under_load(
    mesh: LiveMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = mesh.with_environment({"TULLE_LEAF_LIFETIME": "6s"})
    await short.up(CLIENT, server())
    before = proxies(short)

    async with loading(short) as clients:
        first = await expiries(short)

        async def renewed_twice() -> bool:
            now = await expiries(short)
            return bool(now) and all(now.get(name, 0) > at + 7 for name, at in first.items())

        await eventually(renewed_twice, "two renewals of every certificate", within_s=40)
        await clients.unharmed("certificates of 6 s")

    assert proxies(short) == before


async def test_the_issuer_and_three_roots_are_rotated_under_load(mesh: LiveMesh) -> None:
    await mesh.up(CLIENT, server())
    before = proxies(mesh)
    seen = [shown(await mesh.api.identity())]

    async with loading(mesh) as clients:
        for root in (False, True, True, True):
            begun = time.monotonic()
            await mesh.api.rotate(root=root)
            seen.append(shown(await steady(mesh)))
            print(f"{'root' if root else 'issuer'}: {time.monotonic() - begun:.1f} s")  # noqa: T201
            await clients.more(200)
            await clients.unharmed("rotated root" if root else "rotated issuer")

    assert proxies(mesh) == before
    assert seen[0][0] == seen[1][0]
    assert len({root for root, _ in seen}) == 4
    assert len({issuer for _, issuer in seen}) == 5


async def test_a_plan_changes_nothing_and_a_second_rotation_waits(mesh: LiveMesh) -> None:
    await mesh.up(CLIENT)
    before = shown(await mesh.api.identity())

    planned = await mesh.api.rotate(root=True, plan=True)

    assert len(planned["steps"]) == 3  # type: ignore[arg-type]
    assert shown(await mesh.api.identity()) == before


async def test_a_mesh_in_which_everything_has_expired_is_brought_back(mesh: LiveMesh) -> None:
    """Root, issuer and leaves live for seconds, and the controller is stopped until all have ended."""
    lives = {"TULLE_LEAF_LIFETIME": "4s", "TULLE_ISSUER_LIFETIME": "8s", "TULLE_ROOT_LIFETIME": "12s"}
    short = mesh.with_environment(lives)
    await short.up(CLIENT, server(1))
    before = proxies(short)

    async def dead() -> bool:
        said = await short.call("client", "http://web/", timeout_s=2)
        root = (await short.api.identity())["root"]
        assert isinstance(root, dict)
        return said.status != 200 and root["expires"] < time.time()

    await eventually(dead, "the end of every certificate", within_s=60)

    done = await short.api.recover()

    async def alive() -> bool:
        return (await short.call("client", "http://web/", timeout_s=2)).status == 200

    await eventually(alive, "calls after the recovery", within_s=15)
    print(done["done"])  # noqa: T201
    assert proxies(short) == before

"""Certificates and trust anchors are replaced while clients are busy; no process is, and nobody notices."""

import time

from e2e.faults.steady import CLIENT, loading, replaced, server
from e2e.pods import eventually
from tulle.mesh import Json
from tulle.model.errors import MeshError
from tulle.testing import LiveMesh

LIFE_S = 15


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


async def test_leaves_that_live_for_seconds_are_renewed_under_load(mesh: LiveMesh) -> None:
    mesh.tell(TULLE_LEAF_LIFETIME="15s")
    await mesh.up(CLIENT, server())
    before = proxies(mesh)

    async with loading(mesh) as clients:
        first: dict[str, float] = {}

        async def known() -> bool:
            first.update(await expiries(mesh))
            return len(first) == 5

        async def renewed() -> bool:
            now = await expiries(mesh)
            return time.time() > max(first.values()) and all(now[name] > at for name, at in first.items())

        await eventually(known, "the certificates of all five pods")
        await eventually(renewed, "the end of every first certificate", within_s=40)
        await clients.more(500)
        await clients.unharmed("certificates of 15 s")

    assert proxies(mesh) == before


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
    mesh.tell(TULLE_ISSUER_LIFETIME=f"{LIFE_S}s", TULLE_ROOT_LIFETIME=f"{LIFE_S}s")
    state = await mesh.up(CLIENT, server(1))
    before = proxies(mesh)

    async def ended() -> bool:
        root = (await mesh.api.identity())["root"]
        assert isinstance(root, dict)
        return bool(root["expires"] < time.time())

    await eventually(ended, "the end of every certificate", within_s=LIFE_S + 5)
    # Nothing that was agreed on while they were valid may help.
    await mesh.kill("controller")
    await eventually(lambda: refused(mesh), "a controller that says what to do")

    done = await mesh.api.recover()

    begun = time.monotonic()
    await mesh.api.restart("web")
    await replaced(mesh, state, 1, within_s=30)

    async def alive() -> bool:
        return (await mesh.call("client", "http://web/", timeout_s=2)).status == 200

    await eventually(alive, "calls to the new pod")
    print(f"{done['done']}: all well after {time.monotonic() - begun:.1f} s")  # noqa: T201
    assert len(before & proxies(mesh)) == len(before) - 1


async def refused(mesh: LiveMesh) -> bool:
    """Say whether the controller names the only thing that helps."""
    try:
        await mesh.api.rotate()
    except MeshError as error:
        return "tulle identity recover" in str(error)
    return False

"""What the pages about policies show is so in a running mesh."""

from pathlib import Path

from e2e.pods import eventually
from tests.test_docs import APPLICATION, DOCS, blocks
from tulle.testing import LiveMesh

AUTHORIZATION, RATE_LIMITS = DOCS / "authorization.md", DOCS / "rate-limits.md"


async def status(mesh: LiveMesh, client: str, path: str = "/", method: str = "GET") -> int | None:
    return (await mesh.call(client, f"http://members:8080{path}", method=method)).status


async def page(mesh: LiveMesh, of: Path, count: int | None = None) -> None:
    """Have the first manifests of a page in force, all of them unless told."""
    problems = await mesh.write("page.yaml", "".join(blocks(of, "yaml")[:count]))
    assert not problems, problems


async def test_the_page_about_authorization_holds(live_mesh: LiveMesh) -> None:
    await live_mesh.up(APPLICATION)
    assert await status(live_mesh, "slots") == 200

    async def refused() -> bool:
        return await status(live_mesh, "slots") == 403

    async def may_look() -> bool:
        return await status(live_mesh, "slots", "/doc/") == 200

    await page(live_mesh, AUTHORIZATION, 1)
    await eventually(refused, "slots is refused")
    assert await status(live_mesh, "web") == 200

    await page(live_mesh, AUTHORIZATION)
    await eventually(may_look, "slots may look")
    assert await status(live_mesh, "slots", "/doc/", "POST") == 403
    assert await status(live_mesh, "slots") == 403
    assert await status(live_mesh, "web") == 200


async def five(mesh: LiveMesh, client: str) -> list[str]:
    """Ask five times over one connection, as the page does."""
    command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code} ", "http://members:8080/?[1-5]"]
    return (await mesh.api.exec(client, command)).stdout.decode().split()


async def test_the_page_about_rate_limits_holds(live_mesh: LiveMesh) -> None:
    await live_mesh.up(APPLICATION)
    await page(live_mesh, RATE_LIMITS)

    async def limited() -> bool:
        return "429" in await five(live_mesh, "slots")

    await eventually(limited, "slots is over its limit")
    assert set(await five(live_mesh, "web")) == {"200"}

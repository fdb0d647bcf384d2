"""Runs the vaccine finder and says where to look.

The examples are in the checkout, or inside the installed package; nothing is fetched.
"""

import asyncio
from pathlib import Path
from typing import Annotated

import httpx2
import typer

import tulle
from tulle.cli import output
from tulle.cli.commands import ps
from tulle.cli.commands.arguments import Publish
from tulle.cli.output import Progress
from tulle.cli.running import Attempt, Interrupted, start, until_signal
from tulle.mesh import Mesh, Pod, State
from tulle.model.errors import MeshError, SettingError

NAME = "demo"
MANIFESTS = "vaccine-finder/manifests"
ENDPOINTS_OF = "sites.vaccine-finder.svc.cluster.local:8080"
NUMBERS_S = 20
"""Until every proxy has counted something: the control plane looks at them once a second."""
VISITS = 50
"""How many pages the short demo looks at itself."""


def run(
    short: Annotated[
        bool, typer.Option("--short", help="Use the application for some seconds, print the table, leave.")
    ] = False,
    publish: Publish = None,
) -> int:
    """Run the vaccine finder, an application of six services, meshed."""
    return asyncio.run(demo(Mesh(NAME), short=short, publish=publish or []))


async def demo(mesh: Mesh, *, short: bool, publish: list[str]) -> int:
    """Start it, use it, show it."""
    attempt = Attempt(mesh)
    try:
        # All of it: a signal between two steps would end this command and leave the mesh.
        return await until_signal(_demo(attempt, short=short, publish=publish))
    except Interrupted:
        await attempt.undo()
        return 130
    except MeshError:
        if short:
            await attempt.undo()
        raise


async def _demo(attempt: Attempt, *, short: bool, publish: list[str]) -> int:
    manifests = example(MANIFESTS)
    with Progress() as progress:
        state = await start(attempt, [manifests], publish=publish, progress=progress)
        progress.doing("waiting for the first numbers")
        if short:
            await visit(state)
            progress.done(f"{VISITS} pages read")
        pods = await counted(attempt.mesh)
        progress.done("requests are counted")
    table(pods, state, manifests, short=short)
    if short:
        await attempt.undo()
    return 0


def example(name: str) -> Path:
    """Return a folder of the examples.

    Raises:
        SettingError: neither the checkout nor the package has it.
    """
    package = Path(tulle.__file__).parent
    for examples in (package / "examples", package.parent / "examples"):
        if (examples / name).is_dir():
            return examples / name
    raise SettingError(f"examples/{name} is neither in this package nor in a checkout around it")


async def visit(state: State) -> None:
    """Read pages of the application as a browser would.

    Raises:
        MeshError: a page does not come.
    """
    async with httpx2.AsyncClient(trust_env=False, timeout=10, follow_redirects=True) as browser:
        for published in state.published:
            for _ in range(VISITS):
                try:
                    answer = await browser.get(published.url)
                except httpx2.HTTPError as error:
                    raise MeshError(f"{published.url} does not answer: {error}") from error
                if answer.status_code >= 500:
                    raise MeshError(f"{published.url} answered {answer.status_code}")


async def counted(mesh: Mesh) -> tuple[Pod, ...]:
    """Return the pods as soon as requests were counted, or what there is when that takes too long."""
    pods = await mesh.pods()
    try:
        async with asyncio.timeout(NUMBERS_S):
            while not any(pod.traffic.success_rate is not None for pod in pods):
                await asyncio.sleep(0.5)
                pods = await mesh.pods()
    except TimeoutError:
        output.hint("no requests were counted yet", style="yellow")
    return pods


def table(pods: tuple[Pod, ...], state: State, manifests: Path, *, short: bool) -> None:
    """Print what the newcomer came for."""
    output.say()
    ps.show(pods)
    output.say()
    for published in state.published:
        output.say(f"The application is at {published.url}")
    if short:
        return
    program = output.program()
    output.say(f"Live numbers:      {program} ps")
    output.say(f"What a pod says:   {program} logs -f web")
    output.say(f"Where calls go:    {program} diagnostics endpoints {ENDPOINTS_OF}")
    output.say(f"The manifests:     {manifests} (edit one, it takes effect at once)")
    output.say(f"Stop it:           {program} down")

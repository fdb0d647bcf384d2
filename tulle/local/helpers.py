"""Keeps the mesh's own processes running: whichever ends is started again, at once the first time."""

import asyncio
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tulle.local.containers import User
from tulle.local.ground import Ground, unprivileged
from tulle.local.plan import retry_delay_s
from tulle.local.processes import Child, Command, Namespaces
from tulle.local.proxy import unless

STEADY_S = 5.0
END_S = 3.0


@dataclass(frozen=True, slots=True)
class Launch:
    """How one start of a process goes; made anew for each."""

    argv: Sequence[str]
    inside: Namespaces
    environment: Mapping[str, str]
    keep_open: tuple[int, ...] = ()


class Helper:
    """One process of the mesh's own, without privileges but as its owner, so that it reads what is its owner's."""

    def __init__(self, ground: Ground, name: str, launch: Callable[[], Launch], *, pod: str = "mesh") -> None:
        self._ground = ground
        self._name = name
        self._pod = pod
        self._launch = launch
        self._child: Child | None = None
        self._stopping = asyncio.Event()
        self.restarts = 0
        self.note = ""

    @property
    def pid(self) -> int | None:
        """Its process."""
        return self._child.pid if self._child and self._child.running else None

    async def keep(self) -> None:
        """Run it until `stop`."""
        failures = 0
        while not self._stopping.is_set():
            begun = self._ground.clock()
            try:
                code = await self._run()
                self.note = f"{self._name} ended with code {code}"
            except OSError as error:
                self.note = f"{self._name} cannot be started: {error}"
            if self._stopping.is_set():
                return
            self.restarts += 1
            self._ground.changed()
            failures = failures + 1 if self._ground.clock() - begun < STEADY_S else 0
            await unless(self._stopping, retry_delay_s(failures))

    async def stop(self) -> None:
        """End it."""
        self._stopping.set()
        child = self._child
        if child is None:
            return
        child.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(END_S):
                await child.wait()
        except TimeoutError:
            child.signal(signal.SIGKILL)
            await child.wait()

    async def _run(self) -> int:
        launch = self._launch()
        log = self._ground.log("linkerd", self._pod, self._name, 0)
        try:
            child = self._child = await self._ground.spawner.spawn(
                Command(
                    [*unprivileged(User(0, 0), many_ids=self._ground.many_ids), *launch.argv],
                    launch.environment,
                    stdout=log,
                    stderr=log,
                    inside=launch.inside,
                    keep_open=launch.keep_open,
                )
            )
        finally:
            os.close(log)
        return await child.wait()

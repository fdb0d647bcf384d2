"""Starts `slots`; exactly one process may work on a volume, which a StatefulSet with one replica sees to."""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from vaccine_finder import process, settings
from vaccine_finder.slots.ledger import Ledger
from vaccine_finder.slots.service import SlotsService

EXTEND_EVERY_S = 600

log = logging.getLogger("vaccine_finder.slots")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment decides."""

    data_dir: str
    listen: str = "[::]:8080"
    linger_s: float = 0
    seed: int = 7
    sites: int = 5000
    days: int = 14


async def serve(chosen: Settings) -> None:
    """Add what is missing of the next days, then serve, and go on adding days."""
    path = Path(chosen.data_dir) / "slots.db"
    with Ledger(path) as writer, Ledger(path) as reader, ThreadPoolExecutor(1) as thread:
        add_days(writer, chosen)
        async with asyncio.TaskGroup() as tasks:
            extending = tasks.create_task(extend(writer, thread, chosen))
            await process.serve_http(
                SlotsService(reader, writer, thread).app(), chosen.listen, chosen.linger_s
            )
            extending.cancel()


async def extend(writer: Ledger, thread: ThreadPoolExecutor, chosen: Settings) -> None:
    """Add a day soon after each midnight."""
    while True:
        await asyncio.sleep(EXTEND_EVERY_S)
        await asyncio.get_running_loop().run_in_executor(thread, add_days, writer, chosen)


def add_days(writer: Ledger, chosen: Settings) -> None:
    """Add the slots of the next days that are not there yet."""
    added = writer.add_days(seed=chosen.seed, sites=chosen.sites, first=date.today(), days=chosen.days)
    if added:
        log.info("added slots=%d", added)


def main() -> None:
    """Run until told to stop."""
    process.log_to_stderr()
    asyncio.run(serve(settings.read(Settings)))


if __name__ == "__main__":
    main()

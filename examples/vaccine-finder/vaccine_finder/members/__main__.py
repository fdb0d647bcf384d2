"""Starts `members`."""

import asyncio
from dataclasses import dataclass

from vaccine_finder import process, settings
from vaccine_finder.members import service
from vaccine_finder.members.register import make_families
from vaccine_finder.towns import read_towns


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment decides."""

    listen: str = "[::]:8080"
    health_listen: str = "[::]:8081"
    linger_s: float = 0
    seed: int = 7
    families: int = 2000


def main() -> None:
    """Make the register and serve it."""
    process.log_to_stderr()
    chosen = settings.read(Settings)
    families = make_families(chosen.seed, chosen.families, read_towns())
    handlers = [service.handler(families)]
    asyncio.run(process.serve_grpc(handlers, chosen.listen, chosen.health_listen, chosen.linger_s))


if __name__ == "__main__":
    main()

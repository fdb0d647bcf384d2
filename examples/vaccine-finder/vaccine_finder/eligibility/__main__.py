"""Starts `eligibility`."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from vaccine_finder import process, settings
from vaccine_finder.eligibility import rules, service


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment decides."""

    listen: str = "[::]:8080"
    health_listen: str = "[::]:8081"
    linger_s: float = 0
    rules_file: str = str(Path(__file__).with_name("rules.json"))


def main() -> None:
    """Read the rules and serve them."""
    process.log_to_stderr()
    chosen = settings.read(Settings)
    book = rules.read_rules(Path(chosen.rules_file).read_bytes())
    handlers = [service.handler(book)]
    asyncio.run(process.serve_grpc(handlers, chosen.listen, chosen.health_listen, chosen.linger_s))


if __name__ == "__main__":
    main()

"""Starts `visitors`."""

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx2

from vaccine_finder import process, settings
from vaccine_finder.visitors import service
from vaccine_finder.visitors.browser import Browser
from vaccine_finder.visitors.journey import Outcome, travel
from vaccine_finder.visitors.load import Load

REPORT_EVERY_S = 10

# Longer than `web` bridges a restart of `slots`.
TIMEOUT_S = 30.0

log = logging.getLogger("vaccine_finder.visitors")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment decides; `rate` is in journeys, of about six requests each, per second."""

    web_url: str = "http://web:8080"
    listen: str = "[::]:8080"
    linger_s: float = 0
    rate: float = 2
    most_at_once: int = 64
    families: int = 2000
    seed: int = 7


async def serve(chosen: Settings) -> None:
    """Send visitors and answer questions about them until told to stop."""
    chance = random.Random(chosen.seed)
    no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))  # each visitor has its own
    async with httpx2.AsyncClient(
        base_url=chosen.web_url, timeout=TIMEOUT_S, cookies=no_cookies, trust_env=False
    ) as client:

        async def visit(measured: Callable[[float], None]) -> Outcome:
            return await travel(Browser(client, measured), chance, chosen.families)

        load = Load(visit, rate=chosen.rate, most_at_once=chosen.most_at_once, chance=chance)
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(load.run()), tasks.create_task(report(load))]
            await process.serve_http(service.app(load), chosen.listen, chosen.linger_s)
            for task in running:
                task.cancel()


async def report(load: Load) -> None:
    """Log the counts now and then."""
    while True:
        await asyncio.sleep(REPORT_EVERY_S)
        now = load.report()
        log.info(
            "rate=%s requests=%d p50_ms=%s p99_ms=%s outcomes=%s failures=%s",
            now.rate, now.requests, now.p50_ms, now.p99_ms, now.outcomes, now.failures,
        )  # fmt: skip


def main() -> None:
    """Run until told to stop."""
    process.log_to_stderr()
    asyncio.run(serve(settings.read(Settings)))


if __name__ == "__main__":
    main()

"""Starts `web`."""

import asyncio
from dataclasses import dataclass

import grpc
import httpx2

from vaccine_finder import process, settings
from vaccine_finder.web.backends import Backends
from vaccine_finder.web.service import Website

# Of one attempt; shorter than what a server keeps an idle connection for.
TIMEOUT_S = 5.0
KEEP_IDLE_S = 30.0
MOST_CONNECTIONS = 100


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment decides."""

    session_key: str
    listen: str = "[::]:8080"
    linger_s: float = 0
    sites_url: str = "http://sites:8080"
    slots_url: str = "http://slots:8080"
    eligibility_address: str = "eligibility:8080"
    members_address: str = "members:8080"


async def serve(chosen: Settings) -> None:
    """Open the clients, then serve."""
    async with (
        _client(chosen.sites_url) as sites,
        _client(chosen.slots_url) as slots,
        grpc.aio.insecure_channel(chosen.eligibility_address) as eligibility,
        grpc.aio.insecure_channel(chosen.members_address) as members,
    ):
        website = Website(Backends(sites, slots, eligibility, members), chosen.session_key)
        await process.serve_http(website.app(), chosen.listen, chosen.linger_s)


def _client(address: str) -> httpx2.AsyncClient:
    limits = httpx2.Limits(
        max_connections=MOST_CONNECTIONS,
        max_keepalive_connections=MOST_CONNECTIONS,
        keepalive_expiry=KEEP_IDLE_S,
    )
    return httpx2.AsyncClient(base_url=address, timeout=TIMEOUT_S, limits=limits, trust_env=False)


def main() -> None:
    """Run until told to stop."""
    process.log_to_stderr()
    asyncio.run(serve(settings.read(Settings)))


if __name__ == "__main__":
    main()

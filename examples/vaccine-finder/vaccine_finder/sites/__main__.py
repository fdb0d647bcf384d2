"""Starts one replica of `sites`."""

from dataclasses import dataclass

from vaccine_finder import process, settings
from vaccine_finder.sites.dataset import make_sites
from vaccine_finder.sites.index import SiteIndex
from vaccine_finder.sites.service import SitesService
from vaccine_finder.towns import read_towns


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment decides."""

    listen: str = "[::]:8080"
    linger_s: float = 0
    seed: int = 7
    sites: int = 5000


def main() -> None:
    """Make the sites and serve them."""
    process.log_to_stderr()
    chosen = settings.read(Settings)
    towns = read_towns()
    index = SiteIndex(make_sites(chosen.seed, chosen.sites, towns))
    process.run_http(SitesService(index, towns).app(), chosen.listen, chosen.linger_s)


if __name__ == "__main__":
    main()

"""Which addresses pods and services get, in a network that every mesh has for itself.

A service's address follows from its name, so that it is the same after a restart of everything and nobody has to
write it down; where two names meet, the later one takes the next free place and keeps it while it lives. A pod's
address is new each time, and one that was given back rests until all others had their turn: a proxy that still
believes in the old pod must not find another one there.
"""

import hashlib
import ipaddress
from collections.abc import Iterable

POD_NETWORK = ipaddress.IPv4Network("10.77.0.0/16")
POD_NETWORK_6 = ipaddress.IPv6Network("fd77::/64")
SERVICE_NETWORK = ipaddress.IPv4Network("10.78.0.0/16")
SERVICE_NETWORK_6 = ipaddress.IPv6Network("fd78::/112")
BRIDGE = ("10.77.0.1", "fd77::1")
"""Where the mesh's DNS answers, and where connections from this machine seem to come from."""

CLUSTER_DOMAIN = "cluster.local"

FIRST_POD = 2
PLACES = 2**16 - 2
"""How many addresses there are of each sort, the first and the last of a network left out."""

Pair = tuple[str, str]


class PodAddresses:
    """Gives out one IPv4 and one IPv6 address with the same number."""

    def __init__(self) -> None:
        self._taken: set[int] = set()
        self._next = FIRST_POD

    def take(self) -> Pair:
        """Return a pair that is free, the one that has rested longest.

        Raises OverflowError when all are in use.
        """
        for _ in range(PLACES):
            number = self._next
            self._next = FIRST_POD if number == PLACES else number + 1
            if number not in self._taken:
                self._taken.add(number)
                return str(POD_NETWORK[number]), str(POD_NETWORK_6[number])
        raise OverflowError(f"all {PLACES} pod addresses are in use")

    def give_back(self, addresses: Pair) -> None:
        """Free a pair."""
        self._taken.discard(int(ipaddress.IPv4Address(addresses[0])) - int(POD_NETWORK[0]))


class ServiceAddresses:
    """Remembers which service has which pair."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    def assign(self, services: Iterable[str]) -> dict[str, Pair]:
        """Return the pair of every service, each named `namespace/name`; whoever is not named loses his."""
        wanted = set(services)
        self._places = {name: place for name, place in self._places.items() if name in wanted}
        taken = set(self._places.values())
        for name in sorted(wanted - self._places.keys()):
            place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % PLACES
            while place + 1 in taken:
                place = (place + 1) % PLACES
            self._places[name] = place + 1
            taken.add(place + 1)
        return {
            name: (str(SERVICE_NETWORK[place]), str(SERVICE_NETWORK_6[place]))
            for name, place in self._places.items()
        }

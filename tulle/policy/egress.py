"""Which EgressNetwork an address outside belongs to: the one with the smallest block around it, of equals the first."""

import ipaddress
from collections.abc import Iterable, Iterator, Sequence

from tulle.model.authorization import EgressNetwork

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
EVERYTHING = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))


def around(
    address: str, networks: Iterable[EgressNetwork], cluster: Sequence[IpNetwork]
) -> EgressNetwork | None:
    """Return the network of an address; one without blocks has all that is not the cluster's."""
    parsed = ipaddress.ip_address(address)
    sizes = (
        (_size(block, excepted), of)
        for of in networks
        for block, excepted in _blocks(of, cluster)
        if parsed in block and not any(parsed in each for each in excepted)
    )
    return min(sizes, key=lambda found: found[0], default=(0, None))[1]


def _blocks(
    network: EgressNetwork, cluster: Sequence[IpNetwork]
) -> Iterator[tuple[IpNetwork, Sequence[IpNetwork]]]:
    if network.networks is None:
        yield from ((block, cluster) for block in EVERYTHING)
    else:
        for of in network.networks:
            yield ipaddress.ip_network(of.cidr), [ipaddress.ip_network(each) for each in of.excepted]


def _size(block: IpNetwork, excepted: Iterable[IpNetwork]) -> int:
    return block.num_addresses - sum(of.num_addresses for of in excepted if of.version == block.version)

"""Addresses and ports as every object of the model has them: checked, and in one spelling."""

import ipaddress
from functools import lru_cache

MAX_PORT = 65535


@lru_cache(maxsize=16_384)
def normal_address(text: str) -> str:
    """Return the spelling of an address that is used as a key; raises ValueError."""
    return str(ipaddress.ip_address(text))


@lru_cache(maxsize=16_384)
def is_ipv6(address: str) -> bool:
    """Tell the family of an address."""
    return ipaddress.ip_address(address).version == 6


def check_port(number: int) -> None:
    """Raises ValueError."""
    if not 0 < number <= MAX_PORT:
        raise ValueError(f"{number} is not a port")

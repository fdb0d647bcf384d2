"""Reads a process's settings from its environment, and says all that is wrong with them at once."""

import ipaddress
import re
from collections.abc import Mapping
from datetime import timedelta
from enum import Enum
from typing import TypeVar

E = TypeVar("E", bound=Enum)

_UNITS = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_DURATION = re.compile(r"(?P<number>\d{1,9})(?P<unit>ms|s|m|h|d)")


class Reader:
    """Call a reading method per setting, then look at `mistakes`. An empty variable counts as absent."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.mistakes: list[str] = []

    def text(self, name: str, default: str) -> str:
        """Read any text."""
        return self._environment.get(name) or default

    def duration(self, name: str, default: timedelta) -> timedelta:
        """Read `<number><unit>`, the unit one of ms, s, m, h, d; never zero."""
        value = self._environment.get(name)
        if not value:
            return default
        match = _DURATION.fullmatch(value)
        read = timedelta(**{_UNITS[match["unit"]]: int(match["number"])}) if match else timedelta()
        if not read:
            self.mistakes.append(f"{name}={value!r}: write a number and ms, s, m, h or d, such as 24h")
        return read or default

    def choice(self, name: str, default: E) -> E:
        """Read the value of one of an enumeration's members."""
        value = self._environment.get(name)
        if not value:
            return default
        try:
            return type(default)(value)
        except ValueError:
            choices = ", ".join(str(member.value) for member in type(default))
            self.mistakes.append(f"{name}={value!r}: write one of {choices}")
            return default

    def networks(self, name: str, default: tuple[str, ...]) -> tuple[str, ...]:
        """Read networks with commas between."""
        value = self._environment.get(name)
        if not value:
            return default
        networks: list[str] = []
        for item in value.split(","):
            try:
                networks.append(str(ipaddress.ip_network(item.strip())))
            except ValueError as error:
                self.mistakes.append(
                    f"{name}: {error}; write networks such as 10.0.0.0/8, with commas between"
                )
        return tuple(networks)

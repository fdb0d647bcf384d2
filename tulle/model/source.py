"""What a source is: the seam between the control plane and whatever knows the world.

A source is run for as long as the controller lives. It says everything it knows with `replace`, or,
after a first `replace`, changes with `apply`. When `run` raises or returns it is run again after a
back-off, and everything it said stays true until its next `replace`: a source that hangs or fails
ages its own data and nothing else.

Readiness: the controller answers nobody before every source has said its first whole state, since a
half-known world would tell warm proxies that services are empty. So a source that never delivers
holds the controller back for as long as it does so (the log and `/v1/ready` name it); one that
delivered once never does again.
"""

from collections.abc import Iterable
from typing import Protocol

from tulle.model.update import Object, Update


class Sink(Protocol):
    """Where a source says what it knows; each source has one of its own."""

    def replace(self, objects: Iterable[Object]) -> None:
        """State all that the source knows; what it said before and is not in it is gone."""

    def apply(self, updates: Iterable[Update]) -> None:
        """State what changed since."""


class Source(Protocol):
    """A plug-in is a class of this shape in the entry-point group `tulle.sources`; it is made without
    arguments and reads its own settings."""

    @property
    def name(self) -> str:
        """Return what the log calls this source."""

    async def run(self, sink: Sink) -> None:
        """Follow the world until cancelled."""

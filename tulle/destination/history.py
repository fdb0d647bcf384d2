"""The endpoints of one view over time, so that any follower can be brought up to date.

A follower keeps only the number of the generation it last sent; this keeps, for each address, the
generation that changed it last, and for each address that went, the generation that it went in. So
the messages from generation *g* to now are `add` (changed after *g*) and `remove` (gone after *g*),
in upstream's order; a later `add` does not replace what was added before, hence the `remove`. They
are made once per *g* and shared: nearly all followers are at the generation before. An address that
came and went in between is removed without having been added, which the proxies ignore.

The memory is one entry per address, plus the addresses that went. Those are forgotten beyond
`_MOST_GONE`; a follower older than what is remembered is told so and begins its stream anew, where
the first `add` replaces everything. So a stalled client costs nobody anything.
"""

from tulle.destination import translate
from tulle.destination.index import Peer, Resolution
from tulle.wire import destination_pb2 as wire

Where = tuple[str, int]

_MOST_GONE = 4_096


class History:
    """The endpoints of one service and port, generation by generation."""

    def __init__(self) -> None:
        self.generation = 0
        self._resolution: Resolution | None = None
        self._messages: dict[Where, wire.WeightedAddr] = {}
        self._changed: dict[Where, int] = {}
        self._gone: dict[Where, int] = {}
        self._forgotten = 0
        self._updates: dict[int, tuple[bytes, ...]] = {}

    @property
    def resolution(self) -> Resolution | None:
        """Return the newest generation."""
        return self._resolution

    def take(self, new: Resolution) -> bool:
        """Make this the newest generation; return False where it is equal to the one before."""
        if new == self._resolution:
            return False
        before: dict[Where, Peer] = self._resolution.peers if self._resolution else {}
        self._resolution = new
        self.generation += 1
        self._updates.clear()
        for where in before.keys() - new.peers.keys():
            del self._messages[where], self._changed[where]
            self._gone[where] = self.generation
        for where, peer in new.peers.items():
            if before.get(where) != peer:
                self._messages[where] = translate.weighted(peer)
                self._changed[where] = self.generation
                self._gone.pop(where, None)
        while len(self._gone) > _MOST_GONE:
            self._forgotten = self._gone.pop(next(iter(self._gone)))
        return True

    def since(self, generation: int) -> tuple[bytes, ...] | None:
        """Return what brings a follower from `generation` (0: nothing yet) to the newest one.

        None means that too much went since then to be told.
        """
        if generation and generation < self._forgotten:
            return None
        if generation not in self._updates:
            self._updates[generation] = self._make(generation)
        return self._updates[generation]

    def _make(self, generation: int) -> tuple[bytes, ...]:
        assert self._resolution is not None, "a generation exists, so a resolution does"
        if not self._resolution.peers:
            return (translate.no_endpoints(exists=self._resolution.exists),)
        added = [self._messages[where] for where, changed in self._changed.items() if changed > generation]
        gone = [where for where, went in self._gone.items() if went > generation] if generation else []
        updates = [translate.add(self._resolution.service, added)] if added else []
        if gone:
            updates.append(translate.remove(gone))
        return tuple(updates)

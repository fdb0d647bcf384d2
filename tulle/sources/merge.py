"""What several sources say, made one.

Pure. Each source has a ledger of what it said; the earlier source in the list wins where two name the
same object, and when it lets go the later one's word holds again. `replace` is how a source that
only sees whole states (or that was away) says what is gone without knowing it.
"""

from collections.abc import Iterable

from tulle.model.update import Changed, Key, Object, Removed, Update, key_of


class Merge:
    """The ledgers of all sources."""

    def __init__(self, sources: int) -> None:
        self._ledgers: list[dict[Key, Object]] = [{} for _ in range(sources)]

    def replace(self, source: int, objects: Iterable[Object]) -> list[Update]:
        """Take a source's whole state; return what that changes in the sum of all."""
        new = {key_of(item): item for item in objects}
        ledger = self._ledgers[source]
        changes: list[Update] = [Removed(key) for key in ledger if key not in new]
        changes += [Changed(item) for key, item in new.items() if ledger.get(key) != item]
        return self.apply(source, changes)

    def apply(self, source: int, updates: Iterable[Update]) -> list[Update]:
        """Take a source's changes; return what they change in the sum of all."""
        effects: list[Update] = []
        for update in updates:
            key = key_of(update.object) if isinstance(update, Changed) else update.key
            before = self._lookup(key)
            if isinstance(update, Changed):
                self._ledgers[source][key] = update.object
            else:
                self._ledgers[source].pop(key, None)
            after = self._lookup(key)
            if after is None and before is not None:
                effects.append(Removed(key))
            elif after is not None and after != before:
                effects.append(Changed(after))
        return effects

    def _lookup(self, key: Key) -> Object | None:
        return next((ledger[key] for ledger in self._ledgers if key in ledger), None)

"""Answers that many clients share: computed once per key, kept while anybody follows them.

`Views` knows which topics each answer depends on. When topics are touched it asks exactly those
answers to compute themselves anew; one whose bytes stay equal publishes nothing. Nothing here knows
what an answer means: `destination` and `policy` bring that.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import grpc

from tulle.lib.latest import Latest


@dataclass(frozen=True, slots=True)
class Refused:
    """An answer that ends the stream."""

    code: grpc.StatusCode
    message: str


Answer = bytes | Refused


class View(Protocol):
    """An answer that can be computed anew."""

    def refresh(self) -> frozenset[str]:
        """Compute the answer anew, publish it if it differs, return the topics it depends on."""


V = TypeVar("V", bound=View)
K = TypeVar("K")


class AnswerView:
    """A view whose every generation is one whole message.

    `audience` names those of the asking who have a view of their own; a change of it wakes every follower, so that each
    can look whether it is in the right place.
    """

    def __init__(
        self,
        compute: Callable[[], tuple[Answer, frozenset[str]]],
        audience: Callable[[], frozenset[str]] = frozenset,
    ) -> None:
        self._compute = compute
        self._audience_now = audience
        self._audience: frozenset[str] = frozenset()
        self.latest: Latest[Answer] = Latest()

    def refresh(self) -> frozenset[str]:
        """Compute the answer anew and publish it if it differs."""
        answer, topics = self._compute()
        before, self._audience = self._audience, self._audience_now()
        if answer != self.latest.value or before != self._audience:
            self.latest.set(answer)
        return topics


@dataclass(slots=True)
class _Entry(Generic[V]):
    view: V
    topics: frozenset[str]
    followers: int = 0


class Views(Generic[K, V]):
    """The answers that somebody follows, by key."""

    def __init__(self, make: Callable[[K], V]) -> None:
        self._make = make
        self._entries: dict[K, _Entry[V]] = {}
        self._by_topic: dict[str, set[K]] = {}

    @property
    def followers(self) -> int:
        """Return how many follow, over all keys."""
        return sum(entry.followers for entry in self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    @contextmanager
    def follow(self, key: K) -> Iterator[V]:
        """Lend the key's view; it lives as long as somebody follows it."""
        entry = self._entries.get(key)
        if entry is None:
            view = self._make(key)
            entry = self._entries[key] = _Entry(view, view.refresh())
            self._index(key, entry.topics)
        entry.followers += 1
        try:
            yield entry.view
        finally:
            entry.followers -= 1
            if not entry.followers:
                self._unindex(key, entry.topics)
                del self._entries[key]

    def touch(self, topics: Iterable[str]) -> int:
        """Refresh what depends on the topics; return how many views that were."""
        keys = {key for topic in topics for key in self._by_topic.get(topic, ())}
        for key in keys:
            entry = self._entries[key]
            before, entry.topics = entry.topics, entry.view.refresh()
            if before != entry.topics:
                self._unindex(key, before)
                self._index(key, entry.topics)
        return len(keys)

    def _index(self, key: K, topics: Iterable[str]) -> None:
        for topic in topics:
            self._by_topic.setdefault(topic, set()).add(key)

    def _unindex(self, key: K, topics: Iterable[str]) -> None:
        for topic in topics:
            keys = self._by_topic[topic]
            keys.discard(key)
            if not keys:
                del self._by_topic[topic]

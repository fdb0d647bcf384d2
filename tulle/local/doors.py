"""The ports of this machine at which services are published: the listening sockets, held by the supervisor.

They are opened before anything of a changed folder is taken over, so that a taken port is a mistake like any other
and leaves what runs alone. The gateway gets them handed over, and again when it was started anew.
"""

import socket
from collections.abc import Iterable, Mapping

from tulle.lib.latest import Latest
from tulle.local.handover import Door
from tulle.local.publish import HOST, Published, published, taken
from tulle.model.objects import Problem, Service

BACKLOG = 1024

Listener = tuple[Published, socket.socket]


class Doors:
    """What is published now."""

    def __init__(self, moved: Mapping[tuple[str, str, int], int]) -> None:
        self._moved = moved
        self._open: dict[str, Listener] = {}
        self.open_now: Latest[tuple[tuple[Door, socket.socket], ...]] = Latest(())

    def open(self, services: Iterable[Service], *, only_try: bool) -> list[Problem]:
        """Publish exactly these services; if one cannot be, say so and leave all as it is."""
        wanted = {each.key: each for each in published(services, self._moved)}
        fresh: dict[str, Listener] = {}
        problems: list[Problem] = []
        for key, each in wanted.items():
            if key in self._open:
                continue
            try:
                fresh[key] = (each, _listen(each.port, self._held(each.port, wanted)))
            except OSError as error:
                reason = error.strerror or str(error)
                problems.append(Problem(each.source, "port", taken(each, reason)))
        if problems or only_try:
            for _, listener in fresh.values():
                listener.close()
            return problems
        for key in self._open.keys() - wanted.keys():
            self._open.pop(key)[1].close()
        self._open |= fresh
        doors = ((_door(each), listener) for each, listener in self._open.values())
        self.open_now.set(tuple(doors))
        return []

    def state(self) -> list[dict[str, str | int]]:
        """Return what is published, for people."""
        return [
            {
                "service": each.service,
                "namespace": each.namespace,
                "host": HOST,
                "port": each.port,
                "target": each.service_port,
            }
            for each, _ in sorted(self._open.values(), key=lambda pair: pair[0].port)
        ]

    def _held(self, port: int, wanted: Mapping[str, Published]) -> socket.socket | None:
        """Return the socket of a port that another service gives up in this very change."""
        for key, (each, listener) in self._open.items():
            if each.port == port and key not in wanted:
                return listener
        return None


def _listen(port: int, held: socket.socket | None) -> socket.socket:
    if held is not None:
        return held.dup()
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _door(each: Published) -> Door:
    return Door(each.key, each.namespace, each.service, each.service_port)

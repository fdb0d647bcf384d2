"""How the supervisor hands listening sockets to the gateway: one message, the sockets riding on it.

Each message names all doors that shall be open; whatever was open before and is not named is to be closed.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Sequence

import msgspec

MAX_MESSAGE = 1 << 16
MAX_SOCKETS = 250
"""The kernel carries 253 with one message."""


class Door(msgspec.Struct, frozen=True):
    """A service's port that a listening socket leads to."""

    key: str
    namespace: str
    service: str
    service_port: int


Handed = list[tuple[Door, socket.socket]]


def send(control: socket.socket, doors: Sequence[tuple[Door, socket.socket]]) -> None:
    """Hand over all doors; the caller keeps its own descriptors."""
    message = msgspec.json.encode([door for door, _ in doors])
    socket.send_fds(control, [message], [listener.fileno() for _, listener in doors])


async def receive(control: socket.socket) -> AsyncIterator[Handed]:
    """Yield each set of doors until the supervisor is gone."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(control, readable.set)
    try:
        while True:
            await readable.wait()
            readable.clear()
            try:
                message, descriptors, _, _ = socket.recv_fds(control, MAX_MESSAGE, MAX_SOCKETS)
            except BlockingIOError:
                continue  # One message can wake us twice.
            if not message:
                return
            doors = msgspec.json.decode(message, type=list[Door])
            listeners = [socket.socket(fileno=descriptor) for descriptor in descriptors]
            for listener in listeners:
                listener.setblocking(False)
                os.set_inheritable(listener.fileno(), False)
            yield list(zip(doors, listeners, strict=True))
    finally:
        loop.remove_reader(control)

"""Listening sockets that travel to another process."""

import socket

from tulle.local.handover import Door, receive, send


async def test_doors_arrive_with_their_sockets_and_the_last_set_counts() -> None:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    there.setblocking(False)
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    doors = [Door(f"door {number}", "default", "web", 80) for number in range(2)]

    send(here, list(zip(doors, listeners, strict=True)))
    send(here, [(doors[1], listeners[1])])
    send(here, [])
    here.close()
    sets = [handed async for handed in receive(there)]

    assert [[door.key for door, _ in handed] for handed in sets] == [["door 0", "door 1"], ["door 1"], []]
    assert sets[0][1][1].getsockname() == listeners[1].getsockname()
    for listener in (there, *listeners, *(listener for handed in sets for _, listener in handed)):
        listener.close()

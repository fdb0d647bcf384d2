"""What can be read on a pod's link."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from e2e.pods import Pod, eventually

EVERY_PROTOCOL = 0x0003
LINK = "eth0"
BUFFER = 32 << 20


@dataclass(slots=True)
class Capture:
    """The frames that crossed a link."""

    frames: list[bytes] = field(default_factory=list)

    def has(self, marker: bytes) -> bool:
        """Say whether a marker can be read in any frame."""
        return any(marker in frame for frame in self.frames)

    def tcp_bytes(self, port: int) -> int:
        """Return the length of the frames of TCP over IPv4 from or to a port."""
        found = 0
        for frame in self.frames:
            if frame[12:14] != b"\x08\x00" or frame[23] != socket.IPPROTO_TCP:
                continue
            at = 14 + 4 * (frame[14] & 0x0F)
            ports = (int.from_bytes(frame[at : at + 2], "big"), int.from_bytes(frame[at + 2 : at + 4], "big"))
            found += len(frame) if port in ports else 0
        return found


@contextlib.asynccontextmanager
async def capturing(pod: Pod) -> AsyncIterator[Capture]:
    """Capture everything on a pod's link while the block runs, and until nothing more is waiting."""
    capture = Capture()
    passer = await pod.passer(privileged=True)
    loop = asyncio.get_running_loop()
    with passer.make(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EVERY_PROTOCOL)) as tap:
        tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        tap.bind((LINK, 0))

        def drain() -> bool:
            with contextlib.suppress(BlockingIOError):
                while True:
                    capture.frames.append(tap.recv(1 << 17))
            return True

        loop.add_reader(tap, drain)
        try:
            yield capture
            await eventually(drain, "the capture is read")
        finally:
            loop.remove_reader(tap)

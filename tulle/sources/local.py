"""The world of one machine, as its supervisor tells it over a Unix socket, snapshot by snapshot.

One HTTP response that never ends, one JSON line per snapshot. When it breaks `run` raises, and is run
again by whoever runs sources; meanwhile the last snapshot holds. A line that cannot be read breaks it
too: the supervisor and the controller are of one version, so that is a bug and must be seen.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import msgspec

from tulle.model.errors import ManifestError, PeerError
from tulle.model.source import Sink
from tulle.model.update import Object
from tulle.sources.snapshot import decode, objects


class LocalSource:
    """The supervisor's socket as a source."""

    name = "local"

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def run(self, sink: Sink) -> None:
        """State each snapshot that arrives."""
        transport = httpx2.AsyncHTTPTransport(uds=str(self._socket))
        # Silence is the normal state of this stream; only connecting has a limit.
        timeout = httpx2.Timeout(None, connect=5)
        async with (
            httpx2.AsyncClient(transport=transport, timeout=timeout) as client,
            client.stream("GET", "http://supervisor/v1/watch") as response,
        ):
            response.raise_for_status()
            async for line in _lines(response.aiter_raw()):
                sink.replace(_decode(line))


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Split at line feeds only: JSON strings may contain what Unicode also takes for a line's end."""
    rest = bytearray()
    async for chunk in chunks:
        rest += chunk
        *lines, last = rest.split(b"\n")
        rest = bytearray(last)
        for line in filter(None, lines):
            yield bytes(line)


def _decode(line: bytes) -> list[Object]:
    try:
        return list(objects(decode(line)))
    except (msgspec.MsgspecError, ManifestError) as error:
        raise PeerError(f"the supervisor's snapshot cannot be read: {error}") from error

"""HTTP/2 with prior knowledge as the tests speak it, over the h2 package: a client of one connection, and a server."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions

from e2e.pods import DEADLINE_S, Stream

Pairs = list[tuple[str, str]]


@dataclass(slots=True)
class Exchange:
    """What has arrived of one request or response."""

    head: Pairs = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    trailers: Pairs = field(default_factory=list)
    reset: int | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def __getitem__(self, name: str) -> str | None:
        """Return the first value of a field."""
        return next((value for key, value in self.head if key == name), None)


class Half:
    """One end of a connection: feeds what arrives to exchanges and writes what may be written."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, client: bool) -> None:
        config = h2.config.H2Configuration(client_side=client, header_encoding="utf-8")
        self.state = h2.connection.H2Connection(config)
        self.exchanges: dict[int, Exchange] = {}
        self.gone: int | None = None
        """The error code of a GOAWAY that has arrived."""
        self._reader, self._writer = reader, writer
        self._window = asyncio.Condition()
        self.state.initiate_connection()
        self.flush()

    def flush(self) -> None:
        """Write what is to be written."""
        self._writer.write(self.state.data_to_send())

    async def run(self, begun: Callable[[int], object] = lambda _: None) -> None:
        """Read until the end; `begun` is told the stream of each request."""
        try:
            while data := await self._reader.read(1 << 16):
                for event in self.state.receive_data(data):
                    self._take(event, begun)
                self.flush()
                async with self._window:
                    self._window.notify_all()
        except (ConnectionError, h2.exceptions.ProtocolError):
            pass
        finally:
            self.flush()
            for exchange in self.exchanges.values():
                if not exchange.ended.is_set():
                    exchange.reset = exchange.reset or -1
                    exchange.ended.set()

    def _take(self, event: h2.events.Event, begun: Callable[[int], object]) -> None:
        if isinstance(event, h2.events.ConnectionTerminated):
            self.gone = int(event.error_code or 0)
            return
        stream = getattr(event, "stream_id", None)
        if not stream:
            return
        exchange = self.exchanges.setdefault(stream, Exchange())
        match event:
            case h2.events.RequestReceived(headers=headers) | h2.events.ResponseReceived(headers=headers):
                exchange.head = pairs(headers)
                if isinstance(event, h2.events.RequestReceived):
                    begun(stream)
            case h2.events.DataReceived(data=data, flow_controlled_length=length):
                exchange.body += data or b""
                self.state.acknowledge_received_data(length or 0, stream)
            case h2.events.TrailersReceived(headers=headers):
                exchange.trailers = pairs(headers)
            case h2.events.StreamEnded():
                exchange.ended.set()
            case h2.events.StreamReset(error_code=code):
                exchange.reset = int(code or 0)
                exchange.ended.set()

    async def body(self, stream: int, data: bytes, trailers: Pairs | None = None) -> None:
        """Send a body within the windows, then the end."""
        at = 0
        while at < len(data):
            async with self._window:
                while not (room := self.state.local_flow_control_window(stream)):
                    await self._window.wait()
            size = min(room, self.state.max_outbound_frame_size, len(data) - at)
            self.state.send_data(stream, data[at : at + size])
            at += size
            self.flush()
            await self._writer.drain()
        if trailers:
            self.state.send_headers(stream, trailers, end_stream=True)
        else:
            self.state.end_stream(stream)
        self.flush()


def pairs(headers: object) -> Pairs:
    """Return headers as pairs of text."""
    return [(str(name), str(value)) for name, value in headers or ()]  # type: ignore[attr-defined]


class Client:
    """A client over one connection."""

    def __init__(self, stream: Stream) -> None:
        self.half = Half(stream.reader, stream.writer, client=True)
        self.running = asyncio.create_task(self.half.run())

    async def ask(
        self,
        path: str = "/",
        *,
        method: str = "GET",
        body: bytes = b"",
        more: Pairs | None = None,
        trailers: Pairs | None = None,
    ) -> Exchange:
        """Make one request and return all of its response."""
        state = self.half.state
        stream = state.get_next_available_stream_id()
        exchange = self.half.exchanges[stream] = Exchange()
        head = [(":method", method), (":scheme", "http"), (":authority", "server.example"), (":path", path)]
        bare = not body and not trailers
        state.send_headers(stream, [*head, *(more or [])], end_stream=bare)
        self.half.flush()
        async with asyncio.timeout(DEADLINE_S):
            if not bare:
                await self.half.body(stream, body, trailers)
            await exchange.ended.wait()
        return exchange


@dataclass(slots=True)
class Server:
    """A server that sends each body back, with the fields `x-…` of the request as trailers."""

    seen: list[Exchange] = field(default_factory=list)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        half = Half(reader, writer, client=False)
        async with asyncio.TaskGroup() as group:
            await half.run(lambda stream: group.create_task(self._answer(half, stream)))

    async def _answer(self, half: Half, stream: int) -> None:
        exchange = half.exchanges[stream]
        self.seen.append(exchange)
        await exchange.ended.wait()
        if exchange.reset is not None:
            return
        try:
            if exchange[":path"] == "/reset":
                half.state.reset_stream(stream, h2.errors.ErrorCodes.INTERNAL_ERROR)
                half.flush()
                return
            half.state.send_headers(stream, [(":status", "200"), ("content-type", "text/plain")])
            trailers = [(name, value) for name, value in exchange.head if name.startswith("x-")]
            async with asyncio.timeout(DEADLINE_S):
                await half.body(stream, bytes(exchange.body) or b"hello", trailers)
        except (h2.exceptions.ProtocolError, ConnectionError, TimeoutError):
            pass  # The client has gone away.

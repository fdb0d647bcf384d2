"""A steady load over kept-alive HTTP/1.1 connections, to run in a pod; says what became of every request.

Each connection has one request in flight and one to send every `connections / rate` seconds. A connection that the
other side closes between two requests, or announces to close, is replaced, as any client does; a request that was
begun and brings no answer, or an answer other than 200, is a failure. Half of the requests are POSTs.

Orders are lines on the standard input: `report` prints one line of JSON, `pause` and `go` stop and continue. It
ends with a last report when the input does.
"""

import argparse
import asyncio
import collections
import contextlib
import json
import socket
import sys
import time

BODY = b"x" * 1000
PATIENCE_S = 20.0
TROUBLE_S = 2.0
"""A request that took longer met something that it should not have."""


class Load:
    """What was done so far."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.host: str = options.host
        self.port: int = options.port
        self.methods: list[str] = options.methods.split(",")
        self.interval: float = options.connections / options.rate
        self.address = self.host
        self.going = asyncio.Event()
        self.going.set()
        self.done = 0
        self.failures: list[dict[str, object]] = []
        self.replaced = 0
        self.servers: collections.Counter[str] = collections.Counter()
        self.slowest = 0.0
        self.last_success = 0.0
        self.longest_gap = 0.0
        self.trouble_ended = 0.0
        self.begun = time.time()

    def report(self) -> str:
        """Return everything as one line of JSON."""
        return json.dumps(
            {
                "done": self.done,
                "failed": len(self.failures),
                "failures": self.failures[:10] + self.failures[-2:],
                "replaced": self.replaced,
                "servers": self.servers,
                "slowest_ms": round(self.slowest * 1000),
                "longest_gap_ms": round(self.longest_gap * 1000),
                "trouble_ended": round(self.trouble_ended, 1),
                "seconds": round(time.time() - self.begun, 1),
            }
        )

    async def connection(self, number: int) -> None:
        """Send requests over one connection and its successors, for ever."""
        due = time.monotonic() + self.interval * number / max(1, self.interval * 100)
        stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        turn = number
        while True:
            if not self.going.is_set():
                await self.going.wait()
                due = time.monotonic()
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due = max(due + self.interval, time.monotonic() - 1)
            method = self.methods[turn % len(self.methods)]
            turn += 1
            begun = time.monotonic()
            try:
                async with asyncio.timeout(PATIENCE_S):
                    if stream is not None and (stream[0].at_eof() or stream[1].is_closing()):
                        stream[1].close()
                        stream = None
                        self.replaced += 1
                    if stream is None:
                        stream = await asyncio.open_connection(self.address, self.port)
                    keep = await self._exchange(stream, method)
            except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError) as error:
                self._failed(f"{method}: {type(error).__name__}: {error}", begun)
                keep = False
            if not keep and stream is not None:
                stream[1].close()
                stream = None

    async def _exchange(self, stream: tuple[asyncio.StreamReader, asyncio.StreamWriter], method: str) -> bool:
        reader, writer = stream
        begun = time.monotonic()
        body = BODY if method == "POST" else b""
        head = f"{method} / HTTP/1.1\r\nhost: {self.host}:{self.port}\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        headers = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in headers[1:] if ": " in line)
        said = await reader.readexactly(int(fields.get("content-length", "0")))
        status = headers[0].split(" ")[1]
        if status != "200":
            why = {key: value for key, value in fields.items() if "l5d" in key or "tulle" in key}
            self._failed(f"{method}: {status} {why} {said[:200]!r}", begun)
        elif method == "POST" and f" {len(BODY)} " not in said.decode():
            self._failed(f"{method}: the body did not arrive: {said!r}", begun)
        else:
            now = time.monotonic()
            self.done += 1
            if now - begun > TROUBLE_S:
                self.trouble_ended = time.time() - self.begun
            self.servers[said.decode().split(" ")[0]] += 1
            self.slowest = max(self.slowest, now - begun)
            if self.last_success:
                self.longest_gap = max(self.longest_gap, now - self.last_success)
            self.last_success = now
        return fields.get("connection") != "close"

    def _failed(self, what: str, begun: float) -> None:
        now = time.time()
        after = time.monotonic() - begun
        self.trouble_ended = now - self.begun
        self.failures.append({"at": round(now - self.begun, 2), "after": round(after, 3), "what": what})


async def main() -> None:
    """Load until told otherwise."""
    parser = argparse.ArgumentParser()
    parser.add_argument("host")
    parser.add_argument("--port", type=int, default=80)
    parser.add_argument("--rate", type=float, default=500)
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--methods", default="GET,POST")
    load = Load(parser.parse_args())
    # Asked for once: what is tested is the proxy, not the resolver.
    load.address = socket.getaddrinfo(load.host, load.port, socket.AF_INET, socket.SOCK_STREAM)[0][4][0]
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(orders), sys.stdin.buffer
    )
    connections = parser.parse_args().connections
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(load.connection(number)) for number in range(connections)]
        while order := (await orders.readline()).decode().strip():
            match order:
                case "pause":
                    load.going.clear()
                case "go":
                    load.last_success = 0.0
                    load.going.set()
                case _:
                    print(load.report(), flush=True)  # noqa: T201 (that is how it answers)
        for task in tasks:
            task.cancel()
    print(load.report(), flush=True)  # noqa: T201


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())

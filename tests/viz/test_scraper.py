import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.viz.test_metrics import SCRAPE
from tulle.viz.scraper import Scraper


@asynccontextmanager
async def proxy(body: str | None) -> AsyncIterator[str]:
    """Answer every request with these metrics; with None, never."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if body is None:
            await reader.read()
        else:
            writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}/metrics"


async def test_a_pod_that_does_not_answer_delays_no_other() -> None:
    async with proxy(None) as stuck, proxy(SCRAPE) as well, asyncio.TaskGroup() as tasks:
        scraper = Scraper(lambda: {"shop/stuck": stuck, "shop/well": well})
        running = tasks.create_task(scraper.run())

        while not (stats := scraper.stats()):  # noqa: ASYNC110  # a scrape's end has no event
            await asyncio.sleep(0)

        assert set(stats) == {"shop/well"}
        assert stats["shop/well"].tcp_open == 5
        running.cancel()


async def test_a_pod_that_went_is_forgotten() -> None:
    async with proxy(SCRAPE) as url, asyncio.TaskGroup() as tasks:
        targets = {"shop/web": url}
        scraper = Scraper(lambda: targets)
        running = tasks.create_task(scraper.run())
        while not scraper.stats():  # noqa: ASYNC110  # the same
            await asyncio.sleep(0)

        del targets["shop/web"]
        while scraper.stats():  # noqa: ASYNC110  # the same
            await asyncio.sleep(0)

        running.cancel()

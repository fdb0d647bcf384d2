import asyncio

from tulle.lib.latest import Latest


async def test_a_follower_that_was_away_sees_only_the_newest_value() -> None:
    latest: Latest[str] = Latest()
    latest.set("old")
    seen, _ = await latest.next(0)
    latest.set("missed")
    latest.set("new")

    assert await latest.next(seen) == (3, "new")


async def test_a_follower_waits_for_a_generation_that_it_has_not_seen() -> None:
    latest = Latest("first")
    waiting = asyncio.create_task(latest.next(1))
    await asyncio.sleep(0)
    assert not waiting.done()

    latest.set("second")

    assert await waiting == (2, "second")


async def test_a_follower_that_left_is_forgotten() -> None:
    latest: Latest[str] = Latest()
    waiting = asyncio.create_task(latest.next(0))
    await asyncio.sleep(0)

    waiting.cancel()
    await asyncio.wait([waiting])

    assert not latest._waiters

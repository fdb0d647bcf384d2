import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import date, datetime, timedelta
from pathlib import Path

import httpx2
import msgspec
import pytest

from vaccine_finder import dev
from vaccine_finder.slots.calendar import slots_of
from vaccine_finder.slots.ledger import Ledger, NotBookedError
from vaccine_finder.wire.messages import Booking, FreeTimes, Wanted

MONDAY = date(2026, 11, 23)
BEFORE = datetime(2026, 11, 23, 0, 0)
SITE = 12
STARTS = slots_of(7, SITE, MONDAY)[0]
WANTED = Wanted("100001", "100001-1", "flu", SITE, STARTS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with Ledger(tmp_path / "slots.db") as ledger:
        ledger.add_days(seed=7, sites=20, first=MONDAY, days=14)
    return tmp_path / "slots.db"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with Ledger(path) as opened:
        yield opened


def first_free(ledger: Ledger) -> datetime:
    return ledger.free([SITE], after=BEFORE, limit=1)[0].starts[0]


def test_one_of_many_concurrent_bookings_of_a_slot_wins(path: Path) -> None:
    rivals = 16
    start = threading.Barrier(rivals)

    def rush(number: int) -> list[str]:
        with Ledger(path) as own_connection:
            start.wait()
            return [outcome(own_connection, number, starts) for starts in slots_of(7, SITE, MONDAY)]

    def outcome(own_connection: Ledger, number: int, starts: datetime) -> str:
        try:
            own_connection.book(replace(WANTED, starts=starts), key=f"{number} {starts}", now=BEFORE)
        except NotBookedError as error:
            return error.reason
        return "booked"

    with ThreadPoolExecutor(rivals) as pool:
        outcomes = list(pool.map(rush, range(rivals)))

    for of_one_slot in zip(*outcomes, strict=True):
        assert sorted(of_one_slot) == ["booked"] + ["taken"] * (rivals - 1)


def test_the_same_key_books_once_and_answers_the_same_even_after_a_restart(path: Path) -> None:
    with Ledger(path) as before:
        first = before.book(WANTED, key="k", now=BEFORE)
    with Ledger(path) as after:
        second = after.book(WANTED, key="k", now=BEFORE + timedelta(days=30))

        assert first == second == Booking(key="k", cancelled=False, **asdict(WANTED))
        assert after.of_family("100001", after=BEFORE) == [first]


def test_a_key_cannot_be_used_for_another_booking(ledger: Ledger) -> None:
    ledger.book(WANTED, key="k", now=BEFORE)

    with pytest.raises(NotBookedError, match="key_was_used_for_another_booking"):
        ledger.book(replace(WANTED, vaccine="covid"), key="k", now=BEFORE)


def test_a_cancelled_slot_can_be_sold_again(ledger: Ledger) -> None:
    ledger.book(WANTED, key="k", now=BEFORE)
    assert first_free(ledger) != STARTS

    cancelled = ledger.cancel("k", family="100001")
    again = ledger.book(replace(WANTED, family="100002"), key="k2", now=BEFORE)

    assert cancelled is not None
    assert cancelled.cancelled
    assert not again.cancelled
    assert ledger.of_family("100001", after=BEFORE) == []


def test_repeating_a_booking_that_was_cancelled_since_does_not_book_again(ledger: Ledger) -> None:
    ledger.book(WANTED, key="k", now=BEFORE)
    cancelled = ledger.cancel("k", family="100001")

    assert ledger.book(WANTED, key="k", now=BEFORE) == cancelled
    assert first_free(ledger) == STARTS


def test_a_family_cannot_cancel_what_another_has_booked(ledger: Ledger) -> None:
    ledger.book(WANTED, key="k", now=BEFORE)

    assert ledger.cancel("k", family="100002") is None
    assert len(ledger.of_family("100001", after=BEFORE)) == 1


@pytest.mark.parametrize(
    ("wanted", "now", "reason"),
    [
        (replace(WANTED, starts=STARTS + timedelta(minutes=1)), BEFORE, "no_such_slot"),
        (WANTED, STARTS, "in_the_past"),
    ],
)
def test_what_is_not_for_sale_is_refused(ledger: Ledger, wanted: Wanted, now: datetime, reason: str) -> None:
    with pytest.raises(NotBookedError, match=reason):
        ledger.book(wanted, key="k", now=now)


def test_adding_days_again_adds_only_what_is_missing_and_keeps_bookings(ledger: Ledger) -> None:
    ledger.book(WANTED, key="k", now=BEFORE)

    assert ledger.add_days(seed=7, sites=20, first=MONDAY, days=14) == 0
    assert ledger.add_days(seed=7, sites=20, first=MONDAY + timedelta(days=1), days=14) > 0
    assert first_free(ledger) != STARTS


def test_of_concurrent_requests_for_a_slot_one_gets_it(finder: dev.Finder) -> None:
    rivals = 40

    async def rush() -> tuple[list[int], datetime]:
        async with httpx2.AsyncClient(base_url=finder.url("slots"), trust_env=False) as client:
            free = msgspec.json.decode((await client.get("/free?site=77")).content, type=list[FreeTimes])
            starts = free[0].starts[0]
            body = msgspec.json.encode(replace(WANTED, site=77, starts=starts))
            requests = (
                client.post("/bookings", content=body, headers={"idempotency-key": f"rival {number}"})
                for number in range(rivals)
            )
            return [response.status_code for response in await asyncio.gather(*requests)], starts

    statuses, _ = asyncio.run(rush())

    assert sorted(statuses) == [201] + [409] * (rivals - 1)


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({}, msgspec.json.encode(WANTED), 400),
        ({"idempotency-key": "k" * 65}, msgspec.json.encode(WANTED), 400),
        ({"idempotency-key": "k"}, b"{}", 400),
        ({"idempotency-key": "k"}, b"no json", 400),
        ({"idempotency-key": "k"}, msgspec.json.encode(replace(WANTED, site=999_999)), 404),
    ],
)
def test_a_malformed_booking_is_refused(
    finder: dev.Finder, headers: dict[str, str], body: bytes, status: int
) -> None:
    if status == 404:
        body = body.replace(b"2026-11-23", str(date.today() + timedelta(days=1)).encode())

    response = httpx2.post(f"{finder.url('slots')}/bookings", content=body, headers=headers, trust_env=False)

    assert response.status_code == status
    assert "reason" in response.json()

"""Who has booked which slot.

A slot is never sold twice: that is no decision of this program but a unique index of the database, over the
bookings that are not cancelled. A booking is named by the idempotency key it was asked for with, so a
caller that never saw our answer asks again with the same key and gets the same booking, also after a
restart in between.

A connection serves one thread at a time; readers open their own (write-ahead logging lets them).
"""

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Self

from vaccine_finder.slots.calendar import slots_of
from vaccine_finder.wire.messages import Booking, FreeTimes, Wanted

_SCHEMA = """
CREATE TABLE IF NOT EXISTS slot (
    site INTEGER NOT NULL, starts TEXT NOT NULL, PRIMARY KEY (site, starts)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS day (day TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS booking (
    key TEXT PRIMARY KEY,
    family TEXT NOT NULL, person TEXT NOT NULL, vaccine TEXT NOT NULL,
    site INTEGER NOT NULL, starts TEXT NOT NULL,
    cancelled INTEGER NOT NULL,
    FOREIGN KEY (site, starts) REFERENCES slot
) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS a_slot_is_sold_once ON booking (site, starts) WHERE NOT cancelled;
CREATE INDEX IF NOT EXISTS booking_of_family ON booking (family, starts);
"""

_FREE = """
SELECT starts FROM slot
WHERE site = ? AND starts > ?
  AND NOT EXISTS (
    SELECT 1 FROM booking WHERE booking.site = slot.site AND booking.starts = slot.starts AND NOT cancelled
  )
ORDER BY starts LIMIT ?
"""

# More than a family can mean to keep.
MOST_BOOKINGS = 100

# Longer than the longest transaction, which adds two weeks of slots at first start.
_BUSY_TIMEOUT_S = 10


class NotBookedError(Exception):
    """The booking was refused for good; `reason` is what a program can act on."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Ledger:
    """One connection to the database of slots and bookings."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(
            path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        # FULL: a booking that was answered survives a power cut. The cache holds the whole table of slots.
        self._database.executescript(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;"
            "PRAGMA cache_size = -32768;" + _SCHEMA
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def add_days(self, *, seed: int, sites: int, first: date, days: int) -> int:
        """Add the slots of those days that are not there yet; return how many slots were added."""
        wanted = [first + timedelta(days=number) for number in range(days)]
        with _Transaction(self._database):
            known = {row[0] for row in self._database.execute("SELECT day FROM day")}
            new = [day for day in wanted if day.isoformat() not in known]
            # In the order of the primary key, which is what makes this fast.
            before = self._database.total_changes
            self._database.executemany(
                "INSERT INTO slot VALUES (?, ?)",
                (
                    (site, _text(starts))
                    for site in range(1, sites + 1)
                    for day in new
                    for starts in slots_of(seed, site, day)
                ),
            )
            added = self._database.total_changes - before
            self._database.executemany("INSERT INTO day VALUES (?)", ((day.isoformat(),) for day in new))
        return added

    def free(self, sites: Iterable[int], *, after: datetime, limit: int) -> Sequence[FreeTimes]:
        """Return the next free slots of each site, at most `limit` of each."""
        answers = []
        for site in sites:
            rows = self._database.execute(_FREE, (site, _text(after), limit))
            answers.append(FreeTimes(site, tuple(datetime.fromisoformat(row[0]) for row in rows)))
        return answers

    def book(self, wanted: Wanted, *, key: str, now: datetime) -> Booking:
        """Sell a slot, or return what was sold under this key before; raises NotBookedError."""
        with _Transaction(self._database):
            if earlier := self._find(key):
                if _sold(wanted, key, cancelled=earlier.cancelled) != earlier:
                    raise NotBookedError("key_was_used_for_another_booking")
                return earlier
            if wanted.starts <= now:
                raise NotBookedError("in_the_past")
            if not self._exists(wanted):
                raise NotBookedError("no_such_slot")
            try:
                self._database.execute(
                    "INSERT INTO booking VALUES (?, ?, ?, ?, ?, ?, FALSE)",
                    (key, wanted.family, wanted.person, wanted.vaccine, wanted.site, _text(wanted.starts)),
                )
            except sqlite3.IntegrityError as error:
                raise NotBookedError("taken") from error
        return _sold(wanted, key, cancelled=False)

    def cancel(self, key: str, *, family: str) -> Booking | None:
        """Give a slot back; cancelling again changes nothing. None if this family has no such booking."""
        self._database.execute(
            "UPDATE booking SET cancelled = TRUE WHERE key = ? AND family = ?", (key, family)
        )
        booking = self._find(key)
        return booking if booking and booking.family == family else None

    def of_family(self, family: str, *, after: datetime) -> Sequence[Booking]:
        """Return what a family has booked and not cancelled, earliest appointment first."""
        rows = self._database.execute(
            "SELECT * FROM booking WHERE family = ? AND starts > ? AND NOT cancelled ORDER BY starts LIMIT ?",
            (family, _text(after), MOST_BOOKINGS),
        )
        return [_booking(row) for row in rows]

    def _find(self, key: str) -> Booking | None:
        with closing(self._database.execute("SELECT * FROM booking WHERE key = ?", (key,))) as rows:
            row = rows.fetchone()
        return None if row is None else _booking(row)

    def _exists(self, wanted: Wanted) -> bool:
        found = self._database.execute(
            "SELECT 1 FROM slot WHERE site = ? AND starts = ?", (wanted.site, _text(wanted.starts))
        )
        return found.fetchone() is not None


class _Transaction:
    """Holds the write lock from its start, so that what was read inside is still true at its end."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def __enter__(self) -> None:
        self._database.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._database.execute("COMMIT" if kind is None else "ROLLBACK")


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="minutes")


def _sold(wanted: Wanted, key: str, *, cancelled: bool) -> Booking:
    return Booking(
        key, wanted.family, wanted.person, wanted.vaccine, wanted.site, wanted.starts, cancelled=cancelled
    )


def _booking(row: tuple[str, str, str, str, int, str, int]) -> Booking:
    key, family, person, vaccine, site, starts, cancelled = row
    return Booking(key, family, person, vaccine, site, datetime.fromisoformat(starts), bool(cancelled))

"""What one visitor does: sign in, search for somebody of the family, look around, book, and mostly cancel
again.

Most bookings are cancelled, so that a generator which runs for days does not sell out. That a time was
taken in the meantime, or that there is nothing to book, is an outcome like any other and no failure.
"""

import enum
import random

from vaccine_finder.visitors.browser import Browser, FailedError, Page

FIRST_FAMILY = 100_001

_CANCELS = 0.9
_LOOKS_AT_ANOTHER_VACCINE = 0.4
_LOOKS_AT_ALL_TIMES = 0.3
_ONLY_LOOKS = 0.3


class Outcome(enum.StrEnum):
    """How a journey ended."""

    LOOKED = "looked"
    NOTHING_FREE = "nothing_free"
    TAKEN = "taken"
    BOOKED = "booked"
    CANCELLED = "cancelled"


async def travel(browser: Browser, chance: random.Random, families: int) -> Outcome:
    """Make one journey; raises FailedError."""
    sign_in = (await browser.get("/")).form("/sign-in")
    home = _ok(await browser.submit(sign_in, number=str(FIRST_FAMILY + chance.randrange(families))))
    results = _ok(await browser.get(chance.choice(home.links_to("/?age="))))
    vaccines = [link for link in results.links_to("/?age=") if "vaccine=" in link]
    if vaccines and chance.random() < _LOOKS_AT_ANOTHER_VACCINE:
        results = _ok(await browser.get(chance.choice(vaccines)))
    all_times = results.links_to("/times?")
    if all_times and chance.random() < _LOOKS_AT_ALL_TIMES:
        results = _ok(await browser.get(chance.choice(all_times)))
    slots = results.links_to("/book?")
    if not slots:
        return Outcome.NOTHING_FREE
    if chance.random() < _ONLY_LOOKS:
        return Outcome.LOOKED
    confirm = _ok(await browser.get(chance.choice(slots)))
    booked = await browser.submit(confirm.form("/bookings"))
    if booked.status == 409:
        return Outcome.TAKEN
    cancels = [form for form in _ok(booked).forms if form.action.endswith("/cancel")]
    if not cancels:
        raise FailedError("a booking is missing")
    if chance.random() >= _CANCELS:
        return Outcome.BOOKED
    _ok(await browser.submit(chance.choice(cancels)))
    return Outcome.CANCELLED


def _ok(page: Page) -> Page:
    if page.status != 200:
        raise FailedError(f"{page.status} on {page.path}")
    return page

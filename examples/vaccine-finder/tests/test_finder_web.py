import asyncio
import random
import re
from collections.abc import Awaitable, Callable
from datetime import date
from typing import TypeVar

import httpx2
import pytest

from vaccine_finder import dev
from vaccine_finder.visitors.browser import Browser, Form, Page
from vaccine_finder.web import session
from vaccine_finder.web.html import element
from vaccine_finder.web.service import _is_ours
from vaccine_finder.web.stated import Stated, StatementError, age_on

Result = TypeVar("Result")

SEARCH = "/?age=34&occupation=healthcare&condition=asthma&place=Boston, MA"


def visit(finder: dev.Finder, act: Callable[[Browser], Awaitable[Result]]) -> Result:
    async def go() -> Result:
        async with httpx2.AsyncClient(base_url=finder.url("web"), timeout=40, trust_env=False) as client:
            return await act(Browser(client, measured=lambda _: None))

    return asyncio.run(go())


async def signed_in(browser: Browser, number: str) -> Page:
    return await browser.submit((await browser.get("/sign-in")).form("/sign-in"), number=number)


async def booking_form(browser: Browser, chance: random.Random) -> Form:
    slots = (await browser.get(SEARCH)).links_to("/book?")
    confirm = await browser.get(chance.choice(slots))
    return confirm.form("/bookings")


def cancellations(page: Page) -> list[Form]:
    return [form for form in page.forms if form.action.endswith("/cancel")]


def test_a_person_searches_books_sees_and_cancels(finder: dev.Finder) -> None:
    async def act(browser: Browser) -> tuple[Page, Page, Page]:
        home = await signed_in(browser, "100002")
        results = await browser.get(home.links_to("/?age=")[0])
        confirm = await browser.get(results.links_to("/book?")[0])
        booked = await browser.submit(confirm.form("/bookings"))
        seen = await browser.get("/bookings")
        gone = await browser.submit(cancellations(seen)[0])
        return booked, seen, gone

    booked, seen, gone = visit(finder, act)

    assert [page.path for page in (booked, seen, gone)] == ["/bookings"] * 3
    assert [len(cancellations(page)) for page in (booked, seen, gone)] == [1, 1, 0]


def test_sites_are_shown_nearest_first_with_free_times(finder: dev.Finder) -> None:
    text = httpx2.get(finder.url("web") + SEARCH, trust_env=False).text

    miles = [float(found) for found in re.findall(r'class="distance">([\d.]+) mi', text)]
    assert len(miles) == 12
    assert miles == sorted(miles)
    assert "You can have 6 vaccines" in text


def test_sending_a_booking_twice_books_once(finder: dev.Finder) -> None:
    async def act(browser: Browser) -> int:
        await signed_in(browser, "100003")
        form = await booking_form(browser, random.Random(3))
        pages = await asyncio.gather(*(browser.submit(form, person="100003-1") for _ in range(5)))
        assert {page.status for page in pages} == {200}
        return len(cancellations(await browser.get("/bookings")))

    assert visit(finder, act) == 1


def test_a_slot_that_somebody_else_took_is_refused_kindly(finder: dev.Finder) -> None:
    async def act(browser: Browser) -> tuple[Page, Page]:
        await signed_in(browser, "100004")
        form = await booking_form(browser, random.Random(4))
        first = await browser.submit(form, person="100004-1")
        return first, await browser.submit(form, person="100004-1", key="another")

    first, second = visit(finder, act)

    assert (first.status, second.status) == (200, 409)


def test_bookings_bridge_a_restart_of_slots(finder: dev.Finder) -> None:
    async def act(browser: Browser) -> tuple[list[int], int]:
        await signed_in(browser, "100005")
        form = await booking_form(browser, random.Random(5))
        finder.stop("slots")
        booking = asyncio.create_task(browser.submit(form, person="100005-1"))
        await asyncio.to_thread(finder.start, "slots")
        return [(await booking).status], len(cancellations(await browser.get("/bookings")))

    assert visit(finder, act) == ([200], 1)


def test_a_crash_of_slots_while_it_books_neither_loses_nor_doubles_a_booking(finder: dev.Finder) -> None:
    async def act(browser: Browser) -> tuple[list[int], int]:
        await signed_in(browser, "100006")
        slots = (await browser.get(SEARCH)).links_to("/book?")[:20]
        forms = [(await browser.get(slot)).form("/bookings") for slot in slots]
        tasks = [asyncio.create_task(browser.submit(form, person="100006-1")) for form in forms]
        await tasks[0]
        finder.processes.pop("slots").kill()
        await asyncio.to_thread(finder.start, "slots")
        pages = await asyncio.gather(*tasks)
        return [page.status for page in pages], len(cancellations(await browser.get("/bookings")))

    assert visit(finder, act) == ([200] * 20, 20)


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("/?age=-1&occupation=office&place=Boston, MA", 400),
        ("/?age=130&occupation=office&place=Boston, MA", 400),
        ("/?age=30&occupation=pirate&place=Boston, MA", 400),
        ("/?age=30&occupation=office&place=Atlantis", 400),
        ("/times?age=30&site=x", 400),
        ("/times?age=30&site=999999", 404),
        ("/nowhere", 404),
        ("/bookings", 303),
        ("/healthz", 200),
    ],
)
def test_an_address_that_makes_no_sense_is_answered_as_such(
    finder: dev.Finder, address: str, status: int
) -> None:
    assert httpx2.get(finder.url("web") + address, trust_env=False).status_code == status


def test_nobody_books_a_vaccine_they_are_not_eligible_for(finder: dev.Finder) -> None:
    async def act(browser: Browser) -> Page:
        await signed_in(browser, "100007")
        form = await booking_form(browser, random.Random(7))
        return await browser.submit(form, person="100007-1", vaccine="rsv")

    assert visit(finder, act).status == 400


def test_an_unknown_member_number_signs_nobody_in(finder: dev.Finder) -> None:
    assert visit(finder, lambda browser: signed_in(browser, "999999")).status == 400


def test_nobody_books_for_another_family(finder: dev.Finder) -> None:
    async def act(browser: Browser) -> Page:
        await signed_in(browser, "100008")
        return await browser.submit(await booking_form(browser, random.Random(8)), person="100009-1")

    assert visit(finder, act).status == 400


def test_visitors_come_at_the_rate_they_are_told_and_fail_never(finder: dev.Finder) -> None:
    visitors = finder.url("visitors")
    httpx2.put(f"{visitors}/rate?per_second=50", trust_env=False).raise_for_status()

    with httpx2.Client(base_url=visitors, trust_env=False) as client:
        while sum(client.get("/").json()["outcomes"].values()) < 20:
            pass
        client.put("/rate?per_second=0").raise_for_status()
        while (report := client.get("/").json())["under_way"]:
            pass

    assert report["rate"] == 0
    assert report["failures"] == {}
    assert report["requests"] > 80


def test_a_slow_replica_says_so_and_still_answers_probes(finder: dev.Finder) -> None:
    with httpx2.Client(base_url=finder.url("sites"), trust_env=False) as client:
        assert client.post("/admin/slow?ms=300").json()["slow_ms"] == 300
        slow = client.get("/places").elapsed.total_seconds()
        probe = client.get("/healthz").elapsed.total_seconds()
        client.post("/admin/slow?ms=0")

    assert probe < 0.3 <= slow


def test_text_is_escaped_in_elements_and_attributes() -> None:
    assert element("p", "<b>", title='"') == '<p title="&quot;">&lt;b&gt;</p>'


def test_a_cookie_that_we_did_not_sign_signs_nobody_in() -> None:
    cookie = session.sign("100001", "key")

    assert session.verify(cookie, "key") == "100001"
    assert session.verify(cookie.replace("100001", "100002"), "key") is None
    assert session.verify(cookie, "other key") is None
    assert session.verify("", "key") is None
    assert session.verify("100001.ü", "key") is None


@pytest.mark.parametrize(
    ("address", "ours"), [("/book?site=1", True), ("//evil", False), ("/\\evil", False), ("", False)]
)
def test_signing_in_never_leads_to_another_site(address: str, ours: bool) -> None:
    assert _is_ours(address) is ours


def test_a_search_is_read_back_from_its_own_query() -> None:
    stated = Stated(34, "office", ("asthma", "heart"), "Boston, MA", "100001-2", "flu")
    form: dict[str, list[str]] = {}
    for name, value in stated.fields():
        form.setdefault(name, []).append(value)

    assert Stated.read(form) == stated
    with pytest.raises(StatementError):
        Stated.read({"age": ["old"]})


def test_an_age_changes_on_the_birthday() -> None:
    assert age_on(date(2026, 11, 22), date(2000, 11, 23)) == 25
    assert age_on(date(2026, 11, 23), date(2000, 11, 23)) == 26

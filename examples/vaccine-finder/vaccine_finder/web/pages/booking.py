"""Booking a slot, and what a family has booked."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from urllib.parse import quote

from vaccine_finder.web.html import Html, element
from vaccine_finder.web.model import News, Offer, Visit
from vaccine_finder.web.pages.layout import alert, button, card, clock, day_name, layout
from vaccine_finder.web.pages.search import search_address
from vaccine_finder.wire.eligibility_pb2 import CatalogueReply
from vaccine_finder.wire.messages import Booking, Site


def confirm(visit: Visit, offer: Offer, *, key: str, problem: str | None = None) -> Html:
    """Return the last page before a booking; `key` makes that booking one, however often it is asked for."""
    stated = offer.stated
    hidden = [(name, value) for name, value in stated.fields() if name != "person"]
    hidden += [("key", key), ("site", str(offer.site.id)), ("starts", offer.starts.isoformat())]
    people = [
        element("option", person.name, value=person.id, selected=person.id == stated.person)
        for person in visit.people.values()
    ]
    form = element(
        "form",
        [element("input", type="hidden", name=name, value=value) for name, value in hidden],
        element("label", "Who is it for?", for_="person"),
        element("select", people, id="person", name="person", required=True),
        element("button", "Book this appointment", type="submit", class_="primary"),
        method="post",
        action="/bookings",
        data_once=True,
    )
    return layout(
        "Confirm",
        visit,
        card(
            element("a", "← Other times", href=search_address(stated), class_="back"),
            element("h1", "Almost done"),
            alert(problem),
            _appointment(visit, offer.vaccine.title, offer.site, offer.starts),
            element("p", offer.vaccine.because, ". ", offer.vaccine.doses, ".", class_="quiet"),
            form,
        ),
    )


def refused(visit: Visit, offer: Offer, why: str) -> Html:
    """Return what to do when a slot could not be booked."""
    again = button("See other times", search_address(offer.stated))
    return layout("Not booked", visit, card(element("h1", "Not booked"), alert(why), again))


def bookings(
    visit: Visit, booked: Sequence[Booking], sites: Mapping[int, Site], catalogue: CatalogueReply, news: News
) -> Html:
    """Return what a family has booked."""
    titles = {vaccine.code: vaccine.title for vaccine in catalogue.vaccines}
    notice = None
    if any(booking.key == news.booked for booking in booked):
        notice = "Booked. We look forward to seeing you."
    elif news.cancelled:
        notice = "Cancelled. The time is free for somebody else."
    cards = [_booking_card(visit, booking, sites, titles, news) for booking in booked]
    nothing = element(
        "div", element("p", "Nothing booked yet."), button("Find a vaccine", "/"), class_="card empty"
    )
    return layout(
        "Bookings",
        visit,
        element(
            "div",
            element("h1", "Your family's bookings"),
            element("p", notice, class_="notice", role="status") if notice else None,
            element("ul", cards, class_="bookings") if cards else nothing,
            class_="medium",
        ),
        current="/bookings",
    )


def _booking_card(
    visit: Visit, booking: Booking, sites: Mapping[int, Site], titles: Mapping[str, str], news: News
) -> Html:
    person = visit.people.get(booking.person)
    cancel = element(
        "form",
        element("button", "Cancel", element("span", " this appointment", class_="sr"), type="submit"),
        method="post",
        action=f"/bookings/{quote(booking.key)}/cancel",
        data_once=True,
        data_ask="Cancel this appointment?",
    )
    title = titles.get(booking.vaccine, booking.vaccine)
    return element(
        "li",
        element("div", element("h2", person.name if person else booking.person), cancel, class_="spread"),
        _appointment(visit, title, sites.get(booking.site), booking.starts),
        class_="card booking fresh" if booking.key == news.booked else "card booking",
    )


def _appointment(visit: Visit, vaccine: str, site: Site | None, starts: datetime) -> Html:
    when = f"{day_name(starts.date(), visit.today)}, {clock(starts)}"
    address = element("span", site.address if site else "", class_="quiet")
    return element(
        "dl",
        element("dt", "Vaccine"),
        element("dd", vaccine),
        element("dt", "When"),
        element("dd", element("time", when, datetime=starts.isoformat(timespec="minutes"))),
        element("dt", "Where"),
        element("dd", site.name if site else "—", element("br"), address),
        class_="appointment",
    )

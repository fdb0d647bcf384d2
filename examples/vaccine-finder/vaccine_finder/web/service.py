"""The website: which page answers which address.

A search and everything up to the booking are addresses that can be kept and shared. Only a booking, a
cancellation and signing in or out change something, so only they are POST; each answers with a redirect,
and a booking's form carries the idempotency key it will be asked for with, so sending the form twice books
once. The cookie is SameSite=Lax: another site's form cannot act for whoever is signed in here.
"""

import asyncio
import logging
import secrets
from datetime import date, datetime
from pathlib import Path
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from vaccine_finder.json_http import healthz
from vaccine_finder.web import session
from vaccine_finder.web.backends import Backends, NotFoundError, RefusedError, UnavailableError
from vaccine_finder.web.html import Html
from vaccine_finder.web.model import Choice, Form, News, Offer, Results, Visit
from vaccine_finder.web.pages import account, booking, search
from vaccine_finder.web.pages.layout import message
from vaccine_finder.web.stated import Stated, StatementError
from vaccine_finder.wire.messages import Site, Wanted

# Sites that are asked for, and of those that have free slots how many are shown.
ASKED_SITES = 24
SHOWN_SITES = 12
SHOWN_TIMES = 4
ALL_TIMES = 500

LARGEST_FORM = 16 * 1024
LONGEST_NUMBER = 9

_HEADERS = {
    "content-security-policy": "default-src 'self'; frame-ancestors 'none'; form-action 'self'",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}

_WHY_NOT = {
    "taken": "Somebody else has just taken this time. Please choose another one.",
    "in_the_past": "This time has passed. Please choose another one.",
    "no_such_slot": "There is no such time any more. Please choose another one.",
    "key_was_used_for_another_booking": "This page has booked something else. Please choose the time again.",
}

log = logging.getLogger(__name__)


class Website:
    """The handlers; all state is in the services behind them and in the cookie."""

    def __init__(self, backends: Backends, session_key: str) -> None:
        self._backends = backends
        self._session_key = session_key

    def app(self) -> Starlette:
        """Return the application."""
        return Starlette(
            routes=[
                Route("/healthz", healthz),
                Mount("/static", StaticFiles(directory=Path(__file__).with_name("static"))),
                Route("/", self.find),
                Route("/times", self.times),
                Route("/book", self.confirm),
                Route("/bookings", self.bookings),
                Route("/bookings", self.book, methods=["POST"]),
                Route("/bookings/{key}/cancel", self.cancel, methods=["POST"]),
                Route("/sign-in", self.sign_in_form),
                Route("/sign-in", self.sign_in, methods=["POST"]),
                Route("/sign-out", self.sign_out, methods=["POST"]),
            ],
            exception_handlers={
                UnavailableError: self.unavailable,
                NotFoundError: self.not_found,
                StatementError: self.misstated,
                404: self.not_found,
            },
        )

    async def find(self, request: Request) -> Response:
        """Show the search form, and what was found if the address is a search."""
        form = _query(request)
        visit, catalogue, places = await asyncio.gather(
            self._visit(request), self._backends.catalogue(), self._backends.places()
        )
        choice = Choice(catalogue, [place.name for place in places])
        if "age" not in form:
            return _page(search.start(visit, choice))
        try:
            stated = Stated.read(form)
            results = await self._search(stated)
        except (StatementError, NotFoundError) as error:
            return _page(search.problem(visit, choice, form, str(error)), 400)
        return _page(search.found(visit, choice, form, results))

    async def times(self, request: Request) -> Response:
        """Show all free times of one site."""
        form = _query(request)
        stated, number = Stated.read(form), _number(form, "site")
        visit, site, free = await asyncio.gather(
            self._visit(request), self._site(number), self._backends.free([number], ALL_TIMES)
        )
        return _page(search.times(visit, stated, site, free[0].starts))

    async def confirm(self, request: Request) -> Response:
        """Show what is about to be booked, and for whom."""
        form = _query(request)
        visit = await self._visit(request)
        if visit.family is None:
            return _redirect(account.sign_in_address(f"{request.url.path}?{request.url.query}"))
        offer = await self._offer(form)
        return _page(booking.confirm(visit, offer, key=secrets.token_hex(16)))

    async def book(self, request: Request) -> Response:
        """Book, and show the family's bookings."""
        form = await _form(request)
        visit = await self._visit(request)
        if visit.family is None:
            return _redirect("/sign-in")
        offer, key = await self._offer(form), _one(form, "key")
        stated = offer.stated
        if stated.person not in visit.people:
            return _page(
                booking.confirm(visit, offer, key=key, problem="Please choose who this is for."), 400
            )
        wanted = Wanted(visit.family.number, stated.person, stated.vaccine, offer.site.id, offer.starts)
        try:
            sold = await self._backends.book(wanted, key)
        except RefusedError as error:
            return _page(booking.refused(visit, offer, _WHY_NOT[error.reason]), 409)
        except UnavailableError as error:
            # With the same key: whether or not it was booked, trying again books it once.
            log.warning("no answer from %s, offering to try again", error)
            problem = "The booking system does not answer. Nothing is lost: please try again in a moment."
            return _page(booking.confirm(visit, offer, key=key, problem=problem), 503)
        log.info("booked site=%d starts=%s", sold.site, sold.starts)
        return _redirect(f"/bookings?booked={sold.key}")

    async def bookings(self, request: Request) -> Response:
        """Show what the family has booked."""
        visit = await self._visit(request)
        if visit.family is None:
            return _redirect(account.sign_in_address("/bookings"))
        booked, catalogue = await asyncio.gather(
            self._backends.bookings(visit.family.number), self._backends.catalogue()
        )
        sites = await self._backends.some_sites({one.site for one in booked})
        form = _query(request)
        news = News(booked=_one(form, "booked"), cancelled="cancelled" in form)
        return _page(booking.bookings(visit, booked, sites, catalogue, news))

    async def cancel(self, request: Request) -> Response:
        """Give a slot back."""
        visit = await self._visit(request)
        if visit.family is None:
            return _redirect("/sign-in")
        await self._backends.cancel(visit.family.number, request.path_params["key"])
        return _redirect("/bookings?cancelled")

    async def sign_in_form(self, request: Request) -> Response:
        """Ask for the member number."""
        return _page(account.sign_in(date.today(), _one(_query(request), "then")))

    async def sign_in(self, request: Request) -> Response:
        """Sign a family in."""
        form = await _form(request)
        number, then = _one(form, "number").strip(), _one(form, "then")
        try:
            await self._backends.family(number)
        except NotFoundError:
            return _page(
                account.sign_in(date.today(), then, problem=f"We know no family with the number “{number}”."),
                400,
            )
        response = _redirect(then if _is_ours(then) else "/")
        response.set_cookie(
            session.COOKIE, session.sign(number, self._session_key), httponly=True, samesite="lax"
        )
        return response

    async def sign_out(self, request: Request) -> Response:
        """Forget who was signed in."""
        response = _redirect("/")
        response.delete_cookie(session.COOKIE)
        return response

    async def unavailable(self, request: Request, error: Exception) -> Response:
        """Answer when a service that the page needs gave no answer."""
        log.warning("%s %s: no answer from %s", request.method, request.url.path, error)
        return _page(message("One moment, please", "A part of this page does not answer right now."), 503)

    async def not_found(self, request: Request, error: Exception) -> Response:
        """Answer for what does not exist."""
        return _page(message("Not found", "There is no such page, or it has gone."), 404)

    async def misstated(self, request: Request, error: Exception) -> Response:
        """Answer for an address that somebody has changed by hand."""
        return _page(message("That did not work", str(error)), 400)

    async def _visit(self, request: Request) -> Visit:
        today = date.today()
        number = session.verify(request.cookies.get(session.COOKIE, ""), self._session_key)
        if number is None:
            return Visit(today)
        try:
            return Visit(today, await self._backends.family(number))
        except NotFoundError:
            return Visit(today)

    async def _search(self, stated: Stated) -> Results:
        eligible = await self._backends.eligible(stated)
        if not eligible:
            return Results(stated, eligible, None, [])
        chosen = next((vaccine for vaccine in eligible if vaccine.code == stated.vaccine), eligible[0])
        found = await self._backends.near(stated.place, chosen.code, ASKED_SITES)
        free = await self._backends.free([hit.site.id for hit in found], SHOWN_TIMES) if found else []
        starts = {times.site: times.starts for times in free}
        with_times = [(hit, starts[hit.site.id]) for hit in found if starts[hit.site.id]]
        return Results(stated, eligible, chosen, with_times[:SHOWN_SITES])

    async def _offer(self, form: Form) -> Offer:
        """Return what a booking form asks for, if the person it describes is eligible for it."""
        stated, number = Stated.read(form), _number(form, "site")
        try:
            starts = datetime.fromisoformat(_one(form, "starts"))
        except ValueError:
            raise StatementError("This is not a time.") from None
        eligible, site = await asyncio.gather(self._backends.eligible(stated), self._site(number))
        vaccine = next((vaccine for vaccine in eligible if vaccine.code == stated.vaccine), None)
        if vaccine is None or vaccine.code not in site.vaccines:
            raise StatementError("By what you told us, this vaccine is not one that can be booked here.")
        return Offer(stated, vaccine, site, starts)

    async def _site(self, number: int) -> Site:
        sites = await self._backends.some_sites([number])
        if number not in sites:
            raise NotFoundError(f"site {number}")
        return sites[number]


def _page(page: Html, status: int = 200) -> HTMLResponse:
    return HTMLResponse(page, status, headers=_HEADERS)


def _redirect(address: str) -> RedirectResponse:
    return RedirectResponse(address, 303)


def _is_ours(address: str) -> bool:
    """Whether an address stays on this website, as `//elsewhere` and `/\\elsewhere` would not."""
    return address.startswith("/") and not address.startswith(("//", "/\\"))


def _query(request: Request) -> Form:
    return parse_qs(request.url.query, keep_blank_values=True)


async def _form(request: Request) -> Form:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_FORM:
            raise StatementError("The form is too large.")
    return parse_qs(body.decode(errors="replace"), keep_blank_values=True)


def _one(form: Form, name: str) -> str:
    return form.get(name, [""])[0]


def _number(form: Form, name: str) -> int:
    value = _one(form, name)
    if not value.isdecimal() or len(value) > LONGEST_NUMBER:
        raise StatementError(f"“{value}” is no {name}.")
    return int(value)

"""What all pages share: the frame, and the words for times."""

from datetime import date, datetime, timedelta

from vaccine_finder.web.html import Child, Html, element
from vaccine_finder.web.model import Visit


def layout(title: str, visit: Visit | None, *body: Child, current: str = "") -> Html:
    """Return a whole page; without a visit it has no navigation."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{title} · Vaccine finder"),
        element("link", rel="icon", href="/static/icon.svg"),
        element("link", rel="stylesheet", href="/static/page.css"),
        element("script", src="/static/page.js", defer=True),
    )
    icon = element("img", src="/static/icon.svg", alt="", width=32, height=32)
    header = element(
        "header",
        element(
            "div",
            element("a", icon, "Vaccine finder", href="/", class_="brand"),
            _navigation(visit, current) if visit else None,
            class_="wide",
        ),
    )
    notice = "A demonstration. The people, places and rules are made up: no medical advice."
    page = element(
        "body",
        element("a", "Skip to the content", href="#content", class_="skip"),
        header,
        element("main", *body, id="content", class_="wide"),
        element("footer", element("p", notice, class_="wide")),
    )
    return Html(f"<!doctype html>{element('html', head, page, lang='en')}")


def card(*body: Child) -> Html:
    """Return the one card of a page that has only one."""
    return element("div", *body, class_="card narrow")


def alert(text: str | None) -> Html | None:
    """Return a problem, if there is one, so that it is also read out."""
    return element("p", text, class_="alert", role="alert") if text else None


def button(text: str, address: str) -> Html:
    """Return a link that looks like a button."""
    return element("a", text, href=address, class_="button primary")


def message(title: str, text: str) -> Html:
    """Return a page that says what went wrong."""
    return layout(
        title, None, card(element("h1", title), element("p", text), button("Back to the start", "/"))
    )


def day_name(day: date, today: date) -> str:
    """Return a day as people say it: Today, Tomorrow, or Tuesday, November 24."""
    near = {today: "Today", today + timedelta(days=1): "Tomorrow"}
    return near.get(day, f"{day:%A}, {day:%B} {day.day}")


def clock(moment: datetime) -> str:
    """Return a time such as 2:30 PM."""
    return f"{moment.hour % 12 or 12}:{moment:%M} {'AM' if moment.hour < 12 else 'PM'}"


def _navigation(visit: Visit, current: str) -> Html:
    def link(text: str, address: str) -> Html:
        return element("a", text, href=address, aria_current="page" if address == current else None)

    if visit.family is None:
        return element("nav", link("Find", "/"), link("Sign in", "/sign-in"), aria_label="Main")
    sign_out = element(
        "form", element("button", "Sign out", type="submit"), method="post", action="/sign-out"
    )
    return element("nav", link("Find", "/"), link("Bookings", "/bookings"), sign_out, aria_label="Main")

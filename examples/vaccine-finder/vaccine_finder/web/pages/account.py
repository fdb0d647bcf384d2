"""Signing in."""

from datetime import date
from urllib.parse import urlencode

from vaccine_finder.web.html import Html, element
from vaccine_finder.web.model import Visit
from vaccine_finder.web.pages.layout import alert, card, layout


def sign_in_address(then: str) -> str:
    """Return the address that signs in and then goes on."""
    return f"/sign-in?{urlencode({'then': then})}"


def sign_in(today: date, then: str, *, problem: str | None = None) -> Html:
    """Return the page that asks for the member number."""
    body = card(element("h1", "Sign in"), alert(problem), sign_in_form(then))
    return layout("Sign in", Visit(today), body, current="/sign-in")


def sign_in_form(then: str) -> Html:
    """Return the form that asks for the member number."""
    number = element(
        "input",
        id="number",
        name="number",
        required=True,
        inputmode="numeric",
        autocomplete="username",
        aria_describedby="number-hint",
    )
    return element(
        "form",
        element("input", type="hidden", name="then", value=then),
        element("label", "Member number", for_="number"),
        element("div", number, element("button", "Sign in", type="submit", class_="primary"), class_="row"),
        element(
            "p", "For this demonstration any number from 100001 to 102000.", id="number-hint", class_="quiet"
        ),
        method="post",
        action="/sign-in",
    )

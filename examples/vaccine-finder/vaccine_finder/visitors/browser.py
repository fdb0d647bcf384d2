"""As much of a browser as a load generator needs: cookies, redirects, links and forms.

All visitors share one HTTP client and its connections; each has cookies of its own. Nothing is ever asked
twice: a failure is what this program is there to count.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from http.cookies import SimpleCookie
from urllib.parse import urlencode

import httpx2

MOST_REDIRECTS = 5


class FailedError(Exception):
    """A request that should have worked did not; `kind` is a status or the name of a broken connection."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Form:
    """A form as it would be sent if nobody touched it."""

    method: str
    action: str
    fields: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Page:
    """What an answer holds that a visitor can act on."""

    status: int
    path: str
    links: Sequence[str]
    forms: Sequence[Form]

    def links_to(self, start: str) -> Sequence[str]:
        """Return the links whose address starts so."""
        return [link for link in self.links if link.startswith(start)]

    def form(self, action: str) -> Form:
        """Return the form with this action; a page without it is a failure."""
        for form in self.forms:
            if form.action == action:
                return form
        raise FailedError(f"no form {action} on {self.path}")


class Browser:
    """One visitor's browser; `measured` is told of each answer's seconds."""

    def __init__(self, client: httpx2.AsyncClient, measured: Callable[[float], None]) -> None:
        self._client = client
        self._measured = measured
        self._cookies: dict[str, str] = {}

    async def get(self, address: str) -> Page:
        """Follow an address; raises FailedError for a broken connection and for a status from 500."""
        return await self._follow("GET", address, None)

    async def submit(self, form: Form, **changes: str) -> Page:
        """Send a form, some of its fields changed."""
        fields = [(name, changes.get(name, value)) for name, value in form.fields]
        fields += [(name, value) for name, value in changes.items() if name not in dict(form.fields)]
        if form.method == "get":
            return await self.get(f"{form.action}?{urlencode(fields)}")
        return await self._follow("POST", form.action, urlencode(fields))

    async def _follow(self, method: str, address: str, body: str | None) -> Page:
        for _ in range(MOST_REDIRECTS):
            response = await self._send(method, address, body)
            if not response.has_redirect_location:
                return _read(response)
            method, address, body = "GET", response.headers["location"], None
        raise FailedError("too many redirects")

    async def _send(self, method: str, address: str, body: str | None) -> httpx2.Response:
        headers = {"cookie": "; ".join(f"{name}={value}" for name, value in self._cookies.items())}
        if body is not None:
            headers["content-type"] = "application/x-www-form-urlencoded"
        started = time.monotonic()
        try:
            response = await self._client.request(method, address, content=body, headers=headers)
        except httpx2.TransportError as error:
            raise FailedError(type(error).__name__) from error
        finally:
            self._measured(time.monotonic() - started)
        if response.status_code >= 500:
            raise FailedError(str(response.status_code))
        for set_cookie in response.headers.get_list("set-cookie"):
            self._cookies |= {name: morsel.value for name, morsel in SimpleCookie(set_cookie).items()}
        return response


def _read(response: httpx2.Response) -> Page:
    reader = _Reader()
    reader.feed(response.text)
    return Page(response.status_code, response.url.path, reader.links, reader.forms)


class _Reader(HTMLParser):
    """Collects links and forms; of a form its inputs and the chosen options of its selects."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.forms: list[Form] = []
        self._select = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "a":
            self.links.append((given.get("href") or "").partition("#")[0])
        elif tag == "form":
            action = (given.get("action") or "").partition("#")[0]
            self.forms.append(Form(given.get("method") or "get", action))
        elif tag == "input" and (given.get("type") != "checkbox" or "checked" in given):
            self.forms[-1].fields.append((given.get("name") or "", given.get("value") or ""))
        elif tag == "select":
            self._select = given.get("name") or ""
        elif tag == "option" and "selected" in given and "disabled" not in given:
            self.forms[-1].fields.append((self._select, given.get("value") or ""))

"""A person books a vaccination in a browser: headless Chromium against the vaccine finder.

`finder_url` is the only thing the test knows of the application: VACCINE_FINDER_URL if it is set, else the
parts on loopback without a mesh. With SCREENSHOTS naming a folder, every page is kept there as a picture.
"""

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="playwright is missing: .venv/bin/uv sync --inexact --group browser"
)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
EXAMPLE = Path(__file__).parents[1] / "examples" / "vaccine-finder"

DESKTOP = {"width": 1280, "height": 860}
PHONE = {"width": 390, "height": 844}

# A family of the register, so that two sizes of screen do not book for the same people.
FAMILIES = {"desktop": "100010", "phone": "100011"}

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is missing: apt-get install chromium")


@pytest.fixture(scope="module")
def finder_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return where the page is."""
    if given := os.environ.get("VACCINE_FINDER_URL"):
        yield given
        return
    sys.path.insert(0, str(EXAMPLE))
    from vaccine_finder import dev

    with dev.running(tmp_path_factory.mktemp("slots")) as finder:
        yield finder.url("web")


@pytest.fixture(params=["desktop", "phone"])
def page(request: pytest.FixtureRequest, finder_url: str) -> Iterator["Page"]:
    """Return an empty page of a browser that fails the test if a page logs an error or looks outside."""
    phone = request.param == "phone"
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(
            base_url=finder_url,
            viewport=PHONE if phone else DESKTOP,
            has_touch=phone,
            color_scheme="dark" if os.environ.get("DARK") else "light",
        )
        page = context.new_page()
        complaints: list[str] = []
        page.on(
            "console", lambda message: complaints.append(message.text) if message.type == "error" else None
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda asked: complaints.extend(outside(asked.url, finder_url)))
        page.on("dialog", lambda dialog: dialog.accept())
        yield page
        browser.close()
    assert complaints == []


def test_a_person_books_a_slot_sees_it_and_cancels_it(page: "Page", request: pytest.FixtureRequest) -> None:
    size = request.node.callspec.params["page"]
    expect = sync_api.expect

    page.goto("/")
    see(page, f"{size}-1-welcome")
    page.get_by_label("Member number").fill(FAMILIES[size])
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Hello")
    see(page, f"{size}-2-family")
    page.get_by_role("main").get_by_role("listitem").get_by_role("link").first.click()
    expect(page.get_by_label("Place")).not_to_have_value("")

    page.get_by_label("Age").fill("52")
    page.get_by_label("Occupation").select_option("Health care")
    page.get_by_label("Place").select_option("Boston, MA")
    page.get_by_label("Asthma or lung disease").check()
    page.get_by_role("button", name="Find vaccines").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(re.compile(r"can have \d+ vaccines"))
    expect(page.get_by_label("Age")).to_have_value("52")
    page.get_by_role("link", name="Shingles").click()
    expect(page.get_by_role("heading", name="Shingles near Boston, MA")).to_be_visible()
    see(page, f"{size}-3-results")

    site = page.get_by_role("listitem").filter(has=page.get_by_role("heading", level=3)).first
    name = site.get_by_role("heading").inner_text()
    site.get_by_role("link", name="All times").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(name)
    see(page, f"{size}-4-times")
    page.get_by_role("main").get_by_role("listitem").get_by_role("link").nth(1).click()
    expect(page.get_by_role("definition").filter(has_text=name)).to_be_visible()
    see(page, f"{size}-5-confirm")
    page.get_by_role("button", name="Book this appointment").click()

    expect(page.get_by_role("status")).to_have_text("Booked. We look forward to seeing you.")
    booking = page.get_by_role("listitem").filter(has_text=name)
    expect(booking).to_contain_text("Shingles")
    see(page, f"{size}-6-booked")
    page.goto("/")
    page.get_by_role("link", name="Bookings").click()
    expect(booking).to_be_visible()

    booking.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("status")).to_contain_text("Cancelled")
    expect(booking).to_have_count(0)
    see(page, f"{size}-7-cancelled")


def test_the_page_can_be_used_by_keyboard_alone(page: "Page") -> None:
    page.goto("/?age=70&occupation=none&place=Boston, MA")

    page.keyboard.press("Tab")
    sync_api.expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.get_by_role("link", name="All times").first.focus()
    page.keyboard.press("Enter")

    sync_api.expect(page).to_have_url(re.compile("/times"))


def outside(asked: str, finder_url: str) -> list[str]:
    """Return the address that a page asked for if it is not on the website."""
    return [] if asked.startswith(finder_url) else [asked]


def see(page: "Page", name: str) -> None:
    """Check that nothing sticks out to the side, and keep a picture where one is wanted."""
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)

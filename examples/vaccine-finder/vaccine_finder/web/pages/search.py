"""The search and what it found.

Its links and its form lead to `#found`, so that on a phone, where the form fills the screen, one sees the
answer.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import groupby

from vaccine_finder.web.html import Html, element, fragment
from vaccine_finder.web.model import Choice, Form, Results, Visit
from vaccine_finder.web.pages.account import sign_in_form
from vaccine_finder.web.pages.layout import alert, card, clock, day_name, layout
from vaccine_finder.web.stated import OLDEST, Stated
from vaccine_finder.wire.members_pb2 import Person
from vaccine_finder.wire.messages import Found, Site


def start(visit: Visit, choice: Choice) -> Html:
    """Return the page that everybody comes to first."""
    if visit.family is None:
        title = "The vaccines you are covered for, near you"
        text = "See which ones you and your family are eligible for, and where the next appointment is free."
        aside = element(
            "div", element("h2", "Are you insured with us?"), sign_in_form(""), class_="card aside"
        )
    else:
        title = f"Hello, {_first_name(visit.family.people[0])}"
        text = "Who is it for? We start from what your insurance knows; put right what has changed."
        people = [_person_card(visit, person, choice) for person in visit.family.people]
        aside = element("ul", people, class_="family")
    hero = element("div", element("h1", title), element("p", text), class_="hero")
    panel = _panel(choice, {})
    if visit.family is None:
        return _columns(visit, panel, aside, hero=hero)
    return _columns(visit, aside, panel, hero=hero, kind="columns family-first")


def problem(visit: Visit, choice: Choice, form: Form, text: str) -> Html:
    """Return the form with what is wrong in it."""
    return _columns(visit, _panel(choice, form), alert(text))


def found(visit: Visit, choice: Choice, form: Form, results: Results) -> Html:
    """Return what a search found."""
    panel = _panel(choice, form, _chips(visit, results.stated))
    return _columns(visit, panel, element("div", _found(visit, results), id="found"))


def times(visit: Visit, stated: Stated, site: Site, starts: Sequence[datetime]) -> Html:
    """Return all free times of a site."""
    return layout(
        site.name,
        visit,
        card(
            element("a", "← All sites", href=search_address(stated), class_="back"),
            element("h1", site.name),
            element("p", site.address, class_="quiet"),
            _days(visit, stated, site, starts)
            if starts
            else element("p", "Everything is taken for two weeks."),
        ),
    )


def search_address(stated: Stated) -> str:
    """Return the address of a search."""
    return f"/?{stated.query()}#found"


def _columns(
    visit: Visit, left: Html, right: Html | None, *, hero: Html | None = None, kind: str = "columns"
) -> Html:
    columns = element("div", left, right, class_=kind)
    return layout("Find a vaccine", visit, hero, columns, current="/")


def _panel(choice: Choice, form: Form, chips: Html | None = None) -> Html:
    return element("section", chips, _search_form(choice, form), class_="card panel", aria_label="Search")


def _person_card(visit: Visit, person: Person, choice: Choice) -> Html:
    occupations = {term.code: term.title for term in choice.catalogue.occupations}
    conditions = {term.code: term.title for term in choice.catalogue.conditions}
    stated = visit.search_for(person)
    facts = [f"{stated.age} years", occupations.get(stated.occupation, stated.occupation)]
    facts += [conditions.get(code, code) for code in stated.conditions]
    link = element("a", person.name, href=search_address(stated))
    return element(
        "li", element("h2", link), element("p", " · ".join(facts), class_="quiet"), class_="card person"
    )


def _chips(visit: Visit, stated: Stated) -> Html | None:
    if visit.family is None:
        return None
    chips = [
        element(
            "a",
            _first_name(person),
            href=search_address(visit.search_for(person)),
            class_="chip",
            aria_current="true" if person.id == stated.person else None,
        )
        for person in visit.family.people
    ]
    return element("nav", chips, class_="chips", aria_label="Who is it for?")


def _search_form(choice: Choice, form: Form) -> Html:
    occupations = {term.code: term.title for term in choice.catalogue.occupations}
    places = {place: place for place in sorted(choice.places)}
    given = form.get("condition", ())
    conditions = [
        element(
            "label",
            element("input", type="checkbox", name="condition", value=term.code, checked=term.code in given),
            element("span", term.title),
            class_="check",
        )
        for term in choice.catalogue.conditions
    ]
    age = element(
        "input",
        id="age",
        name="age",
        type="number",
        min="0",
        max=str(OLDEST),
        required=True,
        inputmode="numeric",
        value=form.get("age", [""])[0],
    )
    return element(
        "form",
        element("input", type="hidden", name="person", value=form.get("person", [""])[0]),
        element("label", "Age", element("span", " in years", class_="quiet"), for_="age"),
        age,
        _select("Occupation", "occupation", "Choose one", occupations, form),
        _select("Place", "place", "Where are you?", places, form),
        element("fieldset", element("legend", "Conditions"), conditions),
        element("button", "Find vaccines", type="submit", class_="primary"),
        action="/#found",
    )


def _select(label: str, name: str, ask: str, titles: Mapping[str, str], form: Form) -> Html:
    chosen = form.get(name, [""])[0]
    options = [
        element("option", title, value=code, selected=code == chosen) for code, title in titles.items()
    ]
    asking = element("option", ask, value="", disabled=True, selected=chosen not in titles)
    return fragment(
        element("label", label, for_=name),
        element("select", asking, options, id=name, name=name, required=True),
    )


def _found(visit: Visit, results: Results) -> Html:
    stated, chosen = results.stated, results.chosen
    person = visit.people.get(stated.person)
    who = _first_name(person) if person else "You"
    if chosen is None:
        return element("h1", f"{who} can have no vaccine at the moment")
    count = len(results.eligible)
    vaccines = [
        element(
            "a",
            element("strong", vaccine.title),
            element("span", vaccine.because),
            href=search_address(replace(stated, vaccine=vaccine.code)),
            class_="vaccine",
            aria_current="true" if vaccine.code == chosen.code else None,
        )
        for vaccine in results.eligible
    ]
    booking = replace(stated, vaccine=chosen.code)
    sites = [_site_card(visit, booking, hit, starts) for hit, starts in results.sites]
    nothing = element(
        "p", "No site in reach has a free appointment in the next two weeks.", class_="card empty"
    )
    return fragment(
        element("h1", f"{who} can have {count} vaccine{'' if count == 1 else 's'}"),
        element("nav", vaccines, class_="vaccines", aria_label="Vaccines"),
        element("h2", f"{chosen.title} near {stated.place}"),
        element("p", f"Protects against: {chosen.protects}. {chosen.doses}.", class_="quiet"),
        element("ol", sites, class_="sites") if sites else nothing,
    )


def _site_card(visit: Visit, stated: Stated, hit: Found, starts: Sequence[datetime]) -> Html:
    more = element(
        "a",
        "All times",
        element("span", f" at {hit.site.name}", class_="sr"),
        href=f"/times?{stated.query(site=str(hit.site.id))}",
        class_="more",
    )
    distance = element("span", f"{hit.miles:.1f} mi", class_="distance")
    return element(
        "li",
        element("div", element("h3", hit.site.name), distance, class_="spread"),
        element("div", element("p", hit.site.address, class_="quiet"), more, class_="spread"),
        _days(visit, stated, hit.site, starts),
        class_="card",
    )


def _days(visit: Visit, stated: Stated, site: Site, starts: Iterable[datetime]) -> Html:
    days = [
        element("div", element("p", day_name(day, visit.today)), _slots(stated, site, group), class_="day")
        for day, group in groupby(starts, key=datetime.date)
    ]
    return fragment(days)


def _slots(stated: Stated, site: Site, starts: Iterable[datetime]) -> Html:
    links = [
        element(
            "li",
            element(
                "a",
                element("time", clock(moment), datetime=moment.isoformat(timespec="minutes")),
                href=f"/book?{stated.query(site=str(site.id), starts=moment.isoformat())}",
                class_="slot",
            ),
        )
        for moment in starts
    ]
    return element("ul", links, class_="slots")


def _first_name(person: Person) -> str:
    return person.name.partition(" ")[0]

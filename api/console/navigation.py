"""The navigation, the way up from a page, and the counts beside them, all made of the table of routes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit

from jinja2 import pass_context
from jinja2.runtime import Context as Names

from api.console.visit import Visit
from storage.postgres.open_work import COUNT_MAX

if TYPE_CHECKING:
    from api.console.rows import Row

GROUPS = (
    ("overview", "alerts", "cases", "approvals"),
    ("orders", "lookup", "callbacks"),
    ("notifications", "endpoints"),
    ("days", "certificates"),
    ("audit", "operators"),
)
"""The families of pages as people look for them: what calls for work comes first. Each `nav` of the table is here."""

KEYS = {
    "overview": "h",
    "alerts": "a",
    "cases": "c",
    "approvals": "p",
    "orders": "o",
    "lookup": "l",
    "callbacks": "b",
    "notifications": "n",
    "endpoints": "e",
    "days": "d",
    "certificates": "t",
    "audit": "u",
    "operators": "s",
}
"""The second key after `g` that goes there."""

PARENTS = {
    "/ops/disputes": "/ops/days",
    "/ops/reconciliation": "/ops/days",
    "/ops/accounts/{name}": "/ops",
}
"""Pages above those whose address does not say so."""

TITLES = {"/ops/disputes": "disputes.title", "/ops/reconciliation": "reconciliation.title"}
"""Keys of the names of pages that are above others and not in the navigation."""

_COUNTS = {"cases": "cases", "notifications": "dead_letters", "approvals": "approvals", "alerts": "alerts"}
"""The count of open work that a family has."""


_URGENT = frozenset({"notifications", "alerts"})
"""Families in which each thing that waits is lost to somebody until a person acts."""


class Place(NamedTuple):
    """A family of pages, `go` the letter that goes there. `waiting` is what waits there for a person: a text, empty for
    nothing. `is_here`: this page is the family's first; `is_above`: it is one below.
    """

    address: str
    key: str
    go: str
    waiting: str
    waiting_key: str
    is_urgent: bool
    is_here: bool
    is_above: bool


class Crumb(NamedTuple):
    """A page above this one: its address, and the key of its name or the name itself."""

    address: str
    key: str
    name: str


@pass_context
def nav(names: Names) -> list[list[Place]]:
    """The families that the operator may read, in groups; none for nobody."""
    visit = names["visit"]
    if not isinstance(visit, Visit):
        return []
    shown = {row.nav: row.route.pattern for row in _pages() if row.nav and row.route.role and visit.may(row.route.role)}
    this = _family(visit.path)
    groups = [[_place(visit, each, shown[each], this) for each in group if each in shown] for group in GROUPS]
    return [group for group in groups if group]


def _place(visit: Visit, name: str, pattern: str, this: str) -> Place:
    return Place(
        address=pattern,
        key=f"nav.{name}",
        go=KEYS[name],
        waiting=_waiting(visit, name),
        waiting_key=f"nav.waiting_{name}" if name in _COUNTS else "",
        is_urgent=name in _URGENT,
        is_here=pattern == visit.path,
        is_above=name == this and pattern != visit.path,
    )


def _waiting(visit: Visit, name: str) -> str:
    if visit.open_work is None or name not in _COUNTS:
        return ""
    count: int = getattr(visit.open_work, _COUNTS[name])
    return "" if not count else str(count) if count < COUNT_MAX else f"{COUNT_MAX - 1}+"


@pass_context
def title_count(names: Names) -> str:
    """Return "3" on the first page of a family where three things wait; elsewhere nothing."""
    return next((each.waiting for group in nav(names) for each in group if each.is_here), "")


@pass_context
def crumbs(names: Names) -> list[Crumb]:
    """The pages above this one, the uppermost first. One that was left a moment ago keeps its filters."""
    visit = names["visit"]
    if not isinstance(visit, Visit):
        return []
    is_back = {urlsplit(visit.back).path: visit.back}
    return [
        Crumb(is_back.get(address, address), _title_key(pattern), unquote(address.rpartition("/")[2]))
        for address, pattern in reversed(list(_above(visit.path)))
    ]


def _title_key(pattern: str) -> str:
    return next((f"nav.{row.nav}" for row in _pages() if row.nav and row.route.pattern == pattern), "") or TITLES.get(
        pattern, ""
    )


def _above(address: str) -> Iterator[tuple[str, str]]:
    """Address and pattern of each page above, the nearest first."""
    while (up := _up(address)) is not None:
        yield up
        address = up[0]


def _up(address: str) -> tuple[str, str] | None:
    """The page above an address. Every page lies below the overview, and is part of it only where `PARENTS` says so."""
    pattern = _pattern_of(address)
    if pattern in PARENTS:
        return PARENTS[pattern], PARENTS[pattern]
    while (address := address.rpartition("/")[0]) not in ("", "/ops"):
        if above := _pattern_of(address):
            return address, above
    return None


def _pattern_of(address: str) -> str:
    """The pattern of the page at an address, one without parameters first; empty: there is none."""
    patterns = _patterns()
    if address in patterns:
        return address
    return next((pattern for pattern, shape in patterns.items() if shape.fullmatch(address)), "")


def _family(path: str) -> str:
    """The name of the family below whose first page a page lies."""
    families = {row.route.pattern: row.nav for row in _pages() if row.nav}
    return next((families[each] for each in (path, *(up for up, _ in _above(path))) if each in families), "")


@cache
def _patterns() -> dict[str, re.Pattern[str]]:
    return {row.route.pattern: re.compile(re.sub(r"\{\w+\}", "[^/]+", row.route.pattern)) for row in _pages()}


@cache
def _pages() -> list[Row]:
    from api.console.routes import ROWS  # noqa: PLC0415 - the table names the handlers, which render

    return [row for row in ROWS if row.route.method == "GET" and row.route.role is not None]

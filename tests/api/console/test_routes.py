"""Every route of the console by every role, by nobody, and from another site. A new row of the table is tested too."""

import re
from itertools import product

import pytest

from api.console.gate import OPEN_WITH_ANY_PASSWORD
from api.console.routes import ROWS, table
from api.console.rows import Row
from api.console.texts import LANGUAGES
from api.context import Context
from api.http.asgi import App
from api.http.route import Auth, Route, plain
from api.ops import healthz
from api.routes import table as outside
from core.operators import Role
from runtime.resources import Resources
from tests.api.console.conftest import FORM, ORIGIN, ConsoleClient, SignedIn
from tests.api.driver import Client, Response

GUARDED = [row for row in ROWS if row.route.role is not None]
OPEN = {("GET", "/ops/signin"), ("POST", "/ops/signin"), ("GET", "/ops/static/{name}")}
ACTS = [row for row in GUARDED if row.route.method == "POST"]


def named(row: Row) -> str:
    return f"{row.route.method} {row.route.pattern}"


def address(row: Row) -> str:
    """The address with parameters that name nothing, or nothing that may be missed."""
    return re.sub(r"\{(\w+)\}", "1", row.route.pattern)


def role_of(row: Row) -> Role:
    assert row.route.role is not None
    return row.route.role


def test_every_route_needs_a_role_but_the_way_in_and_the_files() -> None:
    assert {(row.route.method, row.route.pattern) for row in ROWS if row.route.role is None} == OPEN
    assert all(row.route.pattern == "/ops" or row.route.pattern.startswith("/ops/") for row in ROWS)
    assert len({(row.route.method, row.route.pattern) for row in ROWS}) == len(ROWS)
    assert all(row.route.method in ("GET", "POST") for row in ROWS)


def test_a_route_for_operators_without_a_role_cannot_be_written() -> None:
    for auth, role in ((Auth.OPERATOR, None), (Auth.ANYONE, Role.VIEWER)):
        with pytest.raises(ValueError, match="role exactly when"):
            Route("GET", "/ops/x", auth, plain(healthz), "x", {}, role=role)


def test_every_page_in_the_navigation_has_its_name_in_every_language() -> None:
    for row in ROWS:
        for language in LANGUAGES.values():
            assert not row.nav or language.texts[f"nav.{row.nav}"]


def test_the_table_outside_has_no_address_of_the_console() -> None:
    assert not [route for route in outside(65_536) if route.pattern.startswith("/ops") or route.role is not None]
    assert len(table()) == len(ROWS)


async def send(browser: ConsoleClient, row: Row, **more: str) -> Response:
    if row.route.method == "GET":
        return await browser.get(address(row), **more)
    return await browser.post(address(row), {"reason": "a test"} if more else {}, **more)


async def test_nobody_is_let_in_and_no_body_is_read(app: App[Context]) -> None:
    for row, cookie in product(GUARDED, ("", "nodrop-ops=", "nodrop-ops=unknown", "nodrop-ops=a; nodrop-ops=b")):
        headers = {"content-type": FORM, "origin": ORIGIN, "cookie": cookie}
        body = b"x=" * 50 if row.route.method == "POST" else b""
        response = await Client(app).call(row.route.method, address(row), body=body, headers=headers)
        if row.route.method == "GET":
            assert response.status == 303, (named(row), cookie)
            assert response.headers["location"].startswith("/ops/signin")
        else:
            assert (response.status, response.reads) == (401, 0), (named(row), cookie)
            assert response.headers["content-type"].startswith("text/html")


async def test_each_route_is_open_to_its_role_and_to_no_lower_one(signed_in: SignedIn) -> None:
    """A form without its fields is refused for what is missing, never for the role; a page may name nothing."""
    for row, role in product(GUARDED, Role):
        response = await send(await signed_in(role), row)
        if role.may(role_of(row)):
            assert response.status in {200, 303, 400, 404, 409, 415, 422}, (named(row), role, response.body.decode())
        else:
            assert response.status == 403, (named(row), role)
            assert LANGUAGES["en"].texts["error.role_too_low"] in response.body.decode()


async def test_a_form_without_the_token_of_its_session_does_nothing(signed_in: SignedIn, resources: Resources) -> None:
    browser, other = await signed_in(Role.ADMIN), await signed_in(Role.ADMIN, "other")
    for row, csrf in product(ACTS, ("", "wrong", other.csrf, browser.csrf[:-1])):
        response = await browser.post(address(row), {"reason": "a test"}, csrf=csrf)
        assert response.status == 403, (named(row), csrf)
        assert LANGUAGES["en"].texts["error.form_foreign"] in response.body.decode()
    assert await resources.db.fetchval("SELECT count(*) FROM audit") == 0


FOREIGN = (
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": "http://pay.test.evil.example"},
    {"origin": ""},
    {"sec_fetch_site": "cross-site"},
    {"sec_fetch_site": "same-site"},
    {"sec_fetch_site": "none"},
)


async def test_a_form_of_another_site_does_nothing(signed_in: SignedIn, resources: Resources) -> None:
    """Also one that has the token: the body is not read."""
    browser = await signed_in(Role.ADMIN)
    for row, headers in product(ACTS, FOREIGN):
        response = await send(browser, row, **headers)
        assert (response.status, response.reads) == (403, 0), (named(row), headers)
    assert await resources.db.fetchval("SELECT count(*) FROM audit") == 0


async def test_a_password_that_was_printed_opens_its_change_alone(signed_in: SignedIn, resources: Resources) -> None:
    await signed_in(Role.ADMIN)
    await resources.db.execute("UPDATE operators SET must_change = true")
    for row in GUARDED:
        response = await send(await signed_in(Role.ADMIN), row)
        if address(row) in OPEN_WITH_ANY_PASSWORD:
            assert response.status in {200, 303, 400}, named(row)
            assert response.headers.get("location") != "/ops/me", named(row)
        else:
            assert (response.status, response.headers.get("location")) == (303, "/ops/me"), named(row)

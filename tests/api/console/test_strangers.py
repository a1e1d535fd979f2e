"""The console as a stranger finds it: other hosts, spellings, methods and cookies, and texts in places of their own."""

import csv
import dataclasses
import io
from itertools import product
from urllib.parse import unquote

import pytest
from msgspec.structs import replace

from api.console.gate import LOCAL, SECURE, Gate, cookie_of
from api.console.routes import ROWS
from api.context import Context
from api.http.asgi import App, Visitor
from api.http.errors import SignInNeeded
from core.operators import Role
from runtime.resources import Resources
from tests.api.conftest import terms
from tests.api.console.conftest import FORM, ConsoleClient, SignedIn
from tests.api.driver import Client, Response

EVIL = "evil.example"
PAGES = sorted({row.route.pattern for row in ROWS if row.route.method == "GET" and "{" not in row.route.pattern})


async def test_the_host_that_a_request_names_is_nowhere_in_an_answer(signed_in: SignedIn) -> None:
    """Links, cookies and redirects are of PUBLIC_URL, whatever a proxy lets through."""
    browser = await signed_in(Role.ADMIN)
    named = {"host": EVIL, "x_forwarded_host": EVIL, "forwarded": f"host={EVIL}", "x_original_url": f"//{EVIL}/"}
    for page in (*PAGES, "/ops/none"):
        response = await browser.get(page, **named, referer=f"https://{EVIL}/ops/orders")
        assert EVIL not in response.body.decode(errors="replace") + repr(response.headers), page
        assert response.status < 500
    form = await browser.post("/ops/orders/find", {"number": "none"}, host=EVIL, x_forwarded_host=EVIL)
    assert EVIL not in repr(form.headers) + repr(form.set_cookies)


SPELLINGS = (
    "//ops/orders",
    "/ops//orders",
    "/ops/./orders",
    "/ops/x/../orders",
    "/v1/../ops/orders",
    "/ops/orders/",
    "/ops/orders;x=1",
    "/ops/orders%2f",
    "/ops/orders%00",
    "/ops%2forders",
    "/ops/static/../orders",
    "/ops/static/%2e%2e%2forders",
    "/ops/static/..%5corders",
    "/OPS/orders",
    "/ops/Orders",
    "/o/../ops/orders",
)


@pytest.mark.parametrize("target", SPELLINGS)
async def test_another_spelling_of_a_page_is_no_page(signed_in: SignedIn, app: App[Context], target: str) -> None:
    """A path that a proxy keeps to itself is not reached by another one."""
    signed, nobody = await (await signed_in(Role.ADMIN)).get(target), await Client(app).call("GET", target)
    assert {signed.status, nobody.status} <= {303, 404}, (signed.status, nobody.status)
    assert b"filters" not in signed.body
    if nobody.status == 303:
        assert nobody.headers["location"].startswith("/ops/signin?next=%2Fops%2Forders")


METHODS = ("PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND")


async def test_no_other_method_acts(signed_in: SignedIn, resources: Resources) -> None:
    browser = await signed_in(Role.ADMIN)
    for method, path in product(METHODS, ("/ops", "/ops/signout", "/ops/orders/x/close", "/ops/me/password")):
        headers = browser.headers | {"origin": "http://pay.test", "content-type": FORM}
        response = await browser.client.call(method, path, body=f"csrf={browser.csrf}".encode(), headers=headers)
        assert response.status in {404, 405, 501}, (method, path, response.status)
        assert "access-control-allow-origin" not in response.headers
    for name in ("x-http-method-override", "x-http-method", "x-method-override"):
        assert (await browser.client.call("GET", "/ops/me", headers=browser.headers | {name: "POST"})).status == 200
    assert await resources.db.fetchval("SELECT count(*) FROM audit") == 0


async def test_a_fault_is_kept_by_nobody_and_framed_by_nobody(signed_in: SignedIn, app: App[Context]) -> None:
    viewer, nobody = await signed_in(Role.VIEWER), Client(app)
    faults: list[Response] = [
        await viewer.get("/ops/audit"),
        await viewer.get("/ops/orders/none"),
        await viewer.get("/ops/nothing"),
        await viewer.get("/ops/orders?cursor=x"),
        await viewer.post("/ops/orders/none/close", {"reason": "x"}),
        await nobody.call("GET", "/ops/audit"),
        await nobody.call("POST", "/ops/signout", headers={"content-type": FORM, "origin": "http://pay.test"}),
        await nobody.call("POST", "/ops/signin", headers={"content-type": FORM, "origin": f"https://{EVIL}"}),
    ]
    for response in faults:
        assert 300 <= response.status < 500
        assert response.headers["cache-control"] == "no-store"
        if response.headers.get("content-type", "").startswith("text/html"):
            assert "frame-ancestors 'none'" in response.headers["content-security-policy"]
            assert response.headers["x-content-type-options"] == "nosniff"


# -- cookies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [
        "{name}=planted; {name}=good",
        "{name}=good; {name}=planted",
        "{name}=planted, {name}=good",
        " {name} =good",
        "{NAME}=good",
        "x{name}=good",
        "={name}=good",
        '{name}="good"',
        "{name}",
        "$Version=1; x={name}=good",
    ],
)
@pytest.mark.parametrize("name", [LOCAL.session, SECURE.session])
def test_a_cookie_that_another_site_beside_us_planted_opens_nothing(name: str, sent: str) -> None:
    """Two of one name are from two places: neither is taken. Nor is one of another spelling."""
    assert cookie_of({"cookie": sent.format(name=name, NAME=name.upper())}, name) != "good"


def test_ours_is_found_among_others() -> None:
    name = SECURE.session
    assert cookie_of({"cookie": f"a=1; {name}=good; {LOCAL.session}=planted;b={name}"}, name) == "good"


async def test_the_cookie_without_prefix_opens_no_deployment(signed_in: SignedIn, resources: Resources) -> None:
    """A server at another port or name of the host may plant that one, and not the other."""
    browser = await signed_in(Role.ADMIN)
    settings = replace(resources.settings, public_url="https://pay.example")
    gate = Gate(dataclasses.replace(resources, settings=settings))
    with pytest.raises(SignInNeeded):
        await gate.admit(Role.VIEWER, visitor_with(LOCAL.session, browser.cookie))
    assert (await gate.admit(Role.VIEWER, visitor_with(SECURE.session, browser.cookie))).operator == browser.name


def visitor_with(name: str, cookie: str) -> Visitor:
    return Visitor(method="GET", target="/ops", headers={"cookie": f"{name}={cookie}"}, request_id="x")


# -- numbers that a merchant chooses -----------------------------------------------------------------------------------

ORDER_NUMBERS = ("0.-_", "constructor", "1e5", "Z" + "_" * 63, "0..", "1--comment")


async def test_an_order_number_is_a_text_in_pages_addresses_and_files(signed_in: SignedIn, client: Client) -> None:
    browser = await signed_in(Role.OPERATOR)
    for number in ORDER_NUMBERS:
        assert (await client.post("/v1/orders", terms(order_no=number))).status == 201
        found = await browser.post("/ops/orders/find", {"number": number})
        assert unquote(found.headers["location"]) == f"/ops/orders/{number}"
        page = await _page(browser, found.headers["location"])
        assert f"<bdi>{number}</bdi>" in page or f">{number}<" in page
    text = (await browser.get("/ops/orders.csv")).body.decode("utf-8-sig")
    numbers = {row["order_no"] for row in csv.DictReader(io.StringIO(text))}
    assert numbers == {*ORDER_NUMBERS}


async def _page(browser: ConsoleClient, target: str) -> str:
    response = await browser.get(target)
    assert response.status == 200, target
    return response.body.decode()

"""Orders in the console: found by any number, listed by filters, and as a file."""

import csv
import io
import re
from urllib.parse import quote

import pytest

from core.operators import Role
from runtime.resources import Resources
from tests.api.conftest import Channel, terms
from tests.api.console.conftest import SignedIn
from tests.api.driver import Client, Response


def orders_in(page: Response) -> list[str]:
    assert page.status == 200, page.body.decode()
    return re.findall(r'<td class="id"><a href="/ops/orders/([^"]+)">', page.body.decode())


async def place(client: Client, **fields: object) -> str:
    response = await client.post("/v1/orders", terms(**fields))
    assert response.status == 201, response.body
    return str(response.json["order_no"])


async def test_any_number_leads_straight_to_its_order(
    signed_in: SignedIn, client: Client, channel: Channel, account: str
) -> None:
    placed = (await client.post("/v1/orders", terms(account=account))).json
    here = f"/ops/orders/{placed['order_no']}"
    console = await signed_in(Role.VIEWER)
    for number in (placed["order_no"], placed["payments"][0]["out_trade_no"], placed["order_page"]):
        found = await console.post("/ops/orders/find", {"number": f" {number} "})
        assert (found.status, found.headers["location"]) == (303, here)
    found = await console.get(f"/ops/orders?number={quote(placed['order_no'])}")
    assert (found.status, found.headers["location"]) == (303, here)


async def test_a_number_that_names_several_or_none_is_a_list_of_them(signed_in: SignedIn, client: Client) -> None:
    console = await signed_in(Role.VIEWER)
    await place(client, order_no="A-11")
    await place(client, order_no="A-12")
    found = await console.act("/ops/orders/find", {"number": "A-1"})
    assert orders_in(found) == ["A-11", "A-12"]
    nothing = await console.act("/ops/orders/find", {"number": "<i>none</i>"})
    assert "Nothing here has this number" in nothing.body.decode()
    assert "<i>" not in nothing.body.decode()
    empty = await console.post("/ops/orders/find", {"number": " "})
    assert empty.headers["location"] == "/ops/orders"
    assert (await console.post("/ops/orders/find", {"number": "x" * 301})).status == 400


async def test_a_number_that_is_nobodys_leads_operators_to_its_channel(signed_in: SignedIn) -> None:
    link = 'href="/ops/lookup?number=2026%26x"'
    for role, is_there in ((Role.VIEWER, False), (Role.OPERATOR, True)):
        page = await (await signed_in(role)).get("/ops/orders?number=2026%26x")
        assert "Nothing here has this number" in page.body.decode()
        assert (link in page.body.decode()) is is_there


async def test_a_link_that_is_no_ones_is_in_no_address(signed_in: SignedIn) -> None:
    console = await signed_in(Role.VIEWER)
    found = await console.post("/ops/orders/find", {"number": f"https://pay.test/o/{'x' * 22}"})
    assert found.headers["location"] == "/ops/orders"
    assert "No order has a page with this link" in (await console.get("/ops/orders")).body.decode()


async def test_orders_are_listed_by_filters_in_the_address_page_by_page(
    signed_in: SignedIn, client: Client, channel: Channel, account: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.console.orders.PAGE", 2)
    console = await signed_in(Role.VIEWER)
    first = await place(client, amount=500)
    second = await place(client, amount=8888, account=account)
    third = await place(client, amount=8888)
    page = await console.get("/ops/orders")
    assert orders_in(page) == [third, second]
    [more] = re.findall(r'rel="next" href="([^"]+)"', page.body.decode())
    assert orders_in(await console.get(more.replace("&amp;", "&"))) == [first]
    for query, expected in (
        ("status=paying", [second]),
        (f"account={account}", [second]),
        ("amount=5.00&currency=cny", [first]),
        ("status=created&amount=88.88&currency=CNY", [third]),
        ("cases=1", []),
        ("undelivered=1&status=&account=&amount=&currency=&from=", []),
        ("from=2000-01-01&until=2000-01-02", []),
        ("paid_from=2000-01-01", []),
    ):
        assert orders_in(await console.get(f"/ops/orders?{query}")) == expected, query


@pytest.mark.parametrize(
    "query",
    ["amount=5", "amount=5&currency=XXX", "amount=1e3&currency=CNY", "cursor=W10", "from=9999-12-31&until=9999-12-31"],
)
async def test_a_filter_that_is_none_is_refused_on_a_page(signed_in: SignedIn, query: str) -> None:
    page = await (await signed_in(Role.VIEWER)).get(f"/ops/orders?{query}")
    assert (page.status, "<!doctype html>" in page.body.decode().lower()) == (400, True)


async def test_the_file_has_what_the_list_has_and_no_formula(
    signed_in: SignedIn, client: Client, resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = await signed_in(Role.OPERATOR)
    await place(client, order_no="A-1", subject='=HYPERLINK("http://evil.test","x")')
    await place(client, order_no="A-2", amount=500, subject='a, "b"')
    [file] = re.findall(r'href="(/ops/orders\.csv[^"]*)"', (await console.get("/ops/orders")).body.decode())
    response = await console.get(file)
    assert response.headers["content-disposition"] == 'attachment; filename="orders.csv"'
    rows = list(csv.DictReader(io.StringIO(response.body.decode("utf-8-sig"))))
    assert [(row["order_no"], row["amount"], row["subject"]) for row in rows] == [
        ("A-2", "5.00", 'a, "b"'),
        ("A-1", "88.88", '\'=HYPERLINK("http://evil.test","x")'),
    ]
    only = await console.get("/ops/orders.csv?amount=5.00&currency=CNY")
    assert len(only.body.decode().splitlines()) == 2
    monkeypatch.setattr("api.console.orders.FILE_ROWS_MAX", 1)
    cut = await console.get("/ops/orders.csv")
    assert "orders-incomplete.csv" in cut.headers["content-disposition"]
    acts = await resources.db.fetch("SELECT by, action FROM audit WHERE action = 'orders.csv'")
    assert {tuple(row) for row in acts} == {("operator", "orders.csv")}


async def test_cases_about_the_order_and_about_its_payment_stand_side_by_side(
    signed_in: SignedIn, client: Client, resources: Resources, account: str
) -> None:
    placed = (await client.post("/v1/orders", terms(account=account))).json
    number = placed["payments"][0]["out_trade_no"]
    sql = "INSERT INTO cases (order_no, reason, channel_account, out_trade_no) VALUES ($1, $2, $3, $4)"
    await resources.db.execute(sql, placed["order_no"], "paid_late", None, None)
    await resources.db.execute(sql, placed["order_no"], "double_payment", account, number)
    page = await (await signed_in(Role.VIEWER)).get("/ops/orders")
    assert orders_in(page) == [placed["order_no"]]

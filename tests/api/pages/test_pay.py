"""Paying from the order's page: what it offers, and the buyer's click, which strangers with a token can send too."""

import asyncio
import re
from html import escape
from typing import Any
from unittest.mock import ANY
from urllib.parse import urlencode

import pytest
from msgspec.structs import replace

from api.context import Context
from api.http.asgi import App
from api.limits import STARTS_PER_ORDER
from api.pages.pay import ERRORS
from core import paying
from core.account import AccountConfig
from core.admission import Admitted, CallKind, Urgency, Wait
from flows.ask import query_now
from flows.channel_call import call_channel
from runtime.resources import Resources
from storage.postgres.accounts import enable_account, put_account
from storage.postgres.orders import find_state
from storage.sealing import Sealer
from tests.api.conftest import MASTER_KEYS, MERCHANT_ID, SECRET, Channel, open_elsewhere, terms, token_of
from tests.api.driver import Client, Response

DESK = "Mozilla/5.0 (X11; Linux x86_64) Chrome/120"
PHONE = "Mozilla/5.0 (Linux; Android 14) Chrome/120 Mobile"
WECHAT = "Mozilla/5.0 (Linux; Android 14) Mobile MicroMessenger/8.0.50"


@pytest.fixture
async def both(resources: Resources, channel: Channel) -> tuple[str, str]:
    """Accounts at WeChat Pay and Alipay."""
    await open_elsewhere(resources, channel, "wechatpay", "wechat-shop")
    await open_elsewhere(resources, channel, "alipay", "alipay-shop")
    return "wechat-shop", "alipay-shop"


async def place(client: Client, **more: Any) -> dict[str, Any]:
    response = await client.post("/v1/orders", terms(**more))
    assert response.status == 201, response.body
    order: dict[str, Any] = response.json
    return order


async def pay(buyer: Client, order: dict[str, Any], account: str, method: str, **headers: str) -> Response:
    """Press the button of a way, and follow to the page."""
    answer = await post(buyer, order, urlencode({"account": account, "method": method}).encode(), **headers)
    assert answer.status == 303, answer.body
    return await buyer.get(answer.headers["location"], user_agent=headers.get("user_agent", DESK))


async def post(buyer: Client, order: dict[str, Any], body: bytes, **headers: str) -> Response:
    named = {"content-type": "application/x-www-form-urlencoded", "sec-fetch-site": "same-origin", "user-agent": DESK}
    named |= {name.replace("_", "-"): text for name, text in headers.items()}
    return await buyer.call("POST", f"/o/{token_of(order)}/pay", body=body, headers=named)


def section(page: Response) -> str:
    found = re.search(r'<section id="pay".*?</section>', page.body.decode(), re.DOTALL)
    assert found is not None
    return found[0]


def buttons(page: Response) -> list[tuple[str, str]]:
    return buttons_of(section(page))


def buttons_of(drawn: str) -> list[tuple[str, str]]:
    return re.findall(r'name="account" value="([^"]+)"><button type="submit" name="method" value="([^"]+)"', drawn)


def error(page: Response) -> str:
    found = re.search(r'id="pay-error" role="alert">(.*?)<', section(page))
    return found[1] if found else ""


async def payments(client: Client, order: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await client.get(f"/v1/orders/{order['order_no']}")).json["payments"]
    return found


# -- the choice --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("live", [False, True])
async def test_test_money_is_marked_before_there_is_a_payment(
    client: Client, buyer: Client, resources: Resources, channel: Channel, live: bool
) -> None:
    credentials = {"merchant_id": MERCHANT_ID, "keys": {"k1": SECRET}}
    config = AccountConfig(
        name="main", channel="sandbox", base_url=channel.url, credentials=credentials, custom_host=True, live=live
    )
    await put_account(resources.db, Sealer.from_setting(MASTER_KEYS), config)
    order = await place(client, accounts=["main"])
    assert order["payments"] == []
    before = (await buyer.get(f"/o/{token_of(order)}")).body
    after = (await pay(buyer, order, "main", "page")).body
    assert [b'id="test"' in body for body in (before, after)] == [not live, not live]


async def test_accounts_that_the_buyer_may_choose_are_terms_of_the_order(client: Client, both: tuple[str, str]) -> None:
    body = terms(accounts=list(both))
    placed = (await client.post("/v1/orders", body)).json
    assert (placed["accounts"], placed["payments"]) == (list(both), [])
    assert (await client.post("/v1/orders", body)).status == 200
    other = await client.post("/v1/orders", body | {"accounts": ["wechat-shop"]})
    assert (other.status, other.json["detail"].split(": ")[-1]) == (409, "accounts")


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"accounts": []}, 400),
        ({"accounts": ["wechat-shop"] * 2}, 400),
        ({"accounts": [f"account-{i}" for i in range(11)]}, 400),
        ({"accounts": ["No Name"]}, 400),
        ({"accounts": ["nobody"]}, 404),
        ({"accounts": ["wechat-shop"], "currency": "EUR"}, 400),
        ({"accounts": ["wechat-shop"], "account": "alipay-shop"}, 400),
        ({"accounts": ["wechat-shop"], "method": "native"}, 400),
        ({"payer": {"openid": "o-1"}}, 400),
    ],
)
async def test_a_choice_that_cannot_be_paid_is_refused_when_placed(
    client: Client, both: tuple[str, str], more: dict[str, Any], status: int
) -> None:
    response = await client.post("/v1/orders", terms(**more))
    assert response.status == status, response.body


async def test_a_choice_is_of_one_world(client: Client, account: str, channel: Channel, resources: Resources) -> None:
    credentials = {"merchant_id": MERCHANT_ID, "keys": {"k1": SECRET}}
    real = AccountConfig(
        name="real", channel="sandbox", base_url=channel.url, credentials=credentials, live=True, custom_host=True
    )
    await put_account(resources.db, Sealer.from_setting(MASTER_KEYS), real)
    assert (await client.post("/v1/orders", terms(accounts=["real"]))).status == 201
    response = await client.post("/v1/orders", terms(accounts=[account, "real"]))
    assert (response.status, "real money" in response.json["detail"]) == (400, True)


# -- what the page offers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "first"),
    [
        (DESK, [("wechat-shop", "native"), ("alipay-shop", "precreate"), ("alipay-shop", "page")]),
        (PHONE, [("wechat-shop", "h5"), ("alipay-shop", "wap")]),
        (WECHAT, [("wechat-shop", "jsapi")]),
    ],
)
async def test_the_page_offers_what_suits_the_device_first_and_nothing_is_out_of_reach(
    client: Client, buyer: Client, both: tuple[str, str], device: str, first: list[tuple[str, str]]
) -> None:
    order = await place(client, accounts=list(both), payer={"openid": "o-1"})
    page = await buyer.get(f"/o/{token_of(order)}", user_agent=device)
    offered = buttons(page)
    assert offered[: len(first)] == first
    assert len(offered) == 6
    assert ("Open this page in your browser" in section(page)) is (device == WECHAT)


async def test_an_order_without_a_choice_offers_its_own_account(client: Client, buyer: Client, account: str) -> None:
    order = await place(client, account=account)
    page = await buyer.get(f"/o/{token_of(order)}")
    assert buttons(page) == [], "its link is there already"
    value = order["payments"][0]["checkout"]["value"]
    assert f'<a id="pay-link" class="primary" href="{value}" referrerpolicy="no-referrer">' in section(page)


async def test_a_watched_payment_is_not_offered_again(client: Client, buyer: Client, account: str) -> None:
    order = await place(client, account=account, watch={"out_trade_no": "elsewhere-000001"})
    drawn = section(await buyer.get(f"/o/{token_of(order)}"))
    assert (buttons_of(drawn), "The shop takes the payment" in drawn) == ([], True)


# -- the click ---------------------------------------------------------------------------------------------------------


async def test_the_buyer_pays_by_a_code_from_the_page_alone(
    client: Client, buyer: Client, both: tuple[str, str], channel: Channel
) -> None:
    order = await place(client, accounts=list(both))
    page = await pay(buyer, order, "wechat-shop", "native")
    [payment] = await payments(client, order)
    assert (payment["account"], payment["method"]) == ("wechat-shop", "native")
    assert f'data-value="{payment["checkout"]["value"]}"' in section(page)
    assert "<svg" in section(page)
    await channel.pay(payment["out_trade_no"])
    await buyer.get(f"/o/{token_of(order)}/return")
    page = await buyer.get(f"/o/{token_of(order)}")
    assert (">Paid</h1>" in page.body.decode(), section(page)) == (True, '<section id="pay" hidden></section>')


async def test_the_link_of_wechat_alone_shows_where_it_stands(
    client: Client, buyer: Client, both: tuple[str, str]
) -> None:
    order = await place(client, accounts=list(both))
    page = await pay(buyer, order, "wechat-shop", "h5", user_agent=PHONE)
    assert section(page).count('referrerpolicy="origin"') == 1
    page = await pay(buyer, order, "alipay-shop", "wap", user_agent=PHONE)
    assert 'referrerpolicy="origin"' not in section(page)
    assert 'id="pay-once"' in section(page)


async def test_a_second_click_uses_the_first_payment(client: Client, buyer: Client, both: tuple[str, str]) -> None:
    order = await place(client, accounts=list(both))
    for _ in range(2):
        await pay(buyer, order, "wechat-shop", "native")
    assert len(await payments(client, order)) == 1


async def test_a_payment_without_a_method_is_the_one_of_its_channels_first(
    client: Client, buyer: Client, both: tuple[str, str]
) -> None:
    order = await place(client, account="wechat-shop")
    page = await pay(buyer, order, "wechat-shop", "native")
    [payment] = await payments(client, order)
    assert f'data-value="{payment["checkout"]["value"]}"' in section(page)


async def test_the_page_shows_the_way_that_was_chosen_last(
    client: Client, buyer: Client, both: tuple[str, str]
) -> None:
    order = await place(client, accounts=list(both))
    await pay(buyer, order, "wechat-shop", "native")
    await pay(buyer, order, "alipay-shop", "precreate")
    page = await pay(buyer, order, "wechat-shop", "native")
    first = (await payments(client, order))[0]
    assert f'data-value="{first["checkout"]["value"]}"' in section(page)
    assert 'id="pay-once"' in section(page)


async def test_what_was_begun_inside_wechat_is_not_a_dead_button_on_a_desk(
    client: Client, buyer: Client, both: tuple[str, str]
) -> None:
    order = await place(client, accounts=list(both), payer={"openid": "o-1"})
    assert 'id="pay-call"' in section(await pay(buyer, order, "wechat-shop", "jsapi", user_agent=WECHAT))
    address = f"/o/{token_of(order)}"
    assert 'id="pay-call"' in section(await buyer.get(address, user_agent=WECHAT))
    desk = await buyer.get(address, user_agent=DESK)
    assert ('id="pay-call"' in section(desk), buttons(desk)[0]) == (False, ("wechat-shop", "native"))
    assert 'id="pay-once"' in section(await pay(buyer, order, "wechat-shop", "native"))


async def test_a_page_that_is_looked_at_starts_nothing(client: Client, buyer: Client, both: tuple[str, str]) -> None:
    order = await place(client, accounts=list(both))
    address = f"/o/{token_of(order)}?account=wechat-shop&method=native"
    for target in (address, f"/o/{token_of(order)}/status", f"/o/{token_of(order)}/return"):
        await buyer.get(target)
    assert await payments(client, order) == []
    assert (await buyer.get(f"/o/{token_of(order)}/pay")).status == 405


# -- links that end ----------------------------------------------------------------------------------------------------


async def end_checkouts(resources: Resources, channel: Channel) -> None:
    """Let the time of every link pass, here and at the channel. The payments can still be paid."""
    await resources.db.execute(
        "UPDATE payments SET checkout_ends_at = now(), created_at = created_at - interval '1 day'"
    )
    simulation = channel.simulation
    for there in simulation.ledger.payments(simulation.now()):
        simulation.ledger._keep(replace(there, link_ends_at=simulation.now()))


async def test_a_link_that_has_ended_is_renewed_by_a_click_and_by_nothing_else(
    client: Client, buyer: Client, both: tuple[str, str], resources: Resources, channel: Channel
) -> None:
    order = await place(client, accounts=list(both))
    await pay(buyer, order, "wechat-shop", "h5", user_agent=PHONE)
    [before] = await payments(client, order)
    await end_checkouts(resources, channel)
    assert 'id="pay-link"' not in section(await buyer.get(f"/o/{token_of(order)}", user_agent=PHONE))
    assert await payments(client, order) == [before | {"checkout": ANY}]
    page = await pay(buyer, order, "wechat-shop", "h5", user_agent=PHONE)
    [after] = await payments(client, order)
    assert after["out_trade_no"] == before["out_trade_no"]
    assert after["checkout"]["value"] != before["checkout"]["value"]
    assert escape(after["checkout"]["value"]) in section(page)


async def test_a_link_of_another_address_is_closed_before_a_new_one_is_made(
    app: App[Context], client: Client, buyer: Client, both: tuple[str, str]
) -> None:
    """WeChat Pay compares the buyer's address with the one that a link was made for."""
    order = await place(client, accounts=list(both))
    await pay(buyer, order, "wechat-shop", "h5", user_agent=PHONE)
    await pay(Client(app, address="2001:db8:1:2:3::7"), order, "wechat-shop", "h5", user_agent=PHONE)
    first, second = await payments(client, order)
    assert (first["status"], second["status"]) == ("closed", "open")
    payers = await app.context.resources.db.fetch("SELECT payer->>'client_ip' AS ip FROM payments ORDER BY attempt_no")
    assert [row["ip"] for row in payers] == [None, "2001:db8:1:2:3::7"]


async def test_what_buyers_start_leaves_the_merchants_share_of_the_rate_alone(
    app: App[Context], client: Client, buyer: Client, both: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[CallKind, Urgency]] = []
    admission = app.context.resources.admission
    admit = admission.admit

    async def admit_noted(account: str, rate: int, kind: CallKind, urgency: Urgency, **more: bool) -> Admitted | Wait:
        calls.append((kind, urgency))
        return await admit(account, rate, kind, urgency, **more)

    monkeypatch.setattr(admission, "admit", admit_noted)
    order = await place(client, account="wechat-shop", accounts=list(both))
    await pay(buyer, order, "alipay-shop", "precreate")
    assert calls == [
        (CallKind.CREATE, Urgency.FRESH),
        (CallKind.QUERY, Urgency.REFRESH),
        (CallKind.CREATE, Urgency.REFRESH),
    ]


async def test_an_order_with_many_payments_takes_no_more(
    client: Client, buyer: Client, both: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    order = await place(client, accounts=list(both))
    await pay(buyer, order, "wechat-shop", "native")
    monkeypatch.setattr(paying, "PAYMENTS_MAX", 1)
    assert "Too many" in error(await pay(buyer, order, "alipay-shop", "page"))
    assert len(await payments(client, order)) == 1
    await buyer.get(f"/o/{token_of(order)}/return")
    again = await pay(buyer, order, "wechat-shop", "native")
    assert ('id="pay-code"' in section(again), error(again)) == (True, ""), "the one that is there is no other one"


# -- waiting -----------------------------------------------------------------------------------------------------------


async def test_no_link_stands_on_a_page_that_waits_and_the_next_click_ends_the_wait(
    client: Client, buyer: Client, account: str, channel: Channel
) -> None:
    """Back unpaid, then again at the channel, and back without its return address: *unpaid* may be wrong then."""
    order = await place(client, account=account)
    address = f"/o/{token_of(order)}"
    assert 'id="pay-link"' in section(await buyer.get(address))
    await buyer.get(f"{address}/return")
    waiting = await buyer.get(address)
    assert 'id="pay-link"' not in section(waiting)
    assert await is_waiting(client, order)
    again = await pay(buyer, order, *buttons(waiting)[0])
    assert 'id="pay-link"' in section(again)
    assert not await is_waiting(client, order)


async def test_a_return_that_is_not_asked_about_ends_the_wait(
    client: Client, buyer: Client, account: str, channel: Channel
) -> None:
    order = await place(client, account=account)
    await buyer.get(f"/o/{token_of(order)}/return")
    assert await is_waiting(client, order)
    await channel.faults(down=True)
    await buyer.get(f"/o/{token_of(order)}/return")
    assert not await is_waiting(client, order)


@pytest.mark.parametrize("fault", ERRORS)
async def test_no_address_brings_the_link_back_onto_a_page_that_waits(
    client: Client, buyer: Client, account: str, fault: str
) -> None:
    """A buyer who paid by it would read *waiting* in every other tab, and after a reload."""
    order = await place(client, account=account)
    await buyer.get(f"/o/{token_of(order)}/return")
    page = await buyer.get(f"/o/{token_of(order)}?error={fault}")
    assert (await is_waiting(client, order), 'id="pay-link"' in section(page)) == (True, False)
    assert buttons(page) == [(account, "page")]


async def test_an_unclear_answer_after_a_click_ends_the_wait(
    client: Client, buyer: Client, both: tuple[str, str], channel: Channel
) -> None:
    order = await place(client, accounts=list(both))
    await pay(buyer, order, "alipay-shop", "page")
    await buyer.get(f"/o/{token_of(order)}/return")
    assert await is_waiting(client, order)
    await channel.faults(down=True)
    page = await pay(buyer, order, "wechat-shop", "native")
    assert "has not answered yet" in error(page)
    assert not await is_waiting(client, order)


async def test_an_answer_that_comes_after_the_buyer_has_gone_on_is_not_unpaid(
    client: Client, buyer: Client, account: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The channel is slow: the page with the link was shown before, and the buyer may have paid by it."""
    monkeypatch.setattr("api.pages.handlers.RETURN_WAIT_S", 0.0)
    order = await place(client, account=account)
    await buyer.get(f"/o/{token_of(order)}/return")
    await asyncio.gather(*client.app.context.refreshes._running)
    assert not await is_waiting(client, order)


@pytest.mark.parametrize("step", ["page", "return", "click"])
async def test_whoever_is_sent_to_pay_or_comes_back_during_the_query_may_have_paid(
    client: Client, buyer: Client, account: str, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """In another tab, or on another device. The second return, within seconds, is not asked about."""
    answered, go_on = asyncio.Event(), asyncio.Event()

    async def ask(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - whatever it returns
        result = await query_now(*arguments, **named)
        answered.set()
        await go_on.wait()
        return result

    monkeypatch.setattr("flows.refresh.query_now", ask)
    monkeypatch.setattr("api.pages.handlers.RETURN_WAIT_S", 60.0)
    client.app.context.limits._clock = lambda: 1000.0
    order = await place(client, account=account)
    address = f"/o/{token_of(order)}"
    returning = asyncio.create_task(buyer.get(f"{address}/return"))
    await answered.wait()
    match step:
        case "page":
            assert 'id="pay-link"' in section(await buyer.get(address))
        case "return":
            await buyer.get(f"{address}/return")
        case "click":
            await post(buyer, order, f"account={account}&method=page".encode())
    go_on.set()
    await returning
    assert not await is_waiting(client, order)


async def is_waiting(client: Client, order: dict[str, Any]) -> bool:
    state = await find_state(client.app.context.resources.db, order["order_no"])
    assert state is not None
    return paying.is_waiting(state)


# -- strangers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "headers", "text"),
    [
        (b"account=wechat-shop&method=native", {"sec_fetch_site": "cross-site"}, "choose on this page"),
        (b"account=alipay-shop&method=wap", {}, "not offered"),
        (b"account=wechat-shop&method=micropay", {}, "not offered"),
        (b"account=wechat-shop&method=jsapi", {}, "not offered"),
        (b"account=nobody&method=native", {}, "not offered"),
        (b"account=wechat-shop&method=", {}, "not offered"),
        (b"account=wechat-shop", {}, "could not be read"),
        (b"account=wechat-shop&account=alipay-shop&method=native", {}, "could not be read"),
        (b"account=wechat-shop&method=native&amount=1", {}, "could not be read"),
        (b'{"account":"wechat-shop","method":"native"}', {"content_type": "application/json"}, "could not be read"),
        (b"\xff\xfe", {}, "could not be read"),
        (b"", {}, "could not be read"),
    ],
)
async def test_a_click_that_is_none_starts_nothing_and_the_page_says_why(
    client: Client, buyer: Client, both: tuple[str, str], body: bytes, headers: dict[str, str], text: str
) -> None:
    order = await place(client, accounts=["wechat-shop"])
    answer = await post(buyer, order, body, **headers)
    assert answer.status == 303
    assert text in error(await buyer.get(answer.headers["location"]))
    assert await payments(client, order) == []


async def test_another_site_cannot_click_in_a_browser_without_fetch_metadata(
    client: Client, buyer: Client, both: tuple[str, str]
) -> None:
    order = await place(client, accounts=["wechat-shop"])
    headers = {"content-type": "application/x-www-form-urlencoded", "origin": "https://evil.test"}
    body = b"account=wechat-shop&method=native"
    answer = await buyer.call("POST", f"/o/{token_of(order)}/pay", body=body, headers=headers)
    assert answer.headers["location"].endswith("?error=origin")
    assert await payments(client, order) == []


async def test_a_click_from_an_address_that_guessed_too_often_is_not_told_that_there_is_no_order(
    client: Client, both: tuple[str, str]
) -> None:
    client.app.context.guesses._clock = lambda: 1000.0
    order = await place(client, accounts=["wechat-shop"])
    neighbour = Client(client.app, address="198.51.100.66")
    for _ in range(300):
        await neighbour.get("/o/x/status")
    answer = await post(neighbour, order, b"account=wechat-shop&method=native")
    assert (answer.status, answer.headers["location"]) == (303, f"/o/{token_of(order)}?error=limit")
    assert await payments(client, order) == []


async def test_a_forged_token_gets_the_page_of_no_order(client: Client, buyer: Client, both: tuple[str, str]) -> None:
    order = await place(client, accounts=["wechat-shop"])
    for token in (token_of(order)[:-1] + "~", "x" * 22, "x"):
        answer = await buyer.call("POST", f"/o/{token}/pay", body=b"account=wechat-shop&method=native")
        assert (answer.status, b"not valid" in answer.body) == (404, True)


async def test_a_flood_of_clicks_reaches_no_channel(
    app: App[Context], client: Client, buyer: Client, both: tuple[str, str], channel: Channel
) -> None:
    app.context.starts._clock = lambda: 1000.0
    order = await place(client, accounts=["wechat-shop"])
    pages = [await pay(buyer, order, "wechat-shop", "native") for _ in range(STARTS_PER_ORDER[0].count + 3)]
    assert [bool(error(page)) for page in pages[-4:]] == [False, True, True, True]
    calls = channel.simulation.traffic.counters
    assert (calls["calls_create"], calls["calls_query"]) == (1, STARTS_PER_ORDER[0].count - 1)
    other = await place(client, accounts=["wechat-shop"])
    assert error(await pay(buyer, other, "wechat-shop", "native")) == ""


async def test_one_address_cannot_flood_many_orders(
    app: App[Context], client: Client, buyer: Client, both: tuple[str, str]
) -> None:
    app.context.starts._clock = lambda: 1000.0
    order = await place(client, accounts=["wechat-shop"])
    while app.context.starts.take("another", buyer.address) or app.context.starts.take(
        order["order_no"] + "x", buyer.address
    ):
        app.context.starts._orders = type(app.context.starts._orders)(STARTS_PER_ORDER)
    assert "Too many" in error(await pay(buyer, order, "wechat-shop", "native"))
    assert await payments(client, order) == []
    neighbour = Client(app, address="198.51.100.8")
    assert error(await pay(neighbour, order, "wechat-shop", "native")) == ""


async def test_clicks_at_once_start_one_payment(client: Client, buyer: Client, both: tuple[str, str]) -> None:
    """In as many tabs, before there is anything to use again."""
    order = await place(client, accounts=list(both))
    await asyncio.gather(*(post(buyer, order, b"account=wechat-shop&method=native") for _ in range(5)))
    assert len(await payments(client, order)) == 1
    assert 'id="pay-code"' in section(await pay(buyer, order, "wechat-shop", "native"))


async def test_an_order_that_ends_while_a_payment_is_made_hands_out_no_link(
    client: Client, buyer: Client, both: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    is_called, may_answer = asyncio.Event(), asyncio.Event()

    async def call(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - whatever it returns
        is_called.set()
        await may_answer.wait()
        return await call_channel(*arguments, **named)

    monkeypatch.setattr("flows.create.call_channel", call)
    order = await place(client, accounts=list(both))
    click = asyncio.create_task(pay(buyer, order, "wechat-shop", "native"))
    await is_called.wait()
    ended = await client.post(f"/v1/orders/{order['order_no']}/close")
    may_answer.set()
    page = await click
    assert ended.status == 202, "the payment may be there yet"
    assert (">Payment processing</h1>" in page.body.decode(), section(page)) == (
        True,
        '<section id="pay" hidden></section>',
    )


async def test_an_account_that_was_switched_off_is_not_offered_any_more(
    client: Client, buyer: Client, both: tuple[str, str], resources: Resources, channel: Channel
) -> None:
    """Its link may still be in the buyer's hands."""
    order = await place(client, accounts=list(both))
    await pay(buyer, order, "alipay-shop", "page")
    await enable_account(resources.db, "alipay-shop", enabled=False)
    resources.accounts._read_at = -1e9
    page = await buyer.get(f"/o/{token_of(order)}")
    assert {account for account, _ in buttons(page)} == {"wechat-shop"}
    assert 'id="pay-link"' not in section(page)
    assert "not offered" in error(await pay(buyer, order, "alipay-shop", "page"))
    assert 'id="pay-once"' in section(await pay(buyer, order, "wechat-shop", "native"))


async def test_an_order_that_is_over_takes_no_click(client: Client, buyer: Client, both: tuple[str, str]) -> None:
    order = await place(client, accounts=["wechat-shop"])
    await client.post(f"/v1/orders/{order['order_no']}/close")
    page = await pay(buyer, order, "wechat-shop", "native")
    assert (">Closed</h1>" in page.body.decode(), section(page)) == (True, '<section id="pay" hidden></section>')
    assert await payments(client, order) == []


async def test_a_channel_that_does_not_answer_is_no_refusal(
    client: Client, buyer: Client, both: tuple[str, str], channel: Channel
) -> None:
    order = await place(client, accounts=["wechat-shop"])
    await channel.faults(down=True)
    assert "has not answered yet" in error(await pay(buyer, order, "wechat-shop", "native"))
    await channel.faults(down=False)
    assert len(await payments(client, order)) == 1
    assert error(await pay(buyer, order, "wechat-shop", "native")) == ""


async def test_a_stranger_cannot_write_onto_the_page(client: Client, buyer: Client, both: tuple[str, str]) -> None:
    order = await place(client, accounts=["wechat-shop"])
    for query in ("error=pay%20here", "error=<script>", "error=__class__", "account=x&method=y"):
        assert error(await buyer.get(f"/o/{token_of(order)}?{query}")) == ""


# -- the payer ---------------------------------------------------------------------------------------------------------


async def test_nobody_reads_the_payer_on_the_page_or_in_an_answer(
    client: Client, buyer: Client, both: tuple[str, str]
) -> None:
    order = await place(client, accounts=["wechat-shop"], payer={"openid": "o-canary"})
    page = await pay(buyer, order, "wechat-shop", "jsapi", user_agent=WECHAT)
    assert 'id="pay-call"' in section(page)
    address, token = f"/v1/orders/{order['order_no']}", token_of(order)
    read = [await client.get(each) for each in (address, f"{address}/timeline", "/v1/orders", "/v1/cases")]
    read += [page, await buyer.get(f"/o/{token}/status"), await buyer.get(f"/o/{token}")]
    assert [response.status for response in read] == [200] * 7
    assert not [response.body for response in read if b"canary" in response.body]


async def test_the_payer_goes_when_the_order_ends(client: Client, both: tuple[str, str], resources: Resources) -> None:
    order = await place(client, accounts=["wechat-shop"], payer={"openid": "o-1", "client_ip": "192.0.2.1"})
    assert await resources.db.fetchval("SELECT payer::text FROM orders") == '{"openid": "o-1", "client_ip": null}'
    await client.post(f"/v1/orders/{order['order_no']}/close")
    assert await resources.db.fetchval("SELECT payer FROM orders") is None

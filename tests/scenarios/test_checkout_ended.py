"""Checkouts that have ended, or are another buyer's: the order is paid all the same, once.

Orders were lost there: asked again, the same dead link came back, or another buyer's.
"""

from typing import Any

import msgspec

from simulator.shoppers.shop import ShopOrder
from tests.scenarios.five_channels import ledger_status, notified_once
from tests.scenarios.scenario import Scenario, number_of
from tests.servers import eventually

H5 = {"account": "wechatpay", "method": "h5", "payer": {"client_ip": "203.0.113.7"}}
JSAPI: dict[str, Any] = {"account": "wechatpay", "method": "jsapi", "payer": {"openid": "openid-a"}}
ANOTHER_BUYER = {"payer": {"openid": "openid-b"}}


async def test_a_buyer_with_a_dead_link_asks_again_and_pays(scenario: Scenario) -> None:
    """An h5 link lives five minutes; here the channel's are shorter. The number and the order stay the same."""
    await scenario.faults(links_end_after_s=0.05)
    terms = scenario.terms(**H5)
    order = await _place(scenario, terms)
    dead = _link(order)
    await eventually(lambda: _is_dead(scenario, dead))
    await scenario.faults()
    await _pass_five_minutes(scenario, order)

    order = await _place(scenario, terms)

    assert (len(order.payments), _link(order) != dead) == (1, True)
    paid = await scenario.http.post(_link(order), data={"action": "pay_lose_callback"})
    assert paid.status_code == 303
    await scenario.until("paid", order)
    await notified_once(scenario, order)


async def test_another_buyer_gets_a_number_of_their_own_and_the_first_one_takes_no_money(scenario: Scenario) -> None:
    """A prepay id belongs to one openid: with the first buyer's the second one cannot pay."""
    terms = scenario.terms(**JSAPI)
    first = await _place(scenario, terms)

    order = await _place(scenario, terms | ANOTHER_BUYER)

    assert len(order.payments) == 2
    assert await ledger_status(scenario, first) == "closed"
    await scenario.pay(order, "lost", nth=2)
    await scenario.until("paid", order)
    await notified_once(scenario, order)


async def test_money_of_the_first_buyer_pays_when_another_one_asks(scenario: Scenario) -> None:
    """Its callback is lost. A second number would be paid by the second buyer."""
    terms = scenario.terms(**JSAPI)
    order = await _place(scenario, terms)
    await scenario.put_off(order)
    await scenario.pay(order, "lost")

    order = await _place(scenario, terms | ANOTHER_BUYER)

    assert (order.status, len(order.payments)) == ("paid", 1)
    await notified_once(scenario, order)


async def test_an_order_that_paypal_has_forgotten_is_replaced(scenario: Scenario) -> None:
    """Nobody approved it in time: its link leads nowhere, and PayPal knows it no more."""
    await scenario.faults(links_end_after_s=0.05)
    order = await scenario.place("paypal", currency="USD")
    await scenario.put_off(order)
    dead = _link(order)
    await scenario.faults()
    await eventually(lambda: _is_closed_page(scenario, dead))
    await _pass_five_minutes(scenario, order)

    order = await scenario.add_payment(order, "paypal")

    assert len(order.payments) == 2
    await scenario.pay(order, "none", nth=2)
    await scenario.until("paid", order)
    await notified_once(scenario, order)
    assert await scenario.cases(number_of(order, 2)) == []


async def _place(scenario: Scenario, terms: dict[str, Any]) -> ShopOrder:
    response = await scenario.post("/v1/orders", terms)
    assert response.status_code in (200, 201), response.text
    return msgspec.json.decode(response.content, type=ShopOrder)


def _link(order: ShopOrder) -> str:
    url = order.payments[-1].pay_url
    assert url is not None
    return url


async def _is_dead(scenario: Scenario, link: str) -> bool:
    return (await scenario.http.get(link)).status_code == 410


async def _is_closed_page(scenario: Scenario, link: str) -> bool:
    return 'data-status="closed"' in (await scenario.http.get(link)).text


async def _pass_five_minutes(scenario: Scenario, order: ShopOrder) -> None:
    """Let the checkout's time pass on our side, which counts by the channel's documentation."""
    sql = """UPDATE payments SET checkout_ends_at = now(), created_at = created_at - interval '10 minutes'
              WHERE out_trade_no = $1"""
    assert await scenario.db.execute(sql, number_of(order)) == 1

"""A paid order whose money the channel takes back: before, it said for ever that the money was there.

The merchant shipped goods for money that was gone, and nobody answered the dispute in time. All over HTTP, at every
channel, with its own signatures.
"""

from typing import Any

import httpx
import pytest

from simulator.shoppers.shop import ShopOrder
from tests.scenarios.five_channels import CHANNELS, place_at
from tests.scenarios.scenario import Scenario, number_of
from tests.servers import eventually

CLAIMS = ("sandbox", "stripe", "paypal")


async def paid_order(scenario: Scenario, channel: str) -> ShopOrder:
    order = await place_at(scenario, channel)
    await scenario.pay(order)
    await scenario.until("paid", order)
    return order


async def dispute(scenario: Scenario, order: ShopOrder, *, is_silent: bool = False, **body: Any) -> dict[str, str]:
    """Let the buyer, the bank or the channel open or change a dispute; return its ids."""
    path = f"/control/payments/{number_of(order)}/disputes"
    document = {"dispute": body, "is_silent": is_silent}
    sent: dict[str, str] = await scenario.stack.control("POST", "channel", path, document)
    return sent


async def order_of(scenario: Scenario, order: ShopOrder) -> dict[str, Any]:
    """The order as the merchant's API shows it."""
    headers = {"authorization": f"Bearer {scenario.stack.api_key}"}
    url = f"{scenario.public_url}/v1/orders/{order.order_no}"
    response: httpx.Response = await scenario.http.get(url, headers=headers)
    document: dict[str, Any] = response.json()
    return document


async def has_status(scenario: Scenario, order: ShopOrder, public_status: str) -> bool:
    return bool((await order_of(scenario, order))["public_status"] == public_status)


async def is_in(scenario: Scenario, order: ShopOrder, *states: str) -> bool:
    """Whether the dispute of the order is in one of these states here."""
    disputes = (await order_of(scenario, order))["disputes"]
    return bool(disputes) and disputes[0]["state"] in states


@pytest.mark.parametrize("channel", CLAIMS)
async def test_disputed_order_says_that_its_money_is_not_there(scenario: Scenario, channel: str) -> None:
    order = await paid_order(scenario, channel)
    opened = await dispute(scenario, order, respond_by="2038-01-19T03:14:07Z")
    await eventually(lambda: has_status(scenario, order, "disputed"))
    shown = await order_of(scenario, order)
    assert (shown["status"], shown["disputes"][0]["withheld"]) == ("paid", True)
    assert shown["disputes"][0]["respond_by"] == "2038-01-19T03:14:07Z"
    assert 'data-status="disputed"' in (await scenario.http.get(order.order_page)).text
    assert await scenario.cases(number_of(order)) == ["disputed"]
    await eventually(lambda: scenario.was_notified(order, "order.disputed"))

    await dispute(scenario, order, dispute_id=opened["dispute_id"], state="won")
    await eventually(lambda: has_status(scenario, order, "paid"))
    assert await scenario.cases(number_of(order)) == []
    await eventually(lambda: scenario.was_notified(order, "order.dispute_ended"))
    await scenario.settle()


@pytest.mark.parametrize("channel", CHANNELS)
async def test_complaint_is_heard_at_every_channel(scenario: Scenario, channel: str) -> None:
    order = await paid_order(scenario, channel)
    opened = await dispute(scenario, order, kind="inquiry")
    await eventually(lambda: scenario.was_notified(order, "order.disputed"))
    assert await has_status(scenario, order, "paid"), "a complaint moves no money"
    await dispute(scenario, order, kind="inquiry", dispute_id=opened["dispute_id"], state="closed")
    await eventually(lambda: is_in(scenario, order, "closed", "won"))
    assert await scenario.cases(number_of(order)) == []
    await scenario.settle()


async def test_late_message_of_a_dispute_that_is_won_takes_nothing_back(scenario: Scenario) -> None:
    order = await paid_order(scenario, "stripe")
    opened = await dispute(scenario, order, is_silent=True)
    await dispute(scenario, order, dispute_id=opened["dispute_id"], state="won")
    await eventually(lambda: is_in(scenario, order, "won"))
    for _ in range(2):
        sent = await scenario.stack.control("POST", "channel", f"/control/disputes/{opened['callback_id']}/callback")
        assert sent["status"] == 200
    assert await is_in(scenario, order, "won")
    assert await has_status(scenario, order, "paid")
    assert not await scenario.was_notified(order, "order.disputed")
    await scenario.settle()


async def test_order_that_is_disputed_before_it_was_seen_paid_is_not_shipped(scenario: Scenario) -> None:
    """The callback was lost: the dispute was the first that came, and our query would have made the order paid."""
    order = await place_at(scenario, "sandbox")
    await scenario.put_off(order)
    await scenario.pay(order)
    opened = await dispute(scenario, order)
    await eventually(lambda: scenario.was_notified(order, "order.disputed"))
    assert await scenario.effect_of(order) is None
    await dispute(scenario, order, dispute_id=opened["dispute_id"], state="won")
    await scenario.until("paid", order)
    await eventually(lambda: scenario.was_notified(order, "order.paid"))
    await scenario.settle()


async def test_reversal_that_a_query_sees_first_is_no_refund_once_the_claim_is_won(scenario: Scenario) -> None:
    """PayPal books a reversal as a refund: it stayed counted, and its case open, for ever."""
    order = await paid_order(scenario, "paypal")
    await scenario.settle()
    reversal = await dispute(scenario, order, kind="reversal", state="lost", is_silent=True)
    await scenario.nodrop("orders", "refresh", order.order_no, "--reason", "x")
    sent = await scenario.stack.control("POST", "channel", f"/control/disputes/{reversal['callback_id']}/callback")
    assert sent["status"] == 200
    await eventually(lambda: has_status(scenario, order, "disputed"))
    claim = await dispute(scenario, order)
    await eventually(lambda: scenario.was_notified(order, "order.disputed"))
    await dispute(scenario, order, dispute_id=claim["dispute_id"], state="won")

    await eventually(lambda: has_status(scenario, order, "paid"))
    await eventually(lambda: scenario.was_notified(order, "order.dispute_ended"))
    [payment] = (await order_of(scenario, order))["payments"]
    assert (payment["refunded_amount"], payment["remaining_amount"]) == (0, payment["amount"])
    assert await scenario.cases(number_of(order)) == []
    await scenario.settle()


async def test_test_money_does_not_look_like_money(scenario: Scenario) -> None:
    order = await paid_order(scenario, "sandbox")
    shown = await order_of(scenario, order)
    assert (shown["live"], shown["payments"][0]["live"]) == (False, False)
    assert 'id="test"' in (await scenario.http.get(order.order_page)).text
    await scenario.settle()

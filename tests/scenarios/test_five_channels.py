"""The end of an order at each of the five channels: paid, never paid, half created, lied about.

The channels' own far sides speak five protocols; what nodrop makes of them has to be the same.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec
import pytest

from core.order import CaseReason
from simulator.shoppers.shop import ShopOrder
from storage.postgres.cases import resolve_cases
from tests.scenarios.five_channels import (
    BY_CALLBACK,
    CHANNELS,
    CLOSED_ON_REQUEST,
    CURRENCIES,
    Orders,
    calls_about,
    ledger_status,
    notified_once,
    of_each,
    open_page,
    pay_all,
    place_at,
    place_at_all,
    steps,
    tally,
)
from tests.scenarios.scenario import Scenario, number_of
from tests.servers import eventually

CALLBACKS = dict.fromkeys(CHANNELS, 1) | {"paypal": 2}
"""PayPal calls back when the buyer has agreed, and again when the money is taken."""


async def test_every_lost_callback_is_recovered_by_the_delayed_query(scenario: Scenario) -> None:
    """At PayPal the buyer has agreed and gone: the query finds that, and has the money taken, once."""
    orders = await place_at_all(scenario)
    await pay_all(scenario, orders, "lost")

    await scenario.until("paid", *orders.values())

    assert await of_each(orders, scenario.paid_by) == dict.fromkeys(CHANNELS, "query")
    assert (await calls_about(scenario, orders["paypal"])).count("capture") == 1
    await notified_once(scenario, *orders.values())


async def test_a_callback_pays_and_is_acknowledged_in_the_channels_own_words(scenario: Scenario) -> None:
    """Nothing else could have found the money, and what is not acknowledged would be sent again."""
    orders = await place_at_all(scenario)
    await scenario.put_off(*orders.values())
    await pay_all(scenario, orders, "none")

    await scenario.until("paid", *orders.values())

    assert {await scenario.paid_by(order) for order in orders.values()} <= BY_CALLBACK
    await notified_once(scenario, *orders.values())
    await eventually(partial(_all_are_acknowledged, scenario, orders))
    tallies = await of_each(orders, partial(tally, scenario))
    assert {(tally.refused, tally.forged_acknowledged) for tally in tallies.values()} == {(0, 0)}
    assert {channel: tally.sent - tally.forged for channel, tally in tallies.items()} == CALLBACKS


async def test_what_nobody_pays_is_closed_at_its_deadline_here_and_there(scenario: Scenario) -> None:
    """A session of Stripe's lives longer than this order, so nodrop closes it: query, close, query."""
    orders = await place_at_all(scenario, expires_in_s=3)
    await scenario.put_off(*orders.values())

    await scenario.until("closed", *orders.values())

    assert await of_each(orders, partial(ledger_status, scenario)) == dict.fromkeys(CHANNELS, "closed") | {
        "paypal": "unpaid"
    }
    assert await steps(scenario, orders["stripe"]) == ["create", "query", "close", "query"]
    await notified_once(scenario, *orders.values(), type_="order.closed")


async def test_an_order_that_ends_early_is_asked_about_closed_and_asked_about_again(scenario: Scenario) -> None:
    orders = await place_at_all(scenario, CLOSED_ON_REQUEST)
    await scenario.put_off(*orders.values())

    for order in orders.values():
        assert (await scenario.close(order)).status_code == 200

    assert await of_each(orders, scenario.status) == dict.fromkeys(CLOSED_ON_REQUEST, "closed")
    assert await of_each(orders, partial(ledger_status, scenario)) == dict.fromkeys(CLOSED_ON_REQUEST, "closed")
    call_kinds = (await of_each(orders, partial(steps, scenario))).values()
    assert all(kinds == ["create", "query", "close", "query"] for kinds in call_kinds), call_kinds


async def test_a_code_that_nobody_scanned_is_closed_when_it_can_be_scanned_no_more(scenario: Scenario) -> None:
    """Alipay knows no trade before that, and a code that is out can still be paid: *missing* is no end."""
    order = await scenario.place("alipay", expires_in_s=3)
    await scenario.put_off(order)

    assert (await scenario.close(order)).status_code == 202
    assert await scenario.status(order) == "paying"

    await scenario.until("closed", order)
    assert await ledger_status(scenario, order) == "closed"


@pytest.mark.parametrize("agreed", ["before the end", "after the end"])
async def test_what_a_buyer_agreed_to_is_not_taken_once_the_order_is_over(scenario: Scenario, agreed: str) -> None:
    """PayPal allows a capture for hours; a buyer who approved has paid nothing, and no page says otherwise."""
    order = await place_at(scenario, "paypal", expires_in_s=3)
    await scenario.put_off(order)
    if agreed == "before the end":
        await scenario.pay(order, "lost")
        await scenario.until("closed", order)
    else:
        await scenario.until("closed", order)
        await scenario.pay(order, "none")
        await eventually(partial(_is_handled, scenario, order))

    assert "capture" not in await calls_about(scenario, order)
    assert (await ledger_status(scenario, order), await scenario.status(order)) == ("unpaid", "closed")
    assert not await scenario.was_notified(order, "order.paid")


async def test_a_creation_whose_answer_was_lost_is_replayed_into_the_same_payment(scenario: Scenario) -> None:
    begun = await _created_unanswered(scenario)

    orders: Orders = {}
    for channel, order in begun.items():
        orders[channel] = await scenario.place(channel, currency=order.currency, order_no=order.order_no)
        await open_page(scenario, orders[channel])

    assert await of_each(orders, _number) == await of_each(begun, _number)
    assert await _payments_at_channels(scenario, begun) == len(CHANNELS)
    await pay_all(scenario, orders, "lost")
    await scenario.until("paid", *orders.values())


async def test_a_creation_whose_answer_was_lost_and_that_nobody_replays_ends_at_its_deadline(
    scenario: Scenario,
) -> None:
    """A query by the channel's id needs the id first: another create call returns the same payment."""
    begun = await _created_unanswered(scenario, expires_in_s=3)

    await scenario.until("closed", *begun.values())

    assert await _payments_at_channels(scenario, begun) == len(CHANNELS)
    assert await of_each(begun, partial(ledger_status, scenario)) == dict.fromkeys(CHANNELS, "closed") | {
        "paypal": "unpaid"
    }


async def test_forged_callbacks_are_refused_and_change_nothing(scenario: Scenario) -> None:
    """Two for each payment: signed by somebody who knows all but the secrets, and altered after it was signed."""
    await scenario.faults(forged=1.0)
    orders = await place_at_all(scenario)
    await scenario.put_off(*orders.values())
    await eventually(partial(_all_are_forged, scenario, orders))

    tallies = await of_each(orders, partial(tally, scenario))

    assert {
        channel: (tally.last_status, tally.forged_acknowledged) for channel, tally in tallies.items()
    } == dict.fromkeys(CHANNELS, (401, 0))
    assert await of_each(orders, scenario.status) == dict.fromkeys(CHANNELS, "paying")
    for order in orders.values():
        assert await scenario.callbacks(number_of(order)) == []
    await scenario.faults()
    await pay_all(scenario, orders, "lost")
    await scenario.make_due(*orders.values())
    await scenario.until("paid", *orders.values())


async def test_another_amount_well_signed_is_a_case_and_pays_nothing(scenario: Scenario) -> None:
    """In the callback and in the answer to the query. Of a doubted order no money is taken before a person looked."""
    await scenario.faults(affected=["query"], wrong_amount_in_query=1.0)
    orders = await place_at_all(scenario)
    await scenario.put_off(*orders.values())
    await pay_all(scenario, orders, "wrong_amount")

    for order in orders.values():
        assert await eventually(partial(scenario.cases, number_of(order))) == ["amount_mismatch"]
        await eventually(partial(_is_acknowledged, scenario, order))
    assert await of_each(orders, scenario.status) == dict.fromkeys(CHANNELS, "paying")

    await scenario.faults()
    paypal = orders["paypal"]
    await scenario.make_due(*orders.values())
    await scenario.until("paid", *(order for order in orders.values() if order is not paypal))
    assert "capture" not in await calls_about(scenario, paypal)
    resolved = await resolve_cases(
        scenario.db, paypal.order_no, CaseReason.AMOUNT_MISMATCH, resolution="looked at", by="operator"
    )
    assert resolved == 1
    await scenario.until("paid", paypal)


async def _payments_at_channels(scenario: Scenario, orders: Orders) -> int:
    """Return the count of payments of these orders at the channels: those of earlier tests may still come."""
    sql = "SELECT out_trade_no FROM payments WHERE order_no = ANY($1::text[])"
    rows = await scenario.db.fetch(sql, [order.order_no for order in orders.values()])
    numbers = {row["out_trade_no"] for row in rows}
    return sum(payment.out_trade_no in numbers for payment in (await scenario.ledger()).payments)


async def _created_unanswered(scenario: Scenario, **terms: Any) -> Orders:
    """The channels have them and their answers were lost, so there is nothing yet to pay by."""
    await scenario.faults(create_answer_lost=1.0)
    begun = {}
    for channel, currency in CURRENCIES.items():
        response = await scenario.post("/v1/orders", scenario.terms(account=channel, currency=currency, **terms))
        assert response.status_code == 201, response.text
        begun[channel] = msgspec.json.decode(response.content, type=ShopOrder)
        assert begun[channel].payments[0].checkout is None
    await scenario.faults()
    return begun


async def _number(order: ShopOrder) -> str:
    return number_of(order)


async def _all_are_acknowledged(scenario: Scenario, orders: Orders) -> bool:
    tallies = await of_each(orders, partial(tally, scenario))
    return {channel: tally.acknowledged for channel, tally in tallies.items()} == CALLBACKS


async def _all_are_forged(scenario: Scenario, orders: Orders) -> bool:
    tallies = await of_each(orders, partial(tally, scenario))
    return {tally.sent for tally in tallies.values()} == {2}


async def _is_acknowledged(scenario: Scenario, order: ShopOrder) -> bool:
    return (await tally(scenario, order)).acknowledged > 0


async def _is_handled(scenario: Scenario, order: ShopOrder) -> bool:
    return [row["is_handled"] for row in await scenario.callbacks(number_of(order))] == [True]

"""The money goes back in the channel's console before nodrop sees it: goods would be shipped for what was given back.

At each of the five channels. WeChat Pay's query does not tell how much went back.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta, timezone
from functools import partial

import pytest

from cli.reconcile import NEEDS_PERSON
from core.order import PaymentKey
from simulator.shoppers.shop import ShopOrder
from storage.postgres.orders import find_state_by_payment
from tests.scenarios.five_channels import (
    CHANNELS,
    add_accounts,
    late_money,
    notified_once,
    open_page,
    pay_all,
    place_at,
    place_at_all,
)
from tests.scenarios.scenario import AMOUNT, Scenario, number_of
from tests.servers import eventually

BEIJING = timezone(timedelta(hours=8))
WITHOUT_TOTAL = "wechatpay"
IN_PART = 88

RefundedOf = tuple[str, int | None, int | None]
"""Status of the order's first payment, what was given back of it, and what is left."""


async def refund_in_console(scenario: Scenario, order: ShopOrder, amount: int | None = None) -> None:
    """Refund the order's first payment as the merchant does in the channel's console."""
    path = f"/control/payments/{number_of(order)}/refund"
    await scenario.stack.control("POST", "channel", path, {"amount": amount})


async def first_payment(scenario: Scenario, order: ShopOrder) -> RefundedOf:
    """As the API shows it."""
    payment = (await scenario.view(order))["payments"][0]
    return payment["status"], payment["refunded_amount"], payment["remaining_amount"]


def gone(channel: str) -> RefundedOf:
    """A payment that was wholly refunded, as far as a query tells."""
    return ("paid", None, None) if channel == WITHOUT_TOTAL else ("paid", AMOUNT, 0)


def case_of(channel: str) -> str:
    return "refund_amount_unknown" if channel == WITHOUT_TOTAL else "refunded_outside"


async def pays_nothing(scenario: Scenario, channel: str, order: ShopOrder, status: str) -> None:
    """Recorded as paid and refunded, with a case and `order.refunded`; nothing says that the order is paid."""
    await eventually(partial(_is, scenario, order, gone(channel)))
    await notified_once(scenario, order, type_="order.refunded")
    assert await scenario.status(order) == status
    assert await scenario.cases(number_of(order)) == [case_of(channel)]
    assert not await scenario.was_notified(order, "order.paid")
    assert 'data-status="paid"' not in (await scenario.http.get(order.order_page)).text
    assert await scenario.effect_of(order) is None


async def _is(scenario: Scenario, order: ShopOrder, expected: RefundedOf) -> bool:
    return await first_payment(scenario, order) == expected


async def test_money_that_went_back_before_the_first_query_pays_no_order_at_any_channel(scenario: Scenario) -> None:
    """The callback is lost, the merchant refunds the payment, and our query finds it. The order can still be paid."""
    await scenario.faults(lost=1.0, refunded_in_console=1.0)
    orders = await place_at_all(scenario)
    await pay_all(scenario, orders)
    await asyncio.gather(*(pays_nothing(scenario, channel, order, "paying") for channel, order in orders.items()))

    await scenario.faults()
    for channel, order in orders.items():
        again = await scenario.add_payment(order, channel)
        await open_page(scenario, again, nth=2)
        await scenario.pay(again, nth=2)
    await scenario.until("paid", *orders.values())
    await notified_once(scenario, *orders.values())


async def test_the_callback_of_money_that_went_back_pays_no_order_at_any_channel(scenario: Scenario) -> None:
    """The callback says paid, and was true when it was made."""
    await scenario.faults(refunded_in_console=1.0)
    orders = await place_at_all(scenario)
    await asyncio.gather(*(scenario.pay(order, None) for order in orders.values()))

    for channel, order in orders.items():
        await eventually(partial(_has_gone, scenario, channel, order))
        assert await scenario.status(order) == "paying"
        assert not await scenario.was_notified(order, "order.paid")


async def _has_gone(scenario: Scenario, channel: str, order: ShopOrder) -> bool:
    """At WeChat Pay the refund's notice names the refund, and so the sum."""
    return await first_payment(scenario, order) in (gone(channel), ("paid", AMOUNT, 0))


async def test_an_order_whose_money_went_back_closes_at_its_deadline(scenario: Scenario) -> None:
    await scenario.faults(lost=1.0, refunded_in_console=1.0)
    orders = await place_at_all(scenario)
    await pay_all(scenario, orders)
    await asyncio.gather(*(pays_nothing(scenario, channel, order, "paying") for channel, order in orders.items()))

    for channel, order in orders.items():
        await scenario.close(order)
        await scenario.until("closed", order)
        shown = "review" if channel == WITHOUT_TOTAL else "refunded"
        assert f'data-status="{shown}"' in (await scenario.http.get(order.order_page)).text
        assert not await scenario.was_notified(order, "order.paid")


async def test_late_money_that_went_back_before_it_was_seen_leaves_the_order_closed(scenario: Scenario) -> None:
    """Money after close, refunded in the console; the refund's callback must not make the order paid."""
    await scenario.faults(refunded_in_console=1.0)
    placed = dict(zip(CHANNELS, await asyncio.gather(*(late_money(scenario, each) for each in CHANNELS)), strict=True))

    for channel, order in placed.items():
        await eventually(partial(_has_gone, scenario, channel, order))
        assert await scenario.status(order) == "closed"
        await eventually(partial(scenario.was_notified, order, "order.refunded"))
        assert not await scenario.was_notified(order, "order.paid")
        assert (await scenario.view(order))["public_status"] in ("refunded", "review")


async def test_flagged_late_money_that_went_back_is_not_accepted(scenario: Scenario) -> None:
    """The operator accepts money that the console has given back since: there is nothing to ship for."""
    await add_accounts(scenario, "{}-flag", late_policy="flag")
    making = (late_money(scenario, each, f"{each}-flag") for each in CHANNELS)
    placed = dict(zip(CHANNELS, await asyncio.gather(*making), strict=True))
    for order in placed.values():
        await eventually(partial(scenario.was_notified, order, "order.paid_late"))
        await refund_in_console(scenario, order)
        await eventually(partial(_is, scenario, order, ("paid", AMOUNT, 0)))

        code, out = await scenario.nodrop("orders", "accept", order.order_no, "--by", "anna", "--reason", "x")

        assert (code != 0, await scenario.status(order)) == (True, "closed"), out
        assert not await scenario.was_notified(order, "order.paid")
        await notified_once(scenario, order, type_="order.refunded")


async def test_money_refunded_in_part_pays_the_order_and_says_what_is_left(scenario: Scenario) -> None:
    """Alipay's query shows no refund in part; WeChat Pay's shows one without a sum."""
    await scenario.faults(lost=1.0, refunded_in_console=1.0, refunded_in_part=1.0)
    orders = await place_at_all(scenario)
    await pay_all(scenario, orders)
    with_sums = {channel: order for channel, order in orders.items() if channel not in (WITHOUT_TOTAL, "alipay")}

    await scenario.until("paid", *(order for channel, order in orders.items() if channel != WITHOUT_TOTAL))

    for order in with_sums.values():
        assert await first_payment(scenario, order) == ("paid", AMOUNT // 2, AMOUNT // 2)
        assert await scenario.cases(number_of(order)) == ["refunded_outside"]
    await pays_nothing(scenario, WITHOUT_TOTAL, orders[WITHOUT_TOTAL], "paying")


async def test_a_refund_notice_tells_the_sum_and_a_part_pays_the_order(scenario: Scenario) -> None:
    """WeChat Pay: the payment's callback is lost, and the notice of a refund in part arrives."""
    order = await place_at(scenario, WITHOUT_TOTAL)
    await scenario.put_off(order)
    await scenario.pay(order, "lost")

    await refund_in_console(scenario, order, IN_PART)

    await scenario.until("paid", order)
    assert await first_payment(scenario, order) == ("paid", IN_PART, AMOUNT - IN_PART)
    assert await scenario.cases(number_of(order)) == ["refunded_outside"]
    await notified_once(scenario, order)


async def test_an_unknown_sum_that_is_known_later_to_be_a_part_pays_the_order(scenario: Scenario) -> None:
    """WeChat Pay: both callbacks are lost and the query tells no sum; the next notice names its refund."""
    await scenario.faults(lost=1.0)
    order = await place_at(scenario, WITHOUT_TOTAL)
    await scenario.put_off(order)
    await scenario.pay(order, "lost")
    await refund_in_console(scenario, order, IN_PART)
    await scenario.make_due(order)
    await pays_nothing(scenario, WITHOUT_TOTAL, order, "paying")

    await scenario.faults()
    await refund_in_console(scenario, order, 1)

    await scenario.until("paid", order)
    assert await scenario.cases(number_of(order)) == ["refunded_outside"]


async def test_alipays_notice_of_a_refund_in_part_is_added_to_the_query(scenario: Scenario) -> None:
    """Its query shows no refund in part; the sum in the notice would be lost with the query that confirms it."""
    order = await place_at(scenario, "alipay")
    await scenario.put_off(order)
    await scenario.pay(order, "lost")

    await refund_in_console(scenario, order, IN_PART)

    await scenario.until("paid", order)
    assert await first_payment(scenario, order) == ("paid", IN_PART, AMOUNT - IN_PART)
    assert await scenario.cases(number_of(order)) == ["refunded_outside"]


@pytest.mark.parametrize("channel", [WITHOUT_TOTAL, "alipay"])
async def test_the_statement_names_a_refund_whose_sum_the_query_does_not_tell(scenario: Scenario, channel: str) -> None:
    await scenario.faults(lost=1.0, refunded_in_console=1.0, refunded_in_part=1.0)
    order = await place_at(scenario, channel)
    await scenario.pay(order)
    await eventually(partial(_was_seen, scenario, order))

    day = datetime.now(BEIJING).date().isoformat()
    code, out = await scenario.nodrop("reconcile", "--account", channel, "--date", day)

    assert code in (0, NEEDS_PERSON), out
    assert await first_payment(scenario, order) == ("paid", AMOUNT // 2, AMOUNT // 2)
    await scenario.until("paid", order)


async def _was_seen(scenario: Scenario, order: ShopOrder) -> bool:
    state = await find_state_by_payment(scenario.db, PaymentKey(order.payments[0].account, number_of(order)))
    return state is not None and state.payments[0].status == "paid"

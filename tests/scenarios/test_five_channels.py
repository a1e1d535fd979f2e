"""What becomes of an order at each of the five channels: paid, never paid, half created, lied about.

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
    of_each,
    open_page,
    pay_everywhere,
    place_at,
    place_everywhere,
    steps,
    tally,
    there,
    told_once,
)
from tests.scenarios.scenario import Scene, number_of
from tests.servers import eventually

CALLBACKS = dict.fromkeys(CHANNELS, 1) | {"paypal": 2}
"""PayPal calls back when the buyer has agreed, and again when the money is taken."""


async def test_every_lost_callback_is_recovered_by_the_delayed_query(scene: Scene) -> None:
    """At PayPal the buyer has agreed and gone: the query finds that, and has the money taken, once."""
    orders = await place_everywhere(scene)
    await pay_everywhere(scene, orders, "lost")

    await scene.until("paid", *orders.values())

    assert await of_each(orders, scene.paid_by) == dict.fromkeys(CHANNELS, "query")
    assert (await calls_about(scene, orders["paypal"])).count("capture") == 1
    await told_once(scene, *orders.values())


async def test_a_callback_pays_and_is_acknowledged_in_the_channels_own_words(scene: Scene) -> None:
    """Nothing else could have found the money, and what is not acknowledged would be sent again."""
    orders = await place_everywhere(scene)
    await scene.put_off(*orders.values())
    await pay_everywhere(scene, orders, "none")

    await scene.until("paid", *orders.values())

    assert {await scene.paid_by(order) for order in orders.values()} <= BY_CALLBACK
    await told_once(scene, *orders.values())
    await eventually(partial(_all_are_acknowledged, scene, orders))
    fared = await of_each(orders, partial(tally, scene))
    assert {(told.refused, told.forged_acknowledged) for told in fared.values()} == {(0, 0)}
    assert {channel: told.sent - told.forged for channel, told in fared.items()} == CALLBACKS


async def test_what_nobody_pays_is_closed_at_its_deadline_here_and_there(scene: Scene) -> None:
    """A session of Stripe's lives longer than this order, so it is ended by us: asked, ended, asked again."""
    orders = await place_everywhere(scene, expires_in_s=3)
    await scene.put_off(*orders.values())

    await scene.until("closed", *orders.values())

    assert await of_each(orders, partial(there, scene)) == dict.fromkeys(CHANNELS, "closed") | {"paypal": "unpaid"}
    assert await steps(scene, orders["stripe"]) == ["create", "query", "close", "query"]
    await told_once(scene, *orders.values(), type_="order.closed")


async def test_an_order_that_ends_early_is_asked_about_closed_and_asked_about_again(scene: Scene) -> None:
    orders = await place_everywhere(scene, CLOSED_ON_REQUEST)
    await scene.put_off(*orders.values())

    for order in orders.values():
        assert (await scene.close(order)).status_code == 200

    assert await of_each(orders, scene.status) == dict.fromkeys(CLOSED_ON_REQUEST, "closed")
    assert await of_each(orders, partial(there, scene)) == dict.fromkeys(CLOSED_ON_REQUEST, "closed")
    asked = (await of_each(orders, partial(steps, scene))).values()
    assert all(kinds == ["create", "query", "close", "query"] for kinds in asked), asked


async def test_a_code_that_nobody_scanned_is_closed_when_it_can_be_scanned_no_more(scene: Scene) -> None:
    """Alipay knows no trade before that, and a code that is out can still be paid: *missing* is no end."""
    order = await scene.place("alipay", expires_in_s=3)
    await scene.put_off(order)

    assert (await scene.close(order)).status_code == 202
    assert await scene.status(order) == "paying"

    await scene.until("closed", order)
    assert await there(scene, order) == "closed"


@pytest.mark.parametrize("agreed", ["before the end", "after the end"])
async def test_what_a_buyer_agreed_to_is_not_taken_once_the_order_is_over(scene: Scene, agreed: str) -> None:
    """PayPal would capture for hours still; whoever agreed has paid nothing, and is told nothing else."""
    order = await place_at(scene, "paypal", expires_in_s=3)
    await scene.put_off(order)
    if agreed == "before the end":
        await scene.pay(order, "lost")
        await scene.until("closed", order)
    else:
        await scene.until("closed", order)
        await scene.pay(order, "none")
        await eventually(partial(_is_handled, scene, order))

    assert "capture" not in await calls_about(scene, order)
    assert (await there(scene, order), await scene.status(order)) == ("unpaid", "closed")
    assert not await scene.was_told(order, "order.paid")


async def test_a_creation_whose_answer_was_lost_is_replayed_into_the_same_payment(scene: Scene) -> None:
    known = len((await scene.ledger()).payments)
    begun = await _created_unanswered(scene)

    orders: Orders = {}
    for channel, order in begun.items():
        orders[channel] = await scene.place(channel, currency=order.currency, order_no=order.order_no)
        await open_page(scene, orders[channel])

    assert await of_each(orders, _number) == await of_each(begun, _number)
    assert len((await scene.ledger()).payments) == known + len(CHANNELS)
    await pay_everywhere(scene, orders, "lost")
    await scene.until("paid", *orders.values())


async def test_a_creation_whose_answer_was_lost_and_that_nobody_replays_ends_at_its_deadline(scene: Scene) -> None:
    """What is asked by the channel's own id has to be found first: created once more, it is the same payment."""
    known = len((await scene.ledger()).payments)
    begun = await _created_unanswered(scene, expires_in_s=3)

    await scene.until("closed", *begun.values())

    assert len((await scene.ledger()).payments) == known + len(CHANNELS)
    assert await of_each(begun, partial(there, scene)) == dict.fromkeys(CHANNELS, "closed") | {"paypal": "unpaid"}


async def test_forged_callbacks_are_refused_and_change_nothing(scene: Scene) -> None:
    """Two for each payment: signed by somebody who knows all but the secrets, and altered after it was signed."""
    await scene.faults(forged=1.0)
    orders = await place_everywhere(scene)
    await scene.put_off(*orders.values())
    await eventually(partial(_all_are_forged, scene, orders))

    fared = await of_each(orders, partial(tally, scene))

    assert {channel: (told.last_status, told.forged_acknowledged) for channel, told in fared.items()} == dict.fromkeys(
        CHANNELS, (401, 0)
    )
    assert await of_each(orders, scene.status) == dict.fromkeys(CHANNELS, "paying")
    for order in orders.values():
        assert await scene.callbacks(number_of(order)) == []
    await scene.faults()
    await pay_everywhere(scene, orders, "lost")
    await scene.make_due(*orders.values())
    await scene.until("paid", *orders.values())


async def test_another_amount_well_signed_is_a_case_and_pays_nothing(scene: Scene) -> None:
    """In the callback and in the answer to the query. Of a doubted order no money is taken before a person looked."""
    await scene.faults(affected=["query"], wrong_amount_in_query=1.0)
    orders = await place_everywhere(scene)
    await scene.put_off(*orders.values())
    await pay_everywhere(scene, orders, "wrong_amount")

    for order in orders.values():
        assert await eventually(partial(scene.cases, number_of(order))) == ["amount_mismatch"]
        await eventually(partial(_is_acknowledged, scene, order))
    assert await of_each(orders, scene.status) == dict.fromkeys(CHANNELS, "paying")

    await scene.faults()
    paypal = orders["paypal"]
    await scene.make_due(*orders.values())
    await scene.until("paid", *(order for order in orders.values() if order is not paypal))
    assert "capture" not in await calls_about(scene, paypal)
    resolved = await resolve_cases(
        scene.db, paypal.order_no, CaseReason.AMOUNT_MISMATCH, resolution="looked at", by="operator"
    )
    assert resolved == 1
    await scene.until("paid", paypal)


async def _created_unanswered(scene: Scene, **terms: Any) -> Orders:
    """The channels have them and their answers were lost, so there is nothing yet to pay by."""
    await scene.faults(create_answer_lost=1.0)
    begun = {}
    for channel, currency in CURRENCIES.items():
        answer = await scene.post("/v1/orders", scene.terms(account=channel, currency=currency, **terms))
        assert answer.status_code == 201, answer.text
        begun[channel] = msgspec.json.decode(answer.content, type=ShopOrder)
        assert begun[channel].payments[0].checkout is None
    await scene.faults()
    return begun


async def _number(order: ShopOrder) -> str:
    return number_of(order)


async def _all_are_acknowledged(scene: Scene, orders: Orders) -> bool:
    fared = await of_each(orders, partial(tally, scene))
    return {channel: told.acknowledged for channel, told in fared.items()} == CALLBACKS


async def _all_are_forged(scene: Scene, orders: Orders) -> bool:
    fared = await of_each(orders, partial(tally, scene))
    return {told.sent for told in fared.values()} == {2}


async def _is_acknowledged(scene: Scene, order: ShopOrder) -> bool:
    return (await tally(scene, order)).acknowledged > 0


async def _is_handled(scene: Scene, order: ShopOrder) -> bool:
    return [row["is_handled"] for row in await scene.callbacks(number_of(order))] == [True]

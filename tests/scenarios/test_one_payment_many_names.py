"""One channel payment under several names: a second account of the merchant, a watch of another order's payment, the
ids that a shop gave to its own payments.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from channels.adapters import open_channel
from channels.transport import Transport
from core.order import PaymentKey
from simulator.shoppers.shop import ShopOrder
from storage.postgres.accounts import put_account
from storage.postgres.orders import find_state_by_payment
from storage.sealing import Sealer
from tests.scenarios.five_channels import CHANNELS, CURRENCIES, place_at
from tests.scenarios.scenario import AMOUNT, Scenario, number_of
from tests.servers import eventually


async def watch(scenario: Scenario, account: str, number: str, reference: str | None, **terms: Any) -> str:
    """Watch a payment for a new order; return the order's number. An account that is new is known after a second."""
    body = {**terms, "account": account, "watch": {"out_trade_no": number, "channel_reference": reference}}

    async def is_placed() -> bool:
        response = await scenario.post("/v1/orders", body)
        assert response.status_code in (201, 404), response.text
        return response.status_code == 201

    await eventually(is_placed)
    return str(terms["order_no"])


def unsettled(scenario: Scenario, channel: str) -> dict[str, Any]:
    """Terms of an order that stays open with its case: a person has to decide about it."""
    terms = scenario.terms(currency=CURRENCIES[channel])
    scenario._placed.remove(terms["order_no"])
    return terms


async def reference_of(scenario: Scenario, order: ShopOrder, account: str) -> str | None:
    state = await find_state_by_payment(scenario.db, PaymentKey(account, number_of(order)))
    assert state is not None
    return state.payments[0].channel_reference


@asynccontextmanager
async def elsewhere(scenario: Scenario, account: str) -> AsyncIterator[Any]:
    """The account as another system of the merchant calls it."""
    async with Transport(timeout_s=60) as transport:
        yield open_channel(await scenario.stack.open_account(account), transport)


async def order_cases(scenario: Scenario, order_no: str) -> list[str]:
    sql = "SELECT reason FROM cases WHERE order_no = $1 AND resolved_at IS NULL"
    return [row["reason"] for row in await scenario.db.fetch(sql, order_no)]


async def pay(scenario: Scenario, number: str, callback: str) -> None:
    path = f"/control/payments/{number}/pay"
    await scenario.stack.control("POST", "channel", path, {"at_fault": {"callback": callback}})


# -- two accounts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channel", CHANNELS)
async def test_one_channel_payment_pays_one_order_whatever_the_account_is_called(
    scenario: Scenario, channel: str
) -> None:
    """The same credentials under a second name, and a watch of the first order's payment there: it paid both."""
    twin = replace(await scenario.stack.open_account(channel), name=f"{channel}-twin")
    await put_account(scenario.db, Sealer.from_setting(scenario.stack.master_key), twin)
    order = await place_at(scenario, channel)
    await scenario.pay(order, "lost")
    await scenario.until("paid", order)

    reference = await reference_of(scenario, order, channel)
    second = await watch(scenario, twin.name, number_of(order), reference, **unsettled(scenario, channel))

    assert await eventually(lambda: order_cases(scenario, second)) == ["transaction_claimed_twice"]
    assert await scenario.refresh(second) == "paying"
    assert await order_cases(scenario, order.order_no) == []


# -- a watch of another order's payment --------------------------------------------------------------------------------


async def test_the_money_of_a_watched_payment_goes_to_the_order_that_it_names(scenario: Scenario) -> None:
    """The PaymentIntent of our Checkout Session, watched for another order: its metadata has our number."""
    order = await place_at(scenario, "stripe")
    await scenario.put_off(order)
    async with elsewhere(scenario, "stripe") as stripe:
        session = await stripe._api.get(f"/v1/checkout/sessions/{await reference_of(scenario, order, 'stripe')}", [])
    intent = msgspec.json.decode(session.body)["payment_intent"]
    intent_id = intent if isinstance(intent, str) else intent["id"]
    claimed = await watch(scenario, "stripe", "claimed-000001", intent_id, **unsettled(scenario, "stripe"))

    await scenario.pay(order, "lost")

    assert await eventually(lambda: order_cases(scenario, claimed)) == ["number_mismatch"]
    await scenario.until("paid", order)
    assert await scenario.status(claimed) == "paying"


@pytest.mark.parametrize("channel", ["stripe", "paypal"])
async def test_a_payment_of_ours_cannot_be_watched_for_another_order(scenario: Scenario, channel: str) -> None:
    order = await place_at(scenario, channel)
    watched = {"out_trade_no": "claimed-000002", "channel_reference": await reference_of(scenario, order, channel)}
    terms = unsettled(scenario, channel) | {"account": channel, "watch": watched}

    response = await scenario.post("/v1/orders", terms)

    assert (response.status_code, await scenario.status(terms["order_no"])) == (409, None)
    await scenario.pay(order, "lost")
    await scenario.until("paid", order)


# -- several ids -------------------------------------------------------------------------------------------------------


async def create_at_paypal(scenario: Scenario, number: str, custom_id: str, invoice_id: str) -> str:
    """Create an order as a shop does that has ids of its own; return PayPal's id."""
    amount = {"currency_code": "USD", "value": f"{AMOUNT / 100:.2f}"}
    unit = {"amount": amount, "custom_id": custom_id, "invoice_id": invoice_id}
    body = msgspec.json.encode({"intent": "CAPTURE", "purchase_units": [unit]})
    async with elsewhere(scenario, "paypal") as paypal:
        headers = {"PayPal-Request-Id": number}
        response = await paypal._api.call("POST", "/v2/checkout/orders", body, headers=headers)
    return str(msgspec.json.decode(response.body)["id"])


async def capture(scenario: Scenario, order_id: str) -> None:
    async with elsewhere(scenario, "paypal") as paypal:
        await paypal._api.call("POST", f"/v2/checkout/orders/{order_id}/capture", b"{}")


@pytest.mark.parametrize(
    ("number", "custom_id", "invoice_id"),
    [
        ("7001", '{"order_id":7001}', "WC-7001"),
        ("WC-7002", "7002", "WC-7002"),
        ("7003", "customer token 5f3", "SHOP/7003"),
    ],
)
@pytest.mark.parametrize("callback", ["lost", "none"])
async def test_a_shops_payment_at_paypal_is_paid_whichever_of_its_ids_is_watched(
    scenario: Scenario, number: str, custom_id: str, invoice_id: str, callback: str
) -> None:
    """The first of the two ids was taken for the number: a case, and *processing* for ever."""
    number = f"{number}-{callback}" if len(number) > 4 else number.replace("7", "8" if callback == "lost" else "9")
    order_id = await create_at_paypal(scenario, number, custom_id, invoice_id)
    order_no = await watch(scenario, "paypal", number, order_id, **scenario.terms(currency="USD"))
    if callback == "none":
        await scenario.put_off(order_no)
    await pay(scenario, number, callback)

    await capture(scenario, order_id)

    await scenario.until("paid", order_no)
    assert await order_cases(scenario, order_no) == []
    if callback == "none":
        assert await scenario.paid_by(order_no) in ("callback", "compensation")


async def test_a_short_number_at_stripe_is_paid_by_its_callback(scenario: Scenario) -> None:
    """`metadata.out_trade_no` is the shop's own: its form was refused with 503 until the channel gave up."""
    form = [("amount", str(AMOUNT)), ("currency", "usd"), ("metadata[out_trade_no]", "7009")]
    async with elsewhere(scenario, "stripe") as stripe:
        created = await stripe._api.post("/v1/payment_intents", form, idempotency_key="shop-7009")
    intent_id = msgspec.json.decode(created.body)["id"]
    order_no = await watch(scenario, "stripe", "7009", intent_id, **scenario.terms(currency="USD"))
    await scenario.put_off(order_no)

    await pay(scenario, "7009", "none")

    await scenario.until("paid", order_no)
    assert await scenario.paid_by(order_no) in ("callback", "compensation")

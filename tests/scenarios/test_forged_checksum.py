"""PayPal signs a CRC-32 of a callback: whoever has seen one genuine delivery can write others that verify."""

from functools import partial
from typing import Any

import httpx
import msgspec
import pytest

from simulator.shoppers.shop import ShopOrder
from tests.channels.paypal.checksum import with_checksum_of
from tests.scenarios.five_channels import place_at
from tests.scenarios.scenario import Scenario, number_of
from tests.sealed import RawCallback, raw_callbacks
from tests.servers import eventually


async def test_a_body_with_a_genuine_checksum_stops_no_capture_and_opens_no_case(scenario: Scenario) -> None:
    """It says of another order that too little was paid: that was a case, and its approval was never captured."""
    seen = await place_at(scenario, "paypal")
    victim = await place_at(scenario, "paypal")
    await scenario.pay(seen, None)
    await scenario.until("paid", seen)

    response = await _forge(scenario, seen, victim, {"amount": {"currency_code": "USD", "value": "0.01"}})

    assert response.status_code == 200, "its signature is good"
    assert await scenario.cases(number_of(victim)) == []
    await scenario.pay(victim, None)
    await scenario.until("paid", victim)
    assert await scenario.cases(number_of(victim)) == []


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"amount": {"currency_code": "JPY", "value": "8888"}},
        {"payee": {"merchant_id": "ABCDEFGHJKLMN"}},
        {"status": "REFUNDED"},
    ],
    ids=["paid", "another currency", "another merchant", "refunded"],
)
async def test_what_it_says_has_no_effect_but_a_query(scenario: Scenario, changed: dict[str, Any]) -> None:
    seen = await place_at(scenario, "paypal")
    victim = await place_at(scenario, "paypal")
    await scenario.pay(seen, None)
    await scenario.until("paid", seen)
    before = len(await scenario.query_times(victim))
    await scenario.put_off(victim)

    assert (await _forge(scenario, seen, victim, changed)).status_code == 200

    assert await scenario.status(victim) == "paying"
    assert await scenario.cases(number_of(victim)) == []
    assert len(await scenario.query_times(victim)) > before
    assert [row["is_handled"] for row in await scenario.callbacks(number_of(victim))] == [True]
    await scenario.pay(victim)
    await scenario.return_from_channel(victim)
    await scenario.until("paid", victim)


async def _forge(scenario: Scenario, seen: ShopOrder, victim: ShopOrder, changed: dict[str, Any]) -> httpx.Response:
    """Deliver the genuine headers of one order's callback with a body about another order."""
    # The answer to our own capture pays the order, and this callback comes after it.
    stored = await eventually(partial(_of_the_capture, scenario, seen))
    assert stored is not None
    event = msgspec.json.decode(stored.body)
    number = number_of(victim)
    named = {"id": "3C679366HH908993F", "custom_id": number, "invoice_id": number}
    event |= {"id": "WH-forged", "resource": event["resource"] | named | changed}
    body = with_checksum_of(stored.body, event)
    return await scenario.deliver(stored.headers, body, account="paypal")


async def _of_the_capture(scenario: Scenario, order: ShopOrder) -> RawCallback | None:
    """The stored callback that tells of the order's money, once it has come."""
    stored = [row for row in await raw_callbacks(scenario.db, scenario.sealer) if row.out_trade_no == number_of(order)]
    return next((row for row in stored if b"CAPTURE.COMPLETED" in row.body), None)

"""The channels change their keys while orders are being paid: what either key signs is taken, and no order is lost.

WeChat Pay brings new platform certificates and public keys, Stripe signs with two secrets at once, Alipay has a second
public key, PayPal another certificate of the same authority, and the sandbox channel a second key.
"""

from __future__ import annotations

import time
from functools import partial
from typing import NamedTuple

from msgspec.structs import replace

from runtime.accounts import RELOAD_S
from simulator.shoppers.shop import ShopOrder
from storage.postgres.accounts import put_account
from storage.sealing import Sealer
from tests.scenarios.five_channels import (
    CHANNELS,
    Orders,
    add_accounts,
    notified_once,
    of_each,
    pay_all,
    place_at_all,
    tally,
)
from tests.scenarios.scenario import Scenario, number_of
from tests.sealed import raw_callbacks
from tests.servers import eventually

ACCOUNTS = "{}-rotating"
IN_FORCE_S = 10.0
"""Time until all processes use a change, as the command's text says."""

SLACK_S = 30.0
"""For a request under way and a busy machine."""


class Message(NamedTuple):
    """A callback as it once arrived."""

    headers: dict[str, str]
    body: bytes


async def test_keys_change_while_orders_are_being_paid(scenario: Scenario) -> None:
    await add_accounts(scenario, ACCOUNTS)
    before = await _paid_by_callback(scenario)
    signed_before = await of_each(before, partial(_message, scenario))
    under_way = await place_at_all(scenario, accounts=ACCOUNTS)
    await scenario.put_off(*under_way.values())

    await _rotate(scenario, before)
    changed_at = time.monotonic()
    await pay_all(scenario, under_way, "none")
    placed_meanwhile = await place_at_all(scenario, accounts=ACCOUNTS)

    async def is_reloaded() -> bool:
        """A message signed with the old keys is never refused, neither before the reload nor after it."""
        for api in (0, 1):
            assert await _takes(scenario, signed_before, api=api)
        return await _are_all_taken(scenario, under_way)

    await eventually(is_reloaded, RELOAD_S + SLACK_S, 0.1)
    await scenario.until("paid", *under_way.values())
    signed_after = await of_each(under_way, partial(_message, scenario))
    await eventually(partial(_takes, scenario, signed_after, api=1), RELOAD_S + SLACK_S)
    assert time.monotonic() - changed_at < IN_FORCE_S + SLACK_S

    await pay_all(scenario, placed_meanwhile, "none")
    after = await _paid_by_callback(scenario)
    await scenario.until("paid", *placed_meanwhile.values())
    for orders in (placed_meanwhile, after):
        tallies = await of_each(orders, partial(tally, scenario))
        assert {channel: tally.refused for channel, tally in tallies.items()} == dict.fromkeys(CHANNELS, 0)
    await notified_once(scenario, *(order for orders in (before, under_way, after) for order in orders.values()))


async def _paid_by_callback(scenario: Scenario) -> Orders:
    """One order at each channel, of which only its callback can tell that it is paid."""
    orders = await place_at_all(scenario, accounts=ACCOUNTS)
    await scenario.put_off(*orders.values())
    await pay_all(scenario, orders, "none")
    await scenario.until("paid", *orders.values())
    return orders


async def _rotate(scenario: Scenario, orders: Orders) -> None:
    """At each channel, and then here, as `nodrop accounts rotate` does it."""
    for channel, order in orders.items():
        merchant_id = (await scenario.ledger_payment(order)).merchant_id
        rotated = await scenario.stack.control("POST", "channel", f"/control/accounts/{merchant_id}/rotate")
        account = await scenario.stack.open_account(ACCOUNTS.format(channel))
        changed = replace(account, credentials=rotated["credentials"])
        await put_account(scenario.db, Sealer.from_setting(scenario.stack.master_key), changed)


async def _message(scenario: Scenario, order: ShopOrder) -> Message:
    """The callback of this order that was taken first, with its headers and its raw bytes."""
    stored = await raw_callbacks(scenario.db, scenario.sealer)
    first = next(callback for callback in stored if callback.out_trade_no == number_of(order))
    return Message(first.headers, first.body)


async def _takes(scenario: Scenario, messages: dict[str, Message], *, api: int) -> bool:
    """Whether this web process takes all of them."""
    statuses = {
        channel: (await scenario.deliver(*message, account=ACCOUNTS.format(channel), api=api)).status_code
        for channel, message in messages.items()
    }
    return statuses == dict.fromkeys(CHANNELS, 200)


async def _are_all_taken(scenario: Scenario, orders: Orders) -> bool:
    """Whether one more callback of each, signed now, is taken."""
    return {await scenario.request_callback(order) for order in orders.values()} == {200}

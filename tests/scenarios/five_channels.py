"""Orders at five channels at once, each with an opened pay page, and their states by channel."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import groupby
from typing import Any, TypeVar

from channels.adapters import open_channel
from channels.transport import Transport
from core.order import PaymentKey
from simulator.kernel.deliveries import Tally
from simulator.shoppers.shop import ShopOrder
from storage.postgres.orders import find_state_by_payment
from tests.scenarios.scenario import Scenario, number_of, put_accounts
from tests.servers import eventually

CURRENCIES = {"sandbox": "CNY", "alipay": "CNY", "wechatpay": "CNY", "stripe": "USD", "paypal": "USD"}
"""The currency of each account. There is one account at every channel, with the channel's name."""

CHANNELS = tuple(CURRENCIES)
CLOSED_ON_REQUEST = tuple(channel for channel in CHANNELS if channel != "paypal")
"""PayPal cannot close an order: it expires without our capture."""

BY_CALLBACK = {"callback", "compensation"}
"""In the callback's request, or after it on a machine that is too busy for its budget."""

T = TypeVar("T")

Orders = dict[str, ShopOrder]
"""By channel."""


async def add_accounts(scenario: Scenario, names: str, **config: Any) -> None:
    """Add an account at every channel; `names` has `{}` for the channel: `{}-refund`."""
    configs = {names.format(channel): {"channel": channel, **config} for channel in CHANNELS}
    await put_accounts(scenario.stack, scenario.db, configs)


async def place_at(scenario: Scenario, channel: str, *, account: str = "", **terms: Any) -> ShopOrder:
    """Place an order and open its pay page: Alipay has no trade before that."""
    order = await scenario.place(account or channel, **{"currency": CURRENCIES[channel], **terms})
    await open_page(scenario, order)
    return order


async def open_page(scenario: Scenario, order: ShopOrder, *, nth: int = 1) -> None:
    """Open the channel's page of its first payment, or of the nth, as the buyer."""
    url = order.payments[nth - 1].pay_url
    assert url is not None
    page = await scenario.http.get(url, follow_redirects=True)
    assert 'data-status="unpaid"' in page.text


async def place_at_all(
    scenario: Scenario, channels: tuple[str, ...] = CHANNELS, *, accounts: str = "{}", **terms: Any
) -> Orders:
    """Place an order at each channel; `accounts` names the account as in `add_accounts`."""
    placing = (place_at(scenario, channel, account=accounts.format(channel), **terms) for channel in channels)
    return dict(zip(channels, await asyncio.gather(*placing), strict=True))


async def pay_all(scenario: Scenario, orders: Orders, callback: str = "lost") -> None:
    """Pay all orders at once."""
    await asyncio.gather(*(scenario.pay(order, callback) for order in orders.values()))


async def of_each(orders: Orders, read: Callable[[ShopOrder], Awaitable[T]]) -> dict[str, T]:
    """Return the result of `read` for each order, by channel."""
    return {channel: await read(order) for channel, order in orders.items()}


async def calls_about(scenario: Scenario, order: ShopOrder) -> list[str]:
    """Return the kinds of calls with the order's first payment, oldest first."""
    return [call.kind for call in await scenario.calls() if call.number == number_of(order)]


async def steps(scenario: Scenario, order: ShopOrder) -> list[str]:
    """Return the kinds of calls without repeats: a query is repeated until the state changes."""
    return [kind for kind, _ in groupby(await calls_about(scenario, order))]


async def tally(scenario: Scenario, order: ShopOrder) -> Tally:
    """Return the counts of callbacks of the order's first payment."""
    return (await scenario.ledger_payment(order)).callbacks


async def ledger_status(scenario: Scenario, order: ShopOrder) -> str:
    """Return the status of the order's first payment in the channel's ledger."""
    return str((await scenario.ledger_payment(order)).status)


async def notified_once(scenario: Scenario, *orders: ShopOrder, type_: str = "order.paid") -> None:
    """Check that the merchant has received this notification of each order, once."""
    for order in orders:
        await eventually(partial(scenario.was_notified, order, type_))
        statuses = [delivery.answered for delivery in await scenario.deliveries(order) if delivery.type == type_]
        assert statuses == ["200"], order


async def is_closed(scenario: Scenario, order: ShopOrder) -> bool:
    """Close the order as the merchant; return whether it is closed."""
    await scenario.close(order)
    return await scenario.status(order) == "closed"


async def capture_outside(scenario: Scenario, order: ShopOrder, account: str) -> None:
    """Capture an approved payment as another system of the merchant."""
    state = await find_state_by_payment(scenario.db, PaymentKey(account, number_of(order)))
    assert state is not None
    async with Transport(timeout_s=60) as transport:
        channel = open_channel(await scenario.stack.open_account(account), transport)
        await channel.capture_payment(state.payments[0])


async def late_money(scenario: Scenario, channel: str, account: str = "") -> ShopOrder:
    """Return a closed order whose money then arrives.

    PayPal's money arrives when another system captures the approved payment: nodrop does not do that after the close.
    """
    account = account or channel
    if channel in CLOSED_ON_REQUEST:
        order = await place_at(scenario, channel, account=account)
        await scenario.put_off(order)
        await scenario.close(order)
        await scenario.until("closed", order)
        await scenario.pay_late(order)
        return order
    order = await place_at(scenario, channel, account=account, expires_in_s=2)
    await scenario.put_off(order)
    await scenario.pay(order, "lost")
    await eventually(partial(is_closed, scenario, order), interval_s=0.2)
    await capture_outside(scenario, order, account)
    assert await scenario.request_callback(order) == 200
    return order

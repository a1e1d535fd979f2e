"""Five channels at once: an order at each, whose buyer has opened the pay page, and what is told of each by channel."""

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
from tests.scenarios.scenario import Scene, add_account, number_of
from tests.servers import eventually

CURRENCIES = {"sandbox": "CNY", "alipay": "CNY", "wechatpay": "CNY", "stripe": "USD", "paypal": "USD"}
"""An account at every channel, named like its channel, and what it is paid in here."""

CHANNELS = tuple(CURRENCIES)
CLOSED_ON_REQUEST = tuple(channel for channel in CHANNELS if channel != "paypal")
"""PayPal has no way to end an order: it lapses, for only our capture takes its money."""

BY_CALLBACK = {"callback", "compensation"}
"""Within the callback's own request, or after it on a machine that is too busy for its budget."""

T = TypeVar("T")

Orders = dict[str, ShopOrder]
"""By channel."""


async def add_accounts(scene: Scene, names: str, **config: Any) -> None:
    """One at every channel; `names` holds the channel's in braces: `{}-refund`."""
    for channel in CHANNELS:
        await add_account(scene.stack, scene.db, names.format(channel), channel=channel, **config)


async def place_at(scene: Scene, channel: str, *, account: str = "", **terms: Any) -> ShopOrder:
    """An order whose buyer has opened the pay page: at Alipay there is no trade before that."""
    order = await scene.place(account or channel, **{"currency": CURRENCIES[channel], **terms})
    await open_page(scene, order)
    return order


async def open_page(scene: Scene, order: ShopOrder) -> None:
    """The buyer looks at the channel's page."""
    url = order.payments[0].pay_url
    assert url is not None
    page = await scene.http.get(url, follow_redirects=True)
    assert 'data-status="unpaid"' in page.text


async def place_everywhere(
    scene: Scene, channels: tuple[str, ...] = CHANNELS, *, accounts: str = "{}", **terms: Any
) -> Orders:
    """An order at each of them, of the account that `accounts` names as in `add_accounts`."""
    placing = (place_at(scene, channel, account=accounts.format(channel), **terms) for channel in channels)
    return dict(zip(channels, await asyncio.gather(*placing), strict=True))


async def pay_everywhere(scene: Scene, orders: Orders, callback: str = "lost") -> None:
    """The buyers press Pay, all at once."""
    await asyncio.gather(*(scene.pay(order, callback) for order in orders.values()))


async def of_each(orders: Orders, tell: Callable[[ShopOrder], Awaitable[T]]) -> dict[str, T]:
    """What is told of each order, by channel."""
    return {channel: await tell(order) for channel, order in orders.items()}


async def calls_about(scene: Scene, order: ShopOrder) -> list[str]:
    """What the channel was asked to do with the order's first payment, oldest first."""
    return [call.kind for call in await scene.calls() if call.number == number_of(order)]


async def steps(scene: Scene, order: ShopOrder) -> list[str]:
    """The same without repeats: a query is asked again until something has changed."""
    return [kind for kind, _ in groupby(await calls_about(scene, order))]


async def tally(scene: Scene, order: ShopOrder) -> Tally:
    """How the callbacks of the order's first payment fared."""
    return (await scene.at_channel(order)).callbacks


async def there(scene: Scene, order: ShopOrder) -> str:
    """The status of the order's first payment in the channel's own books."""
    return str((await scene.at_channel(order)).status)


async def told_once(scene: Scene, *orders: ShopOrder, type_: str = "order.paid") -> None:
    """The merchant has heard this of each order, once."""
    for order in orders:
        await eventually(partial(scene.was_told, order, type_))
        told = [delivery.answered for delivery in await scene.deliveries(order) if delivery.type == type_]
        assert told == ["200"], order


async def is_ended(scene: Scene, order: ShopOrder) -> bool:
    """The merchant ends it, once more if need be; whether it has come to its end."""
    await scene.close(order)
    return await scene.status(order) == "closed"


async def capture_elsewhere(scene: Scene, order: ShopOrder, account: str) -> None:
    """Another system of the merchant takes the money that the buyer has agreed to."""
    state = await find_state_by_payment(scene.db, PaymentKey(account, number_of(order)))
    assert state is not None
    async with Transport(timeout_s=10) as transport:
        channel = open_channel(await scene.stack.open_account(account), transport)
        await channel.capture_payment(state.payments[0])


async def late_money(scene: Scene, channel: str, account: str = "") -> ShopOrder:
    """An order that has come to its end without money, and whose money then arrives all the same.

    PayPal's arrives when somebody else captures what the buyer had agreed to, for we never do that any more.
    """
    account = account or channel
    if channel in CLOSED_ON_REQUEST:
        order = await place_at(scene, channel, account=account)
        await scene.put_off(order)
        await scene.close(order)
        await scene.until("closed", order)
        return order
    order = await place_at(scene, channel, account=account, expires_in_s=2)
    await scene.put_off(order)
    await scene.pay(order, "lost")
    await eventually(partial(is_ended, scene, order), 20, 0.2)
    await capture_elsewhere(scene, order, account)
    assert await scene.call_back(order) == 200
    return order

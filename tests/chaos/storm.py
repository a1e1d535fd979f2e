"""Ten times the callbacks, then more at once than are taken; and a backlog of queries that are all due at once."""

from __future__ import annotations

import asyncio
import time

from simulator.oracle.work import bounded_load
from simulator.shoppers.shop import ShopOrder
from tests.chaos.ground import Disturbance, Ground, anonymous_bytes, open_stack
from tests.chaos.probes import ACKNOWLEDGED, COME_AGAIN, Answer, Callbacks, counted
from tests.scenarios.scenario import put_accounts

RATE_PER_S = 10.0
"""Shoppers; each has one callback."""

TIMES = 10
ORDERS = 100
AT_ONCE = 2000
"""Callbacks in one moment: more than are answered within the channel's time."""

BACKLOG = "backlog"
BACKLOG_RATE_PER_S = 100
BACKLOG_S = 0.5
"""Share of the run's length in which the backlog may be worked off."""

FRESH = 40


async def disturb(ground: Ground) -> None:
    """Bring the callbacks first, then the backlog."""
    await storm(ground)
    await backlog(ground)


async def storm(ground: Ground) -> None:
    """Send ten times the load's callbacks for half of the time, half of them duplicates; then thousands at once."""
    api = ground.api_pid
    async with Callbacks(ground, ORDERS) as callbacks:
        before = anonymous_bytes(api)
        ground.note(f"{TIMES * RATE_PER_S:.0f} callbacks a second for {ground.seconds / 2:.0f} s")
        answers = await callbacks.send_for(ground.seconds / 2, 1 / (TIMES * RATE_PER_S), repeats=True)
        _judge(ground, "ten-fold callbacks", answers)
        during = anonymous_bytes(api)
        at_once = min(AT_ONCE, int(100 * ground.seconds))
        ground.note(f"{at_once} callbacks at once")
        answers = list(await asyncio.gather(*(callbacks.send(new=number % 2 == 0) for number in range(at_once))))
        _judge(ground, "at once", answers, is_beyond=True)
        await ground.caught_up("storm")
    for name, size in (("before", before), ("after ten-fold", during), ("at the end", anonymous_bytes(api))):
        ground.measure(f"memory of the web process {name}", size / 2**20, "MiB")


async def backlog(ground: Ground) -> None:
    """Let all queries of many payments be due at once, while fresh callbacks come."""
    scenario, stack = ground.scenario, ground.stack
    count, fresh_count = int(50 * ground.seconds), min(FRESH, int(ground.seconds))
    name = f"{BACKLOG}-{ground.seed}"
    await put_accounts(stack, ground.db, {name: {"rate_per_s": BACKLOG_RATE_PER_S}})
    ground.note(f"{count} payments whose queries are due at once, at {BACKLOG_RATE_PER_S} calls a second")
    orders: list[ShopOrder] = []
    while len(orders) < count:
        orders += await scenario.place_many(min(BACKLOG_RATE_PER_S // 2, count - len(orders)), name)
    fresh = await scenario.place_many(fresh_count, name)
    async with scenario.no_workers():
        for first in range(0, count, 50):
            await asyncio.gather(*(scenario.pay(order, "lost") for order in orders[first : first + 50]))
        await scenario.put_off(*orders, *fresh)
    began = time.time()
    await scenario.make_due(*orders)
    sent_at = {}
    for order in fresh:
        sent_at[order.order_no] = time.time()
        await scenario.pay(order, "none")
        await ground.wait(count / BACKLOG_RATE_PER_S / fresh_count / 2)
    await scenario.until("paid", *fresh, *orders, timeout_s=4.0 * count / BACKLOG_RATE_PER_S + 60.0)
    paid_at = await ground.paid_at(*orders, *fresh)
    ground.measure("backlog worked off after", max(paid_at[order.order_no] for order in orders) - began, "s", count)
    ground.measure_times("fresh callback to paid", [max(0.0, paid_at[no] - at) for no, at in sent_at.items()])
    calls = [call.at for call in await scenario.calls() if call.merchant_id == f"m-{name}"]
    for violation in bounded_load(calls, limit_per_s=BACKLOG_RATE_PER_S, account=name):
        ground.report_broken(violation.sentence)


def _judge(ground: Ground, name: str, answers: list[Answer], *, is_beyond: bool = False) -> None:
    """Record the times of acknowledgements. Each callback is acknowledged or, beyond what is taken, refused with a time
    to come again.
    """
    ground.progress.write(f"answered {counted(answers)}")
    acknowledged = [answer for answer in answers if answer.status == ACKNOWLEDGED]
    later = [answer for answer in answers if answer.status == COME_AGAIN and answer.has_retry_after]
    others = [answer for answer in answers if answer not in acknowledged and answer not in later]
    ground.measure_times(f"{name}: acknowledged", [answer.seconds for answer in acknowledged])
    ground.measure(f"{name}: 503 with Retry-After", len(later), "callbacks", len(answers))
    ground.measure(f"{name}: neither within 5 s", len(others), "callbacks", len(answers))
    refused = [answer for answer in others if answer.status] + ([] if is_beyond else later)
    if refused:
        ground.report_broken(f"{name}: callbacks were answered {counted(refused)}")


DISTURBANCE = Disturbance(
    "storm",
    "ten times the callbacks, thousands at once, and a backlog of queries that are due at once",
    60.0,
    disturb,
    open_stack,
    rate_per_s=RATE_PER_S,
)

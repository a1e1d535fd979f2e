"""After an outage all queries are due at once: the calls must stay within the account's rate."""

import asyncio
import time

from simulator.oracle.invariants import bounded_load
from tests.scenarios.scenario import SLOW_RATE_PER_S, Scenario
from tests.servers import eventually

BACKLOG = 160
WINDOW_S = 0.75
"""Redis counts a call when it is admitted, over 1.1 s, and the channel stamps it when its process reads it. On a
busy machine the stamp is late by more than the tenth of a second between the two windows, and a late call falls into
the second of its successors: 41 were stamped in one second where 40 are allowed. In Redis's own time the strict second
is tested by `tests/storage/redis/test_admission.py`; two processes that each use the whole rate, or one that counts one
too many in a burst, exceed it here as well."""


async def test_a_backlog_is_worked_off_at_the_accounts_rate_while_callbacks_go_first(scenario: Scenario) -> None:
    """Two workers and two web processes share the rate, in every single second."""
    orders = await scenario.place_many(BACKLOG, "slow")
    fresh = await scenario.place_many(3, "slow")
    async with scenario.no_workers():
        for order in orders:
            await scenario.pay(order, "lost")
        await scenario.put_off(*fresh)
        await scenario.make_due(*orders)
    began = time.time()
    await eventually(lambda: _is_under_way(scenario))

    await asyncio.gather(*(scenario.pay(order, "none") for order in fresh))
    await scenario.until("paid", *fresh)

    assert await _left(scenario) > 0, "the callbacks came after the backlog"
    await scenario.until("paid", *orders)
    calls = [call.at for call in await scenario.calls() if call.merchant_id == "m-slow"]
    assert list(bounded_load([at / WINDOW_S for at in calls], limit_per_s=SLOW_RATE_PER_S)) == []
    assert len([at for at in calls if at >= began]) >= BACKLOG


async def _left(scenario: Scenario) -> int:
    """Return the number of queries that are left."""
    sql = "SELECT count(*) FROM pending WHERE channel_account = 'slow' AND due_at < now()"
    return int(await scenario.db.fetchval(sql))


async def _is_under_way(scenario: Scenario) -> bool:
    return await _left(scenario) < BACKLOG

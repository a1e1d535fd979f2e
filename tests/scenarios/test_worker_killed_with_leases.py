"""SIGKILL of a worker that holds hundreds of leases, in Redis and in Postgres: the others do its work, and once."""

import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from signal import SIGKILL

from arq.constants import in_progress_key_prefix

from core.jobs import Lane, query_payment
from core.order import PaymentKey
from simulator.shoppers.shop import ShopOrder
from storage.redis.delay_queue import DelayQueue, queue_name
from tests.scenarios.faulty_proxy import FaultyProxy, ProxyFault
from tests.scenarios.scenario import Scenario, number_of
from tests.servers import Process
from tests.storage.redis.tools import client_of

HELD = 500
LEASED = 20
"""The row with which it is killed. Those of one statement are leased with it, and no job has been put off by then."""

TOGETHER = 50
ACCOUNT = "proxied"
AT = "storage.postgres.pending.claim_with_order:after"
SLOW = {"CHANNEL_TIMEOUT_S": "15", "LEASE_S": "30", "MAX_JOBS": str(HELD)}
"""No lease of the killed worker ends by itself before the others take its rows over."""

PATIENT = {"CHANNEL_TIMEOUT_S": "15", "LEASE_S": "60"}
"""For the others: a busy machine may take longer over a call than the stack's workers wait for one."""


async def test_a_killed_worker_with_five_hundred_leases_loses_nothing(
    scenario: Scenario, faulty_proxy: FaultyProxy, tmp_path: Path
) -> None:
    """Its first calls wait for a channel that does not answer, and the last of its jobs have hardly begun."""
    await faulty_proxy.set_fault(ProxyFault.NO_FAULT)
    orders = [order for _ in range(HELD // TOGETHER) for order in await _paid_unheard(scenario)]
    numbers = [number_of(order) for order in orders]
    environ = scenario.stack.environ | SLOW
    async with scenario.no_workers():
        await faulty_proxy.set_fault(ProxyFault.BLACK_HOLE)
        async with client_of(scenario.stack.redis.url) as redis:  # jobs from before they were put off lease no row
            await redis.delete(queue_name(Lane.QUERIES))
        killed = ("tests.scenarios.kill_at_step", "worker", "--at", AT, "--nth", str(LEASED))
        async with Process(*killed, env=environ, log=tmp_path / "worker.log") as worker:
            await worker.wait_for_line("worker_started")
            await _arm(scenario, numbers)
            assert await worker.wait() == -SIGKILL
        jobs, rows = await _held(scenario, numbers)
        assert (jobs, rows >= LEASED) == (HELD, True), rows
        await faulty_proxy.set_fault(ProxyFault.NO_FAULT)
        killed_at = time.time()
        async with _others(scenario.stack.environ | PATIENT, tmp_path):
            await scenario.until("paid", *orders)

    calls = Counter(call.number for call in await scenario.calls() if call.kind == "query" and call.at > killed_at)
    assert {number: calls[number] for number in numbers} == dict.fromkeys(numbers, 1)


@asynccontextmanager
async def _others(environ: dict[str, str], logs: Path) -> AsyncIterator[None]:
    """Two workers, which end in order: they give back what they hold."""
    async with (
        Process("worker", env=environ, log=logs / "first.log") as first,
        Process("worker", env=environ, log=logs / "second.log") as second,
    ):
        yield
        assert [await worker.terminate() for worker in (first, second)] == [0, 0]


async def _paid_unheard(scenario: Scenario) -> list[ShopOrder]:
    """Orders that are paid at the channel, which says nothing about it, and whose query is due in an hour."""
    orders = await scenario.place_many(TOGETHER, ACCOUNT)
    await scenario.put_off(*orders)
    for order in orders:
        await scenario.pay(order, "lost")
    return orders


async def _arm(scenario: Scenario, numbers: list[str]) -> None:
    """Make their queries due, and arm them at once: the lane has them before any sweep."""
    sql = "UPDATE pending SET due_at = now() WHERE out_trade_no = ANY($1::text[]) RETURNING out_trade_no, arm_no"
    rows = await scenario.db.fetch(sql, numbers)
    async with client_of(scenario.stack.redis.url) as redis:
        jobs = [query_payment(PaymentKey(ACCOUNT, number), arm_no) for number, arm_no in rows]
        assert await DelayQueue(redis).arm(jobs) == HELD


async def _held(scenario: Scenario, numbers: list[str]) -> tuple[int, int]:
    """Leases of these payments: in Redis, and in Postgres."""
    sql = "SELECT count(*) FROM pending WHERE out_trade_no = ANY($1::text[]) AND leased_until > clock_timestamp()"
    async with client_of(scenario.stack.redis.url) as redis:
        leases = [key.decode() async for key in redis.scan_iter(f"{in_progress_key_prefix}*:{ACCOUNT}:*", count=1000)]
    return len({lease.split(":")[-2] for lease in leases} & set(numbers)), await scenario.db.fetchval(sql, numbers)

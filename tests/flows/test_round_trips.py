"""Statements, writing transactions and Redis commands of one order on an idle system, from its placing to the delivered
notification. The bounds are what it takes today: another round trip fails here. And what many due queries share.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from channels.sandbox.adapter import Sandbox
from core.evidence import Evidence
from core.jobs import Lane, query_payment
from core.order import OrderStatus, Payment, PaymentKey
from flows.notify import Notifier
from flows.refresh import refresh_order
from storage.redis.delay_queue import queue_name
from tests.channels.wire import WireResponse, http_bytes, respond_with, serving
from tests.flows.conftest import FlowHarness
from tests.servers import eventually
from worker.jobs import FUNCTIONS
from worker.lane import LaneWorker

pytestmark = pytest.mark.usefixtures("new_sessions")  # which are watched from their beginning

STATEMENTS_MAX = 6
WRITING_MAX = 6
REDIS_COMMANDS_MAX = 46
DUE = 20

OK = http_bytes(WireResponse(200, {}, b"ok"))
WRITES = re.compile(r"\b(INSERT INTO|UPDATE \w+|DELETE FROM|FOR UPDATE)\b")
OWN_COMMANDS = frozenset({"info", "type", "auth", "client|setinfo", "client|setname", "hello", "select", "ping"})
"""Commands of the counting itself and of opening a connection; no script calls one of them."""


class Counts:
    """Statements in their order and Redis commands by name, those that scripts call included."""

    def __init__(self, redis: Redis, statements: list[str]) -> None:
        self._redis = redis
        self.statements = statements
        self.commands: Counter[str] = Counter()

    @property
    def writing(self) -> int:
        return sum(WRITES.search(text) is not None for text in self.statements)

    @asynccontextmanager
    async def counted(self) -> AsyncIterator[None]:
        """Count in this block alone."""
        before = await self._read()
        await asyncio.sleep(0)  # the loop calls the loggers
        self.statements.clear()
        yield
        await asyncio.sleep(0)
        self.commands = await self._read() - before

    async def _read(self) -> Counter[str]:
        stats: dict[str, Any] = await self._redis.info("commandstats")
        calls = {name.removeprefix("cmdstat_"): command["calls"] for name, command in stats.items()}
        return Counter({name: count for name, count in calls.items() if name not in OWN_COMMANDS})

    def __str__(self) -> str:
        statements = "\n".join(" ".join(text.split())[:110] for text in self.statements)
        return f"{statements}\n{self.writing} writing\n{self.commands.total()} in Redis: {dict(self.commands)}"


@pytest.fixture(autouse=True)
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements of every connection to Postgres that this test opens. First of all: the others open some."""
    statements: list[str] = []
    begin = asyncpg.Connection.__init__

    def begin_counted(connection: asyncpg.Connection, *args: Any, **kwargs: Any) -> None:
        begin(connection, *args, **kwargs)
        connection.add_query_logger(lambda record: statements.append(record.query))

    monkeypatch.setattr(asyncpg.Connection, "__init__", begin_counted)
    return statements


async def test_a_lone_order_takes_few_round_trips(harness: FlowHarness, statements: list[str]) -> None:
    resources = harness.resources
    counts = Counts(resources.redis, statements)
    await resources.clock.begin(resources.db)
    lane = Lane.NOTIFICATIONS
    async with Notifier(resources.settings) as notifier, serving(respond_with(OK)) as merchant:
        ctx = {"resources": resources, "notifier": notifier}
        worker = LaneWorker(resources.redis, lane, FUNCTIONS[lane], process="here", ctx=ctx)

        async def sell() -> None:
            state = await harness.placed_order(notify_url=f"{merchant.url}/hook")
            harness.pay(state.payments[0])
            await harness.receive("main", harness.callback(state.payments[0]))
            assert (await harness.state(state)).order.status is OrderStatus.PAID
            delivered = len(merchant.requests)
            await worker.run_once()
            await eventually(lambda: len(merchant.requests) > delivered)
            await eventually(is_idle)

        async def is_idle() -> bool:
            return bool(await resources.redis.type(queue_name(lane)) == b"none")

        await sell()  # opens the connections, prepares the statements, loads the scripts, reads the account
        async with counts.counted():
            await sell()
    # The test itself reads the order once.
    assert len(counts.statements) - 1 <= STATEMENTS_MAX, str(counts)
    assert counts.writing <= WRITING_MAX, str(counts)
    assert counts.commands.total() <= REDIS_COMMANDS_MAX, str(counts)


async def test_a_refresh_of_a_paid_order_reads_it_once(harness: FlowHarness, statements: list[str]) -> None:
    """There is nothing to query, so what was read is the answer."""
    state = await harness.placed_order()
    harness.pay(state.payments[0])
    await harness.receive("main", harness.callback(state.payments[0]))
    await asyncio.sleep(0)
    statements.clear()
    refreshed = await refresh_order(harness.resources, state.order.order_no)
    await asyncio.sleep(0)
    assert refreshed.order.status is OrderStatus.PAID
    assert len(statements) == 1, statements


async def test_due_queries_share_their_lease_and_wait_for_no_other_call(
    harness: FlowHarness, statements: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No response comes before all have left."""
    resources, lane, query = harness.resources, Lane.QUERIES, Sandbox.query_payment
    all_are_queried, queried = asyncio.Event(), set[PaymentKey]()

    async def query_with_all(channel: Sandbox, payment: Payment) -> Evidence:
        queried.add(payment.key)
        if len(queried) == DUE:
            all_are_queried.set()
        await all_are_queried.wait()
        return await query(channel, payment)

    monkeypatch.setattr(Sandbox, "query_payment", query_with_all)
    await harness.add_account("quick", rate_per_s=1000)
    orders = [await harness.placed_order("quick") for _ in range(DUE)]
    await harness.make_due()
    await resources.redis.delete(queue_name(lane))  # without the deadlines
    await resources.queue.arm([query_payment(order.payments[0].key, 1) for order in orders])
    worker = LaneWorker(resources.redis, lane, FUNCTIONS[lane], process="here", ctx={"resources": resources})
    await asyncio.sleep(0)
    statements.clear()
    assert await worker.run_once() == DUE
    await eventually(lambda: not worker.running)
    await asyncio.sleep(0)
    assert len(queried) == DUE
    assert len([text for text in statements if "leased_until = clock_timestamp() +" in text]) == 1, statements
    assert len(statements) < DUE, statements
    assert await harness.fetch_value("SELECT count(*) FROM pending WHERE attempt = 2 AND arm_no = 2") == DUE
    await worker.drain(1)

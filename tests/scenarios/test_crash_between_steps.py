"""SIGKILL between the steps of placing, of a callback, of a query, of closing, of a notification and of a shutdown.

A process is killed at the named step while others keep running: no order is lost, none is paid twice, and no work stays
stuck. A step is a function where it is used; see `kill_at_step`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from signal import SIGKILL, SIGTERM

import asyncpg
import httpx
import pytest

from demo.embedded import free_port
from simulator.shoppers.shop import ShopOrder
from storage.redis.parked_callbacks import ParkedCallback, ParkedCallbacks
from tests.scenarios.router import Router
from tests.scenarios.scenario import Scenario, add_account, number_of, port_of
from tests.servers import Process, eventually
from tests.storage.redis.tools import client_of

ORDERS = 16
TOGETHER = 3
"""Orders at once, and the decisions of one statement among them, at least."""

PLACE = {
    "before_insert": "flows.commit.transition:before",
    "after_insert_before_arming": "flows.commit.transition:after",
    "before_create": "channels.transport.Transport.call:before",
    "after_create": "channels.transport.Transport.call:after",
    "before_recording_the_checkout": "flows.create.commit_decision:before",
    "after_recording_the_checkout": "flows.create.commit_decision:after",
}
CALLBACK = {
    "body_read": "api.http.request.Body.read:after",
    "verified": "flows.callback.verify_callback:after",
    "after_inbox": "flows.callback.insert_callback:after",
    "before_asking": "channels.transport.Transport.call:before",
    "after_answer": "channels.transport.Transport.call:after",
    "before_commit": "storage.postgres.door.transition._commit:before",
    "after_commit_before_arming": "storage.postgres.door.transition._commit:after",
    "before_publishing": "storage.redis.delay_queue.FollowUps._send:before",
    "after_publishing": "storage.redis.delay_queue.FollowUps._send:after",
    "before_acknowledgement": "channels.sandbox.adapter.Sandbox.acknowledge:before",
    "after_acknowledgement": "api.http.asgi.App._note:before",
}
QUERY = {
    "claimed": "worker.jobs.query_scheduled:before",
    "leased": "storage.postgres.pending.claim_with_order:after",
    "before_asking": "channels.transport.Transport.call:before",
    "after_answer": "flows.ask._ask:after",
    "before_commit": "storage.postgres.door.transition._commit:before",
    "after_commit_before_arming": "storage.postgres.door.transition._commit:after",
    "before_publishing": "storage.redis.delay_queue.FollowUps._send:before",
    "after_publishing": "storage.redis.delay_queue.FollowUps._send:after",
    "before_finishing_the_job": "storage.redis.job_claims.JobClaims.end:before",
}
COMPENSATION = {
    "claimed": "storage.postgres.callbacks.claim:after",
    "leased": "flows.callback.wait_for_lease:after",
    "after_commit": "flows.callback.query_now:after",
}
CLOSE = {
    "deadline_moved": "flows.close.commit_decision:after",
    "before_closing_at_the_channel": "flows.close.call_channel:before",
    "after_closing_at_the_channel": "flows.close.call_channel:after",
    "closed_at_the_channel_and_known": "flows.close.close_payment:after",
}
NOTIFY = {
    "claimed": "storage.postgres.notifications.claim:after",
    "after_the_merchants_200": "flows.notify.Notifier.deliver:after",
    "after_marking": "storage.postgres.notifications.finish:after",
}
SHUTDOWN = {
    "before_draining": "worker.lane.LaneWorker.drain:before",
    "after_draining": "worker.lane.LaneWorker.drain:after",
}

_LOCK = "SELECT FROM orders WHERE order_no = $1 FOR UPDATE"
_WAITS = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'nodrop' AND wait_event_type = 'Lock')"


@asynccontextmanager
async def killed_at(
    scenario: Scenario, process_name: str, step: str, log: Path, router: Router | None = None, items: int = 0
) -> AsyncIterator[None]:
    """Run a process that is killed at this step, which it must reach before the end of the block."""
    port = free_port()
    environ = scenario.stack.environ | {"PORT": str(port)}
    arguments = (process_name, "--at", step, "--items", str(items))
    async with Process("tests.scenarios.kill_at_step", *arguments, env=environ, log=log) as process:
        if router is not None:
            await process.wait_for_port(port)
            await router.lead_to(port, port_of(scenario.stack.api_url))
        yield
        assert await process.wait() == -SIGKILL


@pytest.mark.parametrize("step", PLACE.values(), ids=PLACE.keys())
async def test_web_process_killed_while_placing(
    kill_scenario: Scenario, router: Router, step: str, tmp_path: Path
) -> None:
    """The merchant sends the same request again, and there is one order with one payment."""
    scenario = kill_scenario
    async with killed_at(scenario, "api", step, tmp_path / "api.log", router):
        order = await scenario.place()

    assert len(order.payments) == 1
    await scenario.pay(order, "lost")
    await scenario.until("paid", order)


@pytest.mark.parametrize("step", CALLBACK.values(), ids=CALLBACK.keys())
async def test_web_process_killed_during_a_callback(
    kill_scenario: Scenario, router: Router, step: str, tmp_path: Path
) -> None:
    """No query is due: either the compensation finds it, or the channel, without an acknowledgement, sends it again."""
    scenario = kill_scenario
    order = await scenario.place()
    await scenario.put_off(order)
    async with killed_at(scenario, "api", step, tmp_path / "api.log", router):
        await scenario.pay(order, "none")

    await scenario.until("paid", order)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_web_process_killed_in_mid_batch(
    kill_scenario: Scenario, router: Router, when: str, tmp_path: Path
) -> None:
    """Its statement holds the decisions of several callers, none of whom has heard of it: merchants send their orders
    again, and the channel its callbacks. Each order is there once, paid once, and heard of once.

    The account trusts its callbacks, so that they come to the door as they came.
    """
    scenario, step = kill_scenario, f"storage.postgres.door.transition._write:{when}"
    await add_account(scenario.stack, scenario.db, "trusting", trust_callback=True)
    async with killed_at(scenario, "api", step, tmp_path / "placing.log", router, TOGETHER):
        orders = await scenario.place_many(ORDERS, "trusting")
    await scenario.put_off(*orders)
    for order in orders:
        await scenario.pay(order, "lost")
    async with killed_at(scenario, "api", step, tmp_path / "paying.log", router, TOGETHER):
        await asyncio.gather(*(_until_acknowledged(scenario, order) for order in orders))

    await scenario.until("paid", *orders)
    for order in orders:
        assert len(order.payments) == 1
        assert [event.kind for event in await scenario.events(order)].count("paid") == 1
        await eventually(partial(scenario.was_notified, order, "order.paid"))
        assert len({delivery.webhook_id for delivery in await scenario.deliveries(order)}) == 1


@pytest.mark.parametrize("step", QUERY.values(), ids=QUERY.keys())
async def test_worker_killed_during_a_query(kill_scenario: Scenario, step: str, tmp_path: Path) -> None:
    scenario = kill_scenario
    async with scenario.frozen_workers():
        order = await scenario.place()
        await scenario.pay(order, "lost")
        async with killed_at(scenario, "worker", step, tmp_path / "worker.log"):
            pass

    await scenario.until("paid", order)


async def test_worker_killed_inside_the_statement(kill_scenario: Scenario, tmp_path: Path) -> None:
    """The statement waits in Postgres when its process dies, and commits without it."""
    scenario = kill_scenario
    async with scenario.frozen_workers():
        order = await scenario.place()
        await scenario.pay(order, "lost")
        locking = await asyncpg.connect(scenario.stack.environ["DATABASE_URL"], ssl=False)
        try:
            async with locking.transaction():
                await locking.execute(_LOCK, order.order_no)
                async with Process("worker", env=scenario.stack.environ, log=tmp_path / "worker.log") as process:
                    await eventually(lambda: scenario.db.fetchval(_WAITS))
                    process.kill()
        finally:
            await locking.close()
        await scenario.until("paid", order)

    await eventually(lambda: scenario.was_notified(order, "order.paid"))


@pytest.mark.parametrize("step", SHUTDOWN.values(), ids=SHUTDOWN.keys())
async def test_worker_killed_while_it_shuts_down(kill_scenario: Scenario, step: str, tmp_path: Path) -> None:
    """It was told to end, and had a query of the order under way."""
    scenario = kill_scenario
    async with scenario.frozen_workers():
        order = await scenario.place()
        await scenario.faults(affected=["query"], slow=1.0, slow_s=1.0)
        await scenario.pay(order, "lost")
        arguments = ("worker", "--at", step)
        environ, log = scenario.stack.environ, tmp_path / "worker.log"
        async with Process("tests.scenarios.kill_at_step", *arguments, env=environ, log=log) as process:
            await eventually(partial(_is_leased, scenario, order))
            process.send(SIGTERM)
            assert await process.wait() == -SIGKILL
    await scenario.faults()

    await scenario.until("paid", order)


async def test_worker_killed_between_an_attempt_and_the_next(kill_scenario: Scenario, tmp_path: Path) -> None:
    """The next attempt stands in Postgres, and its job was never armed."""
    scenario = kill_scenario
    step = "storage.postgres.door.transition._commit:after"
    async with scenario.frozen_workers():
        order = await scenario.place()
        async with killed_at(scenario, "worker", step, tmp_path / "worker.log"):
            pass
    await scenario.pay(order, "lost")

    await scenario.until("paid", order)


@pytest.mark.parametrize("step", COMPENSATION.values(), ids=COMPENSATION.keys())
async def test_worker_killed_during_the_compensation(kill_scenario: Scenario, step: str, tmp_path: Path) -> None:
    scenario = kill_scenario
    order = await scenario.place()
    await scenario.put_off(order)
    async with scenario.frozen_workers():
        await scenario.faults(affected=["query"], html_error=1.0)
        await scenario.pay(order, "none")
        await eventually(lambda: _is_acknowledged(scenario, order))
        await scenario.faults()
        async with killed_at(scenario, "worker", step, tmp_path / "worker.log"):
            pass

    await scenario.until("paid", order)
    await eventually(lambda: _is_handled(scenario, order))


@pytest.mark.parametrize("step", CLOSE.values(), ids=CLOSE.keys())
async def test_web_process_killed_while_closing(
    kill_scenario: Scenario, router: Router, step: str, tmp_path: Path
) -> None:
    """The merchant is not answered; the deadline, which was moved to now, is worked off by the worker."""
    scenario = kill_scenario
    order = await scenario.place()
    await scenario.put_off(order)
    async with scenario.frozen_workers(), killed_at(scenario, "api", step, tmp_path / "api.log", router):
        with pytest.raises(httpx.RemoteProtocolError):
            await scenario.http.post(
                f"{router.url}/v1/orders/{order.order_no}/close",
                headers={"authorization": f"Bearer {scenario.stack.api_key}"},
            )

    await scenario.until("closed", order)
    assert (await scenario.ledger_payment(order)).status == "closed"


@pytest.mark.parametrize("step", NOTIFY.values(), ids=NOTIFY.keys())
async def test_worker_killed_while_telling_the_merchant(kill_scenario: Scenario, step: str, tmp_path: Path) -> None:
    """A repeated notification has the same id and body, by which the merchant recognizes it."""
    scenario = kill_scenario
    async with scenario.frozen_workers():
        order = await scenario.place()
        await scenario.pay(order, "none")
        await scenario.until("paid", order)
        async with killed_at(scenario, "worker", step, tmp_path / "worker.log"):
            pass

    await eventually(lambda: scenario.was_notified(order, "order.paid"))
    await eventually(lambda: _is_marked(scenario, order))
    deliveries = await scenario.deliveries(order)
    assert len({(delivery.webhook_id, delivery.body_sha256) for delivery in deliveries}) == 1
    assert len(deliveries) == (2 if step == NOTIFY["after_the_merchants_200"] else 1)


async def test_worker_killed_in_the_middle_of_a_sweep(kill_scenario: Scenario, tmp_path: Path) -> None:
    scenario = kill_scenario
    orders = await scenario.place_many(5)
    await scenario.put_off(*orders)
    for order in orders:
        await scenario.pay(order, "lost")
    async with scenario.frozen_workers():
        await scenario.make_due(*orders, ago_s=60)
        async with killed_at(
            scenario, "worker", "storage.postgres.pending.claim_overdue:after", tmp_path / "worker.log"
        ):
            pass

    await scenario.until("paid", *orders)


async def test_worker_killed_while_draining_parked_callbacks(kill_scenario: Scenario, tmp_path: Path) -> None:
    """It is in the inbox and still parked: the inbox absorbs the second."""
    scenario = kill_scenario
    order = await scenario.place()
    await scenario.put_off(order)
    await scenario.pay(order, "lost")
    headers, body = scenario.signed_callback(order)
    received_at = await scenario.db.fetchval("SELECT now()")
    async with scenario.frozen_workers(), client_of(scenario.stack.redis.url) as redis:
        await ParkedCallbacks(redis, scenario.sealer).park(
            ParkedCallback(account="sandbox", headers=headers, body=body, received_at=received_at)
        )
        step = "storage.redis.parked_callbacks.ParkedCallbacks.unpark:before"
        async with killed_at(scenario, "worker", step, tmp_path / "worker.log"):
            pass

    await scenario.until("paid", order)
    await eventually(lambda: _has_copies(scenario, order, 2))


async def test_worker_killed_while_arming_again_after_a_flush(kill_scenario: Scenario, tmp_path: Path) -> None:
    scenario = kill_scenario
    orders = await scenario.place_many(3)
    for order in orders:
        await scenario.pay(order, "lost")
    async with scenario.frozen_workers():
        await scenario.stack.flush_redis()
        step = "storage.redis.delay_queue.DelayQueue.mark_rearmed:before"
        async with killed_at(scenario, "worker", step, tmp_path / "worker.log"):
            pass

    await scenario.until("paid", *orders)


async def _until_acknowledged(scenario: Scenario, order: ShopOrder) -> None:
    """The channel sends its callback again, as it does by itself."""

    async def is_acknowledged() -> bool:
        return await scenario.request_callback(order) == 200

    await eventually(is_acknowledged)


async def _is_leased(scenario: Scenario, order: ShopOrder) -> bool:
    sql = "SELECT EXISTS (SELECT FROM pending WHERE order_no = $1 AND leased_until > now())"
    return bool(await scenario.db.fetchval(sql, order.order_no))


async def _is_acknowledged(scenario: Scenario, order: ShopOrder) -> bool:
    return (await scenario.ledger_payment(order)).callbacks.acknowledged > 0


async def _is_handled(scenario: Scenario, order: ShopOrder) -> bool:
    [stored] = await scenario.callbacks(number_of(order))
    return bool(stored["is_handled"])


async def _is_marked(scenario: Scenario, order: ShopOrder) -> bool:
    sql = "SELECT bool_and(delivered_at IS NOT NULL) FROM notifications WHERE order_no = $1"
    return bool(await scenario.db.fetchval(sql, order.order_no))


async def _has_copies(scenario: Scenario, order: ShopOrder, copies: int) -> bool:
    """Return whether its callback is one row of the inbox, and came so many times."""
    [stored] = await scenario.callbacks(number_of(order))
    return bool(stored["copies"] == copies)

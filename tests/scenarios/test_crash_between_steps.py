"""SIGKILL between every two steps of placing, of a callback, of a query, of closing and of telling the merchant.

A process dies at the named step, beside others that live on: whatever it had done until then, no order is lost, none is
paid twice, and nothing stays stuck. Steps are functions where they are used; see `crashing`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from signal import SIGKILL

import httpx
import pytest

from demo.embedded import free_port
from simulator.shoppers.shop import ShopOrder
from storage.redis.parked_callbacks import ParkedCallback, ParkedCallbacks
from tests.scenarios.router import Router
from tests.scenarios.scenario import Scene, number_of, port_of
from tests.servers import Process, eventually
from tests.storage.redis.tools import client_of

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
    "verified": "flows.callback._verify:after",
    "after_inbox": "flows.callback.insert_callback:after",
    "armed": "flows.callback.arm_jobs:after",
    "leased": "flows.callback.wait_for_lease:after",
    "before_asking": "channels.transport.Transport.call:before",
    "after_answer": "channels.transport.Transport.call:after",
    "before_commit": "storage.postgres.door.transition._commit:before",
    "after_commit_before_arming": "storage.postgres.door.transition._commit:after",
    "before_marking_handled": "storage.postgres.callbacks.finish:before",
    "after_marking_handled": "storage.postgres.callbacks.finish:after",
    "before_acknowledgement": "channels.sandbox.adapter.Sandbox.acknowledge:before",
    "after_acknowledgement": "api.http.asgi.App._note:before",
}
QUERY = {
    "claimed": "worker.jobs.query_scheduled:before",
    "leased": "storage.postgres.pending.claim:after",
    "after_answer": "flows.ask._ask:after",
    "before_commit": "storage.postgres.door.transition._commit:before",
    "after_commit_before_arming": "storage.postgres.door.transition._commit:after",
    "before_finishing_the_job": "worker.lane.LaneWorker.finish_job:before",
}
COMPENSATION = {
    "claimed": "storage.postgres.callbacks.claim:after",
    "leased": "flows.callback.wait_for_lease:after",
    "after_commit": "flows.callback.query_now:after",
    "after_marking_handled": "storage.postgres.callbacks.finish:after",
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


@asynccontextmanager
async def dying(scene: Scene, what: str, step: str, log: Path, router: Router | None = None) -> AsyncIterator[None]:
    """A process that dies at this step, which it has to reach before the block is left."""
    port = free_port()
    environ = scene.stack.environ | {"PORT": str(port)}
    async with Process("tests.scenarios.crashing", what, "--at", step, env=environ, log=log) as process:
        if router is not None:
            await process.wait_for_port(port)
            await router.lead_to(port, port_of(scene.stack.api_url))
        yield
        assert await process.wait(15) == -SIGKILL


@pytest.mark.parametrize("step", PLACE.values(), ids=PLACE.keys())
async def test_web_process_killed_while_placing(dying_scene: Scene, router: Router, step: str, tmp_path: Path) -> None:
    """The merchant sends the same request again, and there is one order with one payment."""
    scene = dying_scene
    async with dying(scene, "api", step, tmp_path / "api.log", router):
        order = await scene.place()

    assert len(order.payments) == 1
    await scene.pay(order, "lost")
    await scene.until("paid", order)


@pytest.mark.parametrize("step", CALLBACK.values(), ids=CALLBACK.keys())
async def test_web_process_killed_during_a_callback(
    dying_scene: Scene, router: Router, step: str, tmp_path: Path
) -> None:
    """No query is due: either the compensation finds it, or the channel, without an acknowledgement, sends it again."""
    scene = dying_scene
    order = await scene.place()
    await scene.put_off(order)
    async with dying(scene, "api", step, tmp_path / "api.log", router):
        await scene.pay(order, "none")

    await scene.until("paid", order)


@pytest.mark.parametrize("step", QUERY.values(), ids=QUERY.keys())
async def test_worker_killed_during_a_query(dying_scene: Scene, step: str, tmp_path: Path) -> None:
    scene = dying_scene
    async with scene.frozen_workers():
        order = await scene.place()
        await scene.pay(order, "lost")
        async with dying(scene, "worker", step, tmp_path / "worker.log"):
            pass

    await scene.until("paid", order)


async def test_worker_killed_between_an_attempt_and_the_next(dying_scene: Scene, tmp_path: Path) -> None:
    """The next attempt stands in Postgres, and its job was never armed."""
    scene = dying_scene
    async with scene.frozen_workers():
        order = await scene.place()
        async with dying(scene, "worker", "storage.postgres.door.transition._commit:after", tmp_path / "worker.log"):
            pass
    await scene.pay(order, "lost")

    await scene.until("paid", order)


@pytest.mark.parametrize("step", COMPENSATION.values(), ids=COMPENSATION.keys())
async def test_worker_killed_during_the_compensation(dying_scene: Scene, step: str, tmp_path: Path) -> None:
    scene = dying_scene
    order = await scene.place()
    await scene.put_off(order)
    async with scene.frozen_workers():
        await scene.faults(affected=["query"], html_error=1.0)
        await scene.pay(order, "none")
        await eventually(lambda: _is_acknowledged(scene, order))
        await scene.faults()
        async with dying(scene, "worker", step, tmp_path / "worker.log"):
            pass

    await scene.until("paid", order)
    await eventually(lambda: _is_handled(scene, order))


@pytest.mark.parametrize("step", CLOSE.values(), ids=CLOSE.keys())
async def test_web_process_killed_while_closing(dying_scene: Scene, router: Router, step: str, tmp_path: Path) -> None:
    """The merchant is not answered; the deadline, which was moved to now, is worked off by the worker."""
    scene = dying_scene
    order = await scene.place()
    await scene.put_off(order)
    async with dying(scene, "api", step, tmp_path / "api.log", router):
        with pytest.raises(httpx.RemoteProtocolError):
            await scene.http.post(
                f"{router.url}/v1/orders/{order.order_no}/close",
                headers={"authorization": f"Bearer {scene.stack.api_key}"},
            )

    await scene.until("closed", order)
    assert (await scene.at_channel(order)).status == "closed"


@pytest.mark.parametrize("step", NOTIFY.values(), ids=NOTIFY.keys())
async def test_worker_killed_while_telling_the_merchant(dying_scene: Scene, step: str, tmp_path: Path) -> None:
    """Whatever is told again has the same id and the same body, for that is all by which a merchant can know it."""
    scene = dying_scene
    async with scene.frozen_workers():
        order = await scene.place()
        await scene.pay(order, "none")
        await scene.until("paid", order)
        async with dying(scene, "worker", step, tmp_path / "worker.log"):
            pass

    await eventually(lambda: scene.was_told(order, "order.paid"))
    await eventually(lambda: _is_marked(scene, order))
    told = await scene.deliveries(order)
    assert len({(delivery.webhook_id, delivery.body_sha256) for delivery in told}) == 1
    assert len(told) == (2 if step == NOTIFY["after_the_merchants_200"] else 1)


async def test_worker_killed_in_the_middle_of_a_sweep(dying_scene: Scene, tmp_path: Path) -> None:
    scene = dying_scene
    orders = await scene.place_many(5)
    await scene.put_off(*orders)
    for order in orders:
        await scene.pay(order, "lost")
    async with scene.frozen_workers():
        await scene.make_due(*orders, ago_s=60)
        async with dying(scene, "worker", "storage.postgres.pending.claim_overdue:after", tmp_path / "worker.log"):
            pass

    await scene.until("paid", *orders)


async def test_worker_killed_while_draining_parked_callbacks(dying_scene: Scene, tmp_path: Path) -> None:
    """It is in the inbox and still parked: the inbox absorbs the second."""
    scene = dying_scene
    order = await scene.place()
    await scene.put_off(order)
    await scene.pay(order, "lost")
    headers, body = scene.signed_callback(order)
    received_at = await scene.db.fetchval("SELECT now()")
    async with scene.frozen_workers(), client_of(scene.stack.redis.url) as redis:
        await ParkedCallbacks(redis).park(
            ParkedCallback(account="sandbox", headers=headers, body=body, received_at=received_at)
        )
        step = "storage.redis.parked_callbacks.ParkedCallbacks.unpark:before"
        async with dying(scene, "worker", step, tmp_path / "worker.log"):
            pass

    await scene.until("paid", order)
    [stored] = await scene.callbacks(number_of(order))
    assert stored["copies"] == 2


async def test_worker_killed_while_arming_again_after_a_flush(dying_scene: Scene, tmp_path: Path) -> None:
    scene = dying_scene
    orders = await scene.place_many(3)
    for order in orders:
        await scene.pay(order, "lost")
    async with scene.frozen_workers():
        await scene.stack.flush_redis()
        step = "storage.redis.delay_queue.DelayQueue.mark_rearmed:before"
        async with dying(scene, "worker", step, tmp_path / "worker.log"):
            pass

    await scene.until("paid", *orders)


async def _is_acknowledged(scene: Scene, order: ShopOrder) -> bool:
    return (await scene.at_channel(order)).callbacks.acknowledged > 0


async def _is_handled(scene: Scene, order: ShopOrder) -> bool:
    [stored] = await scene.callbacks(number_of(order))
    return bool(stored["is_handled"])


async def _is_marked(scene: Scene, order: ShopOrder) -> bool:
    sql = "SELECT bool_and(delivered_at IS NOT NULL) FROM notifications WHERE order_no = $1"
    return bool(await scene.db.fetchval(sql, order.order_no))

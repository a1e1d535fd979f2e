"""Every documented metric moves when the thing that it measures happens."""

import asyncio
import re
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families

from api.http.request import Message
from core.admission import UNANSWERED_MAX, CallKind, Urgency
from core.evidence import Paid, Source
from core.jobs import Lane, compensate_callback
from core.lifecycle import LatePolicy, Rules, on_callback
from core.settings import Settings
from flows.commit import commit_decision
from flows.notify import Notifier, push_notification
from flows.reconcile.run import reconcile_day
from runtime.resources import Resources
from storage.postgres import alerts, processes
from storage.postgres.callbacks import count_callback
from storage.postgres.orders import find_state
from tests.api.conftest import Channel, open_elsewhere, terms, token_of
from tests.api.driver import Client
from tests.api.test_callbacks import paid_body, send, signed
from tests.connections import serving
from tests.servers import ROOT, eventually
from worker.jobs import FUNCTIONS
from worker.lane import LaneWorker

OPEN, STREAMS = "nodrop_http_requests_open", "nodrop_http_streams_open"

Samples = dict[tuple[str, str], float]
"""The sum of a metric's samples, and of those with one `kind` label."""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """With the merchant on this machine."""
    return replace(settings, notify_allow_nets="127.0.0.1/32")


async def scrape(client: Client) -> Samples:
    """The metrics now, the scrape itself being one open request."""
    samples: Samples = defaultdict(float)
    for family in text_string_to_metric_families((await client.get("/metrics")).body.decode()):
        for sample in family.samples:
            name = sample.name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count")
            for key in {(name, ""), (name, sample.labels.get("kind", ""))}:
                samples[key] += sample.value
    return samples


def documented() -> set[tuple[str, str]]:
    """The metrics of docs/operations.md, and the kinds that are listed there."""
    text = (ROOT / "docs/operations.md").read_text()
    rows = re.findall(r"^\| `(nodrop_[a-z_]+)` \| (?:kind: ([a-z, ]+))?", text, re.MULTILINE)
    kinds = {(name, kind.strip()) for name, listed in rows if listed for kind in listed.split(",")}
    return kinds | {(name, "") for name, _ in rows}


@asynccontextmanager
async def request_under_way(client: Client, token: str = "") -> AsyncIterator[asyncio.Task[None]]:
    """A refresh whose body does not end; at the end of the block it is cancelled."""

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(_: Message) -> None:
        pass

    scope = client._scope("POST", f"/o/{token or 't' * 22}/refresh", {"content-length": "5"})
    task = asyncio.create_task(client.app(scope, receive, send))
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def merchant_that_refuses() -> AsyncIterator[str]:
    """An order service that has no use for notifications: 410, which ends them."""

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()

    async with serving(respond) as port:
        yield f"http://127.0.0.1:{port}/orders"


async def pay_late(resources: Resources, order: dict[str, Any]) -> None:
    """The channel says after the close that it has the money; the account gives such money back."""
    state = await find_state(resources.db, order["order_no"])
    assert state is not None
    payment = state.payments[0]
    paid = Paid(
        channel_account=payment.channel_account,
        out_trade_no=payment.out_trade_no,
        amount=payment.amount,
        currency=payment.currency,
        channel_transaction_id="t-late",
    )
    rules = Rules(late_policy=LatePolicy.REFUND)
    await commit_decision(
        resources, state.order.order_no,
        partial(on_callback, key=payment.key, evidence=paid, rules=rules, by=Source.CALLBACK),
    )  # fmt: skip


async def run_one_job(resources: Resources) -> None:
    """A job of a worker, which finds nothing to do."""
    lane = LaneWorker(resources.redis, Lane.FRESH, FUNCTIONS[Lane.FRESH], process="here", ctx={"resources": resources})
    await resources.queue.arm([compensate_callback(str(uuid4()), 1)])
    await eventually(lane.run_once)
    await lane.drain(5.0)


async def test_every_documented_metric_moves(
    client: Client, buyer: Client, account: str, channel: Channel, resources: Resources, settings: Settings
) -> None:
    before = await scrape(client)

    async with merchant_that_refuses() as url:
        paid = (await client.post("/v1/orders", terms(account=account, notify_url=url))).json
        await channel.pay(paid["payments"][0]["out_trade_no"])
        await client.post(f"/v1/orders/{paid['order_no']}/refresh")
        notification_id = await resources.db.fetchval("SELECT id FROM notifications")
        async with Notifier(settings) as notifier:
            await push_notification(resources, notifier, notification_id, 1)

    late = (await client.post("/v1/orders", terms(account=account, notify_url="https://shop.test/orders"))).json
    await client.post(f"/v1/orders/{late['order_no']}/close")
    await pay_late(resources, late)
    waiting = (await client.post("/v1/orders", terms(account=account))).json
    callback = paid_body(waiting["payments"][0] | {"out_trade_no": "of-an-order-to-come"})
    assert (await send(buyer, callback, signed(callback))).status == 200
    repaired = (await client.post("/v1/orders", terms(account=account))).json
    await channel.pay(repaired["payments"][0]["out_trade_no"])
    await reconcile_day(resources, await resources.accounts.get(account), datetime.now(UTC).date())
    for _ in range(UNANSWERED_MAX):
        await resources.admission.report(account, CallKind.QUERY, answered=False)
    await client.post(f"/v1/orders/{waiting['order_no']}/refresh")
    await open_elsewhere(resources, channel, "stripe", "other")
    resources.accounts._read_at -= 60.0
    await resources.db.execute(
        """INSERT INTO reconciliations (channel_account, day, dry_run, status, counts)
           VALUES ($1, current_date - 1, false, 'failed', '{"total": 1}')""",
        account,
    )
    await count_callback(resources.db, account, "no_money")
    resources.clock._postgres_base = (resources.clock._postgres_base or 0.0) + 1.0
    await resources.db.execute(
        """INSERT INTO alerts (id, key, rule, subject, text, looks, raised_at)
           VALUES ('alr_1', 'case:1', 'case', '1', 'a case', 0, now())"""
    )
    await alerts.insert_test(resources.db, "alr_2_test", b"{}")
    await processes.beat(resources.db, "a worker")
    await run_one_job(resources)
    await resources.admission.admit(account, 100, CallKind.CLOSE, Urgency.FRESH)
    for host in ("a.test", "b.test", "c.test"):
        resources.clock.witness(host, resources.clock.read() + 600.0)
    for table in ("pending", "callbacks", "notifications", "refunds"):
        await resources.db.execute(f"UPDATE {table} SET due_at = now() - interval '90 s'")  # noqa: S608

    async with buyer.stream(f"/o/{token_of(waiting)}/events") as stream, request_under_way(buyer):
        await stream.until(lambda now: now.states)
        after = await scrape(client)

    assert {metric for metric in documented() if after[metric] == before[metric]} == set()


async def test_a_request_is_open_until_it_is_answered_cancelled_or_a_stream(client: Client, buyer: Client) -> None:
    order = (await client.post("/v1/orders", terms())).json
    idle = (await scrape(client))[OPEN, ""]
    async with request_under_way(buyer), request_under_way(buyer):
        await eventually(lambda: buyer.app._places.count == 2)
        assert (await scrape(client))[OPEN, ""] == idle + 2
    assert (await scrape(client))[OPEN, ""] == idle, "they were cancelled"
    assert (await buyer.get("/o/" + "t" * 22)).status == 404
    async with buyer.stream(f"/o/{token_of(order)}/events") as stream:
        await stream.until(lambda now: now.states)
        during = await scrape(client)
        assert (during[OPEN, ""], during[STREAMS, ""]) == (idle, 1.0), "a stream is not an open request"
    assert (await scrape(client))[STREAMS, ""] == 0.0

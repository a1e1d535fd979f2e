"""Notifications with their attempts, sent again one by one and in bulk, and endpoints that are paused meanwhile."""

import dataclasses
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio
from msgspec.structs import replace

from core.acts import Preview
from core.deliveries import NotificationState
from core.errors import InvalidRequest, NotFound, NotPossible, PreviewOutdated
from core.jobs import Lane
from flows.endpoints import (
    find_served,
    list_served,
    pause_endpoint,
    preview_pausing,
    preview_resuming,
    resume_endpoint,
)
from flows.erase import erase_order
from flows.let_go import TURN_S, let_go_held
from flows.notify import Notifier, push_notification
from flows.resend import get_notification, preview_resend, preview_resend_many, resend_many, resend_notification
from storage.postgres import deliveries, endpoints
from storage.postgres.deliveries import Choice, NotificationRow
from storage.postgres.orders import find_now
from tests.channels.wire import WireResponse, http_bytes
from tests.flows.conftest import FlowHarness
from tests.flows.test_notify import OK, paid_order, push, row_of, scripted_merchant

DOWN = http_bytes(WireResponse(503, {}, b"closed for today: canary\n"))
GONE = http_bytes(WireResponse(410, {}, b""))


@pytest_asyncio.fixture(loop_scope="session")
async def notifier(harness: FlowHarness) -> AsyncIterator[Notifier]:
    async with Notifier(harness.resources.settings) as notifier:
        yield notifier


async def shown(harness: FlowHarness, notification_id: str) -> NotificationRow:
    return await get_notification(harness.resources, notification_id)


def keys(preview: Preview) -> list[str]:
    """The sentences of a preview, by their keys."""
    refusal = [] if preview.refusal is None else [preview.refusal]
    assert all(line.text for line in (*preview.lines, *preview.warnings, *refusal)), "each has its figures"
    return [line.key for line in (*preview.warnings, *refusal)]


# -- one ---------------------------------------------------------------------------------------------------------------


async def test_a_delivered_one_is_sent_again_at_once_and_the_merchant_sees_the_same_id(
    harness: FlowHarness, notifier: Notifier
) -> None:
    async with scripted_merchant(OK) as merchant:
        notification_id = await paid_order(harness, merchant.url)
        await push(harness, notifier, notification_id)
        preview = await preview_resend(harness.resources, notification_id)
        assert keys(preview) == ["resend.delivered"]
        row = await resend_notification(harness.resources, notification_id, expected_version=preview.version)
        assert (row.state, row.standing.resending_since is not None) == (NotificationState.DELIVERED, True)
        jobs = [job.decode() for job in await harness.resources.queue.due(Lane.NOTIFICATIONS, 10)]
        assert any(job.endswith(f"n:{notification_id}:{row.arm_no}") for job in jobs)
        assert await push_notification(harness.resources, notifier, notification_id, row.arm_no) == "200"
    first, second = merchant.requests
    assert (first.body, first.headers["webhook-id"]) == (second.body, second.headers["webhook-id"])
    assert [each.is_manual for each in (await shown(harness, notification_id)).attempts] == [False, True]


async def test_one_whose_text_is_erased_is_not_sent_again(harness: FlowHarness, notifier: Notifier) -> None:
    async with scripted_merchant(OK) as merchant:
        notification_id = await paid_order(harness, merchant.url)
        await push(harness, notifier, notification_id)
    row = await shown(harness, notification_id)
    await erase_order(harness.resources, row.order_no, by="kim", dead_letters=False)
    with pytest.raises(NotPossible, match="erased"):
        await resend_notification(harness.resources, notification_id)


async def test_an_order_with_one_that_is_sent_again_is_not_erased(harness: FlowHarness, notifier: Notifier) -> None:
    async with scripted_merchant(OK) as merchant:
        notification_id = await paid_order(harness, merchant.url)
        await push(harness, notifier, notification_id)
        row = await resend_notification(harness.resources, notification_id)
        with pytest.raises(InvalidRequest, match="1 notifications are not delivered yet"):
            await erase_order(harness.resources, row.order_no, by="kim", dead_letters=False)


async def test_the_sweep_sends_a_delivered_one_again_when_redis_has_lost_it(
    harness: FlowHarness, notifier: Notifier
) -> None:
    async with scripted_merchant(OK) as merchant:
        notification_id = await paid_order(harness, merchant.url)
        await push(harness, notifier, notification_id)
        await resend_notification(harness.resources, notification_id)
        await harness.resources.db.execute("UPDATE notifications SET due_at = now() - interval '1 minute'")
        assert await harness.sweep("resent") == 1
        assert len(merchant.requests) == 2


async def test_a_resending_that_ends_without_success_is_no_dead_letter(
    harness: FlowHarness, notifier: Notifier
) -> None:
    async with scripted_merchant(OK, GONE) as merchant:
        notification_id = await paid_order(harness, merchant.url)
        await push(harness, notifier, notification_id)
        await resend_notification(harness.resources, notification_id)
        assert await push(harness, notifier, notification_id) == "410"
    row = await shown(harness, notification_id)
    assert (row.state, row.standing.resending_since, row.next_at) == (NotificationState.DELIVERED, None, None)


async def test_one_that_is_being_sent_or_was_scheduled_anew_is_left_alone(
    harness: FlowHarness, notifier: Notifier
) -> None:
    async with scripted_merchant(DOWN) as merchant:
        notification_id = await paid_order(harness, merchant.url)
        preview = await preview_resend(harness.resources, notification_id)
        await push(harness, notifier, notification_id)
        with pytest.raises(PreviewOutdated):
            await resend_notification(harness.resources, notification_id, expected_version=preview.version)
        await harness.resources.db.execute("UPDATE notifications SET leased_until = now() + interval '1 minute'")
        assert keys(await preview_resend(harness.resources, notification_id)) == ["resend.under_way"]
        with pytest.raises(NotPossible, match="at this moment"):
            await resend_notification(harness.resources, notification_id)
    with pytest.raises(NotFound):
        await resend_notification(harness.resources, "msg_unknown")


# -- many --------------------------------------------------------------------------------------------------------------


async def delivered_and_dead(harness: FlowHarness, notifier: Notifier, url: str) -> tuple[str, str, str]:
    """A delivered one, a dead one and one that waits for its next attempt, as the answers of the merchant make them."""
    ids = [await paid_order(harness, url) for _ in range(3)]
    for notification_id in ids:
        await push(harness, notifier, notification_id)
    return ids[0], ids[1], ids[2]


async def run_let_go(harness: FlowHarness, notifier: Notifier, ids: list[str]) -> None:
    await let_go_held(harness.resources)
    for notification_id in ids:
        await push(harness, notifier, notification_id)


async def test_dead_ones_are_sent_again_a_few_at_a_time(harness: FlowHarness, notifier: Notifier) -> None:
    settings = replace(harness.resources.settings, notify_resend_per_s=0.5)
    harness.resources = dataclasses.replace(harness.resources, settings=settings)
    async with scripted_merchant(GONE, GONE, GONE, OK) as merchant:
        ids = [await paid_order(harness, merchant.url) for _ in range(3)]
        for notification_id in ids:
            await push(harness, notifier, notification_id)
        preview = await preview_resend_many(harness.resources, Choice(), is_dead_only=True)
        assert keys(preview) == []
        assert preview.lines[0].figures == {"count": 3, "span": "6 s", "per_s": "0.5"}
        assert await resend_many(harness.resources, Choice(), is_dead_only=True) == 3
        rows = [await shown(harness, notification_id) for notification_id in ids]
        assert [row.state for row in rows] == [NotificationState.QUEUED] * 3
        await let_go_held(harness.resources)
        rows = [await shown(harness, notification_id) for notification_id in ids]
        assert [row.state for row in rows].count(NotificationState.UNDELIVERED) == 2 == 0.5 * TURN_S
        await run_let_go(harness, notifier, ids)
        assert [(await shown(harness, one)).state for one in ids] == [NotificationState.DELIVERED] * 3
        assert len(merchant.requests) == 6
    assert keys(await preview_resend_many(harness.resources, Choice(), is_dead_only=True)) == ["resend.none"]
    assert await resend_many(harness.resources, Choice(), is_dead_only=True) == 0


async def test_all_of_an_endpoint_since_a_time_are_sent_again(
    harness: FlowHarness, notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Delivered, dead and waiting ones, each once, in batches; not those of before or of another endpoint."""
    monkeypatch.setattr(deliveries, "RESEND_MAX", 2)
    async with scripted_merchant(OK, GONE, DOWN, OK) as merchant:
        ids = list(await delivered_and_dead(harness, notifier, merchant.url))
        ids += [await paid_order(harness, f"{merchant.url}/?order=4")]
        earlier, elsewhere = await paid_order(harness, merchant.url), await paid_order(harness, f"{merchant.url}/b")
        db = harness.resources.db
        await db.execute("UPDATE notifications SET created_at = now() - interval '1 hour' WHERE id = $1", earlier)
        await db.execute("UPDATE notifications SET url = url || '/' WHERE url = $1", merchant.url)
        since = await find_now(db) - timedelta(minutes=5)
        choice = Choice(endpoint=f"{merchant.url}/", since=since)
        preview = await preview_resend_many(harness.resources, choice, is_dead_only=False)
        assert (keys(preview), preview.lines[0].figures["count"]) == ([], 4)
        assert await resend_many(harness.resources, choice, is_dead_only=False) == 4
        sent_again = await db.fetch("SELECT id FROM notifications WHERE resending_since IS NOT NULL")
        assert {row["id"] for row in sent_again} == set(ids)
        await run_let_go(harness, notifier, ids)
        assert {(await shown(harness, one)).state for one in ids} == {NotificationState.DELIVERED}
        assert (await row_of(harness, elsewhere))["arm_no"] == 1


@pytest.mark.parametrize("choice", [Choice(), Choice(endpoint="https://shop.test/hook")])
async def test_not_all_that_ever_was_is_sent_again(harness: FlowHarness, choice: Choice) -> None:
    with pytest.raises(InvalidRequest, match="name an endpoint and a time"):
        await preview_resend_many(harness.resources, choice, is_dead_only=False)
    with pytest.raises(InvalidRequest, match="name an endpoint and a time"):
        await resend_many(harness.resources, choice, is_dead_only=False)


# -- endpoints ---------------------------------------------------------------------------------------------------------


async def test_an_endpoint_has_what_waits_and_its_deliveries_of_a_day(harness: FlowHarness) -> None:
    db, now = harness.resources.db, await find_now(harness.resources.db)
    sql = """INSERT INTO rollups (step, scope, name, at, figures, computed_at)
             VALUES (3600, 'endpoint', $1, date_trunc('hour', now()), '{"tries": 7, "tries_failed": 2}', now()),
                    (3600, 'endpoint', $1, date_trunc('hour', now() - interval '3 hours'), '{"tries": 1}', now()),
                    (3600, 'endpoint', $1, date_trunc('hour', now() - interval '2 days'), '{"tries": 99}', now())"""
    await db.execute(sql, "https://shop.test/hook")
    await endpoints.pause(db, "https://other.test/", by="kim", reason="they move")
    other, served = await list_served(db, now)
    assert (other.row.endpoint, other.deliveries) == ("https://other.test/", 0)
    assert (served.row.endpoint, served.deliveries, served.acknowledged) == ("https://shop.test/hook", 8, 6)
    assert await find_served(db, "https://shop.test/hook", now) == served
    assert keys(await preview_pausing(harness.resources, "https://shop.test/hook")) == []


# -- paused endpoints --------------------------------------------------------------------------------------------------


async def test_nothing_is_sent_to_a_paused_endpoint_and_a_resume_brings_it(
    harness: FlowHarness, notifier: Notifier
) -> None:
    resources = harness.resources
    async with scripted_merchant(OK) as merchant:
        endpoint = f"{merchant.url}/hook"
        assert keys(await preview_pausing(resources, endpoint)) == ["endpoint.unknown"]
        await pause_endpoint(resources, f"{endpoint}?a=b", by="kim", reason="they move")
        assert keys(await preview_pausing(resources, endpoint)) == ["endpoint.is_paused"]
        notification_id = await paid_order(harness, f"{endpoint}?order=1")
        assert await push(harness, notifier, notification_id) == "paused"
        row = await shown(harness, notification_id)
        assert (row.state, row.attempt, row.attempts_made) == (NotificationState.PAUSED, 1, 0)
        assert keys(await preview_resend(resources, notification_id)) == ["resend.paused"]
        assert merchant.requests == []

        preview = await preview_resuming(resources, endpoint)
        assert preview.lines[1].figures["count"] == 1
        await resume_endpoint(resources, endpoint)
        await run_let_go(harness, notifier, [notification_id])
        assert len(merchant.requests) == 1
    row = await shown(harness, notification_id)
    assert (row.state, [each.no for each in row.attempts]) == (NotificationState.DELIVERED, [1])


async def test_an_endpoint_that_is_not_as_somebody_thinks_is_left_as_it_is(harness: FlowHarness) -> None:
    resources = harness.resources
    with pytest.raises(NotPossible, match="not paused"):
        await resume_endpoint(resources, "https://shop.test/hook")
    await pause_endpoint(resources, "https://shop.test/hook", by="kim", reason="they move")
    with pytest.raises(NotPossible, match="paused already, by kim"):
        await pause_endpoint(resources, "https://shop.test/hook", by="lee", reason="again")
    for wrong in ("shop.test", "ftp://shop.test/", "https://a@shop.test/", "https://shop test/"):
        with pytest.raises(InvalidRequest, match=r"^endpoint: "):
            await pause_endpoint(resources, wrong, by="kim", reason="they move")


@pytest.mark.parametrize("is_dead_only", [True, False])
async def test_the_preview_says_what_is_done_however_many_others_stand_before(
    harness: FlowHarness, monkeypatch: pytest.MonkeyPatch, *, is_dead_only: bool
) -> None:
    db = harness.resources.db
    ids = [await paid_order(harness, "https://shop.test/hook") for _ in range(4)]
    await db.execute("UPDATE notifications SET dead_at = now(), leased_until = NULL")
    other = "https://other.test/hook"
    await db.execute(
        "UPDATE notifications SET url = $2, dead_at = now() + interval '1 s' WHERE id = $1", ids[-1], other
    )
    monkeypatch.setattr(deliveries, "COUNT_MAX", 2)
    monkeypatch.setattr(deliveries, "_COUNTS", {listed: deliveries._count(listed) for listed in deliveries.Listed})
    choice = Choice(endpoint=other, since=await find_now(db) - timedelta(hours=1))
    preview = await preview_resend_many(harness.resources, choice, is_dead_only=is_dead_only)
    assert (preview.refusal, preview.lines[0].key) == (None, "resend.many")
    assert preview.lines[0].figures["count"] == 1
    assert await resend_many(harness.resources, choice, is_dead_only=is_dead_only) == 1

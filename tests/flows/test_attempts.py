"""The record of each attempt to deliver a notification and its erasure; and a paused endpoint, which gets nothing."""

import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio

from core.deliveries import NotificationState
from flows.erase import erase_order
from flows.let_go import let_go_held
from flows.notify import Notifier
from storage.postgres import endpoints
from storage.postgres.deliveries import NotificationRow, find_notification
from storage.postgres.personal_data import export_order
from tests.channels.wire import WireResponse, http_bytes
from tests.flows.conftest import FlowHarness
from tests.flows.test_notify import OK, paid_order, push, scripted_merchant

DOWN = http_bytes(WireResponse(503, {}, b"closed for today: canary\n"))


@pytest_asyncio.fixture(loop_scope="session")
async def notifier(harness: FlowHarness) -> AsyncIterator[Notifier]:
    async with Notifier(harness.resources.settings) as notifier:
        yield notifier


async def shown(harness: FlowHarness, notification_id: str) -> NotificationRow:
    row = await find_notification(harness.resources.db, notification_id)
    assert row is not None
    return row


async def test_each_attempt_is_kept_with_its_status_and_the_beginning_of_the_answer(
    harness: FlowHarness, notifier: Notifier
) -> None:
    long = http_bytes(WireResponse(500, {}, b"x" * 2000))
    async with scripted_merchant(DOWN, long, OK) as merchant:
        notification_id = await paid_order(harness, merchant.url)
        for _ in range(3):
            await push(harness, notifier, notification_id)
    first, second, third = (await shown(harness, notification_id)).attempts
    assert [(each.no, each.status, each.is_manual) for each in (first, second, third)] == [
        (1, "503", False),
        (2, "500", False),
        (3, "200", False),
    ]
    assert (first.answer, second.answer, third.answer) == ("closed for today: canary", "x" * 512, "ok")
    assert first.at <= second.at <= third.at
    assert all(0 <= each.latency_ms < 20_000 for each in (first, second, third))


async def test_an_attempt_without_an_answer_says_why(harness: FlowHarness, notifier: Notifier) -> None:
    async with scripted_merchant(OK) as merchant:
        url = merchant.url
    notification_id = await paid_order(harness, url)
    await push(harness, notifier, notification_id)
    [attempt] = (await shown(harness, notification_id)).attempts
    assert (attempt.status, attempt.answer) == ("ConnectError", "")


async def test_an_erased_order_keeps_its_attempts_without_their_answers(
    harness: FlowHarness, notifier: Notifier
) -> None:
    async with scripted_merchant(DOWN, OK) as merchant:
        notification_id = await paid_order(harness, merchant.url)
        await push(harness, notifier, notification_id)
        await push(harness, notifier, notification_id)
    order_no = (await shown(harness, notification_id)).order_no
    [exported] = (await export_order(harness.resources.db, harness.sealer, order_no))["notifications"]
    assert [attempt["answer"] for attempt in exported["attempts"]] == ["closed for today: canary", "ok"]
    await erase_order(harness.resources, order_no, by="kim", dead_letters=False)
    assert [(each.status, each.answer) for each in (await shown(harness, notification_id)).attempts] == [
        ("503", ""),
        ("200", ""),
    ]


async def test_nothing_is_sent_to_a_paused_endpoint_until_it_is_resumed(
    harness: FlowHarness, notifier: Notifier
) -> None:
    db = harness.resources.db
    async with scripted_merchant(OK) as merchant:
        await endpoints.pause(db, f"{merchant.url}/hook", by="kim", reason="they move")
        notification_id = await paid_order(harness, f"{merchant.url}/hook?order=1")
        assert await push(harness, notifier, notification_id) == "paused"
        row = await shown(harness, notification_id)
        assert (row.state, row.attempt, row.attempts_made) == (NotificationState.PAUSED, 1, 0)
        assert await harness.sweep("notifications") == 0
        await let_go_held(harness.resources)
        assert (await shown(harness, notification_id)).state is NotificationState.PAUSED
        assert merchant.requests == []
        await endpoints.resume(db, f"{merchant.url}/hook")
        await let_go_held(harness.resources)
        assert await push(harness, notifier, notification_id) == "200"
    row = await shown(harness, notification_id)
    assert (row.state, [each.no for each in row.attempts]) == (NotificationState.DELIVERED, [1])


async def test_a_sweep_holds_what_is_overdue_for_a_paused_endpoint_and_does_not_look_again(
    harness: FlowHarness,
) -> None:
    """Redis is away: each is claimed once."""
    async with scripted_merchant(OK) as merchant:
        await endpoints.pause(harness.resources.db, merchant.url, by="kim", reason="they move")
        for _ in range(3):
            await paid_order(harness, merchant.url)
        await harness.resources.db.execute("UPDATE notifications SET due_at = now() - interval '1 minute'")
        assert await asyncio.wait_for(harness.sweep("notifications"), 60) == 3
        assert await harness.sweep("notifications") == 0
        assert merchant.connections == 0

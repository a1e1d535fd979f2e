"""Alerts: each told once with its all-clear, whoever looks, and sent until it is heard."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from standardwebhooks import Webhook
from structlog.testing import capture_logs

from core.admission import UNANSWERED_MAX, CallKind
from core.alerts import AlertMessage, Invariant
from core.errors import ConfigurationError, InvalidRequest
from core.order import CaseReason
from core.settings import Settings
from flows.alert import alert_duty, look, look_without_workers
from flows.alert_messages import AlertSender, message_duty, queue_test, send_due, send_without_workers
from flows.duties import do_if_due
from flows.take_over import STILL_BEATS, Beats, beat_once
from nodrop_client import NotificationForged, NotificationUnreadable, verify
from runtime.loop import NOT_DUE
from runtime.resources import Resources
from storage.postgres import alerts
from storage.postgres.cases import list_cases, open_account_case, resolve_case
from tests.channels.wire import Peer, WireResponse, http_bytes, read_request, respond_with, serving
from tests.flows.conftest import HOOK, NOTIFY_SECRETS, FlowHarness
from tests.flows.test_egress import stub_resolver
from worker.loops import alert_loops

OK = http_bytes(WireResponse(200, {}, b"ok"))
BUSY = http_bytes(WireResponse(503, {}, b""))
SECRET = NOTIFY_SECRETS[1]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """One look tells; the test itself is no worker that beats."""
    return replace(settings, alert_looks=1, alert_workers_min=0, alert_secret=SECRET)


def with_settings(resources: Resources, **changes: Any) -> Resources:
    return dataclasses.replace(resources, settings=replace(resources.settings, **changes))


def told(lines: Sequence[Mapping[str, object]]) -> list[str]:
    return [f"{str(line['event']).removeprefix('alert_')} {line['rule']}" for line in lines if "alert_id" in line]


async def open_case(resources: Resources) -> int:
    assert await open_account_case(resources.db, "main", CaseReason.WRONG_WORLD, detail="a test")
    rows, _ = await list_cases(resources.db)
    return rows[0].id


@asynccontextmanager
async def alert_receiver(harness: FlowHarness, *responses: bytes) -> AsyncIterator[tuple[Resources, AlertSender, Peer]]:
    """`ALERT_URL` is a server that gives these responses, the last one for ever."""
    left = list(responses)

    async def talk(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer.requests.append(await read_request(reader))
        writer.write(left.pop(0) if len(left) > 1 else left[0])
        await writer.drain()

    async with serving(talk) as peer:
        resources = with_settings(harness.resources, alert_url=f"{peer.url}/alerts")
        async with AlertSender(resources.settings, resources.clock) as sender:
            yield resources, sender, peer


def messages(peer: Peer) -> list[AlertMessage]:
    return [msgspec.json.decode(request.body, type=AlertMessage) for request in peer.requests]


async def make_messages_due(resources: Resources) -> None:
    await resources.db.execute("UPDATE alert_messages SET due_at = now() WHERE sent_at IS NULL")


# -- told once ---------------------------------------------------------------------------------------------------------


async def test_a_case_is_told_once_and_cleared_once(harness: FlowHarness) -> None:
    case_id = await open_case(harness.resources)
    with capture_logs() as lines:
        for _ in range(3):
            await look(harness.resources)
        assert await resolve_case(harness.resources.db, case_id, resolution="done", by="alice")
        for _ in range(3):
            await look(harness.resources)
    assert told(lines) == ["raised case", "cleared case"]
    assert [line.get("case_id") for line in lines] == [str(case_id)] * 2
    (row,), _ = await alerts.list_alerts(harness.resources.db, is_open=False)
    assert (row.rule, row.subject, row.cleared_at is not None) == ("case", str(case_id), True)
    assert await alerts.list_alerts(harness.resources.db) == ([], None)


async def test_two_workers_at_once_tell_it_once(harness: FlowHarness) -> None:
    async with alert_receiver(harness, OK) as (resources, _, _peer):
        for round_ in range(5):
            case_id = await open_case(resources)
            for expected in (True, False):
                told_by = await asyncio.gather(*(look(resources) for _ in range(4)))
                assert [one.is_raised for each in told_by for one in each] == [expected]
                await resolve_case(resources.db, case_id, resolution="done", by="alice")
            assert await resources.db.fetchval("SELECT count(*) FROM alert_messages") == 2 * (round_ + 1)
            await resources.db.execute("UPDATE accounts SET updated_at = now() + interval '1 h'")
            await resources.db.execute("UPDATE cases SET resolved_at = now() - interval '1 h'")


async def test_what_holds_for_one_look_of_two_is_told_to_nobody(harness: FlowHarness) -> None:
    resources = with_settings(harness.resources, alert_looks=2)
    case_id = await open_case(resources)
    assert await look(resources) == []
    await resolve_case(resources.db, case_id, resolution="done", by="alice")
    assert await look(resources) == []
    assert await resources.db.fetchval("SELECT count(*) FROM alerts") == 0


async def test_two_looks_in_a_row_may_be_of_two_processes(harness: FlowHarness) -> None:
    resources = with_settings(harness.resources, alert_looks=2)
    await open_case(resources)
    told_by = []
    for name in ("a", "b"):
        await beat_once(resources, Beats(name))
        await resources.db.execute("UPDATE duties SET due_at = now()")
        told_by.append(await do_if_due(resources, alert_duty(resources)))
    assert told_by == [0, 1]
    assert await do_if_due(resources, alert_duty(resources)) is NOT_DUE


# -- facts -------------------------------------------------------------------------------------------------------------


async def conditions(resources: Resources) -> set[str]:
    await look(resources)
    return {f"{row.rule}:{row.subject}" for row in (await alerts.list_alerts(resources.db))[0]}


async def test_overdue_work_and_dead_letters_and_failing_endpoints_are_told(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    assert await conditions(harness.resources) == set()
    await harness.resources.db.execute("UPDATE pending SET due_at = now() - interval '3 min' WHERE kind = 'query'")
    await harness.resources.db.execute(
        """INSERT INTO notifications (id, order_no, version, type, url, body, attempt, created_at, due_at, dead_at)
           SELECT 'msg_' || v, $1, 100 + v, 'order.paid', 'https://shop.test/n?v=' || v, '{}', 2,
                  now() - interval '20 min', now() + interval '20 min', CASE WHEN v = 1 THEN now() END
             FROM generate_series(1, 2) v""",
        state.order.order_no,
    )
    endpoint = "https://shop.test/n"
    wanted = {"overdue:pending", f"dead_letters:{endpoint}", f"endpoint_failing:{endpoint}"}
    assert await conditions(harness.resources) == wanted


async def test_an_endpoint_that_is_paused_for_long_is_told_and_what_it_holds_is_not_failing(
    harness: FlowHarness,
) -> None:
    state = await harness.placed_order()
    await harness.resources.db.execute(
        """INSERT INTO notifications (id, order_no, version, type, url, body, attempt, created_at, due_at, held_at)
           VALUES ('msg_1', $1, 101, 'order.paid', $2, '{}', 2, now() - interval '1 day', now() - interval '1 day',
                   now())""",
        state.order.order_no,
        HOOK,
    )
    await harness.resources.db.execute(
        "INSERT INTO paused_endpoints (endpoint, paused_at, paused_by) VALUES ($1, now() - interval '2 h', 'alice')",
        HOOK,
    )
    assert await conditions(harness.resources) == {f"endpoint_paused:{HOOK}"}


async def test_an_open_breaker_is_told_and_stays_while_redis_is_down(
    harness: FlowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(UNANSWERED_MAX):
        await harness.resources.admission.report("main", CallKind.QUERY, answered=False)
    assert await conditions(harness.resources) == {"breaker_open:main/query"}

    async def is_down(_redis: object) -> str:
        return "unreachable"

    with monkeypatch.context() as patch:
        patch.setattr("flows.alert.find_redis_fault", is_down)
        await harness.resources.redis.flushall()
        assert await conditions(harness.resources) == {"breaker_open:main/query"}
    assert await conditions(harness.resources) == set()


async def test_a_missing_reconciliation_is_told(harness: FlowHarness) -> None:
    await harness.resources.db.execute("UPDATE accounts SET created_at = now() - interval '31 h'")
    assert await conditions(with_settings(harness.resources, reconcile_at="off")) == set()
    assert await conditions(harness.resources) == {"not_reconciled:main"}
    await harness.resources.db.execute(
        """INSERT INTO reconciliations (channel_account, day, dry_run, status, finished_at)
           VALUES ('main', current_date - 1, false, 'finished', now())"""
    )
    assert await conditions(harness.resources) == set()


_SETTLE = "SET LOCAL session_replication_role = replica; UPDATE orders SET updated_at = now() - interval '1 h', {}"
BREAK = {
    Invariant.OPEN_PAYMENT_UNQUERIED: "DELETE FROM pending WHERE kind = 'query'",
    Invariant.OPEN_ORDER_WITHOUT_DEADLINE: "DELETE FROM pending WHERE kind = 'deadline'",
    Invariant.PAID_WITHOUT_NOTIFICATION: "DELETE FROM notifications",
    Invariant.PAID_WITHOUT_PAYMENT: """SET LOCAL session_replication_role = replica;
        UPDATE payments SET status = 'closed', paid_at = NULL, channel_transaction_id = NULL""",
    Invariant.HISTORY_WITH_GAP: "DELETE FROM order_events WHERE version = 1",
}


@pytest.mark.parametrize("invariant", Invariant)
async def test_a_broken_invariant_is_told_until_it_holds_again(harness: FlowHarness, invariant: Invariant) -> None:
    db = harness.resources.db
    state = await harness.placed_order(notify_url=HOOK)
    if invariant.startswith("paid"):
        harness.pay(state.payments[0])
        await harness.run_query_job(state)
    await db.execute(_SETTLE.format("created_at = now() - interval '1 h'"))
    assert await conditions(harness.resources) == set(), "it holds"
    await db.execute(BREAK[invariant])
    key = f"invariant:{invariant}/{state.order.order_no}"
    assert await conditions(harness.resources) == {key}
    # The walk is elsewhere now: a known one is looked at again at each look.
    await db.execute("INSERT INTO alert_walk (created_at, order_no) VALUES (now(), 'z')")
    assert await conditions(harness.resources) == {key}
    await db.execute("SET LOCAL session_replication_role = replica; DELETE FROM orders")
    assert await conditions(harness.resources) == set()


async def test_orders_are_compared_page_by_page_and_round_again(
    harness: FlowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.postgres.alert_facts.PAGE", 2)
    db = harness.resources.db
    older, newer = [(await harness.placed_order()).order.order_no for _ in range(2)]
    await db.execute(
        _SETTLE.format(f"created_at = now() - interval '1 h' * CASE order_no WHEN '{older}' THEN 2 ELSE 1 END")
    )
    places = []
    for _ in range(4):
        await look(harness.resources)
        places.append(await db.fetchval("SELECT order_no FROM alert_walk"))
    assert places == [newer, None, newer, None]


async def test_an_order_of_this_minute_is_not_compared_yet(harness: FlowHarness) -> None:
    await harness.placed_order()
    await harness.resources.db.execute("DELETE FROM pending")
    assert await conditions(harness.resources) == set()


async def test_the_clock_of_each_worker_is_looked_at(harness: FlowHarness) -> None:
    await beat_once(harness.resources, Beats("w-1"))
    assert await conditions(harness.resources) == set()
    await harness.resources.db.execute("UPDATE processes SET clock = 'far_off'")
    assert await conditions(harness.resources) == {"clock:w-1"}


async def test_web_processes_look_when_no_worker_is_there(harness: FlowHarness) -> None:
    resources = with_settings(harness.resources, alert_workers_min=1)
    web = Beats("web-1", "web")
    await beat_once(resources, Beats("w-1"))
    await beat_once(resources, web)
    assert await look_without_workers(resources) is NOT_DUE, "a worker does it"
    for _ in range(STILL_BEATS):
        await beat_once(resources, web)
    assert await look_without_workers(resources) == 1
    assert [row.rule for row in (await alerts.list_alerts(resources.db))[0]] == ["workers_gone"]
    await beat_once(resources, Beats("w-2"))
    assert await look_without_workers(resources) is NOT_DUE
    assert [one.is_raised for one in await look(resources)] == [False]


async def test_a_worker_looks_and_sends_only_with_an_address(harness: FlowHarness) -> None:
    resources = harness.resources
    async with AlertSender(resources.settings, resources.clock) as sender:
        assert [loop.name for loop in alert_loops(resources, sender)] == ["alerts"]
        assert await send_without_workers(resources, sender) is NOT_DUE
    async with alert_receiver(harness, OK) as (resources, sender, _):
        assert [loop.name for loop in alert_loops(resources, sender)] == ["alerts", "alert_messages"]


async def test_what_is_to_be_told_is_sent_as_often_as_a_worker_looks(harness: FlowHarness) -> None:
    async with alert_receiver(harness, OK) as (resources, sender, _):
        assert message_duty(resources, sender).interval_s == 5.0
        assert message_duty(with_settings(resources, alert_interval_s=0.5), sender).interval_s == 0.5


# -- sent --------------------------------------------------------------------------------------------------------------


async def test_an_alert_and_its_all_clear_are_sent_signed(harness: FlowHarness) -> None:
    async with alert_receiver(harness, OK) as (resources, sender, peer):
        case_id = await open_case(resources)
        await look(resources)
        assert await send_due(resources, sender) is False
        await resolve_case(resources.db, case_id, resolution="done", by="alice")
        await look(resources)
        await send_due(resources, sender)
        (row,), _ = await alerts.list_alerts(resources.db, is_open=False)
    raised, cleared = messages(peer)
    assert (raised.type, cleared.type, raised.data.id) == ("alert.raised", "alert.cleared", cleared.data.id)
    assert (raised.data.rule, raised.data.subject, raised.data.cleared_at) == ("case", str(case_id), None)
    assert (row.raised_sent_at is not None, row.cleared_sent_at is not None) == (True, True)
    for request in peer.requests:
        Webhook(SECRET).verify(request.body, request.headers)
        assert request.headers["webhook-id"] == msgspec.json.decode(request.body)["id"]


async def test_the_merchants_client_verifies_the_signature_of_an_alert(harness: FlowHarness) -> None:
    """It is genuine, though no notification; with another secret, or another byte, it is not even that."""
    async with alert_receiver(harness, OK) as (resources, sender, peer):
        await open_case(resources)
        await look(resources)
        await send_due(resources, sender)
    (request,) = peer.requests
    with pytest.raises(NotificationUnreadable):
        verify(request.headers, request.body, SECRET)
    for body, secret in ((request.body, NOTIFY_SECRETS[0]), (request.body + b" ", SECRET)):
        with pytest.raises(NotificationForged):
            verify(request.headers, body, secret)


async def test_a_refused_message_is_sent_again_with_the_same_id_and_bytes(harness: FlowHarness) -> None:
    gone = http_bytes(WireResponse(410, {}, b""))
    async with alert_receiver(harness, BUSY, gone, OK) as (resources, sender, peer):
        await open_case(resources)
        await look(resources)
        with capture_logs() as lines:
            for _ in range(3):
                assert await send_due(resources, sender) is False
                assert await send_due(resources, sender) is False, "it waits"
                await make_messages_due(resources)
        assert await send_due(resources, sender) is False
    assert [(line["status"], line["delay_s"]) for line in lines if line["event"] == "alert_not_sent"] == [
        ("503", 60.0),
        ("410", 240.0),
    ]
    assert len(peer.requests) == 3
    assert len({(request.headers["webhook-id"], request.body) for request in peer.requests}) == 1


async def test_an_all_clear_waits_until_its_alert_was_heard_and_others_do_not(harness: FlowHarness) -> None:
    async with alert_receiver(harness, BUSY, OK) as (resources, sender, peer):
        case_id = await open_case(resources)
        await look(resources)
        await send_due(resources, sender)
        await resolve_case(resources.db, case_id, resolution="done", by="alice")
        await look(resources)
        test_id = await queue_test(resources, by="alice")
        await send_due(resources, sender)
        await make_messages_due(resources)
        await send_due(resources, sender)
    assert [message.type for message in messages(peer)] == [
        "alert.raised",
        "alert.test",
        "alert.raised",
        "alert.cleared",
    ]
    assert messages(peer)[1].id == test_id


async def test_an_address_that_is_down_is_not_tried_for_each_message(harness: FlowHarness) -> None:
    async with serving(respond_with(OK)) as peer:
        url = peer.url
    resources = with_settings(harness.resources, alert_url=url)
    for _ in range(5):
        await queue_test(resources, by="alice")
    async with AlertSender(resources.settings, resources.clock) as sender:
        assert await send_due(resources, sender) is False
    assert await resources.db.fetchval("SELECT count(*) FROM alert_messages WHERE attempt = 2") == 3
    unsent = await alerts.find_unsent(resources.db)
    assert (unsent.count, unsent.last_status) == (5, "ConnectError")


async def test_two_senders_at_once_send_each_message_once(harness: FlowHarness) -> None:
    async with alert_receiver(harness, OK) as (resources, sender, peer):
        sent = {await queue_test(resources, by="alice") for _ in range(8)}
        await asyncio.gather(*(send_due(resources, sender) for _ in range(3)))
    assert sorted(message.id for message in messages(peer)) == sorted(sent)


async def test_an_address_of_the_inside_gets_nothing(harness: FlowHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    resources = with_settings(harness.resources, alert_url="https://alerts.example/x", notify_allow_nets="")
    await queue_test(resources, by="alice")
    stub_resolver(monkeypatch, ["10.0.0.1"])
    async with AlertSender(resources.settings, resources.clock) as sender:
        await send_due(resources, sender)
    assert (await alerts.find_unsent(resources.db)).last_status == "address_refused"


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"alert_url": "https://a.example", "alert_secret": ""}, "ALERT_SECRET is not set"),
        ({"alert_url": "https://a.example", "alert_secret": "whsec_short"}, "ALERT_SECRET"),
        ({"alert_url": "http://a.example"}, "ALERT_URL: https:// is needed"),
        ({"alert_url": "https://169.254.169.254/x"}, "ALERT_URL: notifications are not sent"),
        ({"alert_url": "https://user@a.example"}, "ALERT_URL: a host is needed"),
    ],
)
def test_a_wrong_address_or_secret_ends_the_start(changes: dict[str, str], names: str) -> None:
    settings = replace(Settings(alert_secret=SECRET), **changes)
    with pytest.raises(ConfigurationError, match=names):
        AlertSender(settings, clock=None)  # type: ignore[arg-type]  # it is refused before


async def test_without_an_address_nothing_is_stored_to_be_sent(harness: FlowHarness) -> None:
    await open_case(harness.resources)
    await look(harness.resources)
    assert await harness.resources.db.fetchval("SELECT count(*) FROM alert_messages") == 0
    with pytest.raises(InvalidRequest, match="ALERT_URL is not set"):
        await queue_test(harness.resources, by="alice")


async def test_old_alerts_go_and_open_ones_stay(harness: FlowHarness) -> None:
    db = harness.resources.db
    async with alert_receiver(harness, OK) as (resources, _, _peer):
        await db.execute("UPDATE accounts SET created_at = now() - interval '31 h'")
        case_id = await open_case(resources)
        await look(resources)
        await resolve_case(db, case_id, resolution="done", by="alice")
        await look(resources)
    old = timedelta(days=alerts.KEEP_DAYS + 1)
    sql = "UPDATE alerts SET raised_at = raised_at - $1::interval, cleared_at = cleared_at - $1::interval"
    await db.execute(sql, old)
    assert await alerts.delete_alerts(db) == 1
    assert [row.rule for row in (await alerts.list_alerts(db, is_open=None))[0]] == ["not_reconciled"]
    assert await db.fetchval("SELECT count(*) FROM alert_messages") == 1

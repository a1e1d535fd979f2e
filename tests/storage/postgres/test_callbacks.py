"""The inbox: stored before it is acknowledged, counted when it comes again, work until it is done."""

import asyncio
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import pytest
from msgspec.structs import replace

from core.errors import DatabaseUnavailable
from core.evidence import Evidence
from core.order import CaseReason
from storage.postgres.callbacks import (
    CallbackCount,
    claim,
    claim_overdue,
    count_callback,
    drop,
    find_counts,
    finish,
    give_up,
    reschedule,
    walk_due,
)
from storage.postgres.database import Database
from storage.postgres.inbox import StoredCallback, insert_callback
from storage.postgres.leases import DueRow
from storage.postgres.orders import find_now
from tests.sealed import SEALER, raw_callbacks
from tests.servers import eventually
from tests.storage.postgres.tools import connected, count, opened, paid, pass_time, placed, rows

BODY = b'{"id":"evt-1"}'
HEADERS = {"content-type": "application/json", "sandbox-signature": "t=1,v1=é"}


async def stored(
    db: Database,
    notification_id: str = "evt-1",
    body: bytes = BODY,
    *,
    evidence: Evidence | None = None,
    received_at: datetime | None = None,
    account: str = "alipay",
    due_s: float = 60.0,
    kept_s: float = 86_400.0,
    unreadable: str = "",
) -> StoredCallback:
    return await insert_callback(
        db,
        SEALER,
        account=account,
        notification_id=notification_id,
        headers=HEADERS,
        body=body,
        evidence=evidence or paid(),
        received_at=received_at,
        due_s=due_s,
        kept_s=kept_s,
        unreadable=unreadable,
    )


async def due_within(db: Database, seconds: float) -> list[DueRow]:
    return [row async for batch in walk_due(db, until_s=seconds) for row in batch]


async def one_row(db: Database) -> dict[str, Any]:
    [row] = await rows(db, "callbacks")
    return row


# -- storing -----------------------------------------------------------------------------------------------------------


async def test_a_callback_is_kept_with_its_raw_bytes_sealed(db: Database) -> None:
    body = bytes(range(256)) * 100
    callback = await stored(db, body=body)
    row = await one_row(db)
    assert [stored.body for stored in await raw_callbacks(db)] == [body]
    assert (row["body_hash"], row["sealed_under"]) == (sha256(body).digest(), "test")
    assert bytes(range(256)) not in row["body"]
    assert (str(row["id"]), row["channel_account"], row["notification_id"]) == (callback.id, "alipay", "evt-1")
    assert row["headers"] == '{"content-type": "application/json", "sandbox-signature": "t=1,v1=é"}'
    assert (callback.attempt, callback.arm_no, callback.is_handled) == (1, 1, False)
    assert callback.evidence == paid()


async def test_its_compensation_is_armed_with_it(db: Database) -> None:
    callback = await stored(db)
    [(callback_id, arm_no, delay_s)] = await due_within(db, 120.0)
    assert (callback_id, arm_no) == (callback.id, 1)
    assert 50.0 < delay_s <= 60.0
    assert await due_within(db, 30.0) == []


async def test_copies_are_counted_and_are_one_callback(db: Database) -> None:
    copies = await asyncio.gather(*(stored(db) for _ in range(20)))
    assert len({callback.id for callback in copies}) == 1
    assert (await one_row(db))["copies"] == 20


async def test_another_body_account_or_message_is_another_callback(db: Database) -> None:
    """The same message with another body least of all may be taken for a copy."""
    for arguments in ({}, {"body": BODY + b" "}, {"account": "wechat"}, {"notification_id": "evt-2"}):
        await stored(db, **arguments)
    assert await count(db, "callbacks", "copies = 1") == 4


async def test_a_copy_keeps_what_the_first_one_said(db: Database) -> None:
    """Its time, headers and schedule: the work on the first goes on."""
    received_at = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
    first = await stored(db, received_at=received_at)
    await reschedule(db, first, attempt=2, delay_s=240.0, outcome="unclear")
    again = await stored(db)
    assert (again.attempt, again.arm_no, again.is_handled) == (2, 2, False)
    assert (await one_row(db))["received_at"] == received_at


async def test_it_was_received_when_it_is_stored_unless_it_was_parked(db: Database) -> None:
    now = await find_now(db)
    await stored(db)
    parked_at = now - timedelta(hours=3)
    await stored(db, "evt-2", received_at=parked_at)
    times = {row["notification_id"]: row["received_at"] for row in await rows(db, "callbacks")}
    assert now <= times["evt-1"] <= await find_now(db)
    assert times["evt-2"] == parked_at


@pytest.mark.parametrize("text", ["\0", "a\0b", "\ud800", "x" * 2000, "支付宝 👛", "'; --", "\r\n"])
async def test_no_text_of_a_channel_keeps_its_callback_out(db: Database, text: str) -> None:
    """A signed callback is stored, whatever is in it; a repeat of it is a copy."""
    evidence = paid(channel_transaction_id=text, channel_account=text, out_trade_no=f"n{text}")
    for _ in range(2):
        callback = await stored(db, f"evt{text}", evidence=evidence)
        assert callback.evidence.out_trade_no.startswith("n")
    assert (await one_row(db))["copies"] == 2


async def test_without_a_database_nothing_is_stored_and_nothing_may_be_acknowledged() -> None:
    async with opened("postgres://nodrop@127.0.0.1:9/nodrop") as db:
        with pytest.raises(DatabaseUnavailable):
            await stored(db)


# -- handling ----------------------------------------------------------------------------------------------------------


async def test_what_is_handled_stays_handled_also_when_it_comes_again(db: Database) -> None:
    callback = await stored(db)
    assert await finish(db, callback.id, "paid")
    assert (await stored(db)).is_handled
    assert await claim(db, callback.id, 30.0, arm_no=1) is None
    assert await reschedule(db, callback, attempt=2, delay_s=0.0, outcome="unclear") is None
    assert not await finish(db, callback.id, "other")
    assert await due_within(db, 3600.0) == []
    row = await one_row(db)
    assert (row["outcome"], row["copies"], row["attempt"]) == ("paid", 2, 1)


async def test_a_repeat_after_a_failed_handling_is_work(db: Database) -> None:
    callback = await stored(db, due_s=0.0)
    assert await claim(db, callback.id, 0.0, arm_no=1) is not None
    again = await stored(db)
    assert not again.is_handled
    assert await claim(db, again.id, 30.0, arm_no=again.arm_no) is not None


async def test_one_of_many_claims_succeeds(db: Database) -> None:
    callback = await stored(db, due_s=0.0)
    claims = await asyncio.gather(*(claim(db, callback.id, 30.0, arm_no=1) for _ in range(20)))
    [claimed] = [found for found in claims if found is not None]
    assert replace(claimed, kept_for_s=callback.kept_for_s) == callback


async def test_a_claim_ends_by_itself(db: Database) -> None:
    callback = await stored(db, due_s=0.0)
    assert await claim(db, callback.id, 0.05, arm_no=1) is not None
    assert await eventually(lambda: claim(db, callback.id, 30.0, arm_no=1)) is not None


async def test_what_could_not_be_done_is_scheduled_anew_under_another_number(db: Database) -> None:
    callback = await stored(db, due_s=0.0)
    assert await claim(db, callback.id, 30.0, arm_no=1) is not None
    assert await reschedule(db, callback, attempt=2, delay_s=240.0, outcome="unclear") == 2
    assert await reschedule(db, callback, attempt=2, delay_s=240.0, outcome="unclear") is None
    await pass_time(db, "callbacks", 240.0)
    assert await claim(db, callback.id, 30.0, arm_no=1) is None
    claimed = await claim(db, callback.id, 30.0, arm_no=2)
    assert claimed is not None
    assert (claimed.attempt, claimed.arm_no) == (2, 2)
    row = await one_row(db)
    assert (row["outcome"], row["handled_at"]) == ("unclear", None)


# -- overdue callbacks -------------------------------------------------------------------------------------------------


async def test_the_oldest_unhandled_come_first_and_none_is_too_old(db: Database) -> None:
    callbacks = [await stored(db, f"evt-{n}") for n in range(30)]
    for n, callback in enumerate(callbacks):
        await pass_time(db, "callbacks", 7 * 86_400.0 * (30 - n), f"id = '{callback.id}'")
    await finish(db, callbacks[3].id, "paid")
    claimed = [await claim_overdue(db, grace_s=15.0, limit=20, lease_s=30.0) for _ in range(3)]
    expected = [callback.id for n, callback in enumerate(callbacks) if n != 3]
    assert [callback.id for batch in claimed for callback in batch] == expected


async def test_two_sweeps_take_different_callbacks(database_url: str) -> None:
    async with opened(database_url) as one, opened(database_url) as two:
        for n in range(30):
            await stored(one, f"evt-{n}", due_s=-60.0)
        batches = await asyncio.gather(
            *(claim_overdue([one, two][n % 2], grace_s=15.0, limit=8, lease_s=30.0) for n in range(6))
        )
        claimed = [callback.id for batch in batches for callback in batch]
        assert len(claimed) == len(set(claimed)) == 30


async def test_a_callback_that_is_being_handled_is_left_alone(db: Database, database_url: str) -> None:
    callback = await stored(db, due_s=-60.0)
    await stored(db, "evt-2", due_s=-60.0)
    await claim(db, callback.id, 30.0, arm_no=1)
    async with connected(database_url) as writer, writer.transaction():
        await writer.execute("SELECT FROM callbacks WHERE notification_id = 'evt-2' FOR UPDATE")
        assert await claim_overdue(db, grace_s=0.0, limit=10, lease_s=30.0) == []


# -- giving up ---------------------------------------------------------------------------------------------------------


async def test_giving_up_opens_a_case_in_the_same_statement(db: Database) -> None:
    await placed(db)
    callback = await stored(db)
    await give_up(db, callback, CaseReason.CALLBACK_CONTRADICTED, "after 16 attempts: still_open")
    [case] = await rows(db, "cases", "order_no, channel_account, out_trade_no, reason, detail, resolved_at")
    assert case == {
        "order_no": "A-1",
        "channel_account": "alipay",
        "out_trade_no": "alipay-A-1",
        "reason": "callback_contradicted",
        "detail": "after 16 attempts: still_open",
        "resolved_at": None,
    }
    assert (await stored(db)).is_handled
    assert await claim_overdue(db, grace_s=-3600.0, limit=10, lease_s=30.0) == []
    assert await claim(db, callback.id, 30.0, arm_no=1) is None


async def test_a_callback_for_an_unknown_order_is_a_case_without_an_order(db: Database) -> None:
    """Also when another account knows the number: whose it is, is by account and number."""
    await placed(db)
    callback = await stored(db, account="wechat")
    await give_up(db, callback, CaseReason.UNKNOWN_ORDER, "")
    [case] = await rows(db, "cases", "order_no, channel_account, out_trade_no")
    assert case == {"order_no": None, "channel_account": "wechat", "out_trade_no": "alipay-A-1"}


async def test_giving_up_twice_or_after_all_is_one_case_or_none(db: Database) -> None:
    first, second, done = [await stored(db, f"evt-{n}") for n in range(3)]
    await finish(db, done.id, "paid")
    for callback in (first, first, second, done):
        await give_up(db, callback, CaseReason.UNKNOWN_ORDER, "")
    assert await count(db, "cases") == 1
    assert await count(db, "callbacks", "dead_at IS NOT NULL") == 2


# -- kept, counted, dropped --------------------------------------------------------------------------------------------


async def test_a_callback_is_kept_for_a_time_by_the_databases_clock(db: Database) -> None:
    fresh = await stored(db, "evt-1", kept_s=100.0)
    assert 99.0 < fresh.kept_for_s <= 100.0
    over = await stored(db, "evt-2", kept_s=-1.0)
    assert over.kept_for_s < 0


async def test_a_row_of_the_older_version_is_kept_for_a_day_from_its_receipt(db: Database) -> None:
    callback = await stored(db, received_at=await find_now(db) - timedelta(hours=23), due_s=0.0)
    await db.execute("UPDATE callbacks SET kept_until = NULL")
    claimed = await claim(db, callback.id, 20.0, arm_no=1)
    assert claimed is not None
    assert 3590 < claimed.kept_for_s <= 3600


async def test_an_unreadable_callback_opens_its_case_in_the_same_statement(db: Database) -> None:
    await stored(db, unreadable="body")
    [case] = await rows(db, "cases")
    assert (case["reason"], case["detail"]) == (CaseReason.CALLBACK_UNREADABLE, "notification evt-1: body")


async def test_a_copy_of_an_unreadable_callback_opens_no_case_again(db: Database) -> None:
    await stored(db, unreadable="body")
    await db.execute("UPDATE cases SET resolved_at = now()")
    again = await stored(db, unreadable="body")
    assert (len(await rows(db, "cases")), (await one_row(db))["copies"], again.attempt) == (1, 2, 1)


async def test_a_dropped_callback_is_deleted_and_counted_once(db: Database) -> None:
    callback = await stored(db)
    await drop(db, callback)
    await drop(db, callback)
    assert await rows(db, "callbacks") == []
    assert await find_counts(db) == [CallbackCount(account="alipay", reason="unknown", count=1)]


async def test_a_handled_callback_is_not_dropped(db: Database) -> None:
    callback = await stored(db)
    await finish(db, callback.id, "paid")
    await drop(db, callback)
    assert (len(await rows(db, "callbacks")), await find_counts(db)) == (1, [])


async def test_callbacks_are_counted_by_account_and_reason(db: Database) -> None:
    for account, reason in (("a", "no_money"), ("a", "no_money"), ("a", "other_world"), ("b", "no_money")):
        await count_callback(db, account, reason)
    counts = [(each.account, each.reason, each.count) for each in await find_counts(db)]
    assert counts == [("a", "no_money", 2), ("a", "other_world", 1), ("b", "no_money", 1)]

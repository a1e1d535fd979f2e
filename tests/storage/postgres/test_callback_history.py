"""Callbacks as people look at them: of an order, by account and state, page by page."""

from datetime import UTC, datetime, timedelta

import pytest

from core.dispute import DisputeKind, DisputeState
from core.errors import InvalidRequest
from core.evidence import COMBINED, Disputed, Unclear
from core.order import CaseReason
from core.refusals import Verdict
from storage.postgres.callback_history import (
    CallbackRow,
    CallbackState,
    callbacks_of_order,
    find_callback,
    find_last_callbacks,
    find_raw_callback,
    list_callbacks,
)
from storage.postgres.callbacks import finish, give_up
from storage.postgres.database import Database
from storage.postgres.refused_callbacks import insert_refused
from tests.sealed import SEALER
from tests.storage.postgres.plans import read_so_far
from tests.storage.postgres.test_callbacks import BODY, HEADERS, stored
from tests.storage.postgres.test_refused_callbacks import of_order, refused
from tests.storage.postgres.tools import count, number, paid, placed

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


async def ids_of(db: Database, order_no: str = "A-1") -> list[str]:
    return [row.id for row in await callbacks_of_order(db, order_no)]


async def at(db: Database, notification_id: str, minutes: int, account: str = "alipay") -> str:
    """The id of a callback that came so many minutes after the beginning."""
    received_at = BEGIN + timedelta(minutes=minutes)
    one = await stored(db, notification_id, received_at=received_at, account=account)
    return one.id


async def add_accounts(db: Database, *names: str) -> None:
    for name in names:
        await db.execute("INSERT INTO accounts (name, channel, sealed) VALUES ($1, 'sandbox', '')", name)


async def test_an_order_has_its_stored_and_its_refused_callbacks_in_order(db: Database) -> None:
    await placed(db)
    await placed(db, "A-2")
    await insert_refused(db, SEALER, [of_order(b"not understood"), of_order(b"of another order", "A-2")])
    stored_one = await stored(db)
    await stored(db)
    await finish(db, stored_one.id, "paid")
    one, two = await callbacks_of_order(db, "A-1")
    assert (one.state, one.verdict, one.detail, one.order_no) == (CallbackState.REFUSED, "forged", "signature", "A-1")
    assert (one.network, one.body_bytes, one.has_body) == ("203.0.113.0/24", len(b"not understood"), True)
    assert (two.id, two.state, two.verdict, two.kind) == (stored_one.id, CallbackState.HANDLED, "genuine", "paid")
    assert (two.outcome, two.copies, two.notification_id, two.order_no) == ("paid", 2, "evt-1", "A-1")
    assert two.handled_at is not None
    assert two.due_at is None


async def test_callbacks_by_another_id_of_the_payment_are_of_its_order(db: Database) -> None:
    await placed(db)
    await db.execute("UPDATE payments SET channel_reference = 'reference-1'")
    by_reference = await stored(db, "evt-1", evidence=paid(key=number("x")._replace(out_trade_no="reference-1")))
    assert await ids_of(db) == [by_reference.id]


async def test_a_message_without_a_number_is_found_by_its_dispute_or_its_ids(db: Database) -> None:
    await placed(db)
    await db.execute(
        """INSERT INTO disputes (channel_account, out_trade_no, dispute_id, order_no, kind, state, opened_at,
                                 changed_at)
           VALUES ('alipay', 'alipay-A-1', 'dp-1', 'A-1', 'claim', 'open', now(), now())"""
    )
    dispute = Disputed(
        channel_account="alipay",
        out_trade_no="",
        dispute_id="dp-1",
        dispute_kind=DisputeKind.CLAIM,
        state=DisputeState.OPEN,
    )
    combined = Unclear(channel_account="alipay", out_trade_no="", ids=("alipay-A-1",), reason=COMBINED)
    other = Unclear(channel_account="alipay", out_trade_no="", ids=("alipay-A-7",), reason=COMBINED)
    found = [await stored(db, "evt-1", evidence=dispute), await stored(db, "evt-2", evidence=combined)]
    await stored(db, "evt-3", evidence=other)
    assert await ids_of(db) == [one.id for one in found]


async def test_an_order_without_callbacks_has_none(db: Database) -> None:
    await placed(db)
    assert await ids_of(db) == []
    assert await ids_of(db, "none") == []


async def everything(db: Database, **filters: object) -> list[str]:
    """Ids of all pages, two at a time."""
    found, cursor = list[CallbackRow](), None
    while True:
        rows, cursor = await list_callbacks(db, cursor=cursor, limit=2, **filters)  # type: ignore[arg-type]
        found += rows
        if cursor is None:
            return [row.notification_id or row.verdict for row in found]


async def test_pages_of_all_accounts_hold_each_callback_once_the_newest_first(db: Database) -> None:
    await add_accounts(db, "alipay", "main")
    for n in range(5):
        await at(db, f"evt-{n}", n, "alipay" if n % 2 else "main")
    await at(db, "evt-same", 4, "alipay")
    await insert_refused(db, SEALER, [refused(), refused(account="", verdict=Verdict.UNKNOWN_ACCOUNT)])
    whole = await everything(db)
    assert sorted(whole[:2]) == ["forged", "unknown_account"]
    assert sorted(whole[2:4]) == ["evt-4", "evt-same"]
    assert whole[4:] == ["evt-3", "evt-2", "evt-1", "evt-0"]
    assert await everything(db, account="main") == ["evt-4", "evt-2", "evt-0"]
    assert await everything(db, account="main", since=BEGIN + timedelta(minutes=2)) == ["evt-4", "evt-2"]
    assert sorted(await everything(db, since=BEGIN + timedelta(minutes=4))) == sorted(whole[:4])
    assert await everything(db, account="alipay", state=CallbackState.REFUSED) == ["forged"]


async def test_each_state_has_its_own_list(db: Database) -> None:
    await add_accounts(db, "alipay")
    names = ("evt-handled", "evt-dead", "evt-revived")
    handled, dead, revived = [await stored(db, name, received_at=BEGIN) for name in names]
    await stored(db, "evt-later", due_s=90.0)
    await stored(db, "evt-sooner", due_s=30.0)
    await finish(db, handled.id, "paid")
    for one in (dead, revived):
        await give_up(db, one, CaseReason.UNKNOWN_ORDER, "nobody knows it")
    await finish(db, revived.id, "paid")
    for filters in ({}, {"account": "alipay"}):
        assert await everything(db, state=CallbackState.WAITING, **filters) == ["evt-sooner", "evt-later"]
        assert await everything(db, state=CallbackState.DEAD, **filters) == ["evt-dead"]
        assert sorted(await everything(db, state=CallbackState.HANDLED, **filters)) == ["evt-handled", "evt-revived"]
        assert await everything(db, state=CallbackState.REFUSED, **filters) == []
    assert await everything(db, state=CallbackState.DEAD, account="other") == []


@pytest.mark.parametrize("cursor", ["x", "WyIyMDI2LTAxLTAxVDAwOjAwOjAwWiIsICJ4Il0"])
async def test_a_cursor_of_somebody_else_is_refused(db: Database, cursor: str) -> None:
    with pytest.raises(InvalidRequest, match="cursor"):
        await list_callbacks(db, cursor=cursor)


async def test_one_is_found_by_its_id_with_its_raw_bytes(db: Database) -> None:
    await insert_refused(db, SEALER, [refused(b"first bytes", body_bytes=100)])
    genuine = await find_callback(db, (await stored(db)).id)
    assert genuine is not None
    raw = await find_raw_callback(db, SEALER, genuine)
    assert raw is not None
    assert (raw.body, raw.headers, raw.is_whole) == (BODY, HEADERS, True)
    [other], _ = await list_callbacks(db, state=CallbackState.REFUSED)
    assert await find_callback(db, other.id) == other
    raw = await find_raw_callback(db, SEALER, other)
    assert raw is not None
    assert (raw.body, raw.is_whole) == (b"first bytes", False)
    await db.execute("UPDATE refused_callbacks SET body = NULL")
    assert await find_raw_callback(db, SEALER, other) is None


@pytest.mark.parametrize(
    "text", ["", "7", "' OR true", "C421D785-8143-4E98-8485-2E0BEE2A749A", "0a9b42c1-b1a9-47ff-a979-3b6ba3cde346"]
)
async def test_what_is_no_id_finds_nothing(db: Database, text: str) -> None:
    assert await find_callback(db, text) is None


async def test_each_account_has_its_newest_callback(db: Database) -> None:
    await add_accounts(db, "alipay", "main", "silent")
    for n in range(3):
        await at(db, f"evt-{n}", n, "alipay")
    await at(db, "evt-9", 9, "main")
    assert await find_last_callbacks(db) == {
        "alipay": BEGIN + timedelta(minutes=2),
        "main": BEGIN + timedelta(minutes=9),
    }


@pytest.mark.usefixtures("new_sessions")  # whose reads are counted
async def test_lists_read_a_page_among_many(db: Database) -> None:
    """By index, whatever Postgres knows of the tables."""
    await add_accounts(db, "alipay", "main")
    await placed(db)
    one = await stored(db, received_at=BEGIN)
    await finish(db, one.id, "paid")
    await db.execute(
        """INSERT INTO callbacks SELECT (jsonb_populate_record(c, jsonb_build_object(
               'id', gen_random_uuid(), 'notification_id', 'n-' || n, 'out_trade_no', 'n-' || n,
               'received_at', c.received_at - make_interval(secs => n)))).*
             FROM callbacks c, generate_series(1, 5000) AS n"""
    )
    await stored(db, "evt-open")
    before = await read_so_far(db)
    for account in (None, "alipay", "main"):
        for state in (None, *CallbackState):
            await list_callbacks(db, account=account, state=state, limit=10)
    await callbacks_of_order(db, "A-1")
    await find_callback(db, one.id)
    await find_last_callbacks(db)
    reads = await read_so_far(db) - before
    assert reads.scans == {}
    assert max(reads.rows.values(), default=0) < 1000, reads
    assert await count(db, "callbacks") == 5002

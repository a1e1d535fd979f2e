"""Rows that are over and old are deleted in batches; open ones stay, however old it is."""

import asyncpg
import pytest

from core.order import CaseReason
from storage.postgres import callbacks, inbox, retention
from storage.postgres.audit import delete_old_acts, list_acts
from storage.postgres.cases import resolve_case
from storage.postgres.database import Database
from tests.sealed import SEALER
from tests.storage.postgres.tools import commit_evidence, count, number, paid, placed


async def set_age(db: Database, table: str, *columns: str, days: int = 181, where: str = "true") -> None:
    ages = ", ".join(f"{column} = now() - make_interval(days => $1)" for column in columns)
    await db.execute(f"UPDATE {table} SET {ages} WHERE {where}", days)  # noqa: S608 - names of this file


async def store(db: Database, order_no: str = "A-1", *, handled: bool = True) -> str:
    key = number(order_no)
    stored = await inbox.insert_callback(
        db,
        SEALER,
        account=key.channel_account,
        notification_id=f"evt-{order_no}",
        headers={},
        body=b"{}",
        evidence=paid(order_no),
        received_at=None,
        due_s=60.0,
        kept_s=86_400.0,
    )
    if handled:
        await callbacks.finish(db, stored.id, "paid")
    return stored.id


async def delete_callbacks(db: Database) -> int:
    return await retention.delete_callbacks(db, keep_days=180)


async def test_old_callbacks_are_deleted_a_batch_at_a_time(db: Database) -> None:
    for order_no in ("A-1", "A-2", "A-3"):
        await store(db, order_no)
    await set_age(db, "callbacks", "handled_at")
    await store(db, "A-4")
    assert await retention.delete_callbacks(db, keep_days=180, limit=2) == 2
    assert await delete_callbacks(db) == 1
    assert await delete_callbacks(db) == 0
    assert await count(db, "callbacks") == 1


async def test_the_age_counts_from_the_handling(db: Database) -> None:
    await store(db)
    await set_age(db, "callbacks", "received_at")
    await set_age(db, "callbacks", "handled_at", days=179)
    assert await delete_callbacks(db) == 0


async def test_a_callback_that_is_not_handled_stays(db: Database) -> None:
    await store(db, handled=False)
    await set_age(db, "callbacks", "received_at", "due_at")
    assert await delete_callbacks(db) == 0


@pytest.mark.parametrize(
    "still_open",
    [
        "UPDATE payments SET status = status",
        "INSERT INTO cases (order_no, reason) VALUES ('A-1', 'disputed')",
        "INSERT INTO cases (channel_account, out_trade_no, reason) VALUES ('alipay', 'alipay-A-1', 'unknown_order')",
    ],
    ids=["payment", "case of the order", "case of the number"],
)
async def test_a_callback_stays_while_its_payment_or_a_case_is_open(db: Database, still_open: str) -> None:
    await placed(db)
    await store(db)
    await set_age(db, "callbacks", "handled_at")
    if "payments" not in still_open:
        await commit_evidence(db, "A-1", paid())
    await db.execute(still_open)
    assert await delete_callbacks(db) == 0
    await commit_evidence(db, "A-1", paid())
    await db.execute("UPDATE cases SET resolved_at = now()")
    assert await delete_callbacks(db) == 1


@pytest.mark.parametrize("over", ["delivered_at", "superseded_at"])
async def test_old_notifications_that_are_over_are_deleted(db: Database, over: str) -> None:
    await placed(db)
    await commit_evidence(db, "A-1", paid())
    assert await count(db, "notifications") == 1
    await set_age(db, "notifications", "created_at", "due_at")
    assert await retention.delete_notifications(db, keep_days=90) == 0, "it is not delivered"
    await set_age(db, "notifications", "dead_at")
    assert await retention.delete_notifications(db, keep_days=90) == 0, "a dead letter can be sent again"
    await set_age(db, "notifications", over)
    assert await retention.delete_notifications(db, keep_days=90) == 1


async def test_old_resolved_cases_are_deleted_and_open_ones_stay(db: Database) -> None:
    await db.execute(
        """INSERT INTO cases (order_no, channel_account, reason)
           VALUES ('A-1', NULL, 'paid_late'), ('A-2', NULL, 'paid_late'), (NULL, 'main', 'wrong_world')"""
    )
    await set_age(db, "cases", "opened_at")
    for case_id in (await db.fetchval("SELECT min(id) FROM cases"), await db.fetchval("SELECT max(id) FROM cases")):
        assert await resolve_case(db, case_id, resolution="shipped", by="kim")
    await set_age(db, "cases", "resolved_at", where="resolved_at IS NOT NULL")
    assert await retention.delete_cases(db, keep_days=180) == 1
    left = {row["reason"] for row in await db.fetch("SELECT reason FROM cases")}
    assert left == {CaseReason.PAID_LATE, CaseReason.WRONG_WORLD}, "a person's word about an account stays"


_COPIES = {
    "callbacks": "'id', gen_random_uuid(), 'notification_id', n::text",
    "notifications": "'id', n::text, 'version', n, 'delivered_at', now()",
}


@pytest.mark.parametrize(
    ("table", "statement"), [("callbacks", retention._CALLBACKS), ("notifications", retention._NOTIFICATIONS)]
)
async def test_old_rows_are_found_by_their_age_and_deleted_by_key(db: Database, table: str, statement: str) -> None:
    """A table of thousands that are all young is not read."""
    await placed(db)
    await store(db)
    await commit_evidence(db, "A-1", paid())
    copies = f"""INSERT INTO {table} SELECT (jsonb_populate_record(t, jsonb_build_object({_COPIES[table]}))).*
                   FROM {table} t, generate_series(100, 5000) AS n"""  # noqa: S608 - names of this file
    await db.execute(copies)
    await db.execute(f"ANALYZE {table}")
    explain = "EXPLAIN " + statement.replace("$1", "180").replace("$2", "500")
    plan = [row[0] for row in await db.fetch(explain)]
    assert any(f"Index Scan using {table}_over" in line for line in plan)
    assert not any(f"Seq Scan on {table}" in line for line in plan)


async def test_left_payers_are_found_among_the_orders_that_have_one(db: Database) -> None:
    """Neither by reading the orders nor by walking an index of all of them."""
    await placed(db)
    copies = """INSERT INTO orders
                SELECT (jsonb_populate_record(o, jsonb_build_object(
                            'order_no', 'copy-' || n, 'page_token', 'page-' || n,
                            'status', 'closed', 'closed_at', now(), 'expires_at', now() - make_interval(mins => n),
                            'payer', CASE WHEN n % 1000 = 0 THEN jsonb_build_object('openid', 'o') END))).*
                  FROM orders o, generate_series(1, 5000) AS n"""
    await db.execute(copies)
    await db.execute("ANALYZE orders")
    assert await retention.find_left_payers(db, 100) == [f"copy-{n}" for n in (5000, 4000, 3000, 2000, 1000)]
    assert await retention.find_left_payers(db, 2) == ["copy-5000", "copy-4000"]
    plan = [row[0] for row in await db.fetch("EXPLAIN " + retention._LEFT_PAYERS.replace("$1", "100"))]
    assert any("Index Scan using orders_with_payer" in line for line in plan)
    assert any("Index Cond: (expires_at < now())" in line for line in plan)


async def test_rows_of_the_audit_end_after_their_time_and_never_within_a_year(db: Database) -> None:
    for days in (5000, 3000, 2558, 2500, 366, 364):
        await db.execute(
            "INSERT INTO audit (at, by, via, action, subject)"
            " VALUES (now() - make_interval(days => $1), 'alice', 'api', 'order.close', $1::text)",
            days,
        )
    assert await delete_old_acts(db, keep_days=2557, limit=2) == 2
    assert await delete_old_acts(db, keep_days=2557, limit=2) == 1
    assert await delete_old_acts(db, keep_days=2557, limit=2) == 0
    assert await delete_old_acts(db, keep_days=1, limit=9) == 2, "a year at least, whatever is asked"
    assert [row.subject for row in await list_acts(db, limit=9)] == ["364"]


async def test_nothing_else_deletes_a_row_of_the_audit_however_old(db: Database) -> None:
    await db.execute(
        "INSERT INTO audit (at, by, via, action) VALUES (now() - interval '9 years', 'alice', 'api', 'order.close')"
    )
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="neither changed nor deleted"):
        await db.execute("DELETE FROM audit")
    young = "INSERT INTO audit (by, via, action) VALUES ('alice', 'api', 'order.close')"
    await db.execute(young)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):  # as the function would, and of a young row
        await db.execute(
            "WITH allowed AS (SELECT set_config('nodrop.deletes_old_acts', 'yes', true))"
            " DELETE FROM audit WHERE at > now() - interval '1 day' AND (SELECT true FROM allowed)"
        )
    assert await count(db, "audit") == 2

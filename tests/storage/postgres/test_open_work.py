"""Work that waits for people is counted as the lists have it, and only as far as anybody reads."""

from storage.postgres.database import Database
from storage.postgres.open_work import COUNT_MAX, OpenWork, count_open_work
from tests.storage.postgres.tools import placed

_NOTIFICATION = """
INSERT INTO notifications (id, order_no, version, type, url, body, dead_at, delivered_at, superseded_at)
VALUES ($1, 'A-1', $2, 'order.paid', 'https://shop.test/hook', '', $3::timestamptz, $4::timestamptz, $5::timestamptz)"""
_APPROVAL = """
INSERT INTO refund_approvals (order_no, channel_account, out_trade_no, amount, currency, request_key, reason,
                              requested_by, expires_at)
VALUES ('A-1', 'alipay', 'alipay-A-1', 1, 'CNY', $1, 'x', 'anna', now() + make_interval(mins => $2))"""
_ALERT = """
INSERT INTO alerts (id, key, rule, subject, text, looks, raised_at, cleared_at)
VALUES ($1, $1, 'case', 'x', 'x', 0, CASE WHEN $2 THEN now() END, CASE WHEN $3 THEN now() END)"""


async def test_what_waits_is_counted_and_what_is_over_is_not(db: Database) -> None:
    assert await count_open_work(db) == OpenWork()
    await placed(db, "A-1")
    now = await db.fetchval("SELECT now()")
    for number, (dead, delivered, superseded) in enumerate(
        ((now, None, None), (None, None, None), (now, now, None), (now, None, now)), 100
    ):
        await db.execute(_NOTIFICATION, f"msg_{number}", number, dead, delivered, superseded)
    await db.execute("INSERT INTO cases (order_no, reason) VALUES ('A-1', 'paid_late'), ('A-1', 'other')")
    await db.execute("UPDATE cases SET resolved_at = now(), by = 'x' WHERE reason = 'other'")
    for key, minutes in (("a", 60), ("b", -60), ("c", 60)):
        await db.execute(_APPROVAL, key, minutes)
    await db.execute(
        "UPDATE refund_approvals SET decision = 'declined', decided_by = 'ben', decided_at = now(),"
        " decided_reason = 'x' WHERE request_key = 'c'"
    )
    for name, is_raised, is_cleared in (("a", True, False), ("b", False, False), ("c", True, True)):
        await db.execute(_ALERT, name, is_raised, is_cleared)
    assert await count_open_work(db) == OpenWork(cases=1, dead_letters=1, approvals=1, alerts=1)


async def test_counting_stops(db: Database) -> None:
    await placed(db, "A-1")
    await db.execute(
        "INSERT INTO cases (order_no, reason, out_trade_no) SELECT 'A-1', 'other', n::text"
        " FROM generate_series(1, $1::integer) n",
        COUNT_MAX + 20,
    )
    assert (await count_open_work(db)).cases == COUNT_MAX

"""The record of refused callbacks: bounded for strangers, and with the order that a body claims."""

from collections import Counter
from hashlib import sha256
from typing import Any

import pytest

from core.errors import ConfigurationError
from core.refusals import RefusedCallback, Verdict
from storage.postgres import refused_callbacks as module
from storage.postgres.database import Database
from storage.postgres.refused_callbacks import (
    BODIES_MAX,
    KEPT_OF_PAYMENT_MAX,
    STRANGERS_AT_ONCE_MAX,
    RefusedCount,
    count_refused,
    delete_refused,
    drop_refused_bodies,
    find_refused_counts,
    insert_refused,
    open_refused,
)
from storage.sealing import Sealer, new_master_key
from tests.sealed import SEALER
from tests.storage.postgres.tools import count, number, placed

HEADERS = {"sandbox-signature": "t=1"}
_AGE = "UPDATE refused_callbacks SET received_at = now() - interval '9 days' WHERE channel_account = $1"


def refused(body: bytes = b"one", **changes: Any) -> RefusedCallback:
    fields: dict[str, Any] = {
        "account": "alipay",
        "verdict": Verdict.FORGED,
        "detail": "signature",
        "body_hash": sha256(body).digest(),
        "body_bytes": len(body),
        "body_start": body,
        "headers": HEADERS,
        "network": "203.0.113.0/24",
        "ids": (),
    }
    return RefusedCallback(**fields | changes)


async def insert(db: Database, *rows: RefusedCallback) -> None:
    await insert_refused(db, SEALER, rows)


def of_order(body: bytes, order_no: str = "A-1", **changes: Any) -> RefusedCallback:
    return refused(body, ids=("evt-1", number(order_no).out_trade_no), **changes)


async def test_one_that_claims_a_payment_of_its_account_is_filed_under_its_order(db: Database) -> None:
    await placed(db)
    await insert(db, of_order(b"mine"), of_order(b"at another", account="other"), refused(b"of nobody"))
    rows = await db.fetch("SELECT channel_account, out_trade_no, order_no FROM refused_callbacks ORDER BY body_hash")
    assert {tuple(row) for row in rows} == {
        ("alipay", None, None),
        ("alipay", "alipay-A-1", "A-1"),
        ("other", None, None),
    }


async def test_a_copy_is_counted_at_the_first_one(db: Database) -> None:
    await insert(db, refused(copies=2))
    await insert(db, refused(copies=3), refused(verdict=Verdict.STALE))
    rows = await db.fetch("SELECT verdict, copies, last_at > received_at AS again FROM refused_callbacks ORDER BY 1")
    assert [tuple(row) for row in rows] == [("forged", 5, True), ("stale", 1, False)]


async def test_of_one_payment_the_first_few_are_kept(db: Database) -> None:
    """Its buyer, who knows its number, pushes nothing out."""
    await placed(db)
    await insert(db, of_order(b"the first"))
    for batch in range(3):
        await insert(db, *(of_order(b"%d-%d" % (batch, n)) for n in range(50)))
    kept = await count(db, "refused_callbacks")
    assert KEPT_OF_PAYMENT_MAX <= kept < 2 * KEPT_OF_PAYMENT_MAX
    assert await count(db, "refused_callbacks", f"body_hash = '\\x{sha256(b'the first').hexdigest()}'") == 1


async def test_of_strangers_a_few_are_taken_at_once_and_the_newest_kept(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT_OF_STRANGERS_MAX", 12)
    await placed(db)
    await insert(db, of_order(b"of an order"))
    await insert(db, *(refused(b"many-%d" % n) for n in range(100)))
    assert await count(db, "refused_callbacks", "order_no IS NULL") == STRANGERS_AT_ONCE_MAX
    for batch in range(4):
        await insert(db, *(refused(b"%d-%d" % (batch, n)) for n in range(STRANGERS_AT_ONCE_MAX)))
    assert await count(db, "refused_callbacks", "order_no IS NULL") == 12
    newest = sha256(b"3-4").hexdigest()
    assert await count(db, "refused_callbacks", f"body_hash = '\\x{newest}'") == 1
    assert await count(db, "refused_callbacks", "order_no = 'A-1'") == 1


async def test_of_an_account_the_newest_that_name_payments_are_kept(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT_OF_ACCOUNT_MAX", 3)
    for n in range(5):
        await placed(db, f"A-{n}")
        await insert(db, of_order(b"%d" % n, f"A-{n}"))
    rows = await db.fetch("SELECT order_no FROM refused_callbacks ORDER BY received_at")
    assert [row["order_no"] for row in rows] == ["A-2", "A-3", "A-4"]


async def test_the_first_bytes_of_the_newest_few_are_sealed_and_kept(db: Database) -> None:
    for n in range(4):
        await insert(db, *(refused(b"%d-%d" % (n, each)) for each in range(STRANGERS_AT_ONCE_MAX)))
    rows = await db.fetch("SELECT body_hash, body, headers::text FROM refused_callbacks ORDER BY received_at, id")
    assert Counter(row["body"] is not None for row in rows) == {True: BODIES_MAX, False: 10}
    assert Counter(row["headers"] == "{}" for row in rows) == {False: BODIES_MAX, True: 10}
    newest = next(row for row in rows if row["body_hash"] == sha256(b"3-0").digest())
    assert b"3-0" not in newest["body"]
    sealed = {"account": "alipay", "body_hash": newest["body_hash"], "body": newest["body"]}
    assert open_refused(SEALER, **sealed) == b"3-0"
    with pytest.raises(ConfigurationError):
        open_refused(SEALER, **sealed | {"account": "other"})


async def test_first_bytes_under_an_older_key_are_forgotten(db: Database) -> None:
    await insert(db, refused(b"old"))
    newer = Sealer.from_setting(new_master_key("newer"))
    await insert_refused(db, newer, [refused(b"new")])
    assert await drop_refused_bodies(db, newer) == 1
    assert await count(db, "refused_callbacks", "body IS NULL") == 1
    assert await drop_refused_bodies(db, newer) == 0


async def test_all_are_counted_by_account_and_verdict(db: Database) -> None:
    await count_refused(db, {("main", Verdict.FORGED): 3, ("", Verdict.UNKNOWN_ACCOUNT): 1})
    await count_refused(db, {("main", Verdict.FORGED): 4})
    counts = await find_refused_counts(db)
    assert [(row.account, row.verdict, row.count) for row in counts] == [
        ("", Verdict.UNKNOWN_ACCOUNT, 1),
        ("main", Verdict.FORGED, 7),
    ]
    assert isinstance(counts[0], RefusedCount)


async def test_old_ones_and_those_beyond_the_bound_of_all_are_deleted(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT_MAX", 3)
    for n in range(5):
        await insert(db, refused(b"%d" % n, account=f"a-{n}"))
    await db.execute(_AGE, "a-4")
    assert await delete_refused(db, keep_days=8, limit=500) == 2  # the old one is beyond the bound, too
    rows = await db.fetch("SELECT channel_account FROM refused_callbacks ORDER BY 1")
    assert [row["channel_account"] for row in rows] == ["a-1", "a-2", "a-3"]
    await db.execute(_AGE, "a-1")
    assert await delete_refused(db, keep_days=8, limit=500) == 1

"""Refused callbacks: a bounded record for people. Strangers can fill it, so of each account only so many are kept, and
of one payment the first few; the others are counted.
"""

from __future__ import annotations

from base64 import b64encode
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import msgspec

from core.refusals import RefusedCallback, Verdict
from storage.postgres.database import Database, document, storable
from storage.postgres.payments import find_payments_by_ids
from storage.sealing import Sealer

KEPT_OF_PAYMENT_MAX = 10
"""The first ones: who knows a payment's number pushes nothing out."""

KEPT_OF_ACCOUNT_MAX = 2000
"""The newest ones that name a payment of the account."""

KEPT_OF_STRANGERS_MAX = 100
"""The newest ones of an account that name no payment of it."""

STRANGERS_AT_ONCE_MAX = 5
"""Of an account in one writing."""

BODIES_MAX = 10
"""The newest of an account; of the others the first bytes go."""

KEPT_MAX = 20_000
"""In all, once an hour."""

# Sorted, so that two processes that store copies of each other's do not lock each other up.
_INSERT = """
INSERT INTO refused_callbacks AS k (channel_account, verdict, detail, copies, out_trade_no, order_no, body_hash,
                                    body_bytes, network, headers, body, sealed_under, claimed_id, claimed_serial,
                                    claimed_at)
SELECT channel_account, verdict, detail, copies, out_trade_no, order_no, decode(body_hash, 'base64'), body_bytes,
       network, headers, decode(body, 'base64'), sealed_under, claimed_id, claimed_serial, claimed_at
  FROM jsonb_to_recordset($1::text::jsonb) AS r(
       channel_account text, verdict text, detail text, copies bigint, out_trade_no text, order_no text,
       body_hash text, body_bytes integer, network text, headers jsonb, body text, sealed_under text, claimed_id text,
       claimed_serial text, claimed_at text)
 WHERE out_trade_no IS NULL
    OR (SELECT count(*) FROM refused_callbacks e
         WHERE e.channel_account = r.channel_account AND e.out_trade_no = r.out_trade_no) < $2
 ORDER BY channel_account, verdict, body_hash
ON CONFLICT (channel_account, verdict, body_hash)
DO UPDATE SET copies = k.copies + excluded.copies, last_at = clock_timestamp()"""

_TRIM = """
DELETE FROM refused_callbacks
 WHERE id = ANY(ARRAY(
       (SELECT id FROM refused_callbacks
         WHERE channel_account = $1 AND out_trade_no IS NOT NULL ORDER BY received_at DESC, id DESC OFFSET $2)
       UNION ALL
       (SELECT id FROM refused_callbacks
         WHERE channel_account = $1 AND out_trade_no IS NULL ORDER BY received_at DESC, id DESC OFFSET $3)))"""

_TRIM_BODIES = """
UPDATE refused_callbacks SET body = NULL, sealed_under = NULL, headers = '{}'
 WHERE id = ANY(ARRAY(
       SELECT id FROM refused_callbacks
        WHERE channel_account = $1 AND body IS NOT NULL ORDER BY received_at DESC, id DESC OFFSET $2))"""

_COUNT = """
INSERT INTO refused_counts AS c (channel_account, verdict, count, last_at)
SELECT channel_account, verdict, count, clock_timestamp()
  FROM jsonb_to_recordset($1::text::jsonb) AS r(channel_account text, verdict text, count bigint)
 ORDER BY channel_account, verdict
ON CONFLICT (channel_account, verdict) DO UPDATE SET count = c.count + excluded.count, last_at = excluded.last_at"""

_COUNTS = "SELECT channel_account AS account, verdict, count, last_at FROM refused_counts ORDER BY 1, 2"

_DELETE_OLD = """
DELETE FROM refused_callbacks
 WHERE id = ANY(ARRAY(
       (SELECT id FROM refused_callbacks
         WHERE received_at < now() - make_interval(days => $1) ORDER BY received_at LIMIT $3)
       UNION ALL
       (SELECT id FROM refused_callbacks ORDER BY received_at DESC, id DESC OFFSET $2)))"""

_DROP_BODIES = """
UPDATE refused_callbacks SET body = NULL, sealed_under = NULL, headers = '{}'
 WHERE body IS NOT NULL AND sealed_under IS DISTINCT FROM $1"""


class RefusedCount(msgspec.Struct, frozen=True, kw_only=True):
    """The number of an account's callbacks that were refused with one verdict, since the beginning.

    `account` is empty for names that no account has.
    """

    account: str
    verdict: Verdict
    count: int
    last_at: datetime


async def insert_refused(db: Database, sealer: Sealer, refused: Sequence[RefusedCallback]) -> None:
    """Store those that there is room for, and take away what is beyond the bounds of their accounts."""
    rows = await _rows(db, sealer, refused)
    if rows:
        await db.execute(_INSERT, document(rows), KEPT_OF_PAYMENT_MAX)
    for account in sorted({str(row["channel_account"]) for row in rows}):
        await db.execute(_TRIM, account, KEPT_OF_ACCOUNT_MAX, KEPT_OF_STRANGERS_MAX)
        await db.execute(_TRIM_BODIES, account, BODIES_MAX)


async def count_refused(db: Database, counts: Mapping[tuple[str, Verdict], int]) -> None:
    """Add to the counts of accounts and verdicts."""
    rows = [
        {"channel_account": account, "verdict": verdict, "count": count} for (account, verdict), count in counts.items()
    ]
    await db.execute(_COUNT, document(rows))


async def find_refused_counts(db: Database) -> list[RefusedCount]:
    """Counts of all accounts."""
    rows = await db.fetch(_COUNTS)
    return [RefusedCount(**{**row, "verdict": Verdict(row["verdict"])}) for row in rows]


async def delete_refused(db: Database, *, keep_days: int, limit: int) -> int:
    """Delete up to `limit` that are older, and those beyond the bound of all; return how many."""
    return await db.execute(_DELETE_OLD, keep_days, KEPT_MAX, limit)


async def drop_refused_bodies(db: Database, sealer: Sealer) -> int:
    """Forget first bytes that are sealed under another key than the first: they are worth no sealing anew."""
    return await db.execute(_DROP_BODIES, sealer.first)


def open_refused(sealer: Sealer, *, account: str, body_hash: bytes, body: bytes) -> bytes:
    """The first bytes of a refused callback.

    Raises:
        ConfigurationError: no master key opens them.
    """
    return sealer.open(body, belongs_to=_belongs_to(account, body_hash))


async def _rows(db: Database, sealer: Sealer, refused: Sequence[RefusedCallback]) -> list[dict[str, object]]:
    """Rows of `_INSERT`: those that name a payment, the first few of each, and a few of the others."""
    by_account: defaultdict[str, list[RefusedCallback]] = defaultdict(list)
    for one in refused:
        by_account[one.account].append(one)
    rows = []
    for account, of_account in by_account.items():
        payments = await find_payments_by_ids(db, account, _ids(of_account))
        taken: Counter[str | None] = Counter()
        for one in of_account:
            payment = next((payments[id_] for id_ in one.ids if id_ in payments), None)
            number = None if payment is None else payment.out_trade_no
            if taken[number] >= (STRANGERS_AT_ONCE_MAX if number is None else KEPT_OF_PAYMENT_MAX):
                continue
            taken[number] += 1
            is_with_body = bool(one.body_start) and taken.total() <= BODIES_MAX
            order_no = None if payment is None else payment.order_no
            rows.append(_row(one, number, order_no, sealer if is_with_body else None))
    return rows


def _ids(refused: Iterable[RefusedCallback]) -> list[str]:
    return list(dict.fromkeys(id_ for one in refused for id_ in one.ids))


def _row(one: RefusedCallback, number: str | None, order_no: str | None, sealer: Sealer | None) -> dict[str, object]:
    body = None
    if sealer is not None:
        body = b64encode(sealer.seal(one.body_start, belongs_to=_belongs_to(one.account, one.body_hash))).decode()
    return {
        "channel_account": one.account,
        "verdict": one.verdict,
        "detail": storable(one.detail),
        "copies": one.copies,
        "out_trade_no": number,
        "order_no": order_no,
        "body_hash": b64encode(one.body_hash).decode(),
        "body_bytes": one.body_bytes,
        "network": one.network,
        "headers": {} if sealer is None else dict(one.headers),
        "body": body,
        "sealed_under": None if sealer is None else sealer.first,
        "claimed_id": one.claims.message_id or None,
        "claimed_serial": one.claims.serial,
        "claimed_at": one.claims.at,
    }


def _belongs_to(account: str, body_hash: bytes) -> str:
    """The name that the sealed bytes are bound to."""
    return f"refused callback {account} {body_hash.hex()}"

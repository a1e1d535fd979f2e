"""Storing callbacks before they are acknowledged, in one statement with what their handling begins with: the order that
each is about, and the lease of its payment. Claiming and ending them: `callbacks`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from core.evidence import Evidence
from core.order import CaseReason, OrderState, Origin, Payment, PaymentKey, PendingKind
from storage.postgres.database import Database, document, storable
from storage.postgres.gathered import Gathered, columns
from storage.postgres.leases import FREE
from storage.postgres.orders import _STATE, _order_state
from storage.postgres.pending import Leased
from storage.sealing import Sealer

evidence_decoder: msgspec.json.Decoder[Evidence] = msgspec.json.Decoder(Evidence)

LOCK_WAIT = "15ms"
"""A copy that somebody else has locked is found by halving: six waits of a hundred callbacks, not a second of each."""

COLUMNS = """id::text, channel_account, attempt, arm_no, evidence::text, is_hint, received_at,
          handled_at IS NOT NULL OR dead_at IS NOT NULL AS is_handled,
          extract(epoch FROM coalesce(kept_until, received_at + interval '1 day') - clock_timestamp())::float8
          AS kept_for_s"""

_LEASE = ("number", "kind", "order_no", "arm_no", "at")

# A row names its operation for the planner, as those of the door's statement do. What is not free is not waited for.
# Rows are leased when all callbacks are stored: a statement that waits for a callback's row holds no other row.
_STORE = f"""
WITH received AS MATERIALIZED (
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::timestamptz[], $6::text[], $7::bytea[],
                         $8::text[], $9::text[], $10::float8[], $11::boolean[], $12::float8[], $13::text[], $14::text[],
                         $15::float8[])
      WITH ORDINALITY AS r(operation, channel_account, notification_id, body_hash, received_at, headers, body, evidence,
                           out_trade_no, due_s, is_hint, kept_s, sealed_under, unreadable, lease_s, n),
           set_config('lock_timeout', coalesce($17, current_setting('lock_timeout')), true)
), stored AS (
    INSERT INTO callbacks (channel_account, notification_id, body_hash, received_at, headers, body, evidence,
                           out_trade_no, due_at, is_hint, kept_until, sealed_under)
    SELECT channel_account, notification_id, body_hash, coalesce(received_at, clock_timestamp()), headers::jsonb, body,
           evidence::jsonb, out_trade_no, clock_timestamp() + make_interval(secs => due_s), is_hint,
           clock_timestamp() + make_interval(secs => kept_s), sealed_under
      FROM received
     ORDER BY channel_account, notification_id, body_hash
    ON CONFLICT (channel_account, notification_id, body_hash) DO UPDATE SET copies = callbacks.copies + 1
    RETURNING {COLUMNS}, notification_id, body_hash, copies, out_trade_no
), leased AS (
    UPDATE pending p
       SET leased_at = clock_timestamp(), leased_until = clock_timestamp() + make_interval(secs => r.lease_s),
           leased_by = $16
      FROM received r
     CROSS JOIN LATERAL (
           SELECT q.channel_account, q.out_trade_no FROM pending q
            WHERE q.channel_account = r.channel_account AND q.out_trade_no = r.out_trade_no AND {FREE}
              AND (SELECT count(*) FROM stored) > 0
              AND EXISTS (SELECT FROM stored s
                           WHERE s.channel_account = r.channel_account AND s.notification_id = r.notification_id
                             AND s.body_hash = r.body_hash AND NOT s.is_handled)
              AND EXISTS (SELECT FROM payments k
                           WHERE k.channel_account = r.channel_account AND k.out_trade_no = r.out_trade_no
                             AND k.origin = 'ours' AND k.status = 'open')
            LIMIT 1
              FOR UPDATE OF q SKIP LOCKED) AS free
     WHERE r.operation = 'lease' AND p.channel_account = free.channel_account AND p.out_trade_no = free.out_trade_no
    RETURNING p.channel_account, p.out_trade_no, p.kind, p.order_no, p.arm_no, p.leased_at
)-- OPENED
SELECT s.id, s.channel_account, s.attempt, s.arm_no, s.evidence, s.is_hint, s.received_at, s.is_handled, s.kept_for_s,
       known.state, l.out_trade_no AS leased_number, l.kind AS leased_kind, l.order_no AS leased_order_no,
       l.arm_no AS leased_arm_no, l.leased_at
  FROM received r
  JOIN stored s USING (channel_account, notification_id, body_hash)
  LEFT JOIN leased l ON l.channel_account = r.channel_account AND l.out_trade_no = r.out_trade_no
  LEFT JOIN LATERAL (
       SELECT {_STATE} AS state FROM payments k JOIN orders o ON o.order_no = k.order_no
        WHERE r.operation = 'lease' AND k.channel_account = r.channel_account AND k.out_trade_no = r.out_trade_no
        LIMIT 1) AS known ON true
 ORDER BY r.n"""

# A copy of one that was stored before opens no case again: a person may have resolved it meanwhile.
_OPENED = """, opened AS (
    INSERT INTO cases (order_no, channel_account, out_trade_no, reason, detail)
    SELECT (SELECT order_no FROM payments p
             WHERE p.channel_account = s.channel_account AND p.out_trade_no = s.out_trade_no),
           s.channel_account, s.out_trade_no, $18, r.unreadable
      FROM received r JOIN stored s USING (channel_account, notification_id, body_hash)
     WHERE s.copies = 1 AND r.unreadable <> ''
    ON CONFLICT DO NOTHING
)"""

_STORE_UNREADABLE = _STORE.replace("-- OPENED", _OPENED)


class StoredCallback(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the inbox, with what its handling needs.

    `kept_for_s`: for so many seconds a payment is still looked for, by the database's clock; below 0 that time is over.
    `state`: the order of the payment whose number it names, `leased`: the lease of that payment, if they were wanted.
    """

    id: str
    channel_account: str
    attempt: int
    arm_no: int
    evidence: Evidence
    is_hint: bool
    received_at: datetime
    is_handled: bool
    kept_for_s: float = 0.0
    grace_s: float = 0.0
    state: OrderState | None = None
    leased: Leased | None = None

    @property
    def named(self) -> tuple[OrderState, Payment] | None:
        """The order in `state`, and the payment of ours that the callback names by our own number."""
        key = PaymentKey(self.channel_account, self.evidence.out_trade_no)
        payment = None if self.state is None else self.state.payment(key)
        is_ours = payment is not None and payment.origin is Origin.OURS
        return (self.state, payment) if self.state is not None and payment is not None and is_ours else None


class _Received(NamedTuple):
    """One callback that is to be stored: the columns of `received`."""

    operation: str
    channel_account: str
    notification_id: str
    body_hash: bytes
    received_at: datetime | None
    headers: str
    body: bytes
    evidence: str
    out_trade_no: str
    due_s: float
    is_hint: bool
    kept_s: float
    sealed_under: str
    unreadable: str
    lease_s: float


async def insert_callback(
    db: Database,
    sealer: Sealer,
    *,
    account: str,
    notification_id: str,
    headers: Mapping[str, str],
    body: bytes,
    evidence: Evidence,
    received_at: datetime | None,
    due_s: float,
    kept_s: float,
    is_hint: bool = False,
    unreadable: str = "",
    lease_s: float | None = None,
) -> StoredCallback:
    """Store it, or find the copy that is there already. Due in `due_s` seconds: with that the compensation is armed.

    `received_at` None: now. A payment is looked for during `kept_s` seconds. `unreadable` opens a case in the same
    statement. With `lease_s` the order of its payment is read, and an open payment of ours is leased if it is free.

    Raises DatabaseUnavailable; nothing may be acknowledged then.
    """
    notification_id = storable(notification_id)
    received = _Received(
        operation="store" if lease_s is None else "lease",
        channel_account=account,
        notification_id=notification_id,
        body_hash=sha256(body).digest(),
        received_at=received_at,
        headers=document(dict(headers)),
        body=sealer.seal(body, belongs_to=belongs_to(account, notification_id)),
        evidence=document(evidence),
        out_trade_no=storable(evidence.out_trade_no),
        due_s=due_s,
        is_hint=is_hint,
        kept_s=kept_s,
        sealed_under=sealer.first,
        unreadable=f"notification {notification_id}: {unreadable}" if unreadable else "",
        lease_s=lease_s or 0.0,
    )
    return await _store_gathered(db, received)


async def _store(db: Database, received: Sequence[_Received], wait: str | None = LOCK_WAIT) -> list[StoredCallback]:
    """All of them in one statement, in their order. No two are copies, or about one payment.

    Raises RowLocked: somebody else has locked a copy of one of them for longer than `wait`; None: as long as usual.
    """
    is_any_unreadable = any(one.unreadable for one in received)
    case = (CaseReason.CALLBACK_UNREADABLE.value,) if is_any_unreadable else ()
    statement = _STORE_UNREADABLE if is_any_unreadable else _STORE
    rows = await db.fetch(statement, *columns(received), db.process, wait, *case)
    return [_stored(dict(row)) for row in rows]


async def _store_alone(db: Database, received: _Received) -> StoredCallback:
    [stored] = await _store(db, [received], wait=None)
    return stored


_store_gathered: Gathered[_Received, StoredCallback] = Gathered(
    _store, alone=_store_alone, key=attrgetter("channel_account", "out_trade_no")
)


def _stored(fields: dict[str, Any]) -> StoredCallback:
    state, lease = fields.pop("state"), {name: fields.pop(f"leased_{name}") for name in _LEASE}
    callback = stored_callback(fields)
    leased = None
    if lease["at"] is not None:
        key = PaymentKey(callback.channel_account, lease["number"])
        leased = Leased(
            key=key,
            kind=PendingKind(lease["kind"]),
            order_no=lease["order_no"],
            arm_no=lease["arm_no"],
            leased_at=lease["at"],
        )
    return replace(callback, state=None if state is None else _order_state(state), leased=leased)


def stored_callback(fields: dict[str, Any]) -> StoredCallback:
    """The callback of a row with `COLUMNS`."""
    return StoredCallback(**fields | {"evidence": evidence_decoder.decode(fields["evidence"])})


def belongs_to(account: str, notification_id: str) -> str:
    """The name that a callback's sealed body is bound to."""
    return f"callback {account} {notification_id}"

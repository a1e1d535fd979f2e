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

from core.evidence import Evidence, Unclear
from core.order import CaseReason, OrderState, Origin, Payment, PaymentKey
from storage.postgres.database import Database, document, storable
from storage.postgres.gathered import Gathered
from storage.postgres.leases import FREE
from storage.postgres.orders import _STATE, _order_state
from storage.postgres.pending import Leased
from storage.sealing import Sealer


class _Unknown(msgspec.Struct, frozen=True, kw_only=True):
    """The fields that evidence of every kind has."""

    channel_account: str
    out_trade_no: str
    ids: tuple[str, ...] = ()


_evidence_decoder: msgspec.json.Decoder[Evidence] = msgspec.json.Decoder(Evidence)
_unclear_decoder = msgspec.json.Decoder(_Unknown)

LOCK_WAIT = "10ms"
"""A copy that somebody else has locked is found by halving: eight waits of a hundred, not a second of each."""

COLUMNS = """id::text, channel_account, attempt, arm_no, evidence::text, is_hint, received_at,
          handled_at IS NOT NULL OR dead_at IS NOT NULL AS is_handled,
          extract(epoch FROM coalesce(kept_until, received_at + interval '1 day') - clock_timestamp())::float8
          AS kept_for_s"""

# Arguments and result are texts, as at the door: so a pooler's session can keep the plan. A row names its operation
# for the planner. What is not free is not waited for. Rows are leased when all callbacks are stored: a statement that
# waits for a callback's row holds no other row.
_STORE = f"""
WITH received AS MATERIALIZED (
    SELECT r.n, r.operation, r.channel_account, r.notification_id, decode(r.body_hash, 'base64') AS body_hash,
           r.received_at, r.headers, decode(r.body, 'base64') AS body, r.evidence, r.out_trade_no, r.due_s, r.is_hint,
           r.kept_s, r.sealed_under, r.unreadable, r.lease_s
      FROM jsonb_to_recordset($1::text::jsonb) AS r(
           n integer, operation text, channel_account text, notification_id text, body_hash text,
           received_at timestamptz, headers jsonb, body text, evidence jsonb, out_trade_no text, due_s float8,
           is_hint boolean, kept_s float8, sealed_under text, unreadable text, lease_s float8),
           set_config('lock_timeout', coalesce($3::text, current_setting('lock_timeout')), true)
), stored AS (
    INSERT INTO callbacks (channel_account, notification_id, body_hash, received_at, headers, body, evidence,
                           out_trade_no, due_at, is_hint, kept_until, sealed_under)
    SELECT channel_account, notification_id, body_hash, coalesce(received_at, clock_timestamp()), headers, body,
           evidence, out_trade_no, clock_timestamp() + make_interval(secs => due_s), is_hint,
           clock_timestamp() + make_interval(secs => kept_s), sealed_under
      FROM received
     ORDER BY channel_account, notification_id, body_hash
    ON CONFLICT (channel_account, notification_id, body_hash) DO UPDATE SET copies = callbacks.copies + 1
    RETURNING {COLUMNS}, notification_id, body_hash, copies, out_trade_no
), leased AS (
    UPDATE pending p
       SET leased_at = clock_timestamp(), leased_until = clock_timestamp() + make_interval(secs => r.lease_s),
           leased_by = $2::text
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
SELECT json_agg(json_build_object(
           'id', s.id, 'channel_account', s.channel_account, 'attempt', s.attempt, 'arm_no', s.arm_no,
           'evidence', s.evidence, 'is_hint', s.is_hint, 'received_at', s.received_at, 'is_handled', s.is_handled,
           'kept_for_s', s.kept_for_s, 'state', known.state,
           'leased', CASE WHEN l.leased_at IS NOT NULL THEN json_build_object(
               'key', json_build_array(l.channel_account, l.out_trade_no), 'kind', l.kind, 'order_no', l.order_no,
               'arm_no', l.arm_no, 'leased_at', l.leased_at) END) ORDER BY r.n)::text
  FROM received r
  JOIN stored s USING (channel_account, notification_id, body_hash)
  LEFT JOIN leased l ON l.channel_account = r.channel_account AND l.out_trade_no = r.out_trade_no
  LEFT JOIN LATERAL (
       SELECT {_STATE} AS state FROM payments k JOIN orders o ON o.order_no = k.order_no
        WHERE r.operation = 'lease' AND k.channel_account = r.channel_account AND k.out_trade_no = r.out_trade_no
        LIMIT 1) AS known ON true"""

DETAIL = "notification {id}: {reason}"
"""Detail of the case about a callback that cannot be read."""

# A copy of one that was stored before opens no case again: a person may have resolved it meanwhile.
_OPENED = """, opened AS (
    INSERT INTO cases (order_no, channel_account, out_trade_no, reason, detail, phrase)
    SELECT (SELECT order_no FROM payments p
             WHERE p.channel_account = s.channel_account AND p.out_trade_no = s.out_trade_no),
           s.channel_account, s.out_trade_no, $4::text, r.unreadable,
           json_build_object('type', 'Phrase', 'template', $5::text, 'values', json_build_object(
               'id', r.notification_id,
               'reason', substr(r.unreadable, length('notification ' || r.notification_id || ': ') + 1)))::text
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
    """One callback that is to be stored: the columns of `received`. Bytes are written in base64."""

    operation: str
    channel_account: str
    notification_id: str
    body_hash: bytes
    received_at: datetime | None
    headers: dict[str, str]
    body: bytes
    evidence: Evidence
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
        headers=dict(headers),
        body=sealer.seal(body, belongs_to=belongs_to(account, notification_id)),
        evidence=evidence,
        out_trade_no=storable(evidence.out_trade_no),
        due_s=due_s,
        is_hint=is_hint,
        kept_s=kept_s,
        sealed_under=sealer.first,
        unreadable=DETAIL.format(id=notification_id, reason=unreadable) if unreadable else "",
        lease_s=lease_s or 0.0,
    )
    return await _store_gathered(db, received)


async def _store(
    db: Database, received: Sequence[_Received], wait: str | None = LOCK_WAIT
) -> list[StoredCallback | Exception]:
    """All of them in one statement, in their order. No two are copies, or about one payment.

    Raises RowLocked: somebody else has locked a copy of one of them for longer than `wait`; None: as long as usual.
    """
    is_any_unreadable = any(one.unreadable for one in received)
    case = (CaseReason.CALLBACK_UNREADABLE.value, DETAIL) if is_any_unreadable else ()
    statement = _STORE_UNREADABLE if is_any_unreadable else _STORE
    rows = document([one._asdict() | {"n": n} for n, one in enumerate(received)])
    return [_stored(row) for row in _rows_decoder.decode(await db.fetch_text(statement, rows, db.process, wait, *case))]


async def _store_alone(db: Database, received: _Received) -> StoredCallback:
    [stored] = await _store(db, [received], wait=None)
    if isinstance(stored, Exception):
        raise stored
    return stored


_store_gathered: Gathered[_Received, StoredCallback] = Gathered(
    _store, alone=_store_alone, key=attrgetter("channel_account", "out_trade_no")
)


class _Row(msgspec.Struct, frozen=True, kw_only=True):
    """A stored callback as the statement returns it, with two documents in it that it does not read."""

    id: str
    channel_account: str
    attempt: int
    arm_no: int
    evidence: str
    is_hint: bool
    received_at: datetime
    is_handled: bool
    kept_for_s: float
    state: str | None
    leased: Leased | None


_rows_decoder = msgspec.json.Decoder(list[_Row])


def _stored(row: _Row) -> StoredCallback | Exception:
    """A row that cannot be read fails alone: the callbacks of the batch are stored, and their payments leased."""
    fields = msgspec.structs.asdict(row)
    try:
        return stored_callback(fields | {"state": None if row.state is None else _order_state(row.state)})
    except msgspec.DecodeError as error:
        return error


def stored_callback(fields: dict[str, Any]) -> StoredCallback:
    """The callback of a row with `COLUMNS`."""
    return StoredCallback(**fields | {"evidence": read_evidence(fields["evidence"])})


def read_evidence(stored: str) -> Evidence:
    """Stored evidence. That of a kind which only another release knows is unclear, so the channel is queried.

    Raises:
        msgspec.DecodeError: it is no evidence at all.
    """
    try:
        return _evidence_decoder.decode(stored)
    except msgspec.ValidationError:
        known = _unclear_decoder.decode(stored)
        return Unclear(**msgspec.structs.asdict(known), reason="kind_of_another_release")


def belongs_to(account: str, notification_id: str) -> str:
    """The name that a callback's sealed body is bound to."""
    return f"callback {account} {notification_id}"

"""The outbox: what the merchant has to hear, written in the statement that changed the order, kept until it was heard.

Every delivery sends the same id and the same bytes. What cannot be delivered within the attempts is a dead letter,
which can be sent again.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from storage.postgres.database import Database


class Outgoing(msgspec.Struct, frozen=True, kw_only=True):
    """A notification that is ours to deliver now."""

    id: str
    order_no: str
    version: int
    type: str
    url: str
    body: bytes
    attempt: int
    arm_no: int


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A notification that was given up."""

    id: str
    order_no: str
    type: str
    url: str
    attempt: int
    created_at: datetime
    dead_at: datetime
    last_status: str | None


_COLUMNS = "n.id, n.order_no, n.version, n.type, n.url, n.body, n.attempt, n.arm_no"
_OPEN = "n.delivered_at IS NULL AND n.superseded_at IS NULL AND n.dead_at IS NULL"

_CLAIM = f"""
UPDATE notifications n
   SET leased_until = now() + make_interval(secs => $3)
 WHERE n.id = $1 AND n.arm_no = $2 AND {_OPEN} AND (n.leased_until IS NULL OR n.leased_until <= now())
RETURNING {_COLUMNS}"""

_CLAIM_OVERDUE = f"""
WITH overdue AS (
    SELECT n.id FROM notifications n
     WHERE {_OPEN} AND n.due_at <= now() - make_interval(secs => $1)
       AND (n.leased_until IS NULL OR n.leased_until <= now())
     ORDER BY n.due_at
     LIMIT $2
       FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE notifications n
       SET leased_until = now() + make_interval(secs => $3)
      FROM overdue
     WHERE n.id = overdue.id
    RETURNING n.*
)
SELECT {_COLUMNS} FROM claimed n ORDER BY n.due_at"""

_DELIVERED = """
UPDATE notifications SET delivered_at = now(), leased_until = NULL, last_status = $2 WHERE id = $1"""

_AGAIN = f"""
UPDATE notifications n
   SET attempt = $3, arm_no = n.arm_no + 1, due_at = now() + make_interval(secs => $4), leased_until = NULL,
       last_status = $5
 WHERE n.id = $1 AND n.arm_no = $2 AND {_OPEN}
RETURNING n.arm_no"""

_DEAD = f"""
UPDATE notifications n SET dead_at = now(), leased_until = NULL, last_status = $3
 WHERE n.id = $1 AND n.arm_no = $2 AND {_OPEN}"""

_LIST_DEAD = """
SELECT id, order_no, type, url, attempt, created_at, dead_at, last_status
  FROM notifications WHERE dead_at IS NOT NULL AND delivered_at IS NULL AND superseded_at IS NULL
 ORDER BY dead_at DESC
 LIMIT $1"""

_RESEND = """
UPDATE notifications SET dead_at = NULL, attempt = 1, arm_no = arm_no + 1, due_at = now(), leased_until = NULL
 WHERE dead_at IS NOT NULL AND delivered_at IS NULL AND superseded_at IS NULL AND ($1::text IS NULL OR id = $1)
RETURNING id, arm_no"""

_WALK = f"""
SELECT n.id, n.arm_no, extract(epoch FROM n.due_at - now())::float8 AS delay_s
  FROM notifications n
 WHERE {_OPEN} AND n.due_at <= now() + make_interval(secs => $1)
 ORDER BY n.due_at
 LIMIT $2"""


async def claim_notification(db: Database, notification_id: str, arm_no: int, lease_s: float) -> Outgoing | None:
    """The right to deliver it now; None when it was heard, superseded, given up or scheduled anew, or is being sent."""
    row = await db.fetchrow(_CLAIM, notification_id, arm_no, lease_s)
    return None if row is None else Outgoing(**dict(row))


async def claim_overdue_notifications(db: Database, *, grace_s: float, limit: int, lease_s: float) -> list[Outgoing]:
    """Notifications due for longer than `grace_s` that nobody is delivering, oldest first."""
    return [Outgoing(**dict(row)) for row in await db.fetch(_CLAIM_OVERDUE, grace_s, limit, lease_s)]


async def mark_delivered(db: Database, notification_id: str, status: str) -> None:
    """The merchant has heard."""
    await db.execute(_DELIVERED, notification_id, status)


async def deliver_again(db: Database, outgoing: Outgoing, *, attempt: int, delay_s: float, status: str) -> int | None:
    """Not heard: scheduled anew, as `attempt`, in `delay_s` seconds. Returns its arm number, None when it is not
    open.
    """
    arm_no: int | None = await db.fetchval(_AGAIN, outgoing.id, outgoing.arm_no, attempt, delay_s, status)
    return arm_no


async def bury_notification(db: Database, outgoing: Outgoing, status: str) -> None:
    """Given up: a dead letter, which an operator can send again."""
    await db.execute(_DEAD, outgoing.id, outgoing.arm_no, status)


async def list_dead_letters(db: Database, limit: int = 100) -> list[DeadLetter]:
    """Newest first."""
    return [DeadLetter(**dict(row)) for row in await db.fetch(_LIST_DEAD, limit)]


async def resend_dead_letters(db: Database, notification_id: str | None) -> list[tuple[str, int]]:
    """Due again at once, from the first attempt: one, or all with None. Returns their ids and arm numbers."""
    return [(row["id"], row["arm_no"]) for row in await db.fetch(_RESEND, notification_id)]


async def notifications_due_within(db: Database, seconds: float, limit: int = 5000) -> list[tuple[str, int, float]]:
    """(id, arm number, delay in seconds) of what is still to be heard, for re-arming Redis."""
    return [(row["id"], row["arm_no"], max(0.0, row["delay_s"])) for row in await db.fetch(_WALK, seconds, limit)]

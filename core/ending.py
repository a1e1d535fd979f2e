"""Certificates and keys that end, or that are waiting to be taken out: how soon, and what a person calls it. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum

import msgspec


class EndingKind(StrEnum):
    """certificate: of an account. api_key: of a caller. notify_secret, master_key: in rotation, so that an old one
    should be taken out; these have no end of their own.
    """

    CERTIFICATE = "certificate"
    API_KEY = "api_key"
    NOTIFY_SECRET = "notify_secret"  # noqa: S105 - the name of a kind
    MASTER_KEY = "master_key"


class Mark(StrEnum):
    """Time until something ends. ended: it has. rotating: it has no end, and an old one is still in use beside it."""

    ENDED = "ended"
    DAY = "1"
    WEEK = "7"
    MONTH = "30"
    LATER = "later"
    ROTATING = "rotating"


_MARKS = ((Mark.DAY, timedelta(days=1)), (Mark.WEEK, timedelta(days=7)), (Mark.MONTH, timedelta(days=30)))


def mark_of(ends_at: datetime | None, now: datetime) -> Mark:
    """The mark of an end; None: in rotation."""
    if ends_at is None:
        return Mark.ROTATING
    if ends_at <= now:
        return Mark.ENDED
    return next((mark for mark, within in _MARKS if ends_at - now <= within), Mark.LATER)


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """One certificate or key. `name` is the account, key or host that has it, `what` the key of its settings. Neither
    holds a secret. `ends_at` None: in rotation since `since`, where that is known.
    """

    kind: EndingKind
    name: str
    what: str
    ends_at: datetime | None
    since: datetime | None = None
    mark: Mark


def soonest_first(endings: list[Ending]) -> list[Ending]:
    """Those with an end first, by it; then those in rotation."""
    return sorted(
        endings,
        key=lambda each: (
            each.ends_at is None,
            0.0 if each.ends_at is None else each.ends_at.timestamp(),
            each.kind,
            each.name,
            each.what,
        ),
    )


class DisputeUrgency(StrEnum):
    """Time left to answer a dispute. overdue: the moment has passed. day, week: so long at most. none: the channel
    names no moment.
    """

    OVERDUE = "overdue"
    DAY = "day"
    WEEK = "week"
    LATER = "later"
    NONE = "none"


def dispute_urgency(respond_by: datetime | None, now: datetime) -> DisputeUrgency:
    """The urgency of a dispute that is not over."""
    if respond_by is None:
        return DisputeUrgency.NONE
    if respond_by <= now:
        return DisputeUrgency.OVERDUE
    if respond_by - now <= timedelta(days=1):
        return DisputeUrgency.DAY
    return DisputeUrgency.WEEK if respond_by - now <= timedelta(days=7) else DisputeUrgency.LATER

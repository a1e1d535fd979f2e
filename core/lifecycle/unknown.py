"""Genuine callbacks about payments that are unknown here: how long a payment is looked for, and what then follows.

A callback may precede the commit of its order, and any number may become the number of a watched payment. What stays
unknown is money of ours that was lost, or money of another system that sells at the same account.
"""

from __future__ import annotations

from core.backoff import Backoff
from core.evidence import UNREADABLE, Evidence, Unclear
from core.order import OWN_NUMBER, CaseReason


def next_look_s(backoff: Backoff, attempt: int, key: str, *, kept_for_s: float) -> float | None:
    """Seconds until a payment is looked for again: n² units, the last time when its time is over; None: it is over."""
    if kept_for_s <= 0:
        return None
    return min(backoff.next_try(attempt, key).delay_s, kept_for_s)


def is_unreadable(evidence: Evidence) -> bool:
    """Whether the callback could not be read: its case was opened when it was stored, and it is never dropped."""
    return isinstance(evidence, Unclear) and evidence.reason == UNREADABLE


def case_of_unknown(evidence: Evidence, *, is_exclusive: bool) -> CaseReason | None:
    """The case about a callback whose payment stayed unknown; None: it is another system's, and dropped."""
    is_ours = is_exclusive or any(OWN_NUMBER.fullmatch(id_) for id_ in evidence.every_id)
    return CaseReason.UNKNOWN_ORDER if is_ours else None

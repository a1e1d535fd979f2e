"""Calls and reports of the callers of one process, which are sent together."""

from __future__ import annotations

from typing import NamedTuple

from core.admission import CallKind, Urgency

NUMBERS_OF = {urgency: number for number, urgency in enumerate(Urgency, 1)}
"""Numbers of urgencies in the scripts."""

LOGS = {Urgency.FRESH: 1, Urgency.SCHEDULED: 2, Urgency.REFRESH: 3, Urgency.BACKGROUND: 3, Urgency.STRANGER: 1}


class Wanted(NamedTuple):
    """A call that is to be admitted. `limits`: the number of its urgency, rate, kept share. The reservation is its own,
    and begins with the number of its log.
    """

    account: str
    kind: CallKind
    limits: tuple[int, int, int]
    past_breaker: bool
    reservation: str


class Report(NamedTuple):
    """The end of a call: `script` has the results."""

    account: str
    kind: CallKind
    result: str
    reservation: str


class Refusal(NamedTuple):
    """Reason why a call is not admitted, and the seconds to wait before the next try."""

    reason: str
    wait_s: float


Item = Wanted | Report

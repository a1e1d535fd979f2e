"""Silent callbacks: whether the callbacks of an account have stopped, judged by its last payments.

A payment that became paid is *heard* if a genuine callback about it came, *unheard* if none did in time. Single losses
are normal, and differ from account to account; so an account is compared with its own past.

The rule: of the last ten payments of a day that are old enough to be judged, there are at least five; fewer than half
of what the account's own share lets expect were heard; and with that share so few, or fewer, would be heard by chance
less than once in ten thousand times. Ten payments are soon replaced by newer ones: an account whose callbacks come
again is called out no more after five or so of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from math import comb

import msgspec

LAST_MAX = 10
"""Payments that are judged: with more of them a silence is noticed later, and its end too."""

LAST_MIN = 5
"""With fewer than these nothing is said: one who sells little loses one callback without any meaning."""

LAST_S = 86_400.0
"""Age of the oldest payment that is judged."""

GRACE_S = 120.0
"""A payment is judged so long after the channel had the money: callbacks usually come within seconds."""

CHANCE_MAX = 1e-4

NEW_SHARE = 0.9
"""Expected of an account without a past."""

SHARE_MIN = 0.7
"""Expected at least: an account that never hears anything is not normal. When none of its last ten was heard it is
called out however long that has been so."""

SHARE_MAX = 0.98
"""Expected at most: nobody hears everything, and one loss in a day is none to call out."""

PAST_DAYS = 30
PAST_MIN = 20
"""A day with fewer payments says nothing of the account's share."""


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """Payments of an account that became paid, and how many of them had a genuine callback."""

    payments: int
    heard: int


class LastPayments(msgspec.Struct, frozen=True, kw_only=True):
    """The last payments of an account that can be judged, newest first: the channel's time of each, and whether a
    callback came.
    """

    account: str
    paid_at: tuple[datetime, ...]
    is_heard: tuple[bool, ...]


class SilentAccount(msgspec.Struct, frozen=True, kw_only=True):
    """An account whose callbacks do not come.

    `heard` of its last `payments` had one; `expected_share` is what its past lets expect. `since` is when the channel
    had the money of the oldest of those in a row, up to the newest, that had none.
    """

    account: str
    payments: int
    heard: int
    expected_share: float
    since: datetime


def expected_share(past: Iterable[Heard]) -> float:
    """The share of payments that are heard when all is well: that of the account's best day. The days of a silence must
    not make it look normal.
    """
    shares = [day.heard / day.payments for day in past if day.payments >= PAST_MIN]
    return min(SHARE_MAX, max(SHARE_MIN, max(shares, default=NEW_SHARE)))


def chance_of(heard: int, payments: int, share: float) -> float:
    """The chance that so many of the payments, or fewer, are heard, if each is with this share."""
    return sum(comb(payments, count) * share**count * (1 - share) ** (payments - count) for count in range(heard + 1))


def judge_silence(last: LastPayments, past: Iterable[Heard]) -> SilentAccount | None:
    """The account if its callbacks have stopped; None if they come, or nothing can be said."""
    heard, payments = sum(last.is_heard), len(last.is_heard)
    if payments < LAST_MIN:
        return None
    share = expected_share(past)
    if heard >= payments * share / 2 or chance_of(heard, payments, share) >= CHANCE_MAX:
        return None
    unheard = next((number for number, is_heard in enumerate(last.is_heard) if is_heard), payments)
    return SilentAccount(
        account=last.account,
        payments=payments,
        heard=heard,
        expected_share=share,
        since=last.paid_at[max(0, unheard - 1)],
    )

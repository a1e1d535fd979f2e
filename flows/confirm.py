"""Query → door: ask the channel about one payment and commit what its answer means. Every trigger ends in here.

One query per payment at a time across all processes (the lease of its pending row), under the account's rate limit and
breaker. The channel is called between two statements and never inside one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

from msgspec import Struct

from core.admission import Urgency, Wait
from core.decision import Decision
from core.errors import ChannelError, ChannelRefused, ChannelUnreadable, DatabaseUnavailable
from core.evidence import Evidence, Source, Unclear
from core.lifecycle import on_query
from core.order import OrderState, Payment
from flows.accounts import Account
from flows.door import pass_door_with_evidence
from flows.parts import Parts
from storage.pending import Leased, release
from storage.transitions import Committed

_T = TypeVar("_T")


class Answered(Struct, frozen=True, kw_only=True):
    """What the channel said and what came of it."""

    evidence: Evidence
    decision: Decision


class Waiting(Struct, frozen=True, kw_only=True):
    """The channel was not asked: its rate is used up, its breaker is open, or somebody else is asking."""

    seconds: float
    reason: str


async def query_now(
    parts: Parts,
    account: Account,
    payment: Payment,
    *,
    by: Source,
    urgency: Urgency,
    leased: Leased | None,
    known: OrderState | None = None,
) -> Answered | Waiting:
    """An unscheduled query, of a callback, a refresh, a close, another attempt; the lease is given back after it.

    `leased` None: nothing is pending for this payment any more (money after close), so nobody else is asking.
    `known` is the order as it was just read.
    """
    is_row_gone, was_asked = leased is None, False
    try:
        asked = await ask(parts, account, payment, urgency)
        if isinstance(asked, Waiting):
            return asked
        was_asked = True
        committed = await commit_answer(parts, account, payment, asked, by=by, known=known)
        is_row_gone = is_row_gone or any(gone.key == payment.key for gone in committed.cancelled)
        return Answered(evidence=asked, decision=committed.decision)
    finally:
        if leased is not None and not is_row_gone:
            with suppress(DatabaseUnavailable):  # then it ends by itself
                await release(parts.db, leased, was_asked=was_asked)


async def ask(parts: Parts, account: Account, payment: Payment, urgency: Urgency) -> Evidence | Waiting:
    """Ask the channel, if it may be asked now. What could not be learnt is `Unclear`, never a conclusion."""
    try:
        return await call_channel(parts, account, urgency, lambda: account.channel.query_payment(payment))
    except ChannelError as error:
        return Unclear(
            channel_account=payment.channel_account,
            out_trade_no=payment.out_trade_no,
            reason=error.detail or type(error).__name__,
        )


async def call_channel(
    parts: Parts, account: Account, urgency: Urgency, call: Callable[[], Awaitable[_T]]
) -> _T | Waiting:
    """Any call of a channel: under the account's rate limit, and its breaker hears whether the channel answered.

    Raises:
        ChannelError: as the adapter raised it.
    """
    name = account.config.name
    admitted = await parts.admission.admit(name, account.config.rate_per_s, urgency)
    if isinstance(admitted, Wait):
        return Waiting(seconds=admitted.seconds, reason=admitted.reason)
    answered = False
    try:
        told = await call()
        answered = True
    except (ChannelRefused, ChannelUnreadable):
        answered = True
        raise
    finally:
        await parts.admission.report(name, answered=answered)
    return told


async def commit_answer(
    parts: Parts,
    account: Account,
    payment: Payment,
    evidence: Evidence,
    *,
    by: Source,
    arm_no: int | None = None,
    known: OrderState | None = None,
) -> Committed:
    """The answer to a query, through the door. `known` is the order as it was read before the channel was asked."""
    rules = account.rules(parts.settings)

    decide = partial(on_query, key=payment.key, evidence=evidence, rules=rules, by=by, arm_no=arm_no)
    return await pass_door_with_evidence(parts, payment.order_no, decide, known=known)

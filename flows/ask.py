"""Query → door: ask the channel about one payment and commit what its answer means. Every trigger ends in here.

One query per payment at a time across all processes (the lease of its pending row), under the account's rate limit and
breaker. The channel is called between two statements and never inside one.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial

import structlog
from msgspec import Struct

from core.admission import Urgency
from core.decision import Decision
from core.errors import ChannelError, ChannelRefused, DatabaseUnavailable
from core.evidence import Approved, Evidence, Source, Unclear, Unpaid
from core.lifecycle import on_query
from core.order import OrderState, Payment
from flows.channel_call import Waiting, call_channel
from flows.commit import pass_door_with_evidence
from flows.create import with_reference
from runtime.accounts import Account
from runtime.resources import Resources
from storage.postgres import pending
from storage.postgres.door import Committed
from storage.postgres.pending import Leased

log = structlog.get_logger()


class Answered(Struct, frozen=True, kw_only=True):
    """What the channel said and what came of it."""

    evidence: Evidence
    decision: Decision


async def query_now(
    resources: Resources,
    account: Account,
    payment: Payment,
    *,
    by: Source,
    urgency: Urgency,
    leased: Leased | None,
    known: OrderState | None = None,
    is_captured: bool = False,
) -> Answered | Waiting:
    """An unscheduled query, of a callback, a refresh, a close, another attempt; the lease is given back after it.

    `leased` None: nothing is pending for this payment any more (money after close), so nobody else is asking.
    `known` is the order as it was just read. `is_captured`: as in `commit_answer`.
    """
    is_row_gone, was_asked = leased is None, False
    try:
        asked = await ask(resources, account, payment, urgency)
        if isinstance(asked, Waiting):
            return asked
        was_asked = True
        committed = await commit_answer(resources, account, payment, asked, by=by, known=known, is_captured=is_captured)
        payment = as_decided(committed, payment)
        if committed.decision.capture and await capture_payment(resources, account, payment, urgency):
            again = await ask(resources, account, payment, urgency)
            if not isinstance(again, Waiting):
                asked = again
                committed = await commit_answer(resources, account, payment, again, by=by, is_captured=True)
        is_row_gone = is_row_gone or any(gone.key == payment.key for gone in committed.cancelled)
        return Answered(evidence=asked, decision=committed.decision)
    finally:
        if leased is not None and not is_row_gone:
            with suppress(DatabaseUnavailable):  # then it ends by itself
                await pending.release(resources.db, leased, was_queried=was_asked)


async def ask(resources: Resources, account: Account, payment: Payment, urgency: Urgency) -> Evidence | Waiting:
    """Ask the channel, if it may be asked now. What could not be learnt is `Unclear`, never a conclusion."""
    try:
        found = await with_reference(resources, account, payment)
        if not isinstance(found, Payment):
            return found
        return await call_channel(resources, account, urgency, lambda: account.channel.query_payment(found))
    except ChannelError as error:
        return Unclear(
            channel_account=payment.channel_account,
            out_trade_no=payment.out_trade_no,
            reason=error.detail or type(error).__name__,
        )


def as_decided(committed: Committed, payment: Payment) -> Payment:
    """The payment as it was decided on: before that it may not have had what its channel is asked by."""
    state = committed.state_after
    return payment if state is None else state.payment(payment.key) or payment


async def capture_payment(resources: Resources, account: Account, payment: Payment, urgency: Urgency) -> bool:
    """Have the channel take the money that the buyer agreed to; whether it was asked. The next query tells the rest."""
    named = {"account": account.config.name, "out_trade_no": payment.out_trade_no}
    try:
        told = await call_channel(resources, account, urgency, lambda: account.channel.capture_payment(payment))
    except ChannelRefused as refused:
        log.warning("payment_not_captured", **named, reason=refused.code)
        return True
    except ChannelError as error:
        log.warning("payment_capture_unknown", **named, reason=error.detail or "unknown")
        return True
    if isinstance(told, Waiting):
        log.info("payment_capture_waits", **named, reason=told.reason)
        return False
    log.info("payment_capture_asked", **named)
    return True


async def commit_answer(
    resources: Resources,
    account: Account,
    payment: Payment,
    evidence: Evidence,
    *,
    by: Source,
    arm_no: int | None = None,
    known: OrderState | None = None,
    is_captured: bool = False,
) -> Committed:
    """The answer to a query, through the door. `known` is the order as it was read before the channel was asked.

    `is_captured`: the money has just been asked for. That it is still only agreed to means that it is not there yet, or
    was declined; it is asked for again by the next query and not in a circle.
    """
    if is_captured and isinstance(evidence, Approved):
        evidence = Unpaid(
            channel_account=evidence.channel_account,
            out_trade_no=evidence.out_trade_no,
            amount=evidence.amount,
            currency=evidence.currency,
        )
    rules = account.rules(resources.settings)

    decide = partial(on_query, key=payment.key, evidence=evidence, rules=rules, by=by, arm_no=arm_no)
    return await pass_door_with_evidence(resources, payment.order_no, decide, known=known)

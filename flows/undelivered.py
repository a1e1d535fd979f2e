"""One more net: what a channel itself knows that it could not call back about, where a channel tells such things.

Whatever is listed there is only a reason to ask: an event that waited for days may have been overtaken. So the payment
is queried now, and the answer goes through the one door, like every other answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import structlog

from channels.base import ListsUndelivered
from core.admission import Urgency
from core.errors import NodropError
from core.evidence import Approved, Closed, Evidence, Paid, Refunded, Source
from core.order import Payment, PaymentKey, PaymentStatus
from flows.ask import QueryResult, query_now
from flows.channel_call import Deferred, call_channel
from runtime.accounts import Account
from runtime.resources import Resources
from storage.postgres import pending
from storage.postgres.orders import find_state_by_payment

EVENTS_MAX = 1000
"""Of one account at one turn, the newest; the others are asked about on time, or at the next turn."""

WAIT_S_MAX = 10.0
"""A call that finds the rate used up is told when to come back, behind the others who wait; this net has the time."""

log = structlog.get_logger()
_T = TypeVar("_T")


async def ask_undelivered(resources: Resources) -> int:
    """Every enabled account, side by side; how many payments were asked about.

    Raises:
        DatabaseUnavailable: the accounts are not known.
    """
    accounts = await resources.accounts.all_enabled()
    asked = await asyncio.gather(*(_of_account(resources, account) for account in accounts))
    if any(asked):
        log.info("undelivered_asked", count=sum(asked))
    return sum(asked)


async def _of_account(resources: Resources, account: Account) -> int:
    """What fails for one account is told, and is no reason to leave the others out."""
    name, channel = account.config.name, account.channel
    if not isinstance(channel, ListsUndelivered):
        return 0
    try:
        fetch = partial(call_channel, resources, account, Urgency.SCHEDULED, channel.fetch_undelivered)
        listed = await _when_admitted(fetch)
        return 0 if isinstance(listed, Deferred) else await _ask_about(resources, account, listed[:EVENTS_MAX])
    except NodropError as error:
        log.warning("undelivered_not_fetched", account=name, reason=type(error).__name__)
    except Exception:  # our own bug with one account must not keep the others from being asked
        log.exception("undelivered_broke", account=name)
    return 0


async def _ask_about(resources: Resources, account: Account, listed: tuple[Evidence, ...]) -> int:
    """Each payment once, one after the other: the rate is others' too."""
    told_of = {evidence.out_trade_no: evidence for evidence in reversed(listed)}
    asked = 0
    for number, newest in told_of.items():
        key = PaymentKey(account.config.name, number)
        told = await _when_admitted(partial(_ask_one, resources, account, key, newest))
        if isinstance(told, Deferred):  # others use up the rate, or nobody answers: the next turn begins here again
            break
        asked += told is not None
    return asked


async def _when_admitted(ask: Callable[[], Awaitable[_T | Deferred]]) -> _T | Deferred:
    """Once more at the time that was told, if that is soon."""
    told = await ask()
    if isinstance(told, Deferred) and told.seconds <= WAIT_S_MAX:
        await asyncio.sleep(told.seconds)
        told = await ask()
    return told


async def _ask_one(
    resources: Resources, account: Account, key: PaymentKey, told: Evidence
) -> QueryResult | Deferred | None:
    """What came of asking; None if it is unknown here or paid, or if somebody is asking already."""
    state = await find_state_by_payment(resources.db, key)
    payment = None if state is None else state.payment(key)
    if payment is None or not _may_be_news(payment, told):
        return None
    leased = await pending.claim(resources.db, key, resources.settings.lease_s)
    if leased is None and payment.status is PaymentStatus.OPEN:
        return None
    return await query_now(
        resources, account, payment, by=Source.UNDELIVERED, urgency=Urgency.SCHEDULED, leased=leased, known=state
    )


def _may_be_news(payment: Payment, told: Evidence) -> bool:
    """A failed try to pay leaves a payment as open as it was; money for one that is closed here is late."""
    match told:
        case Paid() | Refunded():
            return payment.status is not PaymentStatus.PAID
        case Approved() | Closed():
            return payment.status is PaymentStatus.OPEN
    return False

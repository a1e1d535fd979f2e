"""Callbacks that a channel could not deliver and lists itself, where a channel keeps such a list.

An event on the list is only a reason to query: it may be days old. The payment is queried now, and the result goes
through the one door like any other. A dispute only moves forward, so that its newest event is committed as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import structlog

from channels.base import ListsUndelivered
from core.admission import CallKind, Urgency
from core.errors import NodropError
from core.evidence import Approved, Closed, Disputed, Evidence, Paid, Refunded, Source
from core.lifecycle.capturing import NOTHING_QUERIED
from core.order import Payment, PaymentStatus
from flows.ask import QueryResult, query_now
from flows.capture import capture_if_due
from flows.channel_call import Deferred, call_channel
from flows.dispute import commit_dispute
from runtime.accounts import Account
from runtime.resources import Resources
from storage.postgres import pending
from storage.postgres.orders import find_named_payment

EVENTS_MAX = 1000
"""Events of one account in one turn, the newest first; the others are queried on schedule, or in the next turn."""

WAIT_S_MAX = 10.0
"""The longest wait for the account's rate. This safeguard has time, so it waits behind all others."""

log = structlog.get_logger()
_T = TypeVar("_T")


async def ask_undelivered(resources: Resources) -> int:
    """Query the listed payments of every enabled account, side by side. Returns how many were queried.

    Raises:
        DatabaseUnavailable: the accounts are not known.
    """
    accounts = await resources.accounts.all_enabled()
    counts = await asyncio.gather(*(_query_account(resources, account) for account in accounts))
    if any(counts):
        log.info("undelivered_asked", count=sum(counts))
    return sum(counts)


async def _query_account(resources: Resources, account: Account) -> int:
    """The listed payments of one account. A fault of one account is logged and does not end the others."""
    name, channel = account.config.name, account.channel
    if not isinstance(channel, ListsUndelivered):
        return 0
    try:
        fetch = partial(
            call_channel, resources, account, CallKind.UNDELIVERED, Urgency.SCHEDULED, channel.fetch_undelivered
        )
        listed = await _when_admitted(fetch)
        return 0 if isinstance(listed, Deferred) else await _query_listed(resources, account, listed[:EVENTS_MAX])
    except NodropError as error:
        log.warning("undelivered_not_fetched", account=name, reason=type(error).__name__)
    except Exception:  # a bug of ours with one account must not keep the others from being queried
        log.exception("undelivered_broke", account=name)
    return 0


async def _query_listed(resources: Resources, account: Account, listed: tuple[Evidence, ...]) -> int:
    """Each payment once, by its newest event, one after the other: the rate is shared with other calls."""
    disputes = {one.dispute_id: one for one in reversed(listed) if isinstance(one, Disputed)}
    newest = {one.out_trade_no: one for one in reversed(listed) if not isinstance(one, Disputed)}
    count = 0
    for dispute in disputes.values():
        count += await commit_dispute(resources, account, dispute, by=Source.UNDELIVERED)
    for evidence in newest.values():
        result = await _when_admitted(partial(_query_one, resources, account, evidence))
        if isinstance(result, Deferred):  # other calls use up the rate, or the channel is down: begin here next turn
            break
        count += result is not None
    return count


async def _when_admitted(call: Callable[[], Awaitable[_T | Deferred]]) -> _T | Deferred:
    """The call, repeated once if it is deferred for a short time."""
    result = await call()
    if isinstance(result, Deferred) and result.seconds <= WAIT_S_MAX:
        await asyncio.sleep(result.seconds)
        result = await call()
    return result


async def _query_one(resources: Resources, account: Account, listed: Evidence) -> QueryResult | Deferred | None:
    """The result of a query; None if the payment is unknown here, is paid, or is queried by another process."""
    named = await find_named_payment(resources.db, account.config.name, listed)
    if named is None or not _is_news(named[1], listed):
        return None
    state, payment = named
    leased = await pending.claim(resources.db, payment.key, resources.settings.lease_s)
    if leased is None and payment.status is PaymentStatus.OPEN:
        return None
    by, urgency = Source.UNDELIVERED, Urgency.SCHEDULED
    result = await query_now(
        resources, account, payment, by=by, urgency=urgency, leased=leased, known=state, approval=NOTHING_QUERIED
    )
    if isinstance(result, Deferred):
        return result
    return await capture_if_due(resources, account, result, by=by, urgency=urgency)


def _is_news(payment: Payment, listed: Evidence) -> bool:
    """Whether a listed event can change the payment: a failed attempt to pay cannot, money after close can."""
    match listed:
        case Paid() | Refunded():
            return payment.status is not PaymentStatus.PAID
        case Approved() | Closed():
            return payment.status is PaymentStatus.OPEN
    return False

"""Any call of a channel: under its account's rate limit, and its breaker hears whether the channel answered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from msgspec import Struct

from core.admission import Urgency, Wait
from core.errors import ChannelRefused, ChannelUnreadable, InvalidRequest
from runtime.accounts import Account
from runtime.resources import Resources

_T = TypeVar("_T")


class Waiting(Struct, frozen=True, kw_only=True):
    """The channel was not asked: its rate is used up, its breaker is open, or somebody else is asking."""

    seconds: float
    reason: str


async def call_channel(
    resources: Resources, account: Account, urgency: Urgency, call: Callable[[], Awaitable[_T]]
) -> _T | Waiting:
    """Call, if the channel may be called now.

    Raises:
        ChannelError, InvalidRequest: as the adapter raised it.
    """
    name = account.config.name
    admitted = await resources.admission.admit(name, account.config.rate_per_s, urgency)
    if isinstance(admitted, Wait):
        return Waiting(seconds=admitted.seconds, reason=admitted.reason)
    answered = False
    try:
        told = await call()
        answered = True
    except (ChannelRefused, ChannelUnreadable, InvalidRequest):
        answered = True
        raise
    finally:
        await resources.admission.report(name, answered=answered)
    return told

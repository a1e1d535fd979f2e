"""Every call of a channel: under its account's rate limit, and its breaker learns whether the channel answered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

from msgspec import Struct

from core.admission import Urgency, Wait
from core.errors import ChannelRefused, ChannelUnreadable, InvalidRequest
from runtime.accounts import Account
from runtime.resources import Resources

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Deferred(Struct, frozen=True, kw_only=True):
    """The channel was not called: its rate is used up, its breaker is open, or another process queries this payment.

    `seconds`: when to try again. `reason`: a short code for logs.
    """

    seconds: float
    reason: str


async def call_channel(
    resources: Resources,
    account: Account,
    urgency: Urgency,
    call: Callable[_P, Awaitable[_T]],
    *args: _P.args,
    **kwargs: _P.kwargs,
) -> _T | Deferred:
    """Call `call(*args, **kwargs)`, if the channel may be called now.

    Raises:
        ChannelError, InvalidRequest: as the adapter raised it.
    """
    name = account.config.name
    admitted = await resources.admission.admit(name, account.config.rate_per_s, urgency)
    if isinstance(admitted, Wait):
        return Deferred(seconds=admitted.seconds, reason=admitted.reason)
    answered = False
    try:
        result = await call(*args, **kwargs)
        answered = True
    except (ChannelRefused, ChannelUnreadable, InvalidRequest):
        answered = True
        raise
    finally:
        await resources.admission.report(name, answered=answered)
    return result

"""Every call of a channel: under its account's rate limit, and a breaker learns whether the channel answered."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import ParamSpec, TypeVar

from msgspec import Struct

from channels.base import Create
from channels.transport import CALLING, Calling, was_answered
from core.admission import CallKind, Urgency, Wait
from core.errors import ChannelUnavailable
from core.order import Payment
from core.rollups import CALL_BOUNDS_S, Tally
from runtime.accounts import Account
from runtime.metrics import RESULTS, call_seconds_of, calls_of, deferred_of
from runtime.resources import Resources

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Deferred(Struct, frozen=True, kw_only=True):
    """The channel was not called: its rate is used up, the breaker is open, or another process queries this payment.

    `seconds`: when to try again. `reason`: a short code for logs.
    """

    seconds: float
    reason: str


async def call_channel(
    resources: Resources,
    account: Account,
    kind: CallKind,
    urgency: Urgency,
    call: Callable[_P, Awaitable[_T]],
    *args: _P.args,
    **kwargs: _P.kwargs,
) -> _T | Deferred:
    """Call `call(*args, **kwargs)`, if the channel may be called now.

    Raises:
        ChannelError, InvalidRequest: as the adapter raised it.
        ChannelUnavailable: the account has changed its world since the payment was made. Its channel does not know the
            payment, which proves nothing.
    """
    name = account.config.name
    if any(_is_other_world(arg, account) for arg in args):
        raise ChannelUnavailable("other_world")
    # A callback is believed only after queries of its own payment: a breaker that others have opened answers none.
    past_breaker = kind is CallKind.QUERY and urgency is Urgency.FRESH and account.trusts_when_unanswered
    admitted = await resources.admission.admit(
        name, account.config.rate_per_s, kind, urgency, past_breaker=past_breaker
    )
    tallies = resources.tallies
    if isinstance(admitted, Wait):
        tallies[Tally("account", name, f"held:{admitted.reason}")] += 1
        deferred_of(name, kind.value, admitted.reason).inc()
        return Deferred(seconds=admitted.seconds, reason=admitted.reason)
    of_pages = kind in (CallKind.STATEMENT, CallKind.UNDELIVERED)
    further = Urgency.REFRESH if of_pages else Urgency.FRESH
    reservation = admitted.reservation

    async def end_first() -> None:
        nonlocal reservation
        ended, reservation = reservation, ""
        await resources.admission.end_request(name, ended)

    calling = CALLING.set(Calling(kind=kind, urgency=further, gate=account.gate, is_admitted=True, end_first=end_first))
    error: BaseException | None = None
    began = monotonic()
    try:
        return await call(*args, **kwargs)
    except BaseException as raised:
        error = raised
        raise
    finally:
        CALLING.reset(calling)
        answered = was_answered(error)
        calls_of(name, kind.value, RESULTS[answered, error is None]).inc()
        if answered is not None:
            seconds = monotonic() - began
            call_seconds_of(name, kind.value).observe(seconds)
            tallies[Tally("account", name, "calls")] += 1
            tallies[Tally("account", name, f"call_s:{bisect_right(CALL_BOUNDS_S, seconds)}")] += 1
            if not answered:
                tallies[Tally("account", name, "calls_unanswered")] += 1
        await resources.admission.report(name, kind, answered=answered, reservation=reservation)


def _is_other_world(arg: object, account: Account) -> bool:
    payment = arg.payment if isinstance(arg, Create) else arg
    return isinstance(payment, Payment) and payment.live not in (None, account.config.live)

"""Admission of single requests that no admitted call of a channel covers: tokens, certificates, verifications, pages.

What leaves for a channel is under its account's rate, whoever caused it. A request that strangers can cause has its own
small share, and waits for nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from channels.transport import was_answered
from core.account import AccountConfig
from core.admission import Admission, Admitted, CallKind, Urgency
from core.errors import ChannelNotCalled
from runtime.metrics import RESULTS, calls_of

WAIT_S_MAX = 5.0
"""The longest that a further request of a call waits for the rate."""

VERIFY_WAIT_S_MAX = 1.0
"""The channel waits for the acknowledgement of its callback."""


@asynccontextmanager
async def admitted_request(
    admission: Admission, account: AccountConfig, kind: CallKind, urgency: Urgency
) -> AsyncIterator[None]:
    """Make one request under the account's rate. Raises ChannelNotCalled: it may not be made now."""
    admitted = await _admit(admission, account, kind, urgency)
    error: BaseException | None = None
    try:
        yield
    except BaseException as raised:
        error = raised
        raise
    finally:
        answered = was_answered(error)
        if kind is CallKind.VERIFY:  # others are a part of a call that is counted as a whole
            calls_of(account.name, kind.value, RESULTS[answered, error is None]).inc()
        await admission.report(account.name, kind, answered=answered, reservation=admitted.reservation)


async def _admit(admission: Admission, account: AccountConfig, kind: CallKind, urgency: Urgency) -> Admitted:
    """Wait for the rate, unless a stranger does. An open breaker does not stop what has begun."""
    loop, has_begun = asyncio.get_running_loop(), kind is not CallKind.VERIFY
    wait_s = 0.0 if urgency is Urgency.STRANGER else WAIT_S_MAX if has_begun else VERIFY_WAIT_S_MAX
    give_up_at = loop.time() + wait_s
    while True:
        result = await admission.admit(account.name, account.rate_per_s, kind, urgency, past_breaker=has_begun)
        if isinstance(result, Admitted):
            return result
        if loop.time() + result.seconds > give_up_at:
            raise ChannelNotCalled(result.reason)
        await asyncio.sleep(result.seconds)

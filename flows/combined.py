"""A message about several payments, such as a combined order: each of them that is known here is asked about."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from core.decision import Outcome
from core.lifecycle import CallbackResult
from runtime.resources import Resources
from storage.postgres.inbox import StoredCallback
from storage.postgres.payments import find_payments_by_ids


async def handle_combined(
    resources: Resources, stored: StoredCallback, handle: Callable[[StoredCallback], Awaitable[CallbackResult]]
) -> CallbackResult:
    """Handle it for each payment that one of its ids names, one after the other; it is done when all are."""
    found = await find_payments_by_ids(resources.db, stored.channel_account, stored.evidence.every_id)
    numbers = dict.fromkeys(payment.out_trade_no for payment in found.values())
    results = [
        await handle(replace(stored, evidence=replace(stored.evidence, out_trade_no=number, ids=())))
        for number in numbers
    ]
    unknown = CallbackResult(outcome=Outcome.UNKNOWN_PAYMENT, is_done=False)
    return min(results, key=lambda result: result.is_done, default=unknown)

"""Accounts whose queries say *paid* while their callbacks do not come."""

from __future__ import annotations

from core.silence import GRACE_S, SilentAccount, judge_silence
from storage.postgres.database import Database
from storage.postgres.last_payments import find_last_payments, find_past


async def find_silent_accounts(db: Database, *, grace_s: float = GRACE_S) -> list[SilentAccount]:
    """The accounts whose callbacks have stopped, by name. `grace_s`: a payment is judged so long after the channel had
    the money.

    Raises:
        DatabaseUnavailable: it cannot be read.
    """
    last = await find_last_payments(db, grace_s=grace_s)
    if not last:
        return []
    past = await find_past(db)
    return [silent for each in last if (silent := judge_silence(each, past.get(each.account, ())))]

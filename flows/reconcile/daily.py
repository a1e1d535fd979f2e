"""The daily reconciliation of every account: yesterday's statement, and days that were missed."""

from __future__ import annotations

from datetime import datetime, time, timedelta

import structlog

from core.errors import ChannelError, NodropError, UnknownAccount
from flows.reconcile.run import reconcile_day
from flows.reconcile.unlisted import day_bounds
from runtime.resources import Resources
from storage.postgres.accounts import AccountRow, list_accounts
from storage.postgres.orders import find_now
from storage.postgres.reconciliation.runs import finished_days

DAYS_MAX = 7
"""Days that are caught up by themselves. After a longer outage an operator names the days."""

log = structlog.get_logger()


async def reconcile_due(resources: Resources) -> bool:
    """Reconcile one due day of each account. Returns whether there was any.

    Accounts that are switched off are included: their payments still count.
    """
    ready_at = resources.settings.reconcile_time()
    if ready_at is None:
        return False
    now = await find_now(resources.db)
    done = [await _reconcile_account(resources, row, ready_at, now) for row in await list_accounts(resources.db)]
    return any(done)


async def _reconcile_account(resources: Resources, row: AccountRow, ready_at: time, now: datetime) -> bool:
    """The oldest day that is due. A day that fails does not hold back later days or other accounts."""
    for _ in range(DAYS_MAX):
        try:
            return await _reconcile_next(resources, row, ready_at, now)
        except UnknownAccount:  # logged where its credentials do not open
            return False
        except ChannelError:  # logged by the run; it is not due again for a while
            continue
        except NodropError:
            raise
        except Exception:  # the same, and a fault of ours
            log.exception("statement_broke", account=row.name)
    return False


async def _reconcile_next(resources: Resources, row: AccountRow, ready_at: time, now: datetime) -> bool:
    account = await resources.accounts.get(row.name)
    zone = account.channel.statement_zone
    local = now.astimezone(zone)
    last = local.date() - timedelta(days=1 if local.time() >= ready_at else 2)
    first = max(last - timedelta(days=DAYS_MAX - 1), row.created_at.astimezone(zone).date())
    days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    finished = await finished_days(resources.db, row.name, days)
    for day in days:
        is_done = day in finished and finished[day].started_at >= day_bounds(day, zone)[1]
        if not is_done and await reconcile_day(resources, account, day, only_due=True) is not None:
            return True
    return False

"""The lease of a run: renewed while a process works on it, and given back with the reason when the work fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import structlog

from core.errors import DatabaseUnavailable, NodropError
from runtime.resources import Resources
from storage.postgres.reconciliation.runs import Reconciliation, fail, release, renew

log = structlog.get_logger()


@asynccontextmanager
async def holding(resources: Resources, run: Reconciliation) -> AsyncIterator[None]:
    """Renew the lease within the block. A run that fails keeps its place and is due again after n² units."""
    renewal = asyncio.create_task(_renew_lease(resources, run))
    try:
        yield
    except Exception as error:
        reason = type(error).__name__ if not isinstance(error, NodropError) else f"{type(error).__name__}: {error}"
        with suppress(DatabaseUnavailable):  # then its lease ends by itself
            await fail(resources.db, run, reason, resources.rules.backoff.gap_s(run.attempt))
        log.warning("reconciliation_failed", account=run.account, of=name_of(run), reason=type(error).__name__)
        raise
    except BaseException:  # the process stops: another one continues at once
        with suppress(DatabaseUnavailable):
            await release(resources.db, run)
        raise
    finally:
        renewal.cancel()


async def _renew_lease(resources: Resources, run: Reconciliation) -> None:
    while True:
        await asyncio.sleep(resources.settings.lease_s / 3)
        with suppress(DatabaseUnavailable):
            await renew(resources.db, run, resources.settings.lease_s)


def name_of(run: Reconciliation) -> str:
    """The name of the statement: its day, or the beginning of its hash."""
    return f"file {(run.sha256 or '')[:12]}" if run.day is None else run.day.isoformat()

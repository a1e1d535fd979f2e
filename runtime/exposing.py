"""Metrics of a process that are read when somebody scrapes it: its clock, and its accounts' breakers and rates."""

from __future__ import annotations

from contextlib import suppress

from core.errors import DatabaseUnavailable
from runtime import metrics
from runtime.resources import Resources


async def show_process(resources: Resources) -> None:
    """Set them. While Postgres is down and no account is known, those of the accounts stay as they were."""
    metrics.show_clock(resources.clock.verdict)
    with suppress(DatabaseUnavailable):
        rates = {account.config.name: account.config.rate_per_s for account in await resources.accounts.all_enabled()}
        metrics.show_breakers(list(rates), await resources.admission.open_breakers(rates))
        metrics.show_rates(rates, await resources.admission.calls_in_use(rates))

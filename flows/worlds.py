"""Accounts whose test money could look like real money: stored earlier, they go on, and a person is asked."""

from __future__ import annotations

from channels.hosts import host_problem
from core.order import CaseReason
from core.sentences import Sentence
from runtime.resources import Resources
from storage.postgres.cases import open_account_case


async def open_world_cases(resources: Resources) -> int:
    """Open a case for each enabled account that could not be added today; how many are new.

    Raises:
        DatabaseUnavailable: the accounts are not known.
    """
    opened = 0
    for account in await resources.accounts.all_enabled():
        problem = host_problem(account.config)
        if problem is not None:
            detail = Sentence("{key} {says}", key=problem.key, says=problem.says)
            name = account.config.name
            opened += await open_account_case(resources.db, name, CaseReason.WRONG_WORLD, detail=detail)
    return opened

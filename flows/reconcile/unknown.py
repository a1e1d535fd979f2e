"""Rows of payments that are not known here: another system's, or an order's whose payment nobody connected with it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta, tzinfo

from channels.base import StatementRow
from core.reconciliation import CASES, Difference, Finding, judge_unknown
from core.sentences import Sentence
from flows.reconcile.unlisted import day_bounds
from runtime.accounts import Account
from runtime.resources import Resources
from storage.postgres.reconciliation.candidates import UnknownMoney, find_candidates


async def judge_unknown_rows(
    resources: Resources, account: Account, rows: Mapping[int, StatementRow], unresolved: frozenset[int]
) -> list[Difference]:
    """The finding about each unknown row. Orders that are not paid and have its amount are named as candidates, within
    the day of the row and one day either side.
    """
    zone = account.channel.statement_zone
    money = [_money(row_no, row, zone) for row_no, row in rows.items() if row.kind == "payment"]
    candidates = await find_candidates(resources.db, account.config.name, money)
    found = []
    for row_no, row in rows.items():
        finding, detail = judge_unknown(row, candidates.get(row_no, ()), exclusive=account.config.exclusive)
        if row_no in unresolved and finding is not Finding.UNCLAIMED:
            finding = Finding.UNCONFIRMED
            detail = Sentence("{detail}; the channel does not say which payment it is of", detail=detail)
        found.append(
            Difference(
                kind=finding,
                row_no=row_no,
                out_trade_no=row.out_trade_no or row.channel_transaction_id,
                channel_transaction_id=row.channel_transaction_id,
                detail=detail,
                case=CASES.get(finding),
            )
        )
    return found


def _money(row_no: int, row: StatementRow, zone: tzinfo) -> UnknownMoney:
    day = row.at.astimezone(zone).date()
    return UnknownMoney(
        row_no=row_no,
        amount=row.amount,
        currency=row.currency,
        since=day_bounds(day - timedelta(days=1), zone)[0],
        until=day_bounds(day + timedelta(days=1), zone)[1],
    )

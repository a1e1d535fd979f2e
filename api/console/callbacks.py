"""Callbacks that came, page by page, and one of them with all that it proves. A raw body is shown on demand alone, to a
role that may read it, and as text.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal, NamedTuple

import msgspec

from api.console.render import render
from api.console.visit import Visit
from api.context import Context
from api.http.response import Reply
from api.v1.schemas import AccountName, Cursor, OrderNo
from core.act_names import ActName
from core.errors import NotFound
from core.evidence import Refunded
from core.order import Payment
from flows.callback_explanation import ExplainedCallback, RawBody, explain_received, read_raw
from storage.postgres import callbacks
from storage.postgres.accounts import list_accounts
from storage.postgres.callback_history import (
    CallbackRow,
    CallbackState,
    callbacks_of_order,
    find_callback,
    list_callbacks,
)
from storage.postgres.refused_callbacks import find_refused_counts

PAGE = 50
EXPLAIN_S = 5.0
"""A channel that verifies its callbacks itself is waited for no longer."""

SINCE: Mapping[str, timedelta] = {
    "1h": timedelta(hours=1),
    "1d": timedelta(days=1),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
}
STATES: Mapping[CallbackState, str] = {
    CallbackState.HANDLED: "good",
    CallbackState.WAITING: "wait",
    CallbackState.DEAD: "bad",
    CallbackState.REFUSED: "look",
}
VERDICTS: Mapping[str, str] = {"genuine": "good", "hint": "calm", "unreadable": "look", "not_verifiable": "look"}
"""The shape of each; those that are not here are bad."""


class ListQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The filters of the list, as they are in its address."""

    account: AccountName | None = None
    order: OrderNo | None = None
    state: CallbackState | None = None
    since: Literal["1h", "1d", "7d", "30d"] | None = None
    cursor: Cursor | None = None


class Fact(NamedTuple):
    """A field of the evidence beside the same of the payment. `is_same` None: there is nothing to compare."""

    key: str
    says: Any
    expected: Any
    is_same: bool | None


async def index(context: Context, visit: Visit) -> Reply:
    db, query = context.resources.db, visit.read_query(ListQuery)
    since = None if query.since is None else visit.now - SINCE[query.since]
    next_cursor: str | None = None
    if query.order is not None:
        rows: Sequence[CallbackRow] = [
            row
            for row in reversed(await callbacks_of_order(db, query.order))
            if query.account in (None, row.account) and query.state in (None, row.state)
            if since is None or row.received_at >= since
        ]
    else:
        rows, next_cursor = await list_callbacks(
            db, account=query.account, state=query.state, since=since, cursor=query.cursor, limit=PAGE
        )
    return render(
        visit,
        "callbacks/index.html",
        title=visit.language.texts["callbacks.title"],
        rows=rows,
        query=query,
        next=visit.url(cursor=next_cursor) if next_cursor else "",
        accounts=sorted(account.name for account in await list_accounts(db)),
        states=STATES,
        verdicts=VERDICTS,
        since=list(SINCE),
        unstored=await callbacks.find_counts(db),
        refused=await find_refused_counts(db),
    )


async def show(context: Context, visit: Visit) -> Reply:
    return await _page(context, visit, await _find(context, visit), raw=None)


async def show_raw(context: Context, visit: Visit) -> Reply:
    """The page with the raw body, and the strings that were signed, which have the body in them."""
    row = await _find(context, visit)
    await visit.record(ActName.CALLBACK_RAW, row.id, {"order_no": row.order_no} if row.order_no else {})
    return await _page(context, visit, row, raw=await read_raw(context.resources, row))


async def _page(context: Context, visit: Visit, row: CallbackRow, *, raw: RawBody | None) -> Reply:
    explained = await _explain(context, row)
    return render(
        visit,
        "callbacks/show.html",
        title=visit.language.texts["callbacks.title_one"],
        row=row,
        states=STATES,
        verdicts=VERDICTS,
        explained=explained,
        facts=[] if explained is None else _facts(explained),
        checks=[] if explained is None else explained.as_json()["checks"],
        notes=[] if explained is None else explained.explanation.notes,
        raw=raw,
    )


async def _explain(context: Context, row: CallbackRow) -> ExplainedCallback | None:
    """None: the channel, which had to be asked, did not answer soon."""
    try:
        async with asyncio.timeout(EXPLAIN_S):
            return await explain_received(context.resources, row)
    except TimeoutError:
        return None


async def _find(context: Context, visit: Visit) -> CallbackRow:
    row = await find_callback(context.resources.db, visit.params["callback_id"])
    if row is None:
        raise NotFound("no such callback")
    return row


def _facts(explained: ExplainedCallback) -> list[Fact]:
    """The evidence, field by field, beside the payment that it is about."""
    evidence, payment = explained.explanation.evidence, explained.payment
    if evidence is None:
        return []
    says = None if evidence.amount is None else (evidence.amount, evidence.currency or "")
    expected = (payment.amount, payment.currency) if payment is not None else None
    facts = [
        _fact("account", evidence.channel_account, explained.callback.account),
        _fact("out_trade_no", evidence.out_trade_no or None, None if payment is None else payment.out_trade_no),
        _fact("amount", says, expected),
        Fact("transaction", evidence.channel_transaction_id, _transaction(payment), None),
        Fact("at", evidence.at, None if payment is None else payment.paid_at, None),
    ]
    if isinstance(evidence, Refunded) and evidence.refunded_amount is not None:
        facts.append(Fact("refunded", (evidence.refunded_amount, evidence.currency), None, None))
    return [fact for fact in facts if fact.says is not None]


def _fact(key: str, says: object, expected: object) -> Fact:
    return Fact(key, says, expected, None if says is None or expected is None else says == expected)


def _transaction(payment: Payment | None) -> str | None:
    return None if payment is None else payment.channel_transaction_id

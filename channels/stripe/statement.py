"""Stripe's statement of a day: its balance transactions, stored as one JSON object a line.

https://docs.stripe.com/reports/balance-transaction-types ; amounts are those of the charge or the refund behind each
transaction, because the transaction itself is in the converted currency.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import IO, Annotated, Any, Literal, TypedDict

import msgspec

from channels.base import MalformedRow, StatementRow
from channels.kit.signed_message import read_json
from channels.stripe.api import Api, read_raw
from channels.stripe.events import AnyObject
from channels.stripe.money import from_stripe
from channels.stripe.objects import Charge, Refund, instant
from channels.transport import DOWNLOAD_TIMEOUT_S, STATEMENT_BYTES_MAX
from core.errors import ChannelRefused, ChannelUnavailable, ChannelUnreadable
from core.money import CURRENCIES

PAGES_MAX = 1000
"""100,000 transactions a day; more could not be fetched within the deadline."""

LINE_BYTES_MAX = 64 << 10
"""A transaction with its charge takes about 4 KB."""

_PAYMENTS = ("charge", "payment")
_REFUNDS = ("refund", "payment_refund")


class _Kind(msgspec.Struct, frozen=True, kw_only=True):
    object: Literal["balance_transaction"]


class _Transaction(_Kind, frozen=True, kw_only=True):
    """`source` is an id where it was not expanded. `fee` is in the currency of the balance, which may be another one
    than the charge's; nothing is decided by it, so it may have any form.
    """

    type: str
    created: Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799)]
    currency: Any = None
    fee: Any = None


class _OfPayment(_Transaction, frozen=True, kw_only=True):
    source: Charge


class _OfAny(msgspec.Struct, frozen=True, kw_only=True):
    source: AnyObject


class _OfRefund(_Transaction, frozen=True, kw_only=True):
    source: Refund


class _Fee(TypedDict, total=False):
    """The fields of a row for its fee; none of them, if the transaction has none that can be read."""

    fee: int
    fee_currency: str


async def fetch(api: Api, day: date, into: IO[bytes]) -> None:
    """Write the transactions of one day of UTC, newest first.

    Raises, besides what every call raises:
        ChannelRefused: with `code` "no_statement" when there are none.
        ChannelUnreadable: there are more than the limits allow.
    """
    start = int(datetime.combine(day, time(), UTC).timestamp())
    end = start + int(timedelta(days=1).total_seconds())
    query = [("created[gte]", str(start)), ("created[lt]", str(end)), ("expand[]", "data.source")]
    size = pages = 0
    try:
        async with asyncio.timeout(DOWNLOAD_TIMEOUT_S):
            async for page in api.pages("/v1/balance_transactions", query, pages_max=PAGES_MAX + 1):
                pages += bool(page)
                lines = b"".join(_line(raw) for raw in page)
                size += len(lines)
                if pages > PAGES_MAX or size > STATEMENT_BYTES_MAX:
                    raise ChannelUnreadable("oversized")
                into.write(lines)
    except TimeoutError:
        raise ChannelUnavailable("timed_out") from None
    if pages == 0:
        raise ChannelRefused("no_statement")


def parse(statement: IO[bytes]) -> Iterator[StatementRow | MalformedRow]:
    """Payments and refunds of a statement; payouts, single fees and adjustments are left out.

    Raises:
        ChannelUnreadable: it does not begin with a balance transaction.
    """
    number = 0
    while line := statement.readline(LINE_BYTES_MAX + 1):
        number += 1
        if len(line) > LINE_BYTES_MAX:
            raise ChannelUnreadable("statement_line")
        if number == 1:
            read_raw(msgspec.Raw(line), _Kind)
        row = _row(number, line)
        if row is not None:
            yield row
    if number == 0:
        raise ChannelUnreadable("statement_empty")


def _line(raw: msgspec.Raw) -> bytes:
    """The transaction on one line, without Stripe's line breaks."""
    return msgspec.json.format(bytes(raw), indent=-1) + b"\n"


def _row(number: int, line: bytes) -> StatementRow | MalformedRow | None:
    try:
        kind = read_json(line, _Transaction).type
        if kind in _PAYMENTS:
            return _payment_row(number, read_raw(msgspec.Raw(line), _OfPayment))
        return _refund_row(number, read_raw(msgspec.Raw(line), _OfRefund)) if kind in _REFUNDS else None
    except ChannelUnreadable as error:
        return MalformedRow(line=number, reason=error.detail, ids=_ids(line))


def _ids(line: bytes) -> tuple[str, ...]:
    """The ids of its charge or refund that can be read, also when the transaction as a whole cannot."""
    try:
        return msgspec.json.decode(line, type=_OfAny).source.ids
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ()


def _payment_row(number: int, transaction: _OfPayment) -> StatementRow:
    charge, currency = transaction.source, transaction.source.currency.upper()
    return StatementRow(
        line=number,
        kind="payment",
        out_trade_no=next(iter(charge.numbers), ""),
        channel_transaction_id=charge.payment_intent or charge.id,
        amount=from_stripe(charge.captured, currency),
        currency=currency,
        at=instant(transaction.created),
        ids=(charge.id,),
        **_fee(transaction),
    )


def _refund_row(number: int, transaction: _OfRefund) -> StatementRow:
    refund, currency = transaction.source, transaction.source.currency.upper()
    return StatementRow(
        line=number,
        kind="refund",
        out_trade_no=next(iter(refund.numbers), ""),
        channel_transaction_id=refund.payment_intent or refund.id,
        refund_no=refund.refund_no,
        channel_refund_no=refund.id,
        amount=from_stripe(refund.amount, currency),
        currency=currency,
        at=instant(transaction.created),
        ids=() if refund.charge is None else (refund.charge,),
        **_fee(transaction),
    )


def _fee(transaction: _Transaction) -> _Fee:
    fee, currency = transaction.fee, str(transaction.currency).upper()
    if type(fee) is not int or currency not in CURRENCIES:
        return {}
    try:
        return {"fee": from_stripe(fee, currency), "fee_currency": currency}
    except ChannelUnreadable:
        return {}

"""PayPal's statement of a day, its transaction search: fetched page by page, stored as one JSON object a line.

https://developer.paypal.com/docs/api/transaction-search/v1/ ; a transaction is listed up to three hours after it was
made. Only incoming payments and the refunds linked to one are read; other transactions may lack anything. The number of
transactions that PayPal states is stored behind those of each span.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import IO, Annotated, Any, Literal
from urllib.parse import quote

import msgspec

from channels.base import MalformedRow, StatedTotal, StatementItem, StatementRow
from channels.kit.fees import read_fee
from channels.kit.signed_message import read_json
from channels.kit.unreadable import clean_ids
from channels.paypal.api import Api, require_success
from channels.transport import STATEMENT_BYTES_MAX
from core.errors import ChannelRefused, ChannelUnreadable, InvalidRequest
from core.money import minor_units

PAGE_SIZE = 500
"""PayPal's maximum."""

PAGE_BYTES_MAX = 8 << 20
CALLS_MAX = 400
"""200,000 transactions: more than one account makes in a day; it also ends endless pages."""

LINE_BYTES_MAX = 64 * 1024

_TOTAL = b'{"total_items":'

_TOO_LARGE = "RESULTSET_TOO_LARGE"
"""PayPal lists at most 10,000 transactions of one span."""

_SECOND = timedelta(seconds=1)
_SIGNED = re.compile(r"(-?)([0-9.]{1,24})", re.ASCII)
_AT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?(?:Z|[+-][0-9]{2}:?[0-9]{2})")

# https://developer.paypal.com/docs/transaction-search/transaction-event-codes/
_PAYMENT = "T00"
_REFUND = "T11"
_HOLDS = frozenset({"T1105", "T1110", "T1111"})
"""Money held during a dispute and released again: not refunded."""

_WAS_PAID = frozenset({"S", "F", "V"})
"""Succeeded, partly refunded and fully refunded: all were paid. Left out: denied and pending."""

_Code = Annotated[str, msgspec.Meta(pattern=r"\AT[0-9]{4}\Z")]
_Id = Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Za-z_\-]{1,128}\Z")]


class _RelatedIds(msgspec.Struct, frozen=True, kw_only=True):
    order_id: str = ""


class _Supplementary(msgspec.Struct, frozen=True, kw_only=True):
    related_ids: _RelatedIds = _RelatedIds()


class _Capture(msgspec.Struct, frozen=True, kw_only=True):
    """A capture, as far as it says which order it is of."""

    id: str = ""
    custom_id: str = ""
    invoice_id: str = ""
    supplementary_data: _Supplementary = _Supplementary()


class _Page(msgspec.Struct, frozen=True, kw_only=True):
    transaction_details: tuple[msgspec.Raw, ...]
    total_pages: Annotated[int, msgspec.Meta(ge=0)] = 1
    total_items: Annotated[int, msgspec.Meta(ge=0)] | None = None


class _Money(msgspec.Struct, frozen=True, kw_only=True):
    currency_code: Annotated[str, msgspec.Meta(pattern=r"\A[A-Z]{3}\Z")]
    value: str


class _Info(msgspec.Struct, frozen=True, kw_only=True):
    transaction_id: _Id
    transaction_event_code: _Code
    transaction_status: str
    transaction_initiation_date: str
    transaction_amount: _Money
    fee_amount: Any = None
    paypal_reference_id: str = ""
    custom_field: str = ""
    invoice_id: str = ""


class _Line(msgspec.Struct, frozen=True, kw_only=True):
    transaction_info: _Info


class _Kind(msgspec.Struct, frozen=True, kw_only=True):
    """The fields that say whether a transaction is a payment or a refund. Others may lack them, but for the code."""

    transaction_event_code: _Code
    transaction_status: str = ""
    transaction_amount: Any = None

    @property
    def is_out(self) -> bool:
        amount = self.transaction_amount
        match = _SIGNED.fullmatch(str(amount.get("value", ""))) if isinstance(amount, dict) else None
        return match is not None and match[1] == "-"


class _KindLine(msgspec.Struct, frozen=True, kw_only=True):
    transaction_info: _Kind


class _Ids(msgspec.Struct, frozen=True, kw_only=True):
    """The ids of a transaction. None of them is checked for its form."""

    custom_field: Any = None
    invoice_id: Any = None
    transaction_id: Any = None
    paypal_reference_id: Any = None


class _LineOfIds(msgspec.Struct, frozen=True, kw_only=True):
    transaction_info: _Ids


class _AnyLine(msgspec.Struct, frozen=True, kw_only=True):
    transaction_info: msgspec.Raw


class _TotalLine(msgspec.Struct, frozen=True, kw_only=True):
    """The number of transactions of a span, behind them."""

    total_items: int


async def fetch(api: Api, day: date, into: IO[bytes]) -> None:
    """Write the UTC day's transactions. Raises as `Channel.fetch_statement`."""
    begin = datetime.combine(day, time(), UTC)
    spans = [(begin, begin + timedelta(days=1) - _SECOND)]
    calls = size = 0
    while spans:
        first, last = spans.pop()
        page, pages, total = 1, 1, None
        while page <= pages:
            calls += 1
            if calls > CALLS_MAX:
                raise ChannelUnreadable("statement_pages")
            content = await _page(api, first, last, page)
            if content is None:
                middle = first + (last - first) // 2
                middle = middle.replace(microsecond=0)
                spans += [(middle + _SECOND, last), (first, middle)]
                break
            size += _write(content, into, STATEMENT_BYTES_MAX - size)
            if page == 1:  # on later pages PayPal may count from there on
                total = content.total_items
            page, pages = page + 1, content.total_pages
        else:
            size += _write_total(total, into)
    if size == 0:
        raise ChannelRefused("no_statement")


async def ids_of_capture(api: Api, capture_id: str) -> tuple[str, ...]:
    """The order of a capture and the numbers in it: a transaction may name neither.

    Raises:
        ChannelRefused: it is the transaction of another product and no capture.
    """
    if not capture_id:
        return ()
    response = await api.call("GET", f"/v2/payments/captures/{quote(capture_id, safe='')}")
    capture = read_json(require_success(response).body, _Capture)
    ids = (capture.supplementary_data.related_ids.order_id, capture.custom_id, capture.invoice_id)
    return tuple(filter(None, ids))


def order_of_capture(body: bytes, capture_id: str) -> str:
    """Id of the order that a capture names; empty: it names none.

    Raises:
        ChannelUnreadable: it is another capture.
    """
    capture = read_json(body, _Capture)
    if capture.id != capture_id:
        raise ChannelUnreadable("other_capture")
    return capture.supplementary_data.related_ids.order_id


def parse(statement: IO[bytes]) -> Iterator[StatementItem]:
    """The rows of what `fetch` wrote, then the number of transactions. Raises as `Channel.parse_statement`."""
    line = read = stated = 0
    while text := statement.readline(LINE_BYTES_MAX):
        line += 1
        row: StatementRow | MalformedRow | None
        try:
            if text.startswith(_TOTAL):
                stated += read_json(text, _TotalLine).total_items
                continue
            row = _row(line, text)
            read += 1
        except (ChannelUnreadable, InvalidRequest, ValueError):
            if line == 1 and not _is_transaction(text):
                raise ChannelUnreadable("statement") from None
            row = MalformedRow(line=line, reason="value", ids=_ids(text))
        if row is not None:
            yield row
    if line == 0:
        raise ChannelUnreadable("statement_empty")
    if stated:
        yield StatedTotal(name="total_items", stated=stated, read=read)


async def _page(api: Api, first: datetime, last: datetime, page: int) -> _Page | None:
    """A page; None when the span has more than PayPal lists, and can be halved."""
    query = (
        f"start_date={_rfc3339(first)}&end_date={_rfc3339(last)}"
        f"&fields=transaction_info&page_size={PAGE_SIZE}&page={page}"
    )
    response = await api.call("GET", f"/v1/reporting/transactions?{query}", response_bytes_max=PAGE_BYTES_MAX)
    try:
        return read_json(require_success(response).body, _Page)
    except ChannelRefused as refused:
        if refused.code == _TOO_LARGE and page == 1 and first < last:
            return None
        raise


def _write(page: _Page, into: IO[bytes], bytes_max: int) -> int:
    size = 0
    for transaction in page.transaction_details:
        line = msgspec.json.format(bytes(transaction), indent=-1) + b"\n"
        size += len(line)
        if size > bytes_max:
            raise ChannelUnreadable("oversized")
        into.write(line)
    return size


def _write_total(total: int | None, into: IO[bytes]) -> int:
    return into.write(b"%b%d}\n" % (_TOTAL, total)) if total else 0


def _is_transaction(text: bytes) -> bool:
    try:
        read_json(text, _AnyLine)
    except ChannelUnreadable:
        return False
    return True


def _ids(text: bytes) -> tuple[str, ...]:
    """The ids of a transaction that can be read, also when it cannot be read as a whole."""
    try:
        info = msgspec.json.decode(text, type=_LineOfIds).transaction_info
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ()
    return clean_ids(info.custom_field, info.invoice_id, info.transaction_id, info.paypal_reference_id)


def _row(line: int, text: bytes) -> StatementRow | None:
    """Return None for a transaction that is neither an incoming payment nor a refund, whatever else it lacks."""
    kind = _kind(read_json(text, _KindLine).transaction_info)
    if kind is None:
        return None
    info = read_json(text, _Line).transaction_info
    currency = info.transaction_amount.currency_code
    is_payment, other_number = kind == "payment", info.invoice_id
    number = info.custom_field or (other_number if is_payment else "")
    transaction = info.transaction_id if is_payment else info.paypal_reference_id
    return StatementRow(
        line=line,
        kind=kind,
        out_trade_no=number,
        channel_transaction_id=transaction,
        # A refund that was made in the console has the payment's own invoice number.
        refund_no=other_number if not is_payment and other_number != number else "",
        channel_refund_no="" if is_payment else info.transaction_id,
        amount=minor_units(_unsigned(info.transaction_amount.value), currency),
        currency=currency,
        at=_instant(info.transaction_initiation_date),
        # A payment refers to its order.
        ids=tuple(id_ for id_ in (other_number, info.paypal_reference_id) if id_ and id_ not in (number, transaction)),
        fee=_fee(info.fee_amount, currency),
    )


def _fee(amount: Any, currency: str) -> int | None:  # noqa: ANN401 - whatever PayPal sends: nothing is decided by it
    """The fee of a transaction. PayPal writes what it takes with a minus, in the transaction's own currency."""
    if not isinstance(amount, dict) or amount.get("currency_code") != currency:
        return None
    taken = read_fee(str(amount.get("value")), currency)
    return None if taken is None else -taken


def _kind(info: _Kind) -> Literal["payment", "refund"] | None:
    code, status = info.transaction_event_code, info.transaction_status
    if code.startswith(_PAYMENT) and not info.is_out and status in ("", *_WAS_PAID):
        return "payment"
    if code.startswith(_REFUND) and code not in _HOLDS and info.is_out and status in ("", "S"):
        return "refund"
    return None


def _unsigned(value: str) -> str:
    match = _SIGNED.fullmatch(value)
    if match is None:
        raise ChannelUnreadable("amount")
    return match[2]


def _instant(text: str) -> datetime:
    """`2026-11-23T04:00:00+0000`: PayPal leaves the colon out of the offset."""
    if _AT.fullmatch(text) is None:
        raise ChannelUnreadable("at")
    return datetime.fromisoformat(text).astimezone(UTC)


def _rfc3339(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")

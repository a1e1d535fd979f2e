"""The sandbox's statement of a day: a CSV file with a fixed header, in UTF-8."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from datetime import datetime
from typing import IO, Annotated

import msgspec

from channels.base import MalformedRow, StatementRow
from channels.kit.unreadable import clean_ids
from core.errors import ChannelUnreadable

_HEADER = ["type", "out_trade_no", "transaction_id", "refund_no", "amount", "currency", "at"]
_HEADERS = ([*_HEADER, "refund_id"], _HEADER)
"""The header of today, and the older one without the channel's own number of a refund."""

_MINOR_TEXT = re.compile(r"0|[1-9][0-9]{0,14}", re.ASCII)
_Instant = Annotated[datetime, msgspec.Meta(tz=True)]


def read_statement(statement: IO[bytes]) -> Iterator[StatementRow | MalformedRow]:
    """Rows of the statement, one at a time. Raises as `Channel.parse_statement`."""
    text = io.TextIOWrapper(statement, "utf-8", newline="")
    try:
        rows = csv.reader(text, strict=True)
        header = next(rows, None)
        if header not in _HEADERS:
            raise ChannelUnreadable("statement_header")
        for line, row in enumerate(rows, 2):
            yield _row(line, row, len(header))
    except (csv.Error, ValueError) as error:
        raise ChannelUnreadable(f"statement_{type(error).__name__}") from None
    finally:
        text.detach()  # the file stays the caller's, and open


def _row(line: int, row: list[str], columns: int) -> StatementRow | MalformedRow:
    if len(row) != columns:
        return MalformedRow(line=line, reason="columns")
    kind, out_trade_no, transaction_id, refund_no, amount, currency, at, *refund_id = row
    ids = clean_ids(out_trade_no, transaction_id)
    if not _MINOR_TEXT.fullmatch(amount):
        return MalformedRow(line=line, reason="amount", ids=ids)
    try:
        return msgspec.convert(
            {
                "line": line,
                "kind": kind,
                "out_trade_no": out_trade_no,
                "channel_transaction_id": transaction_id,
                "refund_no": refund_no,
                "channel_refund_no": "".join(refund_id),
                "amount": int(amount),
                "currency": currency,
                "at": msgspec.convert(at, _Instant),
            },
            StatementRow,
        )
    except msgspec.ValidationError:
        return MalformedRow(line=line, reason="value", ids=ids)

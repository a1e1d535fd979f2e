"""Alipay's statement of a day (业务明细): a zip that holds a CSV in GBK, its columns found by their Chinese names.

Beside the details lies a summary (汇总), which is not read. Memory does not grow with the rows, and what the zip says
of its own size is checked before a byte of it is unpacked.
"""

from __future__ import annotations

import csv
import re
import zlib
from collections.abc import Iterator
from typing import IO, Literal, NamedTuple
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from channels.alipay.trade import CURRENCY
from channels.alipay.wire import read_time
from channels.base import MalformedRow, StatementRow
from core.errors import ChannelUnreadable, InvalidRequest
from core.money import AMOUNT_MAX, minor_units

ENTRIES_MAX = 64
UNPACKED_BYTES_MAX = 1 << 30
"""A million rows are some 300 MB."""

LINE_BYTES_MAX = 16 * 1024
PREAMBLE_LINES_MAX = 50
"""Before the header stand four or five lines of comment."""

_TRADE_NO, _OUT_TRADE_NO, _KIND, _AT, _AMOUNT, _REFUND_NO = _NAMES = (
    *("支付宝交易号", "商户订单号", "业务类型", "完成时间", "订单金额", "退款批次号/请求号"),
)
_YUAN = re.compile(r"[（(]元[)）]\Z")
_ID = re.compile(r"[0-9A-Za-z_\-|*.:]{1,64}", re.ASCII)
_KINDS: dict[str, Literal["payment", "refund"]] = {"交易": "payment", "退款": "refund"}


class _Columns(NamedTuple):
    """Where each name stands, and how many columns there are."""

    at: dict[str, int]
    width: int


def read_statement(statement: IO[bytes]) -> Iterator[StatementRow | MalformedRow]:
    """Its rows, one at a time.

    Raises:
        ChannelUnreadable: no zip, no details in it, larger than any statement, or without the columns that are needed.
    """
    try:
        with ZipFile(statement, metadata_encoding="gbk") as archive:
            for entry in _detail_entries(archive):
                with archive.open(entry) as file:
                    yield from _rows(_lines(file))
    except (BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as error:
        # RuntimeError: encrypted. ValueError: a name that is not GBK.
        raise ChannelUnreadable(f"statement_{type(error).__name__}") from None


def _detail_entries(archive: ZipFile) -> list[ZipInfo]:
    entries = archive.infolist()
    if len(entries) > ENTRIES_MAX or sum(entry.file_size for entry in entries) > UNPACKED_BYTES_MAX:
        raise ChannelUnreadable("statement_oversized")
    details = [entry for entry in entries if "业务明细" in entry.filename and "汇总" not in entry.filename]
    if not details:
        raise ChannelUnreadable("statement_without_details")
    if any(entry.compress_type not in (ZIP_STORED, ZIP_DEFLATED) for entry in details):
        raise ChannelUnreadable("statement_packing")  # what else zipfile unpacks asks for memory as the file says
    return details


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    while line := file.readline(LINE_BYTES_MAX + 1):
        if len(line) > LINE_BYTES_MAX:
            raise ChannelUnreadable("statement_line_oversized")
        yield line


def _rows(lines: Iterator[bytes]) -> Iterator[StatementRow | MalformedRow]:
    columns = None
    for number, line in enumerate(lines, 1):
        if line.startswith(b"#") or not line.strip():
            continue
        cells = _cells(line)
        if columns is not None:
            yield MalformedRow(line=number, reason="encoding") if cells is None else _row(number, cells, columns)
        elif number > PREAMBLE_LINES_MAX or cells is None or (columns := _columns(cells)) is None:
            raise ChannelUnreadable("statement_header")
    if columns is None:
        raise ChannelUnreadable("statement_header")


def _cells(line: bytes) -> list[str] | None:
    """A line's cells without the tabs and spaces that keep spreadsheets from taking numbers for numbers."""
    try:
        text = line.decode("gb18030")  # GBK, and the signs that were added to it since
        return [cell.strip() for cell in next(csv.reader([text.rstrip("\r\n")]))]
    except (UnicodeDecodeError, csv.Error):
        return None


def _columns(cells: list[str]) -> _Columns | None:
    positions = {_YUAN.sub("", cell): at for at, cell in enumerate(cells)}
    return _Columns(positions, len(cells)) if all(name in positions for name in _NAMES) else None


def _row(line: int, cells: list[str], columns: _Columns) -> StatementRow | MalformedRow:
    if len(cells) != columns.width:
        return MalformedRow(line=line, reason="columns")
    values = {name: cells[columns.at[name]] for name in _NAMES}
    kind = _KINDS.get(values[_KIND])
    if kind is None:
        return MalformedRow(line=line, reason="kind")
    # What goes out is written with a minus; of what comes in that would be nonsense, so it is not taken there.
    amount = values[_AMOUNT].removeprefix("-") if kind == "refund" else values[_AMOUNT]
    refund_no = values[_REFUND_NO] if kind == "refund" else ""
    if _ID.fullmatch(values[_TRADE_NO]) is None or any(
        number and _ID.fullmatch(number) is None for number in (values[_OUT_TRADE_NO], refund_no)
    ):
        return MalformedRow(line=line, reason="number")
    try:
        minor = minor_units(amount, CURRENCY)
        at = read_time(values[_AT])
    except InvalidRequest:
        return MalformedRow(line=line, reason="amount")
    except ValueError:
        return MalformedRow(line=line, reason="time")
    if minor > AMOUNT_MAX:
        return MalformedRow(line=line, reason="amount")
    return StatementRow(
        line=line,
        kind=kind,
        out_trade_no=values[_OUT_TRADE_NO],
        channel_transaction_id=values[_TRADE_NO],
        refund_no=refund_no,
        amount=minor,
        currency=CURRENCY,
        at=at,
    )

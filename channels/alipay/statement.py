"""Alipay's statement of a day (业务明细): a CSV in GBK, in the zip that Alipay gives or taken out of it.

Columns are found by their Chinese names. The summary (汇总) beside the details is not read. Memory does not grow with
the rows, and the size that the zip declares is checked before anything is unpacked.
"""

from __future__ import annotations

import csv
import re
import zlib
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Iterator
from os import SEEK_CUR
from typing import IO, Literal, NamedTuple
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from channels.alipay.trade import CURRENCY
from channels.alipay.wire import read_time
from channels.base import MalformedRow, StatedTotal, StatementItem, StatementRow
from channels.kit.fees import read_fee
from channels.kit.unreadable import clean_ids
from core.errors import ChannelUnreadable, InvalidRequest
from core.money import AMOUNT_MAX, minor_units

ENTRIES_MAX = 64
UNPACKED_BYTES_MAX = 1 << 30
"""A million rows are about 300 MB."""

LINE_BYTES_MAX = 16 * 1024
PREAMBLE_LINES_MAX = 50
"""Four or five lines of comment precede the header."""

_TRADE_NO, _OUT_TRADE_NO, _KIND, _AT, _AMOUNT, _REFUND_NO = _NAMES = (
    *("支付宝交易号", "商户订单号", "业务类型", "完成时间", "订单金额", "退款批次号/请求号"),
)
_RECEIVED = "商家实收"
_FEE = "服务费"
"""Negative where Alipay takes it, positive where it gives it back with a refund."""
_YUAN = re.compile(r"[（(]元[)）]\Z")
# "#交易合计：2笔，商家实收共17.34元，商家优惠共0.00元". Older files sum 交易金额,
# which is 订单金额; refunds have a minus.
_SUMS = re.compile(
    r"#+(交易|退款)合计[：:]([0-9]{1,15})笔(?:[，,](商家实收|交易)(?:退款)?(?:金额)?共-?([0-9.]{1,24})元)?", re.ASCII
)
_END = "业务明细列表结束"
_ID = re.compile(r"[0-9A-Za-z_\-|*.:]{1,64}", re.ASCII)
_KINDS: dict[str, Literal["payment", "refund"]] = {"交易": "payment", "退款": "refund"}


_ZIP = b"PK\x03\x04"


class _Columns(NamedTuple):
    """Position of each column name, and the number of columns."""

    at: dict[str, int]
    width: int


def read_statement(statement: IO[bytes]) -> Iterator[StatementItem]:
    """Rows of the statement, one at a time, then the sums that it states.

    Raises:
        ChannelUnreadable: neither a zip with details nor the details, cut off, larger than any statement, or without
            the columns that are needed.
    """
    sums = _Sums()
    head = statement.read(len(_ZIP))
    statement.seek(-len(head), SEEK_CUR)
    if head == _ZIP:
        yield from _unpacked(statement, sums)
    else:
        yield from _rows(_lines(statement), sums)
        if not sums.is_ended:  # a zip shows by itself that it was cut off
            raise ChannelUnreadable("statement_without_end")
    yield from sums.totals()


def _unpacked(statement: IO[bytes], sums: _Sums) -> Iterator[StatementItem]:
    try:
        with ZipFile(statement, metadata_encoding="gbk") as archive:
            for entry in _detail_entries(archive):
                with archive.open(entry) as file:
                    yield from _rows(_lines(file), sums)
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
        raise ChannelUnreadable("statement_packing")  # other methods of zipfile allocate memory as the file declares
    return details


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    while line := file.readline(LINE_BYTES_MAX + 1):
        if len(line) > LINE_BYTES_MAX:
            raise ChannelUnreadable("statement_line_oversized")
        yield line


class _Sums:
    """Counts and sums that the files state in their last lines, and the same of the rows that were read."""

    def __init__(self) -> None:
        self.is_ended = False
        self._stated: Counter[str] = Counter()
        self._read: Counter[str] = Counter()
        self._last: dict[str, int] = {}

    def comment(self, text: str) -> None:
        """Read a comment line."""
        self.is_ended = self.is_ended or _END in text
        if match := _SUMS.match(text):
            kind, count, column, amount = match.groups()
            self._last[f"{kind}笔数"] = int(count)
            if column is not None:
                self._last[f"{kind}{_RECEIVED if column == _RECEIVED else _AMOUNT}"] = _fen(amount)

    def line(self) -> None:
        """Take note of a line that is no comment: what was taken for sums before it were none."""
        self.is_ended = False
        self._last.clear()

    def row(self, row: StatementRow, received: str | None) -> None:
        kind = "交易" if row.kind == "payment" else "退款"
        self._read[f"{kind}笔数"] += 1
        self._read[f"{kind}{_AMOUNT}"] += row.amount
        self._read[f"{kind}{_RECEIVED}"] += row.amount if received is None else _fen(received.removeprefix("-"))

    def end(self) -> None:
        """End a file: a statement in several files states the sums of each."""
        self._stated.update(self._last)
        self._last.clear()

    def totals(self) -> Iterator[StatedTotal]:
        for name, stated in self._stated.items():
            yield StatedTotal(name=name, stated=stated, read=self._read[name])


def _fen(text: str) -> int:
    try:
        return minor_units(text, CURRENCY)
    except InvalidRequest:
        return 0


def _rows(lines: Iterator[bytes], sums: _Sums) -> Iterator[StatementRow | MalformedRow]:
    columns, encoding = None, "gb18030"  # GBK and its later additions
    for number, raw in enumerate(lines, 1):
        line = raw.removeprefix(BOM_UTF8)
        if number == 1 and line != raw:
            encoding = "utf-8"
        if line.startswith(b"#") or not line.strip():
            sums.comment(line.decode(encoding, "replace"))
            continue
        cells = _cells(line, encoding)
        if columns is not None:
            yield _counted(number, cells, columns, sums)
        elif number > PREAMBLE_LINES_MAX or cells is None or (columns := _columns(cells)) is None:
            raise ChannelUnreadable("statement_header")
    if columns is None:
        raise ChannelUnreadable("statement_header")
    sums.end()


def _counted(number: int, cells: list[str] | None, columns: _Columns, sums: _Sums) -> StatementRow | MalformedRow:
    sums.line()
    row = MalformedRow(line=number, reason="encoding") if cells is None else _row(number, cells, columns)
    if isinstance(row, StatementRow) and cells is not None:
        sums.row(row, cells[columns.at[_RECEIVED]] if _RECEIVED in columns.at else None)
    return row


def _cells(line: bytes, encoding: str) -> list[str] | None:
    """Cells of a line without the tabs and spaces that make spreadsheets treat numbers as text."""
    try:
        text = line.decode(encoding)
        return [cell.strip() for cell in next(csv.reader([text.rstrip("\r\n")]))]
    except (UnicodeDecodeError, csv.Error):
        return None


def _columns(cells: list[str]) -> _Columns | None:
    positions = {_YUAN.sub("", cell): at for at, cell in enumerate(cells)}
    return _Columns(positions, len(cells)) if all(name in positions for name in _NAMES) else None


def _row(line: int, cells: list[str], columns: _Columns) -> StatementRow | MalformedRow:
    """Row of a line: first its ids, which are of any system's form, then the rest."""
    ids = _ids(cells, columns)
    if len(cells) != columns.width:
        return MalformedRow(line=line, reason="columns", ids=ids)
    values = {name: cells[columns.at[name]] for name in _NAMES}
    taken = read_fee(cells[columns.at[_FEE]], CURRENCY) if _FEE in columns.at else None
    kind = _KINDS.get(values[_KIND])
    if kind is None:
        return MalformedRow(line=line, reason="kind", ids=ids)
    if not _ID.fullmatch(values[_TRADE_NO]):
        return MalformedRow(line=line, reason="number", ids=ids)
    return _money_row(line, kind, values, ids, None if taken is None else -taken)


def _ids(cells: list[str], columns: _Columns) -> tuple[str, ...]:
    """The ids of the trade. They stand before the goods' name, whose commas may shift what follows."""
    places = [columns.at[name] for name in (_OUT_TRADE_NO, _TRADE_NO)]
    return clean_ids(*(cells[place] for place in places if place < len(cells)))


def _money_row(
    line: int, kind: Literal["payment", "refund"], values: dict[str, str], ids: tuple[str, ...], fee: int | None
) -> StatementRow | MalformedRow:
    # Refunds are written with a minus; a payment with a minus is malformed.
    text = values[_AMOUNT].removeprefix("-") if kind == "refund" else values[_AMOUNT]
    try:
        amount = minor_units(text, CURRENCY)
        at = read_time(values[_AT])
    except InvalidRequest:
        return MalformedRow(line=line, reason="amount", ids=ids)
    except ValueError:
        return MalformedRow(line=line, reason="time", ids=ids)
    if amount > AMOUNT_MAX:
        return MalformedRow(line=line, reason="amount", ids=ids)
    return StatementRow(
        line=line,
        kind=kind,
        out_trade_no=values[_OUT_TRADE_NO],
        channel_transaction_id=values[_TRADE_NO],
        refund_no=values[_REFUND_NO] if kind == "refund" else "",
        amount=amount,
        currency=CURRENCY,
        at=at,
        fee=fee,
    )

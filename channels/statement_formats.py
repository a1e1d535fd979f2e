"""Guess of what a refused statement file is, from its beginning, so that a person sees which file to take instead."""

from __future__ import annotations

import zlib
from typing import IO

HEAD_BYTES = 4096

# The first of these texts that a file contains names it.
_TEXTS = (
    ("<html", "a web page"),
    ("<!doctype", "a web page"),
    ("<!DOCTYPE", "a web page"),
    ("记账时间,微信支付业务单号", "WeChat Pay's fund flow bill (资金账单)"),
    ("微信支付账单明细", "WeChat Pay's bill of a personal account"),
    ("交易时间,公众账号ID", "WeChat Pay's trade bill (交易账单)"),
    ("总交易单数", "the sums of WeChat Pay's trade bill alone"),
    ("业务汇总", "Alipay's summary (业务汇总)"),
    ("账务明细", "Alipay's account log (账务明细)"),
    ("账务汇总", "Alipay's summary of the account log (账务汇总)"),
    ("业务明细", "Alipay's trade details (业务明细)"),
    ("支付宝交易记录", "Alipay's record of a personal account"),
    ("支付宝交易号,商户订单号", "Alipay's trade details (业务明细) without their first lines"),
    ('"balance_transaction"', "Stripe's balance transactions as JSON"),
    ("balance_transaction_id,", "Stripe's balance report as CSV"),
    ("id,Type,Source,", "Stripe's balance history as CSV"),
    ("id,Description,", "Stripe's export of payments as CSV"),
    ('"transaction_info"', "PayPal's transactions as JSON"),
    ('"Transaction ID"', "PayPal's activity report as CSV"),
    ("Section Header", "PayPal's settlement report as CSV"),
    ("type,out_trade_no,transaction_id", "the sandbox's statement"),
)
_MAGIC = (
    (b"PK\x03\x04", "a zip"),
    (b"PK\x05\x06", "an empty zip"),
    (b"\x1f\x8b", "gzip"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook (.xls)"),
    (b"%PDF", "a PDF"),
)
_WORKBOOK = b"[Content_Types].xml"

_EMPTY, _XLSX, _JSON, _CSV, _UNKNOWN = "an empty file", "an Excel workbook (.xlsx)", "JSON", "CSV", "an unknown form"

NAMES = tuple(dict.fromkeys((*(name for _, name in (*_TEXTS, *_MAGIC)), _EMPTY, _XLSX, _JSON, _CSV, _UNKNOWN)))
"""Everything that `likely_format` may say."""


def likely_format(statement: IO[bytes]) -> str:
    """The form of the file, in words; "an unknown form" if it looks like nothing known."""
    head = statement.read(HEAD_BYTES)
    if not head.strip():
        return _EMPTY
    if head.startswith(b"PK") and _WORKBOOK in head:
        return _XLSX
    text = _text(_unpacked(head))
    return next((name for part, name in _TEXTS if part in text), None) or _container(head) or _shape(text)


def _unpacked(head: bytes) -> bytes:
    """The beginning of what is packed with gzip; cut off as it is, it is unpacked as far as it goes."""
    if not head.startswith(b"\x1f\x8b"):
        return head
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, HEAD_BYTES)
    except zlib.error:
        return head


def _text(head: bytes) -> str:
    """Both encodings together: a part of the one is not found in the other by accident."""
    return head.decode("utf-8", "ignore") + head.decode("gb18030", "ignore")


def _container(head: bytes) -> str | None:
    return next((name for magic, name in _MAGIC if head.startswith(magic)), None)


def _shape(text: str) -> str:
    start = text.lstrip("\ufeff \t\r\n")[:1]
    if start in ("{", "["):
        return _JSON
    return _CSV if "," in text.partition("\n")[0] else _UNKNOWN

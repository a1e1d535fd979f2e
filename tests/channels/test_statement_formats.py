"""Guess of what a refused statement file is, by the beginning of the file."""

import gzip
from io import BytesIO
from zipfile import ZipFile

import pytest

from channels.statement_formats import likely_format


def zipped(name: str) -> bytes:
    into = BytesIO()
    with ZipFile(into, "w") as archive:
        archive.writestr(name, b"")
    return into.getvalue()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "an empty file"),
        (b"\xef\xbb\xbf" + "记账时间,微信支付业务单号,资金流水单号".encode(), "WeChat Pay's fund flow bill (资金账单)"),
        ("交易时间,公众账号ID,商户号".encode(), "WeChat Pay's trade bill (交易账单)"),
        (gzip.compress("交易时间,公众账号ID,商户号".encode(), mtime=0), "WeChat Pay's trade bill (交易账单)"),
        ("总交易单数,应结订单总金额".encode(), "the sums of WeChat Pay's trade bill alone"),
        ("#支付宝业务汇总查询\r\n".encode("gbk"), "Alipay's summary (业务汇总)"),
        ("#支付宝账务明细查询\r\n".encode("gbk"), "Alipay's account log (账务明细)"),
        ("#支付宝业务明细查询\r\n".encode("gbk"), "Alipay's trade details (业务明细)"),
        (b'{"object":"balance_transaction"}', "Stripe's balance transactions as JSON"),
        (b"balance_transaction_id,created_utc", "Stripe's balance report as CSV"),
        (b'{"transaction_info":{}}', "PayPal's transactions as JSON"),
        (b'"Date","Time","Transaction ID"', "PayPal's activity report as CSV"),
        (zipped("[Content_Types].xml"), "an Excel workbook (.xlsx)"),
        (zipped("details.csv"), "a zip"),
        (b"\x1f\x8bno gzip", "gzip"),
        (b"<!DOCTYPE html>", "a web page"),
        (b'  {"error": 1}', "JSON"),
        (b"a,b\r\n1,2\r\n", "CSV"),
        (b"hello", "an unknown form"),
    ],
)
def test_a_file_is_recognised_by_its_beginning(content: bytes, found: str) -> None:
    assert likely_format(BytesIO(content)) == found

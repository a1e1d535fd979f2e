"""The library wechatpayv3."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from wechatpayv3 import WeChatPay, WeChatPayType

from tests.oracles.library_server import serve

its: dict[str, WeChatPay] = {}


def begin(base_url: str, certificates: list[str], **account: Any) -> None:
    """Its first certificates come from files: the address to fetch them from can be set only later."""
    with TemporaryDirectory() as directory:
        for number, pem in enumerate(certificates):
            Path(directory, f"{number}.pem").write_text(pem)
        own = WeChatPay(wechatpay_type=WeChatPayType.NATIVE, cert_dir=directory, **account)
    its["own"] = own
    its["own"]._core._gate_way = base_url


def pay(**terms: Any) -> list[Any]:
    return _read(its["own"].pay(**terms))


def query(**which: Any) -> list[Any]:
    return _read(its["own"].query(**which))


def close(out_trade_no: str) -> list[Any]:
    return _read(its["own"].close(out_trade_no=out_trade_no))


def refund(**terms: Any) -> list[Any]:
    return _read(its["own"].refund(**terms))


def query_refund(out_refund_no: str) -> list[Any]:
    return _read(its["own"].query_refund(out_refund_no=out_refund_no))


def trade_bill(bill_date: str, tar_type: str) -> list[Any]:
    return _read(its["own"].trade_bill(bill_date=bill_date, tar_type=tar_type))


def callback(headers: dict[str, str], body: str) -> Any:
    return its["own"].callback(headers=headers, body=body)


def _read(answer: tuple[int, Any]) -> list[Any]:
    status, body = answer
    if isinstance(body, bytes):
        body = body.decode("utf-8", "replace")
    try:
        return [status, json.loads(body)]
    except ValueError:
        return [status, body]


serve({act.__name__: act for act in (begin, pay, query, close, refund, query_refund, trade_bill, callback)})

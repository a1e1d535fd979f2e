"""Operations of Alipay's gateway: one address, with the method among the parameters.

For queries and closes a payment exists from the buyer's first look at it (扫码, or the page's login). Before that the
gateway returns TRADE_NOT_EXIST, although the code can still be scanned and paid.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from datetime import date, datetime, timedelta
from functools import partial
from hashlib import sha256
from html import escape
from http import HTTPStatus
from urllib.parse import urlencode, urlsplit

from simulator.alipay.keys import wire_of
from simulator.alipay.messages import query_complaint
from simulator.alipay.wire import (
    CHINA,
    HTML,
    fen,
    parameters,
    query_fields,
    read_time,
    refusal,
    statement_zip,
    success,
    text_in,
    yuan,
)
from simulator.kernel.base import Account
from simulator.kernel.dispatch import Call, Operation
from simulator.kernel.faults import CallKind
from simulator.kernel.ledger import Key, Payment, PaymentStatus, Refund, RefundStatus, Refusal, Terms
from simulator.kernel.simulation import Simulation
from simulator.kit.asgi import Request, Response

GATEWAY = "/gateway.do"
FILE = "/downloadBillFile.resource"

CODE_LIVES = timedelta(hours=2)
TRADE_LIVES = timedelta(days=15)
SUBJECT_CHARACTERS_MAX = 256
NUMBER_CHARACTERS_MAX = 64

_NO_TRADE = "ACQ.TRADE_NOT_EXIST"


def _create(simulation: Simulation, call: Call, *, is_code: bool) -> Payment | str:
    """Return the payment, or the `sub_code` of the error. A repeat with equal terms returns the known payment."""
    terms = _terms(simulation, call, is_code=is_code)
    if terms is None:
        return "ACQ.INVALID_PARAMETER"
    payment = simulation.create(call.account, terms, call.now)
    if payment is Refusal.NUMBER_REUSED:
        return "ACQ.CONTEXT_INCONSISTENT"
    if isinstance(payment, Refusal):
        return "aop.ACQ.SYSTEM_ERROR"
    if payment.status.was_paid:
        return "ACQ.TRADE_HAS_SUCCESS"
    return "ACQ.TRADE_HAS_CLOSE" if payment.status is PaymentStatus.CLOSED else payment


def _terms(simulation: Simulation, call: Call, *, is_code: bool) -> Terms | None:
    """Return the terms, or None for invalid parameters."""
    given, request = parameters(call.request), call.request
    number, amount, subject = text_in(request, "out_trade_no"), fen(text_in(request, "total_amount")), _subject(request)
    callback_url = given.get("notify_url") or call.account.callback_url
    if not 1 <= len(number) <= NUMBER_CHARACTERS_MAX or amount is None or not subject:
        return None
    expires_at = _expires_at(
        simulation, call, Key(call.account.merchant_id, number), CODE_LIVES if is_code else TRADE_LIVES
    )
    if expires_at is None or (callback_url and not simulation.may_call(callback_url)):
        return None
    return Terms(
        out_trade_no=number,
        amount=amount,
        currency="CNY",
        subject=subject,
        expires_at=expires_at,
        callback_url=callback_url,
        return_url=None if is_code else _web_address(given.get("return_url", "")),
        wire={"link_holds_once_opened": is_code},
    )


def _subject(request: Request) -> str:
    subject = text_in(request, "subject")
    return subject if len(subject) <= SUBJECT_CHARACTERS_MAX and subject.isprintable() else ""


def _expires_at(simulation: Simulation, call: Call, key: Key, lives: timedelta) -> datetime | None:
    """Return `time_expire`; without it the known payment's, or the product's limit. None if it is in the past."""
    known, text = simulation.ledger.find(key, call.now), text_in(call.request, "time_expire")
    if not text:
        return call.now + lives if known is None else known.terms.expires_at
    requested = read_time(text)
    return None if requested is None or (known is None and requested <= call.now) else requested


def _web_address(text: str) -> str | None:
    try:
        parts = urlsplit(text)
    except ValueError:
        return None
    return text if parts.scheme in ("http", "https") and parts.hostname and text.isprintable() else None


def _precreate(simulation: Simulation, call: Call) -> Response:
    """Create a code payment. The code is the URL of the pay page, so that a shopper can open it."""
    payment = _create(simulation, call, is_code=True)
    if isinstance(payment, str):
        return refusal(call, payment, code="20000" if payment.endswith("SYSTEM_ERROR") else "40004")
    if payment.opened_at is None:
        payment = simulation.hand_out_link(payment, CODE_LIVES, call.now)
    return success(call, out_trade_no=payment.terms.out_trade_no, qr_code=simulation.pay_url(payment))


def _open_page(simulation: Simulation, call: Call) -> Response:
    """Handle a browser with the merchant's signed URL; errors are HTML pages."""
    payment = _create(simulation, call, is_code=False)
    if isinstance(payment, str):
        there = simulation.ledger.find(Key(call.account.merchant_id, text_in(call.request, "out_trade_no")), call.now)
        if there is None or "HAS" not in payment:
            return Response(body=f"<!doctype html><h1>{escape(payment)}</h1>".encode(), content_type=f"{HTML}utf-8")
        payment = there
    return Response(status=HTTPStatus.FOUND, headers=(("location", simulation.pay_url(payment)),))


def _query(simulation: Simulation, call: Call) -> Response:
    """Query by either number; with both, Alipay's own one counts."""
    trade_no, number = text_in(call.request, "trade_no"), text_in(call.request, "out_trade_no")
    if trade_no:
        number = _number_of(simulation, call, trade_no)
    payment = simulation.query_payment(call.account, number, call.nth, call.now)
    if isinstance(payment, Refusal) or not _is_trade(payment):
        return refusal(call, _NO_TRADE, out_trade_no=number, buyer_pay_amount="0.00", receipt_amount="0.00")
    return success(call, **query_fields(payment))


def _number_of(simulation: Simulation, call: Call, trade_no: str) -> str:
    """Return the number of a trade that is paid; an empty one, which no trade has. Slow: there is no index."""
    mine = (one for one in simulation.ledger.payments(call.now) if one.merchant_id == call.account.merchant_id)
    return next((one.terms.out_trade_no for one in mine if one.transaction_id == trade_no), "")


def _is_trade(payment: Payment) -> bool:
    """Return whether there is a trade, and not only a code before its first scan."""
    return payment.opened_at is not None or payment.agreed_at is not None or payment.paid_at is not None


def _close(simulation: Simulation, call: Call) -> Response:
    number = text_in(call.request, "out_trade_no")
    before = simulation.ledger.find(Key(call.account.merchant_id, number), call.now)
    if before is None or not _is_trade(before):
        return refusal(call, _NO_TRADE, out_trade_no=number)
    closed = simulation.close(call.account, number, call.now)
    if closed is Refusal.PAYMENT_NOT_EXIST:
        return refusal(call, _NO_TRADE, out_trade_no=number)
    if isinstance(closed, Refusal) or before.status is not PaymentStatus.UNPAID:
        return refusal(call, "ACQ.TRADE_STATUS_ERROR", out_trade_no=number)
    return success(call, out_trade_no=number, trade_no=closed.transaction_id or "")


def _refund(simulation: Simulation, call: Call) -> Response:
    """Refund a payment. `fund_change` is Y only for the call that moved the money, and N for a repeat."""
    number, refund_no = text_in(call.request, "out_trade_no"), _refund_no(call.request)
    amount = fen(text_in(call.request, "refund_amount"))
    if amount is None or not refund_no:
        return refusal(call, "ACQ.INVALID_PARAMETER")
    known = simulation.ledger.find_refund(Key(call.account.merchant_id, refund_no))
    refund = simulation.refund(call.account, number, refund_no, amount, call.now)
    if isinstance(refund, Refusal):
        return refusal(call, _REFUND_REFUSALS.get(refund, "ACQ.TRADE_STATUS_ERROR"))
    if refund.status is RefundStatus.FAILED:
        return refusal(call, "ACQ.SELLER_BALANCE_NOT_ENOUGH")
    moved = known is None and refund.status is RefundStatus.SUCCEEDED
    payment = simulation.ledger.find(Key(call.account.merchant_id, number), call.now)
    assert payment is not None, "a refund has a payment"
    return success(
        call,
        out_trade_no=number,
        trade_no=payment.transaction_id,
        fund_change="Y" if moved else "N",
        refund_fee=yuan(payment.refunded_amount),
    )


_REFUND_REFUSALS = {
    Refusal.PAYMENT_NOT_EXIST: _NO_TRADE,
    Refusal.AMOUNT_EXCEEDED: "ACQ.REFUND_AMT_NOT_EQUAL_TOTAL",
    Refusal.NUMBER_REUSED: "ACQ.DISCORDANT_REPEAT_REQUEST",
}


def _refund_no(request: Request) -> str:
    """Return the number of the refund; without one it is the payment's."""
    return text_in(request, "out_request_no") or text_in(request, "out_trade_no")


def _query_refund(simulation: Simulation, call: Call) -> Response:
    """Query a refund. Only a succeeded one has `refund_status`; without it, it is unknown, failed or not finished."""
    number, refund_no = text_in(call.request, "out_trade_no"), _refund_no(call.request)
    payment = simulation.ledger.find(Key(call.account.merchant_id, number), call.now)
    if payment is None or not _is_trade(payment):
        return refusal(call, _NO_TRADE)
    refund = simulation.ledger.find_refund(Key(call.account.merchant_id, refund_no))
    if refund is None or not _is_done(refund, number):
        return success(call)
    return success(
        call,
        trade_no=payment.transaction_id,
        out_trade_no=number,
        out_request_no=refund_no,
        total_amount=yuan(payment.terms.amount),
        refund_amount=yuan(refund.amount),
        refund_status="REFUND_SUCCESS",
    )


def _is_done(refund: Refund, number: str) -> bool:
    return refund.out_trade_no == number and refund.status is RefundStatus.SUCCEEDED


def _find_statement(simulation: Simulation, call: Call) -> Response:
    """Return the URL of the file; an error for a day without trades."""
    day = _day(text_in(call.request, "bill_date"))
    if day is None or text_in(call.request, "bill_type") != "trade":
        return refusal(call, "isv.invalid_arguments", code="40002")
    if not simulation.counted_rows(call.account, day, CHINA):
        return refusal(call, "isp.bill_not_exist")
    token = token_of(call.account, day.isoformat())
    query = urlencode({"bizType": "trade", "userId": call.account.merchant_id, "bizDates": day, "token": token})
    return success(call, bill_download_url=f"{simulation.urls['alipay']}{FILE}?{query}")


def _statement(simulation: Simulation, call: Call) -> Response:
    day = _day(parameters(call.request).get("bizDates", ""))
    assert day is not None, "the token is for a day"
    rows, counted = (read(call.account, day, CHINA) for read in (simulation.statement, simulation.counted_rows))
    packed = statement_zip(rows, counted, call.account, day)
    return Response(body=packed, content_type="application/zip")


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if len(text) == len("2026-11-23") else None
    except ValueError:
        return None


def token_of(account: Account, day: str) -> str:
    """Return the token in the URL of the file, which needs no other authentication."""
    key = wire_of(account).alipay_private_keys[-1].encode()
    return hmac.new(key, f"{account.merchant_id} {day}".encode(), sha256).hexdigest()


def _unknown(simulation: Simulation, call: Call) -> Response:
    del simulation
    return refusal(call, "isv.invalid-method", code="40002")


_Handler = Callable[[Simulation, Call], Response]
_OPERATIONS: tuple[tuple[str, CallKind, str, _Handler], ...] = (
    ("alipay.trade.precreate", CallKind.CREATE, "out_trade_no", _precreate),
    ("alipay.trade.page.pay", CallKind.CREATE, "out_trade_no", _open_page),
    ("alipay.trade.wap.pay", CallKind.CREATE, "out_trade_no", _open_page),
    ("alipay.trade.query", CallKind.QUERY, "out_trade_no", _query),
    ("alipay.trade.close", CallKind.CLOSE, "out_trade_no", _close),
    ("alipay.trade.refund", CallKind.REFUND, "out_trade_no", _refund),
    ("alipay.trade.fastpay.refund.query", CallKind.QUERY_REFUND, "out_request_no", _query_refund),
    ("alipay.merchant.tradecomplain.query", CallKind.DISPUTE, "complain_event_id", query_complaint),
    ("alipay.data.dataservice.bill.downloadurl.query", CallKind.STATEMENT, "bill_date", _find_statement),
)


def _asks_for(method: str, request: Request) -> bool:
    return parameters(request).get("method") == method


def _number(name: str, request: Request) -> str:
    return text_in(request, name)


def _operations() -> tuple[Operation, ...]:
    """Return all operations for POST and for GET: SDKs use both, browsers use GET."""
    operations = [
        Operation(
            kind=kind,
            method=verb,
            pattern=GATEWAY,
            number=partial(_number, name),
            handle=handle,
            when=partial(_asks_for, method),
        )
        for verb in ("POST", "GET")
        for method, kind, name, handle in _OPERATIONS
    ]
    operations += [
        Operation(kind=CallKind.QUERY, method=verb, pattern=GATEWAY, number=lambda _: "", handle=_unknown)
        for verb in ("POST", "GET")
    ]
    file = Operation(
        kind=CallKind.STATEMENT,
        method="GET",
        pattern=FILE,
        number=lambda request: parameters(request).get("bizDates", ""),
        handle=_statement,
    )
    return (*operations, file)


OPERATIONS = _operations()

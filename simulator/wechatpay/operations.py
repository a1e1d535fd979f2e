"""Operations of WeChat Pay. Payments change in `simulation`; only 200 and 204 are signed."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs

import msgspec

from simulator.kernel.dispatch import Call
from simulator.kernel.ledger import Key, Payment, PaymentStatus, Refusal, Terms
from simulator.kernel.simulation import Simulation
from simulator.kit.asgi import BadBody, Request, Response, decode, json_response, problem
from simulator.wechatpay.bodies import CloseBody, Order, RefundOrder, certificates, refund_object, transaction
from simulator.wechatpay.wire import keys_of, signed

METHODS = ("native", "h5", "jsapi")
LINK_LIVES = {"native": timedelta(hours=2), "h5": timedelta(minutes=5), "jsapi": timedelta(hours=2)}
"""A code, a link and a prepay id: https://pay.weixin.qq.com/doc/v3/merchant/4012791877 and its related pages."""

_NUMBER = re.compile(r"[0-9A-Za-z_\-|*]{6,32}", re.ASCII)
_REFUND_NUMBER = re.compile(r"[0-9A-Za-z_\-|*@]{1,64}", re.ASCII)
_WEEK = timedelta(days=7)

_REFUSED = {
    Refusal.NUMBER_REUSED: (400, "INVALID_REQUEST", "201 商户订单号重复"),
    Refusal.PAYMENT_NOT_EXIST: (404, "ORDER_NOT_EXIST", "订单不存在"),
    Refusal.REFUND_NOT_EXIST: (404, "RESOURCE_NOT_EXISTS", "退款单不存在"),
    Refusal.ALREADY_PAID: (400, "ORDERPAID", "该订单已支付"),
    Refusal.NOT_PAID: (400, "INVALID_REQUEST", "订单未支付"),
    Refusal.AMOUNT_EXCEEDED: (400, "INVALID_REQUEST", "申请退款金额大于订单剩余可退金额"),
    Refusal.FULL: (500, "SYSTEM_ERROR", "系统繁忙，请稍后重试"),
}


def _refused(refusal: Refusal) -> Response:
    return problem(*_REFUSED.get(refusal, (400, "INVALID_REQUEST", refusal)))


def wrong_parameter(message: str, code: str = "PARAM_ERROR") -> Response:
    return problem(400, code, message)


# -- payments ----------------------------------------------------------------------------------------------------------


def create(method: str, simulation: Simulation, call: Call) -> Response:
    try:
        body = decode(call.request.body, Order)
    except BadBody as error:
        return wrong_parameter(str(error))
    key = Key(call.account.merchant_id, body.out_trade_no)
    known = simulation.ledger.find(key, call.now)
    wrong = _wrong_with(method, body, call, simulation, is_new=known is None)
    if wrong is not None:
        return wrong
    terms = Terms(
        out_trade_no=body.out_trade_no,
        amount=body.amount.total,
        currency=body.amount.currency,
        subject=body.description,
        expires_at=body.time_expire or (known.terms.expires_at if known else call.now + _WEEK),
        callback_url=body.notify_url,
        wire=_method_terms(method, body),
    )
    created = simulation.create(call.account, terms, call.now)
    if isinstance(created, Refusal):
        return _refused(created)
    if created.status is PaymentStatus.CLOSED:
        return wrong_parameter("订单已关闭", "ORDER_CLOSED")
    if created.status.was_paid:
        return _refused(Refusal.ALREADY_PAID)
    linked = simulation.hand_out_link(created, LINK_LIVES[method], call.now)
    return signed(call, json_response(_checkout(method, linked, simulation.pay_url(linked))))


def _method_terms(method: str, body: Order) -> dict[str, Any]:
    """Return the terms besides amount, subject, end and address that a repeated creation must have too.

    A link of h5 refuses a browser that does not say where it comes from:
    https://pay.weixin.qq.com/doc/v3/merchant/4012791832
    """
    openid = body.payer.openid if body.payer is not None else ""
    client_ip = body.scene_info.payer_client_ip if body.scene_info is not None else ""
    return {"method": method, "openid": openid, "client_ip": client_ip, "needs_referer": method == "h5"}


def _wrong_with(method: str, body: Order, call: Call, simulation: Simulation, *, is_new: bool) -> Response | None:
    """Return the first error that the types of the parameters do not show."""
    if body.mchid != call.account.merchant_id:
        return wrong_parameter("商户号与签名的商户号不一致", "INVALID_REQUEST")
    if body.appid != keys_of(call.account).appid:
        return wrong_parameter("appid和mchid不匹配", "APPID_MCHID_NOT_MATCH")
    has_h5_info = body.scene_info is not None and body.scene_info.h5_info is not None
    is_callable = not {"?", "#"} & set(body.notify_url) and simulation.may_call(body.notify_url)
    is_over = is_new and body.time_expire is not None and body.time_expire <= call.now
    found = {
        "scene_info: payer_client_ip and h5_info": method == "h5" and not has_h5_info,
        "payer: of jsapi, and of no other": (method == "jsapi") != (body.payer is not None),
        "out_trade_no: 6-32 of 0-9 A-Z a-z _ - | *": _NUMBER.fullmatch(body.out_trade_no) is None,
        "amount.currency: CNY": body.amount.currency != "CNY",
        "notify_url: an address that this process may call, without a query string": not is_callable,
        "time_expire: later than now": is_over,
    }
    message = next((message for message, is_so in found.items() if is_so), None)
    return None if message is None else wrong_parameter(message)


def _checkout(method: str, payment: Payment, pay_url: str) -> dict[str, str]:
    """Return the checkout. The code is the URL of the pay page, so that a shopper can open it."""
    prepay_id = f"wx{payment.token}"
    match method:
        case "native":
            return {"code_url": pay_url}
        case "h5":
            return {"h5_url": f"{pay_url}?prepay_id={prepay_id}&package=1"}
    return {"prepay_id": prepay_id}


def query(simulation: Simulation, call: Call) -> Response:
    return _query_number(simulation, call, call.request.params["number"])


def query_by_id(simulation: Simulation, call: Call) -> Response:
    """Query by transaction id, for payments created elsewhere. Slow: there is no index."""
    paid = _with_transaction(simulation, call, call.request.params["number"])
    return (
        _refused(Refusal.PAYMENT_NOT_EXIST)
        if paid is None
        else _query_number(simulation, call, paid.terms.out_trade_no)
    )


def _with_transaction(simulation: Simulation, call: Call, transaction_id: str) -> Payment | None:
    mine = (one for one in simulation.ledger.payments(call.now) if one.merchant_id == call.account.merchant_id)
    return next((one for one in mine if one.transaction_id == transaction_id), None)


def _query_number(simulation: Simulation, call: Call, number: str) -> Response:
    if query_value(call.request, "mchid") != call.account.merchant_id:
        return wrong_parameter("mchid: the merchant's own")
    found = simulation.query_payment(call.account, number, call.nth, call.now)
    if isinstance(found, Refusal):
        return _refused(found)
    return signed(call, json_response(transaction(found, call.account)))


def close(simulation: Simulation, call: Call) -> Response:
    try:
        mchid = decode(call.request.body, CloseBody).mchid
    except BadBody as error:
        return wrong_parameter(str(error))
    if mchid != call.account.merchant_id:
        return wrong_parameter("mchid: the merchant's own")
    closed = simulation.close(call.account, call.request.params["number"], call.now)
    return _refused(closed) if isinstance(closed, Refusal) else signed(call, Response(status=204))


# -- refunds -----------------------------------------------------------------------------------------------------------


def refund(simulation: Simulation, call: Call) -> Response:
    try:
        body = decode(call.request.body, RefundOrder)
    except BadBody as error:
        return wrong_parameter(str(error))
    if _REFUND_NUMBER.fullmatch(body.out_refund_no) is None:
        return wrong_parameter("out_refund_no: 1-64 of 0-9 A-Z a-z _ - | * @")
    if body.out_trade_no is None and body.transaction_id is not None:
        payment = _with_transaction(simulation, call, body.transaction_id)
    else:
        payment = simulation.ledger.find(Key(call.account.merchant_id, body.out_trade_no or ""), call.now)
    if payment is None:
        return problem(404, "RESOURCE_NOT_EXISTS", "订单不存在")
    if (body.amount.total, body.amount.currency) != (payment.terms.amount, payment.terms.currency):
        return wrong_parameter("订单金额与原订单不一致", "INVALID_REQUEST")
    number = payment.terms.out_trade_no
    made = simulation.refund(call.account, number, body.out_refund_no, body.amount.refund, call.now)
    if made is Refusal.NUMBER_REUSED:
        return wrong_parameter("商户退款单号重复，且参数与首次请求不一致", "INVALID_REQUEST")
    return _refused(made) if isinstance(made, Refusal) else signed(call, json_response(refund_object(made, payment)))


def query_refund(simulation: Simulation, call: Call) -> Response:
    merchant_id = call.account.merchant_id
    refund = simulation.ledger.find_refund(Key(merchant_id, call.request.params["number"]))
    payment = None if refund is None else simulation.ledger.find(Key(merchant_id, refund.out_trade_no), call.now)
    if refund is None or payment is None:
        return _refused(Refusal.REFUND_NOT_EXIST)
    return signed(call, json_response(refund_object(refund, payment)))


# -- what requests are about -------------------------------------------------------------------------------------------


def number_in_body(name: str) -> Callable[[Request], str]:
    def number(request: Request) -> str:
        try:
            value = msgspec.json.decode(request.body).get(name, "")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, AttributeError):
            return ""
        return value if isinstance(value, str) else ""

    return number


def number_in_path(request: Request) -> str:
    return request.params["number"]


def no_number(_: Request) -> str:
    return ""


def query_value(request: Request, name: str) -> str:
    return ",".join(parse_qs(request.query).get(name, []))


def list_certificates(simulation: Simulation, call: Call) -> Response:
    del simulation
    return signed(call, json_response(certificates(call.account)))

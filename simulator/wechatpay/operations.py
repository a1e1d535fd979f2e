"""What each call of WeChat Pay does: the books are moved in `far_side`, and 200 and 204 are signed, nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import msgspec

from simulator.kernel.base import Asked
from simulator.kernel.ledger import Key, Payment, PaymentStatus, Refusal, Terms
from simulator.kit.asgi import BadBody, Request, Response, decode, json_response, problem
from simulator.wechatpay.bodies import CloseBody, Order, RefundOrder, certificates, refund_object, transaction
from simulator.wechatpay.wire import keys_of, signed

if TYPE_CHECKING:
    from simulator.kernel.simulation import FarSide

METHODS = ("native", "h5", "jsapi")
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


def create(method: str, far_side: FarSide, asked: Asked) -> Response:
    try:
        body = decode(asked.request.body, Order)
    except BadBody as error:
        return wrong_parameter(str(error))
    key = Key(asked.account.merchant_id, body.out_trade_no)
    known = far_side.ledger.find(key, asked.now)
    wrong = _wrong_with(method, body, asked, far_side, is_new=known is None)
    if wrong is not None:
        return wrong
    terms = Terms(
        out_trade_no=body.out_trade_no,
        amount=body.amount.total,
        currency=body.amount.currency,
        subject=body.description,
        expires_at=body.time_expire or (known.terms.expires_at if known else asked.now + _WEEK),
        callback_url=body.notify_url,
    )
    created = far_side.create(asked.account, terms, asked.now)
    if isinstance(created, Refusal):
        return _refused(created)
    if created.status is PaymentStatus.CLOSED:
        return wrong_parameter("订单已关闭", "ORDER_CLOSED")
    if created.status.was_paid:
        return _refused(Refusal.ALREADY_PAID)
    return signed(asked, json_response(_to_pay_with(method, created, far_side.pay_url(created))))


def _wrong_with(method: str, body: Order, asked: Asked, far_side: FarSide, *, is_new: bool) -> Response | None:
    """What a parameter's type does not say."""
    if body.mchid != asked.account.merchant_id:
        return wrong_parameter("商户号与签名的商户号不一致", "INVALID_REQUEST")
    if body.appid != keys_of(asked.account).appid:
        return wrong_parameter("appid和mchid不匹配", "APPID_MCHID_NOT_MATCH")
    has_h5_info = body.scene_info is not None and body.scene_info.h5_info is not None
    is_callable = not {"?", "#"} & set(body.notify_url) and far_side.may_call(body.notify_url)
    is_over = is_new and body.time_expire is not None and body.time_expire <= asked.now
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


def _to_pay_with(method: str, payment: Payment, pay_url: str) -> dict[str, str]:
    """The pay page is the code itself, so that a person, or a shopper, can open it without WeChat."""
    prepay_id = f"wx{payment.token}"
    match method:
        case "native":
            return {"code_url": pay_url}
        case "h5":
            return {"h5_url": f"{pay_url}?prepay_id={prepay_id}&package=1"}
    return {"prepay_id": prepay_id}


def query(far_side: FarSide, asked: Asked) -> Response:
    return _tell(far_side, asked, asked.request.params["number"])


def query_by_id(far_side: FarSide, asked: Asked) -> Response:
    """Slow, as nobody keeps payments by this number here: it is for payments that were created elsewhere."""
    paid = _with_transaction(far_side, asked, asked.request.params["number"])
    return _refused(Refusal.PAYMENT_NOT_EXIST) if paid is None else _tell(far_side, asked, paid.terms.out_trade_no)


def _with_transaction(far_side: FarSide, asked: Asked, transaction_id: str) -> Payment | None:
    mine = (one for one in far_side.ledger.payments(asked.now) if one.merchant_id == asked.account.merchant_id)
    return next((one for one in mine if one.transaction_id == transaction_id), None)


def _tell(far_side: FarSide, asked: Asked, number: str) -> Response:
    if query_value(asked.request, "mchid") != asked.account.merchant_id:
        return wrong_parameter("mchid: the merchant's own")
    found = far_side.seen_by_query(asked.account, number, asked.nth, asked.now)
    if isinstance(found, Refusal):
        return _refused(found)
    return signed(asked, json_response(transaction(found, asked.account)))


def close(far_side: FarSide, asked: Asked) -> Response:
    try:
        mchid = decode(asked.request.body, CloseBody).mchid
    except BadBody as error:
        return wrong_parameter(str(error))
    if mchid != asked.account.merchant_id:
        return wrong_parameter("mchid: the merchant's own")
    closed = far_side.close(asked.account, asked.request.params["number"], asked.now)
    return _refused(closed) if isinstance(closed, Refusal) else signed(asked, Response(status=204))


# -- refunds -----------------------------------------------------------------------------------------------------------


def refund(far_side: FarSide, asked: Asked) -> Response:
    try:
        body = decode(asked.request.body, RefundOrder)
    except BadBody as error:
        return wrong_parameter(str(error))
    if _REFUND_NUMBER.fullmatch(body.out_refund_no) is None:
        return wrong_parameter("out_refund_no: 1-64 of 0-9 A-Z a-z _ - | * @")
    if body.out_trade_no is None and body.transaction_id is not None:
        payment = _with_transaction(far_side, asked, body.transaction_id)
    else:
        payment = far_side.ledger.find(Key(asked.account.merchant_id, body.out_trade_no or ""), asked.now)
    if payment is None:
        return problem(404, "RESOURCE_NOT_EXISTS", "订单不存在")
    if (body.amount.total, body.amount.currency) != (payment.terms.amount, payment.terms.currency):
        return wrong_parameter("订单金额与原订单不一致", "INVALID_REQUEST")
    number = payment.terms.out_trade_no
    made = far_side.refund(asked.account, number, body.out_refund_no, body.amount.refund, asked.now)
    if made is Refusal.NUMBER_REUSED:
        return wrong_parameter("商户退款单号重复，且参数与首次请求不一致", "INVALID_REQUEST")
    return _refused(made) if isinstance(made, Refusal) else signed(asked, json_response(refund_object(made, payment)))


def query_refund(far_side: FarSide, asked: Asked) -> Response:
    merchant_id = asked.account.merchant_id
    refund = far_side.ledger.find_refund(Key(merchant_id, asked.request.params["number"]))
    payment = None if refund is None else far_side.ledger.find(Key(merchant_id, refund.out_trade_no), asked.now)
    if refund is None or payment is None:
        return _refused(Refusal.REFUND_NOT_EXIST)
    return signed(asked, json_response(refund_object(refund, payment)))


# -- what requests are about -------------------------------------------------------------------------------------------


def number_in_body(name: str) -> Callable[[Request], str]:
    def number(request: Request) -> str:
        try:
            told = msgspec.json.decode(request.body).get(name, "")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, AttributeError):
            return ""
        return told if isinstance(told, str) else ""

    return number


def number_in_path(request: Request) -> str:
    return request.params["number"]


def no_number(_: Request) -> str:
    return ""


def query_value(request: Request, name: str) -> str:
    return ",".join(parse_qs(request.query).get(name, []))


def list_certificates(far_side: FarSide, asked: Asked) -> Response:
    del far_side
    return signed(asked, json_response(certificates(asked.account)))

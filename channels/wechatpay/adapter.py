"""WeChat Pay, API v3, for one merchant number: native (二维码), h5 and jsapi. Set-up: docs/channels/wechatpay.md.

Both sides sign with RSA. Responses with 200 and 204 are signed, errors are not: an error is at most a refusal or a
*missing*, never money and never the end of a payment.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, timedelta, tzinfo
from http import HTTPStatus
from secrets import token_hex
from typing import IO, Any
from urllib.parse import quote, urlsplit

from msgspec.structs import replace

from channels.base import Acknowledgement, Callback, ChannelRefund, Create, Created, StatementItem
from channels.kit.checkout_end import checkout_end
from channels.kit.signed_message import read_json
from channels.kit.unreadable import unreadable_callback
from channels.kit.web_address import web_address
from channels.transport import Response, Transport
from channels.wechatpay import bill as wechatpay_bill
from channels.wechatpay.bodies import (
    CURRENCY,
    NO_REFUND,
    NO_STATEMENT,
    NOT_EXIST,
    BillBody,
    H5Body,
    JsapiBody,
    NativeBody,
    RefundBody,
    Transaction,
    error_code,
    evidence_of,
    query_error,
    refusal,
    status_of,
)
from channels.wechatpay.certificates import Renewal, read_certificates
from channels.wechatpay.complaints import (
    COMPLAINT_EVENTS,
    REFUND_FAILURES,
    Complaint,
    ComplaintNotice,
    RefundFailure,
    complaint_evidence,
    refund_failure_evidence,
    unread_complaint,
)
from channels.wechatpay.keys import SIGNATURE_HEADERS, unseal
from channels.wechatpay.notice import Content, Envelope, SealedEnvelope, read_content
from channels.wechatpay.wire import NO_CONTENT, OK, TOLERANCE_S, Wire
from core.account import AccountConfig
from core.checkout import CheckoutRules
from core.errors import (
    CallbackForged,
    CallbackStale,
    ChannelRefused,
    ChannelUnavailable,
    ChannelUnreadable,
    InvalidRequest,
)
from core.evidence import COMBINED, Disputed, Evidence, Missing
from core.order import Checkout, Origin, Payment

DESCRIPTION_CHARACTERS_MAX = 127

CHECKOUT_LIVES = {"native": timedelta(hours=2), "h5": timedelta(minutes=5), "jsapi": timedelta(hours=2)}
"""Validity of a code (https://pay.weixin.qq.com/doc/v3/merchant/4012791877), of a link and of a prepay id."""

ORDER_LIVES_MAX = timedelta(days=7)
"""WeChat Pay closes an unpaid order by itself after seven days: https://pay.weixin.qq.com/doc/v3/merchant/4012791877"""

_TRANSACTIONS = "/v3/pay/transactions"
_REFUNDS = "/v3/refund/domestic/refunds"

_TRANSACTION_ID = re.compile(r"[0-9A-Za-z_\-]{1,32}", re.ASCII)
_REFUND_NO = re.compile(r"[0-9A-Za-z_\-|*@]{1,64}", re.ASCII)
_NOTHING_TO_CLOSE = frozenset({"ORDERPAID", "ORDER_PAID", "ORDER_CLOSED", NOT_EXIST})


class WechatPay:
    """One merchant number at WeChat Pay; implements `channels.base.Channel`."""

    methods: tuple[str, ...] = ("native", "h5", "jsapi")
    callback_headers: tuple[str, ...] = SIGNATURE_HEADERS
    queries_by_reference = False
    watched_number = re.compile(r"[0-9A-Za-z_\-|*]{6,32}", re.ASCII)
    longest_window: timedelta | None = ORDER_LIVES_MAX
    statement_zone: tzinfo = wechatpay_bill.ZONE
    statement_format = "the trade bill (交易账单) of bill_type ALL, SUCCESS or REFUND, as CSV or in gzip"
    checkouts = CheckoutRules(
        renews=True,
        exists_once_created=True,
        payer_fields={"h5": "client_ip", "jsapi": "openid"},
        currency=CURRENCY,
    )
    refund_gap_s: float = 60.0
    """同一笔订单多次退款的请求需相隔1分钟: https://pay.weixin.qq.com/doc/v3/merchant/4012556457"""

    def __init__(
        self, account: AccountConfig, transport: Transport, *, clock: Callable[[], float] | None = None
    ) -> None:
        self._name = account.name
        self._wire = Wire(account, transport, clock=clock)
        self._renewal = Renewal() if self._wire.downloads_certificates else None

    # -- payments ------------------------------------------------------------------------------------------------------

    async def create_payment(self, create: Create) -> Created:
        """Create it; no money is taken after `time_expire`: https://pay.weixin.qq.com/doc/v3/merchant/4012791877.

        A code or link is valid for less, but the same number gets a fresh one until then, with exactly the same terms:
        https://pay.weixin.qq.com/docs/merchant/products/h5-payment/apilist.html. So `payable_until` is this end.
        """
        method = create.payment.method or self.methods[0]
        ends_at = create.payment.payable_until.replace(microsecond=0)
        body = {**self._order_fields(create, ends_at), **_method_fields(method, create)}
        requested_at = self._wire.now()
        response = await self._call("POST", f"{_TRANSACTIONS}/{method}", body)
        return Created(
            checkout=self._checkout(method, create, response),
            payable_until=ends_at,
            checkout_ends_at=checkout_end(create.payment, CHECKOUT_LIVES[method], requested_at),
        )

    async def query_payment(self, payment: Payment) -> Evidence:
        if payment.channel_reference is None:
            address = f"out-trade-no/{quote(payment.out_trade_no, safe='')}"
        else:
            address = f"id/{quote(payment.channel_reference, safe='')}"
        response = await self._wire.call("GET", f"{_TRANSACTIONS}/{address}?mchid={self._wire.mchid}")
        return self.read_response(payment, response, received_at=self._wire.now())

    async def find_number(self, number: str) -> str | None:
        """The payment whose `transaction_id` it is, or whose refund has it as `out_refund_no`. WeChat Pay finds nothing
        by its own number of a refund: https://pay.weixin.qq.com/doc/v3/merchant/4012791865
        """
        if _TRANSACTION_ID.fullmatch(number) is not None:
            path = f"{_TRANSACTIONS}/id/{quote(number, safe='')}?mchid={self._wire.mchid}"
            response = await self._wire.call("GET", path)
            is_malformed = response.status == HTTPStatus.BAD_REQUEST and _code(response) == "PARAM_ERROR"
            if not is_malformed and not _is_missing(response, NOT_EXIST):
                transaction = self._wire.read(response, Transaction)
                if transaction.transaction_id != number:
                    raise ChannelUnreadable("other_payment")
                return transaction.out_trade_no
        if _REFUND_NO.fullmatch(number) is None:
            return None
        response = await self._wire.call("GET", f"{_REFUNDS}/{quote(number, safe='')}")
        if _is_missing(response, NO_REFUND):
            return None
        refund = self._wire.read(response, RefundBody)
        if refund.out_refund_no != number:
            raise ChannelUnreadable("other_refund")
        return refund.out_trade_no

    def read_response(self, payment: Payment, response: Response, *, received_at: datetime) -> Evidence:
        """Read by status: 200 must verify; 404 with exactly one code is *missing*."""
        if response.status == OK:
            transaction = self._wire.read(response, Transaction, received_at)
            evidence = self._evidence(transaction)
            is_watched = payment.origin is Origin.WATCHED and payment.channel_reference is not None
            if is_watched and transaction.transaction_id == payment.channel_reference:
                # Its number may be any: the id by which it is watched decides.
                return replace(evidence, out_trade_no=payment.out_trade_no)
            return evidence
        code = _code(response)
        if (response.status, code) == (404, NOT_EXIST):
            return Missing(channel_account=self._name, out_trade_no=payment.out_trade_no)
        raise query_error(code)

    def status_of(self, body: bytes) -> int:
        return status_of(body)

    async def capture_payment(self, payment: Payment) -> None:
        """WeChat Pay takes the money by itself."""

    async def close_payment(self, payment: Payment) -> None:
        path = f"{_TRANSACTIONS}/out-trade-no/{quote(payment.out_trade_no, safe='')}/close"
        response = await self._wire.call("POST", path, {"mchid": self._wire.mchid})
        if response.status in (OK, NO_CONTENT):
            self._wire.verify(response, self._wire.now())
            return
        code = _code(response)
        # Paid or closed meanwhile, or not there: the next query shows which.
        if code not in _NOTHING_TO_CLOSE:
            raise refusal(code)

    async def refund_payment(self, payment: Payment, refund_no: str, amount: int) -> ChannelRefund:
        body = {
            "out_trade_no": payment.out_trade_no,
            "out_refund_no": refund_no,
            "amount": {"refund": amount, "total": payment.amount, "currency": payment.currency},
        }
        refund = self._wire.read(await self._call("POST", _REFUNDS, body), RefundBody)
        if refund.amount.refund != amount:
            raise ChannelUnreadable("other_refund")
        return _checked_refund(refund, payment, refund_no).as_channel_has_it

    async def query_refund(self, payment: Payment, refund_no: str) -> ChannelRefund | None:
        refund = await self._find_refund(payment, refund_no)
        return None if refund is None else refund.as_channel_has_it

    async def query_refunded(self, payment: Payment, refund_no: str) -> int | None:
        refund = await self._find_refund(payment, refund_no)
        return refund.amount.refund if refund is not None and refund.status == "SUCCESS" else None

    async def query_dispute(self, dispute: Disputed) -> tuple[Disputed, ...]:
        path = f"/v3/merchant-service/complaints-v2/{quote(dispute.dispute_id, safe='')}"
        response = await self._wire.call("GET", path)
        if response.status == OK:
            complaint = self._wire.read(response, Complaint)
            if complaint.complaint_id != dispute.dispute_id:
                raise ChannelUnreadable("other_complaint")
            return complaint_evidence(complaint, account=self._name, mchid=self._wire.mchid, at=self._wire.now())
        code = _code(response)
        if response.status == 404 and code == NO_REFUND:  # noqa: PLR2004 - the code of whatever is not there
            return ()
        raise query_error(code)

    # -- callbacks -----------------------------------------------------------------------------------------------------

    async def verify_callback(self, headers: Mapping[str, str], body: bytes, *, received_at: datetime) -> Callback:
        if self._wire.ring.is_empty:
            raise ChannelUnavailable("no_certificate_yet")
        signed_at = self._wire.ring.signed_at("callback", headers, body, received_at)
        if signed_at is None:
            raise CallbackForged("signature")
        if abs(received_at.timestamp() - signed_at) > TOLERANCE_S:
            raise CallbackStale("time")
        return self._read_callback(body)

    def acknowledge(self) -> Acknowledgement:
        """Only the status counts, 200 or 204: https://pay.weixin.qq.com/wiki/doc/apiv3/apis/chapter3_3_5.shtml.

        200, because a 204 must not have the Content-Length that servers and routers add.
        """
        return Acknowledgement(status=200, content_type="application/json", body=b"")

    async def keep_current(self) -> None:
        """Fetch platform certificates twice a day, and after an unknown serial. A failure changes nothing.

        The response is verified with a known key or with a certificate in it: the APIv3 key, which unseals the list,
        proves its origin.
        """
        at, ring = self._wire.now(), self._wire.ring
        if self._renewal is None or not self._renewal.is_due(at, ring):
            return
        self._renewal.begin(at, ring)
        response = await self._call("GET", "/v3/certificates")
        certificates = read_certificates(response.body, self._wire.seal_key, at)
        self._wire.verify(response, self._wire.now(), ring.joined(certificates))
        ring.add(certificates)
        ring.drop_expired(at)
        self._renewal.succeeded(at)

    # -- statements ----------------------------------------------------------------------------------------------------

    async def fetch_statement(self, day: date, into: IO[bytes]) -> None:
        """Fetch the file, which is unsigned; it is kept only if it has the hash in the signed response."""
        path = f"/v3/bill/tradebill?bill_date={day.isoformat()}&bill_type=ALL&tar_type=GZIP"
        response = await self._wire.call("GET", path)
        if response.status != OK and _code(response) == NO_STATEMENT:
            raise ChannelRefused("no_statement")
        bill = self._wire.read(_require_success(response), BillBody)
        with tempfile.TemporaryFile() as file:
            await self._wire.download(bill.download_url, file)
            file.seek(0)
            await asyncio.to_thread(wechatpay_bill.check_hash, file, bill.hash_value)
            file.seek(0)
            shutil.copyfileobj(file, into)

    def parse_statement(self, statement: IO[bytes]) -> Iterator[StatementItem]:
        return wechatpay_bill.rows(statement)

    # -- requests and responses ----------------------------------------------------------------------------------------

    async def _call(self, method: str, path: str, body: object | None = None) -> Response:
        """Return the response of a call that was not refused; it is not verified yet."""
        return _require_success(await self._wire.call(method, path, body))

    async def _find_refund(self, payment: Payment, refund_no: str) -> RefundBody | None:
        """The refund of this payment, made by anybody; None: the channel knows none with this number."""
        response = await self._wire.call("GET", f"{_REFUNDS}/{quote(refund_no, safe='')}")
        if response.status == OK:
            return _checked_refund(self._wire.read(response, RefundBody), payment, refund_no)
        code = _code(response)
        if (response.status, code) == (404, NO_REFUND):
            return None
        raise query_error(code)

    def _order_fields(self, create: Create, ends_at: datetime) -> dict[str, Any]:
        payment = create.payment
        if payment.currency != CURRENCY:
            raise InvalidRequest(f"WeChat Pay takes {CURRENCY} only")
        if "?" in create.callback_url or "#" in create.callback_url:
            raise InvalidRequest("WeChat Pay calls no address that has a query string")
        return {
            "appid": self._wire.appid,
            "mchid": self._wire.mchid,
            "description": create.subject[:DESCRIPTION_CHARACTERS_MAX],
            "out_trade_no": payment.out_trade_no,
            "time_expire": ends_at.astimezone(self.statement_zone).isoformat(),
            "notify_url": create.callback_url,
            "amount": {"total": payment.amount, "currency": payment.currency},
        }

    def _checkout(self, method: str, create: Create, response: Response) -> Checkout:
        match method:
            case "native":
                return Checkout(kind="qr", value=self._wire.read(response, NativeBody).code_url)
            case "h5":
                url = self._wire.read(response, H5Body).h5_url
                return Checkout(kind="redirect", value=_with_redirect(url, create.return_url))
        return Checkout(kind="client", value=self._bridge(self._wire.read(response, JsapiBody).prepay_id))

    def _bridge(self, prepay_id: str) -> str:
        """Parameters that the page passes to `WeixinJSBridge`."""
        timestamp, nonce, package = str(int(self._wire.now().timestamp())), token_hex(16), f"prepay_id={prepay_id}"
        return json.dumps(
            {
                "appId": self._wire.appid,
                "timeStamp": timestamp,
                "nonceStr": nonce,
                "package": package,
                "signType": "RSA",
                "paySign": self._wire.sign_package(timestamp, nonce, package),
            }
        )

    def _read_callback(self, body: bytes) -> Callback:
        """Ask what it is about, then read what is sealed in it."""
        id_ = ""
        ids: tuple[str, ...] = ()
        try:
            envelope = read_json(body, Envelope)
            id_ = envelope.id
            if not envelope.is_about_money:
                return Callback(notification_id=id_, evidence=None)
            plain = unseal(self._wire.seal_key, read_json(body, SealedEnvelope).resource)
            content = read_content(plain)
            ids = content.ids
            return Callback(notification_id=id_, evidence=self._callback_evidence(envelope, content, plain))
        except ChannelUnreadable as error:
            return unreadable_callback(self._name, body, error.detail, notification_id=id_, ids=ids)

    def _callback_evidence(self, envelope: Envelope, content: Content, plain: bytes) -> Evidence:
        """Evidence of one plain payment. Everything else is a question: a refund notice has the amount of this one
        refund, not of all, and no currency.
        """
        kind = envelope.event_type
        if kind in COMPLAINT_EVENTS:
            return unread_complaint(read_json(plain, ComplaintNotice), account=self._name)
        if kind in REFUND_FAILURES and content.is_plain:
            failure, mchid = read_json(plain, RefundFailure), self._wire.mchid
            return refund_failure_evidence(failure, account=self._name, mchid=mchid, at=envelope.create_time)
        if kind == "TRANSACTION.SUCCESS" and content.is_plain:
            return self._evidence(read_json(plain, Transaction))
        reason = COMBINED if content.is_combined else "other_form"
        reason = "refund_notice" if kind.startswith("REFUND.") else reason
        question = content.question(account=self._name, mchid=self._wire.mchid, reason=reason)
        if question is None:
            raise ChannelUnreadable("no_number")
        return question

    def _evidence(self, transaction: Transaction) -> Evidence:
        return evidence_of(transaction, account=self._name, appid=self._wire.appid, mchid=self._wire.mchid)


def _method_fields(method: str, create: Create) -> dict[str, Any]:
    """Fields that only this method has.

    Raises:
        InvalidRequest: the payer lacks them, or there is no such method.
    """
    payer = create.payer
    match method:
        case "native":
            return {}
        case "h5":
            if not payer.client_ip:
                raise InvalidRequest("WeChat Pay h5 needs payer.client_ip")
            return {"scene_info": {"payer_client_ip": payer.client_ip, "h5_info": {"type": "Wap"}}}
        case "jsapi":
            if not payer.openid:
                raise InvalidRequest("WeChat Pay jsapi needs payer.openid")
            return {"payer": {"openid": payer.openid}}
    raise InvalidRequest(f"WeChat Pay has no method {method}")


def _require_success(response: Response) -> Response:
    if response.status != OK:
        raise refusal(_code(response))
    return response


def _is_missing(response: Response, code: str) -> bool:
    """Whether the channel knows no such thing; any other error is raised."""
    if response.status == OK:
        return False
    found = _code(response)
    if (response.status, found) == (404, code):
        return True
    raise query_error(found)


def _code(response: Response) -> str:
    if response.status < 400:  # noqa: PLR2004 - the classes of errors
        raise ChannelUnreadable(f"status_{response.status}")
    return error_code(response)


def _with_redirect(h5_url: str, return_url: str) -> str:
    """The buyer's address with our return address; it is for the browser and needs no signature."""
    parts = urlsplit(web_address(h5_url))
    return f"{h5_url}{'&' if parts.query else '?'}redirect_url={quote(return_url, safe='')}"


def _checked_refund(refund: RefundBody, payment: Payment, refund_no: str) -> RefundBody:
    if (refund.out_refund_no, refund.out_trade_no) != (refund_no, payment.out_trade_no):
        raise ChannelUnreadable("other_refund")
    return refund

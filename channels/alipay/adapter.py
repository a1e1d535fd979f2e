"""Alipay's open platform, gateway v2 with RSA2: 当面付 (precreate), 电脑网站支付 (page), 手机网站支付 (wap).

Set-up and pitfalls: docs/channels/alipay.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta, tzinfo
from http import HTTPStatus
from typing import IO, Literal

import msgspec

from channels.alipay.account import Credentials
from channels.alipay.gateway import Gateway, Outcome, require_success
from channels.alipay.keys import KeyRing
from channels.alipay.messages import COMPLAINT_QUERY, Complaint, complaint_evidence, message_evidence
from channels.alipay.notice import FIELDS, Notice, read_notice
from channels.alipay.statement import read_statement
from channels.alipay.trade import CURRENCY, ID, Id, Trade, evidence_of
from channels.alipay.wire import ZONE, callback_string, has_embedded_field, read_form, time_text
from channels.base import Acknowledgement, Callback, ChannelRefund, Create, Created, RefundState, StatementItem
from channels.kit.checkout_end import checkout_end
from channels.kit.signed_message import read_json
from channels.kit.unreadable import body_id, unreadable_callback
from channels.kit.web_address import web_address
from channels.transport import Response, Transport
from core.account import AccountConfig
from core.checkout import CheckoutRules
from core.errors import CallbackForged, ChannelRefused, ChannelUnreadable, ConfigurationError, InvalidRequest
from core.evidence import Disputed, Evidence, Missing, Paid, Unclear
from core.money import decimal_text, minor_units
from core.order import Checkout, Payment

# https://opendocs.alipay.com/open/028r8t (page), https://opendocs.alipay.com/open/02ivbs (wap)
_PAGES = {
    "page": ("alipay.trade.page.pay", "FAST_INSTANT_TRADE_PAY"),
    "wap": ("alipay.trade.wap.pay", "QUICK_WAP_WAY"),
}

CODE_LIVES = timedelta(hours=2)
"""Validity of a code that nobody has scanned; after the scan `time_expire` counts. Alipay's answer in
https://cloud.tencent.com/developer/article/1096089"""

TRADE_LIVES_MAX = CODE_LIVES + timedelta(days=15)
"""Without an end of its own a trade closes 15 days after the buyer scanned the code:
https://developer.aliyun.com/article/707654"""

_QUERY = "alipay.trade.query"
_TRADE_MISSING = "TRADE_NOT_EXIST"
_OUTCOME_UNKNOWN = ("TRADE_HAS_SUCCESS", "CONTEXT_INCONSISTENT")
_TRADE_NOT_PAYABLE = (
    *("TRADE_STATUS_ERROR", "REASON_TRADE_STATUS_INVALID", "REASON_ILLEGAL_STATUS"),
    *("TRADE_HAS_SUCCESS", "TRADE_HAS_FINISHED", "TRADE_HAS_CLOSE"),
)
_NO_STATEMENT = ("bill_not_exist", "bill-not-exist", "BILL_NOT_EXIST", "NO_BILL_DATA")


class _PrecreateBody(msgspec.Struct, frozen=True, kw_only=True):
    out_trade_no: Id
    qr_code: str


class _RefundBody(msgspec.Struct, frozen=True, kw_only=True):
    """Without the refund's number. `refund_fee` is the total refunded of the trade so far."""

    out_trade_no: Id
    fund_change: Literal["Y", "N"]
    refund_fee: str


class _RefundQueryBody(msgspec.Struct, frozen=True, kw_only=True):
    out_trade_no: Id | None = None
    out_request_no: Id | None = None
    refund_amount: str | None = None
    refund_status: Literal["REFUND_SUCCESS"] | None = None


class _BillBody(msgspec.Struct, frozen=True, kw_only=True):
    bill_download_url: str


class Alipay:
    """One application at Alipay; implements `channels.base.Channel`."""

    methods: tuple[str, ...] = ("precreate", "page", "wap")
    callback_headers: tuple[str, ...] = ()  # the signature is a field of the form
    queries_by_reference = False
    watched_number = re.compile(r"[0-9A-Za-z_\-|*.:]{1,64}", re.ASCII)
    longest_window: timedelta | None = TRADE_LIVES_MAX
    statement_zone: tzinfo = ZONE
    statement_format = "the trade details (业务明细), in the zip that Alipay gives or as the CSV out of it"
    checkouts = CheckoutRules(renews=True, currency=CURRENCY)

    def __init__(
        self, account: AccountConfig, transport: Transport, *, clock: Callable[[], float] | None = None
    ) -> None:
        credentials = account.credentials_as(Credentials)
        try:
            keys = KeyRing(credentials)
        except ConfigurationError as error:
            raise ConfigurationError(f"account {account.name}: credentials: {error}") from None
        self._name = account.name
        self._app_id = credentials.app_id
        self._seller_id = credentials.seller_id
        self._keys = keys
        self._gateway = Gateway(account, credentials, keys, transport, clock or transport.time)
        self._transport = transport
        self._clock = clock or transport.time

    # -- payments ------------------------------------------------------------------------------------------------------

    async def create_payment(self, create: Create) -> Created:
        """Return a code to scan, or an address signed here; a page's trade is created when the buyer opens it.

        A code must be scanned within two hours; a repeated precreation with identical terms returns a code again.
        """
        payment = create.payment
        if payment.currency != CURRENCY:
            raise InvalidRequest(f"Alipay takes {CURRENCY} only")
        method = payment.method or self.methods[0]
        if method not in self.methods:
            raise InvalidRequest(f"the methods at Alipay are {', '.join(self.methods)}")
        if method in _PAGES:
            return Created(checkout=Checkout(kind="redirect", value=self._page(create, method)))
        ends_at = checkout_end(payment, CODE_LIVES, datetime.fromtimestamp(self._clock(), UTC))
        return Created(checkout=Checkout(kind="qr", value=await self._precreate(create)), checkout_ends_at=ends_at)

    async def query_payment(self, payment: Payment) -> Evidence:
        response = await self._gateway.send(_QUERY, {"out_trade_no": payment.out_trade_no})
        return self._read_query(payment, response)

    async def find_number(self, number: str) -> str | None:
        """The trade whose `trade_no` it is. Alipay finds no trade by a refund alone: that needs the trade's number too.

        https://opendocs.alipay.com/open/02ekfh
        """
        if re.fullmatch(ID, number, re.ASCII) is None:
            return None
        node = self._gateway.verified_node(_QUERY, await self._gateway.send(_QUERY, {"trade_no": number}))
        outcome = read_json(node, Outcome)
        if (outcome.code, outcome.short_code) == ("40004", _TRADE_MISSING):
            return None
        trade = read_json(require_success(node), Trade)
        if trade.trade_no != number:
            raise ChannelUnreadable("other_payment")
        return trade.out_trade_no

    def read_response(self, payment: Payment, response: Response, *, received_at: datetime) -> Evidence:
        """A response names neither its request nor its time: only the numbers in it can be compared."""
        del received_at
        return self._read_query(payment, response)

    def status_of(self, body: bytes) -> int:
        """Alipay sends 200 with every body."""
        del body
        return HTTPStatus.OK

    async def capture_payment(self, payment: Payment) -> None:
        """Alipay takes the money by itself."""

    async def close_payment(self, payment: Payment) -> None:
        """Close the trade. Raises nothing when it is paid, closed, or does not exist before the code is scanned.

        The last one can still be paid until its code or `time_expire` ends; the next query shows the outcome.
        """
        try:
            await self._gateway.call("alipay.trade.close", {"out_trade_no": payment.out_trade_no})
        except ChannelRefused as refused:
            if not refused.code.endswith((_TRADE_MISSING, *_TRADE_NOT_PAYABLE)):
                raise

    async def refund_payment(self, payment: Payment, refund_no: str, amount: int) -> ChannelRefund:
        """Request a refund. `fund_change` N is no failure: this call moved no money, as when it is repeated.

        Alipay has no number of its own for a refund: its answers have ours and the trade's.
        https://opendocs.alipay.com/open/02ekfl
        """
        body = {
            "out_trade_no": payment.out_trade_no,
            "out_request_no": refund_no,
            "refund_amount": decimal_text(amount, payment.currency),
        }
        refund = read_json(await self._gateway.call("alipay.trade.refund", body), _RefundBody)
        if refund.out_trade_no != payment.out_trade_no:
            raise ChannelUnreadable("other_payment")
        if refund.fund_change == "N":
            return ChannelRefund(state=RefundState.PROCESSING)
        if _yuan(refund.refund_fee, payment, "refund_fee") < amount:
            raise ChannelUnreadable("other_refund")
        return ChannelRefund(state=RefundState.SUCCEEDED)

    async def query_refund(self, payment: Payment, refund_no: str) -> ChannelRefund | None:
        """Return None without a `refund_status`: not received, failed or not done. Repeating the refund is safe.

        https://opendocs.alipay.com/open/02ekfl
        """
        refund = await self._find_refund(payment, refund_no)
        return None if refund is None else ChannelRefund(state=RefundState.SUCCEEDED)

    async def query_refunded(self, payment: Payment, refund_no: str) -> int | None:
        """A query of the payment shows no refund in part; a refund by its number does."""
        refund = await self._find_refund(payment, refund_no)
        if refund is None or refund.refund_amount is None:
            return None
        return _yuan(refund.refund_amount, payment, "refund_amount")

    async def _find_refund(self, payment: Payment, refund_no: str) -> _RefundQueryBody | None:
        body = {"out_trade_no": payment.out_trade_no, "out_request_no": refund_no}
        try:
            node = await self._gateway.call("alipay.trade.fastpay.refund.query", body)
        except ChannelRefused as refused:
            if refused.code.endswith(_TRADE_MISSING):
                return None
            raise
        refund = read_json(node, _RefundQueryBody)
        if refund.refund_status is None:
            return None
        if (refund.out_trade_no, refund.out_request_no) != (payment.out_trade_no, refund_no):
            raise ChannelUnreadable("other_refund")
        return refund

    async def query_dispute(self, dispute: Disputed) -> tuple[Disputed, ...]:
        node = await self._gateway.call(COMPLAINT_QUERY, {"complain_event_id": dispute.dispute_id})
        complaint = read_json(node, Complaint)
        if complaint.complain_event_id != dispute.dispute_id:
            raise ChannelUnreadable("other_complaint")
        return (complaint_evidence(complaint, self._name),)

    # -- callbacks -----------------------------------------------------------------------------------------------------

    async def verify_callback(self, headers: Mapping[str, str], body: bytes, *, received_at: datetime) -> Callback:
        """Verify without a time: Alipay signs none that changes with a resend, and resends for a day."""
        del headers, received_at
        try:
            form = read_form(body)
        except ValueError:
            raise CallbackForged("form") from None
        if not self._is_signed(form):
            raise CallbackForged("signature")
        if b"method" in form:
            raise CallbackForged(
                "return_address"
            )  # signed for the browser: the buyer can send it, and it tells nothing
        return self._read_callback(form, body)

    def acknowledge(self) -> Acknowledgement:
        """Exactly these seven bytes: quotes, JSON or a line feed are no acknowledgement."""
        return Acknowledgement(status=200, content_type="text/plain", body=b"success")

    async def keep_current(self) -> None:
        """Nothing to renew: keys and certificates are configured."""

    # -- statements ----------------------------------------------------------------------------------------------------

    async def fetch_statement(self, day: date, into: IO[bytes]) -> None:
        """The file's address is valid for 30 seconds. The address is signed; the file is protected by TLS only."""
        body = {"bill_type": "trade", "bill_date": day.isoformat()}
        try:
            node = await self._gateway.call("alipay.data.dataservice.bill.downloadurl.query", body)
        except ChannelRefused as refused:
            raise ChannelRefused("no_statement") if refused.code.endswith(_NO_STATEMENT) else refused from None
        url = self._gateway.statement_address(read_json(node, _BillBody).bill_download_url)
        response = await self._transport.download(url, headers={}, into=into)
        if response.status != HTTPStatus.OK:
            raise ChannelUnreadable(f"status_{response.status}")

    def parse_statement(self, statement: IO[bytes]) -> Iterator[StatementItem]:
        return read_statement(statement)

    # -- in parts ------------------------------------------------------------------------------------------------------

    async def _precreate(self, create: Create) -> str:
        """Return the code, which is an address."""
        method, number = "alipay.trade.precreate", create.payment.out_trade_no
        node = self._gateway.verified_node(
            method, await self._gateway.send(method, _payment_terms(create), notify_url=create.callback_url)
        )
        outcome = read_json(node, Outcome)
        if outcome.short_code in _OUTCOME_UNKNOWN:
            # The number exists: ours, after a lost response, or another's. Only a query can show which.
            raise ChannelUnreadable(f"refused_{outcome.reason}")
        created = read_json(require_success(node), _PrecreateBody)
        if created.out_trade_no != number:
            raise ChannelUnreadable("other_payment")
        return web_address(created.qr_code)

    def _page(self, create: Create, method: str) -> str:
        name, product_code = _PAGES[method]
        body = _payment_terms(create) | {"product_code": product_code}
        if method == "wap":
            body["quit_url"] = create.return_url
        return self._gateway.page(name, body, notify_url=create.callback_url, return_url=create.return_url)

    def _read_query(self, payment: Payment, response: Response) -> Evidence:
        node = self._gateway.verified_node(_QUERY, response)
        outcome = read_json(node, Outcome)
        if (outcome.code, outcome.short_code) == ("40004", _TRADE_MISSING):
            # This response has the number too, so a response to another query is noticed.
            number = outcome.out_trade_no or payment.out_trade_no
            return Missing(channel_account=self._name, out_trade_no=number)
        try:
            return self._evidence(read_json(require_success(node), Trade))
        except ChannelRefused as refused:
            raise ChannelUnreadable(f"refused_{refused.code}") from None

    def _is_signed(self, form: Mapping[bytes, bytes]) -> bool:
        """Check the signature. Messages of the service market sign `sign_type` as well, so that is tried second."""
        signature = form.get(b"sign", b"").decode("latin-1")
        cert_sn = form.get(b"alipay_cert_sn", b"").decode("latin-1")
        if form.get(b"sign_type") != b"RSA2" or not signature:
            return False
        if has_embedded_field(form, [name.encode() for name in FIELDS]):
            return False
        strings = (callback_string(form, (b"sign", b"sign_type")), callback_string(form, (b"sign",)))
        return any(self._keys.verifies("callback", signature, string, cert_sn) for string in strings)

    def _read_callback(self, form: Mapping[bytes, bytes], body: bytes) -> Callback:
        """Ask what it is about, then read its trade."""
        notice = read_notice(form)
        if not notice.is_about_money:
            return Callback(notification_id=notice.id or body_id(body), evidence=None)
        try:
            evidence = self._notice_evidence(notice)
        except ChannelUnreadable as error:
            return unreadable_callback(self._name, body, error.detail, notification_id=notice.id, ids=notice.ids)
        # "Paid" that names a refund, of whatever sum, is not plain: only the query tells what is left.
        is_hint = isinstance(evidence, Paid) and notice.names_refund
        return Callback(notification_id=notice.id, evidence=evidence, is_hint=is_hint)

    def _notice_evidence(self, notice: Notice) -> Evidence:
        """Evidence of its trade. A message, or a notice that names no application, is a question."""
        if not notice.id:
            raise ChannelUnreadable("notify_id")
        if notice.is_message:
            return self._message_evidence(notice)
        trade = notice.trade()
        if trade.app_id is not None:
            return self._evidence(trade)
        return Unclear(
            channel_account=self._name, out_trade_no=trade.out_trade_no, ids=notice.ids[1:], reason="no_app_id"
        )

    def _message_evidence(self, notice: Notice) -> Evidence:
        """Evidence of a message about a complaint or a refund to a card; any other about a trade is a question."""
        message = notice.message()
        if message is not None:
            account = self._name if message.app_id == self._app_id else f"other:{message.app_id}"
            evidence = message_evidence(message, account)
            if evidence is not None:
                return evidence
        number, *others = notice.ids or ("",)
        if not number:
            raise ChannelUnreadable("biz_content")
        return Unclear(channel_account=self._name, out_trade_no=number, ids=tuple(others), reason="message")

    def _evidence(self, trade: Trade) -> Evidence:
        """Evidence under our account, unless the trade names another application or seller."""
        identities = ((trade.app_id, self._app_id), (trade.seller_id, self._seller_id))
        other = next((named for named, own in identities if named not in (None, own)), None)
        return evidence_of(trade, self._name if other is None else f"other:{other}")


def _yuan(text: str, payment: Payment, field: str) -> int:
    try:
        return minor_units(text, payment.currency)
    except InvalidRequest:
        raise ChannelUnreadable(field) from None


def _payment_terms(create: Create) -> dict[str, str]:
    """Parameters of a payment for every method. After `time_expire` Alipay takes no money for it."""
    payment = create.payment
    return {
        "out_trade_no": payment.out_trade_no,
        "total_amount": decimal_text(payment.amount, payment.currency),
        "subject": create.subject,
        "time_expire": time_text(payment.payable_until),
    }

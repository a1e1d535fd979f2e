"""PayPal, Orders v2: the buyer approves at PayPal, and our capture takes the money.

An order that is approved and never captured is a lost sale: nothing is taken, and it lapses after hours. Our number is
its `custom_id` and `invoice_id`; PayPal is queried by its own order id.
https://developer.paypal.com/docs/api/orders/v2/ and https://developer.paypal.com/docs/api/payments/v2/
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import IO
from urllib.parse import quote

import msgspec
from msgspec.structs import replace

from channels.base import (
    NO_REFERENCE,
    Acknowledgement,
    Callback,
    ChannelRefund,
    Create,
    Created,
    StatementItem,
    StatementRow,
)
from channels.kit.signed_message import read_json
from channels.kit.unreadable import unreadable_callback
from channels.kit.web_address import PLAIN_TOO, TLS_ONLY, web_address
from channels.paypal import statement as paypal_statement
from channels.paypal.account import addresses, read_credentials
from channels.paypal.api import Api, is_not_found, require_success
from channels.paypal.certificates import Certificates, load_roots
from channels.paypal.disputes import Dispute, dispute_evidence, disputing_evidence, reversal_evidence
from channels.paypal.webhook import SIGNATURE_HEADERS, read_headers, verify_at_endpoint, verify_offline
from channels.paypal.wire import (
    EVENTS,
    Event,
    OwnAccount,
    PaypalOrder,
    Refund,
    RefundResource,
    Webhook,
    amount_value,
    event_evidence,
    failed_capture,
    order_evidence,
)
from channels.transport import Response, Transport
from core.account import AccountConfig
from core.checkout import CheckoutRules
from core.dispute import DisputeKind
from core.errors import CaptureDeclined, ChannelRefused, ChannelUnreadable, InvalidRequest
from core.evidence import Disputed, Evidence, Missing
from core.order import Checkout, Origin, Payment
from core.sentences import Sentence

DESCRIPTION_CHARACTERS_MAX = 127

APPROVE_WITHIN = timedelta(hours=3)
"""Life of an order that nobody approves; then PayPal does not know it any more. PayPal's answer in
https://github.com/paypal/Checkout-PHP-SDK/issues/84, and the default of
https://developer.paypal.com/docs/checkout/apm/reference/handle-uncaptured-payments/"""

# https://developer.paypal.com/api/handle-payment-failures and the errors of https://developer.paypal.com/docs/api/orders/v2/.
# Left out on purpose: PAYER_ACTION_REQUIRED (the buyer goes on with this approval), ORDER_ALREADY_CAPTURED and
# DUPLICATE_INVOICE_ID (something was captured, and a query shows what), and every error that may pass by itself.
_DECLINED = frozenset(
    {
        "CARD_EXPIRED",
        "INSTRUMENT_DECLINED",
        "MAX_NUMBER_OF_PAYMENT_ATTEMPTS_EXCEEDED",
        "PAYER_CANNOT_PAY",
        "REDIRECT_PAYER_FOR_ALTERNATE_FUNDING",
        "TRANSACTION_REFUSED",
    }
)

_CERTIFICATE_NAMES = {
    True: "messageverificationcerts.paypal.com",
    False: "messageverificationcerts.sandbox.paypal.com",
}


class Paypal:
    """One account at PayPal; implements `channels.base.Channel`."""

    methods: tuple[str, ...] = ("checkout",)
    callback_headers: tuple[str, ...] = SIGNATURE_HEADERS
    queries_by_reference = True
    watched_number = re.compile(r"[^\x00-\x1f\x7f]{1,255}")
    longest_window: timedelta | None = None  # an order names no end: it vanishes
    statement_zone: tzinfo = UTC
    statement_format = "transactions of the Transaction Search API, one JSON object a line"
    checkouts = CheckoutRules(needs_capture=True, exists_once_created=True)

    events: tuple[str, ...] = EVENTS

    def __init__(
        self, account: AccountConfig, transport: Transport, *, clock: Callable[[], float] | None = None
    ) -> None:
        credentials = read_credentials(account)
        self._base_url, origins = addresses(account, credentials.certificate_hosts)
        self._own = OwnAccount(account=account.name, merchant_id=credentials.merchant_id)
        self._webhook_id = credentials.webhook_id
        self._verifies_at_endpoint = credentials.verify_webhooks == "endpoint"
        self._api = Api(
            transport,
            base_url=self._base_url,
            client_id=credentials.client_id,
            client_secret=credentials.client_secret,
            clock=clock or transport.time,
        )
        self._certificates = Certificates(
            transport,
            origins=origins,
            name=_CERTIFICATE_NAMES[account.live],
            roots=() if self._verifies_at_endpoint else load_roots(credentials.ca_certificates, account.name),
            clock=clock or transport.time,
        )

    async def create_payment(self, create: Create) -> Created:
        """Create an order for capture. PayPal forgets it when nobody approves it; it takes money only on our capture.

        The buyer is not offered payments that take days (a bank transfer): the order would be closed by then.
        """
        payment, body = create.payment, _order_body(create)
        headers = {"PayPal-Request-Id": payment.out_trade_no, "Prefer": "return=representation"}
        response = require_success(await self._api.call("POST", "/v2/checkout/orders", _json(body), headers=headers))
        order = read_json(response.body, PaypalOrder)
        evidence = order_evidence(order, payment.out_trade_no, self._own)
        expected = (self._own.account, payment.amount, payment.currency)
        is_same = (evidence.channel_account, evidence.amount, evidence.currency) == expected
        if not is_same or payment.out_trade_no not in order.unit.numbers:
            raise ChannelUnreadable("other_payment")
        checkout = Checkout(kind="redirect", value=self._web_address(order.approve_url))
        created_at = order.create_time or payment.created_at
        return Created(checkout=checkout, channel_reference=order.id, checkout_ends_at=created_at + APPROVE_WITHIN)

    async def query_payment(self, payment: Payment) -> Evidence:
        response = await self._api.call("GET", _order_path(payment))
        return self._read(payment, response)

    async def find_number(self, number: str) -> str | None:
        """Id of the order of a capture, or of a refund, whose link leads to its capture.

        https://developer.paypal.com/docs/api/payments/v2/#refunds_get
        """
        capture_id, response = number, await self._get(f"/v2/payments/captures/{quote(number, safe='')}")
        if response is None:
            refund = await self._get(f"/v2/payments/refunds/{quote(number, safe='')}")
            if refund is None:
                return None
            capture_id = read_json(refund.body, RefundResource).capture_id
            response = await self._get(f"/v2/payments/captures/{quote(capture_id, safe='')}")
        order_id = "" if response is None else paypal_statement.order_of_capture(response.body, capture_id)
        if not order_id:
            raise ChannelUnreadable("no_order")
        return order_id

    async def _get(self, path: str) -> Response | None:
        """The response; None: there is no such thing."""
        response = await self._api.call("GET", path)
        if response.status == 404 and is_not_found(response.body):  # noqa: PLR2004 - not found
            return None
        return require_success(response)

    def read_response(self, payment: Payment, response: Response, *, received_at: datetime) -> Evidence:
        del received_at  # unsigned responses have no time
        return self._read(payment, response)

    def _read(self, payment: Payment, response: Response) -> Evidence:
        if response.status == 404 and is_not_found(response.body):  # noqa: PLR2004 - not found
            return Missing(channel_account=self._own.account, out_trade_no=payment.out_trade_no)
        order = read_json(require_success(response).body, PaypalOrder)
        return order_evidence(order, _number_of(payment, order), self._own)

    def status_of(self, body: bytes) -> int:
        not_found = is_not_found(body)
        if not_found is None:
            return 200
        return 404 if not_found else 422

    async def capture_payment(self, payment: Payment) -> None:
        """Capture without a PayPal-Request-Id: an order is captured only once anyway (ORDER_ALREADY_CAPTURED).

        With one, a declined capture would stay declined: PayPal repeats its first response to a known id, even after
        the buyer has chosen another card.
        https://developer.paypal.com/reference/guidelines/idempotency/
        """
        headers = {"Prefer": "return=representation"}
        path = f"{_order_path(payment)}/capture"
        try:
            response = require_success(await self._api.call("POST", path, b"{}", headers=headers))
        except ChannelRefused as refused:
            if refused.code in _DECLINED:
                raise CaptureDeclined(refused.code) from None
            if refused.code != "ORDER_ALREADY_CAPTURED":
                raise
            return
        code = failed_capture(response.body)
        if code is not None:
            raise CaptureDeclined(code)

    async def close_payment(self, payment: Payment) -> None:
        """Do nothing: an order that is not captured cannot be ended, and only our capture takes its money."""

    def check_refund(self, amount: int, currency: str) -> None:
        """Some currencies have whole units only."""
        if amount_value(amount, currency) is None:
            raise InvalidRequest(Sentence("PayPal takes {currency} in whole units only", currency=currency))

    async def refund_payment(self, payment: Payment, refund_no: str, amount: int) -> ChannelRefund:
        money = _money(amount, payment.currency)
        if payment.channel_transaction_id is None:
            raise ChannelRefused("NOT_CAPTURED", "there is no capture to refund")
        body = {
            "amount": money,
            "invoice_id": refund_no,
            "custom_id": payment.out_trade_no,
        }
        path = f"/v2/payments/captures/{quote(payment.channel_transaction_id, safe='')}/refund"
        headers = {"PayPal-Request-Id": refund_no, "Prefer": "return=representation"}
        refund = read_json(
            require_success(await self._api.call("POST", path, _json(body), headers=headers)).body, Refund
        )
        is_other_sum = refund.amount is not None and refund.amount.minor != amount
        if refund.invoice_id not in (None, refund_no) or is_other_sum:
            raise ChannelUnreadable("other_refund")
        return refund.as_channel_has_it

    async def query_refund(self, payment: Payment, refund_no: str) -> ChannelRefund | None:
        """Read the refund from its order; PayPal cannot look one up by our number."""
        response = await self._api.call("GET", _order_path(payment))
        if response.status == 404 and is_not_found(response.body):  # noqa: PLR2004 - not found
            return None
        order = read_json(require_success(response).body, PaypalOrder)
        if order.id != payment.channel_reference:
            raise ChannelUnreadable("other_order")
        for refund in order.unit.payments.refunds:
            if refund_no in (refund.invoice_id, refund.custom_id):
                return refund.as_channel_has_it
        return None

    async def verify_callback(self, headers: Mapping[str, str], body: bytes, *, received_at: datetime) -> Callback:
        """Verify a callback of any age: PayPal names no tolerance and resends for three days; a query follows anyway.

        The event's id is the same in every resend; the transmission id is not.
        """
        transmission = read_headers(headers)
        if self._verifies_at_endpoint:
            await verify_at_endpoint(self._api, self._certificates, self._webhook_id, transmission, body)
        else:
            await verify_offline(self._certificates, self._webhook_id, transmission, body, received_at)
        return self._read_callback(body)

    async def query_dispute(self, dispute: Disputed) -> tuple[Disputed, ...]:
        """Read the dispute, or PayPal's copy of the event about a reversal. The app needs the permission for disputes.

        https://developer.paypal.com/docs/api/webhooks/v1/#webhooks-events_get
        """
        is_reversal = dispute.dispute_kind is DisputeKind.REVERSAL
        path, id_ = "/v1/customer/disputes", dispute.dispute_id
        if is_reversal:
            path, id_ = "/v1/notifications/webhooks-events", dispute.message_id
        response = await self._api.call("GET", f"{path}/{quote(id_, safe='')}")
        if response.status == 404 and is_not_found(response.body) is not None:  # noqa: PLR2004 - not found, by any name
            return ()
        body = require_success(response).body
        if is_reversal:
            return reversal_evidence(read_json(body, Event), dispute.dispute_id, self._own)
        return dispute_evidence(read_json(body, Dispute), self._own)

    async def fetch_subscribed(self, callback_url: str) -> frozenset[str] | None:
        response = await self._api.call("GET", f"/v1/notifications/webhooks/{quote(self._webhook_id, safe='')}")
        if response.status == 404 and is_not_found(response.body):  # noqa: PLR2004 - not found
            return None
        webhook = read_json(require_success(response).body, Webhook)
        return frozenset(one.name for one in webhook.event_types) if webhook.url == callback_url else None

    def acknowledge(self) -> Acknowledgement:
        return Acknowledgement(status=200, content_type="text/plain; charset=utf-8", body=b"")

    async def keep_current(self) -> None:
        await self._api.keep_current()

    async def fetch_statement(self, day: date, into: IO[bytes]) -> None:
        await paypal_statement.fetch(self._api, day, into)

    def parse_statement(self, statement: IO[bytes]) -> Iterator[StatementItem]:
        return paypal_statement.parse(statement)

    async def resolve_row(self, row: StatementRow) -> tuple[str, ...]:
        return await paypal_statement.ids_of_capture(self._api, row.channel_transaction_id)

    def _read_callback(self, body: bytes) -> Callback:
        """Ask what it is about, then read its resource."""
        id_ = ""
        ids: tuple[str, ...] = ()
        try:
            event = read_json(body, Event)
            id_, ids = event.id, event.ids
            evidence = disputing_evidence(event, self._own) or event_evidence(event, self._own)
            return Callback(notification_id=id_, evidence=evidence, is_hint=True)
        except ChannelUnreadable as error:
            unreadable = unreadable_callback(self._own.account, body, error.detail, notification_id=id_, ids=ids)
            return replace(unreadable, is_hint=True)

    def _web_address(self, text: str) -> str:
        """Check an address for the buyer: over TLS, unless the whole channel is simulated without it."""
        return web_address(text, schemes=TLS_ONLY if self._base_url.startswith("https:") else PLAIN_TOO)


def _number_of(payment: Payment, order: PaypalOrder) -> str:
    """The payment's number if the order is the queried one, otherwise the number that the order has.

    An order of ours has our number in one of its ids, or has none. A watched one may have any: its id decides.
    """
    numbers = order.unit.numbers
    if payment.origin is Origin.OURS and numbers and payment.out_trade_no not in numbers:
        return numbers[0]
    if order.id != payment.channel_reference:
        raise ChannelUnreadable("other_order")
    return payment.out_trade_no


def _order_body(create: Create) -> dict[str, object]:
    payment = create.payment
    unit = {
        "custom_id": payment.out_trade_no,
        "invoice_id": payment.out_trade_no,
        "description": create.subject[:DESCRIPTION_CHARACTERS_MAX],
        "amount": _money(payment.amount, payment.currency),
    }
    experience = {
        "user_action": "PAY_NOW",
        "payment_method_preference": "IMMEDIATE_PAYMENT_REQUIRED",
        "return_url": create.return_url,
        "cancel_url": create.return_url,
    }
    source = {"paypal": {"experience_context": experience}}
    return {"intent": "CAPTURE", "purchase_units": [unit], "payment_source": source}


def _money(amount: int, currency: str) -> dict[str, str]:
    value = amount_value(amount, currency)
    if value is None:
        raise ChannelRefused("DECIMALS_NOT_SUPPORTED", f"PayPal takes {currency} in whole units only")
    return {"currency_code": currency, "value": value}


def _order_path(payment: Payment) -> str:
    if payment.channel_reference is None:
        raise ChannelUnreadable(NO_REFERENCE)
    return f"/v2/checkout/orders/{quote(payment.channel_reference, safe='')}"


def _json(body: object) -> bytes:
    return msgspec.json.encode(body)

"""The driver Protocol of the conformance suite. A further channel adds one driver and runs every test.

The differences between channels are values and small methods of the driver: no test asks which channel it runs for.
A driver inherits from `Driver` and defines only what differs from the common case.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import IO, Protocol

import msgspec

from channels.base import Acknowledgement, StatementRow
from core.account import AccountConfig
from core.errors import CallbackRejected, ChannelError
from core.order import Payment, PaymentStatus
from simulator.kernel.base import Account
from simulator.kernel.faults import CallKind
from tests.channels.reports import (
    AMOUNT,
    NUMBER,
    BadCredential,
    CallbackRequest,
    Form,
    Key,
    PaymentReport,
    Reportable,
    without,
)
from tests.channels.wire import WireRequest, WireResponse

CREATED_AT = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)


class Driver(Protocol):
    """The channel's side: signs as the channel does and sends any report a test gives it. Written from the protocol."""

    # -- the account ---------------------------------------------------------------------------------------------------

    channel: str
    merchant_id: str
    """The account's id in the simulator."""

    currency: str = "CNY"
    transaction: str = "4200000000202611230000000001"
    """The channel's own number of the payment, of the channel's form."""

    other_merchant: str = "m-2002"
    """Another merchant's id, of the same form as the one that messages carry."""

    other_app: str = ""
    reference: str | None = None
    """`channel_reference` of the payment, for a channel that is queried by it."""

    other_reference: str | None = None
    """`channel_reference` of the payment with the number OTHER_NUMBER."""

    signs_whole_body: bool = True
    """Whether the signature of a callback covers its whole body. Otherwise all of them are hints."""

    methods: tuple[str, ...]
    """All methods of the adapter."""

    method: str = ""
    """The method under test, with which the simulator learns of the payment at its creation."""

    payer_needed: Mapping[str, str] = {}
    """Method → required field of the payer (`openid`, `client_ip`): without it nothing is sent."""

    required: tuple[str, ...]
    """Keys of the credentials without which no account opens; each is named when it is missing."""

    bad_credentials: tuple[BadCredential, ...] = ()

    numbers: tuple[str, ...] = ()
    """Payment numbers that this channel allows and addresses or forms must take care of."""

    @abstractmethod
    def account(self, base_url: str, *keys: Key) -> AccountConfig:
        """The account's configuration with these keys (both when none is given), the first of which signs.

        Keys are made at run time, once for the session: RSA ones take long.
        """
        ...

    @abstractmethod
    def simulator_account(self, callback_url: str = "") -> Account:
        """The simulator's account, both keys valid and NEW first. `callback_url` is the account-wide address."""
        ...

    def mixed_accounts(self) -> Mapping[str, AccountConfig]:
        """Accounts that mix test and live (keys, hosts); none opens."""
        return {}

    # -- calls and responses -------------------------------------------------------------------------------------------

    responses_are_signed: bool
    """False: only TLS authenticates the channel."""

    refusals_are_signed: bool
    """Whether refusals are signed as well; False for a channel that signs nothing."""

    responses_cover_requests: bool = False
    """Whether a response's signature covers its request, so that it does not verify for another request."""

    response_tolerance_s: int | None = None
    """Largest distance from now of the time in a response's signature; None: it contains no time."""

    sent_as: Mapping[CallKind, CallKind] = {}
    """Calls without an address of their own → the call that is sent instead."""

    unsigned_calls: frozenset[CallKind] = frozenset()
    """Calls whose responses are not signed although others are: a file that is proved by its hash."""

    response_keys_are_pinned: bool = True
    """Whether a response signed with a key that the account does not hold is refused. No effect when unsigned."""

    refusal_code: str
    """The channel's error code for a wrong parameter; it becomes `ChannelRefused.code`."""

    queries: Reportable
    needs_capture: bool = False
    idempotency_header: str = ""
    """Header that marks a repeated creation or refund; empty where a number in the body does."""

    reports_under_way: bool = False
    """Whether the channel reports that an unpaid payment is under way by a slow method."""

    closes: bool = True
    """Whether a payment can be closed on request; False: `close_payment` changes nothing and raises nothing."""

    missing_until_seen: bool = False
    """Whether the channel knows no payment before the buyer opens the pay page."""

    lists_undelivered: bool = False
    """Whether the channel lists the callbacks that it could not deliver."""

    reports_only_successful_refunds: bool = False
    """Whether a refund that is under way or failed is reported as missing, and a second try as under way."""

    gives_refund_numbers: bool = True
    """Whether the channel has a number of its own for each refund."""

    notices_number: bool = False
    """Whether its callback about a refund has the channel's own number of it, and is to be believed."""

    checkout_kind: str
    """Checkout kind of `method`: redirect, qr or client."""

    created_fields: frozenset[str]
    """Fields of `PaymentReport` in a creation's response that must match the requested payment."""

    @abstractmethod
    def kind(self, request: WireRequest) -> CallKind:
        """Kind of a request. TOKEN and CERTIFICATES only precede other calls and are never altered by a test."""
        ...

    def preceding_response(self, request: WireRequest) -> WireResponse:
        """Response to a TOKEN or CERTIFICATES call in offline tests, where no simulator runs."""
        del request
        return WireResponse(503, {}, b"")

    @abstractmethod
    def render(self, report: PaymentReport) -> bytes:
        """Content of a query's response: the JSON object that is signed (or, unsigned, the body)."""
        ...

    @abstractmethod
    def render_created(self, report: PaymentReport, checkout: str) -> bytes:
        """Content of the response to a creation by `method`, with this checkout (an address, a code)."""
        ...

    @abstractmethod
    def signed_response(
        self, request: WireRequest, status: int, body: bytes, *, at: float | None = None, key: Key = Key.NEW
    ) -> WireResponse:
        """The channel's response to this request with this body, signed and wrapped. The body may be any bytes.

        `at` is the time of the signature, now by default. Here even statuses are signed that the channel does not sign.
        """
        ...

    @abstractmethod
    def missing_response(self, request: WireRequest) -> WireResponse:
        """The response for a payment that does not exist."""
        ...

    @abstractmethod
    def refusal_response(self, request: WireRequest, code: str) -> WireResponse:
        """The response that refuses a parameter with this code, signed if the channel signs refusals."""
        ...

    def unsigned_response(self, response: WireResponse) -> WireResponse:
        """The response without its signature."""
        return response._replace(headers={"content-type": "application/json"})

    def with_response_signature(self, response: WireResponse, text: str) -> WireResponse:
        """The response with this text in place of its signature. Headers go over the wire as UTF-8."""
        raise NotImplementedError

    def unclear_responses(self, request: WireRequest) -> Mapping[str, WireResponse]:
        """Query responses of this channel that prove nothing: a system error, a repeated node, a signature under an
        unknown key id, livemode of the other world …
        """
        del request
        return {}

    # -- callbacks -----------------------------------------------------------------------------------------------------

    acknowledgement: Acknowledgement
    callbacks: Reportable
    form: Form = Form.JSON
    notification_id: str = "cb_0123456789abcdef01234567"
    tolerance_s: int | None = 300
    """Largest distance between a callback's signature time and its receipt; None: no time is checked."""

    keys_are_pinned: bool = True
    """Whether a callback verifies only with a key that the account holds; False: with any certified key."""

    spellings_vary: bool = False
    """Whether other bytes may mean the same and verify too (a form's escapes); the callback is then the same."""

    nonsense_errors: tuple[type[ChannelError], ...] = ()
    """Errors allowed for signed nonsense; a channel with the signature inside the content may report it as forged."""

    rejections: tuple[type[ChannelError], ...] = (CallbackRejected,)
    """Errors allowed for a callback with a changed byte; ChannelUnavailable where a header names what to fetch."""

    signature_headers: tuple[str, ...] = ()
    """Headers that contain the signature or are covered by it."""

    bad_signatures: tuple[str, ...] = ()
    """Texts that resemble a signature of this channel."""

    @abstractmethod
    def render_callback(self, report: PaymentReport, notification_id: str) -> bytes:
        """Content of a callback: the bytes that its signature covers (before encryption, without `sign`)."""
        ...

    @abstractmethod
    def sign_callback(
        self, content: bytes, notification_id: str, *, at: float | None = None, key: Key = Key.NEW
    ) -> CallbackRequest:
        """The callback with this content, signed (and encrypted). The content may be any bytes.

        A form that is signed by its fields is parsed leniently, signed, and `sign` and `sign_type` are appended.
        """
        ...

    def without_signature(self, callback: CallbackRequest) -> Mapping[str, CallbackRequest]:
        """The callback without its signature: each header removed, each empty, all removed."""
        found = {"no headers": callback._replace(headers={})}
        for name in self.signature_headers:
            found[f"without {name}"] = callback._replace(headers=without(callback.headers, name))
            found[f"empty {name}"] = callback._replace(headers=callback.headers | {name: ""})
        return found

    def with_signature(self, callback: CallbackRequest, text: str) -> Mapping[str, CallbackRequest]:
        """The callback with this text in place of each part of its signature."""
        return {name: callback._replace(headers=callback.headers | {name: text}) for name in self.signature_headers}

    def doubled(self, callback: CallbackRequest) -> CallbackRequest | None:
        """The callback with its signature twice, as a repeated header arrives; None where that is allowed."""
        name = self.signature_headers[0]
        return callback._replace(
            headers=callback.headers | {name: f"{callback.headers[name]}, {callback.headers[name]}"}
        )

    def at_another_time(self, callback: CallbackRequest, at: float) -> CallbackRequest | None:
        """The callback with another time under the same signature; None where it contains no time."""
        del callback, at
        return None

    def reserialised(self, callback: CallbackRequest) -> CallbackRequest | None:
        """The same content in other bytes; None where fields are signed instead of bytes."""
        return callback._replace(body=callback.body.replace(b":", b": "))

    def forged(self, *, at: float) -> Mapping[str, CallbackRequest]:
        """Forged callbacks special to this channel: another merchant's, another algorithm, a foreign
        certificate, another webhook's id …
        """
        del at
        return {}

    def unreadable(self, *, at: float) -> Mapping[str, CallbackRequest]:
        """Genuine but unreadable callbacks of this channel: a different id, a short nonce in the envelope …"""
        del at
        return {}

    def unrelated(self, *, at: float) -> Mapping[str, CallbackRequest]:
        """Genuine callbacks about no money: acknowledged, without evidence."""
        del at
        return {}

    def other_world(self, *, at: float) -> Mapping[str, CallbackRequest]:
        """Genuine callbacks about money of the other world, where one address gets both."""
        del at
        return {}

    def other_forms(self, *, at: float) -> Mapping[str, tuple[CallbackRequest, tuple[str, ...]]]:
        """Genuine callbacks about money in other forms than those of our payments, each with the ids in it."""
        del at
        return {}

    def lapsed(self, *, at: float) -> CallbackRequest | None:
        """The channel's callback that it has ended an approval; None: it has no approvals."""
        del at
        return None

    lowers_currency: bool = False
    """Whether the driver writes every currency in small letters, as the channel does."""

    # -- statements ----------------------------------------------------------------------------------------------------

    statement: bytes
    """Two rows: NUMBER paid by `transaction` at PAID_AT, and 1000 of it refunded as REFUND_NO a second later."""

    states_totals: bool = False
    """Whether the channel's statements state counts or sums."""

    statement_rows: tuple[StatementRow, ...]
    """The rows of `statement`."""

    def statement_with_number(self, number: str) -> bytes:
        """`statement` with another number of the payment."""
        return self.statement.replace(NUMBER.encode(), number.encode())

    @abstractmethod
    def malformed_statements(self) -> Mapping[str, bytes]:
        """`statement` with one defect in the first row each (amount, time …); the second row stays readable."""
        ...

    def no_statements(self) -> Mapping[str, bytes]:
        """Files that are no statement of this channel: another header, cut off, bad gzip …"""
        return {}

    def same_statements(self) -> Mapping[str, bytes]:
        """The rows of `statement` in the channel's other forms: packed, with older columns, with other line ends …"""
        return {}

    @abstractmethod
    def write_statement(self, into: IO[bytes], rows: int) -> None:
        """Write a statement with this many payments, to measure the memory that reading takes."""
        ...

    def with_others(self, report: PaymentReport) -> PaymentReport:
        """The report with this channel's other merchant or app where a test writes `other`."""
        merchant = self.other_merchant if report.merchant == "other" else report.merchant
        return msgspec.structs.replace(
            report, merchant=merchant, app=self.other_app if report.app == "other" else report.app
        )

    # -- our row -------------------------------------------------------------------------------------------------------

    def payment(
        self, number: str = NUMBER, *, payable_until: datetime | None = None, created_at: datetime = CREATED_AT
    ) -> Payment:
        """Our row of the payment, not yet created at the channel."""
        return Payment(
            channel_account="main",
            out_trade_no=number,
            order_no="A-1001",
            attempt_no=1,
            amount=AMOUNT,
            currency=self.currency,
            status=PaymentStatus.OPEN,
            payable_until=payable_until or datetime(2038, 1, 19, 3, 14, 7, tzinfo=UTC),
            created_at=created_at,
            method=self.method,
        )

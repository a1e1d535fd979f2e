"""Bodies and queries of /v1. OpenAPI is generated from these very types.

Texts are free of control characters before they come here (`api.http.request`), so a pattern's `$` cannot let a
trailing newline through, and the patterns stay readable for clients in any language.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from ipaddress import ip_address
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from api.v1.acts import DryRun, Reason
from core.act_view import PreviewView
from core.clocks import Instant
from core.dispute import DisputeKind, DisputeState
from core.errors import InvalidRequest
from core.evidence import ID_CHARACTERS_MAX
from core.money import AMOUNT_MAX, CURRENCIES
from core.order import (
    ACCOUNT_NAME,
    ORDER_NO,
    PAYABLE_MAX,
    CaseReason,
    OrderStatus,
    Origin,
    PaymentStatus,
    PublicStatus,
    RefundReason,
    RefundStatus,
)
from core.paying import ACCOUNTS_MAX

EXPIRES_MIN_S = 1
EXPIRES_MAX_S = 30 * 86_400
LIST_LIMIT_MAX = 200

OF_ANOTHER_RELEASE = "One of our codes; a later release may have others."

OrderNo = Annotated[
    str, Meta(pattern=f"^{ORDER_NO.pattern}$", description="The merchant's order number.", examples=["2026-1123-0001"])
]
WatchedNumber = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=ID_CHARACTERS_MAX,
        description="The payment's number at its channel, in the form that the channel takes.",
    ),
]
AccountName = Annotated[
    str, Meta(pattern=f"^{ACCOUNT_NAME.pattern}$", description="Our name of a channel account.", examples=["main"])
]
Method = Annotated[str, Meta(pattern=r"^[0-9A-Za-z_.\-]{0,40}$", description="The channel's name of a way to pay.")]
Amount = Annotated[int, Meta(ge=1, le=AMOUNT_MAX, description="In minor units: 8888 is 88.88 CNY.", examples=[8888])]
Currency = Annotated[str, Meta(pattern="^[A-Z]{3}$", description="ISO 4217.", examples=["CNY"])]
Subject = Annotated[
    str, Meta(min_length=1, max_length=127, description="Text for the buyer; plain.", examples=["A pot of tea"])
]
MetadataKey = Annotated[str, Meta(min_length=1, max_length=40)]
MetadataValue = Annotated[str, Meta(max_length=500)]
Metadata = Annotated[dict[MetadataKey, MetadataValue], Meta(max_length=20)]
OpenId = Annotated[
    str,
    Meta(pattern=r"^[0-9A-Za-z_\-]{1,128}$", description="The buyer's id at the merchant's app, for WeChat Pay jsapi."),
]
ClientIp = Annotated[
    str, Meta(pattern="^[0-9A-Fa-f.:]{2,45}$", description="The buyer's IPv4 or IPv6 address, for WeChat Pay h5.")
]
Cursor = Annotated[str, Meta(min_length=1, max_length=300, pattern=r"^[0-9A-Za-z_\-]+$")]
Limit = Annotated[int, Meta(ge=1, le=LIST_LIMIT_MAX)]

# No userinfo, no backslash, no space: browsers and libraries disagree about the host of such an address.
Url = Annotated[
    str,
    Meta(
        max_length=2048,
        pattern=r"^https?://(?:[0-9A-Za-z_.\-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:[/?#][!-\[\]-~]*)?$",
    ),
]


class _Input(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An unknown field is refused: a misspelt optional one must not be dropped silently."""


class WatchInput(_Input, frozen=True, kw_only=True):
    """A payment that was created elsewhere: nodrop only queries it, and never closes or refunds it."""

    out_trade_no: WatchedNumber
    channel_reference: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    payable_until: Instant | None = None


class PayerInput(_Input, frozen=True, kw_only=True):
    """Data about the buyer that some methods require. What the method needs is kept while the payment is
    open, and never logged.
    """

    openid: OpenId | None = None
    client_ip: ClientIp | None = None


class PaymentInput(_Input, frozen=True, kw_only=True):
    """A payment to start. `method` is one of the channel's own; without it, the channel's first."""

    account: AccountName
    method: Method = ""
    payer: PayerInput | None = None
    watch: WatchInput | None = None


class OrderInput(_Input, frozen=True, kw_only=True):
    """An order to place. `order_no` is the idempotency key; without `account` no payment is started yet.

    `accounts` are those among which the buyer may choose on the order's page; `account` is one of them, if there are
    both. With `accounts`, `payer.openid` is kept with the order until it is paid or closed, and never logged.
    """

    order_no: OrderNo
    amount: Amount
    currency: Currency
    subject: Subject
    account: AccountName | None = None
    method: Method = ""
    accounts: Annotated[tuple[AccountName, ...], Meta(min_length=1, max_length=ACCOUNTS_MAX)] | None = None
    expires_in_s: Annotated[float, Meta(ge=EXPIRES_MIN_S, le=EXPIRES_MAX_S)] | None = None
    notify_url: Url | None = None
    return_url: Url | None = None
    metadata: Metadata = {}
    payer: PayerInput | None = None
    watch: WatchInput | None = None


class OrderActInput(_Input, frozen=True, kw_only=True):
    """An act on an order; the whole body may be left out. A person's program gives a reason."""

    reason: Reason | None = None
    dry_run: DryRun = False


class OrdersQuery(_Input, frozen=True, kw_only=True):
    """Choice of orders to list, newest first."""

    status: OrderStatus | None = None
    account: AccountName | None = None
    created_after: Instant | None = None
    created_before: Instant | None = None
    cursor: Cursor | None = None
    limit: Limit = 50


class CasesSort(StrEnum):
    """Order of a list of cases, by the time they were opened."""

    NEWEST = "newest"
    OLDEST = "oldest"


class CasesQuery(_Input, frozen=True, kw_only=True):
    """Choice of cases to list. `open` is true by default: those are the ones to look at. `assignee`: only theirs.

    `unassigned`: only those that nobody works on. `sort` is `newest` first, or `oldest` first, as an inbox has them; a
    cursor goes on in the sort of its own list.
    """

    open: bool = True
    reason: CaseReason | None = None
    order_no: OrderNo | None = None
    assignee: Annotated[str, Meta(min_length=1, max_length=80)] | None = None
    unassigned: bool = False
    sort: CasesSort = CasesSort.NEWEST
    cursor: Cursor | None = None
    limit: Limit = 50


# -- responses --------------------------------------------------------------------------------------------------------


class PaidBy(msgspec.Struct, frozen=True, kw_only=True):
    account: str
    out_trade_no: str


class CheckoutView(msgspec.Struct, frozen=True, kw_only=True):
    """`redirect`: a URL to send the buyer to. `qr`: a text to draw. `client`: a token for the channel's client SDK.

    From `ends_at` on it does not work: the same request again brings one that does.
    """

    kind: str
    value: str
    ends_at: Instant | None


class PaymentView(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt to pay. `confirmed` false: a callback alone has paid it, and no query has confirmed that yet.

    `confirmed` null: it is not paid.
    """

    out_trade_no: str
    account: str
    method: str
    attempt_no: int
    status: PaymentStatus
    origin: Origin
    amount: int
    currency: str
    checkout: CheckoutView | None
    channel_reference: str | None
    channel_transaction_id: str | None
    payable_until: Instant
    paid_at: Instant | None
    confirmed: bool | None
    refunded_amount: int | None
    remaining_amount: int | None
    live: bool | None


class RefundView(msgspec.Struct, frozen=True, kw_only=True):
    """Money of one payment that goes back, or has gone: late or double money by policy, any by an operator.

    `key` is the one that the refund was requested with. `channel_refund_no` is the channel's own number of it, which a
    bank or the channel's support asks for; null: not known yet, or the channel gives none.
    """

    refund_no: str
    channel_refund_no: str | None
    account: str
    out_trade_no: str
    amount: int
    currency: str
    reason: RefundReason
    status: RefundStatus
    requested_at: Instant
    settled_at: Instant | None
    key: str | None


class ApprovalView(msgspec.Struct, frozen=True, kw_only=True):
    """A refund above the limit of one operator. `decision` null: nobody has decided; `refund_no`: what it became."""

    id: int
    order_no: str
    account: str
    out_trade_no: str
    amount: int
    currency: str
    request_key: str
    reason: str
    requested_by: str
    requested_at: Instant
    expires_at: Instant
    decision: str | None
    decided_by: str | None
    decided_at: Instant | None
    decided_reason: str
    refund_no: str | None
    is_expired: bool


class DisputeView(msgspec.Struct, frozen=True, kw_only=True):
    """A channel takes money back, or could not give it back. `withheld`: the money is not there."""

    dispute_id: str
    account: str
    out_trade_no: str
    kind: DisputeKind
    state: DisputeState
    withheld: bool
    amount: int | None
    currency: str | None
    reason: str
    outcome: str
    respond_by: Instant | None
    opened_at: Instant
    changed_at: Instant


class OpenCase(msgspec.Struct, frozen=True, kw_only=True):
    """A question about this order that a person has to answer."""

    reason: Annotated[str, Meta(examples=list(CaseReason), description=OF_ANOTHER_RELEASE)]
    account: str | None
    out_trade_no: str | None


class ActPreview(msgspec.Struct, frozen=True, kw_only=True):
    """Effects of the act as things stand: the answer to a dry run."""

    preview: PreviewView


class OrderView(msgspec.Struct, frozen=True, kw_only=True):
    """An order with its payments. `version` grows with every change; `public_status` is what its page says.

    `live` false: test money; null: of both worlds, or started before this was kept.
    """

    order_no: str
    status: OrderStatus
    public_status: PublicStatus
    version: int
    amount: int
    currency: str
    subject: str
    order_page: str
    created_at: Instant
    expires_at: Instant
    handed_off_at: Instant | None
    paid_at: Instant | None
    closed_at: Instant | None
    paid_by: PaidBy | None
    notify_url: str | None
    return_url: str | None
    metadata: dict[str, str]
    accounts: Sequence[str] | None
    payments: Sequence[PaymentView]
    refunds: Sequence[RefundView]
    disputes: Sequence[DisputeView]
    live: bool | None
    open_cases: Sequence[OpenCase]


class OrderPage(msgspec.Struct, frozen=True, kw_only=True):
    orders: Sequence[OrderView]
    next_cursor: str | None


class TimelineView(msgspec.Struct, frozen=True, kw_only=True):
    """Something that changed the order (with a version) or was only seen (without one)."""

    at: Instant
    kind: str
    by: str
    version: int | None
    account: str | None
    out_trade_no: str | None
    note: str
    evidence: dict[str, Any] | None
    api_key: str | None
    """Id of the API key whose request made the change."""


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    entries: Sequence[TimelineView]


class CaseView(msgspec.Struct, frozen=True, kw_only=True):
    """A question for a person, open until `resolved_at`. `assignee` works on it; `version` grows with each act."""

    id: int
    order_no: str | None
    account: str | None
    out_trade_no: str | None
    reason: str
    detail: str
    opened_at: Instant
    resolved_at: Instant | None
    resolution: str | None
    by: str | None
    assignee: str | None
    assigned_at: Instant | None
    version: int


class CasePage(msgspec.Struct, frozen=True, kw_only=True):
    cases: Sequence[CaseView]
    next_cursor: str | None


# -- checks beyond the types -------------------------------------------------------------------------------------------


def check_url(name: str, url: str | None, *, https_only: bool) -> None:
    """Check what the pattern leaves open: a port that exists, and https where a notification would show a payment.

    Raises:
        InvalidRequest: names the field.
    """
    if url is None:
        return
    try:
        parts = urlsplit(url)
        is_named = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_named = False
    if not is_named:
        raise InvalidRequest(f"{name} is not an address")
    if https_only and not url.startswith("https:"):
        raise InvalidRequest(f"{name} must be https")


def check_accounts(accounts: Sequence[str] | None, account: str | None) -> None:
    """Check that no account is named twice, and that the first payment's is among them.

    Raises:
        InvalidRequest: names the field.
    """
    if accounts is None:
        return
    if len(set(accounts)) != len(accounts):
        raise InvalidRequest("accounts: each is named once")
    if account is not None and account not in accounts:
        raise InvalidRequest("account is none of accounts")


def check_currency(currency: str) -> None:
    """Check what the pattern leaves open: that money has this currency.

    Raises:
        InvalidRequest: ISO 4217 has no such code for money.
    """
    if currency not in CURRENCIES:
        raise InvalidRequest(f"currency: ISO 4217 has no money with the code {currency}")


def check_client_ip(payer: PayerInput | None) -> None:
    """Check what the pattern leaves open: that it is an address.

    Raises:
        InvalidRequest: it is none; the text is not repeated, for it may be personal data.
    """
    try:
        if payer is not None and payer.client_ip is not None:
            ip_address(payer.client_ip)
    except ValueError:
        raise InvalidRequest("payer.client_ip is not an IP address") from None


def check_payable_until(watch: WatchInput | None, now: datetime) -> None:
    """A payment is watched until then at most as long as our own payments.

    Raises:
        InvalidRequest: it is further away.
    """
    if watch is None or watch.payable_until is None:
        return
    if watch.payable_until - now > PAYABLE_MAX:
        raise InvalidRequest(f"watch.payable_until is more than {PAYABLE_MAX.days} days away")

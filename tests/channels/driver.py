"""What the conformance suite asks of a channel's far side. A further channel adds one driver, and passes every test.

In whatever channels differ is said here, as a value or as a small method: no test asks which channel it has before it.
A driver inherits from `Driver`, so it writes only what differs from the common case.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import IO, Protocol

import msgspec

from channels.base import Acknowledgement, StatementRow
from core.account import AccountConfig
from core.errors import CallbackRejected, ChannelError, ChannelUnreadable
from core.order import Payment, PaymentStatus
from simulator.kernel.base import Account
from simulator.kernel.faults import CallKind
from tests.channels.reports import (
    AMOUNT,
    NUMBER,
    OFFLINE_URL,
    OTHER_NUMBER,
    PAID_AT,
    REFUND_NO,
    TODAY,
    Form,
    Key,
    Said,
    Sent,
    Tells,
    Wrong,
    without,
)
from tests.channels.wire import Answered, Asked

__all__ = [
    "AMOUNT",
    "NUMBER",
    "OFFLINE_URL",
    "OTHER_NUMBER",
    "PAID_AT",
    "REFUND_NO",
    "TODAY",
    "Driver",
    "Form",
    "Key",
    "Said",
    "Sent",
    "Tells",
    "Wrong",
    "without",
]

CREATED_AT = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)


class Driver(Protocol):
    """Plays the channel: signs as it does, and says whatever a test wants to have said. Written from the protocol."""

    # -- the account ---------------------------------------------------------------------------------------------------

    channel: str
    merchant_id: str
    """By which the simulator knows the account."""

    currency: str = "CNY"
    transaction: str = "4200000000202611230000000001"
    """The channel's own number of the payment, of the channel's form."""

    other_merchant: str = "m-2002"
    """Another merchant's id, of the same form as the one that messages carry."""

    other_app: str = ""
    reference: str | None = None
    """`channel_reference` of the payment, for a channel that is asked by it; offline and in what the driver says."""

    other_reference: str | None = None
    """That of another payment: the one with the number OTHER_NUMBER."""

    methods: tuple[str, ...]
    """All that the adapter knows."""

    method: str = ""
    """The one under test, by which the far side hears of the payment when it is created."""

    payer_needed: Mapping[str, str] = {}
    """Method → what must be known of the payer (`openid`, `client_ip`): without it nothing is sent."""

    required: tuple[str, ...]
    """Keys of the credentials without which no account opens; each is named when it is missing."""

    wrong: tuple[Wrong, ...] = ()

    numbers: tuple[str, ...] = ()
    """Payment numbers that this channel allows and addresses or forms must take care of."""

    @abstractmethod
    def account(self, base_url: str, *keys: Key) -> AccountConfig:
        """Our side of the account, with these keys (both when none is named), the first of which signs.

        Keys are made at run time, once for the session: RSA ones take long.
        """
        ...

    @abstractmethod
    def far_account(self, callback_url: str = "") -> Account:
        """The simulator's side of it, both keys valid and NEW first. `callback_url` is the account-wide address."""
        ...

    def mixed_accounts(self) -> Mapping[str, AccountConfig]:
        """Accounts that mix test and live (keys, hosts): none opens."""
        return {}

    # -- calls and answers ---------------------------------------------------------------------------------------------

    answers_are_signed: bool
    """False: only TLS says who answers."""

    refusals_are_signed: bool
    """Whether answers that refuse are signed as well; False of a channel that signs nothing."""

    answers_are_bound: bool = False
    """Whether the signature of an answer covers the question, so that it does not verify for another one."""

    answer_tolerance_s: int | None = None
    """How far the time in an answer's signature may lie from now; None: there is none in it."""

    asked_as: Mapping[CallKind, CallKind] = {}
    """Calls that have no address of their own here, and as which other call they are made."""

    unsigned_calls: frozenset[CallKind] = frozenset()
    """Calls whose answers are not signed although others are: a file that is proved by its hash."""

    answer_keys_are_pinned: bool = True
    """Whether an answer signed with a key that the account does not hold is refused. Without effect when unsigned."""

    refusal_code: str
    """An error code of the channel for a parameter that is wrong: what `ChannelRefused.code` becomes."""

    queries: Tells
    needs_capture: bool = False
    idempotency_header: str = ""
    """By which it knows a creation or a refund that is asked for again; empty where a number in the body does that."""

    tells_under_way: bool = False
    """Whether it says of a payment without money that the buyer has sent it by a slow method."""

    closes: bool = True
    """Whether a payment can be closed on request; False: `close_payment` changes nothing and raises nothing."""

    missing_until_seen: bool = False
    """Whether the channel knows nothing of a payment before the buyer has looked at the pay page."""

    tells_undelivered: bool = False
    """Whether the channel lists the callbacks that it could not deliver."""

    tells_success_of_refunds_only: bool = False
    """Whether a refund under way, or a failed one, is told as if there were none, and a second try as under way."""

    checkout_kind: str
    """Of `method`: redirect, qr or client."""

    created_tells: frozenset[str]
    """Fields of `Said` in the answer to a creation that must be those of the payment asked for."""

    @abstractmethod
    def kind(self, asked: Asked) -> CallKind:
        """Which call this is. TOKEN and CERTIFICATES only precede the others and are never altered by a test."""
        ...

    def aside(self, asked: Asked) -> Answered:
        """The answer to a TOKEN or CERTIFICATES call, where no simulator answers: in tests offline."""
        del asked
        return Answered(503, {}, b"")

    @abstractmethod
    def render(self, said: Said) -> bytes:
        """What an answer to a query says: the JSON object that is signed (or, unsigned, the body)."""
        ...

    @abstractmethod
    def render_created(self, said: Said, checkout: str) -> bytes:
        """The same of an answer to a creation by `method`, with this to pay with (an address, a code)."""
        ...

    @abstractmethod
    def answer(
        self, asked: Asked, status: int, body: bytes, *, at: float | None = None, key: Key = Key.NEW
    ) -> Answered:
        """This body as the channel answers this question with it: signed and wrapped as it does. Any bytes may come.

        `at` is when it says that it signed, now unless told. A channel that signs only some statuses signs here all.
        """
        ...

    @abstractmethod
    def missing(self, asked: Asked) -> Answered:
        """The answer that there is no such payment."""
        ...

    @abstractmethod
    def refusal(self, asked: Asked, code: str) -> Answered:
        """The answer that refuses because of a parameter, with this code, signed if the channel signs it."""
        ...

    def unsigned_answer(self, answered: Answered) -> Answered:
        """The same without its signature."""
        return answered._replace(headers={"content-type": "application/json"})

    def with_answer_signature(self, answered: Answered, text: str) -> Answered:
        """The same with this text in the place of the signature. Headers go over the wire as UTF-8."""
        raise NotImplementedError

    def unclear(self, asked: Asked) -> Mapping[str, Answered]:
        """Answers to a query, special to this channel, from which nothing can be learnt: a system error, a node twice,
        a signature under an unknown key id, livemode of the other world …
        """
        del asked
        return {}

    # -- callbacks -----------------------------------------------------------------------------------------------------

    acknowledgement: Acknowledgement
    callbacks: Tells
    form: Form = Form.JSON
    notification_id: str = "cb_0123456789abcdef01234567"
    tolerance_s: int | None = 300
    """How far the time in a callback's signature may lie from its receipt; None: no time is checked."""

    keys_are_pinned: bool = True
    """Whether a callback verifies only with a key that the account holds; False: with any that a certificate names."""

    spellings_vary: bool = False
    """Whether other bytes may mean the same and verify too (a form's escapes): then the same callback comes out."""

    nonsense: tuple[type[ChannelError], ...] = (ChannelUnreadable,)
    """What genuine nonsense may be called; a channel whose signature is inside the nonsense may call it forged."""

    rejections: tuple[type[ChannelError], ...] = (CallbackRejected,)
    """What a callback with any byte changed may be called; ChannelUnavailable where a header says what to fetch."""

    signature_headers: tuple[str, ...] = ()
    """All headers that the signature is made of or over."""

    bad_signatures: tuple[str, ...] = ()
    """Texts that are almost a signature of this channel."""

    @abstractmethod
    def render_callback(self, said: Said, notification_id: str) -> bytes:
        """What a callback says: the bytes that its signature is about (before they are encrypted, without `sign`)."""
        ...

    @abstractmethod
    def sign_callback(
        self, content: bytes, notification_id: str, *, at: float | None = None, key: Key = Key.NEW
    ) -> Sent:
        """This content as the channel sends it, signed (and encrypted). Any bytes may come, also none that make sense.

        A form that is signed by its fields is read leniently, signed, and `sign` and `sign_type` are put at its end.
        """
        ...

    def unsigned(self, sent: Sent) -> Mapping[str, Sent]:
        """The callback without its proof, in every way: each header away, each empty, all away."""
        found = {"no headers": sent._replace(headers={})}
        for name in self.signature_headers:
            found[f"without {name}"] = sent._replace(headers=without(sent.headers, name))
            found[f"empty {name}"] = sent._replace(headers=sent.headers | {name: ""})
        return found

    def with_signature(self, sent: Sent, text: str) -> Mapping[str, Sent]:
        """The callback with this text in the place of its signature, in each place that has a part of it."""
        return {name: sent._replace(headers=sent.headers | {name: text}) for name in self.signature_headers}

    def doubled(self, sent: Sent) -> Sent | None:
        """With its signature twice, as a header sent twice arrives; None where two signatures are in order."""
        name = self.signature_headers[0]
        return sent._replace(headers=sent.headers | {name: f"{sent.headers[name]}, {sent.headers[name]}"})

    def at_another_time(self, sent: Sent, at: float) -> Sent | None:
        """With another time claimed under the same signature; None where no time is told."""
        del sent, at
        return None

    def reserialised(self, sent: Sent) -> Sent | None:
        """The same meaning in other bytes, where the bytes are signed; None where the meaning is."""
        return sent._replace(body=sent.body.replace(b":", b": "))

    def forged(self, *, at: float) -> Mapping[str, Sent]:
        """Callbacks that only this channel could be sent, each to be called forged: another merchant's, another
        algorithm, a certificate from elsewhere, another webhook's id …
        """
        del at
        return {}

    def unreadable(self, *, at: float) -> Mapping[str, Sent]:
        """Genuine ones of this channel to be called unreadable: an id that differs, a short nonce in the envelope …"""
        del at
        return {}

    def unrelated(self, *, at: float) -> Mapping[str, Sent]:
        """Genuine ones that concern no payment of ours: acknowledged, without evidence."""
        del at
        return {}

    # -- statements ----------------------------------------------------------------------------------------------------

    statement: bytes
    """Two rows: NUMBER paid by `transaction` at PAID_AT, and 1000 of it given back as REFUND_NO, a second later."""

    statement_rows: tuple[StatementRow, ...]
    """What is read in it."""

    @abstractmethod
    def malformed_statements(self) -> Mapping[str, bytes]:
        """The same with the first row spoilt in one way each (amount, time …): the second is read all the same."""
        ...

    def no_statements(self) -> Mapping[str, bytes]:
        """What is no statement of this channel's, besides what is none of any: another header, cut off, bad gzip …"""
        return {}

    @abstractmethod
    def write_statement(self, into: IO[bytes], rows: int) -> None:
        """A statement with so many payments, for a look at the memory that it takes to read it."""
        ...

    def meant(self, said: Said) -> Said:
        """With another merchant or app of this channel's form where a test says `other`."""
        merchant = self.other_merchant if said.merchant == "other" else said.merchant
        return msgspec.structs.replace(said, merchant=merchant, app=self.other_app if said.app == "other" else said.app)

    # -- our row -------------------------------------------------------------------------------------------------------

    def payment(
        self, number: str = NUMBER, *, payable_until: datetime | None = None, created_at: datetime = CREATED_AT
    ) -> Payment:
        """Our row of it, not yet created."""
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

"""Stripe: its pay page (Checkout), and PaymentIntents for a merchant's own page.

https://docs.stripe.com/api ; requests are forms, responses JSON. Payments are queried by Stripe's ids, `cs_…` and
`pi_…`, and have our number in their metadata. Responses are not signed, so the object must be the requested one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import IO
from urllib.parse import quote

from channels.base import (
    NO_REFERENCE,
    Acknowledgement,
    Callback,
    ChannelRefund,
    Create,
    Created,
    Ignored,
    StatementItem,
    StatementRow,
)
from channels.kit.signed_message import read_json
from channels.kit.unreadable import unreadable_callback
from channels.stripe import statement as stripe_statement
from channels.stripe.account import base_url, read_credentials
from channels.stripe.api import Api, Refused, read_raw, require_success
from channels.stripe.creation import created_intent, created_session, intent_form, session_form
from channels.stripe.events import EVENTS, Event, event_evidence
from channels.stripe.money import to_stripe
from channels.stripe.objects import (
    Charge,
    Endpoint,
    Intent,
    Page,
    Refund,
    Session,
    SessionIds,
    intent_evidence,
    read_refusal,
    session_evidence,
    session_ids,
)
from channels.stripe.signature import verify
from channels.transport import Response, Transport
from core.account import AccountConfig
from core.checkout import CheckoutRules
from core.errors import ChannelRefused, ChannelUnreadable
from core.evidence import Evidence, Missing
from core.order import Origin, Payment

UNDELIVERED_PAGES_MAX = 10
REFUND_PAGES_MAX = 10

_SESSIONS = "/v1/checkout/sessions"
_INTENTS = "/v1/payment_intents"

_CHARGES = "/v1/charges"
_REFUNDS = "/v1/refunds"
_BY_PREFIX = {"ch_": _CHARGES, "py_": _CHARGES, "re_": _REFUNDS, "pyr_": _REFUNDS}

_STATUS_OK = 200
_STATUS_ERROR = 400
_STATUS_MISSING = 404


class Stripe:
    """One account at Stripe; implements `channels.base.Channel`."""

    methods: tuple[str, ...] = ("checkout", "payment_intent")
    callback_headers: tuple[str, ...] = ("stripe-signature",)
    queries_by_reference = True
    watched_number = re.compile(r"[^\x00-\x1f\x7f]{1,255}")
    longest_window: timedelta | None = None  # a session names its end, and a PaymentIntent has none
    statement_zone: tzinfo = UTC
    statement_format = "balance transactions of the API with their source expanded, one JSON object a line"
    checkouts = CheckoutRules(exists_once_created=True)
    events: tuple[str, ...] = EVENTS

    def __init__(self, account: AccountConfig, transport: Transport) -> None:
        credentials = read_credentials(account)
        self._name = account.name
        self._live = account.live
        self._secrets = credentials.webhook_secrets
        self._account_id = credentials.account_id
        self._api = Api(transport, base_url(account), credentials.secret_key, credentials.api_version)

    async def create_payment(self, create: Create) -> Created:
        """Create a session or an intent. Without its response nobody can pay it: nobody knows its address or secret.

        So 401 and 403 are definite too: an object that an earlier request created takes no money.
        """
        is_intent = create.payment.method == "payment_intent"
        form = intent_form(create) if is_intent else session_form(create)
        path = _INTENTS if is_intent else _SESSIONS
        response = await self._api.post(path, form, idempotency_key=create.payment.out_trade_no)
        read_created = created_intent if is_intent else created_session
        return read_created(create.payment, response.body, live=self._live)

    async def query_payment(self, payment: Payment) -> Evidence:
        path, expanded = _address(payment)
        return self._read_response(payment, await self._api.get(path, [("expand[]", expanded)]))

    async def find_number(self, number: str) -> str | None:
        """Id of the PaymentIntent of a charge or a refund."""
        path = next((path for prefix, path in _BY_PREFIX.items() if number.startswith(prefix)), None)
        if path is None:
            raise ChannelUnreadable(NO_REFERENCE)
        try:
            response = require_success(await self._api.get(f"{path}/{quote(number, safe='')}"))
        except Refused as refused:
            if refused.is_missing:
                return None
            raise
        body, is_charge = response.body, path == _CHARGES
        found: Charge | Refund = read_json(body, Charge) if is_charge else read_json(body, Refund)
        if found.id != number:
            raise ChannelUnreadable("other_object")
        if isinstance(found, Charge) and found.livemode is not self._live:
            raise ChannelUnreadable("livemode")
        return found.payment_intent

    def read_response(self, payment: Payment, response: Response, *, received_at: datetime) -> Evidence:
        """Read the response; it is unsigned, so `received_at` is compared with nothing."""
        del received_at
        return self._read_response(payment, response)

    def status_of(self, body: bytes) -> int:
        try:
            refusal = read_refusal(body)
        except ChannelUnreadable:
            return _STATUS_OK
        return _STATUS_MISSING if refusal.code == "resource_missing" else _STATUS_ERROR

    async def capture_payment(self, payment: Payment) -> None:
        """Stripe takes the money by itself: no object is created with manual capture."""

    async def close_payment(self, payment: Payment) -> None:
        """Expire a session, and with it a PaymentIntent that the buyer has begun; cancel an intent."""
        path, _ = _address(payment)
        try:
            await self._api.post(f"{path}/{'expire' if path.startswith(_SESSIONS) else 'cancel'}")
        except Refused as refused:
            # Paid, under way, or over already: the next query shows which. Stripe has no code for a session that is not
            # open, and nothing else in the request can be wrong.
            is_over = refused.refusal.code in (None, "payment_intent_unexpected_state")
            if not refused.is_missing and not (refused.status == _STATUS_ERROR and is_over):
                raise

    def check_refund(self, amount: int, currency: str) -> None:
        """Some currencies have places that must be 0."""
        to_stripe(amount, currency)

    async def refund_payment(self, payment: Payment, refund_no: str, amount: int) -> ChannelRefund:
        """Request a refund. Stripe forgets the idempotency key after a day: query the refund before a later repeat."""
        intent_id = await self._intent_id(payment)
        if intent_id is None:
            raise ChannelRefused("not_paid")
        form = [
            ("payment_intent", intent_id),
            ("amount", str(to_stripe(amount, payment.currency))),
            ("metadata[refund_no]", refund_no),
            ("metadata[out_trade_no]", payment.out_trade_no),
        ]
        response = await self._api.post(_REFUNDS, form, idempotency_key=refund_no)
        refund = read_json(response.body, Refund)
        is_same = (refund.payment_intent, refund.refund_no) == (intent_id, refund_no)
        if not is_same or refund.amount != to_stripe(amount, payment.currency):
            raise ChannelUnreadable("other_refund")
        return refund.as_channel_has_it

    async def query_refund(self, payment: Payment, refund_no: str) -> ChannelRefund | None:
        intent_id = await self._intent_id(payment)
        if intent_id is None:
            return None
        pages = self._api.pages(_REFUNDS, [("payment_intent", intent_id)], pages_max=REFUND_PAGES_MAX + 1)
        page_count = 0
        try:
            async for page in pages:
                page_count += 1
                if page_count > REFUND_PAGES_MAX:
                    raise ChannelUnreadable("refunds_without_end")
                for refund in (read_raw(raw, Refund) for raw in page):
                    if (refund.payment_intent, refund.refund_no) == (intent_id, refund_no):
                        return refund.as_channel_has_it
        except Refused as refused:
            if not refused.is_missing:
                raise
        return None

    async def verify_callback(self, headers: Mapping[str, str], body: bytes, *, received_at: datetime) -> Callback:
        verify(headers.get("stripe-signature", ""), body, self._secrets, received_at=received_at)
        return self._read_callback(body)

    def acknowledge(self) -> Acknowledgement:
        return Acknowledgement(status=200, content_type="text/plain; charset=utf-8", body=b"ok")

    async def fetch_undelivered(self) -> tuple[Evidence, ...]:
        """Evidence of events of the last 30 days that some endpoint has not acknowledged. Unreadable ones are left out:
        the payment's own query follows anyway.
        """
        query = [("delivery_success", "false"), *(("types[]", name) for name in EVENTS)]
        undelivered: list[Evidence] = []
        async for page in self._api.pages("/v1/events", query, pages_max=UNDELIVERED_PAGES_MAX):
            for raw in page:
                try:
                    event = read_raw(raw, Event)
                    evidence = self._evidence(event) if event.livemode is self._live else None
                except ChannelUnreadable:
                    continue
                if evidence is not None:
                    undelivered.append(evidence)
        return tuple(undelivered)

    async def fetch_subscribed(self, callback_url: str) -> frozenset[str] | None:
        subscribed: set[str] = set()
        async for page in self._api.pages("/v1/webhook_endpoints", [], pages_max=UNDELIVERED_PAGES_MAX):
            for endpoint in (read_raw(raw, Endpoint) for raw in page):
                if endpoint.url == callback_url and endpoint.status == "enabled":
                    subscribed |= {*endpoint.enabled_events}
        return frozenset(subscribed) or None

    async def keep_current(self) -> None:
        """Nothing to renew."""

    async def fetch_statement(self, day: date, into: IO[bytes]) -> None:
        await stripe_statement.fetch(self._api, day, into)

    def parse_statement(self, statement: IO[bytes]) -> Iterator[StatementItem]:
        return stripe_statement.parse(statement)

    async def resolve_row(self, row: StatementRow) -> tuple[str, ...]:
        """Ids of the session that the row's PaymentIntent was paid in: balance transactions do not name it."""
        intent = next((id_ for id_ in row.all_ids if id_.startswith("pi_")), None)
        if intent is None:
            return ()
        page = read_json(require_success(await self._api.get(_SESSIONS, [("payment_intent", intent)])).body, Page)
        return tuple(id_ for raw in page.data for id_ in session_ids(read_raw(raw, SessionIds)))

    # -- responses -----------------------------------------------------------------------------------------------------

    def _read_response(self, payment: Payment, response: Response) -> Evidence:
        try:
            body = require_success(response).body
        except Refused as refused:
            reference = payment.channel_reference or payment.out_trade_no
            if refused.is_missing and reference.startswith("cs_test_" if self._live else "cs_live_"):
                # Keys of the other world, to which the account was switched meanwhile, cannot see it.
                raise ChannelUnreadable("livemode") from None
            if refused.is_missing:
                return Missing(channel_account=self._name, out_trade_no=payment.out_trade_no)
            raise ChannelUnreadable(f"refused_{refused.code}") from None
        if _reference(payment).startswith("pi_"):
            intent = read_json(body, Intent)
            if intent.is_folded:
                raise ChannelUnreadable("not_expanded")
            return intent_evidence(intent, account=self._name, number=self._number_of(payment, intent))
        session = read_json(body, Session)
        if session.is_folded:
            raise ChannelUnreadable("not_expanded")
        return session_evidence(session, account=self._name, number=self._number_of(payment, session))

    def _number_of(self, payment: Payment, object_: Session | Intent) -> str:
        """Payment number of the object. One made elsewhere has none or a foreign one; then its id decides."""
        if object_.livemode is not self._live:
            raise ChannelUnreadable("livemode")
        others = [number for number in object_.numbers if number != payment.out_trade_no]
        if object_.id != _reference(payment):
            return (*others, object_.id)[0]
        if payment.origin is Origin.WATCHED or payment.out_trade_no in object_.numbers or not others:
            return payment.out_trade_no
        return others[0]

    def _read_callback(self, body: bytes) -> Callback:
        """Ask whether it is about money of this world, then read its object."""
        id_ = ""
        ids: tuple[str, ...] = ()
        try:
            event = read_json(body, Event)
            id_, ids = event.id, event.ids
            if event.livemode is not self._live:
                return Callback(notification_id=id_, evidence=None, ignored=Ignored.OTHER_WORLD)
            return Callback(notification_id=id_, evidence=self._evidence(event))
        except ChannelUnreadable as error:
            return unreadable_callback(self._name, body, error.detail, notification_id=id_, ids=ids)

    def _evidence(self, event: Event) -> Evidence | None:
        return event_evidence(event, account=self._name, account_id=self._account_id)

    async def _intent_id(self, payment: Payment) -> str | None:
        """Id of the PaymentIntent to refund; a session has one only after the buyer has begun."""
        if payment.channel_transaction_id is not None:
            return payment.channel_transaction_id
        if (reference := _reference(payment)).startswith("pi_"):
            return reference
        try:
            response = require_success(await self._api.get(_address(payment)[0]))
        except Refused as refused:
            if refused.is_missing:
                return None
            raise
        session = read_json(response.body, Session)
        if session.id != reference or session.livemode is not self._live:
            raise ChannelUnreadable("other_payment")
        return session.payment_intent.id if isinstance(session.payment_intent, Intent) else session.payment_intent


def _reference(payment: Payment) -> str:
    """Stripe's id of the payment; a watched payment may have it as its number."""
    reference = payment.channel_reference or payment.out_trade_no
    if not reference.startswith(("cs_", "pi_")):
        raise ChannelUnreadable(NO_REFERENCE)
    return reference


def _address(payment: Payment) -> tuple[str, str]:
    """Path of the payment, and its field to expand from an id to an object."""
    reference = quote(_reference(payment), safe="")
    if reference.startswith("cs_"):
        return f"{_SESSIONS}/{reference}", "payment_intent.latest_charge"
    return f"{_INTENTS}/{reference}", "latest_charge"

"""The merchant's order service: receives notifications, counts their effects, and has faults.

An *effect* is an action of a real merchant, once per order: ship the goods. Notifications are deduplicated by their id,
as Standard Webhooks requires; what harms a merchant in spite of that is recorded as a violation.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from datetime import datetime
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from simulator.kernel.clock import Clock, utc_now
from simulator.kernel.faults import Seconds, Share, draw
from simulator.kit.asgi import BadBody, Cut, Hang, Reply, Request, Response, decode, problem
from simulator.merchant.signature import is_signed, secret_bytes

DELIVERIES_MAX = 300_000
ORDERS_MAX = 300_000
VIOLATIONS_MAX = 10_000


class MerchantFault(StrEnum):
    """Faults. Each is the name of a share in `MerchantFaults`, which describes it."""

    REDIRECTED = "redirected"
    GONE = "gone"
    TOO_MANY = "too_many"
    ANSWERED_500 = "answered_500"
    HANG = "hang"
    CUT = "cut"


class MerchantFaults(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Shares of deliveries, from 0 to 1; of two faults the first one here wins."""

    # Without effect: 302, 410, 429 with Retry-After, 500.
    redirected: Share = 0.0
    redirect_to: str = "/elsewhere"  # counts the requests that follow a redirect
    gone: Share = 0.0
    too_many: Share = 0.0
    retry_after_s: Annotated[int, Meta(ge=0, le=86_400)] = 1
    answered_500: Share = 0.0
    # After the effect: no response for `hang_s`, then the connection closes; 200 that is cut before its body.
    hang: Share = 0.0
    hang_s: Seconds = 30.0
    cut: Share = 0.0


class NotifiedOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Fields of the body's `data` that are read; there may be more."""

    order_no: str
    version: int
    status: str
    amount: int
    currency: str
    late: bool = False


class NotificationBody(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    type: str
    created_at: datetime
    data: NotifiedOrder


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """A received notification. `answered` is the status, or the fault if there was no whole response."""

    at: datetime
    webhook_id: str
    type: str
    order_no: str
    version: int
    body_sha256: str
    answered: str


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """The goods of a paid order were sent. Every id in `again` sent them once more: a loss."""

    order_no: str
    webhook_id: str
    version: int
    amount: int
    currency: str
    late: bool
    at: datetime
    again: tuple[str, ...] = ()


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """A broken rule of notifications: `same_id_other_body`, `double_effect`, `paid_but_not_paid`."""

    what: str
    order_no: str
    webhook_id: str
    sentence: str


class Merchant:
    """State of a merchant process, and the decision about each notification."""

    def __init__(self, *, secrets: tuple[str, ...] = (), seed: int = 0, now: Clock = utc_now) -> None:
        self.faults = MerchantFaults()
        self.seed = seed
        self._now = now
        self._keys = tuple(secret_bytes(secret) for secret in secrets)
        self.reset()

    def reset(self) -> None:
        """Delete all records and faults; the secrets stay."""
        self.faults = MerchantFaults()
        self.counters: Counter[str] = Counter()
        self.deliveries: deque[Delivery] = deque(maxlen=DELIVERIES_MAX)
        self.effects: dict[str, Effect] = {}
        self.violations: deque[Violation] = deque(maxlen=VIOLATIONS_MAX)
        self._bodies: dict[str, str] = {}  # body hash by webhook id
        self._nth: Counter[str] = Counter()

    def use_secrets(self, secrets: tuple[str, ...]) -> None:
        """Set the secrets, each of which verifies; raises ValueError if one is not `whsec_` and base64."""
        self._keys = tuple(secret_bytes(secret) for secret in secrets)

    async def receive(self, request: Request) -> Reply:
        """Handle POST /notifications."""
        self.counters["received"] += 1
        if not is_signed(self._keys, request, self._now()):
            self.counters["refused_signature"] += 1
            return problem(401, "SIGNATURE_INVALID", "the signature does not verify, or is not of now")
        try:
            body = decode(request.body, NotificationBody)
        except BadBody as error:
            self.counters["refused_body"] += 1
            return problem(400, "INVALID_BODY", str(error))
        webhook_id = request.headers["webhook-id"]
        fault = self._fault(webhook_id)
        self._check_repeat(webhook_id, body, request.body)
        if fault in (None, MerchantFault.HANG, MerchantFault.CUT):
            self._take_effect(webhook_id, body)
        reply = self._reply(fault)
        answered = str(reply.status) if isinstance(reply, Response) else str(fault)
        self._record(webhook_id, body, request.body, answered)
        return reply

    async def redirect_targets(self, _: Request) -> Reply:
        """Handle and count a request that followed a redirect, which nodrop must not do."""
        self.counters["redirect_followed"] += 1
        return Response(status=200, body=b"{}")

    def _fault(self, webhook_id: str) -> MerchantFault | None:
        """Return the fault of this delivery, drawn by the notification's id and its count."""
        self._nth[webhook_id] += 1
        _bound(self._nth, ORDERS_MAX * 2)
        for fault in MerchantFault:
            share: float = getattr(self.faults, fault)
            if share > 0 and draw(self.seed, fault, webhook_id, self._nth[webhook_id]) < share:
                return fault
        return None

    def _check_repeat(self, webhook_id: str, body: NotificationBody, raw: bytes) -> None:
        digest = hashlib.sha256(raw).hexdigest()
        if self._bodies.setdefault(webhook_id, digest) != digest:
            self._violate("same_id_other_body", body, webhook_id, "the same id came with another body")
        _bound(self._bodies, ORDERS_MAX * 2)

    def _take_effect(self, webhook_id: str, body: NotificationBody) -> None:
        """Record an effect for `order.paid`; the same id is the same effect."""
        order = body.data
        if body.type != "order.paid":
            return
        if order.status != "paid":
            self._violate("paid_but_not_paid", body, webhook_id, f"order.paid says that its status is {order.status}")
            return
        known = self.effects.get(order.order_no)
        if known is None:
            self.effects[order.order_no] = Effect(
                order_no=order.order_no,
                webhook_id=webhook_id,
                version=order.version,
                amount=order.amount,
                currency=order.currency,
                late=order.late,
                at=self._now(),
            )
            _bound(self.effects, ORDERS_MAX)
        elif webhook_id not in (known.webhook_id, *known.again):
            self.effects[order.order_no] = replace(known, again=(*known.again, webhook_id))
            self._violate("double_effect", body, webhook_id, f"paid by {known.webhook_id} and again by {webhook_id}")

    def _violate(self, what: str, body: NotificationBody, webhook_id: str, sentence: str) -> None:
        self.counters["violations"] += 1
        violation = Violation(what=what, order_no=body.data.order_no, webhook_id=webhook_id, sentence=sentence)
        self.violations.append(violation)

    def _reply(self, fault: MerchantFault | None) -> Response | Cut | Hang:
        match fault:
            case MerchantFault.REDIRECTED:
                return Response(status=302, headers=(("location", self.faults.redirect_to),))
            case MerchantFault.GONE:
                return Response(status=410)
            case MerchantFault.TOO_MANY:
                return Response(status=429, headers=(("retry-after", str(self.faults.retry_after_s)),))
            case MerchantFault.ANSWERED_500:
                return Response(status=500)
            case MerchantFault.HANG:
                return Hang(seconds=self.faults.hang_s)
            case MerchantFault.CUT:
                return Cut(response=Response(body=b"{}"), keep=0)
            case None:
                return Response(body=b"{}")

    def _record(self, webhook_id: str, body: NotificationBody, raw: bytes, answered: str) -> None:
        self.counters[f"answered_{answered}"] += 1
        self.deliveries.append(
            Delivery(
                at=self._now(),
                webhook_id=webhook_id,
                type=body.type,
                order_no=body.data.order_no,
                version=body.data.version,
                body_sha256=hashlib.sha256(raw).hexdigest(),
                answered=answered,
            )
        )


def _bound(kept: dict[str, str] | dict[str, Effect] | Counter[str], most: int) -> None:
    """Delete the oldest entries beyond the limit."""
    while len(kept) > most:
        del kept[next(iter(kept))]

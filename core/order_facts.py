"""All that is stored about one order, as its story and its next steps read it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from core.order import OrderState, PaymentKey


class EventFact(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the timeline: an event (with its version) or an observation (without one)."""

    at: datetime
    kind: str
    by: str
    version: int | None = None
    key: PaymentKey | None = None
    note: str = ""
    evidence: Mapping[str, Any] | None = None
    api_key: str | None = None


class CallbackFact(msgspec.Struct, frozen=True, kw_only=True):
    """A callback of the inbox. `says` is the kind of its evidence; `copies` is how often it came."""

    id: str
    key: PaymentKey
    notification_id: str
    received_at: datetime
    says: str
    copies: int = 1
    is_hint: bool = False
    attempt: int = 1
    due_at: datetime | None = None
    leased_until: datetime | None = None
    handled_at: datetime | None = None
    dead_at: datetime | None = None
    outcome: str | None = None


class RefusedFact(msgspec.Struct, frozen=True, kw_only=True):
    """A callback that was not taken: it named a payment of this order, and did not verify. `reason` is a word."""

    id: str
    key: PaymentKey
    at: datetime
    reason: str
    detail: str = ""
    copies: int = 1


class AttemptFact(msgspec.Struct, frozen=True, kw_only=True):
    """One delivery of a notification. `status` is the HTTP status or a short word."""

    attempt: int
    at: datetime
    status: str
    is_delivered: bool
    latency_ms: int | None = None
    answer: str = ""
    is_manual: bool = False


class NotificationFact(msgspec.Struct, frozen=True, kw_only=True):
    """A notification with its deliveries, oldest first. `resending_since`: a person has sent it again, whatever had
    become of it. `is_paused`: its endpoint is; `is_queued`: it waits for its turn among many that are sent again.
    """

    id: str
    version: int
    type: str
    url: str
    created_at: datetime
    attempt: int
    due_at: datetime
    leased_until: datetime | None = None
    delivered_at: datetime | None = None
    superseded_at: datetime | None = None
    dead_at: datetime | None = None
    last_status: str | None = None
    resending_since: datetime | None = None
    is_paused: bool = False
    is_queued: bool = False
    attempts: tuple[AttemptFact, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether it is still to be sent."""
        is_over = self.delivered_at is not None or self.superseded_at is not None or self.dead_at is not None
        return not is_over or self.resending_since is not None

    @property
    def is_dead(self) -> bool:
        """Whether it was given up, and nobody has sent it again."""
        is_heard = self.delivered_at is not None or self.superseded_at is not None
        return self.dead_at is not None and not is_heard and self.resending_since is None


class CaseFact(msgspec.Struct, frozen=True, kw_only=True):
    """A case, open or resolved."""

    id: int
    reason: str
    opened_at: datetime
    key: PaymentKey | None = None
    detail: str = ""
    resolved_at: datetime | None = None
    resolution: str | None = None
    by: str | None = None
    phrase: str | None = None
    resolution_phrase: str | None = None


class LeaseFact(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody works on a pending row until then; `process` None: it is not known who."""

    until: datetime
    process: str | None = None


class RefundWork(msgspec.Struct, frozen=True, kw_only=True):
    """When a refund that is not definite is due, and until when somebody works on it."""

    due_at: datetime
    leased_until: datetime | None = None


class ApprovalFact(msgspec.Struct, frozen=True, kw_only=True):
    """A refund above the limit. `decision` None: nobody has decided; `refund_no`: the refund that it has become.
    `is_expired`: it becomes none any more.
    """

    id: int
    key: PaymentKey
    amount: int
    currency: str
    reason: str
    requested_by: str
    requested_at: datetime
    expires_at: datetime
    is_expired: bool = False
    decision: str | None = None
    decided_by: str | None = None
    decided_at: datetime | None = None
    decided_reason: str = ""
    refund_no: str | None = None


class OrderFacts(msgspec.Struct, frozen=True, kw_only=True):
    """All that is stored about one order. `leases` are by payment, or by the key of the deadline; `refund_work` by
    refund number. `is_cut`: the timeline is longer than what was read.
    """

    state: OrderState
    events: tuple[EventFact, ...] = ()
    callbacks: tuple[CallbackFact, ...] = ()
    refused: tuple[RefusedFact, ...] = ()
    notifications: tuple[NotificationFact, ...] = ()
    cases: tuple[CaseFact, ...] = ()
    approvals: tuple[ApprovalFact, ...] = ()
    leases: Mapping[PaymentKey, LeaseFact] = {}
    refund_work: Mapping[str, RefundWork] = {}
    is_cut: bool = False

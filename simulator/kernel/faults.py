"""Faults, their shares, and the seeded decision whether a fault applies.

A decision depends only on the seed, the fault, the number of the payment and a counter: a run can be repeated whatever
the order of calls, and a change of one share never changes the decisions of another.
"""

from __future__ import annotations

from enum import StrEnum
from hashlib import blake2b
from typing import Annotated

import msgspec
from msgspec import Meta

FORCED_MAX = 100_000
"""Limit of payments with faults of their own; the oldest is deleted."""

Share = Annotated[float, Meta(ge=0, le=1)]
Seconds = Annotated[float, Meta(ge=0, le=86_400)]


class CallKind(StrEnum):
    """Kinds of calls to a channel."""

    CREATE = "create"
    QUERY = "query"
    CLOSE = "close"
    REFUND = "refund"
    QUERY_REFUND = "query_refund"
    STATEMENT = "statement"
    CAPTURE = "capture"
    TOKEN = "token"  # noqa: S105 - the word for a call
    CERTIFICATES = "certificates"
    UNDELIVERED = "undelivered"
    DISPUTE = "dispute"


class Fault(StrEnum):
    """Faults. Each is the name of a share in `FaultProfile`, which describes it."""

    LOST = "lost"
    EVENT_NEVER_GENERATED = "event_never_generated"
    LATE = "late"
    REORDERED = "reordered"
    DOUBLED = "doubled"
    WRONG_AMOUNT = "wrong_amount"
    STALE = "stale"
    FORGED = "forged"
    FORGED_CHECKSUM = "forged_checksum"
    ANSWERED_5XX = "answered_5xx"
    TIMED_OUT = "timed_out"
    HTML_ERROR = "html_error"
    SLOW = "slow"
    CUT = "cut"
    TRUNCATED = "truncated"
    NOT_FOUND_FIRST = "not_found_first"
    WRONG_AMOUNT_IN_QUERY = "wrong_amount_in_query"
    OTHER_ORDER = "other_order"
    CREATE_ANSWER_LOST = "create_answer_lost"
    CLOSE_ANSWER_LOST = "close_answer_lost"
    SETTLES_AFTER_CLOSE = "settles_after_close"
    SETTLES_LATER = "settles_later"
    REFUND_FAILS = "refund_fails"
    REFUNDED_IN_CONSOLE = "refunded_in_console"
    REFUNDED_IN_PART = "refunded_in_part"
    CAPTURE_DECLINED = "capture_declined"
    STATEMENT_OMITS = "statement_omits"
    STATEMENT_WRONG_AMOUNT = "statement_wrong_amount"
    STATEMENT_MALFORMED = "statement_malformed"
    STATEMENT_LACKS = "statement_lacks"


CALLBACK_FAULTS = frozenset(
    {
        Fault.LOST,
        Fault.EVENT_NEVER_GENERATED,
        Fault.LATE,
        Fault.REORDERED,
        Fault.DOUBLED,
        Fault.WRONG_AMOUNT,
        Fault.STALE,
    }
)
CALL_FAULTS = frozenset(
    {
        Fault.ANSWERED_5XX,
        Fault.TIMED_OUT,
        Fault.HTML_ERROR,
        Fault.SLOW,
        Fault.CUT,
        Fault.TRUNCATED,
        Fault.WRONG_AMOUNT_IN_QUERY,
        Fault.OTHER_ORDER,
        Fault.CAPTURE_DECLINED,
    }
)


class FaultProfile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Shares from 0 to 1, seconds (never divided by `speed`) and switches. The default has no fault.

    Shares are independent; of two that exclude each other the first one here wins.
    """

    # Callbacks. Per event: not generated; lost with its resends; `late_s` late; held until a later one was sent.
    event_never_generated: Share = 0.0
    lost: Share = 0.0
    late: Share = 0.0
    late_s: Seconds = 5.0
    reordered: Share = 0.0
    reordered_max_s: Seconds = 2.0
    # Per delivery: sent twice at once; a valid signature over a wrong amount; signed an hour ago.
    doubled: Share = 0.0
    wrong_amount: Share = 0.0
    stale: Share = 0.0
    # Per unpaid payment: two callbacks that claim paid, one signed by another key, one altered after signing.
    forged: Share = 0.0
    # Per unpaid payment, where only a checksum is signed: a callback that claims a wrong amount, its signature good.
    forged_checksum: Share = 0.0
    # Every delivery fails as if the network to nodrop were cut; the schedule of resends goes on.
    callbacks_blocked: bool = False

    # Calls, for the kinds named (all of them by default). Without effect: 500 to 504; no response for `hang_s`; status
    # 200 with an unsigned page. With effect: response after `slow_s`; cut in the body; half of the JSON.
    affected: tuple[CallKind, ...] = tuple(CallKind)
    answered_5xx: Share = 0.0
    timed_out: Share = 0.0
    hang_s: Seconds = 60.0
    html_error: Share = 0.0
    cut: Share = 0.0
    truncated: Share = 0.0
    slow: Share = 0.0
    slow_s: Seconds = 2.0
    # With effect, and without a readable response: the connection closes, or the status is 500 to 504.
    create_answer_lost: Share = 0.0
    close_answer_lost: Share = 0.0
    # Responses to queries with a valid signature: a wrong amount; paid, with the number of another payment.
    wrong_amount_in_query: Share = 0.0
    other_order: Share = 0.0
    # Per payment: unknown to query and close for its first seconds, unless it is paid.
    not_found_first: Share = 0.0
    not_found_first_s: Seconds = 2.0

    # The money arrives `settle_after_s` after the payment was closed on request.
    settles_after_close: Share = 0.0
    settle_after_s: Seconds = 1.0
    # The buyer uses a slow method: the money arrives `settle_after_s` after the approval.
    settles_later: Share = 0.0
    # Per capture: refused with this issue, while the approval stays.
    capture_declined: Share = 0.0
    capture_issue: Annotated[str, Meta(pattern="^[A-Z_]{1,64}$")] = "INSTRUMENT_DECLINED"
    # Links that are handed out now end after this time; 0: after the channel's own.
    links_end_after_s: Seconds = 0.0
    # Refunds are `processing` for this time; then the share fails and the others succeed.
    refund_settles_s: Seconds = 0.0
    refund_fails: Share = 0.0
    # The merchant refunds a payment in the channel's console as soon as its money has come; of those, only half of it.
    refunded_in_console: Share = 0.0
    refunded_in_part: Share = 0.0
    # Per row of a statement: left out; a wrong amount; cut off after its second column; left out, and counted in the
    # totals that it states.
    statement_omits: Share = 0.0
    statement_wrong_amount: Share = 0.0
    statement_malformed: Share = 0.0
    statement_lacks: Share = 0.0

    # The channel's clock is ahead (behind, if negative): the times of its signatures and of payments.
    clock_skew_s: Annotated[float, Meta(ge=-86_400, le=86_400)] = 0.0

    # Status 503 for every request; no response at all; 429 beyond this number of calls in any second.
    down: bool = False
    blackhole: bool = False
    rate_limit_per_s: Annotated[int, Meta(ge=0, le=100_000)] = 0


class AtFault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Faults of one payment instead of the profile's: for callbacks and calls one fault always, or `none`."""

    callback: str | None = None
    call: str | None = None

    def __post_init__(self) -> None:
        for name, kind in ((self.callback, CALLBACK_FAULTS), (self.call, CALL_FAULTS)):
            if name is not None and name != "none" and name not in kind:
                raise ValueError(f"{name!r} is none of: none, {', '.join(sorted(kind))}")

    def decides(self, fault: Fault) -> bool | None:
        """Return whether the fault applies to this payment; None if the profile decides."""
        chosen = self.callback if fault in CALLBACK_FAULTS else self.call if fault in CALL_FAULTS else None
        return None if chosen is None else chosen == fault


def draw(seed: int, kind: str, number: str, counter: int = 0) -> float:
    """Return a number in [0, 1) that depends on the four arguments only."""
    text = f"{seed}\x1f{kind}\x1f{number}\x1f{counter}".encode()
    return int.from_bytes(blake2b(text, digest_size=6).digest()) / 2**48


class Faults:
    """The current profile, the seed, and the payments with faults of their own."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.profile = FaultProfile()
        self._forced: dict[str, AtFault] = {}

    def reset(self, seed: int) -> None:
        """Remove all faults and set the seed."""
        self.seed = seed
        self.profile = FaultProfile()
        self._forced.clear()

    def force(self, number: str, at_fault: AtFault) -> None:
        """Give this payment faults of its own."""
        self._forced[number] = at_fault
        if len(self._forced) > FORCED_MAX:
            del self._forced[next(iter(self._forced))]

    def applies(self, fault: Fault, number: str, counter: int = 0) -> bool:
        """Return whether the fault applies to this payment, at its `counter`-th call or delivery."""
        forced = self._forced.get(number)
        decided = None if forced is None else forced.decides(fault)
        if decided is not None:
            return decided
        share: float = getattr(self.profile, fault)
        return share > 0 and draw(self.seed, fault, number, counter) < share

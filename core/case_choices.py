"""Answers that an operator may give to a case, by its reason: what each does, and which fit."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from core.order import CaseReason


class Choice(StrEnum):
    """note: only the reason is written down. query: the channels are queried now. accept: late money pays the order.
    refund: the money goes back. attach: money that is unknown here is attached to an order.
    """

    NOTE = "note"
    QUERY = "query"
    ACCEPT = "accept"
    REFUND = "refund"
    ATTACH = "attach"

    @property
    def ends_case(self) -> bool:
        """Whether the case is resolved with it. A refund ends its case once the buyer has the money, a query if what
        the channel says settles it.
        """
        return self in (Choice.NOTE, Choice.ACCEPT, Choice.ATTACH)


_NOTE = (Choice.NOTE,)
_QUERY = (Choice.QUERY, Choice.NOTE)
_REFUND = (Choice.REFUND, Choice.QUERY, Choice.NOTE)
_ATTACH = (Choice.ATTACH, Choice.NOTE)

CHOICES: Mapping[CaseReason, tuple[Choice, ...]] = MappingProxyType(
    {
        CaseReason.AMOUNT_MISMATCH: _QUERY,
        CaseReason.CURRENCY_MISMATCH: _QUERY,
        CaseReason.ACCOUNT_MISMATCH: _QUERY,
        CaseReason.NUMBER_MISMATCH: _QUERY,
        CaseReason.NUMBER_REUSED: _QUERY,
        CaseReason.TRANSACTION_CLAIMED_TWICE: _QUERY,
        CaseReason.PAID_LATE: (Choice.ACCEPT, Choice.REFUND, Choice.NOTE),
        CaseReason.DOUBLE_PAYMENT: (Choice.REFUND, Choice.NOTE),
        CaseReason.REFUNDED_OUTSIDE: _QUERY,
        CaseReason.REFUND_AMOUNT_UNKNOWN: _QUERY,
        CaseReason.REFUND_FAILED: _REFUND,
        CaseReason.DISPUTED: _QUERY,
        CaseReason.WRONG_WORLD: _NOTE,
        CaseReason.ATTEMPTS_EXHAUSTED: _QUERY,
        CaseReason.UNKNOWN_ORDER: _ATTACH,
        CaseReason.CALLBACK_CONTRADICTED: _QUERY,
        CaseReason.CALLBACK_UNREADABLE: _QUERY,
        CaseReason.STATEMENT_PAID_HERE_ONLY: _QUERY,
        CaseReason.STATEMENT_AMOUNT: _QUERY,
        CaseReason.STATEMENT_CURRENCY: _QUERY,
        CaseReason.STATEMENT_TRANSACTION: _QUERY,
        CaseReason.STATEMENT_DUPLICATE: _REFUND,
        CaseReason.STATEMENT_REFUND: _QUERY,
        CaseReason.STATEMENT_STATUS: _QUERY,
        CaseReason.STATEMENT_UNCONFIRMED: _QUERY,
        CaseReason.STATEMENT_MALFORMED: _NOTE,
        CaseReason.STATEMENT_UNCLAIMED: _ATTACH,
        CaseReason.STATEMENT_REFUND_HERE_ONLY: _QUERY,
        CaseReason.STATEMENT_TOTAL: _NOTE,
    }
)
"""The answers that fit each reason, the likeliest first. Every case can be answered by a note."""


def choices_for(reason: str, *, has_order: bool = True) -> tuple[Choice, ...]:
    """The answers that fit a case; of a reason that this version does not know, a note. Without an order nothing can be
    queried or refunded.
    """
    known = reason in CaseReason.__members__.values()
    fitting = CHOICES[CaseReason(reason)] if known else _NOTE
    return tuple(choice for choice in fitting if has_order or choice in (Choice.NOTE, Choice.ATTACH))

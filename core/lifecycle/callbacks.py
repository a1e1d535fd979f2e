"""Evidence that the channel sent by itself → decision."""

from __future__ import annotations

from core.decision import Decision
from core.evidence import Evidence, Source
from core.lifecycle.judging import on_evidence
from core.lifecycle.rules import Rules
from core.order import OrderState, PaymentKey


def on_callback(
    state: OrderState,
    key: PaymentKey,
    evidence: Evidence,
    rules: Rules,
    by: Source,
    *,
    claimed: bool = False,
    unconfirmed: bool = False,
) -> Decision:
    """Evidence that the channel sent by itself (and that the account trusts), or a mismatch that it shows.

    It may have lain in the inbox for a day: its *unpaid* and *missing* were true when they were sent and end nothing.

    `claimed`: the database has refused the move, because another payment of this account has this very channel
    transaction. Two orders that claim one channel payment are a case, never two paid orders.

    `unconfirmed`: it pays although no query has confirmed it (`core.lifecycle.trusting`).
    """
    return on_evidence(state, key, evidence, rules, by, approval=None, claimed=claimed, unconfirmed=unconfirmed)

"""`nodrop cases`: the questions that a person has to answer. docs/operations.md says what to do about each reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli.environment import with_database
from cli.output import Stop, json_option, print_json, print_table, warn

if TYPE_CHECKING:
    from storage.cases import CaseRow
    from storage.database import Database

LIMIT_MAX = 1000
ID_MAX = 2**63 - 1
RESOLUTION_CHARACTERS_MAX = 1000
REASONS = (
    "amount_mismatch",
    "currency_mismatch",
    "account_mismatch",
    "number_mismatch",
    "number_reused",
    "transaction_claimed_twice",
    "paid_late",
    "double_payment",
    "refunded_outside",
    "attempts_exhausted",
    "unknown_order",
    "callback_contradicted",
)

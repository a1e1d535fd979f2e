"""Queries, bodies and responses of /v1 about days, disputes, reconciliations and the work on cases."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Annotated

import msgspec
from msgspec import Meta

from api.v1.acts import CaseVersion, DryRun, Reason
from api.v1.schemas import OF_ANOTHER_RELEASE, AccountName, CaseView, Cursor, DisputeView, Limit
from core.act_view import PreviewView
from core.clocks import Instant
from core.closing_view import DayView
from core.dispute import DisputeState
from core.reconciliation import Finding


class _Input(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An unknown field is refused: a misspelt optional one must not be dropped silently."""


class DaysQuery(_Input, frozen=True, kw_only=True):
    """Choice of days to list, newest first. The next page: `before` and `before_account` of the last day listed."""

    account: AccountName | None = None
    before: date | None = None
    before_account: AccountName | None = None
    limit: Limit = 31


class DayPage(msgspec.Struct, frozen=True, kw_only=True):
    days: Sequence[DayView]


class SignedOff(msgspec.Struct, frozen=True, kw_only=True):
    """The day with its sign-off; or, of a dry run, what would be signed."""

    day: DayView | None
    preview: PreviewView | None


class SignOffInput(_Input, frozen=True, kw_only=True):
    """`dry_run`: only show what would be signed, and `expected_version` of it signs nothing else."""

    reason: Reason
    dry_run: DryRun = False
    expected_version: Annotated[int, Meta(ge=0, le=2**32 - 1)] | None = None


class StatementInput(_Input, frozen=True, kw_only=True):
    """A statement to fetch from the channel and compare, again if it was. `dry_run`: compare, and change nothing."""

    account: AccountName
    day: date
    reason: Reason
    dry_run: DryRun = False


class StatementRequestView(msgspec.Struct, frozen=True, kw_only=True):
    """A statement that a worker reads. `status` is waiting, running, done or failed. `run_id` is what came of it."""

    id: int
    account: str
    day: date
    dry_run: bool
    is_uploaded: bool
    requested_by: str
    requested_at: Instant
    reason: str
    status: str
    rows_done: int
    rows: int | None
    run_id: int | None
    error: str
    ended_at: Instant | None


class DisputesQuery(_Input, frozen=True, kw_only=True):
    """Choice of disputes. Without `state`: those that are not over, the soonest to answer first. Otherwise `won`,
    `lost` or `closed` ones, newest first.
    """

    state: DisputeState | None = None
    account: AccountName | None = None
    cursor: Cursor | None = None
    limit: Limit = 50


class ListedDispute(DisputeView, frozen=True, kw_only=True):
    """A dispute with its order. `overdue`: it is open and the moment to answer has passed."""

    order_no: str
    overdue: bool


class DisputePage(msgspec.Struct, frozen=True, kw_only=True):
    disputes: Sequence[ListedDispute]
    next_cursor: str | None


class ReconciliationsQuery(_Input, frozen=True, kw_only=True):
    """Choice of runs to list, newest first. The next page: `before` is the id of the last one."""

    account: AccountName | None = None
    before: Annotated[int, Meta(ge=1, le=2**63 - 1)] | None = None
    limit: Limit = 50


class ReconciliationView(msgspec.Struct, frozen=True, kw_only=True):
    """One run. `day` null: over a file. `counts` are by finding; `rows` counts all."""

    id: int
    account: str
    day: date | None
    dry_run: bool
    status: str
    counts: dict[str, int]
    started_at: Instant
    finished_at: Instant | None
    last_error: str


class ReconciliationPage(msgspec.Struct, frozen=True, kw_only=True):
    reconciliations: Sequence[ReconciliationView]


class DifferencesQuery(_Input, frozen=True, kw_only=True):
    """Choice of the differences of a run, in the order of its statement."""

    kind: Finding | None = None
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 200


class DifferenceView(msgspec.Struct, frozen=True, kw_only=True):
    """One finding about one row; `row_no` 0: the statement has no row for it."""

    kind: Annotated[str, Meta(examples=list(Finding), description=OF_ANOTHER_RELEASE)]
    row_no: int
    detail: str
    order_no: str | None
    out_trade_no: str
    channel_transaction_id: str


class ReconciliationDetail(msgspec.Struct, frozen=True, kw_only=True):
    reconciliation: ReconciliationView
    differences: Sequence[DifferenceView]
    more: bool


class AssignInput(_Input, frozen=True, kw_only=True):
    """`assignee` null gives the case back: anybody may take it."""

    version: CaseVersion
    assignee: Annotated[str, Meta(min_length=1, max_length=80)] | None = None
    dry_run: DryRun = False


class CaseDetail(msgspec.Struct, frozen=True, kw_only=True):
    """A case with what happened and what to do about it, in Markdown; empty for a reason of another version."""

    case: CaseView
    what: str
    do: str

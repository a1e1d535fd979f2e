"""An order's story and what happens next, as /v1 and `nodrop orders show --json` give them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from api.story.texts import tell, tell_next, who
from core.clocks import Instant
from core.next_steps import Step, WaitsFor, next_steps
from core.order_facts import OrderFacts
from core.story import Entry, Tone, story_of
from storage.postgres.search import Match, NumberKind


class StoryEntryView(msgspec.Struct, frozen=True, kw_only=True):
    """One happening. `text` is a sentence in English; `kind` is its word for programs.

    Entries alike that follow each other are one: `count` of them, the last at `last_at`.
    """

    at: Instant
    kind: str
    text: str
    who: str
    by: str
    tone: Tone
    version: int | None
    account: str | None
    out_trade_no: str | None
    note: str
    evidence: dict[str, Any] | None
    api_key: str | None
    count: int
    last_at: Instant | None
    callback_id: str | None
    notification_id: str | None
    case_ids: Sequence[int]


class StepView(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happens next, and who acts. `at` null: now, or whenever somebody acts."""

    kind: str
    text: str
    waits_for: WaitsFor
    at: Instant | None
    tone: Tone
    account: str | None
    out_trade_no: str | None
    callback_id: str | None
    notification_id: str | None
    refund_no: str | None
    dispute_id: str | None
    case_id: int | None
    approval_id: int | None


class StoryView(msgspec.Struct, frozen=True, kw_only=True):
    """The story of an order at this version. `next` is never empty. `is_cut`: what came after is left out."""

    order_no: str
    version: int
    next: Sequence[StepView]
    entries: Sequence[StoryEntryView]
    is_cut: bool


class MatchView(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a number names. `number` is empty for a page's link; `order_no` null: it belongs to no order."""

    kind: NumberKind
    number: str
    order_no: str | None
    account: str | None
    callback_id: str | None


class SearchView(msgspec.Struct, frozen=True, kw_only=True):
    """All that a number names. `order_no` is set when the exact matches name one order."""

    order_no: str | None
    matches: Sequence[MatchView]


def view_story(facts: OrderFacts) -> StoryView:
    order = facts.state.order
    return StoryView(
        order_no=order.order_no,
        version=order.version,
        next=[view_step(step) for step in next_steps(facts)],
        entries=[view_entry(entry) for entry in story_of(facts)],
        is_cut=facts.is_cut,
    )


def view_entry(entry: Entry) -> StoryEntryView:
    return StoryEntryView(
        at=entry.at,
        kind=entry.text if entry.text != "unknown" else entry.kind,
        text=tell(entry),
        who=who(entry),
        by=entry.by,
        tone=entry.tone,
        version=entry.version,
        account=None if entry.key is None else entry.key.channel_account,
        out_trade_no=None if entry.key is None else entry.key.out_trade_no,
        note=entry.note,
        evidence=None if entry.evidence is None else dict(entry.evidence),
        api_key=entry.api_key,
        count=entry.count,
        last_at=entry.last_at,
        callback_id=entry.callback_id or entry.refused_id,
        notification_id=entry.notification_id,
        case_ids=entry.case_ids,
    )


def view_step(step: Step) -> StepView:
    return StepView(
        kind=step.text,
        text=tell_next(step),
        waits_for=step.waits_for,
        at=step.at,
        tone=step.tone,
        account=None if step.key is None else step.key.channel_account,
        out_trade_no=None if step.key is None else step.key.out_trade_no,
        callback_id=step.callback_id,
        notification_id=step.notification_id,
        refund_no=step.refund_no,
        dispute_id=step.dispute_id,
        case_id=step.case_id,
        approval_id=step.approval_id,
    )


def view_match(match: Match) -> MatchView:
    return MatchView(
        kind=match.kind,
        number=match.number,
        order_no=match.order_no,
        account=match.account,
        callback_id=match.callback_id,
    )

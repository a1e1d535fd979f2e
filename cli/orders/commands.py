"""`nodrop orders`: look at orders, ask their channels now, end one, give money back. What changes an order goes through
the flows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

import click
from msgspec.structs import asdict

from api.v1.schemas import OrderView
from api.v1.views import view_order
from cli.acts import ask_reason, by_option, dry_run_option, reason_option, show_preview
from cli.audit import this_act
from cli.environment import current_settings, with_database, with_resources
from cli.orders.money import accept, attach, close, refund
from cli.orders.personal_data import erase, export
from cli.orders.text import COLUMNS, headline, order_row, timeline_row
from cli.output import Stop, color_option, json_option, print_json, print_table, warn
from cli.spans import Since
from core.act_names import ActName
from core.errors import NotFound
from core.order import OrderState, OrderStatus
from storage.postgres.cases import CaseRow, list_cases
from storage.postgres.database import Database
from storage.postgres.orders import TimelineEntry, find_now, find_state, list_orders, timeline

if TYPE_CHECKING:
    from core.acts import Preview
    from core.order_facts import CallbackFact, OrderFacts, RefusedFact
    from runtime.resources import Resources

LIMIT_MAX = 1000
CASES_MAX = 100
REFRESH_TRIES = 3
REFRESH_GAP_S = 1.5
"""Without Redis a new process may call no channel in its first 1.1 s, for it cannot know what others have called."""


class OrderHistory(NamedTuple):
    """An order with its open cases and its timeline, read one after the other: for people, not for decisions."""

    state: OrderState
    cases: Sequence[CaseRow]
    timeline: Sequence[TimelineEntry]


class Refreshed(NamedTuple):
    """An order after its channels were queried, unless no payment was open; `entries` are new in its timeline."""

    state: OrderState
    is_queried: bool
    entries: Sequence[TimelineEntry]


@click.group(epilog="Example: nodrop orders show 2026-1123-0001")
def orders() -> None:
    """Look at orders; ask about one, end one, decide about its money."""


for command in (close, accept, refund, attach, export, erase):
    orders.add_command(command)


@orders.command("list", epilog="Example: nodrop orders list --status paying --since 2h")
@click.option("--status", type=click.Choice([status.value for status in OrderStatus]), help="In this status.")
@click.option("--account", help="With a payment at this account.")
@click.option("--since", type=Since(), help="Placed since then: 30m, 2h, 7d, or an instant in ISO 8601.")
@click.option("--limit", type=click.IntRange(1, LIMIT_MAX), default=20, show_default=True, help="How many at most.")
@json_option
def list_(
    *, status: str | None, account: str | None, since: timedelta | datetime | None, limit: int, as_json: bool
) -> None:
    """List orders, newest first."""

    async def read(db: Database) -> tuple[list[OrderState], str | None]:
        after = await find_now(db) - since if isinstance(since, timedelta) else since
        of_status = None if status is None else OrderStatus(status)
        return await list_orders(db, status=of_status, account=account, created_after=after, limit=limit)

    states, more = with_database(read)
    if as_json:
        print_json([_view(state) for state in states])
    else:
        print_table(COLUMNS, [order_row(state) for state in states], empty="no such orders")
    if more:
        warn(f"there are more than these {limit}: --limit shows up to {LIMIT_MAX}")


@orders.command("find", epilog="Example: nodrop orders find 4200001234202611231234567890")
@click.argument("number")
@json_option
def find_(number: str, *, as_json: bool) -> None:
    """Find an order by any number that a person may hold.

    The merchant's, ours or the channel's: of an order, a payment, a transaction, a refund, a notification, a callback,
    a dispute, a case; the beginning of an order number; the link of an order's page. Exit code 1 when nothing here has
    it.
    """
    from api.v1.story_views import SearchView, view_match
    from storage.postgres.search import Match, find_by_number, order_of

    async def read(db: Database) -> list[Match]:
        return await find_by_number(db, number)

    matches = with_database(read)
    if as_json:
        print_json(SearchView(order_no=order_of(matches), matches=[view_match(match) for match in matches]))
    elif matches:
        rows = [(match.order_no, match.kind, match.number, match.account) for match in matches]
        print_table(("order", "matched by", "number", "account"), rows, empty="")
    if not matches:
        raise Stop("nothing here has this number")


@orders.command(epilog="Example: nodrop orders show 2026-1123-0001")
@click.argument("order_no")
@color_option
@json_option
def show(order_no: str, *, as_json: bool) -> None:
    """Show an order with all that is known of it.

    Its payments, what happens next and when, notifications with every attempt, callbacks, refunds, disputes, the
    questions that are open, and its timeline: what changed it (with a version) and what was only seen (without one).
    """
    from cli.orders.show import print_order
    from storage.postgres.order_facts import find_facts

    async def read(db: Database) -> tuple[OrderFacts, OrderHistory]:
        facts = await find_facts(db, order_no)
        if facts is None:
            raise NotFound(f"there is no order {order_no}")
        return facts, await find(db, order_no)

    facts, history = with_database(read)
    if as_json:
        print_json(_document(facts, history))
    else:
        print_order(facts, current_settings().public_url)


@orders.command(epilog='Example: nodrop orders refresh 2026-1123-0001 --reason "the buyer says it is paid"')
@click.argument("order_no")
@by_option
@reason_option
@dry_run_option
@json_option
def refresh(order_no: str, *, by: str, reason: str, dry_run: bool, as_json: bool) -> None:
    """Ask the channels about an order's open and closed payments now.

    Under the account's rate limit, as every query; what the channel says is committed as always. Prints the new entries
    of the timeline. Exit code 1 when the channel was not asked or gave no clear answer.
    """
    if dry_run:
        show_preview(with_resources(lambda resources: _preview_refresh(resources, order_no)), as_json=as_json)
        return
    act = this_act(ActName.ORDER_QUERY, order_no, by=by, reason=ask_reason(reason))
    refreshed = with_resources(lambda resources: _refresh(resources, order_no), act=act)
    if as_json:
        order = _view(refreshed.state)
        print_json({"order": order, "timeline": refreshed.entries})
    else:
        for entry in refreshed.entries:
            click.echo("  ".join(timeline_row(entry)))
        click.echo(headline(refreshed.state))
    if not refreshed.is_queried:
        warn("its money is known, so there was nothing to ask")
    elif all(entry.kind == "unclear_seen" for entry in refreshed.entries):
        raise Stop(_no_answer(refreshed.entries))


async def find(db: Database, order_no: str) -> OrderHistory:
    """The order with its open cases and its timeline.

    Raises:
        NotFound: there is none.
    """
    state = await find_state(db, order_no)
    if state is None:
        raise NotFound(f"there is no order {order_no}")
    cases, _ = await list_cases(db, order_no=order_no, limit=CASES_MAX)
    return OrderHistory(state, cases, await timeline(db, order_no))


async def _preview_refresh(resources: Resources, order_no: str) -> Preview:
    from core.previews import query_preview

    return query_preview((await find(resources.db, order_no)).state, resources.rules)


async def _refresh(resources: Resources, order_no: str) -> Refreshed:
    """Query a few times, until the timeline has a new entry, from this process or another."""
    from core.evidence import Source
    from core.lifecycle import on_refresh
    from flows.refresh import refresh_order

    before = await find(resources.db, order_no)
    if not on_refresh(before.state, resources.rules).query:
        return Refreshed(before.state, is_queried=False, entries=())
    after, entries = before.state, list[TimelineEntry]()
    for number in range(REFRESH_TRIES):
        if number:
            await asyncio.sleep(REFRESH_GAP_S)
        after = await refresh_order(resources, order_no, trailing=True, by=Source.OPERATOR)
        entries = [entry for entry in await timeline(resources.db, order_no) if entry not in before.timeline]
        if entries:
            break
    return Refreshed(after, is_queried=True, entries=entries)


def _no_answer(entries: Sequence[TimelineEntry]) -> str:
    if not entries:
        return "the channel was not asked: its rate is used up, its breaker is open, or another process is asking it"
    reasons = ", ".join(sorted({entry.note for entry in entries}))
    return f"the channel gave no clear answer ({reasons}), and the order is as it was: ask again later"


def _view(state: OrderState) -> OrderView:
    """The order as the API shows it."""
    return view_order(state, current_settings().public_url)


def _document(facts: OrderFacts, history: OrderHistory) -> dict[str, object]:
    """The order as the API shows it, with its pending rows, open cases and timeline beside it; and its story, with all
    that the story is made of.
    """
    from api.v1.story_views import view_story

    pending = [
        {
            "kind": row.kind,
            "account": row.key.channel_account or None,
            "out_trade_no": row.key.out_trade_no if row.key.channel_account else None,
            "attempt": row.attempt,
            "due_at": row.due_at,
        }
        for row in history.state.pending
    ]
    story = view_story(facts)
    return {
        "order": _view(history.state),
        "pending": pending,
        "cases": history.cases,
        "timeline": history.timeline,
        "next": story.next,
        "story": story.entries,
        "notifications": facts.notifications,
        "callbacks": [_flat(row) for row in facts.callbacks],
        "refused_callbacks": [_flat(row) for row in facts.refused],
    }


def _flat(row: CallbackFact | RefusedFact) -> dict[str, object]:
    """Its fields, with the two parts of its key as fields of their own."""
    fields = asdict(row)
    account, number = fields.pop("key")
    return {"account": account, "out_trade_no": number, **fields}

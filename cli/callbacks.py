"""`nodrop callbacks`: callbacks that came, stored or refused, and what each of them proves."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from cli.audit import this_act
from cli.environment import current_settings, with_database, with_resources
from cli.output import Stop, json_option, print_json, print_table, printable, warn
from cli.spans import Since
from core.act_names import ActName
from storage.postgres.callback_history import (
    CallbackRow,
    CallbackState,
    callbacks_of_order,
    find_callback,
    find_raw_callback,
    list_callbacks,
)
from storage.postgres.database import Database

if TYPE_CHECKING:
    from flows.callback_explanation import ExplainedCallback
    from runtime.resources import Resources
    from storage.postgres.callback_history import RawCallback
    from storage.sealing import Sealer

LIMIT_MAX = 1000
REJECTED, MISMATCH = 3, 4
"""Exit codes, as of `nodrop explain callback`."""


@click.group(epilog="Example: nodrop callbacks list --state refused --since 2h")
def callbacks() -> None:
    """Callbacks that came, and what each of them proves."""


@callbacks.command("list", epilog="Example: nodrop callbacks list --order 2026-1123-0001")
@click.option("--account", help="Of this account.")
@click.option("--order", "order_no", help="About this order.")
@click.option("--state", type=click.Choice([state.value for state in CallbackState]), help="In this state.")
@click.option("--since", type=Since(), help="Received since then: 30m, 2h, 7d, or an instant in ISO 8601.")
@click.option("--limit", type=click.IntRange(1, LIMIT_MAX), default=20, show_default=True, help="How many at most.")
@json_option
def list_(
    *,
    account: str | None,
    order_no: str | None,
    state: str | None,
    since: timedelta | datetime | None,
    limit: int,
    as_json: bool,
) -> None:
    """List callbacks, newest first.

    `waiting` ones are handled again when they are due, and listed by that; `dead` ones were given up, with a case;
    `refused` ones proved nothing. Of refused ones some are kept, and all are counted.
    """
    of_state = None if state is None else CallbackState(state)

    async def read(db: Database) -> tuple[list[CallbackRow], bool]:
        from storage.postgres.orders import find_now

        after = await find_now(db) - since if isinstance(since, timedelta) else since
        if order_no is None:
            rows, more = await list_callbacks(db, account=account, state=of_state, since=after, limit=limit)
            return rows, more is not None
        rows = [
            row
            for row in reversed(await callbacks_of_order(db, order_no))
            if account in (None, row.account) and of_state in (None, row.state)
            if after is None or row.received_at >= after
        ]
        return rows[:limit], len(rows) > limit

    rows, is_more = with_database(read)
    if as_json:
        print_json(rows)
    else:
        print_table(_COLUMNS, [_line(row) for row in rows], empty="no such callbacks")
    if is_more:
        warn(f"there are more than these {limit}: --limit shows up to {LIMIT_MAX}")


@callbacks.command(epilog="Example: nodrop callbacks show 6f1c2d9e-0d4b-4a53-9a53-0c7a2f5d1e11")
@click.argument("callback_id", metavar="ID")
@click.option("--raw", "is_raw", is_flag=True, help="Also its raw body and headers; written into the audit.")
@json_option
def show(callback_id: str, *, is_raw: bool, as_json: bool) -> None:
    """Show a callback: its state, its verdict, and what it says.

    --raw opens its body, which is sealed under NODROP_MASTER_KEYS and may hold data about the buyer. Of a refused
    callback the first bytes are kept, of the newest few.
    """
    sealer = _sealer() if is_raw else None

    async def read(db: Database) -> tuple[CallbackRow, RawCallback | None]:
        row = await _get(db, callback_id)
        return row, None if sealer is None else await find_raw_callback(db, sealer, row)

    row, raw = with_database(read, act=this_act(ActName.CALLBACK_RAW, callback_id) if is_raw else None)
    if is_raw and raw is None:
        warn("its raw bytes are not kept, or erased")
    if as_json:
        print_json({"callback": row} | ({"raw": _raw_document(raw)} if is_raw else {}))
        return
    print_table(("what", "value"), [(name, value) for name, value in _facts(row) if value not in (None, "")], empty="")
    if raw is not None:
        _print_raw(raw)


@callbacks.command(epilog="Example: nodrop callbacks explain 6f1c2d9e-0d4b-4a53-9a53-0c7a2f5d1e11")
@click.argument("callback_id", metavar="ID")
@json_option
def explain(callback_id: str, *, as_json: bool) -> None:
    """Verify a callback again and say what it proves.

    Its stored bytes are read as of the time when it came, with the account's keys of today, and compared with the
    payment that it is about; secrets are masked. Exit codes as `nodrop explain callback`: 3 rejected, 4 of another
    payment.
    """
    explained = with_resources(
        lambda resources: _explain(resources, callback_id), act=this_act(ActName.CALLBACK_EXPLAIN, callback_id)
    )
    if as_json:
        print_json(explained.as_json())
    else:
        from cli.explain.text import print_explanation

        print_explanation(explained.explanation, explained.mask, explained.payment, explained.headers)
    raise SystemExit({"rejected": REJECTED, "mismatch": MISMATCH}.get(explained.explanation.verdict, 0))


_COLUMNS = ("received", "account", "state", "verdict", "says", "order", "outcome", "copies", "id")


def _line(row: CallbackRow) -> Sequence[object]:
    verdict = f"{row.verdict}: {row.detail}" if row.detail else row.verdict
    times = row.copies if row.copies > 1 else ""
    return row.received_at, row.account, row.state, verdict, row.kind, row.order_no, row.outcome, times, row.id


def _facts(row: CallbackRow) -> list[tuple[str, object]]:
    claims = " (claimed, not proved)" if row.state is CallbackState.REFUSED else ""
    return [
        ("id", row.id),
        ("account", row.account or "none of this name"),
        ("state", row.state),
        ("verdict", f"{row.verdict}: {row.detail}" if row.detail else row.verdict),
        ("order", None if row.order_no is None else f"{row.order_no}{claims}"),
        ("payment", None if row.out_trade_no is None else f"{row.out_trade_no}{claims}"),
        ("says", row.kind),
        ("channel's id", row.notification_id),
        ("received", row.received_at),
        ("last copy", row.last_at if row.copies > 1 else None),
        ("copies", row.copies),
        ("handled", row.handled_at),
        ("given up", row.dead_at),
        ("due", row.due_at),
        ("attempt", row.attempt or None),
        ("outcome", row.outcome),
        ("from", row.network),
        ("bytes", row.body_bytes),
    ]


async def _get(db: Database, callback_id: str) -> CallbackRow:
    row = await find_callback(db, callback_id)
    if row is None:
        raise Stop(f"there is no callback {callback_id}; `nodrop callbacks list` shows them")
    return row


async def _explain(resources: Resources, callback_id: str) -> ExplainedCallback:
    from flows.callback_explanation import explain_received

    return await explain_received(resources, await _get(resources.db, callback_id))


def _sealer() -> Sealer:
    from storage.sealing import Sealer

    return Sealer.from_setting(current_settings("database_url", "nodrop_master_keys").nodrop_master_keys)


def _raw_document(raw: RawCallback | None) -> dict[str, Any] | None:
    if raw is None:
        return None
    return {"headers": raw.headers, "is_whole": raw.is_whole, "body": _text(raw.body)}


def _text(body: bytes) -> str | dict[str, str]:
    """JSON of bytes: a text, or `{"base64": …}`."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(body).decode()}


def _print_raw(raw: RawCallback) -> None:
    click.echo("\nheaders")
    for name, value in raw.headers.items():
        click.echo(f"    {printable(name)}: {printable(value)}")
    click.echo("\nbody" if raw.is_whole else "\nbody (its first bytes)")
    body = _text(raw.body)
    click.echo(f"    {printable(body)}" if isinstance(body, str) else f"    in base64: {body['base64']}")

"""The lines of `nodrop top`: the overview in as many columns and lines as the terminal has. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from cli.output import instant, printable
from core.money import decimal_text
from core.rollups import SPANS
from core.silence import SilentAccount
from flows.overview import (
    AccountFigures,
    CurrencySum,
    Durations,
    EndpointFigures,
    LaneFigures,
    Overview,
    PaidFigures,
)
from storage.postgres.backlog import Backlog
from storage.postgres.live import OpenQueries

COLUMNS_MIN = 40
LINES_MIN = 10
OVERDUE_S = 120
"""Work that has been due for longer waits for a worker."""

ENDPOINT_LINES = 2
"""Lines of the table of endpoints that the accounts leave it at least: its head and one endpoint."""

NAMES: Mapping[str, str] = MappingProxyType(
    {"1h": "last hour", "24h": "last 24 hours", "7d": "last 7 days", "30d": "last 30 days", "90d": "last 90 days"}
)

_DAY_S, _HOUR_S, _MINUTE_S = 86_400, 3_600, 60

_STYLES = {"bad": "\x1b[1;31m", "look": "\x1b[33m", "head": "\x1b[1m", "calm": "\x1b[2m"}
_END = "\x1b[0m"

_ACCOUNT_HEAD = ("account", "paid", "callback", "repaired", "unheard", "calls", "errors", "p99", "rate", "waits")
_ENDPOINT_HEAD = ("endpoint", "acked", "failed", "waiting", "oldest", "dead")


def frame(overview: Overview, *, columns: int, lines: int, is_coloured: bool, fault: str = "") -> list[str]:
    """At most `lines` lines of at most `columns` columns. `fault`: why the figures are not of this moment."""
    columns, lines = max(columns, COLUMNS_MIN), max(lines, LINES_MIN)
    head = _head(overview, fault)
    left = lines - len(head)
    accounts = _accounts(overview.accounts, max(0, left - ENDPOINT_LINES - 1))
    endpoints = _endpoints(overview.endpoints, left - len(accounts) - 1)
    styled = [*head, *accounts, *([("", "")] if endpoints else []), *endpoints][:lines]
    return [_drawn(style, text[:columns], is_coloured=is_coloured) for style, text in styled]


def seconds(value: float | None) -> str:
    """A duration in four characters or so: `0.25s`, `12s`, `4m`, `3h`, `2d`."""
    if value is None:
        return "-"
    if value >= 2 * _DAY_S:
        return f"{value / _DAY_S:.0f}d"
    if value >= 2 * _HOUR_S:
        return f"{value / _HOUR_S:.0f}h"
    if value >= 2 * _MINUTE_S:
        return f"{value / _MINUTE_S:.0f}m"
    return f"{value:.0f}s" if value >= 1 or value == 0 else f"{value:.2f}s"


def money(amounts: Sequence[CurrencySum]) -> str:
    """`1234.00 CNY, 5.00 USD`: the largest number of minor units first."""
    return ", ".join(f"{decimal_text(each.amount, each.currency)} {each.currency}" for each in amounts)


# -- the head ----------------------------------------------------------------------------------------------------------

_Styled = tuple[str, str]


def _head(overview: Overview, fault: str) -> list[_Styled]:
    live, backlog = overview.live, overview.live.backlog
    spans = " ".join(f"{number}:{name}" for number, name in enumerate(SPANS, 1))
    lines: list[_Styled] = [
        ("head", f"nodrop, {NAMES[overview.span]}, {instant(overview.at)}"),
        ("calm", f"q: quit   {spans}"),
    ]
    if fault:
        lines.append(("bad", printable(f"not of this moment: {fault}")))
    paid, queries = overview.paid, live.queries
    lines += [
        ("", f"placed {overview.placed}   paid {paid.paid}   closed {overview.closed}   {_unusual(overview)}"),
        ("", f"paid by  {_words(paid.by) or 'nothing yet'}"),
        ("", f"time to paid {_durations(paid.time_to_paid)}   to repair {_durations(paid.time_to_repair)}"),
        ("look" if paid.unheard else "", f"callbacks alone would have lost  {_lost(paid)}"),
        (
            "bad" if live.oldest_due_s > OVERDUE_S else "",
            f"pending {backlog.pending}   due {backlog.pending_overdue}   {_oldest(live.oldest_due_s, queries)}",
        ),
        (
            "look" if live.open_cases or backlog.dead_letters else "",
            f"open cases {live.open_cases}   dead letters {backlog.dead_letters}   {_open_work(backlog)}",
        ),
        ("", f"lanes  {_lanes(live.lanes)}"),
    ]
    lines += [("bad", _silent(each)) for each in overview.silent]
    return [*lines, ("", "")]


def _unusual(overview: Overview) -> str:
    return f"late {overview.paid.late}   double {overview.paid.double}   notified {overview.delivered}"


def _oldest(oldest_due_s: float, queries: OpenQueries) -> str:
    return f"oldest due {seconds(oldest_due_s)}   attempts {_attempts(queries.by_attempt)}"


def _open_work(backlog: Backlog) -> str:
    return f"callbacks {backlog.callbacks}   refunds {backlog.refunds}"


def _lanes(lanes: Sequence[LaneFigures]) -> str:
    drawn = [f"{lane.lane} {lane.queued} ({lane.due} due)" for lane in lanes]
    return "   ".join(drawn) or "Redis does not respond"


def _silent(each: SilentAccount) -> str:
    since = instant(each.since)
    return printable(f"SILENT {each.account}: {each.heard} of {each.payments} payments had a callback since {since}")


def _lost(paid: PaidFigures) -> str:
    return f"{paid.unheard} of {paid.expected}" + (f", {money(paid.unheard_money)}" if paid.unheard else "")


def _words(counts: Mapping[str, int]) -> str:
    return "   ".join(f"{printable(word)} {count}" for word, count in counts.items())


def _durations(durations: Durations) -> str:
    return f"p50 {seconds(durations.p50_s)} p99 {seconds(durations.p99_s)}" if durations.count else "-"


def _attempts(counts: Sequence[int]) -> str:
    names = ("1", "2-4", "5-8", "9-16", ">16")
    return " ".join(f"{name}:{count}" for name, count in zip(names, counts, strict=True))


# -- tables ------------------------------------------------------------------------------------------------------------


def _accounts(accounts: Sequence[AccountFigures], lines: int) -> list[_Styled]:
    rows = [(_account_style(each), _account_cells(each)) for each in accounts]
    return _table(_ACCOUNT_HEAD, rows, lines, name_width=16)


def _account_style(account: AccountFigures) -> str:
    if account.is_silent or account.open_breakers:
        return "bad"
    return "look" if account.calls_unanswered or account.paid.unheard else ""


def _account_cells(account: AccountFigures) -> tuple[str, ...]:
    by = account.paid.by
    heard = by.get("callback", 0) + by.get("compensation", 0)
    return (
        account.account,
        str(account.paid.paid),
        str(heard),
        str(account.paid.paid - heard),
        str(account.paid.unheard),
        str(account.calls),
        str(account.calls_unanswered),
        seconds(account.call_latency.p99_s),
        "-" if account.rate_per_s is None else f"{account.calls_in_use}/{account.rate_per_s}",
        ",".join(account.open_breakers) or "-",
    )


def _endpoints(endpoints: Sequence[EndpointFigures], lines: int) -> list[_Styled]:
    rows = [
        (
            "bad" if each.dead_letters else "look" if each.undelivered else "",
            (
                each.endpoint or "(others)",
                str(each.delivered),
                str(each.tries_failed),
                str(each.undelivered),
                seconds(each.oldest_undelivered_s) if each.undelivered else "-",
                str(each.dead_letters),
            ),
        )
        for each in endpoints
    ]
    return _table(_ENDPOINT_HEAD, rows, lines, name_width=40)


def _table(
    head: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]], lines: int, *, name_width: int
) -> list[_Styled]:
    """As many rows as there is room for; a last line says how many more there are. Nothing without room for one."""
    if not rows or lines < ENDPOINT_LINES:
        return []
    shown = list(rows[: lines - 1]) if len(rows) <= lines - 1 else list(rows[: lines - 2])
    widths = [
        max(len(cell) for cell in column) for column in zip(head[1:], *(cells[1:] for _, cells in shown), strict=True)
    ]
    drawn: list[_Styled] = [("calm", _row([head[0].upper(), *(cell.upper() for cell in head[1:])], widths, name_width))]
    drawn += [(style, _row(cells, widths, name_width)) for style, cells in shown]
    if len(shown) < len(rows):
        drawn.append(("calm", f"and {len(rows) - len(shown)} more"))
    return drawn


def _row(cells: Sequence[str], widths: Sequence[int], name_width: int) -> str:
    name = printable(cells[0])
    name = name if len(name) <= name_width else f"{name[: name_width - 1]}\u2026"
    return "  ".join(
        (name.ljust(name_width), *(cell.rjust(width) for cell, width in zip(cells[1:], widths, strict=True)))
    )


def _drawn(style: str, text: str, *, is_coloured: bool) -> str:
    return f"{_STYLES[style]}{text}{_END}" if is_coloured and style and text else text

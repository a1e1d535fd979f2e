"""Closings of days: summed and kept after a reconciliation and by the worker, summed for whoever opens a day; their
sign-off.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from hashlib import sha256

import msgspec
import structlog
from msgspec.structs import replace

from core.acts import Line, Preview, Sum, check_reason
from core.closing import Closing, DayMoney, Doubt, doubts_of, figures_of, lines_of, with_disputes
from core.errors import NotFound, NotPossible, PreviewOutdated, UnknownAccount
from core.sentences import Sentence
from flows.reconcile.unlisted import FIRST_DAY, day_bounds
from runtime.accounts import Account
from runtime.resources import Resources
from storage.postgres.accounts import list_accounts
from storage.postgres.closings import (
    ClosingRow,
    find_closing,
    insert_sign_off,
    list_closings,
    put_closing,
    read_money,
)
from storage.postgres.orders import find_now

DAYS_KEPT_CURRENT = 35
"""Days back that are taken anew by themselves: what is paid or disputed late has nearly always come by then."""

NOTE_CHARACTERS_MAX = 500

log = structlog.get_logger()


class Day(msgspec.Struct, frozen=True, kw_only=True):
    """One closing with its day, and the calendar of the channel as an offset: `UTC+08:00`."""

    day: date
    closing: Closing
    calendar: str


async def read_day(resources: Resources, name: str, day: date) -> Day:
    """The closing of one day as it is now. Nothing is kept: whoever looks changes nothing.

    Raises:
        UnknownAccount: there is no such account.
        NotFound: the day has not begun, or is none of any channel.
    """
    account = await resources.accounts.get(name)
    now = await find_now(resources.db)
    if not FIRST_DAY <= day <= now.astimezone(account.channel.statement_zone).date():
        limits = {"day": str(day), "first": str(FIRST_DAY)}
        raise NotFound(Sentence("{day} has not begun in the channel's calendar, or is before {first}", **limits))
    row = await find_closing(resources.db, name, day)
    return _day(replace(row, here=await _sum(resources, account, day)), account, now=now)


async def list_days(
    resources: Resources, *, account: str | None = None, before: tuple[date, str] | None = None, limit: int
) -> list[Day]:
    """Kept closings, newest day first. Accounts that do not open are left out: nobody knows their calendar."""
    now = await find_now(resources.db)
    days = []
    for row in await list_closings(resources.db, account=account, before=before, limit=limit):
        try:
            days.append(_day(row, await resources.accounts.get(row.account), now=now))
        except UnknownAccount:
            continue
    return days


async def take_day(resources: Resources, account: Account, day: date) -> None:
    """Sum what is known here of a day, and keep it."""
    await put_closing(resources.db, account.config.name, day, await _sum(resources, account, day))


async def take_recent_days(resources: Resources) -> int:
    """Take the last days of every account anew, also of those that are switched off; return how many days."""
    now, count = await find_now(resources.db), 0
    for row in await list_accounts(resources.db):
        try:
            account = await resources.accounts.get(row.name)
        except UnknownAccount:  # logged where its credentials do not open
            continue
        zone = account.channel.statement_zone
        today = now.astimezone(zone).date()
        first = max(today - timedelta(days=DAYS_KEPT_CURRENT), row.created_at.astimezone(zone).date())
        for number in range((today - first).days + 1):
            await take_day(resources, account, first + timedelta(days=number))
            count += 1
    return count


async def preview_sign_off(resources: Resources, name: str, day: date) -> Preview:
    """The figures that would be signed, and what speaks against it. Raises as `read_day`."""
    return preview_of(await read_day(resources, name, day))


def preview_of(seen: Day) -> Preview:
    """The same of a day that was read."""
    return _preview(seen.closing, seen.day)


async def sign_off(
    resources: Resources, name: str, day: date, *, by: str, note: str, expected_version: int | None = None
) -> Day:
    """Sign a day off with the figures of now. `expected_version` is of the preview; None: whatever the figures are.

    Raises:
        InvalidRequest: the note is no reason.
        NotPossible: the day is not over.
        PreviewOutdated: other figures came after the preview.
    """
    note = check_reason(note)
    seen = await read_day(resources, name, day)
    preview = _preview(seen.closing, day)
    if preview.refusal is not None:
        raise NotPossible(preview.refusal)
    if expected_version not in (None, preview.version):
        raise PreviewOutdated(preview)
    figures = figures_of(seen.closing.lines, seen.closing.differences)
    await put_closing(resources.db, name, day, {line.currency: line.here for line in seen.closing.lines})
    await insert_sign_off(resources.db, name, day, by=by, note=note, figures=figures)
    log.info("day_signed_off", account=name, of=day.isoformat(), by=by)
    return await read_day(resources, name, day)


async def _sum(resources: Resources, account: Account, day: date) -> dict[str, DayMoney]:
    """Money of the day that is known here, by currency."""
    since, until = day_bounds(day, account.channel.statement_zone)
    money, disputes = await read_money(resources.db, account.config.name, since, until)
    return with_disputes(money, disputes)


def _preview(closing: Closing, day: date) -> Preview:
    figures = figures_of(closing.lines, closing.differences)
    doubts = doubts_of(closing)
    name = {"account": closing.account, "day": day.isoformat()}
    return Preview(
        lines=(
            Line("sign_off.figures" if closing.lines else "sign_off.no_money", name),
            *(
                Line(
                    "sign_off.currency",
                    {
                        "paid": Sum(line.here.paid, line.currency),
                        "refunded": Sum(line.here.refunded, line.currency),
                        "net": f"{'-' if line.net < 0 else ''}{Sum(abs(line.net), line.currency)}",
                    },
                )
                for line in closing.lines
            ),
        ),
        warnings=tuple(
            Line(f"sign_off.{doubt}", {"count": closing.open_differences})
            for doubt in doubts
            if doubt is not Doubt.NOT_OVER
        ),
        refusal=Line("sign_off.not_over", name) if Doubt.NOT_OVER in doubts else None,
        version=int.from_bytes(sha256(msgspec.json.encode(figures, order="sorted")).digest()[:4]),
    )


def _day(row: ClosingRow, account: Account, *, now: datetime) -> Day:
    zone = account.channel.statement_zone
    since, until = day_bounds(row.day, zone)
    return Day(
        day=row.day,
        calendar=f"UTC{since.astimezone(zone).isoformat()[-6:]}",
        closing=Closing(
            account=row.account,
            lines=lines_of(row.here, row.there),
            ends_at=until,
            is_over=now >= until,
            run=row.latest,
            read_by=row.whole,
            open_differences=row.open_differences,
            sign_off=row.sign_off,
        ),
    )

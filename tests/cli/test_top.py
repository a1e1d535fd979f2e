"""`nodrop top`: what it prints, in whatever terminal."""

import asyncio
import os
import pty
import signal
import sys
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from cli.output import _width
from cli.top.command import Screen, is_coloured
from cli.top.frame import frame, seconds
from core.rollups import SPANS
from core.silence import SilentAccount
from flows.overview import (
    AccountFigures,
    CurrencySum,
    Durations,
    EndpointFigures,
    LaneFigures,
    LiveFigures,
    Overview,
    PaidFigures,
)
from storage.postgres.backlog import Backlog
from storage.postgres.live import OpenQueries
from tests.cli.conftest import Place
from tests.cli.nodrop import Nodrop

NOW = datetime(2026, 11, 27, 18, tzinfo=UTC)
NONE = Durations(count=0, p50_s=None, p99_s=None)
PAID = PaidFigures(
    paid=1200,
    money=[CurrencySum(currency="CNY", amount=120_000)],
    late=1,
    double=2,
    by={"callback": 1100, "query": 90, "refresh": 10},
    expected=1200,
    unheard=95,
    unheard_money=[CurrencySum(currency="CNY", amount=888_800), CurrencySum(currency="JPY", amount=500)],
    time_to_paid=Durations(count=1200, p50_s=1.2, p99_s=61.0),
    time_to_repair=Durations(count=100, p50_s=59.0, p99_s=260.0),
)
ACCOUNT = AccountFigures(
    account="main",
    channel="sandbox",
    paid=PAID,
    callbacks=1150,
    callbacks_paid=1140,
    callbacks_refused=3,
    callbacks_dead=0,
    calls=2500,
    calls_unanswered=7,
    call_latency=Durations(count=2500, p50_s=0.08, p99_s=0.9),
    held={"rate": 4},
    open_breakers=[],
    calls_in_use=12,
    rate_per_s=50,
    is_silent=False,
)
ENDPOINT = EndpointFigures(
    endpoint="https://shop.test/hook",
    delivered=1190,
    first_try=1180,
    dead=1,
    tries=1230,
    tries_failed=40,
    try_latency=NONE,
    time_to_delivered=NONE,
    undelivered=9,
    oldest_undelivered_s=7300.0,
    dead_letters=1,
)
OVERVIEW = Overview(
    at=NOW,
    span="1h",
    since=NOW - timedelta(hours=1),
    step_s=300,
    placed=1234,
    closed=20,
    paid=PAID,
    delivered=1190,
    dead=1,
    histogram_s=[],
    repaired_slots=[],
    buckets=[],
    accounts=[ACCOUNT],
    endpoints=[ENDPOINT],
    silent=[],
    live=LiveFigures(
        backlog=Backlog(
            pending=230,
            pending_overdue=3,
            pending_oldest_due_s=4.0,
            callbacks=0,
            callbacks_oldest_due_s=0.0,
            notifications=9,
            notifications_oldest_due_s=0.0,
            refunds=0,
            refunds_oldest_due_s=0.0,
            dead_letters=1,
            cases={"paid_late": 2},
        ),
        oldest_due_s=4.0,
        open_cases=2,
        queries=OpenQueries(by_attempt=[200, 20, 5, 4, 1], by_age=[1, 2, 3, 4, 5], deadlines=9, is_more=False),
        lanes=[LaneFigures(lane="queries", queued=230, due=3, oldest_due_s=1.0)],
    ),
)
SILENT = SilentAccount(account="main", payments=10, heard=0, expected_share=0.98, since=NOW - timedelta(minutes=7))


def plain(overview: Overview = OVERVIEW, *, columns: int = 80, lines: int = 24, fault: str = "") -> str:
    return "\n".join(frame(overview, columns=columns, lines=lines, is_coloured=False, fault=fault))


def test_all_that_matters_is_on_a_small_terminal() -> None:
    text = plain()
    for part in (
        "placed 1234", "paid 1200", "callback 1100", "query 90", "95 of 1200, 8888.00 CNY, 500 JPY", "p50 59s p99 4m",
        "pending 230", "oldest due 4s", "open cases 2", "dead letters 1", "queries 230 (3 due)", "1:200 2-4:20",
        "12/50", "https://shop.test/hook", "2h",
    ):  # fmt: skip
        assert part in text, part


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (40, 10), (200, 60), (20, 5)])
def test_it_is_never_larger_than_the_terminal(columns: int, lines: int) -> None:
    many = replace(
        OVERVIEW,
        silent=[SILENT] * 3,
        accounts=[replace(ACCOUNT, account=f"account-{n:02}-with-a-long-name") for n in range(40)],
        endpoints=[replace(ENDPOINT, endpoint=f"https://shop-{n}.test/{'x' * 90}") for n in range(40)],
    )
    drawn = frame(many, columns=columns, lines=lines, is_coloured=False)
    assert len(drawn) <= max(lines, 10)
    assert max(map(_width, drawn)) <= max(columns, 40)


def test_accounts_that_have_no_room_are_counted_and_an_endpoint_is_shown_beside_them() -> None:
    many = replace(OVERVIEW, accounts=[replace(ACCOUNT, account=f"a{n:02}") for n in range(40)])
    text = plain(many)
    assert "more" in text
    assert "https://shop.test/hook" in text


def test_a_silent_account_is_called_out() -> None:
    assert "SILENT main: 0 of 10 payments had a callback since 2026-11-27 17:53:00Z" in plain(
        replace(OVERVIEW, silent=[SILENT])
    )


def test_colours_are_left_out_where_they_are_not_wanted() -> None:
    assert "\x1b" not in plain(replace(OVERVIEW, silent=[SILENT]))
    assert "\x1b[1;31m" in "".join(frame(replace(OVERVIEW, silent=[SILENT]), columns=80, lines=24, is_coloured=True))
    assert is_coloured({"TERM": "xterm"})
    assert not is_coloured({"TERM": "xterm", "NO_COLOR": "1"})
    assert not is_coloured({"TERM": "dumb"})


def test_what_strangers_named_cannot_steer_the_terminal() -> None:
    text = plain(replace(OVERVIEW, endpoints=[replace(ENDPOINT, endpoint="https://x.test/\x1b[2J\x07")]))
    assert "\x1b" not in text
    assert "\x07" not in text


def test_figures_that_are_old_say_so() -> None:
    assert "not of this moment: Postgres is away" in plain(fault="Postgres is away")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.0, "0s"),
        (0.25, "0.25s"),
        (12.4, "12s"),
        (119.0, "119s"),
        (240.0, "4m"),
        (7200.0, "2h"),
        (2e6, "23d"),
    ],
)
def test_durations_are_short(value: float | None, text: str) -> None:
    assert seconds(value) == text


async def test_keys_choose_the_span_and_end_it() -> None:
    screen = Screen(SPANS["1h"])
    screen.press("x\x1b[A")
    assert (screen.span.name, screen.pressed.is_set()) == ("1h", False)
    screen.press("3")
    assert (screen.span.name, screen.pressed.is_set(), screen.is_over) == ("7d", True, False)
    screen.press("9")
    assert screen.span.name == "7d"
    screen.press("q")
    assert screen.is_over


async def test_it_prints_once_where_there_is_no_terminal_and_json_for_programs(nodrop: Nodrop, place: Place) -> None:
    await place("A-1")
    text = (await nodrop("top")).out
    assert "nodrop, last hour" in text
    assert "pending 2" in text
    assert "\x1b" not in text
    assert (await nodrop("top", "--once", "--span", "90d")).out.startswith("nodrop, last 90 days")
    seen = (await nodrop("top", "--json", "--span", "24h")).json
    assert (seen["span"], len(seen["buckets"]), seen["live"]["backlog"]["pending"]) == ("24h", 24, 2)
    assert [each["account"] for each in seen["accounts"]] == ["main"]


@pytest.mark.servers
@pytest.mark.parametrize("end", ["q", "interrupted"])
async def test_it_redraws_a_terminal_until_its_end_and_leaves_it_as_it_was(
    nodrop: Nodrop, place: Place, end: str
) -> None:
    await place("A-1")
    master, slave = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli", "top"),
        stdin=slave,
        stdout=slave,
        env={**nodrop.env, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"},
    )
    os.close(slave)
    seen = b""
    try:
        while b"last hour" not in seen:
            seen += await asyncio.to_thread(os.read, master, 65_536)
        os.write(master, b"2")
        while b"last 24 hours" not in seen:
            seen += await asyncio.to_thread(os.read, master, 65_536)
        if end == "q":
            os.write(master, b"q")
        else:
            process.send_signal(signal.SIGINT)
        while not seen.endswith(b"\x1b[?25h\x1b[?1049l"):  # nobody ends while its terminal is full
            seen += await asyncio.to_thread(os.read, master, 65_536)
        assert await asyncio.wait_for(process.wait(), 60) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(master)
    assert seen.startswith(b"\x1b[?1049h\x1b[?25l")

"""Tables in a terminal and elsewhere, and texts that would steer a terminal."""

import asyncio
import os
import pty
import re
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from fcntl import ioctl
from struct import pack
from termios import TIOCSWINSZ

import click
import pytest

from cli.output import (
    Stop,
    Wrong,
    cell,
    folded,
    instant,
    instant_ms,
    print_folded,
    print_table,
    printable,
    span,
)
from tests.cli.nodrop import TIMEOUT_S, Nodrop
from tests.servers import ROOT

ROWS = [("A-1", "a cup of tea", True, None), ("订单-2", "茶", False, datetime(2026, 11, 23, 4, 33, 33, 9, tzinfo=UTC))]


def test_a_table_in_a_pipe_is_aligned_and_has_no_frame(capsys: pytest.CaptureFixture[str]) -> None:
    """Chinese takes two columns a character."""
    print_table(("order", "subject", "enabled", "at"), ROWS, empty="none")
    assert capsys.readouterr().out == (
        "ORDER   SUBJECT       ENABLED  AT\n"
        "A-1     a cup of tea  yes      -\n"
        "订单-2  茶            no       2026-11-23 04:33:33Z\n"
    )


def test_no_rows_are_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("order",), [], empty="no such orders")
    assert capsys.readouterr().out == "no such orders\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain 茶", "plain 茶"),
        ("a\x1b[2Jb", "a\ufffd[2Jb"),
        ("two\nlines\tand", "two lines and"),
        ("right\u202eleft", "right\ufffdleft"),
        ("\x9b31m", "\ufffd31m"),
        ("bell\x07\x00", "bell\ufffd\ufffd"),
    ],
)
def test_what_would_steer_a_terminal_is_replaced(text: str, shown: str) -> None:
    assert printable(text) == cell(text) == shown


def test_a_fault_is_one_line_whatever_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    Stop("first\nsecond\x1b[31m").show()
    assert capsys.readouterr().err == "nodrop: first second\ufffd[31m\n"


def test_exit_codes_differ_for_failures_and_for_wrong_arguments() -> None:
    assert (Stop("x").exit_code, Wrong("x").exit_code) == (1, click.UsageError("x").exit_code) == (1, 2)


def test_instants_are_utc_to_the_second() -> None:
    assert instant(datetime(2026, 11, 23, 12, 0, tzinfo=timezone(timedelta(hours=8)))) == "2026-11-23 04:00:00Z"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "in 0 s"),
        (59.6, "in 60 s"),
        (119, "in 119 s"),
        (240, "in 4 min"),
        (-7200, "2 h ago"),
        (400_000, "in 5 days"),
    ],
)
def test_distances_are_printed_in_the_unit_that_fits(seconds: float, text: str) -> None:
    assert span(seconds) == text


async def test_in_a_terminal_a_table_fits_it_and_markup_is_text(nodrop: Nodrop) -> None:
    name = "[red]shop[/red] " + "x" * 80
    assert (await nodrop("keys", "create", name)).code == 0
    out = await in_terminal(nodrop, 150, "keys", "list")
    lines = out.splitlines()
    assert max(map(len, lines)) <= 150
    assert any("─" in line for line in lines)
    assert "[red]shop[/red]" in out


async def test_in_a_narrow_terminal_a_row_is_printed_line_by_line(nodrop: Nodrop) -> None:
    assert (await nodrop("keys", "create", "shop")).code == 0
    out = await in_terminal(nodrop, 50, "keys", "list")
    assert "\nname        shop\n" in out
    assert "revoked" not in out


async def in_terminal(nodrop: Nodrop, columns: int, *arguments: str) -> str:
    """The output of a process whose standard output is a terminal of so many columns."""
    ours, theirs = pty.openpty()
    ioctl(theirs, TIOCSWINSZ, pack("HHHH", 50, columns, 0, 0))
    env = {**nodrop.env, "TERM": "xterm", "NO_COLOR": "1"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli", *arguments, cwd=ROOT, env=env, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    try:
        read = asyncio.to_thread(read_all, ours)
        out, code = await asyncio.wait_for(asyncio.gather(read, process.wait()), TIMEOUT_S)
    finally:
        os.close(ours)
    assert code == 0, out
    return re.sub(r"\x1b\[[0-9;]*m", "", out.decode()).replace("\r\n", "\n")


def read_all(descriptor: int) -> bytes:
    """Until the far side closes, which is an error on Linux."""
    chunks = []
    with suppress(OSError):
        while chunk := os.read(descriptor, 65_536):
            chunks.append(chunk)
    return b"".join(chunks)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", [""]),
        ("short", ["short"]),
        ("a b c d e f", ["a b c d", "e f"]),
        ("1234567890 x", ["1234567890", "x"]),
        ("订单 已经 支付", ["订单", "已经", "支付"]),
    ],
)
def test_a_long_text_goes_on_below_itself_between_words(text: str, lines: list[str]) -> None:
    assert folded(text, 7, 5) == lines


def test_an_instant_of_an_event_has_milliseconds() -> None:
    at = datetime(2026, 11, 23, 12, 33, 33, 9999, tzinfo=timezone(timedelta(hours=8)))
    assert instant_ms(at) == "2026-11-23 04:33:33.009Z"


def test_a_line_in_a_pipe_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_folded("  12  ", "word " * 60 + "\x1b[2J\nend", "red")
    [line] = capsys.readouterr().out.splitlines()
    assert line.endswith("\ufffd[2J end")


def test_a_long_line_is_folded_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("LINES", "20")
    print_folded("  12  ", "word " * 20)
    lines = re.sub(r"\x1b\[[0-9]*m", "", capsys.readouterr().out).splitlines()
    assert len(lines) == 2
    assert all(len(line) <= 60 for line in lines)
    assert lines[1].startswith("      word")
    print_folded("x" * 50 + "  ", "word " * 20)
    assert capsys.readouterr().out.splitlines()[1].startswith("    ")

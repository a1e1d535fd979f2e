"""`nodrop top`: the overview, live in the terminal. It reads and changes nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from shutil import get_terminal_size
from typing import TYPE_CHECKING

import click

from cli.environment import with_resources
from cli.output import json_option, print_json
from core.errors import NodropError
from core.rollups import SPANS, Span

if TYPE_CHECKING:
    from flows.overview import Overview
    from runtime.resources import Resources

REDRAW_S = 2.0

# https://invisible-island.net/xterm/ctlseqs/ctlseqs.html: the alternate screen, and the cursor hidden
_BEGIN = "\x1b[?1049h\x1b[?25l"
_END = "\x1b[?25h\x1b[?1049l"
_HOME, _END_OF_LINE, _BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


@click.command(epilog="Example: nodrop top --span 24h")
@click.option(
    "--span", "name", type=click.Choice(list(SPANS)), default="1h", show_default=True, help="Figures of so long."
)
@click.option("--once", is_flag=True, help="Print it once; so does a standard output that is no terminal.")
@json_option
def top(*, name: str, once: bool, as_json: bool) -> None:
    """Watch what nodrop does now: payments, repairs, accounts, endpoints, and what is open.

    Redrawn every two seconds. The keys 1 to 5 choose the span, q and Ctrl-C end it. NO_COLOR turns colours off.
    """
    from flows.overview import read_overview

    span = SPANS[name]
    if as_json:
        print_json(with_resources(lambda resources: read_overview(resources, span)))
    elif once or not sys.stdout.isatty():
        overview = with_resources(lambda resources: read_overview(resources, span))
        click.echo("\n".join(_lines(overview, may_colour=sys.stdout.isatty())))
    else:
        with_resources(lambda resources: _watch(resources, span))


class Screen:
    """The keys that were pressed, and the span that they chose."""

    def __init__(self, span: Span) -> None:
        self.span = span
        self.is_over = False
        self.pressed = asyncio.Event()

    def press(self, keys: str) -> None:
        """Take keys: `q` ends it, a number chooses a span, all others are ignored."""
        spans = list(SPANS.values())
        for key in keys:
            if key in "qQ\x03\x04":
                self.is_over = True
            elif key.isascii() and key.isdigit() and 1 <= int(key) <= len(spans):
                self.span = spans[int(key) - 1]
            else:
                continue
            self.pressed.set()


def is_coloured(environ: Mapping[str, str]) -> bool:
    """Whether the terminal may have colours: https://no-color.org"""
    return not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


async def _watch(resources: Resources, span: Span) -> None:
    from flows.overview import read_overview

    screen = Screen(span)
    overview: Overview | None = None
    with _whole_screen(), _keys(screen):
        while not screen.is_over:
            screen.pressed.clear()
            fault = ""
            try:
                overview = await read_overview(resources, screen.span)
            except NodropError as error:
                if overview is None:
                    raise
                fault = str(error)
            _draw(_lines(overview, may_colour=True, fault=fault))
            with suppress(TimeoutError):
                await asyncio.wait_for(screen.pressed.wait(), REDRAW_S)


def _lines(overview: Overview, *, may_colour: bool, fault: str = "") -> list[str]:
    from cli.top.frame import frame

    size = get_terminal_size()
    return frame(
        overview,
        columns=size.columns,
        lines=size.lines,
        is_coloured=may_colour and is_coloured(os.environ),
        fault=fault,
    )


def _draw(lines: list[str]) -> None:
    """Over the frame before, without clearing it first, which would flicker."""
    body = f"{_END_OF_LINE}\r\n".join(lines)
    sys.stdout.write(f"{_HOME}{body}{_END_OF_LINE}{_BELOW}")
    sys.stdout.flush()


@contextmanager
def _whole_screen() -> Iterator[None]:
    sys.stdout.write(_BEGIN)
    sys.stdout.flush()
    try:
        yield
    finally:
        sys.stdout.write(_END)
        sys.stdout.flush()


@contextmanager
def _keys(screen: Screen) -> Iterator[None]:
    """Hear each key at once and show none. A standard input that is no terminal has no keys.

    Ctrl-C is one of them: a cancellation in its place could be swallowed by a client of Redis that connects.
    """
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, screen.press, "q")
    if not sys.stdin.isatty():
        yield
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    loop.add_reader(descriptor, lambda: screen.press(os.read(descriptor, 64).decode("ascii", "ignore") or "q"))
    try:
        yield
    finally:
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)

"""The page and the picture about what each measure is worth, made of the outcomes of worlds. Pure: it lives none."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from itertools import chain
from math import sqrt
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from tests.simulation.nets import NETS, Net
from tests.simulation.oracle import quantile
from tests.simulation.outcome import Outcome

PROFILES: Mapping[str, str] = MappingProxyType(
    {
        "usual": "usual faults",
        "harsh": "harsh faults",
        "one_channel_silent": "a channel silent",
        "outages": "outages",
        "everything": "everything",
        "mix": "a mix",
    }
)
"""Profiles of the page, with their headings in the picture."""

WAYS: Mapping[str, str] = MappingProxyType(
    {"close": "deadline", "refresh": "page", "undelivered": "undelivered list", "api": "second payment"}
)
"""Names of ways to *paid* where they differ from the product's own."""

MIXED = 4
"""Worlds of the mix for one of another profile, with a part of its orders each."""

Z = 1.959964
"""Of an interval of 95 %."""


class Lived(msgspec.Struct, frozen=True, kw_only=True):
    """A world that was lived: the profile that was chosen (it may be `mix`), and its outcome without its violations."""

    commit: str
    profile: str
    outcome: Outcome


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """The worlds behind the figures: each profile and net has `worlds` of `orders`, from `seed` on; the mix has more
    and smaller ones, because each has one profile.
    """

    seed: int
    orders: int
    worlds: int
    commit: str
    args: str = ""
    """Options that leave nets or profiles out."""

    def seeds(self, profile: str) -> range:
        """Return the seeds of the worlds of a profile."""
        return range(self.seed, self.seed + self.worlds * (MIXED if profile == "mix" else 1))

    def orders_of(self, profile: str) -> int:
        """Return the orders of each world of a profile."""
        return max(1, self.orders // MIXED) if profile == "mix" else self.orders

    @property
    def command(self) -> str:
        args = f' ARGS="{self.args}"' if self.args else ""
        return f"SEED={self.seed} ORDERS={self.orders} WORLDS={self.worlds} make figures{args}"


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of one net in one profile. `paid`: orders with money at their channel, `lost` those of them that are
    not paid here at the end and have no case. Times are of payments that became paid.
    """

    paid: int
    lost: int
    false: int
    p50_s: float
    p99_s: float
    max_s: float
    calls_per_order: float
    by: Mapping[str, int]

    @property
    def share(self) -> float:
        return self.lost / self.paid if self.paid else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.lost, self.paid)


class Column(NamedTuple):
    """A profile: its nets in their order, its sums, and the profiles of its worlds."""

    name: str
    cells: Mapping[str, Cell]
    orders: int
    drawn: Mapping[str, int]


def wilson(count: int, n: int) -> tuple[float, float]:
    """Return Wilson's interval of a share at 95 %."""
    if not n:
        return 0.0, 1.0
    share, square = count / n, Z * Z / n
    middle, half = share + square / 2, Z * sqrt(share * (1 - share) / n + square / (4 * n))
    return max(0.0, (middle - half) / (1 + square)), min(1.0, (middle + half) / (1 + square))


def strange_ways(outcome: Outcome) -> list[str]:
    """Return the ways to *paid* that the net of this world does not have: a part was not off."""
    return sorted(set(outcome.figures.by) - NETS[outcome.net].ways)


def columns(lived: Iterable[Lived]) -> list[Column]:
    """Return the figures by profile and net."""
    by_profile: defaultdict[str, defaultdict[str, list[Outcome]]] = defaultdict(lambda: defaultdict(list))
    for each in lived:
        by_profile[each.profile][each.outcome.net].append(each.outcome)
    made = []
    for profile in (name for name in PROFILES if name in by_profile):
        nets = by_profile[profile]
        some = next(iter(nets.values()))
        made.append(
            Column(
                name=profile,
                cells={net: _cell(nets[net]) for net in NETS if net in nets},
                orders=sum(each.figures.orders for each in some),
                drawn=Counter(each.profile for each in sorted(some, key=lambda outcome: outcome.seed)),
            )
        )
    return made


def _cell(outcomes: Sequence[Outcome]) -> Cell:
    by: Counter[str] = Counter()
    for outcome in outcomes:
        by.update(outcome.figures.by)
    times = sorted(chain.from_iterable(outcome.after_s for outcome in outcomes))
    figures = [outcome.figures for outcome in outcomes]
    orders = sum(each.orders for each in figures)
    return Cell(
        paid=sum(each.paid_orders for each in figures),
        lost=sum(each.lost for each in figures),
        false=sum(each.false for each in figures),
        p50_s=quantile(times, 50),
        p99_s=quantile(times, 99),
        max_s=max(times, default=0.0),
        calls_per_order=sum(sum(each.calls.values()) for each in figures) / max(1, orders),
        by=dict(by.most_common()),
    )


# -- the page ----------------------------------------------------------------------------------------------------------

_HEAD = """# Recovery

Shares of the paid orders that are lost with some of the measures only. Each row of the table is the same worlds of
[the simulation](simulation.md), with the same seeds, orders, buyers and faults; what the row does not have is switched
off in the real service. `make figures` writes this page.

![Paid orders lost, by measure and by faults](recovery.svg)

All figures: `{run.command}`, commit `{run.commit}`. Each row has {run.worlds} {worlds} of {run.orders} orders in each
column{mixed}. *Lost* is an order with money at its channel that is not paid here two nights after the last fault, and
about which no case is open; in parentheses is the interval of 95 % (Wilson).
"""

_TAIL = """
## What the rows have

- **callback only**: a callback is verified, its order is written straight away by the callback's own signed words, and
  then it is acknowledged. If that fails, the channel sends it again by its own schedule. Where the words prove too
  little, the channel is queried once. Nobody else queries.
- **+ inbox, compensation**: callbacks are stored before they are acknowledged, confirmed by a query, and tried again
  after n² minutes.
- **fixed queries**, three kinds that are usual, each beside the inbox: six queries, one each 5 seconds after the order
  was placed; one after 60 seconds and five more each 5 minutes; one each minute for orders of the last ten minutes,
  which are also found in the database.
- **n² queries instead**: after 1, 4, 9, 16 … minutes, and at the order's deadline before it is closed, by jobs in
  Redis.
- **+ query on return**: a buyer who comes back from the channel, or presses *refresh*, has it queried.
- **+ sweep**: overdue rows are found in Postgres, and Redis is armed again after it was flushed.
- **+ undelivered list**: events that a channel could not deliver, where it lists them.
- **+ reconciliation**: the channels' daily statements. This is nodrop.

Delivery to the merchant, refunds and the queue's own upkeep are the same in all rows.

## What the figures do not say

- The shares of the faults are ours (`tests/simulation/profiles.py`). They are not measured at any channel: rows can be
  compared with each other, and do not foretell a shop's losses.
- Orders of one world share its outages, so they are not independent, and the true intervals are wider.
- A time to *paid* is of those that became paid: a row that loses the late ones looks fast.
- While nothing has gone wrong for a minute, loops look each ten minutes ([simulation.md](simulation.md)): what the
  sweep or the undelivered list finds is found later than in production.
- Who starts a second payment of an order has the first one queried, in all rows (*second payment*).
"""


def page(run: Run, made: Sequence[Column]) -> str:
    """Return the page."""
    worlds = "world" if run.worlds == 1 else "worlds"
    has_mix = any(column.name == "mix" for column in made)
    mixed = f"; the mix has {MIXED} times as many worlds with a part of these orders each" if has_mix else ""
    parts = [_HEAD.format(run=run, worlds=worlds, mixed=mixed), "\n".join(_shares(made)), _TAIL]
    parts += ["## Each profile\n", *("\n".join(_details(run, column)) for column in made)]
    return "\n".join(parts).rstrip() + "\n"


def _shares(made: Sequence[Column]) -> Iterator[str]:
    yield "| | " + " | ".join(PROFILES[column.name] for column in made) + " |"
    yield "|---|" + "---:|" * len(made)
    for net in _nets(made):
        cells = (_share(column.cells[net.name]) if net.name in column.cells else "" for column in made)
        yield f"| {net.title} | " + " | ".join(cells) + " |"
    yield "| *paid orders* | " + " | ".join(_most_paid(column) for column in made) + " |"


def _details(run: Run, column: Column) -> Iterator[str]:
    yield f"### {column.name}\n"
    drawn = ", ".join(f"{name} {count}" for name, count in column.drawn.items())
    of = f" Worlds by profile: {drawn}." if set(column.drawn) != {column.name} else ""
    size = f"{len(run.seeds(column.name))} × {run.orders_of(column.name)} orders, {column.orders} placed"
    yield f"`{run.command}`, commit `{run.commit}`, {size}.{of}\n"
    yield "| | lost | false | p50 | p99 | max | channel calls an order | became paid by |"
    yield "|---|---:|---:|---:|---:|---:|---:|---|"
    for net in (net for net in NETS.values() if net.name in column.cells):
        cell = column.cells[net.name]
        by = ", ".join(f"{WAYS.get(way, way)} {count}" for way, count in cell.by.items())
        times = " | ".join(duration(seconds) for seconds in (cell.p50_s, cell.p99_s, cell.max_s))
        lost = f"{cell.lost} of {cell.paid}: {_share(cell)}"
        yield f"| {net.title} | {lost} | {cell.false} | {times} | {cell.calls_per_order:.2f} | {by} |"
    yield ""


def _nets(made: Sequence[Column]) -> list[Net]:
    return [net for net in NETS.values() if any(net.name in column.cells for column in made)]


def _share(cell: Cell) -> str:
    low, high = cell.interval
    return f"{percent(cell.share)} % ({percent(low)} to {percent(high)})"


def _most_paid(column: Column) -> str:
    """Return the number of paid orders, from the lowest to the highest of the rows: an order may not be placed."""
    counts = {cell.paid for cell in column.cells.values()}
    return f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"


def percent(share: float) -> str:
    """Return a share as a number of percent: two digits of it, and nought only if it is nought."""
    value = 100 * share
    if value == 0 or value >= 9.95:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 0.095 else f"{value:.2f}"


def duration(seconds: float) -> str:
    """Return a time in its largest unit."""
    for unit, length in (("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.2f} s"


# -- the picture -------------------------------------------------------------------------------------------------------

WIDTH, MARGIN, LABELS, ROW, BAR = 880, 16, 190, 26, 16
_STYLE = (
    "text{font:13px sans-serif;fill:#24292f}.b{font-weight:bold}.n{font-size:12px}.s{font-size:11px;fill:#57606a}"
    ".back{fill:#fff}.room{fill:#eaeef2}.lost{fill:#b5483f}.none{fill:#2f7d4f}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.s{fill:#8d96a0}.back{fill:#0d1117}.room{fill:#21262d}"
    ".lost{fill:#e5786d}.none{fill:#4cb87a}}"
)


def picture(run: Run, made: Sequence[Column]) -> str:
    """Return the picture as SVG, which is dark where the reader's browser is."""
    nets = _nets(made)
    height = MARGIN + ROW * (len(nets) + 2) + 2 * MARGIN
    wide = (WIDTH - LABELS - 2 * MARGIN) / max(1, len(made))
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}">',
        f'<style>{_STYLE}</style><rect class="back" width="{WIDTH}" height="{height}"/>',
        _text(MARGIN, MARGIN + 12, "Paid orders lost, percent", "b"),
    ]
    for number, column in enumerate(made):
        x = MARGIN + LABELS + number * wide
        drawn.append(_text(x, MARGIN + ROW + 10, PROFILES[column.name], "n b"))
        for row, net in enumerate(nets):
            if net.name in column.cells:
                drawn += _bar(x, MARGIN + ROW * (row + 2) - 6, wide - 12, column.cells[net.name])
    for row, net in enumerate(nets):
        drawn.append(_text(MARGIN, MARGIN + ROW * (row + 2) + 7, net.title, "b" if net.name == "nodrop" else ""))
    facts = f"docs/recovery.md: seed {run.seed}, commit {run.commit}: {run.worlds * run.orders} orders for each bar"
    drawn.append(_text(MARGIN, height - MARGIN, facts, "s"))
    return "\n".join((*drawn, "</svg>", ""))


def _bar(x: float, y: float, width: float, cell: Cell) -> Iterator[str]:
    """Yield a bar whose whole width is 100 %, with its number on it or beside it."""
    length = width * cell.share
    yield f'<rect class="room" x="{x:.1f}" y="{y}" width="{width:.1f}" height="{BAR}"/>'
    if cell.lost:
        yield f'<rect class="lost" x="{x:.1f}" y="{y}" width="{max(1.0, length):.1f}" height="{BAR}"/>'
    else:
        yield f'<rect class="none" x="{x:.1f}" y="{y}" width="3" height="{BAR}"/>'
    at = x + max(3.0, length) + 5
    yield _text(at if at + 30 < x + width else x + 5, y + 12, percent(cell.share), "n")


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    of_kind = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.0f}"{of_kind}>{escape(text)}</text>'

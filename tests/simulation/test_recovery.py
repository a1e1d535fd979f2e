"""The figures about nets: sums and intervals, the page and the picture, and what is refused."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import msgspec
import pytest

from tests.simulation.figures import PartNotOff, Task, checked, live_all, read
from tests.simulation.oracle import Figures, Times
from tests.simulation.outcome import Outcome
from tests.simulation.recovery import Lived, Run, columns, duration, page, percent, picture, wilson

RUN = Run(seed=7, orders=10, worlds=2, commit="abc1234")


def outcome(net: str = "nodrop", *, seed: int = 7, profile: str = "harsh", **changes: Any) -> Outcome:
    times = Times(n=2, p50_s=1.0, p99_s=2.0, max_s=2.0)
    figures = Figures(
        orders=10, paid=9, paid_orders=8, lost=0, false=0, by={"callback": 2}, times=times, by_channel={},
        calls={"alipay": 12, "sandbox": 3}, calls_per_order=1.5, views=0,
    )  # fmt: skip
    figures = msgspec.structs.replace(figures, **changes)
    return Outcome(
        seed=seed, profile=profile, net=net, orders=10, found=(), figures=figures, faults=(), digest="", cpu_s=1.0,
        real_s=1.0, virtual_s=1.0, statements=1, commands=1, after_s=(1.0, 90.0),
    )  # fmt: skip


def lived(each: Outcome, profile: str = "") -> Lived:
    return Lived(commit=RUN.commit, profile=profile or each.profile, outcome=each)


@pytest.mark.parametrize(
    ("count", "n", "low", "high"), [(0, 100, 0.0, 0.0370), (10, 100, 0.0552, 0.1744), (100, 100, 0.9630, 1.0)]
)
def test_interval_is_wilsons(count: int, n: int, low: float, high: float) -> None:
    assert wilson(count, n) == pytest.approx((low, high), abs=1e-4)


def test_mix_has_more_and_smaller_worlds() -> None:
    run = Run(seed=7, orders=100, worlds=2, commit="")
    assert (list(run.seeds("harsh")), run.orders_of("harsh")) == ([7, 8], 100)
    assert (list(run.seeds("mix")), run.orders_of("mix")) == ([7, 8, 9, 10, 11, 12, 13, 14], 25)


def test_command_of_the_page_names_what_was_left_out() -> None:
    run = msgspec.structs.replace(RUN, args="--profile harsh")
    assert run.command == 'SEED=7 ORDERS=10 WORLDS=2 make figures ARGS="--profile harsh"'
    text = page(run, columns([lived(outcome("callback"))]))
    assert run.command in text
    assert "the mix" not in text


def test_nothing_is_known_of_no_orders() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def test_worlds_of_a_net_add_up() -> None:
    [column] = columns(lived(outcome("callback", seed=seed, lost=lost)) for seed, lost in ((7, 1), (8, 3)))
    cell = column.cells["callback"]
    assert (column.name, column.orders) == ("harsh", 20)
    assert (cell.paid, cell.lost, cell.false, cell.by) == (16, 4, 0, {"callback": 4})
    assert cell.share == 0.25
    assert (cell.p50_s, cell.max_s, cell.calls_per_order) == (45.5, 90.0, 1.5)


def test_page_and_picture_have_each_figure_with_its_command_and_commit() -> None:
    made = columns(
        [
            lived(outcome("callback", lost=4, by={"callback": 2, "api": 1})),
            lived(outcome("nodrop", by={"refresh": 5})),
            lived(outcome("nodrop", profile="calm"), "mix"),
        ]
    )
    text = page(RUN, made)
    assert "SEED=7 ORDERS=10 WORLDS=2 make figures" in text
    assert text.count("abc1234") == 3
    assert "| callback only | 50 % (22 to 78) |  |" in text
    assert "| + reconciliation: nodrop | 0 % (0 to 32) | 0 % (0 to 32) |" in text
    assert "4 of 8: 50 % (22 to 78)" in text
    assert "callback 2, second payment 1" in text
    assert "| page 5 |" in text
    assert "Worlds by profile: calm 1." in text
    assert "the mix has 4 times as many worlds" in text
    drawing = ET.fromstring(picture(RUN, made))  # noqa: S314 - it is ours
    texts = [each.text for each in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert {"callback only", "+ reconciliation: nodrop", "harsh faults", "a mix", "50", "0"} <= set(texts)
    assert any(text and "abc1234" in text for text in texts)
    bars = [each for each in drawing.iter("{http://www.w3.org/2000/svg}rect") if each.get("class") == "lost"]
    assert len(bars) == 1


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "0"), (0.0001, "0.01"), (0.00123, "0.1"), (0.0456, "4.6"), (0.123, "12"), (1.0, "100")]
)
def test_percent_is_nought_only_if_it_is_nought(share: float, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.5, "0.50 s"), (90.0, "1.5 min"), (9000.0, "2.5 h")])
def test_time_is_in_its_largest_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_world_with_a_way_that_its_net_lacks_is_refused() -> None:
    with pytest.raises(PartNotOff, match="payments became paid by sweep"):
        checked("harsh", "abc", outcome("page", by={"callback": 2, "sweep": 1}))
    assert checked("harsh", "abc", outcome("sweep", by={"callback": 2, "sweep": 1})).commit == "abc"


def test_worlds_in_the_file_of_results_are_not_lived_again(tmp_path: Path) -> None:
    results = tmp_path / "results"
    kept, other = lived(outcome("page")), Lived(commit="older", profile="harsh", outcome=outcome("sweep"))
    results.write_bytes(msgspec.json.encode(kept) + b"\n" + msgspec.json.encode(other) + b"\n")
    assert read(results) == [kept, other]
    assert live_all(RUN, [Task("harsh", "page", 7)], 1, results) == [kept]

"""Charts: well-formed, escaped, with axes, and the same figures in a table."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from api.console.charts import HEIGHT, LEFT, RIGHT, SERIES_MAX, WIDTH, Series, Words, histogram, lines, stacked

SVG = "{http://www.w3.org/2000/svg}"
WORDS = Words(table="As a table", place="Time", empty="Nothing.")
PLACES = ("10:00", "10:05", "10:10")
EVIL = "<script>alert(1)</script>\"&'"


def parsed(drawn: Markup) -> ET.Element:
    return ET.fromstring(f"<body>{drawn}</body>")  # noqa: S314 - made above


def bars(drawn: Markup) -> list[tuple[str, float, float]]:
    """Class, upper and lower end of each bar."""
    return [
        (str(each.get("class")), float(each.attrib["y"]), float(each.attrib["y"]) + float(each.attrib["height"]))
        for each in parsed(drawn).iter(f"{SVG}rect")
        if "x" in each.attrib
    ]


def ticks(drawn: Markup) -> list[str]:
    return [str(each.text) for each in parsed(drawn).iter(f"{SVG}text") if each.get("text-anchor") == "end"]


def table_of(drawn: Markup) -> list[list[str]]:
    return [["".join(cell.itertext()) for cell in row] for row in parsed(drawn).iter("tr")]


def test_bars_stand_on_one_another_and_are_as_high_as_their_values() -> None:
    drawn = stacked("paid", "Paid", "By source", PLACES, [Series("a", [2, 0, 1]), Series("b", [2, 4, 0])], WORDS)
    (_, a_top, a_bottom), (_, b_top, b_bottom), (_, only_top, only_bottom), *_ = bars(drawn)
    assert a_bottom == only_bottom == pytest.approx(HEIGHT - 24)
    assert b_bottom == pytest.approx(a_top, abs=0.2)
    assert only_bottom - only_top == pytest.approx(2 * (a_bottom - a_top), abs=0.2)
    assert b_top == pytest.approx(only_top, abs=0.2)
    assert ticks(drawn) == ["0", "1", "2", "3", "4"]


def test_it_says_what_it_is_and_has_its_figures_in_a_table() -> None:
    drawn = stacked("paid", "Paid", "By source", PLACES, [Series("a", [2, 0, 1]), Series("b", [0, 4000, 0])], WORDS)
    [svg] = [each for each in parsed(drawn).iter(f"{SVG}svg") if each.get("role") == "img"]
    ids = str(svg.get("aria-labelledby")).split()
    assert [str(svg.find(f"{SVG}{tag}").attrib["id"]) for tag in ("title", "desc")] == ids  # type: ignore[union-attr]
    assert table_of(drawn) == [["Time", "a", "b"], ["10:00", "2", "0"], ["10:05", "0", "4,000"], ["10:10", "1", "0"]]


def test_lines_are_told_apart_by_their_dashes_too() -> None:
    drawn = lines("calls", "Calls", "About", PLACES, [Series("all", [1, 2, 3]), Series("failed", [0, 1, 0])], WORDS)
    found = list(parsed(drawn).iter(f"{SVG}polyline"))
    assert [each.get("stroke-dasharray") for each in found] == [None, "6 3"]
    assert all(len(str(each.get("points")).split()) == len(PLACES) for each in found)


def test_without_a_value_there_is_a_sentence_and_no_drawing() -> None:
    for drawn in (
        stacked("a", "A", "B", PLACES, [Series("a", [0, 0, 0])], WORDS),
        lines("a", "A", "B", PLACES, [], WORDS),
        histogram("a", "A", "B", PLACES, [0, 0, 0], "n", WORDS),
        stacked("a", "A", "B", (), [Series("a", [])], WORDS),
    ):
        assert "Nothing." in drawn
        assert "<svg" not in drawn


def test_more_series_than_colours_share_the_last_one() -> None:
    series = [Series(f"s{number}", [1, 1, 1]) for number in range(SERIES_MAX + 3)]
    drawn = stacked("a", "A", "B", PLACES, series, WORDS)
    assert {name for name, _, _ in bars(drawn)} == {f"chart-{number}" for number in range(SERIES_MAX)}
    assert table_of(drawn)[1][-1] == "4"


def test_what_strangers_named_is_escaped() -> None:
    words = Words(table=EVIL, place=EVIL, empty=EVIL)
    for draw in (stacked, lines):
        drawn = draw(EVIL, EVIL, EVIL, [EVIL, EVIL], [Series(EVIL, [1, 2]), Series("b", [1, 1])], words)
        assert "<script" not in drawn
        assert parsed(drawn) is not None
        assert EVIL in "".join(parsed(drawn).itertext())
    assert "<script" not in stacked("a", EVIL, EVIL, (), [], words)


def test_the_pages_policy_refuses_styles_so_there_is_none() -> None:
    drawn = stacked("a", "A", "B", PLACES, [Series("a", [1, 2, 3])], WORDS)
    drawn += lines("a", "A", "B", PLACES, [Series("a", [1, 2, 3])], WORDS)
    assert not re.search(r"style\s*=|<style|\son[a-z]+\s*=", drawn)


@given(st.lists(st.lists(st.integers(0, 10**9), min_size=1, max_size=200), min_size=1, max_size=10))
def test_nothing_is_drawn_outside_of_the_axes(columns: list[list[int]]) -> None:
    size = min(map(len, columns))
    series = [Series(f"s{number}", values[:size]) for number, values in enumerate(columns)]
    places = [f"p{number}" for number in range(size)]
    for name, top, bottom in bars(stacked("a", "A", "B", places, series, WORDS)):
        assert name
        assert 0 <= top <= bottom + 0.1
        assert bottom <= HEIGHT
    for points in (
        str(each.get("points")) for each in parsed(lines("a", "A", "B", places, series, WORDS)).iter(f"{SVG}polyline")
    ):
        for x, y in (map(float, point.split(",")) for point in points.split()):
            assert LEFT <= x <= WIDTH - RIGHT
            assert 0 <= y <= HEIGHT


@pytest.mark.parametrize(
    ("highest", "shown"),
    [
        (1, ["0", "1"]),
        (5, ["0", "1", "2", "3", "4", "5"]),
        (7, ["0", "2", "4", "6", "8"]),
        (11, ["0", "5", "10", "15"]),
        (1234, ["0", "500", "1,000", "1,500"]),
    ],
)
def test_ticks_are_round(highest: int, shown: Sequence[str]) -> None:
    assert ticks(stacked("a", "A", "B", ["x"], [Series("a", [highest])], WORDS)) == list(shown)

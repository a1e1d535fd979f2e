from datetime import UTC, datetime
from pathlib import Path

import pytest

from bench.page import BEGIN, END, NoPlace, tables, write
from bench.report import Figure, Report, Result, figure, of_repeats
from tests.bench.test_report import MACHINE
from tests.servers import ROOT


def report(benchmark: str, *figures: Figure) -> Report:
    result = Result(benchmark=benchmark, how="by hand", settings={}, seconds=1.0, figures=figures)
    return Report(
        command="python -m bench",
        began_at=datetime.now(UTC),
        seconds=2.0,
        machine=MACHINE,
        loop_ms=(4.0, 5.5, 4.5),
        results=(result,),
    )


def test_both_sides_and_their_ratio_stand_in_one_row() -> None:
    made = report(
        "usual",
        of_repeats("nodrop_cpu_ours", [3.0, 4.0, 5.0], "CPU ms/order", 9),
        of_repeats("usual_cpu_ours", [28.0], "CPU ms/order", 9),
        figure("ratio_cpu_ours", 1 / 7, "nodrop costs this share", 3),
    )
    assert "| `cpu_ours` | CPU ms/order | 4 (3 … 5) | 28 | 0.1429 |" in tables(made)


def test_sizes_of_growth_are_columns_in_their_order() -> None:
    sizes = (figure(f"order_never_{size}", size / 1000, "CPU ms", 9) for size in (10_000, 1000))
    made = report("growth", *sizes, figure("growth_order_never", 9.5, "times the smallest", 9))
    assert tables(made)[-3:] == [
        "| | Unit | 1,000 | 10,000 | last by first, in turns |",
        "|---|---|---|---|---|",
        "| `order_never` | CPU ms | 1 | 10 | 9.5 |",
    ]


def test_levels_of_orders_are_columns_and_a_figure_that_is_not_there_an_empty_cell() -> None:
    made = report("orders", figure("cpu_ours_64", 3.0, "CPU ms/order", 9), figure("order_p50_lone", 9.0, "ms", 9))
    assert "| | Unit | lone | 64 | open |" in tables(made)
    assert "| `cpu_ours` | CPU ms/order |  | 3 |  |" in tables(made)


def test_tables_replace_what_stands_between_the_comments(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write(page, report("sweep", figure("idle_p50", 0.5, "ms", 200)))
    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}\n`python -m bench`, 2 s, commit 0123456789ab")
    assert text.endswith(f"| `idle_p50` | ms | 0.5 | 200 |\n{END}\nafter\n")
    assert "old" not in text


def test_page_without_a_place_for_tables_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("no place")
    with pytest.raises(NoPlace, match=r"page\.md"):
        write(page, report("sweep"))


def test_page_about_performance_has_a_place_for_tables() -> None:
    text = (ROOT / "docs" / "performance.md").read_text()
    assert text.index(BEGIN) < text.index(END)

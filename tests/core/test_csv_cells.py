"""A stranger's text is no formula in a spreadsheet, and a number is a number."""

import csv
import io
from decimal import Decimal

import pytest

from core.csv_cells import csv_line, safe_cell


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        " =1",
        "\u00a0=1",
        "\ufeff =1",
        "\u200b=1",
        "\x0b\x0c=1",
        "\u202e@A",
        "\u3000+1",
        "＝1",
        "＋1",
        "－1",
        "＠A",
        "=cmd|'/c calc'!A0",
    ],
)
def test_a_text_that_would_run_is_a_text(text: str) -> None:
    assert safe_cell(text) == f"'{text}"


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (None, ""),
        (-5, "-5"),
        (7, "7"),
        (Decimal("-1.50"), "-1.50"),
        ("A-1", "A-1"),
        ("", ""),
        ("a=b", "a=b"),
        (True, "True"),
    ],
)
def test_all_else_stays(value: object, cell: str) -> None:
    assert safe_cell(value) == cell


def test_a_line_is_read_back_whole() -> None:
    line = csv_line(["a,b", 'say "x"', "two\r\nlines", None, -5, "=1"])
    assert line.endswith("\r\n")
    [read] = csv.reader(io.StringIO(line, newline=""))
    assert read == ["a,b", 'say "x"', "two\r\nlines", "", "-5", "'=1"]

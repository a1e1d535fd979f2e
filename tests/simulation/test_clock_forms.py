"""Postgres's time is read in the forms that a world can replace, and in no other."""

import re
from pathlib import Path

import pytest

from tests.servers import ROOT
from tests.simulation.postgres import CLOCKS

FOLDERS = ("api", "cli", "core", "demo", "flows", "runtime", "storage", "worker")

_FORMS = re.compile(
    r"\b(?:current_timestamp|current_date|current_time|localtimestamp|localtime|timeofday|uuidv[47]|uuid_generate_v\w+"
    rf"|pg_catalog\.(?:{'|'.join(CLOCKS)}|gen_random_uuid|random))\b"
    r"|'(?:now|today|tomorrow|yesterday)'::|\b(?:date|time|timestamp|timestamptz) '(?:now|today)|\brandom\(\)",
    re.IGNORECASE,
)
"""Forms that read the clock or the chance of the machine, whatever the search path is."""


def forms_in(text: str) -> list[str]:
    return [match[0] for match in _FORMS.finditer(text)]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT CURRENT_TIMESTAMP",
        "SELECT current_date",
        "DEFAULT LOCALTIMESTAMP",
        "pg_catalog.now()",
        "'now'::timestamptz",
        "timestamptz 'today'",
        "ORDER BY random()",
    ],
)
def test_a_form_that_reads_the_machines_clock_is_seen(sql: str) -> None:
    assert forms_in(sql)


@pytest.mark.parametrize("sql", ["now()", "clock_timestamp()", "current_date_of(x)", "pg_catalog.pg_class", "'now'"])
def test_other_forms_are_not(sql: str) -> None:
    assert not forms_in(sql)


def _files() -> list[Path]:
    return [path for folder in FOLDERS for end in ("*.py", "*.sql") for path in sorted((ROOT / folder).rglob(end))]


def test_no_statement_of_ours_uses_one() -> None:
    found = {str(path.relative_to(ROOT)): forms for path in _files() if (forms := forms_in(path.read_text("utf-8")))}
    assert found == {}

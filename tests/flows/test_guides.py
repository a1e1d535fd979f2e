"""The guides stand once: the files have every reason in both languages, and the documentation shows the same texts."""

import re
from pathlib import Path

import pytest

from core.errors import ConfigurationError
from core.order import CaseReason
from flows.guides import texts
from flows.guides.texts import FOLDER, Piece, guide_of, guides, pieces, plain
from tests.servers import ROOT

STATEMENT = "statement_"


def table(page: str, head: str) -> dict[str, tuple[str, str]]:
    """The rows of a table of three columns, by each name in the first."""
    text = (ROOT / "docs" / page).read_text().partition(head)[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (`[^|]+) \| ([^|]+) \| ([^|]+) \|$", text, re.MULTILINE)
    return {name: (what, do) for names, what, do in rows for name in re.findall(r"`(\w+)`", names)}


def test_operations_shows_what_happened_and_what_to_do() -> None:
    shown = table("operations.md", "| Reason |")
    wanted = {
        reason.value: (guide.what, guide.do)
        for reason, guide in guides("en").items()
        if not reason.startswith(STATEMENT)
    }
    assert {name: row for name, row in shown.items() if not name.startswith(STATEMENT)} == wanted


def test_reconciliation_shows_the_same_of_every_difference_with_a_case() -> None:
    shown = table("reconciliation.md", "| Kind |")
    for reason, guide in guides("en").items():
        if reason.startswith(STATEMENT):
            assert shown[reason.removeprefix(STATEMENT)] == (guide.what, guide.do)


def test_both_languages_have_every_reason_and_the_same_commands() -> None:
    english, chinese = guides("en"), guides("zh")
    assert english.keys() == chinese.keys() == set(CaseReason)
    for reason, guide in english.items():
        for ours, theirs in ((guide.what, chinese[reason].what), (guide.do, chinese[reason].do)):
            assert sorted(codes(ours)) == sorted(codes(theirs)), reason
            assert re.search(r"[\u4e00-\u9fff]", theirs), reason


def codes(text: str) -> list[str]:
    return [piece.text for piece in pieces(text) if piece.is_code]


def test_a_language_that_there_is_not_is_english_and_an_unknown_reason_has_no_guide() -> None:
    assert guides("fr") == guides("en")
    assert guides("../zh") == guides("en")
    assert guide_of("of_another_version") is None
    assert guide_of("paid_late", "zh") == guides("zh")[CaseReason.PAID_LATE]


def test_a_text_is_cut_into_code_and_words_without_links() -> None:
    text = "See [Refunds](#refunds): run `nodrop x`, *then* wait."
    assert plain(text) == "See Refunds: run `nodrop x`, then wait."
    assert list(pieces(text)) == [
        Piece("See Refunds: run ", is_code=False),
        Piece("nodrop x", is_code=True),
        Piece(", then wait.", is_code=False),
    ]


@pytest.mark.parametrize("content", ["[paid_late]\nwhat = 1\ndo = 'x'", "[nothing]\nwhat='x'\ndo='y'", "", "not toml"])
def test_a_file_that_lacks_a_reason_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    assert FOLDER.is_dir()
    folder = tmp_path
    (folder / "en.toml").write_text(content)
    monkeypatch.setattr(texts, "FOLDER", folder)
    guides.cache_clear()
    try:
        with pytest.raises(ConfigurationError, match=r"en\.toml"):
            guides("en")
    finally:
        guides.cache_clear()

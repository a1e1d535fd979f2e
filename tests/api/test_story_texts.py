"""Each entry and step has a sentence in every language, whatever it holds."""

from pathlib import Path

import pytest

from api.story.texts import FOLDER, LANGUAGES, read_sentences, tell, tell_next, who
from core.errors import ConfigurationError
from core.next_steps import STEP_TEXTS, Step, WaitsFor
from core.order import PaymentKey
from core.story import ENTRY_TEXTS, Entry, Tone
from tests.core.states import NOW

HOSTILE = "<script>{who}</script>{0}%s"


def an_entry(text: str = "paid", **values: str) -> Entry:
    return Entry(at=NOW, kind=text, text=text, by="query", tone=Tone.CALM, values=values)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_text_has_a_sentence_whatever_its_words_are(language: str) -> None:
    words = dict.fromkeys(("account", "note", "amount", "kind", "says", "reason", "type", "status"), HOSTILE)
    for text in ENTRY_TEXTS:
        assert tell(an_entry(text, **words), language)
        assert tell(an_entry(text), language)
    for text in STEP_TEXTS:
        assert tell_next(Step(text=text, waits_for=WaitsFor.WORKER, values=words), language)
        assert tell_next(Step(text=text, waits_for=WaitsFor.WORKER), language)


def test_a_sentence_says_which_query_it_was_and_how_often() -> None:
    entry = Entry(at=NOW, kind="unpaid_seen", text="unpaid_seen", by="query", number=2, key=PaymentKey("main", "n"))
    assert tell(entry) == "query 2: not paid yet"
    assert tell(entry, "zh") == "第 2 次查单：尚未付款"
    again = Entry(at=NOW, kind="unpaid_seen", text="unpaid_seen", by="refresh", count=3)
    assert tell(again) == "refresh: not paid yet (3 times)"


def test_a_persons_name_is_shown_as_it_is() -> None:
    assert who(Entry(at=NOW, kind="case", text="case_resolved", by="alice")) == "alice"


def test_a_language_that_is_not_there_is_english() -> None:
    assert tell(an_entry(), "xx") == tell(an_entry(), "en")


def test_words_of_a_stranger_are_not_a_template() -> None:
    assert tell(an_entry("unclear_seen", account="main", note=HOSTILE)).endswith(f"({HOSTILE})")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('unpaid_seen = "{who}: not paid yet"', 'unpaid_seen = "not paid yet"'),
        ('unpaid_seen = "{who}: not paid yet"', ""),
        ("[by]", 'more = "x"\n[by]'),
        ('unpaid_seen = "{who}: not paid yet"', 'unpaid_seen = "{who"'),
    ],
    ids=["a word", "a key", "an unknown table", "braces"],
)
def test_a_file_that_lacks_something_is_refused(tmp_path: Path, before: str, after: str) -> None:
    for name in ("en", "zh"):
        (tmp_path / f"{name}.toml").write_text((FOLDER / f"{name}.toml").read_text("utf-8"), "utf-8")
    english = tmp_path / "en.toml"
    english.write_text(english.read_text("utf-8").replace(before, after, 1), "utf-8")
    with pytest.raises(ConfigurationError):
        read_sentences(tmp_path)
    english.unlink()
    with pytest.raises(ConfigurationError, match=r"en\.toml is missing"):
        read_sentences(tmp_path)

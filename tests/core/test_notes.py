"""Notes of events: each of our forms is recognised whole, and nothing else is."""

import pytest

from core.notes import CODES, FORMS, phrase_of_note
from core.sentences import Phrase


@pytest.mark.parametrize("form", FORMS)
def test_a_note_of_each_form_is_that_form(form: str) -> None:
    words = {"person": "anna", "refund_no": "r-1", "second": "ben", "numbers": "n-1, n-2", "code": "OTHER_CODE"}
    phrase = phrase_of_note(form.format(**words))
    assert phrase is not None
    assert (phrase.template, str(phrase)) == (form, form.format(**words))


def test_a_code_stands_alone_or_in_a_form() -> None:
    for code in CODES:
        assert phrase_of_note(code) == Phrase(code)
        assert phrase_of_note(f"refused: {code}") == Phrase("refused: {code}", {"code": Phrase(code)})


@pytest.mark.parametrize(
    "text", ["", "by", "by anna and ben", "refused: a b", "x paid, and disputed before", "NEW_CODE"]
)
def test_any_other_text_is_no_note_of_ours(text: str) -> None:
    assert phrase_of_note(text) is None

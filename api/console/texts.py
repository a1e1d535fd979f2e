"""The texts of the console, one file for each language, under the rules of the order pages' texts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from api.pages import texts as pages
from api.pages.texts import Language, read_languages
from core.act_names import ACTS
from core.act_sentences import SENTENCES
from flows.explanation_notes import NOTES

FOLDER = Path(__file__).parent / "languages"

_MORE = {
    **{f"note.{key}": text for key, text in NOTES.items()},
    **{f"act.{key}": text for key, text in SENTENCES.items()},
    **{f"did.{name}": text for name, text in ACTS.items()},
}
"""English texts that stand in other places too."""

LANGUAGES: Mapping[str, Language] = read_languages(FOLDER, _MORE)


def choose(requested: str, accept_language: str) -> str:
    """The language that an operator has chosen, else the one that the browser prefers among ours."""
    return pages.choose(requested, accept_language, LANGUAGES)


def money_language(lang: str) -> Language:
    """The language whose marks amounts have."""
    return pages.LANGUAGES.get(lang, pages.LANGUAGES[pages.DEFAULT])

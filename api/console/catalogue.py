"""Sentences of faults, alerts, cases and differences in other languages: one file for each, keyed by the English
template, because the English stands where the sentence is made.

What a file lacks is shown in English and marked as that; a test holds the files complete.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import msgspec

from api.console.texts import LANGUAGES
from api.pages.texts import placeholders
from core.act_sentences import SENTENCES
from core.errors import ConfigurationError

FOLDER = Path(__file__).parent / "sentences"


def read_catalogues(folder: Path) -> Mapping[str, Mapping[str, str]]:
    """The sentences of each file, by template: `zh.toml` is "zh".

    Raises:
        ConfigurationError: names the file and the sentences that are empty, or have a word in braces too many.
    """
    return MappingProxyType({path.stem: MappingProxyType(_read(path)) for path in sorted(folder.glob("*.toml"))})


def _read(path: Path) -> dict[str, str]:
    try:
        read = msgspec.convert(tomllib.loads(path.read_text("utf-8")), dict[str, str])
    except (OSError, ValueError, msgspec.ValidationError) as error:
        raise ConfigurationError(f"sentences: {path.name}: {error}") from None
    faults = [
        f"sentences: {path.name}: {template!r} needs a text with no other words in braces"
        for template, text in read.items()
        if not text or placeholders(text) - placeholders(template)
    ]
    if faults:
        raise ConfigurationError("; ".join(faults))
    return read


CATALOGUES = read_catalogues(FOLDER)


def find_translation(lang: str, template: str) -> str | None:
    """The sentence in this language, with the same words in braces or fewer of them; None: there is none."""
    return CATALOGUES.get(lang, {}).get(template) or _acts(lang).get(template)


def _acts(lang: str) -> Mapping[str, str]:
    return _ACTS.get(lang, {})


_ACTS: Mapping[str, Mapping[str, str]] = {
    lang: {english: language.texts[f"act.{key}"] for key, english in SENTENCES.items()}
    for lang, language in LANGUAGES.items()
}

"""The sentences of a story, one file for each language. All have the same keys, with the same words in braces: a file
that lacks one ends the process at its start.

Values may be a stranger's: a sentence is plain text, and whoever shows it escapes it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from string import Formatter
from types import MappingProxyType

import msgspec

from core.errors import ConfigurationError
from core.next_steps import STEP_TEXTS, Step
from core.story import ENTRY_TEXTS, Entry

DEFAULT = "en"
FOLDER = Path(__file__).parent / "languages"


class Sentences(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Texts of one language: `by` are words for who did it."""

    repeated: str
    by: dict[str, str]
    entries: dict[str, str]
    steps: dict[str, str]

    @property
    def every(self) -> dict[str, str]:
        tables = {"by": self.by, "entries": self.entries, "steps": self.steps}
        nested = {f"{name}.{key}": text for name, table in tables.items() for key, text in table.items()}
        return {"repeated": self.repeated, **nested}


def read_sentences(folder: Path) -> Mapping[str, Sentences]:
    """The sentences of each file: `en.toml` is "en".

    Raises:
        ConfigurationError: names the file and the keys that are missing, unknown, or lack a word in braces.
    """
    read = {path.stem: _read(path) for path in sorted(folder.glob("*.toml"))}
    if DEFAULT not in read:
        raise ConfigurationError(f"story: {DEFAULT}.toml is missing in {folder}")
    wanted = {key: _words(text) for key, text in read[DEFAULT].every.items()}
    faults = [
        f"story: {name}.toml: {key} is missing, unknown or lacks a word in braces"
        for name, sentences in read.items()
        for there in ({key: _words(text) for key, text in sentences.every.items()},)
        for key in sorted(wanted.keys() | there.keys())
        if wanted.get(key) != there.get(key)
    ]
    needed = {f"entries.{key}" for key in ENTRY_TEXTS} | {f"steps.{key}" for key in STEP_TEXTS}
    faults += [f"story: {DEFAULT}.toml: {key} is missing" for key in sorted(needed - wanted.keys())]
    if faults:
        raise ConfigurationError("; ".join(faults))
    return MappingProxyType(read)


def _read(path: Path) -> Sentences:
    try:
        return msgspec.convert(tomllib.loads(path.read_text("utf-8")), Sentences)
    except (OSError, ValueError, msgspec.ValidationError) as error:
        raise ConfigurationError(f"story: {path.name}: {error}") from None


def _words(text: str) -> frozenset[str]:
    """Words in braces. Braces that do not match are a word of their own, which no other text has."""
    try:
        return frozenset(name for _, name, _, _ in Formatter().parse(text) if name is not None)
    except ValueError:
        return frozenset({text})


LANGUAGES = read_sentences(FOLDER)


class _Values(dict[str, str]):
    """Values of a sentence; one that is not there is a dash, for a page about an order must not fail."""

    def __missing__(self, _key: str) -> str:
        return "-"


def tell(entry: Entry, language: str = DEFAULT) -> str:
    """The sentence about an entry."""
    texts = LANGUAGES.get(language, LANGUAGES[DEFAULT])
    sentence = texts.entries[entry.text].format_map(_Values(entry.values, who=who(entry, language)))
    return texts.repeated.format(sentence=sentence, count=entry.count) if entry.count > 1 else sentence


def who(entry: Entry, language: str = DEFAULT) -> str:
    """The one behind an entry, in words: `query 2`, `refresh`; a person's name as it is."""
    words = LANGUAGES.get(language, LANGUAGES[DEFAULT]).by
    if entry.number is not None:
        return words["query_numbered"].format(number=entry.number)
    return words.get(entry.by, entry.by)


def tell_next(step: Step, language: str = DEFAULT) -> str:
    """The sentence about a step. Its time is not in it."""
    return LANGUAGES.get(language, LANGUAGES[DEFAULT]).steps[step.text].format_map(_Values(step.values))

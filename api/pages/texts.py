"""The texts of an order's page, for the server's page and for its script: one file for each language.

No state that is not definite has a word like unpaid or failed: money may be under way. A file that lacks a key, or a
word in braces, ends the process at its start.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from string import Formatter
from types import MappingProxyType
from typing import Any

import msgspec
from msgspec.structs import replace

from core.errors import ConfigurationError

DEFAULT = "en"
FOLDER = Path(__file__).parent / "languages"

_PREFERENCE = re.compile(r"([A-Za-z]{2,3})(?:-[0-9A-Za-z\-]+)?(?:\s*;\s*q=([01](?:\.[0-9]{0,3})?))?", re.ASCII)
_NAME = re.compile(r"[a-z]{2,3}", re.ASCII)


class Language(msgspec.Struct, frozen=True, kw_only=True):
    """Texts by key, and the signs of currencies by ISO 4217 code."""

    texts: Mapping[str, str]
    signs: Mapping[str, str]


def read_languages(folder: Path, more: Mapping[str, str] | None = None) -> Mapping[str, Language]:
    """The language of each file: `en.toml` is "en". English has the keys that all others need. A text in a table has
    the table's name in its key: `title` in `[order]` is `order.title`. `more` are English texts of other places.

    Raises:
        ConfigurationError: names the file and the keys that are missing, unknown, or lack a word in braces.
    """
    read = {path.stem: _read(path) for path in sorted(folder.glob("*.toml"))}
    if DEFAULT not in read:
        raise ConfigurationError(f"languages: {DEFAULT}.toml is missing in {folder}")
    if more:
        read[DEFAULT] = replace(read[DEFAULT], texts={**read[DEFAULT].texts, **more})
    faults = [fault for name, language in read.items() for fault in _faults(name, language, read[DEFAULT])]
    if faults:
        raise ConfigurationError("; ".join(faults))
    return MappingProxyType(read)


def _read(path: Path) -> Language:
    try:
        table = tomllib.loads(path.read_text("utf-8"))
        signs = table.pop("signs", {})
        return msgspec.convert({"texts": dict(_flat(table)), "signs": signs}, Language)
    except (OSError, ValueError, msgspec.ValidationError) as error:
        raise ConfigurationError(f"languages: {path.name}: {error}") from None


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _faults(name: str, language: Language, wanted: Language) -> list[str]:
    keys, expected = language.texts.keys(), wanted.texts.keys()
    faults = [] if _NAME.fullmatch(name) else [f"languages: {name}.toml: a name is two or three letters: es.toml"]
    faults += [f"languages: {name}.toml: {key} is missing" for key in sorted(expected - keys)]
    faults += [f"languages: {name}.toml: {key} is unknown" for key in sorted(keys - expected)]
    faults += [
        f"languages: {name}.toml: {key} needs a text with {', '.join(sorted(words)) or 'no braces'}"
        for key in sorted(keys & expected)
        for words in (placeholders(wanted.texts[key]),)
        if not language.texts[key] or placeholders(language.texts[key]) != words
    ]
    if language.texts.get("direction") not in ("ltr", "rtl", None):
        faults.append(f"languages: {name}.toml: direction is ltr or rtl")
    return faults + _faults_of_signs(name, language.signs)


def _faults_of_signs(name: str, signs: Mapping[str, str]) -> list[str]:
    """An amount must never be taken for one of another currency."""
    faults = [f"languages: {name}.toml: the sign of {code} is empty" for code, sign in signs.items() if not sign]
    repeated = sorted(sign for sign, count in Counter(signs.values()).items() if sign and count > 1)
    return faults + [f"languages: {name}.toml: two currencies have the sign {sign}" for sign in repeated]


def placeholders(text: str) -> set[str]:
    """Words in braces, with whatever makes them special: "{s} s" → {"{s}"}."""
    try:
        parts = [(name, spec, conversion) for _, name, spec, conversion in Formatter().parse(text) if name is not None]
    except ValueError:
        return {"braces that match"}
    return {"{" + name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "") + "}"
            for name, spec, conversion in parts}  # fmt: skip


LANGUAGES = read_languages(FOLDER)
TEXTS: Mapping[str, Mapping[str, str]] = MappingProxyType({name: each.texts for name, each in LANGUAGES.items()})


def choose(requested: str, accept_language: str, known: Collection[str] = TEXTS) -> str:
    """The language of `?lang=`, else the one that the browser prefers among ours: "zh-CN,en;q=0.8" → "zh"."""
    if requested in known:
        return requested
    accepted: list[tuple[float, str]] = []
    for part in accept_language[:200].split(","):
        match = _PREFERENCE.fullmatch(part.strip())
        if match is not None and match[1].lower() in known:
            accepted.append((float(match[2] or 1), match[1].lower()))
    best = max(accepted, key=lambda pair: pair[0], default=(0.0, DEFAULT))
    return best[1] if best[0] > 0 else DEFAULT

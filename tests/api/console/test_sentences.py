"""Sentences of faults, alerts, cases and differences in other languages: none is missing, none is left over."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pytest

import api.http.errors
import core.errors
from api.console.catalogue import CATALOGUES, find_translation, read_catalogues
from channels import statement_formats
from core import notes
from core.alerts import BROKEN
from core.errors import CallerError, ConfigurationError
from storage.postgres import collisions, inbox

ROOT = Path(__file__).parents[3]

FOLDERS = ("core", "channels", "flows", "runtime", "storage", "api/console", "api/http")
ELSEWHERE = (
    "api/http/auth.py",  # of an API key
    "api/http/event_stream.py",  # of an order's page
    "channels/alipay/adapter.py",  # of a payment that is created
    "channels/wechatpay/adapter.py",
    "flows/checkout.py",
    "flows/choice.py",
    "flows/erase.py",
    "flows/place.py",
    "storage/redis/changes.py",
)
"""Files whose faults no page of the console shows: nobody places an order there, or erases one."""

FAULTS = frozenset(
    name
    for module in (core.errors, api.http.errors)
    for name, value in vars(module).items()
    if isinstance(value, type) and issubclass(value, CallerError)
)
SPELLED = ("Phrase", "Sentence")


class Made(NamedTuple):
    """A sentence where it is made. `template` None: it is no text that a file of sentences could have."""

    place: str
    template: str | None


def made_in(path: Path) -> Iterator[Made]:
    """Sentences of a file: the first argument of faults, sentences and phrases."""
    tree = ast.parse(path.read_text("utf-8"))
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
        for call in (node for node in ast.walk(function) if isinstance(node, ast.Call) and node.args):
            name = call.func.id if isinstance(call.func, ast.Name) else ""
            if name in FAULTS or name in SPELLED:
                place = f"{path.relative_to(ROOT)}:{call.lineno}"
                yield from (Made(place, text) for text in _texts(call.args[0], function))


def _texts(argument: ast.expr, function: ast.AST) -> Iterator[str | None]:
    match argument:
        case ast.Constant(value=str(text)):
            yield text
        case ast.JoinedStr() | ast.BinOp():
            yield None
        case ast.Name(id=name):
            for node in ast.walk(function):
                if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
                    yield from _texts(node.value, function)


def replace_subject(made: Made) -> Made:
    """The console says `endpoint` where an order says `notify_url`."""
    is_url = made.template is not None and made.template.startswith("notify_url: ")
    return Made(made.place, f"endpoint{made.template[10:]}") if is_url and made.template else made


def _formats() -> Iterator[str]:
    """Forms of statements, as the adapters name them."""
    for path in sorted((ROOT / "channels").glob("*/adapter.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.Assign(targets=[ast.Name(id="statement_format")], value=ast.Constant(value=str(text))):
                    yield text


@cache
def all_made() -> list[Made]:
    """Read when a test first asks: it takes half a second."""
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    found = [made for path in paths if str(path.relative_to(ROOT)) not in ELSEWHERE for made in made_in(path)]
    listed = (
        *BROKEN.values(),
        *statement_formats.NAMES,
        *_formats(),
        *HANDED_ON,
        collisions.DETAIL,
        inbox.DETAIL,
        *RESOLUTIONS,
        *notes.FORMS,
        *notes.CODES,
    )
    found = [replace_subject(made) for made in found]
    return [*found, *(Made("listed", text) for text in listed)]


HANDED_ON = ("the form", "the query string", "paid there", "another process has taken this day over: look at its run")
"""Sentences, and words of them, that reach one as the value of a name."""

RESOLUTIONS = ("accepted", "closed", "confirmed", "erased", "refunded", "won")
"""Resolutions of cases that nobody has typed."""


@cache
def words() -> frozenset[str]:
    return frozenset(made.template for made in all_made() if made.template is not None)


def test_sentences_are_found_where_they_are_made() -> None:
    assert {"order {order_no}", "{count} attempts, still not definite", "file: choose the statement"} <= words()
    assert len(words()) > 150


def test_no_fault_that_the_console_shows_is_put_together() -> None:
    assert [made.place for made in all_made() if made.template is None] == []


@pytest.mark.parametrize("lang", sorted(CATALOGUES))
def test_every_sentence_has_a_translation(lang: str) -> None:
    templates = [made for made in all_made() if made.template is not None]
    assert [made for made in templates if not find_translation(lang, made.template or "")] == []


@pytest.mark.parametrize("lang", sorted(CATALOGUES))
def test_no_translation_is_left_over(lang: str) -> None:
    assert CATALOGUES[lang].keys() - words() == set()


def test_chinese_has_no_english_punctuation() -> None:
    texts = CATALOGUES["zh"].values()
    assert [text for text in texts if any(mark in text for mark in (", ", "; ", ": ", "? ", "。 "))] == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('"{a} there" = "{b}"', "needs a text with no other words in braces"),
        ('"{a} there" = ""', "needs a text with no other words in braces"),
        ('"a" = 1', "Expected `str`"),
        ("a", "xx.toml"),
    ],
)
def test_a_file_that_cannot_be_used_ends_the_start(tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "xx.toml").write_text(text, "utf-8")
    with pytest.raises(ConfigurationError, match=fault):
        read_catalogues(tmp_path)


def test_a_file_may_leave_out_a_word(tmp_path: Path) -> None:
    (tmp_path / "xx.toml").write_text('"{amount} {currency} there" = "{amount}"', "utf-8")
    assert read_catalogues(tmp_path) == MappingProxyType(
        {"xx": MappingProxyType({"{amount} {currency} there": "{amount}"})}
    )

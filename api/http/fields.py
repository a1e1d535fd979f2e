"""JSON bodies and query strings, read strictly: no doubled field, no text that no text should hold."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec

from api.http.errors import UnsupportedBody
from api.http.request import Request
from core.errors import InvalidRequest, NotFound
from core.sentences import Phrase, Sentence

QUERY_FIELDS_MAX = 50

# Control characters (a subject ends up in files and channels' forms) and lone surrogates (no UTF-8 can hold them).
_FORBIDDEN_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_NUMBER = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)
"""A positive bigint."""

_LAYOUT = str.maketrans("", "", "\r\n\t")

T = TypeVar("T")


def number_in(text: str) -> int:
    """A number in a path, as ids of our tables are.

    Raises:
        NotFound: nothing can have it.
    """
    if _NUMBER.fullmatch(text) is None:
        raise NotFound("there is nothing here under this number")
    return int(text)


def read_json(request: Request, type_: type[T]) -> T:
    """The body as `type_`.

    Raises:
        UnsupportedBody: it does not say that it is JSON, so a form on another site cannot send it.
        InvalidRequest: says what is wrong and where.
    """
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media_type != "application/json":
        raise UnsupportedBody("send application/json")
    return _as_type(parse_json(request.body), type_, strict=True)


def parse_json(body: bytes) -> object:
    """The value, unless a key is doubled, a number is none, it is nested too deep, or a text holds what no text should.

    Python's parser keeps the last of two keys, takes NaN, and raises RecursionError for deep nesting and ValueError for
    integers of more than 4,300 digits.

    Raises:
        InvalidRequest: one of these.
    """
    try:
        text = body.decode("utf-8")
        value = _decoder.decode(text)
    except UnicodeDecodeError:
        raise InvalidRequest("the body is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise InvalidRequest(
            Sentence("not JSON: {problem} at character {at}", problem=error.msg, at=error.pos)
        ) from None
    except RecursionError:
        raise InvalidRequest("the JSON is nested too deep") from None
    except ValueError:
        raise InvalidRequest("a number is too long") from None
    if "\\" in text or _FORBIDDEN_TEXT.search(text):  # otherwise none of its texts can hold one
        _check_text(value)
    return value


def read_query(request: Request, type_: type[T]) -> T:
    """The query string as `type_`; every field at most once.

    Raises:
        InvalidRequest: says what is wrong and where.
    """
    return as_fields(query_fields(request), type_)


def query_fields(request: Request) -> dict[str, str]:
    """The fields of the query string; every one at most once.

    Raises:
        InvalidRequest: says what is wrong.
    """
    fields = _object(_pairs(request.query, "the query string"))
    _check_text(fields)
    return fields


def read_form(request: Request, type_: type[T]) -> T:
    """The body of an HTML form as `type_`; every field at most once.

    Raises:
        UnsupportedBody: it does not say that it is a form.
        InvalidRequest: says what is wrong and where.
    """
    fields = _object(_form_pairs(request, QUERY_FIELDS_MAX))
    _check_text(fields)
    return as_fields(fields, type_)


def read_form_pairs(request: Request, fields_max: int) -> list[tuple[str, str]]:
    """The fields of an HTML form, some of them several times. Texts may have line breaks and tabs.

    Raises:
        UnsupportedBody: it does not say that it is a form.
        InvalidRequest: it cannot be read.
    """
    pairs = _form_pairs(request, fields_max)
    for name, value in pairs:
        check_text(name, value)
    return pairs


def check_text(name: str, value: str) -> None:
    """Check a field that may have line breaks and tabs.

    Raises:
        InvalidRequest: it holds other control characters, or broken Unicode.
    """
    _check_text([name, value.translate(_LAYOUT)])


def as_fields(fields: Mapping[str, str], type_: type[T]) -> T:
    """Texts as `type_`, numbers and switches among them.

    Raises:
        InvalidRequest: says what is wrong and where.
    """
    return _as_type(fields, type_, strict=False)


def _form_pairs(request: Request, fields_max: int) -> list[tuple[str, str]]:
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media_type != "application/x-www-form-urlencoded":
        raise UnsupportedBody("send a form")
    try:
        text = request.body.decode("ascii")
    except UnicodeDecodeError:
        raise InvalidRequest("the form cannot be read") from None
    return _pairs(text, "the form", fields_max)


def _pairs(text: str, name: str, fields_max: int = QUERY_FIELDS_MAX) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            text, keep_blank_values=True, strict_parsing=bool(text), errors="strict", max_num_fields=fields_max
        )
    except ValueError:
        raise InvalidRequest(Sentence("{name} cannot be read", name=Phrase(name))) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise InvalidRequest("a field is there twice")
    return fields


def _refuse_constant(name: str) -> object:
    raise InvalidRequest(Sentence("{name} is not a number", name=name))


_decoder = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_refuse_constant)


def _check_text(value: object) -> None:
    """Check every text and key, without recursion. The cap on the body bounds their number."""
    left = [value]
    while left:
        match left.pop():
            case str() as text if _FORBIDDEN_TEXT.search(text):
                raise InvalidRequest("a text holds control characters or broken Unicode")
            case dict() as fields:
                left += fields.keys()
                left += fields.values()
            case list() as items:
                left += items


def _as_type(value: object, type_: type[T], *, strict: bool) -> T:
    try:
        return msgspec.convert(value, type_, strict=strict)
    except msgspec.ValidationError as error:
        raise InvalidRequest(_fault_of(str(error))) from None


def _fault_of(problem: str) -> str:
    """The fault of one field, which the library writes as "Expected `int`, got `str` - at `$.limit`"."""
    what, _, field = problem.removesuffix("`").partition(" - at `$.")
    return Sentence("{problem} - at `$.{field}`", problem=what, field=field) if field else problem

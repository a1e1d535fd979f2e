"""Dataclasses to JSON and back, by their annotations.

Fields that a later service adds are ignored, and its new statuses stay text; a field that is missing or of another type
is a fault of reading.
"""

from __future__ import annotations

import dataclasses
import json
import types
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from functools import cache
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")


class Mismatch(ValueError):
    """Something is not of its type. The message names the place and never repeats the value."""


def decode(kind: type[T], content: bytes) -> T:
    """The dataclass of a JSON text.

    Raises:
        Mismatch: it is not of this kind.
    """
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise Mismatch("it is not JSON") from None
    return cast("T", _read(kind, document, kind.__name__))


def encode(value: object) -> bytes:
    """The JSON text of a dataclass, without the fields that are None."""
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False).encode()


def plain(value: object) -> Any:  # noqa: ANN401 - JSON
    """The value that `json` writes. A time without a zone is refused: it would mean another instant elsewhere."""
    match value:
        case datetime():
            if value.tzinfo is None:
                raise ValueError("a time needs a zone: datetime.now(UTC)")
            return value.isoformat()
        case Mapping():
            return {name: plain(inner) for name, inner in value.items()}
        case list() | tuple():
            return [plain(inner) for inner in value]
        case _ if dataclasses.is_dataclass(value):
            inner = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
            return {name: plain(each) for name, each in inner.items() if each is not None}
        case _:
            return value


def _read(kind: Any, value: object, place: str) -> object:  # noqa: ANN401 - an annotation
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(cast("type", kind), value, place)
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _read_union(get_args(kind), value, place)
    if origin is tuple and isinstance(value, list):
        return tuple(_read(get_args(kind)[0], each, f"{place}[{index}]") for index, each in enumerate(value))
    if origin is dict and isinstance(value, dict):
        inner = get_args(kind)[1]
        return {name: _read(inner, each, f"{place}.{name}") for name, each in value.items()}
    return _read_scalar(kind, value, place)


def _read_dataclass(kind: type, value: object, place: str) -> object:
    if not isinstance(value, dict):
        raise Mismatch(f"{place} is not an object")
    fields = {}
    for field, annotation in _fields(kind):
        if field.name in value:
            fields[field.name] = _read(annotation, value[field.name], f"{place}.{field.name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise Mismatch(f"{place}.{field.name} is missing")
    return kind(**fields)


@cache
def _fields(kind: type) -> tuple[tuple[dataclasses.Field[Any], Any], ...]:
    hints = get_type_hints(kind)
    return tuple((field, hints[field.name]) for field in dataclasses.fields(kind))


def _read_union(kinds: tuple[Any, ...], value: object, place: str) -> object:
    """The first kind that fits: enumerations stand before `str`."""
    if value is None and types.NoneType in kinds:
        return None
    others = [kind for kind in kinds if kind is not types.NoneType]
    for kind in others[:-1]:
        try:
            return _read(kind, value, place)
        except Mismatch:
            continue
    return _read(others[-1], value, place)


def _read_scalar(kind: Any, value: object, place: str) -> object:  # noqa: ANN401 - an annotation
    if kind in (str, int, bool) and type(value) is kind:  # True is an int to isinstance
        return value
    if isinstance(value, str) and isinstance(kind, type):
        try:
            if issubclass(kind, Enum):
                return kind(value)
            if kind is datetime and (at := datetime.fromisoformat(value)).tzinfo is not None:
                return at
        except ValueError:
            pass
    raise Mismatch(f"{place} is not of the type {getattr(kind, '__name__', kind)}")

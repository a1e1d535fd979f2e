"""Garbage in place of a callback's content, in the same form."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlencode

import msgspec
from hypothesis import strategies as st

from tests.channels.reports import Form

BLANKS = b" " * (10 << 20)

_ANY: dict[str, bytes] = {
    "empty": b"",
    "null": b"null",
    "a list": b"[]",
    "an empty object": b"{}",
    "not UTF-8": b'{"id":"\xff"}',
    "UTF-16": '{"id":"x"}'.encode("utf-16"),
    "nested 100,000 deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "an integer of 5,000 digits": b'{"id":' + b"1" * 5000 + b"}",
    "NUL": b"\x00",
    "HTML": b"<!doctype html><h1>Back soon</h1>",
    "truncated": b"",
    "twice": b"",
    "every name twice": b"",
    "nested 100,000 deep in an unknown field": b"",
}
NAMES = tuple(_ANY)


def instead_of(form: Form, good: bytes, name: str) -> bytes:
    """The garbage of this name, some of it derived from the genuine content `good`."""
    cut = good[: len(good) // 2] if form is Form.JSON else good.partition(b"&")[0]
    variants = {"truncated": cut, "twice": good + good}
    if form is Form.JSON:
        deep = b"[" * 100_000 + b"]" * 100_000
        variants["every name twice"] = good[:-1] + b"," + good[1:]
        variants["nested 100,000 deep in an unknown field"] = good[:-1] + b',"more":' + deep + b"}"
    else:
        variants["every name twice"] = good + b"&" + good
        variants["nested 100,000 deep in an unknown field"] = good + b"&=&" * 100_000
    return variants.get(name, _ANY[name])


def without_value(form: Form, content: bytes, text: str) -> bytes:
    """The content without every field that has this value."""
    if form is Form.FORM:
        return urlencode([field for field in parse_qsl(content.decode()) if field[1] != text]).encode()
    return msgspec.json.encode(_without(msgspec.json.decode(content), text))


def _without(value: object, text: str) -> object:
    if isinstance(value, dict):
        return {name: _without(inner, text) for name, inner in value.items() if inner != text}
    return [_without(inner, text) for inner in value] if isinstance(value, list) else value


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
words = st.sampled_from(["paid", "refunded", "unpaid", "closed", "0", "-1", "1e9", "88.88", "2026-11-23T04:00:00Z", ""])
contents = st.binary(max_size=400) | json_values.map(msgspec.json.encode)


@st.composite
def with_another_value(draw: st.DrawFn, form: Form, good: bytes) -> bytes:
    """The content with one of its values replaced by any value."""
    if form is Form.FORM:
        fields = parse_qsl(good.decode(), keep_blank_values=True)
        at = draw(st.integers(0, len(fields) - 1))
        fields[at] = (fields[at][0], draw(words | st.text(max_size=20)))
        return urlencode(fields).encode()
    value = msgspec.json.decode(good)
    place: Any = value
    while True:
        name = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        inner = place[name]
        if isinstance(inner, dict | list) and inner and draw(st.booleans()):
            place = inner
            continue
        place[name] = draw(json_values | words)
        return msgspec.json.encode(value)

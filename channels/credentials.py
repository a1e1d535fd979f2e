"""Checks that work on the credentials of any channel, by the description beside its adapter.

An adapter stops at the first wrong key. Here each key is checked by itself, so a person sees every
problem at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from difflib import get_close_matches
from typing import Any, NamedTuple

import msgspec

from channels.adapters import ADAPTERS
from channels.description import AccountDescription
from channels.kit.rsa import load_certificate
from core.errors import ConfigurationError

EXPIRES_SOON_DAYS = 30


class KeyProblem(NamedTuple):
    """A problem of one key; `says` never contains the key's value."""

    key: str
    says: str


def key_problems(channel: str, credentials: Mapping[str, Any]) -> list[KeyProblem]:
    """Every problem that a key has by itself: unknown, missing, of another form, unreadable."""
    description = ADAPTERS[channel].description
    fields = {field.encode_name: field for field in msgspec.structs.fields(description.credentials)}
    problems = [KeyProblem(key, _unknown(key, fields)) for key in credentials if key not in fields]
    for key, field in fields.items():
        if key in credentials:
            problems += _value_problems(key, credentials[key], field, description)
        elif field.required:
            problems.append(KeyProblem(key, f"missing; it is {_shape(key, description)}"))
    if description.one_of and not any(credentials.get(key) for key in description.one_of):
        first, *others = description.one_of
        problems.append(KeyProblem(first, f"missing; it is {_shape(first, description)}. Instead: {', '.join(others)}"))
    return problems


def texts_of(value: object) -> Iterator[tuple[str, str]]:
    """Every text of a value with its place: "" for the value itself, `[0]` in a list, `.k1` in a table."""
    match value:
        case str():
            yield "", value
        case list() | tuple():
            for at, item in enumerate(value):
                yield from ((f"[{at}]{place}", text) for place, text in texts_of(item))
        case dict():
            for name, item in value.items():
                yield from ((f".{name}{place}", text) for place, text in texts_of(item))


def expiries(channel: str, credentials: Mapping[str, Any]) -> list[tuple[str, datetime]]:
    """End of validity of each readable certificate, by its key; without roots, which no merchant renews."""
    description = ADAPTERS[channel].description
    instants = []
    for key, reader in description.readers.items():
        for place, text in texts_of(credentials.get(key)) if reader is load_certificate else ():
            try:
                instants.append((f"{key}{place}", load_certificate(text, key).not_valid_after_utc))
            except ConfigurationError:
                continue  # `key_problems` reports it
    return instants


def changed_identity(channel: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Keys of `identity` whose value has changed: with any of them it is another account."""
    return [key for key in ADAPTERS[channel].description.identity if old.get(key) and old.get(key) != new.get(key)]


def fully_replaced(channel: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Keys of `rotated` without any old value: nothing verifies until the channel has changed too."""
    keys = []
    for key in ADAPTERS[channel].description.rotated:
        before, after = ({text.strip() for _, text in texts_of(credentials.get(key))} for credentials in (old, new))
        if before and not before & after:
            keys.append(key)
    return keys


def secrets_of(channel: str, credentials: Mapping[str, Any]) -> list[str]:
    """Every text of the credentials that must not be displayed."""
    description = ADAPTERS[channel].description
    shown = {*description.identity, *description.public}
    return [text for key, value in credentials.items() if key not in shown for _, text in texts_of(value)]


def _unknown(key: str, fields: Mapping[str, object]) -> str:
    matches = get_close_matches(key, fields, n=1)
    return "no key of this channel" + (f"; did you mean {matches[0]}?" if matches else f": {', '.join(fields)}")


def _shape(key: str, description: AccountDescription) -> str:
    return description.shapes.get(key, "as the channel gave it")


def _value_problems(
    key: str, value: object, field: msgspec.structs.FieldInfo, description: AccountDescription
) -> Iterator[KeyProblem]:
    try:
        converted = msgspec.convert(value, field.type)
    except msgspec.ValidationError:
        yield KeyProblem(key, f"not of its form; it is {_shape(key, description)}")
        return
    reader = description.readers.get(key)
    if reader is None:
        return
    for place, text in texts_of(converted):
        if not text:
            continue  # empty means not given; the adapter decides whether that is allowed
        try:
            reader(text, key)
        except ConfigurationError as error:
            yield KeyProblem(f"{key}{place}", error.detail.removeprefix(key).strip())

"""Stripe on the wire: its ids, forms, lists, errors and signatures. Written from https://docs.stripe.com/api alone.

Ids are made from the payment's number and read back to it, so no table of them is kept. What was created under no
number is known to the ledger by its own id.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from hashlib import sha256
from secrets import token_hex
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import msgspec

from simulator.kit.asgi import Response

FIELDS_MAX = 200

_LIST_ITEM = re.compile(r"\[[0-9]*\]", re.ASCII)
_EXPANDABLE = ("payment_intent", "latest_charge", "source")

# https://docs.stripe.com/currencies#special-cases : places of a currency here, and of the same currency at Stripe.
_PLACES_ADDED = {"isk": 100, "ugx": 100}
_PLACES_DROPPED = {"mga": 100}

Object = dict[str, Any]


# -- forms -------------------------------------------------------------------------------------------------------------


class Fields(NamedTuple):
    """A form or a query, in its order; `a[b][c]` is a name like any other."""

    pairs: tuple[tuple[str, str], ...]

    @classmethod
    def read(cls, text: str) -> Fields:
        """Raises Invalid for more fields than any call has."""
        try:
            return cls(tuple(parse_qsl(text, keep_blank_values=True, max_num_fields=FIELDS_MAX)))
        except ValueError as error:
            raise Invalid("", "too many parameters") from error

    def get(self, name: str) -> str | None:
        return next((value for key, value in self.pairs if key == name), None)

    def many(self, name: str) -> list[str]:
        """Of `name[]` and `name[0]`: clients write lists either way."""
        return [value for key, value in self.pairs if key.startswith(name) and _LIST_ITEM.fullmatch(key[len(name) :])]

    def under(self, name: str) -> dict[str, str]:
        """Of `name[key]`: metadata."""
        inner = ((key[len(name) + 1 : -1], value) for key, value in self.pairs if key.startswith(f"{name}["))
        return {key: value for key, value in inner if "[" not in key}


class Invalid(Exception):
    """A parameter that is wrong: nothing was begun, so the answer is not kept under the idempotency key either."""

    def __init__(self, param: str, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


# -- ids ---------------------------------------------------------------------------------------------------------------


def session_id(number: str) -> str:
    return number if number.startswith("cs_") else f"cs_test_{number.encode().hex()}"


def intent_id(number: str) -> str:
    return number if number.startswith("pi_") else f"pi_{number.encode().hex()}"


def charge_id(number: str) -> str:
    return f"ch_{intent_id(number)[3:]}"


def refund_id(refund_no: str) -> str:
    return refund_no if refund_no.startswith("re_") else f"re_{refund_no.encode().hex()}"


def fresh_id(prefix: str) -> str:
    """For what has no number: no other id reads like it, for `z` is no hexadecimal digit."""
    return f"{prefix}z{token_hex(12)}"


def number_of(id_: str) -> str:
    """The number that the id was made from, or the id itself. A charge has the number of its payment."""
    text = id_.rpartition("_")[2]
    try:
        return bytes.fromhex(text).decode()
    except ValueError:
        return f"pi_{text}" if id_.startswith("ch_") else id_


# -- money -------------------------------------------------------------------------------------------------------------


def units(amount: int, currency: str) -> int:
    """Minor units as Stripe counts them."""
    name = currency.lower()
    return amount * _PLACES_ADDED.get(name, 1) // _PLACES_DROPPED.get(name, 1)


def minor(told: int, currency: str) -> int:
    """The inverse."""
    name = currency.lower()
    return told * _PLACES_DROPPED.get(name, 1) // _PLACES_ADDED.get(name, 1)


def has_fraction(told: int, currency: str) -> bool:
    """Whether Stripe refuses it: hundredths of what has none, thousandths that are not rounded to tens."""
    step = 10 if currency in ("bhd", "jod", "kwd", "omr", "tnd") else _PLACES_ADDED.get(currency, 1)
    return told % step != 0


# -- lists, and what is expanded in them -------------------------------------------------------------------------------


def page_of(items: Sequence[Object], query: Fields, url: str) -> Object:
    """A page of a list that is newest first, as `limit`, `starting_after` and `ending_before` ask for."""
    limit = _limit(query.get("limit"))
    ids = [item["id"] for item in items]
    after, before = query.get("starting_after"), query.get("ending_before")
    if before is not None:
        end = ids.index(before) if before in ids else 0
        shown, has_more = items[max(0, end - limit) : end], end > limit
    else:
        start = ids.index(after) + 1 if after in ids else len(ids) if after else 0
        shown, has_more = items[start : start + limit], len(ids) > start + limit
    return {"object": "list", "url": url, "has_more": has_more, "data": list(shown)}


def expanded(told: Object, paths: Iterable[str]) -> Object:
    """The object with ids in the place of the objects in it that were not asked for as a whole."""
    wanted = [path.split(".") for path in paths]
    if told.get("object") == "list":
        inner = [".".join(path[1:]) for path in wanted if path[0] == "data"]
        return told | {"data": [expanded(item, inner) for item in told["data"]]}
    found = dict(told)
    for name in _EXPANDABLE:
        if isinstance(told.get(name), dict):
            inner = [".".join(path[1:]) for path in wanted if path[0] == name]
            found[name] = expanded(told[name], filter(None, inner)) if inner else told[name]["id"]
    return found


# -- answers and signatures --------------------------------------------------------------------------------------------


def answer(told: Object, status: int = 200) -> Response:
    """In lines, as Stripe writes JSON."""
    body = msgspec.json.format(msgspec.json.encode(told), indent=2)
    return Response(status=status, body=body, headers=(("request-id", f"req_{token_hex(7)}"),))


def told(object_: Object, fields: Fields) -> Response:
    return answer(expanded(object_, fields.many("expand")))


def no_such(what: str, id_: str) -> Response:
    return refused(404, f"No such {what}: '{id_}'", code="resource_missing", param="id")


def refused(
    status: int,
    message: str,
    *,
    code: str | None = None,
    param: str | None = None,
    type_: str = "invalid_request_error",
) -> Response:
    told = {"type": type_, "code": code, "message": message, "param": param}
    return answer({"error": {name: value for name, value in told.items() if value is not None}}, status)


def signature_header(body: bytes, secrets: Sequence[str], now: datetime) -> str:
    """One v1 for each secret, which are several while one is rolled, and a v0 that means nothing."""
    string = b"%d.%b" % (int(now.timestamp()), body)
    made = [hmac.digest(secret.encode(), string, "sha256").hex() for secret in secrets]
    parts = [f"t={int(now.timestamp())}", *(f"v1={one}" for one in made), f"v0={sha256(string).hexdigest()}"]
    return ",".join(parts)


def _limit(text: str | None) -> int:
    if text is None:
        return 10
    if not text.isdecimal() or not 1 <= int(text) <= 100:  # noqa: PLR2004 - Stripe's largest page
        raise Invalid("limit", "limit is 1 to 100")
    return int(text)

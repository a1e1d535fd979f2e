"""Wire format of Stripe: ids, forms, lists, errors and signatures. Written from https://docs.stripe.com/api only.

An id contains the payment's number, so there is no table of ids. A payment without a number has its id for it.
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
    """Pairs of a form or a query, in order; `a[b][c]` is a name."""

    pairs: tuple[tuple[str, str], ...]

    @classmethod
    def read(cls, text: str) -> Fields:
        """Parse a form or a query; raises Invalid for too many fields."""
        try:
            return cls(tuple(parse_qsl(text, keep_blank_values=True, max_num_fields=FIELDS_MAX)))
        except ValueError as error:
            raise Invalid("", "too many parameters") from error

    def get(self, name: str) -> str | None:
        return next((value for key, value in self.pairs if key == name), None)

    def many(self, name: str) -> list[str]:
        """Return the values of `name[]` and `name[0]`: clients use either form for lists."""
        return [value for key, value in self.pairs if key.startswith(name) and _LIST_ITEM.fullmatch(key[len(name) :])]

    def under(self, name: str) -> dict[str, str]:
        """Return the values of `name[key]` by key: metadata."""
        inner = ((key[len(name) + 1 : -1], value) for key, value in self.pairs if key.startswith(f"{name}["))
        return {key: value for key, value in inner if "[" not in key}


class Invalid(Exception):
    """A parameter is wrong. Nothing was changed, so the response is not stored for the idempotency key."""

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
    """Return an id for an object without a number. Its `z` is no hexadecimal digit, so it reads as no number."""
    return f"{prefix}z{token_hex(12)}"


def number_of(id_: str) -> str:
    """Return the number in the id, or the id itself. A charge has the number of its payment."""
    text = id_.rpartition("_")[2]
    try:
        return bytes.fromhex(text).decode()
    except ValueError:
        return f"pi_{text}" if id_.startswith("ch_") else id_


# -- money -------------------------------------------------------------------------------------------------------------


def units(amount: int, currency: str) -> int:
    """Convert minor units into Stripe's."""
    name = currency.lower()
    return amount * _PLACES_ADDED.get(name, 1) // _PLACES_DROPPED.get(name, 1)


def minor(amount: int, currency: str) -> int:
    """Convert Stripe's units into minor units."""
    name = currency.lower()
    return amount * _PLACES_DROPPED.get(name, 1) // _PLACES_ADDED.get(name, 1)


def has_fraction(amount: int, currency: str) -> bool:
    """Return whether Stripe refuses it: hundredths of a currency without them, thousandths not rounded to tens."""
    step = 10 if currency in ("bhd", "jod", "kwd", "omr", "tnd") else _PLACES_ADDED.get(currency, 1)
    return amount % step != 0


# -- lists, and what is expanded in them -------------------------------------------------------------------------------


def page_of(items: Sequence[Object], query: Fields, url: str) -> Object:
    """Return a page of a list, newest first, by `limit`, `starting_after` and `ending_before`."""
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


def expanded(object_: Object, paths: Iterable[str]) -> Object:
    """Return the object with nested objects reduced to ids, except those in `paths`."""
    wanted = [path.split(".") for path in paths]
    if object_.get("object") == "list":
        inner = [".".join(path[1:]) for path in wanted if path[0] == "data"]
        return object_ | {"data": [expanded(item, inner) for item in object_["data"]]}
    result = dict(object_)
    for name in _EXPANDABLE:
        if isinstance(object_.get(name), dict):
            inner = [".".join(path[1:]) for path in wanted if path[0] == name]
            result[name] = expanded(object_[name], filter(None, inner)) if inner else object_[name]["id"]
    return result


# -- responses and signatures ------------------------------------------------------------------------------------------


def object_response(object_: Object, status: int = 200) -> Response:
    """Return the object as indented JSON, as Stripe does."""
    body = msgspec.json.format(msgspec.json.encode(object_), indent=2)
    return Response(status=status, body=body, headers=(("request-id", f"req_{token_hex(7)}"),))


def expanded_response(object_: Object, fields: Fields) -> Response:
    return object_response(expanded(object_, fields.many("expand")))


def not_found(kind: str, id_: str) -> Response:
    return error_response(404, f"No such {kind}: '{id_}'", code="resource_missing", param="id")


def error_response(
    status: int,
    message: str,
    *,
    code: str | None = None,
    param: str | None = None,
    type_: str = "invalid_request_error",
) -> Response:
    fields = {"type": type_, "code": code, "message": message, "param": param}
    return object_response({"error": {name: value for name, value in fields.items() if value is not None}}, status)


def signature_header(body: bytes, secrets: Sequence[str], now: datetime) -> str:
    """Return one v1 for each secret (several while one is rolled), and a v0 to be ignored."""
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

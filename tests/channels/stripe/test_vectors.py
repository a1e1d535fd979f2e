"""The signature of Stripe's SDK tests, against our verification."""

from datetime import UTC, datetime
from typing import Any

import pytest

from channels.stripe.signature import verify
from core.errors import CallbackForged, CallbackRejected, CallbackStale
from tests.channels.published import published


@pytest.fixture(scope="module")
def vector() -> dict[str, Any]:
    return published("stripe_webhook_dotnet")


def check(vector: dict[str, Any], header: str, *, now: int, payload: str = "", secret: str | None = None) -> str:
    body = (payload or vector["payload"]).encode()
    used = vector["secret"] if secret is None else secret
    verify(header, body, [used], received_at=datetime.fromtimestamp(now, UTC))
    return "verified"


def test_the_published_signature_verifies(vector: dict[str, Any]) -> None:
    check(vector, vector["header"], now=vector["timestamp"])


VALID = {"age_100s", "extra_bad_v1_first"}
STALE = {"age_400s", "future_400s"}


def test_every_published_case_has_its_published_result(vector: dict[str, Any]) -> None:
    """A time in the future is refused like one in the past; the SDKs disagree about it."""
    assert len(vector["cases"]) > len(VALID | STALE)
    for case in vector["cases"]:
        arguments = {"now": case["now"], "secret": case.get("secret")}
        if case["id"] in VALID:
            check(vector, case["header"], **arguments)
            continue
        with pytest.raises(CallbackStale if case["id"] in STALE else CallbackForged):
            pytest.fail(f"{case['id']} {check(vector, case['header'], **arguments)}")


def test_every_published_malformed_header_is_forged(vector: dict[str, Any]) -> None:
    for header in vector["malformed_headers"]:
        with pytest.raises(CallbackForged):
            pytest.fail(f"{header} {check(vector, header, now=vector['timestamp'])}")


def test_every_published_change_of_the_body_is_forged(vector: dict[str, Any]) -> None:
    for case in vector["negatives"]:
        changed = case["payload"]
        with pytest.raises(CallbackRejected):
            pytest.fail(f"{case['id']} {check(vector, vector['header'], now=vector['timestamp'], payload=changed)}")

"""The sandbox protocol over real HTTP, with a client that knows its page and nothing of the simulator."""

import csv
import io
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from simulator.sandbox.wire import hex_mac
from tests.simulator.conftest import Channel, StoppedClock, until
from tests.simulator.sandbox_client import (
    MERCHANT_ID,
    OLDER_SECRET,
    SECRET,
    SandboxClient,
    is_answer_signed,
    order,
    parts,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")

PAYMENT_FIELDS = {
    "merchant_id",
    "out_trade_no",
    "transaction_id",
    "amount",
    "currency",
    "subject",
    "status",
    "refunded_amount",
    "paid_at",
    "expires_at",
    "pay_url",
}


def result_of(response: httpx.Response) -> tuple[int, Any]:
    """Status, and the payment's status or the error's code; the answer must be signed."""
    assert is_answer_signed(response), response.text
    body = response.json()
    return response.status_code, body.get("status") or body["code"]


async def test_created_payment_has_the_fields_of_the_protocol(channel: Channel) -> None:
    response = await channel.api.create("number-1")
    assert result_of(response) == (200, "unpaid")
    body = response.json()
    assert set(body) == PAYMENT_FIELDS
    assert body["pay_url"].startswith(f"{channel.url}/pay/")
    assert {name: body[name] for name in ("merchant_id", "amount", "currency", "transaction_id", "expires_at")} == {
        "merchant_id": MERCHANT_ID,
        "amount": 8888,
        "currency": "CNY",
        "transaction_id": None,
        "expires_at": "2038-01-19T03:14:07Z",
    }


async def test_create_again_is_the_same_payment(channel: Channel) -> None:
    first = await channel.api.create("number-1")
    await channel.pay("number-1")
    again = await channel.api.create("number-1")
    assert result_of(again) == (200, "paid")
    assert again.json()["pay_url"] == first.json()["pay_url"]


@pytest.mark.parametrize("other", [{"amount": 8889}, {"currency": "USD"}, {"subject": "x"}, {"return_url": None}])
async def test_number_with_other_terms_is_refused(channel: Channel, other: dict[str, Any]) -> None:
    await channel.api.create("number-1")
    assert result_of(await channel.api.create("number-1", **other)) == (409, "NUMBER_REUSED")


@pytest.mark.parametrize(
    "wrong",
    [
        {"amount": 0},
        {"amount": -1},
        {"amount": "8888"},
        {"amount": 88.88},
        {"amount": True},
        {"currency": "cny"},
        {"currency": "CNY\n"},
        {"subject": ""},
        {"subject": "two\r\nlines"},
        {"subject": "x" * 257},
        {"expires_at": "2020-01-01T00:00:00Z"},
        {"expires_at": "2038-01-19T03:14:07"},
        {"callback_url": "ftp://127.0.0.1/x"},
        {"callback_url": "http://192.0.2.1/x"},
        {"callback_url": "http://shop.example/x"},
        {"return_url": "javascript:alert(1)"},
        {"surprise": 1},
    ],
)
async def test_bad_parameter_is_refused_and_signed(channel: Channel, wrong: dict[str, Any]) -> None:
    assert result_of(await channel.api.create("number-1", **wrong)) == (400, "INVALID_PARAMETER")


@pytest.mark.parametrize("number", ["short", "x" * 65, "with space", "number-1\n", "numbér-1", "number/1"])
async def test_bad_number_is_refused(channel: Channel, number: str) -> None:
    body = msgspec.json.encode(order(number))
    response = await channel.api.send("POST", "/v1/payments", body, Idempotency_Key="number-1")
    assert result_of(response) == (400, "INVALID_PARAMETER")


async def test_idempotency_key_must_be_the_number(channel: Channel) -> None:
    body = msgspec.json.encode(order("number-1"))
    assert result_of(await channel.api.send("POST", "/v1/payments", body)) == (400, "INVALID_PARAMETER")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"null"])
async def test_body_that_is_no_payment_is_refused(channel: Channel, body: bytes) -> None:
    response = await channel.api.send("POST", "/v1/payments", body, Idempotency_Key="number-1")
    assert result_of(response) == (400, "INVALID_PARAMETER")


async def test_query_tells_the_status(channel: Channel) -> None:
    assert result_of(await channel.api.query("number-1")) == (404, "PAYMENT_NOT_EXIST")
    await channel.api.create("number-1")
    assert result_of(await channel.api.query("number-1")) == (200, "unpaid")
    await channel.pay("number-1")
    response = await channel.api.query("number-1")
    assert result_of(response) == (200, "paid")
    assert response.json()["transaction_id"]
    assert response.json()["paid_at"].endswith("Z")


async def test_number_with_escapes_is_signed_as_sent(channel: Channel) -> None:
    await channel.api.create("number|1")
    assert result_of(await channel.api.query("number%7C1")) == (200, "unpaid")


async def test_close_is_final_and_repeatable(channel: Channel) -> None:
    await channel.api.create("number-1")
    assert result_of(await channel.api.close("number-1")) == (200, "closed")
    assert result_of(await channel.api.close("number-1")) == (200, "closed")
    assert (await channel.pay("number-1")).status_code == 409
    assert result_of(await channel.api.query("number-1")) == (200, "closed")


async def test_close_of_what_is_paid_or_unknown_is_refused(channel: Channel) -> None:
    assert result_of(await channel.api.close("number-1")) == (404, "PAYMENT_NOT_EXIST")
    await channel.api.create("number-1")
    await channel.pay("number-1")
    assert result_of(await channel.api.close("number-1")) == (409, "ALREADY_PAID")


async def test_payment_closes_at_its_expiry(channel: Channel, stopped_clock: StoppedClock) -> None:
    soon = stopped_clock.at + timedelta(seconds=60)
    await channel.api.create("number-1", expires_at=soon.isoformat())
    assert result_of(await channel.api.query("number-1")) == (200, "unpaid")
    stopped_clock.forward(60)
    assert result_of(await channel.api.query("number-1")) == (200, "closed")
    assert (await channel.pay("number-1")).status_code == 409


async def test_refund_in_part_and_in_full(channel: Channel) -> None:
    await channel.api.create("number-1")
    assert result_of(await channel.api.refund("number-1", "refund-1", 1)) == (409, "NOT_PAID")
    await channel.pay("number-1")
    assert result_of(await channel.api.refund("number-1", "refund-1", 8000)) == (200, "succeeded")
    assert result_of(await channel.api.refund("number-1", "refund-1", 8000)) == (200, "succeeded")
    assert result_of(await channel.api.refund("number-1", "refund-1", 7999)) == (409, "NUMBER_REUSED")
    assert result_of(await channel.api.refund("number-1", "refund-2", 889)) == (409, "AMOUNT_EXCEEDED")
    response = await channel.api.query("number-1")
    assert (result_of(response), response.json()["refunded_amount"]) == ((200, "refunded"), 8000)
    await channel.api.refund("number-1", "refund-2", 888)
    assert (await channel.api.query("number-1")).json()["refunded_amount"] == 8888


async def test_refund_can_be_queried(channel: Channel) -> None:
    await channel.api.create("number-1")
    await channel.pay("number-1")
    assert result_of(await channel.api.send("GET", "/v1/refunds/refund-1")) == (404, "REFUND_NOT_EXIST")
    await channel.api.refund("number-1", "refund-1", 8)
    response = await channel.api.send("GET", "/v1/refunds/refund-1")
    assert result_of(response) == (200, "succeeded")
    assert set(response.json()) == {
        "merchant_id",
        "refund_no",
        "refund_id",
        "out_trade_no",
        "amount",
        "currency",
        "status",
        "refunded_at",
    }


async def test_slow_refund_is_processing_until_it_is_definite(channel: Channel) -> None:
    await channel.api.create("number-1")
    await channel.pay("number-1")
    await channel.faults(refund_settles_s=0.05, refund_fails=1)
    assert result_of(await channel.api.refund("number-1", "refund-1", 8)) == (200, "processing")
    refunds = channel.simulation.ledger.refunds
    await until(lambda: next(refunds()).status == "failed")
    assert result_of(await channel.api.send("GET", "/v1/refunds/refund-1")) == (200, "failed")
    assert result_of(await channel.api.query("number-1")) == (200, "paid")


async def test_statement_lists_the_money_of_a_day(channel: Channel, stopped_clock: StoppedClock) -> None:
    for number in ("number-1", "number-2"):
        await channel.api.create(number)
    await channel.pay("number-1")
    await channel.api.refund("number-1", "refund-1", 8)
    response = await channel.api.send("GET", f"/v1/statement?date={stopped_clock.at:%Y-%m-%d}")
    assert is_answer_signed(response)
    assert response.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(response.text)))
    assert [(row["type"], row["out_trade_no"], row["refund_no"], row["amount"]) for row in rows] == [
        ("payment", "number-1", "", "8888"),
        ("refund", "number-1", "refund-1", "8"),
    ]
    columns = ["type", "out_trade_no", "transaction_id", "refund_no", "amount", "currency", "at", "refund_id"]
    assert list(rows[0]) == columns
    refund = (await channel.api.send("GET", "/v1/refunds/refund-1")).json()
    assert [row["refund_id"] for row in rows] == ["", refund["refund_id"]]
    assert rows[0]["at"].endswith("Z")


@pytest.mark.parametrize(
    "query", ["", "?date=", "?date=20261123", "?date=2026-02-30", "?date=2026-01-01&date=2026-01-02"]
)
async def test_statement_needs_one_real_day(channel: Channel, query: str) -> None:
    assert result_of(await channel.api.send("GET", f"/v1/statement{query}")) == (400, "INVALID_PARAMETER")


# -- signatures --------------------------------------------------------------------------------------------------------


async def test_older_key_verifies_and_the_first_one_signs(channel: Channel, http: httpx.AsyncClient) -> None:
    response = await SandboxClient(http, channel.url, OLDER_SECRET, "k1").create("number-1")
    assert response.status_code == 200
    assert parts(response.headers["sandbox-signature"])["k"] == "k2"
    assert is_answer_signed(response, SECRET)


async def test_answer_to_another_question_does_not_verify(channel: Channel) -> None:
    await channel.api.create("number-1")
    response = await channel.api.query("number-1")
    assert is_answer_signed(response)
    response.request.headers["sandbox-signature"] = "t=1,k=k2,v1=" + "0" * 64
    assert not is_answer_signed(response)


@pytest.mark.parametrize("skew_s", [-301, 301])
async def test_stale_or_early_request_is_refused_unsigned(channel: Channel, skew_s: int) -> None:
    at = int(datetime.now(UTC).timestamp()) + skew_s
    response = await channel.api.send("GET", "/v1/payments/number-1", at=at)
    assert (response.status_code, response.json()["code"]) == (401, "SIGNATURE_INVALID")
    assert "sandbox-signature" not in response.headers


async def test_request_within_the_tolerance_is_taken(channel: Channel) -> None:
    at = int(datetime.now(UTC).timestamp()) - 290
    assert (await channel.api.send("GET", "/v1/payments/number-1", at=at)).status_code == 404


async def _with(channel: Channel, **changed: str) -> httpx.Response:
    """A query whose headers are right but for what is changed."""
    right = channel.api.headers("GET", "/v1/payments/number-1", b"")
    changed = {name.replace("_", "-"): text for name, text in changed.items()}
    headers = [(name.encode(), text.encode()) for name, text in (right | changed).items()]
    return await channel.http.get(f"{channel.url}/v1/payments/number-1", headers=headers)


@pytest.mark.parametrize(
    "changed",
    [
        {"Sandbox_Merchant": "m-9999"},
        {"Sandbox_Merchant": ""},
        {"Sandbox_Signature": ""},
        {"Sandbox_Signature": "t=1"},
        {"Sandbox_Signature": "t=99999999999999,k=k2,v1=" + "0" * 64},
        {"Sandbox_Signature": "t=1,k=k9,v1=" + "0" * 64},
        {"Sandbox_Signature": "t=１２３,k=k2,v1=é"},
    ],
)
async def test_a_request_of_no_account_is_refused_unsigned(channel: Channel, changed: dict[str, str]) -> None:
    response = await _with(channel, **changed)
    assert response.status_code == 401
    assert "sandbox-signature" not in response.headers


@pytest.mark.parametrize("part", ["method", "path", "query", "body", "secret"])
async def test_signature_covers_every_part_of_the_request(channel: Channel, part: str) -> None:
    await channel.api.create("number-1")
    await channel.api.create("number-2")
    client, target, body, method = channel.api, "/v1/payments/number-1/close", b"{}", "POST"
    headers = client.headers(
        "GET" if part == "method" else method,
        "/v1/payments/number-2/close" if part == "path" else target,
        b"{ }" if part == "body" else body,
    )
    if part == "secret":
        headers = SandboxClient(channel.http, channel.url, OLDER_SECRET, "k2").headers(method, target, body)
    sent = target + "?x=1" if part == "query" else target
    response = await channel.http.request(method, channel.url + sent, content=body, headers=headers)
    assert response.status_code == 401
    assert {row.status for row in (await channel.ledger()).payments} == {"unpaid"}


async def test_full_channel_answers_503_unsigned(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel.simulation.ledger, "_payments_max", 1)
    await channel.api.create("number-1")
    response = await channel.api.create("number-2")
    assert response.status_code == 503
    assert "sandbox-signature" not in response.headers


async def test_worked_example_of_the_protocols_page_is_true() -> None:
    """The page is what adapters are written from; its three signatures are checked with the simulator's own code."""
    page = (Path(__file__).parents[2] / "docs" / "sandbox-protocol.md").read_text()
    request, response, callback = re.findall(r"t=1795392000,k=k2,v1=([0-9a-f]{64})", page)
    body = re.findall(r"^    (\{\"code\".*\})$", page, re.MULTILINE)[0].encode()
    assert hex_mac(SECRET, "REQUEST", "1795392000", "GET", "/v1/payments/number-1", MERCHANT_ID, b"") == request
    assert hex_mac(SECRET, "ANSWER", "1795392000", request, "404", body) == response
    assert hex_mac(SECRET, "CALLBACK", "1795392000", "cb_1", MERCHANT_ID, b'{"id":"cb_1"}') == callback

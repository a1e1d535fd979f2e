"""POST /callbacks/{account}: callbacks that are acknowledged, callbacks that are refused, and stores that are down."""

import asyncio
import hmac
import time
from hashlib import sha256
from typing import Any

import httpx
import msgspec
import pytest

from api.application import open_application
from api.http.problems import RETRY_AFTER_S
from core.refusals import RefusedCallback, refused_callback
from core.rollups import Tally
from demo.service import NO_TLS
from runtime.resources import Resources
from tests.api.conftest import MERCHANT_ID, SECRET, Channel, terms
from tests.api.driver import Client, Response
from tests.sealed import raw_callbacks
from tests.servers import eventually


def signed(
    body: bytes, *, at: float | None = None, secret: str = SECRET, callback_id: str = "cb-0001"
) -> dict[str, str]:
    """Headers of the sandbox protocol, written from its page."""
    moment = str(int(at or time.time()))
    text = b"\n".join((b"CALLBACK", moment.encode(), callback_id.encode(), MERCHANT_ID.encode(), body))
    v1 = hmac.new(secret.encode(), text, sha256).hexdigest()
    return {
        "content-type": "application/json",
        "sandbox-merchant": MERCHANT_ID,
        "sandbox-callback-id": callback_id,
        "sandbox-signature": f"t={moment},k=k1,v1={v1}",
    }


def paid_body(payment: dict[str, Any], **more: Any) -> bytes:
    return msgspec.json.encode(
        {
            "id": "cb-0001",
            "type": "payment.paid",
            "created_at": "2026-01-01T00:00:00Z",
            "payment": {
                "merchant_id": MERCHANT_ID,
                "out_trade_no": payment["out_trade_no"],
                "transaction_id": "tx-0001",
                "amount": payment["amount"],
                "currency": payment["currency"],
                "subject": "Blue kettle",
                "status": "paid",
                "refunded_amount": 0,
                "paid_at": "2026-01-01T00:00:00Z",
                "expires_at": "2038-01-01T00:00:00Z",
                "pay_url": "http://127.0.0.1:1/pay",
            }
            | more,
        }
    )


async def send(buyer: Client, body: bytes, headers: dict[str, str], account: str = "main") -> Response:
    return await buyer.call("POST", f"/callbacks/{account}", body=body, headers=headers)


async def placed(client: Client, account: str) -> dict[str, Any]:
    order: dict[str, Any] = (await client.post("/v1/orders", terms(account=account))).json
    return order


async def test_a_callback_is_acknowledged_in_the_channels_own_words_and_pays(
    client: Client, buyer: Client, account: str, channel: Channel
) -> None:
    order = await placed(client, account)
    await channel.pay(order["payments"][0]["out_trade_no"])
    body = paid_body(order["payments"][0])
    response = await send(buyer, body, signed(body))
    assert (response.status, response.body) == (200, b"ok")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"

    async def is_paid() -> bool:
        return bool((await client.get(f"/v1/orders/{order['order_no']}")).json["status"] == "paid")

    await eventually(is_paid)


async def test_forged_callback_changes_nothing(
    client: Client, buyer: Client, account: str, resources: Resources
) -> None:
    order = await placed(client, account)
    body = paid_body(order["payments"][0])
    good = signed(body)
    forged = {
        "no signature": {},
        "another secret": signed(body, secret="a stranger's secret, as long as it is"),
        "another body": signed(body + b" "),
        "not a signature": good | {"sandbox-signature": "t=x,k=k1,v1=é"},
        "two signatures": good | {"sandbox-signature": f"{good['sandbox-signature']}, {good['sandbox-signature']}"},
    }
    for name, headers in forged.items():
        response = await send(buyer, body, headers)
        assert (response.status, response.problem) == (401, "callback_forged"), name
    assert await resources.db.fetchval("SELECT count(*) FROM callbacks") == 0
    assert (await client.get(f"/v1/orders/{order['order_no']}")).json["status"] == "paying"
    assert resources.tallies[Tally("account", account, "callbacks_refused")] == len(forged)


async def test_a_stale_callback_is_400(client: Client, buyer: Client, account: str) -> None:
    body = paid_body((await placed(client, account))["payments"][0])
    for minutes in (-6, 6):
        response = await send(buyer, body, signed(body, at=time.time() + minutes * 60))
        assert (response.status, response.problem) == (400, "callback_stale"), minutes


async def test_an_unknown_account_is_refused_as_a_forged_callback_is(buyer: Client, account: str) -> None:
    """A stranger does not learn which accounts there are."""
    forged = await send(buyer, b"{}", signed(b"{}", secret="a stranger's secret, as long as it is"))
    for name in ("nobody", "MAIN", "a" * 41, "main%0A", "%ff", "main'--"):
        response = await send(buyer, b"{}", {}, name)
        assert (response.status, response.problem) == (401, "callback_forged"), name
        assert without_ids(response) == without_ids(forged), name


def without_ids(response: Response) -> tuple[dict[str, str], dict[str, Any]]:
    """All that a stranger sees, apart from the id that every request has."""
    headers = {name: text for name, text in response.headers.items() if name != "x-request-id"}
    return headers, response.json | {"instance": ""}


@pytest.fixture
def noted(resources: Resources, monkeypatch: pytest.MonkeyPatch) -> list[RefusedCallback]:
    """Refused callbacks of this process; the task that writes them does not get them."""
    rows: list[RefusedCallback] = []
    monkeypatch.setattr(resources.refusals, "note", lambda *of: rows.append(refused_callback(*of)))
    return rows


async def test_what_is_refused_is_noted_without_waiting_for_postgres(
    client: Client, buyer: Client, account: str, resources: Resources, noted: list[RefusedCallback]
) -> None:
    """And without the headers that no verification reads."""
    order = await placed(client, account)
    body = paid_body(order["payments"][0])
    headers = signed(body, secret="a stranger's secret, as long as it is") | {"cookie": "canary"}
    await resources.db.close()
    for name in ("main", "mian"):
        assert (await send(buyer, body, headers, name)).status == 401
    [forged, unknown] = noted
    assert (forged.account, forged.verdict, forged.network) == ("main", "forged", "198.51.100.0/24")
    assert forged.ids == ("cb-0001", order["payments"][0]["out_trade_no"], "tx-0001")
    assert set(forged.headers) == {"sandbox-callback-id", "sandbox-signature"}
    assert (unknown.account, unknown.verdict, unknown.detail) == ("", "unknown_account", "mian")


async def test_a_genuine_callback_is_not_noted_as_refused(
    client: Client, buyer: Client, account: str, noted: list[RefusedCallback]
) -> None:
    order = await placed(client, account)
    body = paid_body(order["payments"][0])
    assert (await send(buyer, body, signed(body))).status == 200
    assert noted == []


async def test_what_was_noted_is_written_when_the_process_ends(
    resources: Resources, draining: asyncio.Event, account: str
) -> None:
    async with open_application(resources, draining) as application:
        await send(Client(application), b"{}", {})
    counted = "SELECT sum(count)::int FROM refused_counts"
    assert await resources.db.fetchval(counted) == 1


async def test_the_body_reaches_the_inbox_byte_for_byte(
    client: Client, buyer: Client, account: str, channel: Channel, resources: Resources
) -> None:
    """White space and key order are part of what was signed."""
    order = await placed(client, account)
    await channel.pay(order["payments"][0]["out_trade_no"])
    body = b"  " + paid_body(order["payments"][0]) + b"\r\n\r\n"
    assert (await send(buyer, body, signed(body))).status == 200
    assert [stored.body for stored in await raw_callbacks(resources.db, resources.sealer)] == [body]


async def test_the_database_down_is_503_with_retry_after_and_the_callback_parked(
    client: Client, buyer: Client, account: str, channel: Channel, resources: Resources
) -> None:
    body = paid_body((await placed(client, account))["payments"][0])
    await resources.db.close()
    response = await send(buyer, body, signed(body))
    assert (response.status, response.problem) == (503, "unavailable")
    assert response.headers["retry-after"] == str(RETRY_AFTER_S)
    assert await resources.redis.dbsize() > 0


async def test_a_body_of_64_kib_is_taken_and_one_byte_more_is_not(buyer: Client, account: str) -> None:
    assert (await send(buyer, b"x" * 65_536, {})).status == 401
    assert (await send(buyer, b"x" * 65_537, {})).status == 413


async def test_the_channel_itself_is_satisfied_over_http(
    client: Client, account: str, channel: Channel, served: str
) -> None:
    """The sandbox calls the address that it was given at creation, and stops when it is acknowledged."""
    order = await placed(client, account)
    await channel.pay(order["payments"][0]["out_trade_no"], "none")

    async def is_paid() -> bool:
        return bool((await client.get(f"/v1/orders/{order['order_no']}")).json["status"] == "paid")

    await eventually(is_paid)
    async with httpx.AsyncClient(trust_env=False, verify=NO_TLS, timeout=60) as http:
        number = order["payments"][0]["out_trade_no"]
        again = await http.post(f"{channel.url}/control/payments/{number}/callback")
    assert again.json() == {"acknowledged": True, "status": 200}, "a repeat is acknowledged as well"

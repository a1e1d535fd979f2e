"""Our Stripe adapter at somebody else's imitation of Stripe, for what that one has: asking about intents, and an end.

It knows neither checkout sessions nor `automatic_payment_methods`, so intents are created here as it takes them.
"""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from msgspec.structs import replace

from channels.stripe.adapter import Stripe
from channels.transport import Transport
from core.account import AccountConfig
from core.errors import CallbackForged, ChannelUnreadable
from core.evidence import Closed, Unpaid
from core.order import Payment, PaymentStatus
from demo.embedded import free_port
from simulator.kit.asgi import App, Reply, Request, Response, Route
from simulator.kit.serve import serving
from tests.oracles.library import ROOT, python_of
from tests.servers import eventually

SECRET_KEY = "sk_test_12345678"
WEBHOOK_SECRET = "whsec_madeupforthistestalone"
NUMBER = "0190a7c3d1f2a1b2c3d4e5f60718"


@pytest_asyncio.fixture
async def http(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A new localstripe on loopback; it stores its state in its working directory."""
    python, port = python_of("localstripe"), free_port()
    script = ROOT / "tests" / "oracles" / "localstripe_server.py"
    command = [python, str(script), "--port", str(port), "--from-scratch"]
    with (tmp_path / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*command, cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT)
    try:
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url, auth=(SECRET_KEY, ""), trust_env=False, timeout=60) as client:
            await eventually(lambda: _answers(client))
            yield client
    finally:
        process.terminate()
        await process.wait()


async def _answers(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/v1/balance")).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


@pytest_asyncio.fixture
async def adapter(http: httpx.AsyncClient) -> AsyncIterator[Stripe]:
    credentials = {"secret_key": SECRET_KEY, "webhook_secrets": [WEBHOOK_SECRET]}
    account = AccountConfig(name="main", channel="stripe", base_url=str(http.base_url), credentials=credentials)
    async with Transport(timeout_s=60) as transport:
        yield Stripe(account, transport)


async def created(http: httpx.AsyncClient, **more: str) -> Payment:
    terms = {"amount": "8888", "currency": "usd", "metadata[out_trade_no]": NUMBER, **more}
    intent = await http.post("/v1/payment_intents", data=terms)
    assert intent.status_code == 200, intent.text
    now = datetime.now(UTC)
    return Payment(
        channel_account="main",
        out_trade_no=NUMBER,
        order_no="A-1001",
        attempt_no=1,
        amount=8888,
        currency="USD",
        status=PaymentStatus.OPEN,
        payable_until=now + timedelta(hours=2),
        created_at=now,
        method="payment_intent",
        channel_reference=intent.json()["id"],
    )


async def test_intent_is_unpaid_at_first(adapter: Stripe, http: httpx.AsyncClient) -> None:
    evidence = await adapter.query_payment(await created(http))
    assert isinstance(evidence, Unpaid)
    assert (evidence.out_trade_no, evidence.amount, evidence.currency) == (NUMBER, 8888, "USD")


async def test_cancelled_intent_is_closed(adapter: Stripe, http: httpx.AsyncClient) -> None:
    payment = await created(http)
    await adapter.close_payment(payment)
    assert isinstance(await adapter.query_payment(payment), Closed)


async def test_a_declined_cards_callback_leaves_the_payment_unpaid(adapter: Stripe, http: httpx.AsyncClient) -> None:
    """The status goes back to requires_payment_method: the buyer may try another card."""
    received: list[Request] = []

    async def receive(request: Request) -> Reply:
        if b'"payment_intent.payment_failed"' in request.body:
            received.append(request)
        return Response(body=b"{}")

    card = {"type": "card", "card[number]": "4000000000000341", "card[exp_month]": "12", "card[exp_year]": "2030"}
    method = (await http.post("/v1/payment_methods", data=card | {"card[cvc]": "123"})).json()
    async with serving(App([Route("POST", "/callbacks/main", receive)])) as url:
        webhook = {"url": f"{url}/callbacks/main", "secret": WEBHOOK_SECRET}
        assert (await http.post("/_config/webhooks/main", data=webhook)).status_code == 200
        payment = await created(http, payment_method=method["id"])
        declined = await http.post(f"/v1/payment_intents/{payment.channel_reference}/confirm")
        assert declined.status_code == 402, declined.text
        await eventually(lambda: len(received) == 1)
    headers, body = received[0].headers, received[0].body
    callback = await adapter.verify_callback(headers, body, received_at=datetime.now(UTC))
    assert isinstance(callback.evidence, Unpaid)
    assert callback.evidence.out_trade_no == NUMBER
    assert isinstance(await adapter.query_payment(payment), Unpaid)
    with pytest.raises(CallbackForged):
        await adapter.verify_callback(headers, body + b" ", received_at=datetime.now(UTC))


async def test_404_without_the_code_that_stripe_documents_proves_nothing(
    adapter: Stripe, http: httpx.AsyncClient
) -> None:
    """Stripe sends `resource_missing` (https://docs.stripe.com/error-codes); without the code there is no evidence."""
    payment = await created(http)
    with pytest.raises(ChannelUnreadable):
        await adapter.query_payment(replace(payment, channel_reference="pi_nobody"))

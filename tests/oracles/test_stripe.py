"""Stripe's Python library works with the simulated Stripe and reads its callbacks."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest_asyncio

from simulator.kernel.base import Message, Opened
from simulator.kernel.ledger import Key, Payment
from simulator.kernel.simulation import Simulation
from simulator.stripe.channel import Stripe
from tests.oracles.library import Library, open_library

NUMBER = "0190a7c3d1f2a1b2c3d4e5f60718"


@pytest_asyncio.fixture
async def opened(far_side: Simulation) -> Opened:
    opened = Stripe().open_account("main", "http://127.0.0.1:9/callbacks/main")
    far_side.accounts[opened.account.merchant_id] = opened.account
    return opened


@pytest_asyncio.fixture
async def library(far_side: Simulation, opened: Opened) -> AsyncIterator[Library]:
    url, secret_key = far_side.urls["stripe"], opened.credentials["secret_key"]
    async with open_library("stripe_sdk", base_url=url, secret_key=secret_key) as one:
        yield one


def session(number: str = NUMBER) -> dict[str, Any]:
    """Parameters of a checkout session, as a shop writes them."""
    price = {"currency": "usd", "unit_amount": 8888, "product_data": {"name": "Tea, 250 g"}}
    return {
        "mode": "payment",
        "line_items": [{"quantity": 1, "price_data": price}],
        "success_url": "https://shop.example/back",
        "cancel_url": "https://shop.example/back",
        "client_reference_id": number,
        "payment_intent_data": {"metadata": {"out_trade_no": number}},
        "metadata": {"out_trade_no": number},
    }


async def test_library_takes_a_payment_by_checkout_session(
    library: Library, far_side: Simulation, opened: Opened
) -> None:
    created = await library.do("call", service="checkout.sessions", method="create", params=session())
    assert (created["status"], created["payment_status"]) == ("open", "unpaid")
    assert created["amount_total"] == 8888
    paid = far_side.pay(Key(opened.account.merchant_id, NUMBER))
    assert isinstance(paid, Payment)
    expanded = {"expand": ["payment_intent.latest_charge"]}
    retrieved = await library.do(
        "call", service="checkout.sessions", method="retrieve", ids=[created["id"]], params=expanded
    )
    assert (retrieved["status"], retrieved["payment_status"]) == ("complete", "paid")
    intent = retrieved["payment_intent"]
    assert (intent["status"], intent["amount_received"]) == ("succeeded", 8888)
    assert intent["latest_charge"]["paid"] is True

    refund = {"payment_intent": intent["id"], "amount": 1000}
    given_back = await library.do("call", service="refunds", method="create", params=refund)
    assert given_back["status"] == "succeeded"
    (listed,) = await library.do("all_of", service="refunds", params={"payment_intent": intent["id"]})
    assert listed["id"] == given_back["id"]
    assert [row["type"] for row in await library.do("all_of", service="balance_transactions")] != []


async def test_library_expires_a_session_and_cancels_an_intent(library: Library) -> None:
    created = await library.do("call", service="checkout.sessions", method="create", params=session())
    expired = await library.do("call", service="checkout.sessions", method="expire", ids=[created["id"]])
    assert expired["status"] == "expired"
    terms = {"amount": 8888, "currency": "usd", "metadata": {"out_trade_no": "other"}}
    intent = await library.do("call", service="payment_intents", method="create", params=terms)
    assert intent["status"] == "requires_payment_method"
    assert intent["client_secret"].startswith(intent["id"])
    cancelled = await library.do("call", service="payment_intents", method="cancel", ids=[intent["id"]])
    assert cancelled["status"] == "canceled"


async def test_the_librarys_asynchronous_calls_take_a_payment(library: Library) -> None:
    created = await library.do("call_async", service="checkout.sessions", method="create", params=session())
    retrieved = await library.do("call_async", service="checkout.sessions", method="retrieve", ids=[created["id"]])
    assert retrieved["url"] == created["url"]


async def test_library_raises_its_own_error_for_each_refusal(library: Library) -> None:
    assert (
        await library.fail("call", service="payment_intents", method="retrieve", ids=["pi_nobody"])
        == "InvalidRequestError"
    )
    terms = {"amount": 8888, "currency": "usd"}
    key = {"idempotency_key": "the-same"}
    await library.do("call", service="payment_intents", method="create", params=terms, options=key)
    other = terms | {"amount": 1}
    raised = await library.fail("call", service="payment_intents", method="create", params=other, options=key)
    assert raised == "IdempotencyError"
    stranger = {"api_key": "sk_test_nobodys"}
    assert (
        await library.fail("call", service="payment_intents", method="create", params=terms, options=stranger)
        == "AuthenticationError"
    )


async def test_library_lists_undelivered_events(library: Library, far_side: Simulation, opened: Opened) -> None:
    """Nothing listens at the callback address, so every event is listed, page by page."""
    numbers = [f"{NUMBER}{index:03d}" for index in range(5)]
    for number in numbers:
        await library.do("call", service="checkout.sessions", method="create", params=session(number))
        assert isinstance(far_side.pay(Key(opened.account.merchant_id, number)), Payment)
    events = await library.do("all_of", service="events", params={"delivery_success": False, "limit": 2})
    listed = [event["data"]["object"]["client_reference_id"] for event in events]
    assert sorted(listed) == numbers
    assert {event["type"] for event in events} == {"checkout.session.completed"}


async def test_library_reads_the_simulators_callbacks_and_no_others(
    library: Library, far_side: Simulation, opened: Opened
) -> None:
    await library.do("call", service="checkout.sessions", method="create", params=session())
    paid = far_side.pay(Key(opened.account.merchant_id, NUMBER))
    assert isinstance(paid, Payment)
    channel, event, now = Stripe(), far_side.paid_event(paid), far_side.now()
    secret = opened.credentials["webhook_secrets"][0]
    genuine = channel.callback(event, opened.account, now, "")
    assert genuine is not None
    read = await library.do("construct_event", **received(genuine, secret))
    assert read["data"]["object"]["client_reference_id"] == NUMBER

    stale = channel.callback(event, opened.account, now - timedelta(hours=1), "")
    forged = channel.callback(event, channel.stranger(opened.account), now, "")
    for message in (channel.altered(genuine), stale, forged):
        assert message is not None
        assert await library.fail("construct_event", **received(message, secret)) == "SignatureVerificationError"


async def test_library_reads_callbacks_with_the_old_and_the_new_secret_while_it_is_rolled(
    library: Library, far_side: Simulation, opened: Opened
) -> None:
    await library.do("call", service="checkout.sessions", method="create", params=session())
    paid = far_side.pay(Key(opened.account.merchant_id, NUMBER))
    assert isinstance(paid, Payment)
    rolled = Stripe().rotated(opened.account)
    message = Stripe().callback(far_side.paid_event(paid), rolled.account, far_side.now(), "")
    assert message is not None
    secrets = rolled.credentials["webhook_secrets"]
    assert len(secrets) == 2
    for secret in secrets:
        await library.do("construct_event", **received(message, secret))


def received(message: Message, secret: str) -> dict[str, str]:
    return {"body": message.body.decode(), "signature": message.headers["stripe-signature"], "secret": secret}

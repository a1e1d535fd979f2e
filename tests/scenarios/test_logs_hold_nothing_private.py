"""A day with everything in it, at LOG_LEVEL=debug: no log holds a secret, a token, or what is said about an order."""

from typing import Any

import httpx
import msgspec

from demo.embedded import temporary_directory
from demo.service import NO_TLS
from demo.stack import Stack
from tests.scenarios.five_channels import CHANNELS, pay_all, place_at_all
from tests.scenarios.leaks import leaks
from tests.scenarios.scenario import ENVIRONMENT, UNIT_S, Scenario

CANARY = "canary-of-a-customer"
PRIVATE = {
    "authorization": f"Bearer {CANARY}",
    "cookie": f"session={CANARY}",
    "from": f"{CANARY}@customers.example",
}
"""Headers that a proxy or a forwarding system may add to a callback."""

TERMS: dict[str, Any] = {
    "subject": f"Tea for {CANARY}",
    "metadata": {"customer": f"{CANARY}@customers.example"},
    "return_url": f"https://shop.example/thanks?customer={CANARY}",
}


async def test_no_log_holds_a_secret_or_a_text_of_an_order() -> None:
    with temporary_directory() as directory:
        accounts = {name: name for name in CHANNELS}
        environment = ENVIRONMENT | {"LOG_LEVEL": "debug"}
        async with (
            Stack(directory, unit_s=UNIT_S, fsync=False, accounts=accounts, env=environment) as stack,
            httpx.AsyncClient(trust_env=False, verify=NO_TLS, timeout=60) as http,
        ):
            db = await stack.open_database()
            scenario = Scenario(stack, db, http)
            placed = await live_through(scenario)
            await scenario.settle()
            logs = {service.log.name: service.log.read_bytes() for service in (*stack.apis, *stack.workers)}
            assert all(b'"debug"' in log or b'"info"' in log for log in logs.values())
            assert [name for name, log in logs.items() if CANARY.encode() in log] == []
            assert await leaks(stack, db, placed, logs.values()) == set()
            await scenario.aclose()
            await db.close()


async def live_through(scenario: Scenario) -> list[str]:
    """Paid at five channels, refused, forged, unreadable, undelivered, looked at, with Postgres and Redis down."""
    orders = await place_at_all(scenario, **TERMS)
    await pay_all(scenario, orders, "none")
    await pay_on_the_page(scenario)
    await scenario.until("paid", *orders.values())

    order = await scenario.place(**TERMS)
    headers, body = scenario.signed_callback(order, subject=CANARY)
    stored = await scenario.deliver(headers | PRIVATE, body)
    assert stored.status_code == 200
    forged = await scenario.deliver(headers | PRIVATE, body.replace(b"8888", b"8887"))
    assert forged.status_code == 401
    unreadable = msgspec.json.encode({"id": "cb_1", "type": "payment.paid", "payment": {"subject": CANARY}})
    await scenario.deliver(scenario.sign(unreadable, callback_id="cb_1") | PRIVATE, unreadable)
    async with scenario.no_postgres():
        assert (await scenario.deliver(headers | PRIVATE, body)).status_code == 503
    async with scenario.no_redis():
        await scenario.pay(order)
        await scenario.refresh(order)

    await scenario.merchant_faults(answered_500=1.0)
    late = await scenario.place(**TERMS | {"notify_url": f"{scenario.stack.notify_url}?customer={CANARY}"})
    await scenario.pay(late, "none")
    await scenario.until("paid", late)
    await scenario.merchant_faults()

    for path in (f"/o/{CANARY}", f"/v1/orders/{CANARY}", f"/{CANARY}", f"/callbacks/{CANARY}"):
        await scenario.http.get(scenario.stack.api_url + path, headers=PRIVATE)
    await scenario.return_from_channel(late)
    await scenario.post("/v1/orders", TERMS)
    return [order.order_no, late.order_no, *(placed.order_no for placed in orders.values())]


async def pay_on_the_page(scenario: Scenario) -> None:
    """A buyer whose openid is known clicks on a way, and a stranger sends something else."""
    terms = scenario.terms(accounts=["wechatpay", "alipay"], payer={"openid": CANARY}, **TERMS)
    order = (await scenario.post("/v1/orders", terms)).json()
    for form in ({"account": "wechatpay", "method": "jsapi"}, {"account": CANARY, "method": CANARY}):
        clicked = await scenario.http.post(f"{order['order_page']}/pay?lang={CANARY}", data=form)
        assert clicked.status_code == 303
    view = await scenario.view(order["order_no"])
    assert [payment["method"] for payment in view["payments"]] == ["jsapi"]

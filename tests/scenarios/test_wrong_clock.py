"""The clock of one process is wrong: genuine callbacks are taken there, and nothing is signed by another time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from demo.embedded import free_port
from demo.service import Service
from simulator.shoppers.shop import ShopOrder
from tests.scenarios.scenario import Scenario
from tests.servers import eventually


@asynccontextmanager
async def web_process(scenario: Scenario, by_s: float) -> AsyncIterator[str]:
    """The address of another web process, whose clock is so many seconds ahead."""
    stack, port = scenario.stack, free_port()
    url = f"http://127.0.0.1:{port}"
    service = Service(
        "wrong-clock",
        "tests.scenarios.with_wrong_clock",
        "api",
        "--by-s",
        str(by_s),
        env=stack.environ | {"PORT": str(port)},
        log=stack.directory / f"wrong-clock-{port}.log",
        health_url=f"{url}/healthz",
    )
    await service.start()
    try:
        yield url
    finally:
        assert await service.stop() == 0


@pytest.mark.parametrize("by_s", [600.0, -600.0])
async def test_ten_minutes_off_all_genuine_callbacks_are_taken_and_confirmed(scenario: Scenario, by_s: float) -> None:
    orders = await paid_orders(scenario, 5)
    async with web_process(scenario, by_s) as url:
        await eventually(partial(is_judged, scenario, url, (200, "corrected", by_s)))
        assert {await callback(scenario, url, order) for order in orders} == {200}
        await scenario.until("paid", *orders)
    assert {await scenario.paid_by(order) for order in orders} == {"callback"}


async def test_two_hours_off_a_callback_is_stored_and_handled_by_others(scenario: Scenario) -> None:
    [order] = await paid_orders(scenario, 1)
    async with web_process(scenario, 7200.0) as url:
        await eventually(partial(is_judged, scenario, url, (503, "far_off", 7200.0)))
        assert await callback(scenario, url, order) == 200
        await scenario.until("paid", order)
    assert await scenario.paid_by(order) == "compensation"


async def paid_orders(scenario: Scenario, count: int) -> list[ShopOrder]:
    """Orders that are paid at the channel; neither a callback nor a query tells it here."""
    orders = await scenario.place_many(count)
    await scenario.put_off(*orders)
    for order in orders:
        await scenario.pay(order, "lost")
    return orders


async def callback(scenario: Scenario, url: str, order: ShopOrder) -> int:
    headers, body = scenario.signed_callback(order)
    return (await scenario.http.post(f"{url}/callbacks/sandbox", content=body, headers=headers)).status_code


async def is_judged(scenario: Scenario, url: str, expected: tuple[int, str, float]) -> bool:
    """Whether its readiness and its clock are these. A busy machine may be too slow to compare it at the start."""
    response = await scenario.http.get(f"{url}/readyz")
    answer = response.json()
    return (response.status_code, answer["clock"], round(answer["clock_skew_s"] or 0.0)) == expected

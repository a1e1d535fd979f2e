"""A thousand users press refresh: the channel gets one query."""

import asyncio

import msgspec

from simulator.kit.http_client import ClientResponse, exchange, http_client
from tests.scenarios.scenario import Scenario

REFRESHES = 1000


async def test_a_thousand_refreshes_at_two_web_processes_are_one_query(scenario: Scenario) -> None:
    order = await scenario.place()
    await scenario.put_off(order)
    before = len(await scenario.query_times(order))
    await scenario.faults(affected=["query"], slow=1.0, slow_s=0.5)
    await scenario.pay(order, "lost")

    responses = await _press_everywhere(scenario, f"/v1/orders/{order.order_no}/refresh")

    assert len(responses) == REFRESHES
    assert {response.status for response in responses} == {200}
    assert {msgspec.json.decode(response.body)["status"] for response in responses} == {"paid"}
    assert len(await scenario.query_times(order)) == before + 1


async def _press_everywhere(scenario: Scenario, path: str) -> list[ClientResponse]:
    """All at once, half of them at each web process."""
    headers = {"authorization": f"Bearer {scenario.stack.api_key}"}
    client = http_client()

    async def press(api_url: str) -> ClientResponse:
        return await exchange(client, "POST", api_url + path, headers=headers, within_s=30, body_bytes_max=65_536)

    try:
        return await asyncio.gather(*(press(scenario.stack.api_urls[number % 2]) for number in range(REFRESHES)))
    finally:
        await client.close()

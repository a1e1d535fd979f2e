"""A thousand users press the button: the channel is asked once."""

import asyncio

import msgspec

from simulator.kit.http_client import ClientResponse, exchange, http_client
from tests.scenarios.scenario import Scene

REFRESHES = 1000


async def test_a_thousand_refreshes_at_two_web_processes_are_one_query(scene: Scene) -> None:
    order = await scene.place()
    await scene.put_off(order)
    before = len(await scene.asked(order))
    await scene.faults(affected=["query"], slow=1.0, slow_s=0.5)
    await scene.pay(order, "lost")

    answers = await _press_everywhere(scene, f"/v1/orders/{order.order_no}/refresh")

    assert len(answers) == REFRESHES
    assert {answer.status for answer in answers} == {200}
    assert {msgspec.json.decode(answer.body)["status"] for answer in answers} == {"paid"}
    assert len(await scene.asked(order)) == before + 1


async def _press_everywhere(scene: Scene, path: str) -> list[ClientResponse]:
    """All at once, half of them at each web process."""
    headers = {"authorization": f"Bearer {scene.stack.api_key}"}
    client = http_client()

    async def press(api_url: str) -> ClientResponse:
        return await exchange(client, "POST", api_url + path, headers=headers, within_s=30, body_bytes_max=65_536)

    try:
        return await asyncio.gather(*(press(scene.stack.api_urls[number % 2]) for number in range(REFRESHES)))
    finally:
        await client.close()

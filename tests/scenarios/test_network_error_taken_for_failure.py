"""The channel cannot be reached or read: that is never *failed* and never *paid*, only "unknown, ask again"."""

import pytest

from tests.scenarios.faulty_proxy import CrookedProxy, Way
from tests.scenarios.scenario import Scene
from tests.servers import eventually

WAYS = [way for way in Way if way is not Way.STRAIGHT]


@pytest.mark.parametrize("way", WAYS)
async def test_an_answer_that_cannot_be_read_changes_nothing_and_is_asked_for_again(
    scene: Scene, crooked: CrookedProxy, way: Way
) -> None:
    await crooked.go(Way.STRAIGHT)
    order = await scene.place("crooked")
    await crooked.go(way)

    await eventually(lambda: _was_unclear(scene, order.order_no, 2), 30)

    assert await scene.status(order) == "paying"
    assert await scene.payment_status(order) == "open"
    await scene.pay(order, "lost")
    await crooked.go(Way.STRAIGHT)
    await scene.until("paid", order)


@pytest.mark.parametrize("way", [Way.REFUSED, Way.HTML_PAGE])
async def test_a_callback_is_kept_while_the_channel_cannot_confirm_it(
    scene: Scene, crooked: CrookedProxy, way: Way
) -> None:
    await crooked.go(Way.STRAIGHT)
    order = await scene.place("crooked")
    await scene.put_off(order)
    await crooked.go(way)

    await scene.pay(order, "lost")
    assert await scene.call_back(order) == 200

    assert await scene.status(order) == "paying"
    await crooked.go(Way.STRAIGHT)
    await scene.until("paid", order)
    assert await scene.paid_by(order) == "compensation"


async def test_a_redirect_is_not_followed(scene: Scene, crooked: CrookedProxy) -> None:
    """It leads to the true channel, which would answer; but who redirects could lead anywhere."""
    await crooked.go(Way.STRAIGHT)
    order = await scene.place("crooked")
    await crooked.go(Way.REDIRECT)
    asked = await scene.asked(order)

    await eventually(lambda: _was_unclear(scene, order.order_no, 2), 30)

    assert await scene.asked(order) == asked
    await crooked.go(Way.STRAIGHT)


async def test_a_payment_whose_creation_was_not_answered_is_not_created_twice(
    scene: Scene, crooked: CrookedProxy
) -> None:
    """The channel has it, its answer was cut off; the replay asks again under the same number."""
    await crooked.go(Way.CUT_IN_BODY)
    terms = scene.terms(account="crooked")
    first = await scene.post("/v1/orders", terms)
    assert first.status_code == 201
    assert first.json()["payments"][0]["checkout"] is None
    await crooked.go(Way.STRAIGHT)

    again = await scene.post("/v1/orders", terms)

    assert again.status_code == 200
    [payment] = again.json()["payments"]
    assert payment["checkout"] is not None
    assert payment["out_trade_no"] == first.json()["payments"][0]["out_trade_no"]


async def _was_unclear(scene: Scene, order_no: str, times: int) -> bool:
    return await scene.observed(order_no, "unclear_seen") >= times

"""The channel cannot be reached or read: that is never *failed* and never *paid*, only "unknown, ask again"."""

import pytest

from tests.scenarios.faulty_proxy import FaultyProxy, ProxyFault
from tests.scenarios.scenario import QUIET_S, Scenario
from tests.servers import eventually

WAYS = [way for way in ProxyFault if way is not ProxyFault.NO_FAULT]


@pytest.mark.parametrize("way", WAYS)
async def test_an_answer_that_cannot_be_read_changes_nothing_and_is_asked_for_again(
    scenario: Scenario, faulty_proxy: FaultyProxy, way: ProxyFault
) -> None:
    await faulty_proxy.set_fault(ProxyFault.NO_FAULT)
    order = await scenario.place("proxied")
    await faulty_proxy.set_fault(way)

    await eventually(lambda: _was_unclear(scenario, order.order_no, 2), QUIET_S)
    # Before so many are unanswered that the breaker opens, which is another test's subject.
    await scenario.put_off(order)

    assert await scenario.status(order) == "paying"
    assert await scenario.payment_status(order) == "open"
    await scenario.pay(order, "lost")
    await faulty_proxy.set_fault(ProxyFault.NO_FAULT)
    await scenario.make_due(order)
    await scenario.until("paid", order)


@pytest.mark.parametrize("way", [ProxyFault.REFUSED, ProxyFault.HTML_PAGE])
async def test_a_callback_is_kept_while_the_channel_cannot_confirm_it(
    scenario: Scenario, faulty_proxy: FaultyProxy, way: ProxyFault
) -> None:
    await faulty_proxy.set_fault(ProxyFault.NO_FAULT)
    order = await scenario.place("proxied")
    await scenario.put_off(order)
    await faulty_proxy.set_fault(way)

    await scenario.pay(order, "lost")
    assert await scenario.request_callback(order) == 200

    assert await scenario.status(order) == "paying"
    await faulty_proxy.set_fault(ProxyFault.NO_FAULT)
    await scenario.until("paid", order)
    assert await scenario.paid_by(order) == "compensation"


async def test_a_redirect_is_not_followed(scenario: Scenario, faulty_proxy: FaultyProxy) -> None:
    """It leads to the true channel, which would answer; but who redirects could lead anywhere."""
    await faulty_proxy.set_fault(ProxyFault.NO_FAULT)
    order = await scenario.place("proxied")
    await faulty_proxy.set_fault(ProxyFault.REDIRECT)
    query_times = await scenario.query_times(order)

    await eventually(lambda: _was_unclear(scenario, order.order_no, 2), QUIET_S)

    assert await scenario.query_times(order) == query_times
    await faulty_proxy.set_fault(ProxyFault.NO_FAULT)


async def test_a_payment_whose_creation_was_not_answered_is_not_created_twice(
    scenario: Scenario, faulty_proxy: FaultyProxy
) -> None:
    """The channel has it, its answer was cut off; the replay asks again under the same number."""
    await faulty_proxy.set_fault(ProxyFault.CUT_IN_BODY)
    terms = scenario.terms(account="proxied")
    first = await scenario.post("/v1/orders", terms)
    assert first.status_code == 201
    assert first.json()["payments"][0]["checkout"] is None
    await faulty_proxy.set_fault(ProxyFault.NO_FAULT)

    again = await scenario.post("/v1/orders", terms)

    assert again.status_code == 200
    [payment] = again.json()["payments"]
    assert payment["checkout"] is not None
    assert payment["out_trade_no"] == first.json()["payments"][0]["out_trade_no"]


async def _was_unclear(scenario: Scenario, order_no: str, times: int) -> bool:
    return await scenario.observed(order_no, "unclear_seen") >= times

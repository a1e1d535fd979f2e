"""A callback that cannot be stored gets no success, or the channel would not send it again."""

from tests.scenarios.scenario import Scenario, number_of
from tests.servers import eventually


async def test_a_callback_that_could_not_be_enqueued_is_kept_and_handled_without_redis(scenario: Scenario) -> None:
    order = await scenario.place()
    await scenario.put_off(order)
    async with scenario.no_redis():
        await scenario.pay(order, "lost")

        assert await scenario.request_callback(order) == 200

        assert len(await scenario.callbacks(number_of(order))) == 1
        await scenario.until("paid", order)


async def test_without_any_store_nothing_is_acknowledged_and_the_channels_next_try_pays(scenario: Scenario) -> None:
    order = await scenario.place()
    await scenario.put_off(order)
    async with scenario.no_redis(), scenario.no_postgres():
        await scenario.pay(order, "none")
        await eventually(lambda: _was_refused(scenario, number_of(order)))

    await scenario.until("paid", order)
    assert len(await scenario.callbacks(number_of(order))) == 1


async def _was_refused(scenario: Scenario, number: str) -> bool:
    """Return whether the channel got a 503 and no acknowledgement."""
    [payment] = [row for row in (await scenario.ledger()).payments if row.out_trade_no == number]
    assert payment.callbacks.acknowledged == 0
    return payment.callbacks.last_status == 503

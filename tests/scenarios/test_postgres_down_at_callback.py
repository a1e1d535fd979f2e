"""A callback comes while Postgres is down: it must not be acknowledged, and is parked in case it never comes again."""

from datetime import UTC, datetime

from flows.place import new_number
from storage.redis.parked_callbacks import ParkedCallback, ParkedCallbacks
from tests.scenarios.scenario import Scenario, add_account, number_of
from tests.servers import eventually
from tests.storage.redis.tools import client_of


async def test_it_is_answered_503_and_pays_later_although_the_channel_never_sends_again(scenario: Scenario) -> None:
    order = await scenario.place()
    await scenario.put_off(order)
    await scenario.pay(order, "lost")
    async with scenario.no_postgres():
        assert await scenario.request_callback(order) == 503
        assert await parked_count(scenario) == 1

    await scenario.until("paid", order)

    assert await scenario.paid_by(order) == "compensation"
    await eventually(lambda: _nothing_isparked_count(scenario))


async def test_what_is_parked_for_an_account_that_is_not_there_waits_and_holds_up_nobody(scenario: Scenario) -> None:
    order = await scenario.place()
    await scenario.put_off(order)
    await scenario.pay(order, "lost")
    stranger = new_number(datetime.now(UTC))
    await scenario.stack.open_account("ghost")
    async with client_of(scenario.stack.redis.url) as redis:
        parked = ParkedCallbacks(redis, scenario.sealer)
        for account, (headers, body) in (
            ("ghost", scenario.signed_callback(stranger, account="ghost")),
            ("sandbox", scenario.signed_callback(order)),
        ):
            received_at = await scenario.db.fetchval("SELECT now()")
            await parked.park(ParkedCallback(account=account, headers=headers, body=body, received_at=received_at))

    await scenario.until("paid", order)
    await eventually(lambda: _is_oneparked_count(scenario))
    [stored] = await scenario.callbacks(number_of(order))
    assert stored["copies"] <= len(scenario.stack.workers), "it is drained again and again"

    await add_account(scenario.stack, scenario.db, "ghost")
    await eventually(lambda: scenario.callbacks(stranger))
    await eventually(lambda: _nothing_isparked_count(scenario))
    await scenario.make_callback_due(stranger, attempt=16)


async def parked_count(scenario: Scenario) -> int:
    async with client_of(scenario.stack.redis.url) as redis:
        return await ParkedCallbacks(redis, scenario.sealer).count()


async def _nothing_isparked_count(scenario: Scenario) -> bool:
    return await parked_count(scenario) == 0


async def _is_oneparked_count(scenario: Scenario) -> bool:
    return await parked_count(scenario) == 1

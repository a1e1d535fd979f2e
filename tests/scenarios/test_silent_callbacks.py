"""The callbacks of one account stop. Every payment is found by its query, so nobody would notice: the account is called
out, and no other; and it is not any more when callbacks come again.
"""

from core.silence import LAST_MAX, LAST_MIN
from flows.silence import find_silent_accounts
from tests.scenarios.scenario import Scenario
from tests.servers import eventually

QUIET, OTHER = "sandbox-b", "sandbox"


async def silent(scenario: Scenario) -> list[str]:
    """The accounts that are called out now; no time is waited for late callbacks, as there are none."""
    return [each.account for each in await find_silent_accounts(scenario.db, grace_s=0.0)]


async def pay(scenario: Scenario, account: str, callback: str | None, count: int) -> None:
    orders = await scenario.place_many(count, account)
    for order in orders:
        await scenario.pay(order, callback)
    await scenario.until("paid", *orders)


async def test_an_account_whose_callbacks_stopped_is_called_out_until_they_come_again(scenario: Scenario) -> None:
    async def is_calm() -> bool:
        return not {QUIET, OTHER} & {*await silent(scenario)}

    for account in (QUIET, OTHER):
        await pay(scenario, account, "none", LAST_MAX)
    await eventually(is_calm)

    await pay(scenario, QUIET, "lost", 1)
    assert await is_calm(), "one loss is normal"

    await pay(scenario, QUIET, "lost", LAST_MAX)
    called_out = await silent(scenario)
    assert QUIET in called_out
    assert OTHER not in called_out

    await pay(scenario, QUIET, "none", LAST_MIN)
    await eventually(is_calm)

"""Postgres turns read-only and its connections live on, as those of a former primary after a failover by name."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from demo.stack import DATABASE
from tests.scenarios.scenario import Scenario
from tests.servers import eventually
from tests.storage.postgres.tools import connected

_END_SESSIONS = """
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
 WHERE datname = current_database() AND application_name = 'nodrop' AND pid <> pg_backend_pid()"""


async def test_orders_go_on_as_soon_as_the_name_leads_to_a_primary(scenario: Scenario) -> None:
    """The open connections stay read-only; only new ones reach the primary."""
    open_order = await scenario.place()
    await scenario.pay(open_order, "lost")
    async with former_primary(scenario):
        for api in range(len(scenario.stack.apis)):
            await eventually(partial(is_postgres_ready, scenario, api, expected=False))
        refused = await scenario.post("/v1/orders", scenario.terms(account="sandbox"))
        assert refused.status_code == 503, refused.text

    order = await scenario.place()
    for api in range(len(scenario.stack.apis)):
        await eventually(partial(is_postgres_ready, scenario, api, expected=True))
    await scenario.pay(order, None)
    await scenario.until("paid", order, open_order)


@asynccontextmanager
async def former_primary(scenario: Scenario) -> AsyncIterator[None]:
    """All connections that are opened within are read-only, and stay so afterwards."""
    async with connected(scenario.stack.database_url) as operator:
        await operator.execute(f"ALTER DATABASE {DATABASE} SET default_transaction_read_only = on")
        await operator.fetch(_END_SESSIONS)
        try:
            yield
        finally:
            await operator.execute(f"ALTER DATABASE {DATABASE} RESET default_transaction_read_only")


async def is_postgres_ready(scenario: Scenario, api: int, *, expected: bool) -> bool:
    response = await scenario.http.get(f"{scenario.stack.api_urls[api]}/readyz")
    return bool(response.json()["postgres"] is expected)

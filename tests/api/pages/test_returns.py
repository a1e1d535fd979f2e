"""A return that could not be noted: whoever came back may have paid, so nothing says *waiting*, wherever it is read."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec.structs import replace

from api.application import open_application
from api.pages import handlers as pages
from core.errors import ConflictsExhausted, DatabaseUnavailable
from core.settings import Settings
from runtime.resources import open_resources
from storage.redis.unnoted_returns import UnnotedReturns, _field
from tests.api.conftest import terms, token_of
from tests.api.driver import Client, Response
from tests.storage.redis.tools import client_of

NO_POSTGRES = "postgres://u:p@127.0.0.1:1/x"
NO_REDIS = "redis://127.0.0.1:1/0"


@asynccontextmanager
async def another_process(settings: Settings, **changes: str) -> AsyncIterator[Client]:
    """A buyer's client of another process with these settings."""
    async with (
        open_resources(replace(settings, **changes)) as resources,
        open_application(resources, asyncio.Event()) as app,
    ):
        app._lag.end()
        yield Client(app, address="198.51.100.7")


@pytest.fixture
async def order(client: Client, buyer: Client, account: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """An order whose buyer has come back unpaid: its page waits. The channel has time to say so on a busy machine."""
    monkeypatch.setattr(pages, "RETURN_WAIT_S", 60.0)
    order: dict[str, Any] = (await client.post("/v1/orders", terms(account=account))).json
    await buyer.get(f"/o/{token_of(order)}/return")
    assert await phase(buyer, order) == "waiting"
    return order


async def phase(buyer: Client, order: dict[str, Any]) -> str:
    answer = await buyer.get(f"/o/{token_of(order)}/status")
    assert answer.status == 200, answer.body
    return str(answer.json["phase"])


async def come_back(buyer: Client, order: dict[str, Any]) -> Response:
    return await buyer.get(f"/o/{token_of(order)}/return")


def says_processing(page: Response) -> bool:
    return 'data-phase="processing"' in page.body.decode() and "Waiting" not in page.body.decode()


async def test_a_return_without_postgres_lets_no_process_say_waiting(
    settings: Settings, buyer: Client, order: dict[str, Any]
) -> None:
    """Postgres is down for the process that the buyer comes back to, and for no other one."""
    async with another_process(settings, database_url=NO_POSTGRES) as blind:
        answer = await come_back(blind, order)
    assert (answer.status, answer.headers["retry-after"], says_processing(answer)) == (503, "5", True)
    assert await phase(buyer, order) == "processing"
    assert says_processing(await buyer.get(f"/o/{token_of(order)}"))


@pytest.mark.parametrize("reader", ["page", "stream", "refresh"])
async def test_whoever_reads_the_order_first_ends_the_wait_for_all(
    settings: Settings, buyer: Client, order: dict[str, Any], reader: str
) -> None:
    address = f"/o/{token_of(order)}"
    await buyer.app.context.unnoted_returns.add(token_of(order))
    async with another_process(settings) as other:
        match reader:
            case "page":
                assert says_processing(await other.get(address))
            case "stream":
                async with other.stream(f"{address}/events") as stream:
                    await stream.until(lambda now: now.states)
                assert stream.states[0]["phase"] == "processing"
            case "refresh":
                answer = await other.post(f"{address}/refresh", accept="application/json")
                assert answer.json["phase"] == "processing"
    row = await buyer.app.context.resources.db.fetchrow("SELECT version, unpaid_version FROM orders")
    assert row is not None
    assert row["version"] > row["unpaid_version"], "it is in Postgres now"


async def test_an_open_page_hears_of_it(settings: Settings, buyer: Client, order: dict[str, Any]) -> None:
    async with buyer.stream(f"/o/{token_of(order)}/events") as stream, another_process(settings) as other:
        await stream.until(lambda now: now.states)
        await other.app.context.unnoted_returns.add(token_of(order))
        await phase(other, order)
        await stream.until(lambda now: len(now.states) == 2)
    assert [state["phase"] for state in stream.states] == ["waiting", "processing"]


@pytest.mark.parametrize("fault", [DatabaseUnavailable, ConflictsExhausted, None], ids=["away", "conflicts", "hangs"])
@pytest.mark.parametrize("step", ["requests.find_state_by_page_token", "handlers.note_return"])
async def test_no_fault_of_noting_it_lets_the_order_wait(
    buyer: Client, order: dict[str, Any], monkeypatch: pytest.MonkeyPatch, step: str, fault: type[Exception] | None
) -> None:
    async def fail(*_: object, **__: object) -> None:
        if fault is not None:
            raise fault
        await asyncio.Event().wait()

    with monkeypatch.context() as outage:
        outage.setattr(f"api.pages.{step}", fail)
        if fault is None:
            outage.setattr(pages, "NOTE_S", 0.05)
        answer = await come_back(buyer, order)
    assert (answer.status, says_processing(answer)) == (503, True)
    assert await phase(buyer, order) == "processing"


async def test_without_redis_the_process_itself_remembers(settings: Settings, order: dict[str, Any]) -> None:
    """Both stores are away when the buyer comes back."""
    async with another_process(settings) as other, client_of(NO_REDIS) as away:
        returns = other.app.context.unnoted_returns
        there, returns._redis = returns._redis, away
        await returns.add(token_of(order))
        returns._redis = there
        assert await phase(other, order) == "processing"


async def test_nobody_says_waiting_while_redis_cannot_tell(settings: Settings, order: dict[str, Any]) -> None:
    async with another_process(settings) as other, client_of(NO_REDIS) as away:
        other.app.context.unnoted_returns._redis = away
        assert await phase(other, order) == "processing"


async def test_the_page_of_that_return_comes_again_and_is_noted(
    settings: Settings, buyer: Client, order: dict[str, Any]
) -> None:
    """Under its own address, by its own reload: also when no store and no process remembers it."""
    async with another_process(settings, database_url=NO_POSTGRES) as blind, client_of(NO_REDIS) as away:
        blind.app.context.unnoted_returns._redis = away
        page = await come_back(blind, order)
    assert (page.status, b'http-equiv="refresh"' in page.body) == (503, True)
    assert await phase(buyer, order) == "waiting", "nobody knows of it yet"
    again = await come_back(buyer, order)
    assert (again.status, again.headers["location"]) == (303, f"/o/{token_of(order)}")


async def test_other_orders_go_on_waiting(buyer: Client, order: dict[str, Any]) -> None:
    mine = _field(token_of(order))
    other = next(name for name in ("another-token-0000", "another-token-0001") if _field(name) != mine)
    await buyer.app.context.unnoted_returns.add(other)
    assert await phase(buyer, order) == "waiting"


async def test_guesses_end_no_wait(buyer: Client, order: dict[str, Any]) -> None:
    """Strangers send returns of tokens that are none, until their address is refused."""
    token, context = token_of(order), buyer.app.context
    context.guesses._clock = lambda: 1000.0
    answers = {(await buyer.get(f"/o/{token[:-4]}{number:04}/return")).status for number in range(310)}
    assert answers == {404, 429}
    assert (await come_back(buyer, order)).status == 429
    assert not await context.unnoted_returns.may_have(token)
    assert not context.unnoted_returns._here


async def test_what_is_kept_is_bounded_and_holds_no_token(redis_url: str) -> None:
    async with client_of(redis_url) as redis:
        await UnnotedReturns(redis).add("a-token-of-a-page")
        fields = await redis.hkeys("nodrop:{returns}:unnoted")  # type: ignore[misc]  # annotated for both
        assert [len(field) for field in fields] == [4]
        assert 0 < await redis.pttl("nodrop:{returns}:unnoted") <= 31 * 86_400_000

"""Accounts that were stored before their world was checked go on, and a person is asked once."""

from core.order import CaseReason, OrderState
from flows.worlds import open_world_cases
from storage.postgres.cases import list_cases, resolve_case
from tests.flows.conftest import FlowHarness


async def wrong_worlds(harness: FlowHarness) -> list[tuple[str | None, str]]:
    rows, _ = await list_cases(harness.resources.db, reason=CaseReason.WRONG_WORLD)
    return [(row.account, row.detail) for row in rows]


async def test_a_stored_sandbox_that_is_live_goes_on_with_a_case(harness: FlowHarness) -> None:
    await harness.add_account("odd", live=True)
    state: OrderState = await harness.placed_order("odd")
    assert state.payments[0].live is True
    assert await open_world_cases(harness.resources) == 1
    assert await wrong_worlds(harness) == [("odd", "live is true, and sandbox moves no real money")]


async def test_a_person_is_asked_again_only_after_the_account_was_changed(harness: FlowHarness) -> None:
    await harness.add_account("odd", live=True)
    assert await open_world_cases(harness.resources) == 1
    assert await open_world_cases(harness.resources) == 0
    rows, _ = await list_cases(harness.resources.db, reason=CaseReason.WRONG_WORLD)
    assert await resolve_case(harness.resources.db, rows[0].id, resolution="it is meant", by="kim")
    assert await open_world_cases(harness.resources) == 0
    await harness.add_account("odd", live=True)
    assert await open_world_cases(harness.resources) == 1


async def test_an_account_of_the_right_world_has_no_case(harness: FlowHarness) -> None:
    assert await open_world_cases(harness.resources) == 0


async def test_an_order_knows_the_world_of_its_account(harness: FlowHarness) -> None:
    assert (await harness.placed_order("main")).live is False

"""Closings: summed by the channel's day, kept current, and signed off with what speaks against it."""

import asyncio
from datetime import UTC, date, datetime, timedelta

import pytest

from core.closing import StatementState
from core.errors import InvalidRequest, NotFound, NotPossible, PreviewOutdated, UnknownAccount
from flows.closings import list_days, preview_sign_off, read_day, sign_off, take_recent_days
from flows.reconcile.run import reconcile_day
from flows.refresh import refresh_order
from runtime.resources import Resources
from simulator.kernel.faults import AtFault, FaultProfile
from storage.postgres.cases import list_cases, resolve_case
from storage.postgres.closings import list_sign_offs
from tests.flows.conftest import AMOUNT, FlowHarness
from tests.servers import eventually

TODAY = datetime.now(UTC).date()
YESTERDAY = TODAY - timedelta(days=1)


async def new_account(harness: FlowHarness, name: str) -> str:
    """An account of this test alone, whose days are empty."""
    await harness.add_account(name)
    await eventually(lambda: known(harness.resources, name))
    return name


async def known(resources: Resources, name: str) -> bool:
    try:
        await resources.accounts.get(name)
    except UnknownAccount:
        await asyncio.sleep(0.05)
        return False
    return True


async def paid_yesterday(harness: FlowHarness, account: str, *, is_seen: bool = True) -> str:
    """An order that the buyer paid yesterday; return our number."""
    state = await harness.placed_order(account)
    payment = state.payments[0]
    harness.simulation.faults.force(payment.out_trade_no, AtFault(callback="event_never_generated"))
    noon = datetime.combine(YESTERDAY, datetime.min.time(), UTC) + timedelta(hours=12)
    harness.simulation.ledger.pay(harness.key_of(payment), noon)
    if is_seen:
        await refresh_order(harness.resources, state.order.order_no, trailing=True)
    return payment.out_trade_no


async def reconciled(harness: FlowHarness, account: str, day: date = YESTERDAY) -> None:
    run = await reconcile_day(harness.resources, await harness.resources.accounts.get(account), day)
    assert run is not None


async def test_a_day_has_its_money_here_and_in_the_statement(harness: FlowHarness) -> None:
    name = await new_account(harness, "closing-both")
    await paid_yesterday(harness, name)
    day = await read_day(harness.resources, name, YESTERDAY)
    assert (day.closing.statement, day.calendar) == (StatementState.MISSING, "UTC+00:00")
    [line] = day.closing.lines
    assert (line.here.payments, line.here.paid, line.net, line.there) == (1, AMOUNT, AMOUNT, None)

    await reconciled(harness, name)

    closing = (await read_day(harness.resources, name, YESTERDAY)).closing
    assert closing.statement is StatementState.READ
    [line] = closing.lines
    assert line.there is not None
    assert (line.there.payments, line.there.paid, line.there.others, line.fees) == (1, AMOUNT, 0, None)


async def test_a_run_keeps_the_day_that_it_repairs(harness: FlowHarness) -> None:
    """A list shows it at once, without anybody opening the day."""
    name = await new_account(harness, "closing-kept")
    await paid_yesterday(harness, name, is_seen=False)
    await reconciled(harness, name)
    [day] = await list_days(harness.resources, account=name, limit=9)
    assert (day.day, day.closing.lines[0].here.paid) == (YESTERDAY, AMOUNT)


async def test_the_worker_sums_every_day_since_the_account_is_there(harness: FlowHarness) -> None:
    name = await new_account(harness, "closing-days")
    older = "UPDATE accounts SET created_at = now() - interval '3 days' WHERE name = $1"
    await harness.resources.db.execute(older, name)
    assert await take_recent_days(harness.resources) >= 4
    days = await list_days(harness.resources, account=name, limit=9)
    assert [day.day for day in days] == [TODAY - timedelta(days=number) for number in range(4)]
    assert [day.closing.statement for day in days][:2] == [StatementState.NOT_DUE, StatementState.MISSING]


async def test_a_day_without_doubts_is_signed_off_as_it_was_seen(harness: FlowHarness) -> None:
    name = await new_account(harness, "closing-signed")
    await paid_yesterday(harness, name)
    await reconciled(harness, name)
    preview = await preview_sign_off(harness.resources, name, YESTERDAY)
    assert (preview.is_possible, preview.warnings) == (True, ())
    assert any("88.88 CNY" in line.text for line in preview.lines)

    day = await sign_off(
        harness.resources, name, YESTERDAY, by="alice", note="it agrees", expected_version=preview.version
    )

    assert day.closing.sign_off is not None
    assert (day.closing.sign_off.by, day.closing.is_changed) == ("alice", False)
    [listed] = await list_days(harness.resources, account=name, limit=9)
    assert listed == day, "the list has the figures that were signed"


async def test_whoever_opens_a_day_keeps_nothing(harness: FlowHarness) -> None:
    """Also one that no worker has summed, before the account was there."""
    name = await new_account(harness, "closing-opened")
    await paid_yesterday(harness, name)
    for day in (YESTERDAY, YESTERDAY - timedelta(days=400)):
        assert (await read_day(harness.resources, name, day)).day == day
        await preview_sign_off(harness.resources, name, day)
    assert await list_days(harness.resources, account=name, limit=9) == []


async def test_money_after_the_sign_off_marks_the_day_as_changed(harness: FlowHarness) -> None:
    name = await new_account(harness, "closing-changed")
    await paid_yesterday(harness, name)
    await reconciled(harness, name)
    preview = await preview_sign_off(harness.resources, name, YESTERDAY)
    await sign_off(harness.resources, name, YESTERDAY, by="alice", note="it agrees")
    await paid_yesterday(harness, name)
    assert (await read_day(harness.resources, name, YESTERDAY)).closing.is_changed
    with pytest.raises(PreviewOutdated):
        await sign_off(harness.resources, name, YESTERDAY, by="bob", note="it agrees", expected_version=preview.version)


async def test_a_sign_off_wants_a_reason(harness: FlowHarness) -> None:
    name = await new_account(harness, "closing-open")
    await paid_yesterday(harness, name)
    harness.simulation.faults.profile = FaultProfile(statement_lacks=1.0)
    await reconciled(harness, name)
    closing = (await read_day(harness.resources, name, YESTERDAY)).closing
    assert (closing.open_differences, closing.resolved_differences) == (1, 0)
    with pytest.raises(InvalidRequest, match="reason"):
        await sign_off(harness.resources, name, YESTERDAY, by="alice", note=" ")
    with pytest.raises(InvalidRequest, match="500"):
        await sign_off(harness.resources, name, YESTERDAY, by="alice", note="x" * 501)
    await sign_off(harness.resources, name, YESTERDAY, by="alice", note="the channel looks for it")
    [case] = [case for case in (await list_cases(harness.resources.db, limit=200))[0] if case.account == name]
    await resolve_case(harness.resources.db, case.id, resolution="it was there", by="alice")
    closing = (await read_day(harness.resources, name, YESTERDAY)).closing
    assert (closing.open_differences, closing.resolved_differences, closing.is_changed) == (0, 1, False)
    assert [each.note for each in await list_sign_offs(harness.resources.db, name, YESTERDAY)] == [
        "the channel looks for it"
    ]


async def test_a_day_that_is_not_over_is_not_signed_off_and_one_to_come_is_not_there(harness: FlowHarness) -> None:
    name = await new_account(harness, "closing-today")
    with pytest.raises(NotPossible):
        await sign_off(harness.resources, name, TODAY, by="alice", note="early")
    assert not (await preview_sign_off(harness.resources, name, TODAY)).is_possible
    with pytest.raises(NotFound):
        await read_day(harness.resources, name, TODAY + timedelta(days=2))
    with pytest.raises(UnknownAccount):
        await read_day(harness.resources, "nobody", YESTERDAY)

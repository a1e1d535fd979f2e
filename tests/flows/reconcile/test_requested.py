"""Statements that operators want to be read: previews change nothing, wrong files are refused with a clear error, and
what was seen is then done.
"""

import asyncio
from datetime import UTC, date, datetime, timedelta
from unittest.mock import patch

import pytest
import pytest_asyncio

from core.errors import DatabaseUnavailable, InvalidRequest, NotFound, UnknownAccount
from core.order import OrderState, OrderStatus
from flows.closings import read_day
from flows.reconcile import requested
from flows.reconcile.requested import confirm, read_requested, request_fetched, upload
from runtime.resources import Resources
from simulator.kernel.faults import AtFault, FaultProfile
from storage.postgres.reconciliation.differences import list_differences
from storage.postgres.reconciliation.runs import claim_day, list_reconciliations
from storage.postgres.statement_requests import FILE_BYTES_MAX, StatementRequest, claim_request, find_request
from tests.flows.conftest import AMOUNT, FlowHarness
from tests.servers import eventually

TODAY = datetime.now(UTC).date()
YESTERDAY = TODAY - timedelta(days=1)
HEADER = "type,out_trade_no,transaction_id,refund_no,amount,currency,at\n"


async def paid_there(harness: FlowHarness, account: str = "main", day: date = YESTERDAY) -> OrderState:
    """An order that is paid at the channel alone."""
    state = await harness.placed_order(account)
    payment = state.payments[0]
    harness.simulation.faults.force(payment.out_trade_no, AtFault(callback="event_never_generated"))
    noon = datetime.combine(day, datetime.min.time(), UTC) + timedelta(hours=12)
    harness.simulation.ledger.pay(harness.key_of(payment), noon)
    return state


def line(harness: FlowHarness, state: OrderState, day: date = YESTERDAY, amount: int = AMOUNT) -> str:
    payment = state.payments[0]
    return f"payment,{payment.out_trade_no},{harness.transaction_of(payment)},,{amount},CNY,{day}T12:00:00Z\n"


async def ended(harness: FlowHarness, request: StatementRequest) -> StatementRequest:
    """The request after the worker's turn."""
    assert await read_requested(harness.resources)
    found = await find_request(harness.resources.db, request.id)
    assert found is not None
    assert found.ended_at is not None
    return found


@pytest_asyncio.fixture(loop_scope="session", autouse=True)
async def no_requests(resources: Resources) -> None:
    await resources.db.execute("TRUNCATE statement_requests, statement_files, reconciliations CASCADE")


async def test_a_preview_says_what_would_be_done_and_the_confirmation_does_it(harness: FlowHarness) -> None:
    state = await paid_there(harness)
    content = (HEADER + line(harness, state)).encode()

    preview = await ended(harness, await upload(harness.resources, "main", YESTERDAY, content, by="alice"))

    assert (preview.status, preview.rows, preview.error) == ("done", 1, "")
    [run] = await list_reconciliations(harness.resources.db, run_id=preview.run_id)
    assert (run.dry_run, run.day, run.counts["paid_there_only"], run.sums["CNY"].paid) == (True, YESTERDAY, 1, AMOUNT)
    [difference] = await list_differences(harness.resources.db, run.id)
    assert difference.order_no == state.order.order_no
    assert (await harness.state(state)).order.status is not OrderStatus.PAID

    done = await ended(harness, await confirm(harness.resources, preview.id, by="bob", reason="portal file"))

    assert (done.status, done.requested_by, done.reason, done.dry_run) == ("done", "bob", "portal file", False)
    [run] = await list_reconciliations(harness.resources.db, run_id=done.run_id)
    assert (run.dry_run, run.counts["repaired"]) == (False, 1)
    assert (await harness.state(state)).order.status is OrderStatus.PAID
    assert await harness.fetch_value("SELECT count(*) FROM statement_files") == 0


async def test_a_fetched_statement_is_read_again(harness: FlowHarness) -> None:
    state = await paid_there(harness)
    request = await request_fetched(harness.resources, "main", YESTERDAY, by="alice", dry_run=False, reason="late")
    done = await ended(harness, request)
    assert (done.status, done.rows_done) == ("done", 1)
    assert (await harness.state(state)).order.status is OrderStatus.PAID
    assert await read_requested(harness.resources) is False


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("<html>sign in</html>", "this looks like a web page"),
        (HEADER, "the file has no row"),
        (HEADER + "payment,n-1,t-1,,1,CNY,2026-01-02T12:00:00Z\n", "the file is of 2026-01-02, not of"),
        (
            HEADER + "payment,n-1,t-1,,1,CNY,2026-01-02T12:00:00Z\npayment,n-2,t-2,,1,CNY,2026-01-03T12:00:00Z\n",
            "the file is of 2026-01-02 to 2026-01-03, not of",
        ),
        (HEADER + "refund,n-1,t-1,r-1,1,CNY,2026-01-02T12:00:00Z\n", "the file is of 2026-01-02, not of"),
    ],
)
async def test_a_wrong_file_is_refused_and_nothing_is_left(harness: FlowHarness, text: str, error: str) -> None:
    failed = await ended(harness, await upload(harness.resources, "main", YESTERDAY, text.encode(), by="alice"))
    assert failed.status == "failed"
    assert error in failed.error
    assert failed.run_id is None
    assert await list_reconciliations(harness.resources.db) == []
    with pytest.raises(InvalidRequest, match="failed"):
        await confirm(harness.resources, failed.id, by="alice", reason="all the same")


async def test_a_file_of_another_account_names_it(harness: FlowHarness) -> None:
    await harness.add_account("second")
    await eventually(lambda: is_known(harness, "second"))
    state = await paid_there(harness, "second")
    content = (HEADER + line(harness, state)).encode()
    failed = await ended(harness, await upload(harness.resources, "main", YESTERDAY, content, by="alice"))
    assert failed.error == "the payments in the file are of account second, none of main"
    done = await ended(harness, await upload(harness.resources, "second", YESTERDAY, content, by="alice"))
    assert done.status == "done"


async def is_known(harness: FlowHarness, name: str) -> bool:
    try:
        await harness.resources.accounts.get(name)
    except UnknownAccount:
        await asyncio.sleep(0.05)
        return False
    return True


async def test_an_empty_or_huge_file_and_a_day_to_come_are_refused_at_once(harness: FlowHarness) -> None:
    tomorrow = TODAY + timedelta(days=2)
    for day, content in ((YESTERDAY, b" \n"), (YESTERDAY, b"x" * (FILE_BYTES_MAX + 1)), (tomorrow, b"x")):
        with pytest.raises(InvalidRequest):
            await upload(harness.resources, "main", day, content, by="alice")
    with pytest.raises(UnknownAccount):
        await request_fetched(harness.resources, "nobody", YESTERDAY, by="alice", dry_run=True)
    with pytest.raises(NotFound):
        await confirm(harness.resources, 10**9, by="alice", reason="x")
    assert await read_requested(harness.resources) is False


async def test_a_preview_that_has_not_ended_is_not_confirmed(harness: FlowHarness) -> None:
    request = await request_fetched(harness.resources, "main", YESTERDAY, by="alice", dry_run=True)
    with pytest.raises(InvalidRequest, match="waiting"):
        await confirm(harness.resources, request.id, by="alice", reason="x")


async def test_a_channel_that_gives_no_statement_is_explained(harness: FlowHarness) -> None:
    harness.simulation.faults.profile = FaultProfile(answered_5xx=1.0)
    request = await request_fetched(harness.resources, "main", YESTERDAY, by="alice", dry_run=False)
    failed = await ended(harness, request)
    assert failed.error.startswith("the channel does not answer")


async def test_a_day_that_another_process_reconciles_is_waited_for(harness: FlowHarness) -> None:
    assert await claim_day(harness.resources.db, "main", YESTERDAY, dry_run=False, lease_s=60.0) is not None
    request = await request_fetched(harness.resources, "main", YESTERDAY, by="alice", dry_run=False)
    assert await read_requested(harness.resources) is False
    found = await find_request(harness.resources.db, request.id)
    assert found is not None
    assert found.status == "waiting"


async def take_again(harness: FlowHarness) -> None:
    """Let every request be taken at once."""
    await harness.resources.db.execute("UPDATE statement_requests SET leased_until = now()")


async def test_a_statement_that_breaks_the_worker_ends_as_failed_with_the_reason(harness: FlowHarness) -> None:
    request = await request_fetched(harness.resources, "main", YESTERDAY, by="alice", dry_run=False)
    with patch.object(requested, "reconcile_day", side_effect=KeyError("buyer@example.test")):
        for _ in range(requested.ATTEMPTS_MAX - 1):
            assert await read_requested(harness.resources)
            found = await find_request(harness.resources.db, request.id)
            assert found is not None
            assert (found.status, found.error) == ("waiting", "")
            await take_again(harness)
        failed = await ended(harness, request)
    assert (failed.status, failed.error.startswith("nodrop broke on this statement (KeyError)")) == ("failed", True)
    assert "buyer" not in failed.error
    assert await read_requested(harness.resources) is False


async def test_a_statement_whose_workers_die_is_not_begun_for_ever(harness: FlowHarness) -> None:
    request = await request_fetched(harness.resources, "main", YESTERDAY, by="alice", dry_run=False)
    for _ in range(requested.ATTEMPTS_MAX):
        assert await claim_request(harness.resources.db, 0.0) is not None
    failed = await ended(harness, request)
    assert (failed.status, "processes ended while they read it" in failed.error) == ("failed", True)


async def test_waiting_for_another_process_is_no_attempt(harness: FlowHarness) -> None:
    assert await claim_day(harness.resources.db, "main", YESTERDAY, dry_run=False, lease_s=60.0) is not None
    request = await request_fetched(harness.resources, "main", YESTERDAY, by="alice", dry_run=False)
    for _ in range(requested.ATTEMPTS_MAX + 1):
        assert await read_requested(harness.resources) is False
        await take_again(harness)
    found = await find_request(harness.resources.db, request.id)
    assert found is not None
    assert (found.status, found.attempt) == ("waiting", 0)


async def test_refunds_that_nodrop_did_not_make_are_of_the_days_net(harness: FlowHarness) -> None:
    """The statement tells of them; nodrop's own stand in it, too, and count once."""
    state = await paid_there(harness)
    payment = state.payments[0]
    refund = (
        f"refund,{payment.out_trade_no},{harness.transaction_of(payment)},elsewhere-1,1000,CNY,{YESTERDAY}T13:00:00Z"
    )
    content = (HEADER + line(harness, state) + refund + "\n").encode()
    before = (await read_day(harness.resources, "main", YESTERDAY)).closing.lines
    preview = await ended(harness, await upload(harness.resources, "main", YESTERDAY, content, by="alice"))
    done = await ended(harness, await confirm(harness.resources, preview.id, by="bob", reason="portal file"))
    assert (done.status, done.error) == ("done", "")
    [cny] = (await read_day(harness.resources, "main", YESTERDAY)).closing.lines
    assert cny.there is not None
    assert (cny.there.refunds, cny.there.refunded, cny.there.refunds_outside, cny.refunded_outside) == (
        1,
        1000,
        1,
        1000,
    )
    was = sum(each.net for each in before)
    assert (cny.here.refunded, cny.net) == (0, was + AMOUNT - 1000)


async def test_a_database_that_is_down_leaves_the_request_to_the_next_turn(harness: FlowHarness) -> None:
    request = await request_fetched(harness.resources, "main", YESTERDAY, by="alice", dry_run=False)
    down = DatabaseUnavailable("down")
    with patch.object(requested, "reconcile_day", side_effect=down), pytest.raises(DatabaseUnavailable):
        await read_requested(harness.resources)
    found = await find_request(harness.resources.db, request.id)
    assert found is not None
    assert found.status == "running"

"""Reconciliation of a channel's statement with our payments: repairs, cases, and rows that change nothing."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from pathlib import Path
from typing import IO, Any

import pytest
import pytest_asyncio
from msgspec.structs import replace

from channels.base import Channel, StatedTotal, StatementItem, StatementRow
from core.admission import Urgency
from core.dispute import DisputeKind, DisputeState
from core.errors import ChannelRefused, ChannelUnavailable, ChannelUnreadable, UnknownAccount
from core.evidence import Disputed, Source
from core.lifecycle import on_dispute
from core.order import OrderState, OrderStatus, Payment
from flows.ask import query_now
from flows.commit import commit_decision
from flows.reconcile import daily as reconcile_daily
from flows.reconcile import patience
from flows.reconcile import rows as reconcile_rows
from flows.reconcile import run as reconcile
from flows.reconcile.daily import reconcile_due
from flows.reconcile.rows import OnUnknown
from flows.reconcile.run import Hooks, needs_person, reconcile_day, reconcile_file
from flows.reconcile.statement import BATCH, Numbered
from flows.refresh import refresh_order
from runtime.accounts import Account
from runtime.resources import Resources
from simulator.kernel.faults import AtFault, Fault, FaultProfile
from storage.postgres import pending
from storage.postgres.orders import find_state
from storage.postgres.reconciliation.differences import list_differences
from storage.postgres.reconciliation.runs import (
    Reconciliation,
    begin,
    claim_day,
    find_incomplete_days,
    list_reconciliations,
    save,
)
from tests.flows.conftest import AMOUNT, FlowHarness
from tests.servers import eventually

TODAY = datetime.now(UTC).date()
YESTERDAY = TODAY - timedelta(days=1)
DAY_BEFORE = TODAY - timedelta(days=2)
HEADER = "type,out_trade_no,transaction_id,refund_no,amount,currency,at\n"


def noon(day: date = YESTERDAY) -> datetime:
    return datetime.combine(day, time(12), UTC)


class ReconciliationHarness:
    """A harness for the statements of one account."""

    def __init__(self, harness: FlowHarness, account: Account) -> None:
        self.harness = harness
        self.resources = harness.resources
        self.account = account

    def pay(self, payment: Payment, at: datetime | None = None) -> None:
        """Pay at this time as the buyer, without a callback."""
        self.harness.simulation.faults.force(payment.out_trade_no, AtFault(callback="event_never_generated"))
        self.harness.simulation.ledger.pay(self.harness.key_of(payment), at or noon())

    async def use_account(self, name: str, **config: Any) -> str:
        """Add an account, wait until accounts are read again, and use its statements from now on."""
        await self.harness.add_account(name, **config)
        await eventually(lambda: self._load_account(name))
        return name

    async def _load_account(self, name: str) -> bool:
        with suppress(UnknownAccount):
            self.account = await self.resources.accounts.get(name)
            return True
        return False

    async def order_paid_at_channel(self, at: datetime | None = None) -> OrderState:
        """Place an order that is paid at the channel and not in nodrop."""
        state = await self.harness.placed_order()
        self.pay(state.payments[0], at)
        return state

    async def paid_order(self, at: datetime | None = None) -> OrderState:
        """Place an order that is paid at the channel and in nodrop."""
        state = await self.order_paid_at_channel(at)
        state = await refresh_order(self.resources, state.order.order_no, trailing=True)
        assert state.order.status is OrderStatus.PAID
        return state

    def set_faults(self, **profile: Any) -> None:
        self.harness.simulation.faults.profile = FaultProfile(**profile)

    async def run(self, day: date = YESTERDAY, **more: Any) -> Reconciliation:
        run = await reconcile_day(self.resources, self.account, day, **more)
        assert run is not None
        return run

    async def counts(self, day: date = YESTERDAY, **more: Any) -> dict[str, int]:
        """Counts of a run that are not zero, without the number of rows."""
        run = await self.run(day, **more)
        assert (run.status, run.counts.pop("rows", 0)) == ("finished", run.next_row - 1)
        return {kind: count for kind, count in run.counts.items() if count}

    async def run_file(self, path: Path, text: str, **more: Any) -> Reconciliation:
        path.write_text(text)
        run = await reconcile_file(self.resources, self.account, path, **more)
        assert run is not None
        return run

    def statement_line(self, payment: Payment, **changes: object) -> str:
        """Line of a paid payment in the channel's statement."""
        fields: dict[str, object] = {
            "type": "payment",
            "out_trade_no": payment.out_trade_no,
            "transaction_id": self.harness.transaction_of(payment),
            "refund_no": "",
            "amount": payment.amount,
            "currency": payment.currency,
            "at": noon().isoformat().replace("+00:00", "Z"),
        }
        return ",".join(str(value) for value in (fields | changes).values()) + "\n"

    async def order_status(self, state: OrderState) -> OrderStatus:
        return (await self.harness.state(state)).order.status


@pytest_asyncio.fixture(loop_scope="session")
async def reconciliation(harness: FlowHarness) -> AsyncIterator[ReconciliationHarness]:
    await harness.resources.db.execute("TRUNCATE reconciliations CASCADE")
    yield ReconciliationHarness(harness, await harness.resources.accounts.get("main"))


async def paid_event_source(harness: FlowHarness, state: OrderState) -> object:
    return await harness.fetch_value(
        "SELECT by FROM order_events WHERE order_no = $1 AND kind IN ('paid', 'paid_late')", state.order.order_no
    )


# -- paid only at the channel ----------------------------------------------------------------------------------------


async def test_an_order_paid_only_at_the_channel_is_repaired_and_the_merchant_is_notified(
    reconciliation: ReconciliationHarness,
) -> None:
    lost = (await reconciliation.harness.place(notify_url="http://127.0.0.1:9/n")).state
    reconciliation.pay(lost.payments[0])
    recorded = await reconciliation.paid_order()

    assert await reconciliation.counts() == {"repaired": 1, "agrees": 1}

    assert await reconciliation.order_status(lost) is OrderStatus.PAID
    assert await paid_event_source(reconciliation.harness, lost) == "reconciliation"
    assert await paid_event_source(reconciliation.harness, recorded) == "refresh"
    sql = "SELECT count(*) FROM notifications WHERE order_no = $1 AND type = 'order.paid'"
    assert await reconciliation.harness.fetch_value(sql, lost.order.order_no) == 1
    assert await reconciliation.harness.pending_row("main", lost.payments[0].out_trade_no) is None
    assert await reconciliation.harness.cases() == []


async def test_a_second_run_finds_the_same_differences_and_changes_nothing(
    reconciliation: ReconciliationHarness,
) -> None:
    lost = await reconciliation.order_paid_at_channel()
    reconciliation.set_faults(statement_wrong_amount=1.0)
    assert await reconciliation.counts() == {"repaired": 1, "amount": 1}
    version = (await reconciliation.harness.state(lost)).order.version

    assert await reconciliation.counts() == {"amount": 1}

    assert (await reconciliation.harness.state(lost)).order.version == version
    assert await reconciliation.harness.cases() == ["statement_amount"]


async def test_a_statement_alone_never_pays_an_order(reconciliation: ReconciliationHarness, tmp_path: Path) -> None:
    """The row of an unsigned file says paid, and the query says unpaid."""
    state = await reconciliation.harness.placed_order()
    [payment] = state.payments

    run = await reconciliation.run_file(
        tmp_path / "s.csv", HEADER + reconciliation.statement_line(payment, transaction_id="t" * 24)
    )

    assert run.counts["status"] == 1
    assert await reconciliation.order_status(state) is OrderStatus.PAYING
    assert await reconciliation.harness.cases() == ["statement_status"]
    assert needs_person(run.counts)


@pytest.mark.parametrize(
    ("policy", "status"), [("accept", OrderStatus.PAID), ("flag", OrderStatus.CLOSED)], ids=["accept", "flag"]
)
async def test_money_for_a_closed_order_follows_the_policy_of_the_account(
    reconciliation: ReconciliationHarness, policy: str, status: OrderStatus
) -> None:
    name = await reconciliation.use_account(f"late-{policy}", late_policy=policy)
    state = await reconciliation.harness.placed_order(name)
    sql = """WITH gone AS (DELETE FROM pending WHERE order_no = $1), closed AS (
                 UPDATE payments SET status = 'closed' WHERE order_no = $1)
             UPDATE orders SET status = 'closed', closed_at = now(), version = version + 1 WHERE order_no = $1"""
    await reconciliation.harness.resources.db.execute(sql, state.order.order_no)
    reconciliation.pay(state.payments[0])

    assert await reconciliation.counts() == {"repaired": 1, "door_cases": 1}

    assert await reconciliation.order_status(state) is status
    assert await reconciliation.harness.cases() == ["paid_late"]


async def test_mismatched_evidence_repairs_nothing(reconciliation: ReconciliationHarness) -> None:
    """The query returns another amount: the door opens a case, and the row stays a difference."""
    state = await reconciliation.order_paid_at_channel()
    reconciliation.harness.call_fault(state.payments[0], "wrong_amount_in_query")

    assert await reconciliation.counts() == {"paid_there_only": 1}

    assert await reconciliation.order_status(state) is OrderStatus.PAYING
    assert await reconciliation.harness.cases() == ["amount_mismatch"]


async def test_a_wrong_amount_in_the_statement_does_not_prevent_the_repair(
    reconciliation: ReconciliationHarness,
) -> None:
    state = await reconciliation.order_paid_at_channel()
    reconciliation.set_faults(statement_wrong_amount=1.0)
    assert await reconciliation.counts() == {"repaired": 1, "amount": 1}
    assert await reconciliation.order_status(state) is OrderStatus.PAID
    assert await reconciliation.harness.cases() == ["statement_amount"]


async def test_a_row_without_our_number_is_found_by_the_number_of_the_channel(
    reconciliation: ReconciliationHarness, tmp_path: Path
) -> None:
    paid, watched = await reconciliation.paid_order(), await reconciliation.order_paid_at_channel()
    sql = "UPDATE payments SET channel_reference = 'ref-1' WHERE out_trade_no = $1"
    await reconciliation.harness.resources.db.execute(sql, watched.payments[0].out_trade_no)
    rows = (
        reconciliation.statement_line(paid.payments[0], out_trade_no=""),
        reconciliation.statement_line(watched.payments[0], out_trade_no="", transaction_id="ref-1"),
        reconciliation.statement_line(paid.payments[0], out_trade_no="", transaction_id="nobody"),
        reconciliation.statement_line(paid.payments[0], out_trade_no="", transaction_id=""),
    )

    run = await reconciliation.run_file(tmp_path / "s.csv", HEADER + "".join(rows))

    assert (run.counts["agrees"], run.counts["repaired"], run.counts["unknown"]) == (1, 1, 2)


async def test_a_number_of_another_account_is_unknown(reconciliation: ReconciliationHarness, tmp_path: Path) -> None:
    main = reconciliation.account
    state = await reconciliation.harness.placed_order(await reconciliation.use_account("other"))
    reconciliation.account = main
    run = await reconciliation.run_file(
        tmp_path / "s.csv", HEADER + reconciliation.statement_line(state.payments[0], transaction_id="t" * 24)
    )
    assert (run.counts["unknown"], run.counts["rows"]) == (1, 1)
    assert reconciliation.harness.call_count() == 0


# -- unclear queries -------------------------------------------------------------------------------------------------


async def test_an_unclear_query_is_repeated(
    reconciliation: ReconciliationHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = await reconciliation.order_paid_at_channel()
    reconciliation.harness.call_fault(state.payments[0], "html_error")
    original_query = query_now

    async def query_and_end_fault(*args: Any, **more: Any) -> object:
        result = await original_query(*args, **more)
        reconciliation.harness.call_fault(state.payments[0], "none")
        return result

    monkeypatch.setattr(reconcile_rows, "query_now", query_and_end_fault)
    assert await reconciliation.counts() == {"repaired": 1}
    assert reconciliation.harness.call_count() == 2


async def test_a_row_that_stays_unclear_is_unconfirmed_and_opens_a_case(
    reconciliation: ReconciliationHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The case is resolved by the run that finds the payment paid."""
    monkeypatch.setattr(patience, "ATTEMPTS_MAX", 2)
    state = await reconciliation.order_paid_at_channel()
    reconciliation.harness.call_fault(state.payments[0], "html_error")
    assert await reconciliation.counts() == {"unconfirmed": 1}
    assert await reconciliation.harness.cases() == ["statement_unconfirmed"]
    assert reconciliation.harness.call_count() == 2
    assert await reconciliation.order_status(state) is OrderStatus.PAYING

    reconciliation.harness.call_fault(state.payments[0], "none")

    assert await reconciliation.counts() == {"repaired": 1}
    assert await reconciliation.harness.cases() == []


async def test_a_channel_without_clear_responses_stops_the_run(
    reconciliation: ReconciliationHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each row would open a case; the next run resolves them when the channel responds again."""
    states = [await reconciliation.order_paid_at_channel() for _ in range(3)]
    reconciliation.set_faults(affected=("query",), html_error=1.0)

    with monkeypatch.context() as patched:
        patched.setattr(patience, "SILENCE_S_MAX", 0.5)
        patched.setattr(patience, "ATTEMPTS_MAX", 100)
        with pytest.raises(ChannelUnavailable):
            await reconciliation.run()

    [run] = await list_reconciliations(reconciliation.resources.db)
    assert (run.status, run.next_row, run.attempt) == ("failed", 1, 2)
    assert await reconciliation.harness.cases() == []
    reconciliation.set_faults()
    assert await reconciliation.counts() == {"repaired": 3}
    assert {await reconciliation.order_status(state) for state in states} == {OrderStatus.PAID}


async def test_rows_wait_for_the_rate_and_none_is_skipped(reconciliation: ReconciliationHarness) -> None:
    states = [await reconciliation.order_paid_at_channel() for _ in range(7)]
    config = replace(reconciliation.account.config, rate_per_s=5)
    resources = reconciliation.resources
    reconciliation.account = Account(config, reconciliation.account.channel, resources.settings, resources.admission)

    assert await reconciliation.counts() == {"repaired": 7}

    assert {await reconciliation.order_status(state) for state in states} == {OrderStatus.PAID}


async def test_a_run_waits_for_the_lease_of_another_query(reconciliation: ReconciliationHarness) -> None:
    state = await reconciliation.order_paid_at_channel()
    held = await pending.claim(reconciliation.resources.db, state.payments[0].key, 0.6)
    assert held is not None
    assert await reconciliation.counts() == {"repaired": 1}


# -- other differences -----------------------------------------------------------------------------------------------

DIFFERENCES: dict[str, tuple[dict[str, object], str]] = {
    "amount": ({"amount": AMOUNT - 1}, "88.87 there, 88.88 here"),
    "currency": ({"currency": "USD"}, "USD there, CNY here"),
    "transaction": ({"transaction_id": "other"}, "other there"),
}


@pytest.mark.parametrize("kind", DIFFERENCES)
async def test_a_difference_of_a_paid_payment_opens_a_case_without_a_query(
    reconciliation: ReconciliationHarness, kind: str, tmp_path: Path
) -> None:
    changes, detail = DIFFERENCES[kind]
    state = await reconciliation.paid_order()
    before = reconciliation.harness.call_count()

    run = await reconciliation.run_file(
        tmp_path / "s.csv", HEADER + reconciliation.statement_line(state.payments[0], **changes)
    )

    assert run.counts[kind] == 1
    assert await reconciliation.harness.cases(state.order.order_no) == [f"statement_{kind}"]
    [difference] = await list_differences(reconciliation.resources.db, run.id)
    assert (difference.row_no, difference.kind, difference.order_no) == (1, kind, state.order.order_no)
    assert detail in difference.detail
    assert reconciliation.harness.call_count() == before


async def test_a_repeated_row_is_a_duplicate(reconciliation: ReconciliationHarness, tmp_path: Path) -> None:
    """The copies are in different batches, because the statement is not kept in memory."""
    state = await reconciliation.paid_order()
    row = reconciliation.statement_line(state.payments[0])
    far_apart = "".join(
        reconciliation.statement_line(state.payments[0], out_trade_no=f"nobody-{n}", transaction_id=f"t-{n}")
        for n in range(BATCH)
    )

    run = await reconciliation.run_file(tmp_path / "s.csv", HEADER + row + row + far_apart + row)

    assert (run.counts["agrees"], run.counts["duplicate"], run.counts["unknown"]) == (1, 2, BATCH)
    assert await reconciliation.harness.cases() == ["statement_duplicate"]


async def test_malformed_rows_open_one_case_and_the_others_count(
    reconciliation: ReconciliationHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = [await reconciliation.order_paid_at_channel() for _ in range(4)]
    malformed = {state.payments[0].out_trade_no for state in lost[:2]}

    def applies(fault: Fault, number: str, *_: int) -> bool:
        return fault is Fault.STATEMENT_MALFORMED and number in malformed

    monkeypatch.setattr(reconciliation.harness.simulation.faults, "applies", applies)
    counts = await reconciliation.counts()
    assert (counts["malformed"], counts["repaired"]) == (2, 2)
    assert await reconciliation.harness.cases() == ["statement_malformed"]


async def test_a_malformed_row_that_names_our_payment_leads_to_a_query(
    reconciliation: ReconciliationHarness, tmp_path: Path
) -> None:
    """It may be the row of lost money. One that names another system's payment alone is unknown, as if it were read."""
    lost, unpaid = await reconciliation.order_paid_at_channel(), await reconciliation.harness.placed_order()
    line = partial(reconciliation.statement_line, amount="88.88")
    rows = [
        line(lost.payments[0]),
        line(unpaid.payments[0], transaction_id="t-1"),
        line(unpaid.payments[0], out_trade_no="ORD #1001", transaction_id="t-2"),
    ]

    run = await reconciliation.run_file(tmp_path / "s.csv", HEADER + "".join(rows))

    assert (run.counts["malformed"], run.counts["repaired"], run.counts["unknown"]) == (2, 1, 1)
    assert await reconciliation.order_status(lost) is OrderStatus.PAID
    assert await reconciliation.order_status(unpaid) is OrderStatus.PAYING
    listed = await list_differences(reconciliation.resources.db, run.id)
    assert [(each.kind, each.order_no) for each in listed] == [
        ("malformed", lost.order.order_no),
        ("malformed", unpaid.order.order_no),
    ]


async def test_an_unreadable_statement_has_no_effect(reconciliation: ReconciliationHarness, tmp_path: Path) -> None:
    """The whole statement is checked before its first row counts."""
    state = await reconciliation.order_paid_at_channel()
    rows = reconciliation.statement_line(state.payments[0]) * (BATCH + 1)
    for text in ("<html>", HEADER + rows + '"never closed'):
        with pytest.raises(ChannelUnreadable):
            await reconciliation.run_file(tmp_path / "s.csv", text)
    assert await reconciliation.order_status(state) is OrderStatus.PAYING


# -- refunds ---------------------------------------------------------------------------------------------------------


async def test_a_known_refund_agrees(reconciliation: ReconciliationHarness) -> None:
    state = await reconciliation.paid_order()
    refund_at_channel(reconciliation, state.payments[0], "r-1", 100)
    await query_payment(reconciliation, state)

    counts = await reconciliation.counts()

    assert counts == {"agrees": 2}


async def test_an_unknown_refund_is_queried(reconciliation: ReconciliationHarness) -> None:
    state = await reconciliation.paid_order()
    refund_at_channel(reconciliation, state.payments[0], "r-1", 100)
    refund_at_channel(reconciliation, state.payments[0], "r-2", 30)

    counts = await reconciliation.counts()

    assert counts == {"agrees": 2, "refund": 1}, "the query of the first row also found the second refund"
    assert (await reconciliation.harness.state(state)).payments[0].refunded_amount == 130
    assert await reconciliation.harness.cases() == ["refunded_outside"]


async def test_a_refund_that_the_query_does_not_confirm_opens_a_case(
    reconciliation: ReconciliationHarness, tmp_path: Path
) -> None:
    state = await reconciliation.paid_order()
    rows = reconciliation.statement_line(state.payments[0]) + reconciliation.statement_line(
        state.payments[0], type="refund", refund_no="r-1", amount=100
    )

    run = await reconciliation.run_file(tmp_path / "s.csv", HEADER + rows)

    assert run.counts["refund"] == 1
    assert await reconciliation.harness.cases() == ["statement_refund"]


async def test_a_payment_paid_and_refunded_in_part_only_at_the_channel_is_repaired(
    reconciliation: ReconciliationHarness,
) -> None:
    state = await reconciliation.order_paid_at_channel()
    refund_at_channel(reconciliation, state.payments[0], "r-1", AMOUNT - 1)

    assert await reconciliation.counts() == {"repaired": 1, "agrees": 1, "door_cases": 1}

    assert await reconciliation.order_status(state) is OrderStatus.PAID
    assert await reconciliation.harness.cases() == ["refunded_outside"]


async def test_a_payment_paid_and_wholly_refunded_only_at_the_channel_pays_nothing(
    reconciliation: ReconciliationHarness,
) -> None:
    state = await reconciliation.order_paid_at_channel()
    refund_at_channel(reconciliation, state.payments[0], "r-1", AMOUNT)

    assert await reconciliation.counts() == {"refund": 1, "agrees": 1}

    assert await reconciliation.order_status(state) is OrderStatus.PAYING
    assert (await reconciliation.harness.state(state)).payments[0].refunded_amount == AMOUNT
    assert await reconciliation.harness.cases() == ["refunded_outside"]


async def test_a_reversal_in_the_statement_agrees_with_the_dispute_that_took_the_money(
    reconciliation: ReconciliationHarness,
) -> None:
    """It stood there as a refund that nobody knew, every day, with a case."""
    state = await reconciliation.paid_order()
    [payment] = state.payments
    await commit_decision(
        reconciliation.resources,
        state.order.order_no,
        partial(on_dispute, key=payment.key, evidence=reversal_of(payment), by=Source.CALLBACK),
    )
    key = reconciliation.harness.key_of(payment)
    reconciliation.harness.simulation.ledger.refund(key, "REV-1", AMOUNT, noon(), in_console=True)
    reconciliation.harness.simulation.ledger.settle_refund(key._replace(number="REV-1"), noon(), succeeds=True)

    assert await reconciliation.counts() == {"agrees": 2}

    assert await reconciliation.harness.cases() == ["disputed"]
    assert (await reconciliation.harness.state(state)).payments[0].refunded_amount == 0


def reversal_of(payment: Payment) -> Disputed:
    return Disputed(
        channel_account=payment.channel_account,
        out_trade_no=payment.out_trade_no,
        dispute_id="REV-1",
        dispute_kind=DisputeKind.REVERSAL,
        state=DisputeState.LOST,
        disputed_amount=AMOUNT,
        disputed_currency=payment.currency,
    )


def refund_at_channel(reconciliation: ReconciliationHarness, payment: Payment, number: str, amount: int) -> None:
    """Refund in the channel's console."""
    ledger, key = reconciliation.harness.simulation.ledger, reconciliation.harness.key_of(payment)
    ledger.refund(key, number, amount, noon())
    ledger.settle_refund(key._replace(number=number), noon(), succeeds=True)


async def query_payment(reconciliation: ReconciliationHarness, state: OrderState) -> None:
    """Query the payment of the order and commit the result."""
    [payment] = (await reconciliation.harness.state(state)).payments
    await query_now(
        reconciliation.resources,
        reconciliation.account,
        payment,
        by=Source.QUERY,
        urgency=Urgency.SCHEDULED,
        leased=None,
    )


# -- totals that a statement states ----------------------------------------------------------------------------------


async def test_a_statement_that_counts_a_row_it_lacks_fails_after_all_rows_were_worked_on(
    reconciliation: ReconciliationHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A payment paid here and missing in it opens no case: the missing row may be its own. A whole one ends it."""
    lost, recorded = await reconciliation.order_paid_at_channel(), await reconciliation.paid_order()
    reconciliation.harness.simulation.faults.force(
        recorded.payments[0].out_trade_no, AtFault(callback="event_never_generated")
    )
    omitted = {recorded.payments[0].out_trade_no}
    monkeypatch.setattr(
        reconciliation.harness.simulation.faults,
        "applies",
        lambda fault, number, *_: fault is Fault.STATEMENT_OMITS and number in omitted,
    )
    with monkeypatch.context() as patched:
        state_totals(reconciliation, patched, stated=2)
        run = await reconciliation.run()

    assert (run.status, run.counts["repaired"], run.counts["total"]) == ("failed", 1, 1)
    assert await reconciliation.order_status(lost) is OrderStatus.PAID
    assert await reconciliation.harness.cases() == ["statement_total"]
    assert needs_person(run.counts)
    [stored] = await list_reconciliations(reconciliation.resources.db)
    assert (stored.status, stored.next_row, stored.counts["total"]) == ("failed", 2, 1)
    assert "2 stated, 1 read" in stored.last_error
    [listed] = await list_differences(reconciliation.resources.db, run.id)
    assert (listed.kind, "rows: 2 stated, 1 read" in listed.detail) == ("total", True)
    assert await find_incomplete_days(reconciliation.resources.db) == {"main": 1}

    omitted.clear()
    state_totals(reconciliation, monkeypatch, stated=2)

    assert await reconciliation.counts() == {"agrees": 2}
    assert await reconciliation.harness.cases() == []
    assert await find_incomplete_days(reconciliation.resources.db) == {}


async def test_a_statement_whose_totals_differ_is_read_again_later_and_does_not_hold_back_other_days(
    daily_reconciliation: ReconciliationHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    await daily_reconciliation.order_paid_at_channel()
    state_totals(daily_reconciliation, monkeypatch, stated=2)
    while await reconcile_due(daily_reconciliation.resources):
        pass
    runs = await list_reconciliations(daily_reconciliation.resources.db)
    assert [(run.status, run.attempt) for run in runs] == [("failed", 2)] * 7
    sql = "SELECT min(extract(epoch FROM due_at - now())) FROM reconciliations"
    assert 50 < float(str(await daily_reconciliation.harness.fetch_value(sql))) <= 60


async def test_a_statement_that_breaks_the_parser_holds_back_neither_other_days_nor_the_turn(
    daily_reconciliation: ReconciliationHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parse(_self: Channel, _statement: IO[bytes]) -> Iterator[StatementItem]:
        raise KeyError("column")

    monkeypatch.setattr(type(daily_reconciliation.account.channel), "parse_statement", parse)
    assert not await reconcile_due(daily_reconciliation.resources)
    runs = await list_reconciliations(daily_reconciliation.resources.db)
    assert [(run.status, run.last_error) for run in runs] == [("failed", "KeyError")] * 7
    assert not await reconcile_due(daily_reconciliation.resources), "none is due again for a while"
    assert len(await list_reconciliations(daily_reconciliation.resources.db)) == 7


def state_totals(reconciliation: ReconciliationHarness, patched: pytest.MonkeyPatch, *, stated: int) -> None:
    """Let the statement end with its number of rows, as other channels' do."""
    channel = reconciliation.account.channel
    original = type(channel).parse_statement

    def parse(self: Channel, statement: IO[bytes]) -> Iterator[StatementItem]:
        read = 0
        for item in original(self, statement):
            read += isinstance(item, StatementRow)
            yield item
        yield StatedTotal(name="rows", stated=stated, read=read)

    patched.setattr(type(channel), "parse_statement", parse)


async def test_a_refund_that_a_statement_names_by_the_channels_number_alone_is_ours(
    reconciliation: ReconciliationHarness, tmp_path: Path
) -> None:
    """It stands there for our refund, once, and was not made outside; another number is not ours."""
    number = await refunded_order(reconciliation, noon())
    sql = "SELECT order_no FROM refunds WHERE refund_no = $1"
    state = await find_state(reconciliation.resources.db, str(await reconciliation.harness.fetch_value(sql, number)))
    assert state is not None
    await reconciliation.resources.db.execute("UPDATE refunds SET channel_refund_no = 'rf-1'")
    row = reconciliation.statement_line(state.payments[0], type="refund", amount=100).removesuffix("\n")
    with_number = HEADER.replace(",at\n", ",at,refund_id\n")
    same = await reconciliation.run_file(tmp_path / "same.csv", f"{with_number}{row},rf-1\n{row},rf-1\n")
    assert (same.counts["agrees"], same.counts["duplicate"]) == (1, 1)
    other = await reconciliation.run_file(tmp_path / "other.csv", f"{with_number}{row},rf-1\n{row},rf-2\n")
    assert "duplicate" not in other.counts


# -- refunds that stand in no statement -------------------------------------------------------------------------------


async def refunded_order(reconciliation: ReconciliationHarness, at: datetime) -> str:
    """An order whose money was refunded here at this time; return the number of the refund."""
    state = await reconciliation.paid_order(noon(TODAY - timedelta(days=5)))
    [payment] = state.payments
    number = f"R-{payment.out_trade_no}"
    # Only money that paid no order is refunded here; what the payment paid is of no matter to a statement.
    sql = f"""SET LOCAL session_replication_role = replica;
              INSERT INTO refunds (refund_no, channel_account, out_trade_no, order_no, amount, currency, reason, status,
                                   requested_at, settled_at)
              VALUES ('{number}', 'main', '{payment.out_trade_no}', '{state.order.order_no}', 100, 'CNY', 'operator',
                      'succeeded', '{at.isoformat()}', '{at.isoformat()}')"""  # noqa: S608 - ours
    await reconciliation.resources.db.execute(sql)
    ledger, key = reconciliation.harness.simulation.ledger, reconciliation.harness.key_of(payment)
    ledger.refund(key, number, 100, at)
    ledger.settle_refund(key._replace(number=number), at, succeeds=True)
    await query_payment(reconciliation, state)
    return number


@pytest.mark.parametrize("days_later", [-1, 0, 1])
async def test_a_refund_may_stand_in_the_statement_of_the_day_before_or_after(
    reconciliation: ReconciliationHarness, days_later: int
) -> None:
    number = await refunded_order(reconciliation, noon(DAY_BEFORE + timedelta(days=days_later)))
    sql = "UPDATE refunds SET requested_at = $1, settled_at = $1 WHERE refund_no = $2"
    await reconciliation.resources.db.execute(sql, noon(DAY_BEFORE), number)
    for days in (3, 2, 1):
        counts = await reconciliation.counts(TODAY - timedelta(days=days))
        assert "refund_here_only" not in counts
    assert await reconciliation.harness.cases() == []


async def test_a_refund_that_stands_in_no_statement_opens_a_case(reconciliation: ReconciliationHarness) -> None:
    """The run of the next day decides it, and the one that finds its row resolves the case."""
    await refunded_order(reconciliation, noon(DAY_BEFORE))
    reconciliation.set_faults(statement_omits=1.0)
    assert await reconciliation.counts(DAY_BEFORE) == {"waiting": 1}
    assert await reconciliation.counts() == {"refund_here_only": 1}
    assert await reconciliation.harness.cases() == ["statement_refund_here_only"]

    reconciliation.set_faults()
    assert await reconciliation.counts(DAY_BEFORE) == {"agrees": 1}
    assert await reconciliation.harness.cases() == []
    assert await reconciliation.counts() == {}


async def test_a_file_shows_missing_refunds_a_day_within_its_own_ones(
    reconciliation: ReconciliationHarness, tmp_path: Path
) -> None:
    """A file of payments alone shows none."""
    days = [DAY_BEFORE - timedelta(days=2), DAY_BEFORE, DAY_BEFORE + timedelta(days=2)]
    numbers = [await refunded_order(reconciliation, noon(day)) for day in days]
    state = await reconciliation.paid_order(noon(days[0]))
    line = reconciliation.statement_line
    payment = line(state.payments[0], at=noon(days[0]).isoformat())
    refunds = [
        line(
            state.payments[0],
            type="refund",
            refund_no=number,
            amount=100,
            at=noon(day).isoformat(),
            out_trade_no=number[2:],
        )
        for number, day in zip(numbers, days, strict=True)
    ]

    alone = await reconciliation.run_file(tmp_path / "payments.csv", HEADER + payment)
    run = await reconciliation.run_file(tmp_path / "s.csv", HEADER + refunds[0] + refunds[2])

    assert (alone.counts.get("refund_here_only", 0), run.counts["refund_here_only"]) == (0, 1)
    [listed] = await list_differences(reconciliation.resources.db, run.id)
    assert numbers[1] in listed.detail


# -- paid only in nodrop ---------------------------------------------------------------------------------------------


async def test_a_payment_paid_only_in_nodrop_opens_a_case(reconciliation: ReconciliationHarness) -> None:
    state = await reconciliation.paid_order()
    reconciliation.set_faults(statement_omits=1.0)
    assert await reconciliation.counts() == {"paid_here_only": 1}
    assert await reconciliation.harness.cases(state.order.order_no) == ["statement_paid_here_only"]


async def test_a_day_without_a_statement_has_no_rows(
    reconciliation: ReconciliationHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse_statement(*_: object) -> None:
        raise ChannelRefused("no_statement")

    await reconciliation.paid_order()
    monkeypatch.setattr(reconciliation.account.channel, "fetch_statement", refuse_statement)
    assert await reconciliation.counts() == {"paid_here_only": 1}


async def test_a_case_is_resolved_when_a_later_statement_contains_the_payment(
    reconciliation: ReconciliationHarness,
) -> None:
    await reconciliation.paid_order()
    reconciliation.set_faults(statement_omits=1.0)
    await reconciliation.run()
    reconciliation.set_faults()
    assert await reconciliation.counts() == {"agrees": 1}
    assert await reconciliation.harness.cases() == []


async def test_a_resolved_case_is_not_opened_again(reconciliation: ReconciliationHarness) -> None:
    await reconciliation.paid_order()
    reconciliation.set_faults(statement_omits=1.0)
    await reconciliation.run()
    await reconciliation.resources.db.execute("UPDATE cases SET resolved_at = now(), resolution = 'seen', by = 'alice'")
    assert await reconciliation.counts() == {"paid_here_only": 1}
    assert await reconciliation.harness.cases() == []


async def test_a_payment_near_midnight_may_be_in_the_statement_of_the_next_day(
    reconciliation: ReconciliationHarness,
) -> None:
    """The channel booked it two seconds later than nodrop. Neither run opens a case."""
    late = datetime.combine(YESTERDAY, time(0, 0, 1), UTC)
    state = await reconciliation.paid_order(late)
    await set_paid_at(reconciliation, state, late - timedelta(seconds=2))

    assert await reconciliation.counts(DAY_BEFORE) == {"waiting": 1}
    assert await reconciliation.counts() == {"agrees": 1}
    assert await reconciliation.counts(DAY_BEFORE) == {}, "both statements have been read"


async def test_a_payment_near_midnight_may_be_in_the_statement_of_the_day_before(
    reconciliation: ReconciliationHarness,
) -> None:
    early = datetime.combine(DAY_BEFORE, time(23, 59, 59), UTC)
    state = await reconciliation.paid_order(early)
    await set_paid_at(reconciliation, state, early + timedelta(seconds=2))

    assert await reconciliation.counts(DAY_BEFORE) == {"agrees": 1}
    assert await reconciliation.counts() == {}


@pytest.mark.parametrize("hour", [time(0, 30), time(23, 30)])
async def test_a_payment_near_midnight_that_is_in_no_statement_opens_a_case(
    reconciliation: ReconciliationHarness, hour: time
) -> None:
    """The run of the second of the two days finds it."""
    day = YESTERDAY if hour < time(12) else DAY_BEFORE
    await reconciliation.paid_order(datetime.combine(day, hour, UTC))
    reconciliation.set_faults(statement_omits=1.0)
    assert "paid_here_only" not in await reconciliation.counts(DAY_BEFORE)
    assert (await reconciliation.counts())["paid_here_only"] == 1
    assert await reconciliation.harness.cases() == ["statement_paid_here_only"]


async def test_a_payment_near_midnight_is_compared_by_one_of_the_two_days(
    reconciliation: ReconciliationHarness,
) -> None:
    await reconciliation.paid_order(datetime.combine(DAY_BEFORE, time(23, 30), UTC))
    assert await reconciliation.counts(DAY_BEFORE) == {"agrees": 1}
    assert await reconciliation.counts() == {}


async def test_a_day_that_is_not_over_opens_no_case_for_missing_rows(reconciliation: ReconciliationHarness) -> None:
    lost, recorded = await reconciliation.harness.placed_order(), await reconciliation.harness.placed_order()
    reconciliation.harness.pay(lost.payments[0])
    reconciliation.harness.pay(recorded.payments[0])
    await refresh_order(reconciliation.resources, recorded.order.order_no, trailing=True)
    reconciliation.harness.simulation.faults.force(recorded.payments[0].out_trade_no, AtFault())
    reconciliation.set_faults()
    assert await reconciliation.counts(TODAY) == {"repaired": 1, "agrees": 1}

    await set_paid_at(reconciliation, recorded, noon(TODAY))
    reconciliation.set_faults(statement_omits=1.0)
    assert await reconciliation.counts(TODAY) == {}


async def test_a_file_is_complete_between_its_first_and_its_last_row(
    reconciliation: ReconciliationHarness, tmp_path: Path
) -> None:
    states = [await reconciliation.paid_order(noon() + timedelta(hours=hour)) for hour in (-2, -1, 0, 1)]
    stamps = [(noon() + timedelta(hours=hour)).isoformat() for hour in (-1, 1)]
    rows = reconciliation.statement_line(states[1].payments[0], at=stamps[0]) + reconciliation.statement_line(
        states[3].payments[0], at=stamps[1]
    )

    run = await reconciliation.run_file(tmp_path / "s.csv", HEADER + rows)

    assert (run.counts["agrees"], run.counts["paid_here_only"]) == (2, 1)
    assert await reconciliation.harness.cases(states[2].order.order_no) == ["statement_paid_here_only"]


async def set_paid_at(reconciliation: ReconciliationHarness, state: OrderState, at: datetime) -> None:
    """Set the time at which the order was paid in nodrop."""
    sql = "UPDATE payments SET paid_at = $2 WHERE order_no = $1"
    await reconciliation.resources.db.execute(sql, state.order.order_no, at)


# -- unknown payments, dry runs --------------------------------------------------------------------------------------


async def test_unknown_payments_are_reported_and_no_order_is_created(
    reconciliation: ReconciliationHarness, tmp_path: Path
) -> None:
    state = await reconciliation.harness.placed_order()
    unknown_rows: list[StatementRow] = []
    rows = reconciliation.statement_line(
        state.payments[0], out_trade_no="elsewhere-1", transaction_id="t-1", amount=AMOUNT - 1
    )

    run = await reconciliation.run_file(tmp_path / "s.csv", HEADER + rows, hooks=Hooks(on_unknown=unknown_rows.append))

    assert [row.out_trade_no for row in unknown_rows] == ["elsewhere-1"]
    assert run.counts["unknown"] == 1
    assert not needs_person(run.counts)
    assert await reconciliation.harness.fetch_value("SELECT count(*) FROM orders") == 1


async def test_a_dry_run_lists_differences_and_changes_nothing(reconciliation: ReconciliationHarness) -> None:
    lost, recorded = await reconciliation.order_paid_at_channel(), await reconciliation.paid_order()
    reconciliation.harness.simulation.faults.force(recorded.payments[0].out_trade_no, AtFault())
    reconciliation.set_faults(statement_wrong_amount=1.0)
    before, calls_before = await reconciliation.harness.state(lost), reconciliation.harness.call_count()

    run = await reconciliation.run(dry_run=True)

    assert (run.counts["paid_there_only"], run.counts["amount"], run.dry_run) == (1, 2, True)
    assert len(await list_differences(reconciliation.resources.db, run.id)) == 3
    assert (await reconciliation.harness.state(lost)).order == before.order
    assert await reconciliation.harness.cases() == []
    assert reconciliation.harness.call_count() == calls_before
    assert await reconciliation.harness.fetch_value("SELECT count(*) FROM reconciliation_rows") == 0


async def test_unknown_payments_name_the_unpaid_orders_that_agree_in_amount_and_day(
    reconciliation: ReconciliationHarness, tmp_path: Path
) -> None:
    """One day either side of the order's time. At an account where others sell too, nobody is needed."""
    state, paid = await reconciliation.harness.placed_order(), await reconciliation.paid_order()
    near = {"transaction_id": "t-1", "at": noon(TODAY - timedelta(days=1)).isoformat()}
    lines = [
        reconciliation.statement_line(state.payments[0], out_trade_no="elsewhere-1", **near),
        reconciliation.statement_line(
            state.payments[0],
            out_trade_no="elsewhere-2",
            transaction_id="t-2",
            at=noon(TODAY - timedelta(days=3)).isoformat(),
        ),
        reconciliation.statement_line(state.payments[0], out_trade_no="elsewhere-3", **near, currency="USD"),
        reconciliation.statement_line(
            state.payments[0], out_trade_no="elsewhere-4", **near | {"transaction_id": "t-4"}, amount=AMOUNT - 1
        ),
    ]

    run = await reconciliation.run_file(tmp_path / "s.csv", HEADER + "".join(lines))

    assert (run.counts["candidates"], run.counts["unknown"]) == (1, 3)
    [listed] = await list_differences(reconciliation.resources.db, run.id)
    assert (listed.kind, listed.row_no, listed.out_trade_no) == ("candidates", 1, "elsewhere-1")
    assert state.order.order_no in listed.detail
    assert paid.order.order_no not in listed.detail
    assert not needs_person(run.counts)
    assert await reconciliation.harness.cases() == []


async def test_an_unknown_payment_at_an_exclusive_account_needs_a_person(
    reconciliation: ReconciliationHarness, tmp_path: Path
) -> None:
    """Nobody else sells there."""
    await reconciliation.use_account("alone", exclusive=True)
    state = await reconciliation.harness.placed_order("alone")
    lines = [
        reconciliation.statement_line(state.payments[0], out_trade_no="elsewhere-1", transaction_id="t-1"),
        reconciliation.statement_line(
            state.payments[0], type="refund", refund_no="r-1", out_trade_no="elsewhere-2", transaction_id="t-2"
        ),
    ]

    run = await reconciliation.run_file(tmp_path / "s.csv", HEADER + "".join(lines))

    assert (run.counts["unclaimed"], run.counts["unknown"]) == (1, 1)
    assert needs_person(run.counts)
    [listed] = await list_differences(reconciliation.resources.db, run.id)
    assert state.order.order_no in listed.detail
    assert await reconciliation.harness.cases() == ["statement_unclaimed"]


async def test_a_payment_under_another_name_of_the_account_is_not_unclaimed(
    reconciliation: ReconciliationHarness, tmp_path: Path
) -> None:
    """Its own name's run compares it. A watched number says nothing: another merchant may have it too."""
    await reconciliation.use_account("alone", exclusive=True)
    db = reconciliation.resources.db
    await db.execute("UPDATE accounts SET world = 'sandbox' WHERE name IN ('main', 'alone')")
    ours, watched = await reconciliation.paid_order(), await reconciliation.order_paid_at_channel()
    await db.execute("UPDATE payments SET origin = 'watched' WHERE order_no = $1", watched.order.order_no)
    lines = [
        reconciliation.statement_line(ours.payments[0]),
        reconciliation.statement_line(watched.payments[0], transaction_id="of-another-merchant"),
    ]

    run = await reconciliation.run_file(tmp_path / "s.csv", HEADER + "".join(lines))

    assert (run.counts["unknown"], run.counts["unclaimed"]) == (1, 1)
    assert reconciliation.harness.call_count() == 1, "that of the order that was paid before"


# -- ids that only the channel knows ----------------------------------------------------------------------------------


def resolve_rows(
    reconciliation: ReconciliationHarness, monkeypatch: pytest.MonkeyPatch, answers: list[tuple[str, ...] | Exception]
) -> list[StatementRow]:
    """Let the channel tell further ids of a row, one answer after the other; return the rows that it is asked about."""
    rows: list[StatementRow] = []

    async def resolve_row(row: StatementRow) -> tuple[str, ...]:
        rows.append(row)
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(reconciliation.account.channel, "resolve_row", resolve_row, raising=False)
    return rows


async def test_a_row_whose_ids_are_not_known_is_resolved_by_the_channel(
    reconciliation: ReconciliationHarness, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A watched session is known by its own id; the row has its charge."""
    state = await reconciliation.order_paid_at_channel()
    transaction = reconciliation.harness.transaction_of(state.payments[0])
    monkeypatch.setattr(patience, "LOOK_AGAIN_S", 0.0)
    queried = resolve_rows(reconciliation, monkeypatch, [(state.payments[0].out_trade_no,), ChannelRefused("none"), ()])
    lines = [
        reconciliation.statement_line(state.payments[0], out_trade_no="", transaction_id=transaction),
        *(
            reconciliation.statement_line(state.payments[0], out_trade_no=name, transaction_id=name, amount=1)
            for name in ("elsewhere-1", "elsewhere-2")
        ),
    ]

    run = await reconciliation.run_file(tmp_path / "s.csv", HEADER + "".join(lines))

    assert (run.counts["repaired"], run.counts["unknown"]) == (1, 2)
    assert len(queried) == 3
    assert await reconciliation.order_status(state) is OrderStatus.PAID


async def test_a_row_that_the_channel_does_not_resolve_needs_a_person(
    reconciliation: ReconciliationHarness, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It may be lost money. A dry run asks nobody."""
    state = await reconciliation.order_paid_at_channel()
    monkeypatch.setattr(patience, "ATTEMPTS_MAX", 2)
    answers: list[tuple[str, ...] | Exception] = [ChannelUnavailable(), ChannelUnreadable()]
    queried = resolve_rows(reconciliation, monkeypatch, answers)
    text = HEADER + reconciliation.statement_line(state.payments[0], out_trade_no="", transaction_id="ch-1", amount=1)

    dry = await reconciliation.run_file(tmp_path / "s.csv", text, dry_run=True)
    assert (dry.counts["unknown"], queried) == (1, [])
    run = await reconciliation.run_file(tmp_path / "s.csv", text)

    assert (run.counts["unconfirmed"], len(queried)) == (1, 2)
    assert await reconciliation.harness.cases() == ["statement_unconfirmed"]


# -- resumed runs, leases --------------------------------------------------------------------------------------------


async def test_an_interrupted_run_continues_at_its_next_batch(
    reconciliation: ReconciliationHarness, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The first run ends in its second batch. The counts are those of one run, and no row is compared twice."""
    lost = await reconciliation.order_paid_at_channel()
    recorded = await reconciliation.paid_order()
    unknown_lines = [
        reconciliation.statement_line(
            recorded.payments[0], out_trade_no=f"nobody-{n:04}", transaction_id=f"t-{n}", amount=AMOUNT - 1
        )
        for n in range(BATCH)
    ]
    text = (
        HEADER
        + reconciliation.statement_line(recorded.payments[0])
        + "".join(unknown_lines)
        + reconciliation.statement_line(lost.payments[0])
    )
    compared: list[int] = []
    original = reconcile_rows.RowComparer.compare

    async def fail_once(self: reconcile_rows.RowComparer, batch: list[Numbered], on_unknown: OnUnknown) -> object:
        compared.append(len(batch))
        if len(compared) == 2:
            raise asyncio.CancelledError
        return await original(self, batch, on_unknown)

    monkeypatch.setattr(reconcile_rows.RowComparer, "compare", fail_once)
    with pytest.raises(asyncio.CancelledError):
        await reconciliation.run_file(tmp_path / "s.csv", text)
    [unfinished] = await list_reconciliations(reconciliation.resources.db)
    assert (unfinished.status, unfinished.next_row) == ("running", BATCH + 1)
    unknown_rows: list[StatementRow] = []

    run = await reconciliation.run_file(tmp_path / "s.csv", text, hooks=Hooks(on_unknown=unknown_rows.append))

    assert run.id == unfinished.id
    assert compared == [BATCH, 2, 2]
    assert {kind: count for kind, count in run.counts.items() if count} == {
        "rows": BATCH + 2,
        "agrees": 1,
        "repaired": 1,
        "unknown": BATCH,
    }
    assert len(unknown_rows) == BATCH, "the callback sees the rows of both batches"


async def test_an_unsaved_batch_is_repeated_without_effect(
    reconciliation: ReconciliationHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run ends after the work of a batch and before it is saved. No row becomes a duplicate of itself."""
    lost, recorded = await reconciliation.order_paid_at_channel(), await reconciliation.paid_order()
    reconciliation.harness.simulation.faults.force(recorded.payments[0].out_trade_no, AtFault())
    reconciliation.set_faults(statement_wrong_amount=1.0)
    original = save

    async def fail_once(*_: object) -> None:
        monkeypatch.setattr(reconcile, "save", original)
        raise asyncio.CancelledError

    monkeypatch.setattr(reconcile, "save", fail_once)
    with pytest.raises(asyncio.CancelledError):
        await reconciliation.run()
    assert await reconciliation.order_status(lost) is OrderStatus.PAID

    assert await reconciliation.counts() == {"amount": 2}

    assert await reconciliation.harness.cases() == ["statement_amount", "statement_amount"]


async def test_a_changed_statement_starts_at_its_first_row(reconciliation: ReconciliationHarness) -> None:
    """Counts of the earlier statement are dropped."""
    first = await claim_day(reconciliation.resources.db, "main", YESTERDAY, dry_run=False, lease_s=0.001)
    assert first is not None
    first = await begin(reconciliation.resources.db, first, b"s" * 32)
    sql = """UPDATE reconciliations SET next_row = 501, counts = '{"amount": 7, "rows": 500}'"""
    await reconciliation.resources.db.execute(sql)
    await reconciliation.order_paid_at_channel()

    run = await reconciliation.run()

    assert (run.id, run.next_row) == (first.id, 2)
    assert {kind: count for kind, count in run.counts.items() if count} == {"rows": 1, "repaired": 1}


async def test_simultaneous_runs_of_a_day_are_one(reconciliation: ReconciliationHarness) -> None:
    state = await reconciliation.order_paid_at_channel()
    runs = await asyncio.gather(
        *(reconcile_day(reconciliation.resources, reconciliation.account, YESTERDAY) for _ in range(3))
    )
    done = [run for run in runs if run is not None]
    assert len(done) == 1
    assert done[0].counts["repaired"] == 1
    assert reconciliation.harness.call_count("statement") == 1
    assert await reconciliation.order_status(state) is OrderStatus.PAID


async def test_a_long_run_keeps_its_lease(
    reconciliation: ReconciliationHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is longer than its lease renews it, and no other run starts."""
    resources = Resources(
        **vars(reconciliation.resources) | {"settings": replace(reconciliation.resources.settings, lease_s=0.3)}
    )
    state = await reconciliation.order_paid_at_channel()
    released = asyncio.Event()
    original = query_now

    async def query_after_release(*args: Any, **more: Any) -> object:
        await released.wait()
        return await original(*args, **more)

    monkeypatch.setattr(reconcile_rows, "query_now", query_after_release)
    running = asyncio.create_task(reconcile_day(resources, reconciliation.account, YESTERDAY))
    sql = "SELECT count(*) FROM reconciliations WHERE leased_at < clock_timestamp() - interval '0.9 s'"
    await eventually(lambda: reconciliation.harness.fetch_value(sql))
    assert await asyncio.wait_for(reconcile_day(resources, reconciliation.account, YESTERDAY), 5) is None
    released.set()
    assert await running is not None
    assert await reconciliation.order_status(state) is OrderStatus.PAID


# -- the daily job ---------------------------------------------------------------------------------------------------


@pytest_asyncio.fixture(loop_scope="session")
async def daily_reconciliation(reconciliation: ReconciliationHarness) -> ReconciliationHarness:
    """A harness whose statements are ready at midnight and whose account is ten days old."""
    settings = replace(reconciliation.resources.settings, reconcile_at="00:00")
    reconciliation.resources = Resources(**vars(reconciliation.resources) | {"settings": settings})
    await reconciliation.resources.db.execute("UPDATE accounts SET created_at = now() - interval '10 days'")
    return reconciliation


async def test_the_daily_job_reconciles_yesterday_once_and_catches_up_missed_days(
    daily_reconciliation: ReconciliationHarness,
) -> None:
    state = await daily_reconciliation.order_paid_at_channel(noon(DAY_BEFORE))
    run_count = 0
    while await reconcile_due(daily_reconciliation.resources):
        run_count += 1
    runs = await list_reconciliations(daily_reconciliation.resources.db)
    assert [run.day for run in reversed(runs)] == [TODAY - timedelta(days=ago) for ago in range(7, 0, -1)]
    assert run_count == 7
    assert await daily_reconciliation.order_status(state) is OrderStatus.PAID
    assert not await reconcile_due(daily_reconciliation.resources)


async def test_several_workers_do_one_run_for_each_account_and_day(daily_reconciliation: ReconciliationHarness) -> None:
    async def worker() -> None:
        while await reconcile_due(daily_reconciliation.resources):
            pass

    await asyncio.gather(*(worker() for _ in range(3)))
    runs = await list_reconciliations(daily_reconciliation.resources.db)
    assert len({run.day for run in runs}) == 7
    assert all(run.status == "finished" for run in runs)


async def test_a_failed_day_is_retried_after_n_squared_units_and_does_not_block_others(
    daily_reconciliation: ReconciliationHarness,
) -> None:
    daily_reconciliation.set_faults(affected=("statement",), html_error=1.0)
    assert not await reconcile_due(daily_reconciliation.resources)
    runs = await list_reconciliations(daily_reconciliation.resources.db)
    assert [(run.status, run.attempt) for run in runs] == [("failed", 2)] * 7
    sql = "SELECT min(extract(epoch FROM due_at - now())) FROM reconciliations"
    assert 50 < float(str(await daily_reconciliation.harness.fetch_value(sql))) <= 60
    daily_reconciliation.set_faults()
    assert not await reconcile_due(daily_reconciliation.resources), "not due yet"

    await daily_reconciliation.resources.db.execute("UPDATE reconciliations SET due_at = now()")
    daily_reconciliation.set_faults(affected=("statement",), html_error=1.0)
    assert not await reconcile_due(daily_reconciliation.resources)
    assert 230 < float(str(await daily_reconciliation.harness.fetch_value(sql))) <= 240


async def test_a_day_that_was_read_before_it_was_over_is_due_again(daily_reconciliation: ReconciliationHarness) -> None:
    """An operator read the day too early. Later payments are only in the statement of the whole day."""
    while await reconcile_due(daily_reconciliation.resources):
        pass
    await daily_reconciliation.resources.db.execute(
        "UPDATE reconciliations SET started_at = $1 WHERE day = $2", noon(), YESTERDAY
    )
    state = await daily_reconciliation.order_paid_at_channel(noon() + timedelta(hours=1))
    assert await reconcile_due(daily_reconciliation.resources)
    assert await daily_reconciliation.order_status(state) is OrderStatus.PAID


async def test_a_disabled_daily_job_does_nothing(daily_reconciliation: ReconciliationHarness) -> None:
    off = Resources(
        **vars(daily_reconciliation.resources)
        | {"settings": replace(daily_reconciliation.resources.settings, reconcile_at="off")}
    )
    assert not await reconcile_due(off)
    assert await list_reconciliations(daily_reconciliation.resources.db) == []


async def test_a_new_account_has_no_days_to_catch_up(reconciliation: ReconciliationHarness) -> None:
    settings = replace(reconciliation.resources.settings, reconcile_at="00:00")
    assert not await reconcile_due(Resources(**vars(reconciliation.resources) | {"settings": settings}))


async def test_yesterday_is_due_from_the_configured_time(
    daily_reconciliation: ReconciliationHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(daily_reconciliation.resources.settings, reconcile_at="10:30")
    resources = Resources(**vars(daily_reconciliation.resources) | {"settings": settings})
    for clock, newest in ((time(10, 29), DAY_BEFORE), (time(10, 30), YESTERDAY)):

        async def now(_: object, clock: time = clock) -> datetime:
            return datetime.combine(TODAY, clock, UTC)

        monkeypatch.setattr(reconcile_daily, "find_now", now)
        while await reconcile_due(resources):
            pass
        runs = await list_reconciliations(resources.db)
        assert max(run.day for run in runs if run.day is not None) == newest

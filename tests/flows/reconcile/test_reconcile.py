"""A channel's statement against our payments: what is repaired, what a person is asked, and what changes nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from msgspec.structs import replace

from channels.base import StatementRow
from core.admission import Urgency
from core.errors import ChannelRefused, ChannelUnavailable, ChannelUnreadable, UnknownAccount
from core.evidence import Source
from core.order import OrderState, OrderStatus, Payment
from flows.ask import query_now
from flows.reconcile import daily as reconcile_daily
from flows.reconcile import rows as reconcile_rows
from flows.reconcile import run as reconcile
from flows.reconcile.daily import reconcile_due
from flows.reconcile.rows import OnUnknown
from flows.reconcile.run import Hooks, needs_person, reconcile_day, reconcile_file
from flows.reconcile.statement import BATCH, Numbered
from flows.refresh import refresh_order
from runtime.accounts import Account
from runtime.resources import Resources
from simulator.kernel.faults import AtFault, FaultProfile
from storage.postgres import pending
from storage.postgres.reconciliation.differences import list_differences
from storage.postgres.reconciliation.runs import Reconciliation, begin, claim_day, list_reconciliations, save
from tests.flows.conftest import AMOUNT, FlowHarness
from tests.servers import eventually

TODAY = datetime.now(UTC).date()
YESTERDAY = TODAY - timedelta(days=1)
BEFORE = TODAY - timedelta(days=2)
HEADER = "type,out_trade_no,transaction_id,refund_no,amount,currency,at\n"


def noon(day: date = YESTERDAY) -> datetime:
    return datetime.combine(day, time(12), UTC)


class Books:
    """The harness, with an eye on one account's statement."""

    def __init__(self, harness: FlowHarness, account: Account) -> None:
        self.harness = harness
        self.resources = harness.resources
        self.account = account

    def pay(self, payment: Payment, at: datetime | None = None) -> None:
        """The buyer paid then, and the channel called nobody."""
        self.harness.far_side.faults.force(payment.out_trade_no, AtFault(callback="event_never_generated"))
        self.harness.far_side.ledger.pay(self.harness.key_of(payment), at or noon())

    async def open(self, name: str, **config: Any) -> str:
        """Another account, as soon as accounts are read again, whose statements these are from now on."""
        await self.harness.add_account(name, **config)
        await eventually(lambda: self._find(name))
        return name

    async def _find(self, name: str) -> bool:
        with suppress(UnknownAccount):
            self.account = await self.resources.accounts.get(name)
            return True
        return False

    async def lost(self, at: datetime | None = None) -> OrderState:
        """Paid there and not here."""
        state = await self.harness.placed()
        self.pay(state.payments[0], at)
        return state

    async def paid(self, at: datetime | None = None) -> OrderState:
        """Paid there and here."""
        state = await self.lost(at)
        state = await refresh_order(self.resources, state.order.order_no, trailing=True)
        assert state.order.status is OrderStatus.PAID
        return state

    def faults(self, **profile: Any) -> None:
        self.harness.far_side.faults.profile = FaultProfile(**profile)

    async def run(self, day: date = YESTERDAY, **more: Any) -> Reconciliation:
        run = await reconcile_day(self.resources, self.account, day, **more)
        assert run is not None
        return run

    async def counts(self, day: date = YESTERDAY, **more: Any) -> dict[str, int]:
        """What a run counts, without what is always there."""
        run = await self.run(day, **more)
        assert (run.status, run.counts.pop("rows", 0)) == ("finished", run.next_row - 1)
        return {kind: count for kind, count in run.counts.items() if count}

    async def file(self, path: Path, text: str, **more: Any) -> Reconciliation:
        path.write_text(text)
        run = await reconcile_file(self.resources, self.account, path, **more)
        assert run is not None
        return run

    def row(self, payment: Payment, **changes: object) -> str:
        """What the channel writes of a payment that was paid."""
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

    async def status(self, state: OrderState) -> OrderStatus:
        return (await self.harness.state(state)).order.status


@pytest_asyncio.fixture(loop_scope="session")
async def books(harness: FlowHarness) -> AsyncIterator[Books]:
    await harness.resources.db.execute("TRUNCATE reconciliations CASCADE")
    yield Books(harness, await harness.resources.accounts.get("main"))


async def by(harness: FlowHarness, state: OrderState) -> object:
    return await harness.one(
        "SELECT by FROM order_events WHERE order_no = $1 AND kind IN ('paid', 'paid_late')", state.order.order_no
    )


# -- paid there only ---------------------------------------------------------------------------------------------------


async def test_an_order_that_is_paid_there_only_is_repaired_and_the_merchant_is_told(books: Books) -> None:
    lost = (await books.harness.place(notify_url="http://127.0.0.1:9/n")).state
    books.pay(lost.payments[0])
    here = await books.paid()

    assert await books.counts() == {"repaired": 1, "agrees": 1}

    assert await books.status(lost) is OrderStatus.PAID
    assert await by(books.harness, lost) == "reconciliation"
    assert await by(books.harness, here) == "refresh"
    sql = "SELECT count(*) FROM notifications WHERE order_no = $1 AND type = 'order.paid'"
    assert await books.harness.one(sql, lost.order.order_no) == 1
    assert await books.harness.row("main", lost.payments[0].out_trade_no) is None
    assert await books.harness.cases() == []


async def test_a_second_run_finds_the_same_and_changes_nothing(books: Books) -> None:
    lost = await books.lost()
    books.faults(statement_wrong_amount=1.0)
    assert await books.counts() == {"repaired": 1, "amount": 1}
    version = (await books.harness.state(lost)).order.version

    assert await books.counts() == {"amount": 1}

    assert (await books.harness.state(lost)).order.version == version
    assert await books.harness.cases() == ["statement_amount"]


async def test_a_statement_alone_never_pays_an_order(books: Books, tmp_path: Path) -> None:
    """A row, in an unsigned file, of a payment that the channel calls unpaid."""
    state = await books.harness.placed()
    [payment] = state.payments

    run = await books.file(tmp_path / "s.csv", HEADER + books.row(payment, transaction_id="t" * 24))

    assert run.counts["status"] == 1
    assert await books.status(state) is OrderStatus.PAYING
    assert await books.harness.cases() == ["statement_status"]
    assert needs_person(run.counts)


@pytest.mark.parametrize(
    ("policy", "status"), [("accept", OrderStatus.PAID), ("flag", OrderStatus.CLOSED)], ids=["accept", "flag"]
)
async def test_money_for_a_closed_order_goes_by_the_door(books: Books, policy: str, status: OrderStatus) -> None:
    name = await books.open(f"late-{policy}", late_policy=policy)
    state = await books.harness.placed(name)
    sql = """WITH gone AS (DELETE FROM pending WHERE order_no = $1), closed AS (
                 UPDATE payments SET status = 'closed' WHERE order_no = $1)
             UPDATE orders SET status = 'closed', closed_at = now(), version = version + 1 WHERE order_no = $1"""
    await books.harness.resources.db.execute(sql, state.order.order_no)
    books.pay(state.payments[0])

    assert await books.counts() == {"repaired": 1, "door_cases": 1}

    assert await books.status(state) is status
    assert await books.harness.cases() == ["paid_late"]


async def test_evidence_that_does_not_fit_repairs_nothing(books: Books) -> None:
    """The channel, asked, tells another amount: the door has made a case of that, and the row stays a difference."""
    state = await books.lost()
    books.harness.call_fault(state.payments[0], "wrong_amount_in_query")

    assert await books.counts() == {"paid_there_only": 1}

    assert await books.status(state) is OrderStatus.PAYING
    assert await books.harness.cases() == ["amount_mismatch"]


async def test_a_wrong_amount_in_the_statement_does_not_keep_the_order_from_being_repaired(books: Books) -> None:
    state = await books.lost()
    books.faults(statement_wrong_amount=1.0)
    assert await books.counts() == {"repaired": 1, "amount": 1}
    assert await books.status(state) is OrderStatus.PAID
    assert await books.harness.cases() == ["statement_amount"]


async def test_a_row_without_our_number_is_found_by_the_channels(books: Books, tmp_path: Path) -> None:
    paid, watched = await books.paid(), await books.lost()
    sql = "UPDATE payments SET channel_reference = 'ref-1' WHERE out_trade_no = $1"
    await books.harness.resources.db.execute(sql, watched.payments[0].out_trade_no)
    rows = (
        books.row(paid.payments[0], out_trade_no=""),
        books.row(watched.payments[0], out_trade_no="", transaction_id="ref-1"),
        books.row(paid.payments[0], out_trade_no="", transaction_id="nobody"),
        books.row(paid.payments[0], out_trade_no="", transaction_id=""),
    )

    run = await books.file(tmp_path / "s.csv", HEADER + "".join(rows))

    assert (run.counts["agrees"], run.counts["repaired"], run.counts["unknown"]) == (1, 1, 2)


async def test_a_number_of_another_account_is_unknown(books: Books, tmp_path: Path) -> None:
    main = books.account
    state = await books.harness.placed(await books.open("other"))
    books.account = main
    run = await books.file(tmp_path / "s.csv", HEADER + books.row(state.payments[0], transaction_id="t" * 24))
    assert (run.counts["unknown"], run.counts["rows"]) == (1, 1)
    assert books.harness.calls() == 0


# -- queries that tell nothing -----------------------------------------------------------------------------------------


async def test_an_unclear_answer_is_asked_again(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    state = await books.lost()
    books.harness.call_fault(state.payments[0], "html_error")
    once = query_now

    async def mended_after(*args: Any, **more: Any) -> object:
        told = await once(*args, **more)
        books.harness.call_fault(state.payments[0], "none")
        return told

    monkeypatch.setattr(reconcile_rows, "query_now", mended_after)
    assert await books.counts() == {"repaired": 1}
    assert books.harness.calls() == 2


async def test_what_stays_unclear_is_unconfirmed_and_a_case(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """And it is answered by the run that finds it paid."""
    monkeypatch.setattr(reconcile_rows, "ATTEMPTS_MAX", 2)
    state = await books.lost()
    books.harness.call_fault(state.payments[0], "html_error")
    assert await books.counts() == {"unconfirmed": 1}
    assert await books.harness.cases() == ["statement_unconfirmed"]
    assert books.harness.calls() == 2
    assert await books.status(state) is OrderStatus.PAYING

    books.harness.call_fault(state.payments[0], "none")

    assert await books.counts() == {"repaired": 1}
    assert await books.harness.cases() == []


async def test_a_channel_that_answers_nothing_stops_the_run_where_it_is(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every row of it would be a question; the next run, when the channel is back, answers them by itself."""
    states = [await books.lost() for _ in range(3)]
    books.faults(affected=("query",), html_error=1.0)

    with monkeypatch.context() as impatient:
        impatient.setattr(reconcile_rows, "SILENCE_S_MAX", 0.5)
        impatient.setattr(reconcile_rows, "ATTEMPTS_MAX", 100)
        with pytest.raises(ChannelUnavailable):
            await books.run()

    [run] = await list_reconciliations(books.resources.db)
    assert (run.status, run.next_row, run.attempt) == ("failed", 1, 2)
    assert await books.harness.cases() == []
    books.faults()
    assert await books.counts() == {"repaired": 3}
    assert {await books.status(state) for state in states} == {OrderStatus.PAID}


async def test_rows_wait_for_the_rate_and_none_is_skipped(books: Books) -> None:
    states = [await books.lost() for _ in range(7)]
    config = replace(books.account.config, rate_per_s=5)
    books.account = Account(config, books.account.channel, books.resources.settings)

    assert await books.counts() == {"repaired": 7}

    assert {await books.status(state) for state in states} == {OrderStatus.PAID}


async def test_a_query_of_somebody_else_is_waited_for(books: Books) -> None:
    state = await books.lost()
    held = await pending.claim(books.resources.db, state.payments[0].key, 0.6)
    assert held is not None
    assert await books.counts() == {"repaired": 1}


# -- every other difference --------------------------------------------------------------------------------------------

DIFFERENT: dict[str, tuple[dict[str, object], str]] = {
    "amount": ({"amount": AMOUNT - 1}, f"{AMOUNT - 1} there, {AMOUNT} here"),
    "currency": ({"currency": "USD"}, "USD there, CNY here"),
    "transaction": ({"transaction_id": "other"}, "other there"),
}


@pytest.mark.parametrize("kind", DIFFERENT)
async def test_a_difference_of_a_paid_payment_is_a_case_and_nobody_is_asked(
    books: Books, kind: str, tmp_path: Path
) -> None:
    changes, detail = DIFFERENT[kind]
    state = await books.paid()
    before = books.harness.calls()

    run = await books.file(tmp_path / "s.csv", HEADER + books.row(state.payments[0], **changes))

    assert run.counts[kind] == 1
    assert await books.harness.cases(state.order.order_no) == [f"statement_{kind}"]
    [found] = await list_differences(books.resources.db, run.id)
    assert (found.row_no, found.kind, found.order_no) == (1, kind, state.order.order_no)
    assert detail in found.detail
    assert books.harness.calls() == before


async def test_a_row_that_comes_twice_is_a_duplicate(books: Books, tmp_path: Path) -> None:
    """Across batches too: the statement is not in memory."""
    state = await books.paid()
    row = books.row(state.payments[0])
    far_apart = "".join(books.row(state.payments[0], out_trade_no=f"nobody-{n}") for n in range(BATCH))

    run = await books.file(tmp_path / "s.csv", HEADER + row + row + far_apart + row)

    assert (run.counts["agrees"], run.counts["duplicate"], run.counts["unknown"]) == (1, 2, BATCH)
    assert await books.harness.cases() == ["statement_duplicate"]


async def test_malformed_rows_are_one_question_and_the_others_count(books: Books) -> None:
    lost = [await books.lost() for _ in range(3)]
    books.faults(statement_malformed=0.5)
    malformed = sum(
        books.harness.far_side.faults.applies("statement_malformed", each.payments[0].out_trade_no)  # type: ignore[arg-type]
        for each in lost
    )
    counts = await books.counts()
    assert counts.get("malformed", 0) == malformed
    assert counts.get("repaired", 0) == len(lost) - malformed
    assert await books.harness.cases() == (["statement_malformed"] if malformed else [])


async def test_a_statement_that_is_none_has_no_effect(books: Books, tmp_path: Path) -> None:
    """Also when it is broken in its middle: it is looked over before its first row counts."""
    state = await books.lost()
    rows = books.row(state.payments[0]) * (BATCH + 1)
    for text in ("<html>", HEADER + rows + '"never closed'):
        with pytest.raises(ChannelUnreadable):
            await books.file(tmp_path / "s.csv", text)
    assert await books.status(state) is OrderStatus.PAYING


# -- refunds -----------------------------------------------------------------------------------------------------------


async def test_a_refund_that_is_known_agrees(books: Books) -> None:
    state = await books.paid()
    refund(books, state.payments[0], "r-1", 100)
    await ask(books, state)

    counts = await books.counts()

    assert counts == {"agrees": 2}


async def test_a_refund_that_nodrop_does_not_know_is_asked_about(books: Books) -> None:
    state = await books.paid()
    refund(books, state.payments[0], "r-1", 100)
    refund(books, state.payments[0], "r-2", 30)

    counts = await books.counts()

    assert counts == {"agrees": 2, "refund": 1}, "the second row agrees with what the first one brought to light"
    assert (await books.harness.state(state)).payments[0].refunded_amount == 130
    assert await books.harness.cases() == ["refunded_outside"]


async def test_a_refund_that_the_channel_denies_is_a_case(books: Books, tmp_path: Path) -> None:
    state = await books.paid()
    rows = books.row(state.payments[0]) + books.row(state.payments[0], type="refund", refund_no="r-1", amount=100)

    run = await books.file(tmp_path / "s.csv", HEADER + rows)

    assert run.counts["refund"] == 1
    assert await books.harness.cases() == ["statement_refund"]


async def test_a_payment_that_was_paid_and_given_back_there_only_is_repaired(books: Books) -> None:
    state = await books.lost()
    refund(books, state.payments[0], "r-1", AMOUNT)

    assert await books.counts() == {"repaired": 1, "agrees": 1, "door_cases": 1}

    assert await books.status(state) is OrderStatus.PAID
    assert await books.harness.cases() == ["refunded_outside"]


def refund(books: Books, payment: Payment, number: str, amount: int) -> None:
    """The merchant gave money back in the channel's console."""
    ledger, key = books.harness.far_side.ledger, books.harness.key_of(payment)
    ledger.refund(key, number, amount, noon())
    ledger.settle_refund(key._replace(number=number), noon(), succeeds=True)


async def ask(books: Books, state: OrderState) -> None:
    """Somebody asked the channel about it meanwhile."""
    [payment] = (await books.harness.state(state)).payments
    await query_now(books.resources, books.account, payment, by=Source.QUERY, urgency=Urgency.SCHEDULED, leased=None)


# -- paid here only ----------------------------------------------------------------------------------------------------


async def test_what_is_paid_here_only_is_a_case(books: Books) -> None:
    state = await books.paid()
    books.faults(statement_omits=1.0)
    assert await books.counts() == {"paid_here_only": 1}
    assert await books.harness.cases(state.order.order_no) == ["statement_paid_here_only"]


async def test_a_day_on_which_the_channel_says_nothing_happened_is_an_empty_one(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def none(*_: object) -> None:
        raise ChannelRefused("no_statement")

    await books.paid()
    monkeypatch.setattr(books.account.channel, "fetch_statement", none)
    assert await books.counts() == {"paid_here_only": 1}


async def test_a_case_is_answered_when_the_statement_tells_of_the_payment_after_all(books: Books) -> None:
    await books.paid()
    books.faults(statement_omits=1.0)
    await books.run()
    books.faults()
    assert await books.counts() == {"agrees": 1}
    assert await books.harness.cases() == []


async def test_a_question_that_was_answered_is_not_asked_again(books: Books) -> None:
    await books.paid()
    books.faults(statement_omits=1.0)
    await books.run()
    await books.resources.db.execute("UPDATE cases SET resolved_at = now(), resolution = 'seen', by = 'alice'")
    assert await books.counts() == {"paid_here_only": 1}
    assert await books.harness.cases() == []


async def test_a_payment_near_midnight_may_stand_in_the_statement_of_the_next_day(books: Books) -> None:
    """Booked a second later there than here: neither run cries."""
    late = datetime.combine(YESTERDAY, time(0, 0, 1), UTC)
    state = await books.paid(late)
    await put_back(books, state, late - timedelta(seconds=2))

    assert await books.counts(BEFORE) == {"waiting": 1}
    assert await books.counts() == {"agrees": 1}
    assert await books.counts(BEFORE) == {}, "now that both statements have been read"


async def test_a_payment_near_midnight_may_stand_in_the_statement_of_the_day_before(books: Books) -> None:
    early = datetime.combine(BEFORE, time(23, 59, 59), UTC)
    state = await books.paid(early)
    await put_back(books, state, early + timedelta(seconds=2))

    assert await books.counts(BEFORE) == {"agrees": 1}
    assert await books.counts() == {}


@pytest.mark.parametrize("hour", [time(0, 30), time(23, 30)])
async def test_a_payment_near_midnight_that_stands_in_neither_is_a_case(books: Books, hour: time) -> None:
    """Found by whichever of the two days is read last."""
    day = YESTERDAY if hour < time(12) else BEFORE
    await books.paid(datetime.combine(day, hour, UTC))
    books.faults(statement_omits=1.0)
    assert "paid_here_only" not in await books.counts(BEFORE)
    assert (await books.counts())["paid_here_only"] == 1
    assert await books.harness.cases() == ["statement_paid_here_only"]


async def test_a_payment_near_midnight_that_was_seen_is_not_asked_about_by_the_day_beside(books: Books) -> None:
    await books.paid(datetime.combine(BEFORE, time(23, 30), UTC))
    assert await books.counts(BEFORE) == {"agrees": 1}
    assert await books.counts() == {}


async def test_the_day_that_is_not_over_is_repaired_and_not_judged(books: Books) -> None:
    lost, here = await books.harness.placed(), await books.harness.placed()
    books.harness.pay(lost.payments[0])
    books.harness.pay(here.payments[0])
    await refresh_order(books.resources, here.order.order_no, trailing=True)
    books.harness.far_side.faults.force(here.payments[0].out_trade_no, AtFault())
    books.faults()
    assert await books.counts(TODAY) == {"repaired": 1, "agrees": 1}

    await put_back(books, here, noon(TODAY))
    books.faults(statement_omits=1.0)
    assert await books.counts(TODAY) == {}


async def test_a_file_is_whole_between_its_first_and_its_last_row(books: Books, tmp_path: Path) -> None:
    states = [await books.paid(noon() + timedelta(hours=hour)) for hour in (-2, -1, 0, 1)]
    stamps = [(noon() + timedelta(hours=hour)).isoformat() for hour in (-1, 1)]
    rows = books.row(states[1].payments[0], at=stamps[0]) + books.row(states[3].payments[0], at=stamps[1])

    run = await books.file(tmp_path / "s.csv", HEADER + rows)

    assert (run.counts["agrees"], run.counts["paid_here_only"]) == (2, 1)
    assert await books.harness.cases(states[2].order.order_no) == ["statement_paid_here_only"]


async def put_back(books: Books, state: OrderState, at: datetime) -> None:
    """It was paid here at another second than there."""
    sql = "UPDATE payments SET paid_at = $2 WHERE order_no = $1"
    await books.resources.db.execute(sql, state.order.order_no, at)


# -- unknown payments, dry runs ----------------------------------------------------------------------------------------


async def test_unknown_payments_are_told_and_no_order_is_invented(books: Books, tmp_path: Path) -> None:
    state = await books.harness.placed()
    told: list[StatementRow] = []
    rows = books.row(state.payments[0], out_trade_no="elsewhere-1", transaction_id="t-1")

    run = await books.file(tmp_path / "s.csv", HEADER + rows, hooks=Hooks(on_unknown=told.append))

    assert [row.out_trade_no for row in told] == ["elsewhere-1"]
    assert run.counts["unknown"] == 1
    assert not needs_person(run.counts)
    assert await books.harness.one("SELECT count(*) FROM orders") == 1


async def test_a_dry_run_lists_and_changes_nothing(books: Books) -> None:
    lost, here = await books.lost(), await books.paid()
    books.harness.far_side.faults.force(here.payments[0].out_trade_no, AtFault())
    books.faults(statement_wrong_amount=1.0)
    before, asked = await books.harness.state(lost), books.harness.calls()

    run = await books.run(dry_run=True)

    assert (run.counts["paid_there_only"], run.counts["amount"], run.dry_run) == (1, 2, True)
    assert len(await list_differences(books.resources.db, run.id)) == 3
    assert (await books.harness.state(lost)).order == before.order
    assert await books.harness.cases() == []
    assert books.harness.calls() == asked
    assert await books.harness.one("SELECT count(*) FROM reconciliation_rows") == 0


# -- resuming, two at once ---------------------------------------------------------------------------------------------


async def test_a_run_is_carried_on_where_it_was_left(
    books: Books, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Killed in its second batch: the counts are those of one whole run, and no row is compared twice."""
    lost = await books.lost()
    here = await books.paid()
    nobody = [books.row(here.payments[0], out_trade_no=f"nobody-{n:04}") for n in range(BATCH)]
    text = HEADER + books.row(here.payments[0]) + "".join(nobody) + books.row(lost.payments[0])
    compared: list[int] = []
    real = reconcile_rows.RowComparer.compare

    async def dies(self: reconcile_rows.RowComparer, batch: list[Numbered], on_unknown: OnUnknown) -> object:
        compared.append(len(batch))
        if len(compared) == 2:
            raise asyncio.CancelledError
        return await real(self, batch, on_unknown)

    monkeypatch.setattr(reconcile_rows.RowComparer, "compare", dies)
    with pytest.raises(asyncio.CancelledError):
        await books.file(tmp_path / "s.csv", text)
    [left] = await list_reconciliations(books.resources.db)
    assert (left.status, left.next_row) == ("running", BATCH + 1)
    told: list[StatementRow] = []

    run = await books.file(tmp_path / "s.csv", text, hooks=Hooks(on_unknown=told.append))

    assert run.id == left.id
    assert compared == [BATCH, 2, 2]
    assert {kind: count for kind, count in run.counts.items() if count} == {
        "rows": BATCH + 2,
        "agrees": 1,
        "repaired": 1,
        "unknown": BATCH,
    }
    assert len(told) == BATCH, "those before the crash were told to nobody"


async def test_a_batch_that_was_half_done_is_done_again_without_effect(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between what a batch did and the note that it is done: nothing is a duplicate of itself."""
    lost, here = await books.lost(), await books.paid()
    books.harness.far_side.faults.force(here.payments[0].out_trade_no, AtFault())
    books.faults(statement_wrong_amount=1.0)
    real = save

    async def dies(*_: object) -> None:
        monkeypatch.setattr(reconcile, "save", real)
        raise asyncio.CancelledError

    monkeypatch.setattr(reconcile, "save", dies)
    with pytest.raises(asyncio.CancelledError):
        await books.run()
    assert await books.status(lost) is OrderStatus.PAID

    assert await books.counts() == {"amount": 2}

    assert await books.harness.cases() == ["statement_amount", "statement_amount"]


async def test_another_statement_of_the_day_is_begun_at_its_first_row(books: Books) -> None:
    """What a run had counted of one that is no longer told is forgotten."""
    first = await claim_day(books.resources.db, "main", YESTERDAY, dry_run=False, lease_s=0.001)
    assert first is not None
    first = await begin(books.resources.db, first, b"s" * 32)
    sql = """UPDATE reconciliations SET next_row = 501, counts = '{"amount": 7, "rows": 500}'"""
    await books.resources.db.execute(sql)
    await books.lost()

    run = await books.run()

    assert (run.id, run.next_row) == (first.id, 2)
    assert {kind: count for kind, count in run.counts.items() if count} == {"rows": 1, "repaired": 1}


async def test_two_at_once_are_one(books: Books) -> None:
    state = await books.lost()
    runs = await asyncio.gather(*(reconcile_day(books.resources, books.account, YESTERDAY) for _ in range(3)))
    done = [run for run in runs if run is not None]
    assert len(done) == 1
    assert done[0].counts["repaired"] == 1
    assert books.harness.calls("statement") == 1
    assert await books.status(state) is OrderStatus.PAID


async def test_a_long_run_keeps_its_lease(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes several times as long as the lease, and meanwhile nobody else may begin."""
    resources = Resources(**vars(books.resources) | {"settings": replace(books.resources.settings, lease_s=0.3)})
    state = await books.lost()
    waits = asyncio.Event()
    real = query_now

    async def slow(*args: Any, **more: Any) -> object:
        await waits.wait()
        return await real(*args, **more)

    monkeypatch.setattr(reconcile_rows, "query_now", slow)
    running = asyncio.create_task(reconcile_day(resources, books.account, YESTERDAY))
    sql = "SELECT count(*) FROM reconciliations WHERE leased_at < clock_timestamp() - interval '0.9 s'"
    await eventually(lambda: books.harness.one(sql))
    assert await asyncio.wait_for(reconcile_day(resources, books.account, YESTERDAY), 5) is None
    waits.set()
    assert await running is not None
    assert await books.status(state) is OrderStatus.PAID


# -- the daily job -----------------------------------------------------------------------------------------------------


@pytest_asyncio.fixture(loop_scope="session")
async def daily(books: Books) -> Books:
    """Statements are ready at midnight, and the account is ten days old."""
    settings = replace(books.resources.settings, reconcile_at="00:00")
    books.resources = Resources(**vars(books.resources) | {"settings": settings})
    await books.resources.db.execute("UPDATE accounts SET created_at = now() - interval '10 days'")
    return books


async def test_the_daily_job_reconciles_yesterday_once_and_catches_up_missed_days(daily: Books) -> None:
    state = await daily.lost(noon(BEFORE))
    turns = 0
    while await reconcile_due(daily.resources):
        turns += 1
    runs = await list_reconciliations(daily.resources.db)
    assert [run.day for run in reversed(runs)] == [TODAY - timedelta(days=ago) for ago in range(7, 0, -1)]
    assert turns == 7
    assert await daily.status(state) is OrderStatus.PAID
    assert not await reconcile_due(daily.resources)


async def test_several_workers_do_one_run_for_each_account_and_day(daily: Books) -> None:
    async def worker() -> None:
        while await reconcile_due(daily.resources):
            pass

    await asyncio.gather(*(worker() for _ in range(3)))
    runs = await list_reconciliations(daily.resources.db)
    assert len({run.day for run in runs}) == 7
    assert all(run.status == "finished" for run in runs)


async def test_a_day_that_fails_is_tried_again_after_n_squared_units_and_keeps_no_other_waiting(daily: Books) -> None:
    daily.faults(affected=("statement",), html_error=1.0)
    assert not await reconcile_due(daily.resources)
    runs = await list_reconciliations(daily.resources.db)
    assert [(run.status, run.attempt) for run in runs] == [("failed", 2)] * 7
    sql = "SELECT min(extract(epoch FROM due_at - now())) FROM reconciliations"
    assert 50 < float(str(await daily.harness.one(sql))) <= 60
    daily.faults()
    assert not await reconcile_due(daily.resources), "not due yet"

    await daily.resources.db.execute("UPDATE reconciliations SET due_at = now()")
    daily.faults(affected=("statement",), html_error=1.0)
    assert not await reconcile_due(daily.resources)
    assert 230 < float(str(await daily.harness.one(sql))) <= 240


async def test_a_day_that_was_read_before_it_was_over_is_due_all_the_same(daily: Books) -> None:
    """An operator was in a hurry: what came after that stands in the statement of the whole day alone."""
    while await reconcile_due(daily.resources):
        pass
    await daily.resources.db.execute("UPDATE reconciliations SET started_at = $1 WHERE day = $2", noon(), YESTERDAY)
    state = await daily.lost(noon() + timedelta(hours=1))
    assert await reconcile_due(daily.resources)
    assert await daily.status(state) is OrderStatus.PAID


async def test_before_its_hour_or_switched_off_nothing_is_due(daily: Books) -> None:
    off = Resources(**vars(daily.resources) | {"settings": replace(daily.resources.settings, reconcile_at="off")})
    assert not await reconcile_due(off)
    assert await list_reconciliations(daily.resources.db) == []


async def test_a_new_account_has_no_days_to_catch_up(books: Books) -> None:
    settings = replace(books.resources.settings, reconcile_at="00:00")
    assert not await reconcile_due(Resources(**vars(books.resources) | {"settings": settings}))


async def test_yesterday_is_due_from_the_hour_on(daily: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(daily.resources.settings, reconcile_at="10:30")
    resources = Resources(**vars(daily.resources) | {"settings": settings})
    for clock, newest in ((time(10, 29), BEFORE), (time(10, 30), YESTERDAY)):

        async def now(_: object, clock: time = clock) -> datetime:
            return datetime.combine(TODAY, clock, UTC)

        monkeypatch.setattr(reconcile_daily, "find_now", now)
        while await reconcile_due(resources):
            pass
        runs = await list_reconciliations(resources.db)
        assert max(run.day for run in runs if run.day is not None) == newest

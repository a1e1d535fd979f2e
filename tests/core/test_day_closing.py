"""The sums of a day, by tables; its statement, what speaks against a sign-off, and when it has changed since."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from msgspec.structs import replace

from core.closing import (
    Closing,
    DayMoney,
    Doubt,
    Line,
    Run,
    SignOff,
    StatementState,
    Sums,
    doubts_of,
    figures_of,
    lines_of,
    with_disputes,
    with_row,
)
from core.closing_view import view_of
from core.dispute import Dispute, DisputeKind, DisputeState

END = datetime(2026, 11, 23, tzinfo=UTC)
BEFORE, AFTER = END - timedelta(hours=1), END + timedelta(hours=10)


class Row(msgspec.Struct, frozen=True):
    kind: str
    amount: int
    currency: str = "CNY"
    fee: int | None = None
    fee_currency: str = ""


@pytest.mark.parametrize(
    ("rows", "sums"),
    [
        ([], {}),
        ([(Row("payment", 100), True)], {"CNY": Sums(payments=1, paid=100)}),
        ([(Row("payment", 100, fee=0), True)], {"CNY": Sums(payments=1, paid=100, fees=0)}),
        (
            [(Row("payment", 100, fee=3), True), (Row("payment", 50), True), (Row("refund", 30, fee=-1), True)],
            {"CNY": Sums(payments=2, paid=150, refunds=1, refunded=30, fees=2)},
        ),
        (
            [(Row("payment", 100, fee=9), False), (Row("refund", 30), False)],
            {"CNY": Sums(others=2, other_net=70)},
        ),
        (
            [(Row("payment", 100), True), (Row("payment", 500, "JPY"), True)],
            {"CNY": Sums(payments=1, paid=100), "JPY": Sums(payments=1, paid=500)},
        ),
        # Stripe takes its fee in the currency of the balance.
        (
            [(Row("payment", 500, "JPY", 7, "EUR"), True)],
            {"JPY": Sums(payments=1, paid=500), "EUR": Sums(fees=7)},
        ),
    ],
)
def test_rows_of_a_statement_are_summed_by_currency(rows: Sequence[tuple[Row, bool]], sums: dict[str, Sums]) -> None:
    total: dict[str, Sums] = {}
    for row, is_known in rows:
        total = with_row(total, row, is_known=is_known)
    assert total == sums


def dispute(number: str = "n-1", **more: object) -> Dispute:
    fields = {
        "dispute_id": "d-1",
        "channel_account": "main",
        "out_trade_no": number,
        "order_no": "A-1",
        "kind": DisputeKind.CLAIM,
        "state": DisputeState.OPEN,
        "opened_at": BEFORE,
        "changed_at": BEFORE,
        "amount": 40,
        "currency": "CNY",
    }
    return Dispute(**fields | more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("disputes", "disputed", "taken"),
    [
        ([dispute()], 1, 40),
        ([dispute(state=DisputeState.LOST)], 1, 40),
        ([dispute(state=DisputeState.WON)], 1, 0),
        ([dispute(kind=DisputeKind.INQUIRY)], 1, 0),
        ([dispute(amount=None)], 1, 0),
        ([dispute(currency=None, amount=None)], 0, 0),
        ([dispute(), dispute(dispute_id="d-2", kind=DisputeKind.REVERSAL)], 2, 40),
        ([dispute(), dispute("n-2", dispute_id="d-2", amount=5)], 2, 45),
        ([dispute(), dispute(dispute_id="d-2", currency="USD", amount=9)], 1, 40),
    ],
)
def test_disputes_of_the_day_take_money_once(disputes: list[Dispute], disputed: int, taken: int) -> None:
    money = with_disputes({"CNY": DayMoney(payments=1, paid=100)}, disputes)
    assert money["CNY"] == DayMoney(payments=1, paid=100, disputes=disputed, taken=taken)


def test_a_dispute_of_a_currency_without_payments_has_a_line_of_its_own() -> None:
    assert with_disputes({}, [dispute(currency="USD")]) == {"USD": DayMoney(disputes=1, taken=40)}


def test_both_sides_of_a_currency_are_one_line_and_the_net_leaves_unknown_fees_out() -> None:
    here = {"CNY": DayMoney(payments=1, paid=100, refunded=10, refunds=1, disputes=1, taken=5), "USD": DayMoney(paid=7)}
    there = {"CNY": Sums(paid=100, fees=2), "EUR": Sums(others=1, other_net=9)}
    lines = lines_of(here, there)
    assert [(line.currency, line.fees, line.net) for line in lines] == [
        ("CNY", 2, 83),
        ("EUR", None, 0),
        ("USD", None, 7),
    ]
    assert (lines[0].there, lines[2].there) == (there["CNY"], None)


def run(status: str = "finished", **more: object) -> Run:
    fields = {"id": 7, "status": status, "started_at": AFTER, "is_incomplete": False, "differences": 0}
    return Run(**fields | more)  # type: ignore[arg-type]


def closing(**more: object) -> Closing:
    fields = {
        "account": "main",
        "lines": (Line(currency="CNY", here=DayMoney(payments=1, paid=100), there=None),),
        "ends_at": END,
        "is_over": True,
        "run": run(),
        "read_by": run(),
        "open_differences": 0,
        "sign_off": None,
    }
    return Closing(**fields | more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("latest", "is_over", "state"),
    [
        (None, False, StatementState.NOT_DUE),
        (None, True, StatementState.MISSING),
        (run(), True, StatementState.READ),
        (run(started_at=BEFORE), True, StatementState.PART),
        (run("running"), True, StatementState.READING),
        (run("failed"), True, StatementState.FAILED),
        (run("failed", is_incomplete=True), True, StatementState.INCOMPLETE),
    ],
)
def test_the_newest_run_says_what_the_statement_is(
    latest: Run | None,
    is_over: bool,
    state: StatementState,
) -> None:
    assert closing(run=latest, is_over=is_over).statement is state


@pytest.mark.parametrize(
    ("day", "doubts"),
    [
        (closing(), ()),
        (closing(is_over=False, run=None), (Doubt.NOT_OVER, Doubt.NOT_READ)),
        (closing(run=run("failed")), (Doubt.NOT_READ,)),
        (closing(open_differences=2), (Doubt.DIFFERENCES_OPEN,)),
    ],
)
def test_what_speaks_against_a_sign_off_is_named(day: Closing, doubts: tuple[Doubt, ...]) -> None:
    assert doubts_of(day) == doubts


def signed(day: Closing) -> Closing:
    figures = figures_of(day.lines, day.differences)
    return replace(day, sign_off=SignOff(at=AFTER, by="alice", note="", figures=figures))


def test_a_day_has_changed_when_money_or_differences_came_and_not_when_one_was_resolved() -> None:
    day = signed(closing(read_by=run(differences=2), open_differences=2))
    assert not closing().is_changed
    assert not day.is_changed
    assert not replace(day, open_differences=0).is_changed
    assert replace(day, read_by=run(differences=3)).is_changed
    assert replace(day, lines=(replace(day.lines[0], here=DayMoney(payments=2, paid=200)),)).is_changed
    assert replace(day, lines=(replace(day.lines[0], there=Sums(fees=1)),)).is_changed
    assert replace(day, lines=()).is_changed


def test_a_sign_off_from_before_refunds_outside_were_summed_has_changed_only_where_there_are_some() -> None:
    line = Line(currency="CNY", here=DayMoney(paid=100), there=Sums(paid=100))
    with_refund = replace(line, there=Sums(paid=100, refunds_outside=1, refunded_outside=30))
    figures = figures_of((line,), 0)
    assert not [name for name in figures["CNY"] if "outside" in name]
    assert figures_of((with_refund,), 0) == {
        "": figures[""],
        "CNY": figures["CNY"] | {"statement_refunds_outside": 1, "statement_refunded_outside": 30},
    }
    assert replace(signed(closing(lines=(line,))), lines=(with_refund,)).is_changed


def test_figures_survive_the_store() -> None:
    """A sign-off that is read from JSON must equal what is computed."""
    day = closing(lines=(Line(currency="CNY", here=DayMoney(paid=1), there=Sums(paid=1)),))
    figures = figures_of(day.lines, 3)
    assert msgspec.json.decode(msgspec.json.encode(figures)) == figures


def test_differences_are_open_or_resolved() -> None:
    day = closing(read_by=run(differences=5), open_differences=2)
    assert (day.differences, day.resolved_differences) == (5, 3)
    assert closing(read_by=None).differences == 0
    assert closing(read_by=run(differences=1), open_differences=2).resolved_differences == 0


def test_programs_see_every_figure() -> None:
    day = closing(
        lines=lines_of({"CNY": DayMoney(paid=100)}, {"CNY": Sums(paid=100, fees=1)}), read_by=run(differences=1)
    )
    view = view_of(END.date(), signed(day))
    assert (view.statement, view.run_id, view.open_differences, view.resolved_differences) == ("read", 7, 0, 1)
    [line] = view.lines
    assert (line.paid, line.fees, line.net) == (100, 1, 99)
    assert line.statement is not None
    assert line.statement.paid == 100
    assert view.sign_off is not None
    assert (view.sign_off.by, view.sign_off.changed_since) == ("alice", False)
    bare = view_of(END.date(), closing(run=None, read_by=None))
    assert (bare.run_id, bare.run_error, bare.sign_off, bare.lines[0].statement) == (None, "", None, None)

"""The oracle: silent about a run in which all went well, and not about any single break of an invariant."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from simulator.kernel.deliveries import AcknowledgedCallback, SentAs
from simulator.kernel.ledger import PaymentStatus, RefundStatus
from simulator.kernel.snapshot import LedgerPayment, LedgerRefund, LedgerSnapshot
from simulator.kernel.traffic import Arrival
from simulator.merchant.control import Effects
from simulator.merchant.notifications import Effect, Violation
from simulator.oracle.books import (
    Books,
    CallbackRow,
    CaseRow,
    DueRow,
    EventRow,
    OrderRow,
    PaymentRef,
    PaymentRow,
    RefundRow,
)
from simulator.oracle.invariants import check
from simulator.oracle.violations import Invariant
from simulator.oracle.work import Limits, bounded_load, bounded_loads

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
REF = PaymentRef("main", "number-1")
LIMITS = Limits(overdue_s=10, ahead_s=3600, lease_s=20)


def ledger_payment(number: str = "number-1", **changed: Any) -> LedgerPayment:
    return LedgerPayment(
        account=changed.pop("account", "main"),
        merchant_id="m-1",
        out_trade_no=number,
        amount=changed.pop("amount", 1000),
        currency="CNY",
        status=PaymentStatus(changed.pop("status", "paid")),
        transaction_id=f"tx-{number}",
        **changed,
    )


def payment(number: str = "number-1", order_no: str = "order-1", **changed: Any) -> PaymentRow:
    row = PaymentRow(
        account="main",
        out_trade_no=number,
        order_no=order_no,
        amount=1000,
        currency="CNY",
        status="paid",
        channel_transaction_id=f"tx-{number}",
    )
    return replace(row, **changed)


def order(order_no: str = "order-1", **changed: Any) -> OrderRow:
    row = OrderRow(order_no=order_no, amount=1000, currency="CNY", status="paid", version=2, paid_by=REF)
    return replace(row, **changed)


def effect(order_no: str = "order-1", **changed: Any) -> Effect:
    row = Effect(order_no=order_no, webhook_id="msg_1", version=2, amount=1000, currency="CNY", late=False, at=NOW)
    return replace(row, **changed)


def acknowledged(**changed: Any) -> AcknowledgedCallback:
    row = AcknowledgedCallback(
        merchant_id="m-1",
        out_trade_no="number-1",
        callback_id="cb_1",
        body_sha256="ab",
        sent_as=SentAs.GENUINE,
        at=NOW,
    )
    return replace(row, **changed)


REFUND = LedgerRefund(
    account="main",
    merchant_id="m-1",
    refund_no="refund-1",
    out_trade_no="number-1",
    amount=100,
    currency="CNY",
    status=RefundStatus.SUCCEEDED,
)
IN_CONSOLE = replace(REFUND, refund_no="console-1", amount=1000, in_console=True, refunded_at=NOW)
"""All of the first payment, made in the console in the moment in which the money came."""
GONE = {
    "payments": (
        ledger_payment(status="refunded", refunded_amount=1000, paid_at=NOW),
        ledger_payment("number-2", status="closed"),
    ),
    "refunds": (REFUND, IN_CONSOLE),
}
PART_GONE = {
    "payments": (
        ledger_payment(status="refunded", refunded_amount=400, paid_at=NOW),
        ledger_payment("number-2", status="closed"),
    ),
    "refunds": (REFUND, replace(IN_CONSOLE, amount=400)),
}
CLOSED_ORDER = order("order-2", status="closed", paid_by=None, version=3)
CLOSED_PAYMENT = payment("number-2", "order-2", status="closed", channel_transaction_id=None)

GOOD_LEDGER = LedgerSnapshot(
    taken_at=NOW,
    payments=(ledger_payment(), ledger_payment("number-2", status="closed")),
    refunds=(REFUND, replace(REFUND, refund_no="refund-2", status=RefundStatus.FAILED)),
    acknowledged=(acknowledged(),),
)
GOOD_EFFECTS = Effects(effects=(effect(),))
GOOD_BOOKS = Books(
    orders=(order(), CLOSED_ORDER),
    payments=(payment(), CLOSED_PAYMENT),
    callbacks=(CallbackRow(account="main", notification_id="cb_1", body_sha256="ab"),),
    events=tuple(
        EventRow(order_no=order_no, version=version)
        for order_no, last in (("order-1", 2), ("order-2", 3))
        for version in range(1, last + 1)
    ),
    due=(DueRow(table="pending", order_no="order-2", due_at=NOW - timedelta(seconds=9)),),
    refunds=(RefundRow(account="main", refund_no="refund-1", amount=100, currency="CNY"),),
)


def broken(
    ledger: dict[str, Any] | None = None,
    effects: dict[str, Any] | None = None,
    books: dict[str, Any] | None = None,
    placed: tuple[str, ...] = (),
) -> list[tuple[Invariant, str]]:
    found = check(
        replace(GOOD_LEDGER, **(ledger or {})),
        replace(GOOD_EFFECTS, **(effects or {})),
        replace(GOOD_BOOKS, **(books or {})),
        now=NOW,
        limits=LIMITS,
        placed=placed,
    )
    assert all(violation.sentence for violation in found)
    return [(violation.invariant, violation.order_no) for violation in found]


def test_good_run_has_no_violation() -> None:
    assert broken() == []


def test_nothing_at_all_has_no_violation() -> None:
    assert check(LedgerSnapshot(taken_at=NOW), Effects(), Books(), now=NOW, limits=LIMITS) == []


PAYING = order(status="paying", paid_by=None)
OPEN = payment(status="open", channel_transaction_id=None)
QUERY = DueRow(table="pending", order_no="order-1", due_at=NOW + timedelta(seconds=60), ref=REF)
DEADLINE = replace(
    QUERY, ref=PaymentRef("", "order-1"), due_at=NOW + timedelta(hours=9), waits_until=NOW + timedelta(hours=9)
)
SECOND = ledger_payment("number-3")
SECOND_ROW = payment("number-3", "order-1")


def case(reason: str, number: str = "number-1", order_no: str | None = "order-1") -> CaseRow:
    return CaseRow(reason=reason, order_no=order_no, account="main", out_trade_no=number)


@pytest.mark.parametrize(
    ("name", "change", "wanted"),
    [
        (
            "paid at the channel, open here",
            {
                "books": {
                    "orders": (PAYING, CLOSED_ORDER),
                    "payments": (OPEN, CLOSED_PAYMENT),
                    "due": (QUERY, DEADLINE),
                },
                "effects": {"effects": ()},
            },
            {(Invariant.I1, "order-1"), (Invariant.I6, "")},
        ),
        (
            "paid at the channel, open here, and a case that excuses nothing",
            {
                "books": {
                    "orders": (PAYING, CLOSED_ORDER),
                    "payments": (OPEN, CLOSED_PAYMENT),
                    "due": (QUERY, DEADLINE),
                    "cases": (case("attempts_exhausted"), case("amount_mismatch"), case("paid_late")),
                },
                "effects": {"effects": ()},
            },
            {(Invariant.I1, "order-1"), (Invariant.I6, "")},
        ),
        (
            "payment paid, its order not",
            {"books": {"orders": (PAYING, CLOSED_ORDER), "due": (DEADLINE,)}, "effects": {"effects": ()}},
            {(Invariant.I1, "order-1")},
        ),
        (
            "paid at the channel, unknown here",
            {"ledger": {"payments": (*GOOD_LEDGER.payments, SECOND)}},
            {(Invariant.I1, ""), (Invariant.I6, "")},
        ),
        (
            "its order is gone",
            {"books": {"orders": (CLOSED_ORDER,), "events": GOOD_BOOKS.events[2:]}},
            {(Invariant.I1, "order-1")},
        ),
        (
            "paid twice without a case",
            {
                "ledger": {"payments": (*GOOD_LEDGER.payments, SECOND)},
                "books": {"payments": (*GOOD_BOOKS.payments, SECOND_ROW)},
            },
            {(Invariant.I1, "order-1")},
        ),
        (
            "a wrong amount without a case",
            {
                "ledger": {"payments": (ledger_payment(amount=900), GOOD_LEDGER.payments[1])},
                "books": {
                    "orders": (PAYING, CLOSED_ORDER),
                    "payments": (OPEN, CLOSED_PAYMENT),
                    "due": (QUERY, DEADLINE),
                },
                "effects": {"effects": ()},
            },
            {(Invariant.I1, "order-1"), (Invariant.I6, "")},
        ),
        (
            "paid here, unpaid at the channel",
            {"ledger": {"payments": (ledger_payment(status="unpaid"), GOOD_LEDGER.payments[1])}},
            {(Invariant.I2, "order-1"), (Invariant.I6, "")},
        ),
        (
            "paid here, unknown at the channel",
            {"ledger": {"payments": (GOOD_LEDGER.payments[1],), "acknowledged": ()}},
            {(Invariant.I2, "order-1"), (Invariant.I6, "")},
        ),
        (
            "paid at another account",
            {"ledger": {"payments": (ledger_payment(account="spare"), GOOD_LEDGER.payments[1]), "acknowledged": ()}},
            {(Invariant.I1, ""), (Invariant.I2, "order-1"), (Invariant.I6, "")},
        ),
        (
            "paid with another amount",
            {"ledger": {"payments": (ledger_payment(amount=999), GOOD_LEDGER.payments[1])}},
            {(Invariant.I1, "order-1"), (Invariant.I2, "order-1"), (Invariant.I6, "")},
        ),
        (
            "paid under another transaction",
            {"books": {"payments": (payment(channel_transaction_id="tx-x"), CLOSED_PAYMENT)}},
            {(Invariant.I2, "order-1")},
        ),
        (
            "two orders paid by one payment, under another name of the account",
            {
                "books": {
                    "orders": (order(), CLOSED_ORDER, order("order-3", paid_by=PaymentRef("twin", "number-1"))),
                    "payments": (*GOOD_BOOKS.payments, payment(order_no="order-3", account="twin")),
                },
                "effects": {"effects": (effect(), effect("order-3"))},
            },
            {(Invariant.I2, "order-3"), (Invariant.I4, "order-3"), (Invariant.I6, "")},
        ),
        (
            "order paid by the payment of another order",
            {"books": {"payments": (payment(order_no="order-2"), CLOSED_PAYMENT)}},
            {(Invariant.I1, "order-2"), (Invariant.I2, "order-1")},
        ),
        (
            "order paid by a payment with another amount",
            {"books": {"orders": (order(amount=2000), CLOSED_ORDER)}, "effects": {"effects": (effect(amount=2000),)}},
            {(Invariant.I2, "order-1")},
        ),
        (
            "merchant notified of paid, and it is not",
            {"effects": {"effects": (effect(), effect("order-2"))}},
            {(Invariant.I2, "order-2")},
        ),
        ("merchant never notified", {"effects": {"effects": ()}}, {(Invariant.I3, "order-1")}),
        (
            "merchant notified twice",
            {"effects": {"effects": (effect(again=("msg_2",)),)}},
            {(Invariant.I3, "order-1")},
        ),
        (
            "merchant notified of another amount",
            {"effects": {"effects": (effect(amount=1001),)}},
            {(Invariant.I3, "order-1")},
        ),
        (
            "merchant complains",
            {
                "effects": {
                    "violations": (
                        Violation(what="same_id_other_body", order_no="order-1", webhook_id="msg_1", sentence="…"),
                    )
                }
            },
            {(Invariant.I3, "order-1")},
        ),
        ("a version is missing", {"books": {"events": GOOD_BOOKS.events[1:]}}, {(Invariant.I4, "order-1")}),
        (
            "a version repeats",
            {"books": {"events": (*GOOD_BOOKS.events, EventRow(order_no="order-2", version=2))}},
            {(Invariant.I4, "order-2")},
        ),
        (
            "the order is ahead of its events",
            {"books": {"orders": (order(version=3), CLOSED_ORDER)}},
            {(Invariant.I4, "order-1")},
        ),
        (
            "events without an order",
            {"books": {"events": (*GOOD_BOOKS.events, EventRow(order_no="order-9", version=1))}},
            {(Invariant.I4, "order-9")},
        ),
        ("acknowledged, not stored", {"books": {"callbacks": ()}}, {(Invariant.I5, "order-1")}),
        (
            "acknowledged, and another body stored",
            {"ledger": {"acknowledged": (acknowledged(), acknowledged(body_sha256="cd"))}},
            {(Invariant.I5, "order-1")},
        ),
        (
            "a forged one was acknowledged",
            {"ledger": {"acknowledged": (acknowledged(), acknowledged(sent_as=SentAs.FORGED))}},
            {(Invariant.I5, "order-1")},
        ),
        (
            "a stale one was acknowledged",
            {"ledger": {"acknowledged": (acknowledged(), acknowledged(sent_as=SentAs.STALE))}},
            {(Invariant.I5, "order-1")},
        ),
        (
            "a refund is missing here",
            {"books": {"refunds": ()}},
            {(Invariant.I6, "")},
        ),
        (
            "what paid an order was given back",
            {
                "books": {
                    "refunds": tuple(replace(refund, out_trade_no="number-1") for refund in GOOD_BOOKS.refunds or ())
                }
            },
            {(Invariant.I2, "order-1")},
        ),
        (
            "more was given back of a payment than came",
            {
                "ledger": {"refunds": (replace(REFUND, amount=1001),)},
                "books": {
                    "refunds": tuple(
                        RefundRow(
                            account="main",
                            refund_no=f"refund-{amount}",
                            amount=amount,
                            currency="CNY",
                            out_trade_no="number-1",
                            reason="operator",
                        )
                        for amount in (1000, 1)
                    )
                },
            },
            {(Invariant.I6, "order-1")},
        ),
        (
            "the money of a second payment was given back in part",
            {
                "ledger": {"payments": (*GOOD_LEDGER.payments, replace(SECOND, refunded_amount=999))},
                "books": {"payments": (*GOOD_BOOKS.payments, SECOND_ROW)},
            },
            {(Invariant.I1, "order-1")},
        ),
        (
            "the order is paid by money that had gone back in the console",
            {"ledger": GONE},
            {(Invariant.I2, "order-1")},
        ),
        (
            "money that went back in the console, without a case",
            {
                "ledger": GONE,
                "books": {"orders": (PAYING, CLOSED_ORDER), "due": (DEADLINE,)},
                "effects": {"effects": ()},
            },
            {(Invariant.I1, "order-1")},
        ),
        (
            "a part that went back in the console, and the order is not paid",
            {
                "ledger": PART_GONE,
                "books": {"orders": (PAYING, CLOSED_ORDER), "due": (DEADLINE,), "cases": (case("refunded_outside"),)},
                "effects": {"effects": ()},
            },
            {(Invariant.I1, "order-1")},
        ),
        (
            "the merchant ships for money that had gone back",
            {
                "ledger": GONE,
                "books": {"orders": (PAYING, CLOSED_ORDER), "due": (DEADLINE,), "cases": (case("refunded_outside"),)},
            },
            {(Invariant.I2, "order-1")},
        ),
        (
            "a failed refund is held for done",
            {
                "books": {
                    "refunds": (
                        *(GOOD_BOOKS.refunds or ()),
                        RefundRow(account="main", refund_no="refund-2", amount=100, currency="CNY"),
                    )
                }
            },
            {(Invariant.I6, "")},
        ),
        (
            "work is overdue",
            {"books": {"due": (DueRow(table="inbox", order_no="order-1", due_at=NOW - timedelta(seconds=11)),)}},
            {(Invariant.I7, "order-1")},
        ),
        (
            "work was leased and forgotten",
            {
                "books": {
                    "due": (
                        DueRow(
                            table="outbox",
                            order_no="order-1",
                            due_at=NOW - timedelta(hours=1),
                            leased_until=NOW - timedelta(seconds=11),
                        ),
                    )
                }
            },
            {(Invariant.I7, "order-1")},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_single_break_is_caught(name: str, change: dict[str, Any], wanted: set[tuple[Invariant, str]]) -> None:
    assert set(broken(**change)) == wanted, name


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (
            "paid twice, and a case is open",
            {
                "ledger": {"payments": (*GOOD_LEDGER.payments, SECOND)},
                "books": {
                    "payments": (*GOOD_BOOKS.payments, SECOND_ROW),
                    "cases": (case("double_payment", "number-3"),),
                },
            },
        ),
        (
            "paid twice, and the channel has given the second payment back",
            {
                "ledger": {"payments": (*GOOD_LEDGER.payments, replace(SECOND, refunded_amount=1000))},
                "books": {"payments": (*GOOD_BOOKS.payments, SECOND_ROW)},
            },
        ),
        (
            "paid twice, it could not be given back, and a case is open",
            {
                "ledger": {"payments": (*GOOD_LEDGER.payments, SECOND)},
                "books": {
                    "payments": (*GOOD_BOOKS.payments, SECOND_ROW),
                    "cases": (case("refund_failed", "number-3"),),
                },
            },
        ),
        (
            "paid late for a closed order, and a case is open",
            {
                "books": {
                    "orders": (order(status="closed", paid_by=None), CLOSED_ORDER),
                    "cases": (case("paid_late"),),
                },
                "effects": {"effects": ()},
            },
        ),
        (
            "merchant returned 410",
            {"books": {"orders": (order(expects_effect=False), CLOSED_ORDER)}, "effects": {"effects": ()}},
        ),
        (
            "work that somebody holds",
            {
                "books": {
                    "due": (
                        DueRow(
                            table="inbox",
                            order_no="order-1",
                            due_at=NOW - timedelta(hours=1),
                            leased_until=NOW + timedelta(seconds=1),
                        ),
                    )
                }
            },
        ),
        *(
            (
                f"money that went back in the console, and the case {reason}",
                {
                    "ledger": GONE,
                    "books": {"orders": (PAYING, CLOSED_ORDER), "due": (DEADLINE,), "cases": (case(reason),)},
                    "effects": {"effects": ()},
                },
            )
            for reason in ("refunded_outside", "refund_amount_unknown")
        ),
        (
            "a part of it went back in the console, and nobody knows how much",
            {
                "ledger": PART_GONE,
                "books": {
                    "orders": (PAYING, CLOSED_ORDER),
                    "due": (DEADLINE,),
                    "cases": (case("refund_amount_unknown"),),
                },
                "effects": {"effects": ()},
            },
        ),
        ("a part of it went back in the console, and the rest paid the order", {"ledger": PART_GONE}),
        (
            "all of it went back in the console after it had come",
            {"ledger": GONE | {"refunds": (REFUND, replace(IN_CONSOLE, refunded_at=NOW + timedelta(seconds=1)))}},
        ),
        (
            "an operator has given back a part of what paid the order",
            {
                "books": {
                    "refunds": tuple(
                        replace(refund, out_trade_no="number-1", reason="operator")
                        for refund in GOOD_BOOKS.refunds or ()
                    )
                }
            },
        ),
        ("refunds that nodrop does not keep", {"books": {"refunds": None}}),
        (
            "refunded since",
            {"ledger": {"payments": (ledger_payment(status="refunded", refunded_amount=100), GOOD_LEDGER.payments[1])}},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_as_it_should_be_is_no_violation(name: str, change: dict[str, Any]) -> None:
    assert broken(**change) == [], name


def test_unknown_money_with_a_case_is_visible_and_not_lost() -> None:
    """The sums differ all the same: conservation has no excuse."""
    found = broken(
        ledger={"payments": (*GOOD_LEDGER.payments, SECOND)},
        books={"cases": (case("unknown_order", "number-3", None),)},
    )
    assert found == [(Invariant.I6, "")]


UNDER_WAY: dict[str, Any] = {
    "ledger": {"payments": (ledger_payment(status="unpaid"), GOOD_LEDGER.payments[1])},
    "effects": {"effects": ()},
}
"""The first payment is unpaid at the channel."""
IN_PROGRESS: dict[str, Any] = {
    "orders": (PAYING, CLOSED_ORDER),
    "payments": (OPEN, CLOSED_PAYMENT),
    "due": (QUERY, DEADLINE),
}
"""The first payment is open here."""
LATE_ORDER = order(status="closed", paid_by=None)


def sentences(books: dict[str, Any], placed: tuple[str, ...] = (), **changed: Any) -> list[tuple[Invariant, str]]:
    """The violations that the oracle finds in a payment that is under way, tampered with here or there."""
    ledger = replace(GOOD_LEDGER, **(UNDER_WAY["ledger"] | changed))
    found = check(
        ledger,
        replace(GOOD_EFFECTS, effects=()),
        replace(GOOD_BOOKS, **(IN_PROGRESS | books)),
        now=NOW,
        limits=LIMITS,
        placed=placed,
    )
    return [(violation.invariant, violation.sentence) for violation in found]


def test_a_payment_under_way_has_no_violation() -> None:
    assert sentences({}, placed=("order-1", "order-2")) == []


@pytest.mark.parametrize("status", ["created", "paying"])
def test_an_open_order_without_its_deadline_is_caught(status: str) -> None:
    [caught] = sentences({"orders": (replace(PAYING, status=status), CLOSED_ORDER), "due": (QUERY,)})
    assert caught == (Invariant.I7, f"the order is {status}, and no row ends it at its deadline")


def test_an_open_payment_that_nothing_queries_is_caught() -> None:
    [caught] = sentences({"due": (DEADLINE,)})
    assert caught == (Invariant.I7, "main/number-1 is open, and no row queries it")


def test_a_row_due_in_the_far_future_is_caught() -> None:
    assert sentences({"due": (replace(QUERY, due_at=NOW + timedelta(hours=1)), DEADLINE)}) == []
    [caught] = sentences({"due": (replace(QUERY, due_at=NOW + timedelta(days=365)), DEADLINE)})
    assert caught == (Invariant.I7, "pending is due 31536000 s after what it waits for, 3600 at most")


def test_a_deadline_long_after_its_order_is_caught() -> None:
    [caught] = sentences({"due": (QUERY, replace(DEADLINE, due_at=NOW + timedelta(hours=11)))})
    assert caught == (Invariant.I7, "pending is due 7200 s after what it waits for, 3600 at most")


def test_a_row_leased_into_the_far_future_is_caught() -> None:
    due = replace(QUERY, due_at=NOW)
    assert sentences({"due": (replace(due, leased_until=NOW + timedelta(seconds=20)), DEADLINE)}) == []
    [caught] = sentences({"due": (replace(due, leased_until=NOW + timedelta(seconds=999)), DEADLINE)})
    assert caught == (Invariant.I7, "pending is leased for 999 s more, 20 at most")


def test_an_order_that_was_placed_and_is_gone_is_caught() -> None:
    [caught] = sentences({}, placed=("order-1", "order-2", "order-9"))
    assert caught == (Invariant.I1, "the merchant was told that the order is placed, and it does not exist")


def test_a_payment_closed_here_and_payable_there_is_caught() -> None:
    payable = ledger_payment("number-2", status="unpaid", is_payable=True)
    [caught] = sentences({}, payments=(UNDER_WAY["ledger"]["payments"][0], payable))
    assert caught == (Invariant.I1, "main/number-2 is closed here, and the buyer can still pay it at the channel")


@pytest.mark.parametrize(
    ("status", "detail"), [("closed", "policy accept"), ("paying", "policy flag"), ("created", "policy refund")]
)
def test_an_old_case_of_late_money_excuses_no_order_that_it_has_paid_or_that_is_open(status: str, detail: str) -> None:
    """Late money that the account's policy accepts pays the order, and its case stays open beside it."""
    books = {
        "orders": (replace(LATE_ORDER, status=status), CLOSED_ORDER),
        "cases": (replace(case("paid_late"), detail=detail),),
        "due": (DEADLINE,),
    }
    assert broken(books=books, effects={"effects": ()}) == [(Invariant.I1, "order-1")]


@pytest.mark.parametrize(("kind", "by"), [("paid", "query"), ("double_payment", "callback"), ("paid_late", "operator")])
def test_an_order_that_was_paid_and_is_not_any_more_is_caught(kind: str, by: str) -> None:
    event = EventRow(order_no="order-1", version=2, kind=kind, by=by)
    books = {
        "orders": (LATE_ORDER, CLOSED_ORDER),
        "cases": (replace(case("paid_late"), detail="policy flag"),),
        "events": (GOOD_BOOKS.events[0], event, *GOOD_BOOKS.events[2:]),
    }
    assert broken(books=books, effects={"effects": ()}) == [(Invariant.I4, "order-1")]
    assert broken(books={"events": books["events"]}) == []


def test_more_than_the_rate_in_any_second_is_caught() -> None:
    times = [0.0, 0.9, 1.1, 1.2, 1.8]
    assert list(bounded_load(times, limit_per_s=4)) == []
    assert [violation.invariant for violation in bounded_load(times, limit_per_s=3)] == [Invariant.I8]


def test_the_rate_of_each_account_is_its_own() -> None:
    calls = [Arrival(at, account, "query", "") for account in ("m-1", "m-2") for at in (0.0, 0.5, 0.9)]
    assert list(bounded_loads(calls, limits_per_s={}, limit_per_s=3)) == []
    [caught] = bounded_loads(calls, limits_per_s={"m-2": 2}, limit_per_s=3)
    assert (caught.invariant, caught.sentence) == (Invariant.I8, "3 calls within one second, 2 allowed m-2")
    assert list(bounded_loads(calls, limits_per_s={"m-2": 2}, limit_per_s=3, window_s=0.75)) == []

"""The oracle of worlds: one made-up world without a fault, and one for each invariant that breaks it."""

import ast
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from simulator.kernel.deliveries import AcknowledgedCallback, SentAs
from simulator.kernel.ledger import PaymentStatus
from simulator.kernel.snapshot import LedgerPayment, LedgerSnapshot
from simulator.merchant.control import Effects
from simulator.merchant.notifications import Effect
from tests.simulation import oracle
from tests.simulation.oracle import Evidence, figures, judge

NOW = datetime(2026, 11, 25, tzinfo=UTC)
PAID_AT = NOW - timedelta(hours=3)
REF = {"account": "alipay", "out_trade_no": "01aa"}
ORDER = {
    "order_no": "W1-0", "amount": 100, "currency": "CNY", "status": "paid", "version": 2, "paid_by": REF,
    "expects_effect": True,
}  # fmt: skip
PAYMENT = {
    **REF, "order_no": "W1-0", "amount": 100, "currency": "CNY", "status": "paid", "channel_transaction_id": "t1",
}  # fmt: skip
EVENTS = [{"order_no": "W1-0", "version": 1, "kind": "placed"}, {"order_no": "W1-0", "version": 2, "kind": "paid"}]


class Rows:
    """Nodrop's rows as the oracle reads them."""

    def __init__(self, **books: Any) -> None:
        self.books = {"orders": [ORDER], "payments": [PAYMENT], "events": EVENTS, "refunds": [], **books}
        self.paid = [{"out_trade_no": "01aa", "by": "query", "at": (PAID_AT + timedelta(seconds=61)).isoformat()}]
        self.not_definite: list[str] = []

    async def fetchrow(self, sql: str, /, *_: object) -> Any:
        if sql == oracle._PAID:
            return (msgspec.json.encode(self.paid).decode(),)
        if sql == oracle._OPEN:
            return (msgspec.json.encode(self.not_definite).decode(),)
        return {"books": msgspec.json.encode(self.books).decode(), "now": NOW}


def payment(**changes: Any) -> LedgerPayment:
    plain = LedgerPayment(
        account="alipay", merchant_id="m1", out_trade_no="01aa", amount=100, currency="CNY", status=PaymentStatus.PAID,
        transaction_id="t1", paid_at=PAID_AT,
    )  # fmt: skip
    return replace(plain, **changes)


def evidence(**changes: Any) -> Evidence:
    effect = Effect(order_no="W1-0", webhook_id="msg_1", version=2, amount=100, currency="CNY", late=False, at=NOW)
    plain = Evidence(
        ledger=LedgerSnapshot(taken_at=NOW, payments=(payment(),), payments_total=1),
        effects=Effects(effects=(effect,)),
        placed=("W1-0",),
        calls={"alipay": [1.0, 2.0]},
        pages={"W1-0": "paid"},
        log=('{"event":"order_paid"}',),
        secrets=("whsec_abc",),
    )
    return replace(plain, **changes)


def ledger(*payments: LedgerPayment, **changes: Any) -> dict[str, Any]:
    return {"ledger": LedgerSnapshot(taken_at=NOW, payments=payments, payments_total=len(payments), **changes)}


async def test_world_without_a_fault_breaks_nothing() -> None:
    found, ways = await judge(Rows(), evidence())
    assert found == []
    assert [(way.by, way.after_s) for way in ways] == [("query", 61.0)]
    sums = figures(evidence(), found, ways, views=3)
    assert (sums.orders, sums.paid, sums.lost, sums.false, sums.calls_per_order) == (1, 1, 0, 0, 2.0)
    assert (sums.times.p50_s, sums.by_channel["alipay"].max_s, sums.by) == (61.0, 61.0, {"query": 1})


_UNKNOWN = AcknowledgedCallback(
    merchant_id="m1", out_trade_no="01aa", callback_id="cb_1", body_sha256="00", sent_as=SentAs.GENUINE, at=NOW
)
_OPEN = {**ORDER, "status": "paying", "version": 1, "paid_by": None}
_LONG_DUE = {"table": "callbacks", "order_no": "W1-0", "due_at": (NOW - timedelta(hours=1)).isoformat()}

Broken = tuple[str, Callable[[], Evidence], dict[str, Any]]
BROKEN: list[Broken] = [
    ("I1", lambda: evidence(**ledger(payment(), payment(out_trade_no="01bb", transaction_id="t2"))), {}),
    ("I1", lambda: evidence(placed=("W1-0", "W1-1")), {}),
    ("I2", lambda: evidence(**ledger(payment(status=PaymentStatus.UNPAID, paid_at=None))), {}),
    ("I2", lambda: evidence(**ledger(payment(amount=101))), {}),
    ("I3", lambda: evidence(effects=Effects()), {}),
    ("I4", evidence, {"events": EVENTS[1:]}),
    ("I5", lambda: evidence(**ledger(payment(), acknowledged=(_UNKNOWN,))), {}),
    ("I6", lambda: evidence(**ledger(payment(currency="USD"))), {}),
    ("I7", evidence, {"due": [_LONG_DUE]}),
    ("I7", lambda: evidence(effects=Effects(), pages={}), {"orders": [_OPEN], "events": EVENTS[:1]}),
    ("I8", lambda: evidence(calls={"alipay": [3.0 + n / 100 for n in range(51)]}), {}),
    ("I9", lambda: evidence(pages={"W1-0": "processing"}), {}),
    ("I9", lambda: evidence(denials=(("W1-0", "its page showed closed"),)), {}),
    ("I10", lambda: evidence(log=('{"event":"x","reason":"whsec_abc"}',)), {}),
]


@pytest.mark.parametrize(
    ("invariant", "make", "books"), BROKEN, ids=[f"{row[0]}-{at}" for at, row in enumerate(BROKEN)]
)
async def test_broken_world_is_seen(invariant: str, make: Callable[[], Evidence], books: dict[str, Any]) -> None:
    found, _ = await judge(Rows(**books), make())
    assert invariant in {each.invariant.split(" ")[0] for each in found}


async def test_order_that_never_ends_is_stuck() -> None:
    rows = Rows()
    rows.not_definite = ["W1-0"]
    found, _ = await judge(rows, evidence())
    assert [(each.invariant, each.order_no) for each in found] == [("I7 no stuck work", "W1-0")]


async def test_paid_before_the_money_came_is_false() -> None:
    rows = Rows()
    rows.paid[0]["at"] = (PAID_AT - timedelta(seconds=30)).isoformat()
    early = Effect(order_no="W1-0", webhook_id="m", version=2, amount=100, currency="CNY", late=False, at=PAID_AT)
    early = replace(early, at=PAID_AT - timedelta(seconds=29))
    found, _ = await judge(rows, evidence(effects=Effects(effects=(early,))))
    assert [each.invariant for each in found] == ["I2 no false paid"] * 2


async def test_lost_and_false_orders_are_counted() -> None:
    made = evidence(**ledger(payment(), payment(out_trade_no="01bb", transaction_id="t2")))
    found, ways = await judge(Rows(), made)
    assert figures(made, found, ways, views=0).lost == 1


def test_oracle_knows_nothing_of_the_product() -> None:
    product = {"api", "channels", "cli", "core", "flows", "runtime", "storage", "worker"}
    waiting, seen = ["tests.simulation.oracle"], set[str]()
    root = Path(__file__).parents[2]
    while waiting:
        name = waiting.pop()
        path = root.joinpath(*name.split(".")).with_suffix(".py")
        path = path if path.exists() else root.joinpath(*name.split("."), "__init__.py")
        if name in seen or not path.exists():
            continue
        seen.add(name)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                waiting.append(node.module or "")
            elif isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names]
    assert "simulator.oracle.invariants" in seen
    assert [name for name in seen if name.partition(".")[0] in product] == []

"""The invariants: the channel's ledger and the merchant's effects are compared with nodrop's own rows.

Pure: the caller fetches the ledger and the effects over HTTP and reads the rows with SQL, after the faults have stopped
and a quiet time has passed. The ledger is the truth; a case excuses only what it is for.

    I1 no loss          I2 no false paid     I3 one effect      I4 versions have no gap and no repeat
    I5 acknowledged callbacks are stored     I6 conservation    I7 no stuck work     I8 bounded load

I7 and I8 are in `simulator.oracle.work`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime

from simulator.kernel.deliveries import SentAs
from simulator.kernel.ledger import RefundStatus
from simulator.kernel.snapshot import LedgerPayment, LedgerRefund, LedgerSnapshot
from simulator.merchant.control import Effects
from simulator.oracle.books import Books, OrderRow, PaymentRef, PaymentRow
from simulator.oracle.violations import Invariant, Violation
from simulator.oracle.work import Limits, no_stuck_work, open_work_has_rows

FIRST_VERSION = 1
MISMATCHES = frozenset({"amount_mismatch", "currency_mismatch"})
UNKNOWN_SUM = "refund_amount_unknown"
GONE_BACK = ("refunded_outside", UNKNOWN_SUM)
"""Cases about money that went back without a refund of nodrop's."""

ACCEPTED = "policy accept"
"""Detail of a case of late money that has paid its order: it excuses no order that is not paid."""


def check(
    ledger: LedgerSnapshot,
    effects: Effects,
    books: Books,
    *,
    now: datetime,
    limits: Limits,
    placed: Iterable[str] = (),
) -> list[Violation]:
    """Return all violations of I1 to I7.

    `now` is the database's clock when the rows were read; `placed` are the numbers of the orders that the merchant was
    told to be placed.
    """
    by_ref = {PaymentRef(payment.account, payment.out_trade_no): payment for payment in ledger.payments}
    return [
        *no_loss(by_ref, books, ledger.refunds),
        *no_order_is_gone(books, placed),
        *nothing_payable_is_closed(by_ref, books),
        *no_false_paid(by_ref, effects, books),
        *one_payment_one_order(ledger, books),
        *paid_money_stays(books),
        *paid_money_is_there(by_ref, ledger.refunds, books),
        *one_effect(effects, books),
        *legal_versions(books),
        *paid_wins(books),
        *durable_acknowledgement(ledger, books),
        *conservation(ledger, books),
        *no_more_than_came(books),
        *no_stuck_work(books, now=now, limits=limits),
        *open_work_has_rows(books),
    ]


# -- I1 ----------------------------------------------------------------------------------------------------------------


def no_loss(
    ledger: dict[PaymentRef, LedgerPayment], books: Books, ledger_refunds: Iterable[LedgerRefund] = ()
) -> Iterator[Violation]:
    """Check that a payment that is paid at the channel is paid here with its order, or has a case, or paid no order and
    was refunded in full by nodrop.
    """
    outside = _refunded_in_console(ledger_refunds)
    rows = {row.ref: row for row in books.payments}
    orders = {order.order_no: order for order in books.orders}
    cases = {(case.account, case.out_trade_no, case.reason) for case in books.cases if case.detail != ACCEPTED}
    for ref, payment in ledger.items():
        if not payment.status.was_paid:
            continue
        row = rows.get(ref)
        order = None if row is None else orders.get(row.order_no)
        wrong = _loss_reason(ref, payment, row, order, cases, outside[ref])
        if wrong is not None:
            yield _violation(Invariant.I1, "" if row is None else row.order_no, f"{_shown(ref)} was paid: {wrong}")


def _loss_reason(
    ref: PaymentRef,
    payment: LedgerPayment,
    row: PaymentRow | None,
    order: OrderRow | None,
    cases: set[tuple[str | None, str | None, str]],
    outside: int,
) -> str | None:
    """Return why the money of this payment is lost, or None. `outside` was refunded in the console."""

    def has_case(*reasons: str) -> bool:
        return any((ref.account, ref.out_trade_no, reason) in cases for reason in reasons)

    if row is None:
        return None if has_case("unknown_order") else "nodrop does not have it, and no case is open"
    if order is None:
        return "its order does not exist"
    if (row.amount, row.currency) != (payment.amount, payment.currency):
        return None if has_case(*MISMATCHES) else "with a wrong amount, and no case is open"
    if row.status != "paid":
        return f"it is {row.status} here"
    if (order.paid_by == ref and order.status == "paid") or has_case("refund_failed", UNKNOWN_SUM):
        return None
    if payment.refunded_amount == payment.amount:
        has_reason = not outside or has_case(*GONE_BACK)
        return None if has_reason else "it was refunded in the console, and no case is open"
    wanted = {"paid": ("double_payment",), "closed": ("paid_late",)}.get(order.status, ())
    return None if has_case(*wanted) else f"its order is {order.status} without it, and no case is open"


def no_order_is_gone(books: Books, placed: Iterable[str]) -> Iterator[Violation]:
    """Check that every order that the merchant was told to be placed exists."""
    for order_no in sorted(set(placed) - {order.order_no for order in books.orders}):
        yield _violation(
            Invariant.I1, order_no, "the merchant was told that the order is placed, and it does not exist"
        )


def nothing_payable_is_closed(ledger: dict[PaymentRef, LedgerPayment], books: Books) -> Iterator[Violation]:
    """Check that no payment is closed here while its channel still takes the buyer's money for it."""
    for row in books.payments:
        if row.status == "closed" and row.ref in ledger and ledger[row.ref].is_payable:
            sentence = f"{_shown(row.ref)} is closed here, and the buyer can still pay it at the channel"
            yield _violation(Invariant.I1, row.order_no, sentence)


# -- I2 ----------------------------------------------------------------------------------------------------------------


def no_false_paid(ledger: dict[PaymentRef, LedgerPayment], effects: Effects, books: Books) -> Iterator[Violation]:
    """Check that what is paid here, or has an effect at the merchant, is paid at the channel with the same terms."""
    paid_orders: set[str] = set()
    rows = {row.ref: row for row in books.payments}
    for row in books.payments:
        if row.status == "paid":
            wrong = _false_paid_reason(row, ledger.get(row.ref))
            if wrong is None:
                paid_orders.add(row.order_no)
            else:
                yield _violation(Invariant.I2, row.order_no, f"{_shown(row.ref)} is paid here: {wrong}")
    for order in books.orders:
        by = None if order.paid_by is None else rows.get(order.paid_by)
        if order.status == "paid" and (by is None or by.order_no != order.order_no or by.status != "paid"):
            yield _violation(Invariant.I2, order.order_no, "the order is paid by no paid payment of its own")
        elif order.status == "paid" and by is not None and (by.amount, by.currency) != (order.amount, order.currency):
            yield _violation(Invariant.I2, order.order_no, "the order is paid by a payment with another amount")
    statuses = {order.order_no: order.status for order in books.orders}
    for effect in effects.effects:
        if effect.order_no not in paid_orders:
            yield _violation(Invariant.I2, effect.order_no, "the merchant was notified of paid, and no payment is paid")
        elif statuses.get(effect.order_no, "paid") != "paid":
            yield _violation(Invariant.I2, effect.order_no, "the merchant was notified of paid, and the order is not")


def one_payment_one_order(ledger: LedgerSnapshot, books: Books) -> Iterator[Violation]:
    """Check that no two payments are paid here by one payment at the channel, whatever their accounts are called."""
    transactions = {payment.transaction_id for payment in ledger.payments if payment.status.was_paid}
    paid_by: dict[str, PaymentRow] = {}
    for row in books.payments:
        transaction = row.channel_transaction_id
        if row.status != "paid" or transaction is None or transaction not in transactions:
            continue
        first = paid_by.setdefault(transaction, row)
        if first is not row:
            sentence = f"{_shown(row.ref)} and {_shown(first.ref)} are paid by one payment at the channel"
            yield _violation(Invariant.I2, row.order_no, sentence)


def paid_money_stays(books: Books) -> Iterator[Violation]:
    """Check that no refund of nodrop's returned the money that paid an order, unless an operator wanted that."""
    paid_by = {order.paid_by: order.order_no for order in books.orders if order.paid_by is not None}
    for refund in books.refunds or ():
        if refund.ref in paid_by and refund.reason != "operator":
            sentence = f"refund {refund.refund_no} returned the money that paid the order"
            yield _violation(Invariant.I2, paid_by[refund.ref], sentence)


def paid_money_is_there(
    ledger: dict[PaymentRef, LedgerPayment], refunds: Iterable[LedgerRefund], books: Books
) -> Iterator[Violation]:
    """Check that no order was paid by money all of which had gone back in the moment in which it came."""
    at_once: Counter[PaymentRef] = Counter()
    for refund in refunds:
        ref = PaymentRef(refund.account, refund.out_trade_no)
        paid_at = None if ref not in ledger else ledger[ref].paid_at
        if refund.in_console and refund.refunded_at is not None and paid_at is not None:
            at_once[ref] += refund.amount if refund.refunded_at <= paid_at else 0
    for order in books.orders:
        if (
            order.paid_by is not None
            and order.paid_by in ledger
            and at_once[order.paid_by] >= ledger[order.paid_by].amount
        ):
            yield _violation(Invariant.I2, order.order_no, "the order is paid by money that had gone back before")


def _refunded_in_console(refunds: Iterable[LedgerRefund]) -> Counter[PaymentRef]:
    """Return what was refunded in the channels' consoles, by payment."""
    sums: Counter[PaymentRef] = Counter()
    for refund in refunds:
        if refund.in_console and refund.status is RefundStatus.SUCCEEDED:
            sums[PaymentRef(refund.account, refund.out_trade_no)] += refund.amount
    return sums


def _false_paid_reason(row: PaymentRow, payment: LedgerPayment | None) -> str | None:
    """Return why this payment must not be paid here, or None."""
    if payment is None:
        return "the channel does not know it"
    if not payment.status.was_paid:
        return f"it is {payment.status} at the channel"
    if (row.amount, row.currency) != (payment.amount, payment.currency):
        return f"{row.amount} {row.currency} instead of {payment.amount} {payment.currency}"
    if row.channel_transaction_id != payment.transaction_id:
        return "under another transaction of the channel"
    return None


# -- I3 ----------------------------------------------------------------------------------------------------------------


def one_effect(effects: Effects, books: Books) -> Iterator[Violation]:
    """Check that every paid order has one effect at the merchant, with its amount, and there is no violation there."""
    by_order = {effect.order_no: effect for effect in effects.effects}
    for complaint in effects.violations:
        yield _violation(Invariant.I3, complaint.order_no, f"{complaint.what}: {complaint.sentence}")
    for order in books.orders:
        effect = by_order.get(order.order_no)
        if effect is None:
            if order.status == "paid" and order.expects_effect:
                yield _violation(Invariant.I3, order.order_no, "the order is paid and the merchant was never notified")
        elif effect.again:
            yield _violation(Invariant.I3, order.order_no, f"{1 + len(effect.again)} paid effects at the merchant")
        elif (effect.amount, effect.currency) != (order.amount, order.currency):
            yield _violation(Invariant.I3, order.order_no, "the merchant was notified of another amount")


# -- I4 ----------------------------------------------------------------------------------------------------------------


def legal_versions(books: Books) -> Iterator[Violation]:
    """Check that the events of an order are numbered 1, 2, 3 … up to its version."""
    versions: dict[str, list[int]] = {}
    for event in books.events:
        versions.setdefault(event.order_no, []).append(event.version)
    for order in books.orders:
        found = sorted(versions.pop(order.order_no, []))
        if found != list(range(FIRST_VERSION, order.version + 1)):
            yield _violation(Invariant.I4, order.order_no, f"version {order.version} with events {_abbreviated(found)}")
    for order_no in versions:
        yield _violation(Invariant.I4, order_no, "there are events and no order")


def paid_wins(books: Books) -> Iterator[Violation]:
    """Check that an order that was paid once is paid still."""
    statuses = {order.order_no: order.status for order in books.orders}
    for event in books.events:
        status = statuses.get(event.order_no, "paid")
        if event.is_of_paid_order and status != "paid":
            sentence = f"the order was paid with version {event.version} ({event.kind}), and is {status} now"
            yield _violation(Invariant.I4, event.order_no, sentence)


def _abbreviated(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:20])) + (" …" if len(numbers) > 20 else "")  # noqa: PLR2004 - a line's worth


# -- I5 ----------------------------------------------------------------------------------------------------------------


def durable_acknowledgement(ledger: LedgerSnapshot, books: Books) -> Iterator[Violation]:
    """Check that acknowledged callbacks are stored, and that no forged or stale one was acknowledged."""
    accounts = {payment.merchant_id: payment.account for payment in ledger.payments}
    orders = {(row.account, row.out_trade_no): row.order_no for row in books.payments}
    stored = {(row.account, row.notification_id, row.body_sha256) for row in books.callbacks}
    for callback in ledger.acknowledged:
        account = accounts.get(callback.merchant_id, "")
        order_no = orders.get((account, callback.out_trade_no), "")
        if callback.sent_as in (SentAs.FORGED, SentAs.STALE):
            yield _violation(
                Invariant.I5, order_no, f"callback {callback.callback_id} was {callback.sent_as} and accepted"
            )
        elif (account, callback.callback_id, callback.body_sha256) not in stored:
            yield _violation(Invariant.I5, order_no, f"acknowledged callback {callback.callback_id} is not stored")


# -- I6 ----------------------------------------------------------------------------------------------------------------


def conservation(ledger: LedgerSnapshot, books: Books) -> Iterator[Violation]:
    """Check that sums of paid payments agree by account and currency, and those of succeeded refunds as well.

    Refunds that the merchant made in the console are not in nodrop's books.
    """
    there = _sums((p.account, p.currency, p.amount) for p in ledger.payments if p.status.was_paid)
    here = _sums((row.account, row.currency, row.amount) for row in books.payments if row.status == "paid")
    yield from _differences("paid", there, here)
    if books.refunds is not None:
        ours = (
            refund for refund in ledger.refunds if refund.status is RefundStatus.SUCCEEDED and not refund.in_console
        )
        there = _sums((refund.account, refund.currency, refund.amount) for refund in ours)
        here = _sums((row.account, row.currency, row.amount) for row in books.refunds)
        yield from _differences("refunded", there, here)


def no_more_than_came(books: Books) -> Iterator[Violation]:
    """Check that the refunds of one payment, of which there may be several, are together no more than it."""
    sums: Counter[PaymentRef] = Counter()
    for refund in books.refunds or ():
        sums[refund.ref] += refund.amount
    for row in books.payments:
        if sums[row.ref] > row.amount:
            sentence = f"{_shown(row.ref)}: {sums[row.ref]} {row.currency} refunded of {row.amount}"
            yield _violation(Invariant.I6, row.order_no, sentence)


def _sums(amounts: Iterable[tuple[str, str, int]]) -> Counter[tuple[str, str]]:
    sums: Counter[tuple[str, str]] = Counter()
    for account, currency, amount in amounts:
        sums[account, currency] += amount
    return sums


def _differences(kind: str, there: Counter[tuple[str, str]], here: Counter[tuple[str, str]]) -> Iterator[Violation]:
    for account, currency in sorted(there.keys() | here.keys()):
        sum_there, sum_here = there[account, currency], here[account, currency]
        if sum_there != sum_here:
            sentence = f"{account}: {sum_there} {currency} {kind} at the channel, {sum_here} here"
            yield _violation(Invariant.I6, "", sentence)


def _violation(invariant: Invariant, order_no: str, sentence: str) -> Violation:
    return Violation(invariant=invariant, order_no=order_no, sentence=sentence)


def _shown(ref: PaymentRef) -> str:
    return f"{ref.account}/{ref.out_trade_no}"

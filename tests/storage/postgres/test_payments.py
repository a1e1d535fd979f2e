"""Payments by any id that a channel may name them by."""

import pytest

from core.lifecycle import PaymentTerms
from core.order import Origin, PaymentKey, PaymentStatus
from storage.postgres.database import Database
from storage.postgres.orders import find_named_payment
from storage.postgres.payments import find_payments_by_ids
from tests.storage.postgres.tools import closed, commit_evidence, number, paid, placed, terms_of


def watched(out_trade_no: str, reference: str) -> PaymentTerms:
    return terms_of(PaymentKey("alipay", out_trade_no), origin=Origin.WATCHED, channel_reference=reference)


async def test_a_payment_is_found_by_its_number_its_transaction_and_its_reference(db: Database) -> None:
    await placed(db, "A-1", payment=watched("1001", "ref-1"))
    key = PaymentKey("alipay", "1001")
    await commit_evidence(db, "A-1", paid(key=key, transaction="t-1"), key=key)
    for id_ in ("1001", "ref-1", "t-1"):
        found = await find_payments_by_ids(db, "alipay", ["nobody", id_, ""])
        assert {known: payment.order_no for known, payment in found.items()} == {id_: "A-1"}
    assert await find_payments_by_ids(db, "alipay", []) == {}


async def test_open_closed_and_paid_payments_are_found_at_their_own_account_only(db: Database) -> None:
    for order_no in ("A-1", "A-2", "A-3"):
        await placed(db, order_no)
    await commit_evidence(db, "A-2", closed("A-2"))
    await commit_evidence(db, "A-3", paid("A-3"))
    numbers = [number(order_no).out_trade_no for order_no in ("A-1", "A-2", "A-3")]
    found = await find_payments_by_ids(db, "alipay", numbers)
    assert [found[id_].status for id_ in numbers] == [PaymentStatus.OPEN, PaymentStatus.CLOSED, PaymentStatus.PAID]
    assert await find_payments_by_ids(db, "stripe", numbers) == {}


async def test_an_id_of_two_payments_is_first_of_all_a_number(db: Database) -> None:
    await placed(db, "A-1", payment=watched("1001", "1002"))
    await placed(db, "A-2", payment=watched("1002", "ref-2"))
    await placed(db, "A-3", payment=watched("1003", "ref-2"))
    found = await find_payments_by_ids(db, "alipay", ["1002", "ref-2"])
    assert found["1002"].order_no == found["ref-2"].order_no == "A-2"


async def test_text_that_no_row_can_hold_finds_nothing(db: Database) -> None:
    assert await find_payments_by_ids(db, "alipay", ["a\0b", "\ud800"]) == {}


@pytest.mark.parametrize(
    ("ids", "order_no"),
    [
        (("WC-7", "ref-1"), "A-1"),
        (("1001", "ref-1"), "A-1"),
        (("1002", "1001", "ref-1"), "A-1"),
        # the object of A-1 names A-2 and not its own number: A-2 is queried, and is not paid by this
        (("1002", "ref-1"), "A-2"),
        (("alipay-A-3", "1001", "ref-1"), "A-3"),
        (("WC-8", "ref-8"), None),
    ],
)
async def test_a_message_finds_its_payment_by_any_of_its_ids(
    db: Database, ids: tuple[str, ...], order_no: str | None
) -> None:
    await placed(db, "A-1", payment=watched("1001", "ref-1"))
    await placed(db, "A-2", payment=watched("1002", "ref-2"))
    await placed(db, "A-3")
    named = await find_named_payment(db, "alipay", paid(key=PaymentKey("alipay", ids[0]), ids=ids, transaction="t-9"))
    assert (None if named is None else named[0].order.order_no) == order_no
    assert named is None or named[1].order_no == order_no

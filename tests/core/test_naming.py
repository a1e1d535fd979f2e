"""The payment that evidence with several ids is about."""

import pytest
from msgspec.structs import replace

from core.evidence import Evidence
from core.lifecycle import is_surely_named, named_payment, other_named, plan_callback
from core.order import Origin, Payment, PaymentKey, PaymentStatus
from tests.core.states import NOW, a_payment, paid, paid_payment

OURS = a_payment(PaymentKey("alipay", "0a1b2c3d4e5f"), channel_reference="cs-ours")
SHOP = a_payment(PaymentKey("alipay", "1001"), origin=Origin.WATCHED, channel_reference="5C1")
OTHER = a_payment(PaymentKey("alipay", "1002"), origin=Origin.WATCHED, channel_reference="5C2")
KNOWN = (OURS, SHOP, OTHER)


def about(*ids: str, number: str = "") -> Evidence:
    """Evidence whose object has these ids."""
    return paid(PaymentKey("alipay", number or ids[0]), ids=ids, channel_transaction_id="t-9")


def found_by(evidence: Evidence, known: tuple[Payment, ...] = KNOWN) -> dict[str, Payment]:
    """As the storage finds them: by number, transaction or reference."""
    found: dict[str, Payment] = {}
    for payment in known:
        ids = (payment.out_trade_no, payment.channel_reference, payment.channel_transaction_id)
        found |= {id_: payment for id_ in ids if id_ is not None and id_ in evidence.every_id}
    return found


@pytest.mark.parametrize(
    ("ids", "named"),
    [
        (("1001", "5C1"), SHOP),
        (("WC-1001", "5C1"), SHOP),
        (("1001",), SHOP),
        # a customer with the number of another payment
        (("1002", "WC-1001", "5C1"), SHOP),
        (("1001", "1002"), SHOP),
        # ours comes first, wherever it stands
        (("1001", "5C1", "0a1b2c3d4e5f"), OURS),
        (("5C1", "cs-ours"), OURS),
        (("WC-1003", "5C3"), None),
    ],
)
def test_a_message_is_about_the_payment_that_its_ids_name(ids: tuple[str, ...], named: Payment | None) -> None:
    evidence = about(*ids)
    assert named_payment(evidence.every_id, found_by(evidence)) == named


def test_a_message_is_about_the_payment_that_has_its_transaction() -> None:
    payment = paid_payment(PaymentKey("alipay", "1003"), origin=Origin.WATCHED, channel_transaction_id="t-9")
    evidence = about("1001", "WC-7")
    assert named_payment(evidence.every_id, found_by(evidence, (SHOP, payment))) == payment


@pytest.mark.parametrize(
    ("payment", "ids", "is_sure"),
    [
        (OURS, (OURS.out_trade_no,), True),
        (SHOP, (SHOP.out_trade_no,), False),
        (SHOP, ("5C1",), True),
    ],
)
def test_a_watched_number_may_be_another_merchants_at_another_account(
    payment: Payment, ids: tuple[str, ...], is_sure: bool
) -> None:
    assert is_surely_named(payment, ids) == is_sure


@pytest.mark.parametrize(
    ("ids", "other"),
    [
        (("5C1",), None),
        (("WC-1001", '{"order_id":7}', "5C1"), None),
        (("1001", "5C1"), None),
        (("0a1b2c3d4e5f", "5C1"), OURS),
        (("0a1b2c3d4e5f", "1001", "5C1"), OURS),
        (("1002", "5C1"), OTHER),
        # the object has the watched number too: 1002 may be a customer
        (("1002", "1001", "5C1"), None),
    ],
)
def test_another_payment_that_is_known_beats_the_watch(ids: tuple[str, ...], other: Payment | None) -> None:
    evidence = about(*ids, number=SHOP.out_trade_no)
    assert other_named(SHOP, evidence, found_by(evidence)) == other


def test_the_channels_id_as_the_number_of_a_watched_payment_confirms_nothing() -> None:
    watched = a_payment(PaymentKey("alipay", "5C1"), origin=Origin.WATCHED)
    evidence = about("1002", "5C1", number="5C1")
    assert other_named(watched, evidence, found_by(evidence, (watched, OTHER))) == OTHER


@pytest.mark.parametrize(
    ("payment", "ids", "has_object"),
    [
        (OURS, ("0a1b2c3d4e5f", "cs-ours"), True),
        (OURS, ("WC-1001", "cs-ours"), True),
        (SHOP, ("WC-1001", "5C1"), True),
        (SHOP, ("1001",), False),
        (a_payment(PaymentKey("alipay", "1001"), origin=Origin.WATCHED), ("1001",), True),
    ],
)
def test_a_number_alone_names_no_object_of_a_payment_that_is_watched_by_another_id(
    payment: Payment, ids: tuple[str, ...], *, has_object: bool
) -> None:
    assert payment.has_object(*ids) is has_object


@pytest.mark.parametrize("amount", [8888, 1])
def test_a_callback_that_has_only_the_number_of_a_watched_payment_is_a_reason_to_query(amount: int) -> None:
    named = paid(SHOP.key, ids=("1001", "pi-7"), amount=amount)
    for payment in (SHOP, replace(SHOP, status=PaymentStatus.PAID, channel_transaction_id="t-8", paid_at=NOW)):
        plan = plan_callback(payment, named, trusts_callback=True)
        assert (plan.commits, plan.queries, plan.differs) == (False, True, False)
    sure = plan_callback(SHOP, replace(named, ids=("1001", "5C1")), trusts_callback=True)
    assert (sure.commits, sure.differs) == (True, amount != 8888)

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from core.evidence import APPROVAL_HINT, ID_CHARACTERS_MAX, Approved, Evidence, Paid, Unclear, hint_of, kind_of
from tests.core.states import EVIDENCE_KINDS, NOW, paid, refunded

PAID_ELSEWHERE = Paid(
    channel_account="other:M2",
    out_trade_no="paypal-000001",
    amount=1,
    currency="JPY",
    channel_transaction_id="t-1",
)
APPROVED_ELSEWHERE = Approved(channel_account="other:M2", out_trade_no="paypal-000001", amount=1, currency="JPY")

decoder: msgspec.json.Decoder[Evidence] = msgspec.json.Decoder(Evidence)


@pytest.mark.parametrize("make", EVIDENCE_KINDS)
def test_evidence_is_the_same_after_encoding_and_decoding(make: Callable[..., Evidence]) -> None:
    for evidence in (make(), make(amount=1, currency="JPY", channel_transaction_id="t-2", at=NOW)):
        assert decoder.decode(msgspec.json.encode(evidence)) == evidence


def test_a_decoded_time_has_its_zone() -> None:
    at = datetime(2026, 3, 1, 20, 0, tzinfo=timezone(timedelta(hours=8)))
    decoded = decoder.decode(msgspec.json.encode(paid(at=at)))
    assert decoded.at == at == NOW


def test_each_kind_of_evidence_has_one_name() -> None:
    assert [kind_of(make()) for make in EVIDENCE_KINDS] == [
        "paid",
        "refunded",
        "unpaid",
        "closed",
        "missing",
        "unclear",
    ]


def test_every_id_is_named_once_and_the_number_first() -> None:
    evidence = paid(ids=("5C1", "", "t-1", "x" * (ID_CHARACTERS_MAX + 1), "1001"), channel_transaction_id="t-1")
    assert evidence.every_id == (evidence.out_trade_no, "5C1", "t-1", "1001")


@pytest.mark.parametrize("make", [paid, refunded])
@pytest.mark.parametrize("missing", ["amount", "currency", "channel_transaction_id"])
def test_evidence_of_money_requires_amount_currency_and_transaction(
    make: Callable[..., Evidence], missing: str
) -> None:
    fields: dict[str, Any] = msgspec.to_builtins(make())
    del fields[missing]
    with pytest.raises(msgspec.ValidationError, match=missing):
        msgspec.convert(fields, Evidence)


@pytest.mark.parametrize("amount", ["8888", 8888.5, None, True])
def test_an_amount_is_a_whole_number_of_minor_units(amount: object) -> None:
    with pytest.raises(msgspec.ValidationError, match="amount"):
        msgspec.convert(msgspec.to_builtins(paid()) | {"amount": amount}, Evidence)


@pytest.mark.parametrize("evidence", [PAID_ELSEWHERE, APPROVED_ELSEWHERE], ids=["paid", "approved"])
def test_a_hint_names_a_payment_of_the_account_and_nothing_else(evidence: Evidence) -> None:
    """Amount, currency, transaction and merchant of a message that anybody may have written are not compared."""
    hint = hint_of(evidence, "paypal")
    assert (hint.channel_account, hint.out_trade_no) == ("paypal", "paypal-000001")
    assert (hint.amount, hint.currency, hint.channel_transaction_id) == (None, None, None)
    assert isinstance(hint, Unclear)
    assert hint.reason == (APPROVAL_HINT if isinstance(evidence, Approved) else "not_wholly_signed")

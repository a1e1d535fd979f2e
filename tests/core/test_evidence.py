from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from core.evidence import Evidence, kind_of
from tests.core.states import EVERY_KIND, NOW, paid, refunded

decoder: msgspec.json.Decoder[Evidence] = msgspec.json.Decoder(Evidence)


@pytest.mark.parametrize("make", EVERY_KIND)
def test_evidence_comes_back_from_the_inbox_as_it_went_in(make: Callable[..., Evidence]) -> None:
    for evidence in (make(), make(amount=1, currency="JPY", channel_transaction_id="t-2", at=NOW)):
        assert decoder.decode(msgspec.json.encode(evidence)) == evidence


def test_a_time_comes_back_with_its_zone() -> None:
    at = datetime(2026, 3, 1, 20, 0, tzinfo=timezone(timedelta(hours=8)))
    again = decoder.decode(msgspec.json.encode(paid(at=at)))
    assert again.at == at == NOW


def test_each_kind_has_its_one_word() -> None:
    assert [kind_of(make()) for make in EVERY_KIND] == ["paid", "refunded", "unpaid", "closed", "missing", "unclear"]


@pytest.mark.parametrize("make", [paid, refunded])
@pytest.mark.parametrize("missing", ["amount", "currency", "channel_transaction_id"])
def test_money_cannot_be_told_of_without_saying_how_much_of_what_and_by_what_number(
    make: Callable[..., Evidence], missing: str
) -> None:
    told: dict[str, Any] = msgspec.to_builtins(make())
    del told[missing]
    with pytest.raises(msgspec.ValidationError, match=missing):
        msgspec.convert(told, Evidence)


@pytest.mark.parametrize("amount", ["8888", 8888.5, None, True])
def test_an_amount_is_a_whole_number_of_minor_units(amount: object) -> None:
    with pytest.raises(msgspec.ValidationError, match="amount"):
        msgspec.convert(msgspec.to_builtins(paid()) | {"amount": amount}, Evidence)

"""Instants are in UTC from the moment at which they enter, so they leave in UTC everywhere."""

from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest

from core.evidence import Evidence, Paid, Unpaid
from core.order import OrderState

PAID = b"""{"kind": "paid", "channel_account": "main", "out_trade_no": "1", "amount": 1, "currency": "CNY",
            "channel_transaction_id": "t", "at": "2026-11-23T12:33:33+08:00"}"""


def test_the_time_of_a_channel_is_kept_in_utc() -> None:
    read = msgspec.json.decode(PAID, type=Evidence)
    assert b'"at":"2026-11-23T04:33:33Z"' in msgspec.json.encode(read)


def test_replacing_an_instant_keeps_it_in_utc() -> None:
    there = timezone(timedelta(hours=-3, minutes=-30))
    unpaid = Unpaid(channel_account="main", out_trade_no="1", payable_until=datetime(2026, 11, 23, 1, tzinfo=there))
    assert unpaid.payable_until == datetime(2026, 11, 23, 4, 30, tzinfo=UTC)
    assert unpaid.payable_until.tzinfo is UTC
    later = msgspec.structs.replace(unpaid, at=datetime(2026, 11, 23, 1, tzinfo=there))
    assert later.at is not None
    assert later.at.tzinfo is UTC


@pytest.mark.parametrize("zone", ["+08:00", "-03:30", "+00:00", "Z"])
def test_an_order_of_a_session_in_another_zone_is_in_utc(zone: str) -> None:
    at = f"2026-07-01T12:00:00{zone}"
    fields = {"order_no": "A", "amount": 1, "currency": "CNY", "subject": "x", "status": "created", "version": 1}
    order = fields | {"page_token": "t", "created_at": at, "expires_at": at}
    state = msgspec.convert({"order": order, "now": at, "payments": []}, OrderState)
    assert {state.now.tzinfo, state.order.created_at.tzinfo, state.order.expires_at.tzinfo} == {UTC}
    assert state.now == datetime.fromisoformat(at)


def test_the_other_fields_stay_as_they_are() -> None:
    read = msgspec.json.decode(PAID, type=Paid)
    assert (read.amount, read.currency, read.ids) == (1, "CNY", ())

"""Statements: fetched into a file and read row by row; one bad row does not hide the others."""

import tracemalloc
from contextlib import suppress
from datetime import date
from io import BytesIO
from tempfile import TemporaryFile

import pytest
from msgspec.structs import replace

from channels.base import Channel, MalformedRow, ResolvesRows, StatedTotal, StatementRow
from channels.statement_formats import likely_format
from core.errors import ChannelRefused, ChannelUnavailable, ChannelUnreadable
from simulator.kernel.faults import CallKind, FaultProfile
from tests.channels.conftest import Env, rows_in, rows_of
from tests.channels.driver import Driver
from tests.channels.reports import AMOUNT, NUMBER, REFUND_NO

ROWS = 10_000
BYTES_MAX = 1 << 20
"""The most that reading may take: a few buffers. A list of so many rows would take some four times as much."""

MORE_BYTES_MAX = 64 << 10
"""By how much a statement that is five times as long may take more."""

LONG_AGO = date(2020, 1, 1)


def parsed(channel: Channel, statement: bytes) -> list[StatementRow | MalformedRow]:
    return rows_in(channel.parse_statement(BytesIO(statement)))


def totals(channel: Channel, statement: bytes) -> list[StatedTotal]:
    return [item for item in channel.parse_statement(BytesIO(statement)) if isinstance(item, StatedTotal)]


async def test_a_statement_lists_payments_and_refunds(env: Env) -> None:
    """Rows have the channel's number of the query, by which the two are compared."""
    paid = await env.buy()
    await env.adapter.refund_payment(env.row, REFUND_NO, 1000)
    assert paid.paid_at is not None
    rows = await rows_of(env, paid.paid_at.astimezone(env.adapter.statement_zone).date())
    assert all(isinstance(row, StatementRow) for row in rows)
    expected_rows = {
        (row.kind, NUMBER if row.out_trade_no else "", AMOUNT if row.kind == "payment" else 1000)
        for row in env.driver.statement_rows
    }
    assert {(row.kind, row.out_trade_no, row.amount) for row in rows if isinstance(row, StatementRow)} == expected_rows
    (payment,) = [row for row in rows if isinstance(row, StatementRow) and row.kind == "payment"]
    assert payment.channel_transaction_id == env.row.channel_transaction_id
    assert payment.currency == env.driver.currency
    assert payment.at.replace(microsecond=0) == paid.paid_at.replace(microsecond=0)
    assert len(rows) == 2


async def test_a_row_without_our_number_leads_to_the_id_by_which_its_payment_is_queried(env: Env) -> None:
    """A payment that was made elsewhere has another number, or none. Other channels have the number in every row."""
    paid = await env.buy()
    assert paid.paid_at is not None
    if not isinstance(env.adapter, ResolvesRows):
        assert not env.adapter.queries_by_reference
        return
    [row] = [
        row
        for row in await rows_of(env, paid.paid_at.astimezone(env.adapter.statement_zone).date())
        if isinstance(row, StatementRow)
    ]
    assert env.row.channel_reference not in row.all_ids
    assert env.row.channel_reference in await env.adapter.resolve_row(replace(row, out_trade_no="", ids=()))
    assert await env.adapter.resolve_row(replace(row, out_trade_no="", channel_transaction_id="", ids=())) == ()


async def test_a_row_that_a_statement_counts_and_lacks_is_missing_in_its_totals(env: Env) -> None:
    paid = await env.buy()
    assert paid.paid_at is not None
    env.far_side.faults.profile = FaultProfile(statement_lacks=1.0)
    into = BytesIO()
    with suppress(ChannelRefused):  # a statement that states nothing is empty
        await env.adapter.fetch_statement(paid.paid_at.astimezone(env.adapter.statement_zone).date(), into)
    if env.driver.states_totals:
        into.seek(0)
        found = [item for item in env.adapter.parse_statement(into) if isinstance(item, StatedTotal)]
        assert [total for total in found if total.stated != total.read]


async def test_a_day_without_payments_has_no_rows_or_no_statement(env: Env) -> None:
    await env.buy()
    try:
        assert await rows_of(env, LONG_AGO) == []
    except ChannelRefused as refused:
        code = refused.code
    else:
        return
    assert code == "no_statement"


async def test_a_statement_that_breaks_off_is_unavailable(env: Env) -> None:
    paid = await env.buy()
    assert paid.paid_at is not None
    env.set_response(lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{", to=CallKind.STATEMENT)
    with pytest.raises(ChannelUnavailable):
        await rows_of(env, paid.paid_at.astimezone(env.adapter.statement_zone).date())


async def test_a_refused_statement_raises_the_refusal(env: Env) -> None:
    env.set_response(
        lambda request: env.driver.refusal_response(request, env.driver.refusal_code), to=CallKind.STATEMENT
    )
    with pytest.raises(ChannelRefused) as caught:
        await rows_of(env, LONG_AGO)
    assert caught.value.code == env.driver.refusal_code


def test_statement_rows_are_read_exactly(offline: Channel, driver: Driver) -> None:
    assert tuple(parsed(offline, driver.statement)) == driver.statement_rows
    assert [row.kind for row in driver.statement_rows] == ["payment", "refund"]


def test_every_form_of_a_statement_is_read(offline: Channel, driver: Driver) -> None:
    expected = [replace(row, line=0, ids=()) for row in driver.statement_rows]
    for name, statement in driver.same_statements().items():
        assert [replace(row, line=0, ids=()) for row in rows_only(offline, statement)] == expected, name
        assert all(total.stated == total.read for total in totals(offline, statement)), name


def rows_only(channel: Channel, statement: bytes) -> list[StatementRow]:
    rows = parsed(channel, statement)
    assert not [row for row in rows if isinstance(row, MalformedRow)]
    return [row for row in rows if isinstance(row, StatementRow)]


def test_totals_of_a_statement_are_those_of_the_rows_that_were_read(offline: Channel, driver: Driver) -> None:
    """A row that is malformed is missing in them."""
    forms = {"statement": driver.statement, **driver.same_statements()}
    stating = {name: totals(offline, statement) for name, statement in forms.items()}
    assert any(stating.values()) == driver.states_totals
    assert all(total.stated == total.read for of_form in stating.values() for total in of_form)
    if stating["statement"]:
        for name, statement in driver.malformed_statements().items():
            assert any(total.stated != total.read for total in totals(offline, statement)), name


def test_a_refused_file_is_recognised(offline: Channel, driver: Driver) -> None:
    """Each channel's own statement has a name, and so has every kind of file that is taken for one."""
    forms = {"statement": driver.statement, **driver.same_statements()}
    assert all(likely_format(BytesIO(form)) != "an unknown form" for form in forms.values())
    assert offline.statement_format


def test_a_malformed_row_is_reported_and_the_others_still_count(offline: Channel, driver: Driver) -> None:
    payment, refund = driver.statement_rows
    altered = driver.malformed_statements()
    assert altered
    for name, statement in altered.items():
        assert statement != driver.statement, name
        malformed, good = parsed(offline, statement)
        assert isinstance(malformed, MalformedRow), name
        assert (malformed.line, malformed.reason.isidentifier()) == (payment.line, True), name
        assert good == refund, name


@pytest.mark.parametrize("number", ["ORD #1001", "1001", "shop/2026/42"])
def test_a_row_of_another_system_is_read_whatever_its_number(offline: Channel, driver: Driver, number: str) -> None:
    """Malformed, it would be a difference every day, at every account where others sell too."""
    rows = parsed(offline, driver.statement_with_number(number))
    assert [row.out_trade_no for row in rows if isinstance(row, StatementRow)] == [number, number]
    assert [row.channel_transaction_id for row in rows if isinstance(row, StatementRow)] == [driver.transaction] * 2


def test_a_malformed_row_keeps_the_ids_that_can_be_read(offline: Channel, driver: Driver) -> None:
    """By them it is asked whether it concerns us. A row without any cannot be asked."""
    malformed = {name: parsed(offline, statement)[0] for name, statement in driver.malformed_statements().items()}
    ids = {name: row.ids for name, row in malformed.items() if isinstance(row, MalformedRow)}
    assert len([name for name, found in ids.items() if NUMBER in found]) > len(ids) / 2, ids


@pytest.mark.parametrize(
    "statement", [b"", b"\n", b"<!doctype html><h1>Back soon</h1>", b'{"code":"SYSTEM_ERROR"}', b"\xff", b"\x1f\x8b"]
)
def test_garbage_is_not_read_as_an_empty_statement(offline: Channel, statement: bytes) -> None:
    with pytest.raises(ChannelUnreadable):
        parsed(offline, statement)


def test_another_channels_statement_is_unreadable(offline: Channel, driver: Driver) -> None:
    for name, statement in driver.no_statements().items():
        with pytest.raises(ChannelUnreadable):
            pytest.fail(f"{name}: {parsed(offline, statement)}")


def test_a_long_statement_is_read_in_constant_memory(offline: Channel, driver: Driver) -> None:
    short, long = peak_of_reading(offline, driver, ROWS // 5), peak_of_reading(offline, driver, ROWS)
    assert long < BYTES_MAX
    assert long < short + MORE_BYTES_MAX


def peak_of_reading(channel: Channel, driver: Driver, rows: int) -> int:
    """Peak memory in bytes while a statement with this many payments is read."""
    with TemporaryFile() as file:
        driver.write_statement(file, rows)
        file.seek(0)
        tracemalloc.start()
        try:
            payments = sum(
                row.kind == "payment" for row in channel.parse_statement(file) if isinstance(row, StatementRow)
            )
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert payments == rows
    return most

"""What is fuzzed: every parser that reads what comes from outside, fed with any bytes, signed well where it matters.

Out of each come evidence that stores can hold, or one of the declared errors; anything else is a finding.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from io import BytesIO
from itertools import islice
from typing import NamedTuple

from channels.base import Channel
from channels.transport import Answer
from core.errors import ChannelError, InvalidRequest
from core.evidence import Evidence
from core.money import AMOUNT_MAX, minor_units
from tests.channels.conftest import DRIVERS, known, opened_offline
from tests.channels.driver import Driver, Said
from tests.channels.wire import Asked

NOW = datetime(2026, 11, 23, 4, 0, 30, tzinfo=UTC)
ROWS_MAX = 1_000
TEXT_MAX = 256
ASKED = Asked("GET", "/", {"sandbox-signature": "v1="}, b"", b"")


class Target(NamedTuple):
    """A parser under one name, with what it reads on a good day."""

    name: str
    seeds: tuple[bytes, ...]
    read: Callable[[bytes], None]


def targets() -> dict[str, Target]:
    """All of them, by name."""
    found = [Target("money", (b"88.88 CNY", b"100 JPY", b"1.234 KWD"), _money)]
    for driver in DRIVERS:
        found += _of_channel(driver)
    return {target.name: target for target in found}


def _of_channel(driver: Driver) -> Iterator[Target]:
    adapter, loop = opened_offline(driver), asyncio.new_event_loop()
    said = [Said(status=status) for status in sorted(driver.callbacks.statuses)]
    genuine = [driver.render_callback(one, driver.notification_id) for one in said]
    sent = [driver.sign_callback(content, driver.notification_id, at=NOW.timestamp()) for content in genuine]

    def unsigned(data: bytes) -> None:
        """Whoever knows the address may send this."""
        head, _, body = data.partition(b"\0")
        names = driver.signature_headers or ("content-type",)
        texts = head.decode("latin-1").split("\n")
        headers = sent[0].headers | dict(zip(names, texts, strict=False))
        _verify(loop, adapter, headers, body)

    def signed(data: bytes) -> None:
        """Only the channel can send this; it may have a bad day."""
        callback = driver.sign_callback(data, driver.notification_id, at=NOW.timestamp())
        _verify(loop, adapter, callback.headers, callback.body)

    yield Target(f"{driver.channel}_callback", tuple(b"\0" + one.body for one in sent), unsigned)
    yield Target(f"{driver.channel}_signed_callback", tuple(genuine), signed)
    yield Target(f"{driver.channel}_statement", (driver.statement,), lambda data: _statement(adapter, data))
    if not driver.answers_are_bound:
        answers = tuple(driver.render(Said(status=status)) for status in sorted(driver.queries.statuses))
        yield Target(f"{driver.channel}_answer", answers, lambda data: _answer(driver, adapter, data))


def _verify(loop: asyncio.AbstractEventLoop, adapter: Channel, headers: dict[str, str], body: bytes) -> None:
    try:
        callback = loop.run_until_complete(adapter.verify_callback(headers, body, received_at=NOW))
    except ChannelError:
        return
    assert 0 < len(callback.notification_id) <= TEXT_MAX
    if callback.evidence is not None:
        _check(callback.evidence)


def _answer(driver: Driver, adapter: Channel, data: bytes) -> None:
    """The first byte chooses the status."""
    status = (200, 204, 400, 404, 422)[data[0] % 5] if data else 200
    told = driver.answer(ASKED, status, data[1:])
    headers = {name.lower(): value for name, value in told.headers.items()}
    try:
        answer = Answer(status=told.status, headers=headers, body=told.body)
        evidence = adapter.read_answer(known(driver), answer, received_at=datetime.now(UTC))
    except ChannelError:
        return
    _check(evidence)


def _statement(adapter: Channel, data: bytes) -> None:
    try:
        for row in islice(adapter.parse_statement(BytesIO(data)), ROWS_MAX):
            assert row.line >= 1
    except ChannelError:
        return


def _money(data: bytes) -> None:
    text, _, currency = data.decode("utf-8", "replace").partition(" ")
    try:
        amount = minor_units(text, currency)
    except InvalidRequest:
        return
    assert amount >= 0


def _check(evidence: Evidence) -> None:
    """What Postgres takes: bounded numbers, bounded texts without NUL."""
    assert evidence.amount is None or 0 <= evidence.amount <= AMOUNT_MAX
    for text in (evidence.out_trade_no, evidence.channel_account, evidence.channel_transaction_id or ""):
        assert len(text) <= TEXT_MAX
        assert "\0" not in text
        text.encode()

"""Fuzz targets: every parser of outside data, fed with any bytes, correctly signed where it matters.

Each returns evidence that the stores accept, or raises a declared error; anything else is a finding.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from io import BytesIO
from itertools import islice
from typing import NamedTuple

import httpx

from channels.adapters import open_channel
from channels.base import Channel, ReadsResponses, StatedTotal
from channels.statement_formats import likely_format
from channels.transport import Response, Transport
from core.errors import ChannelError, InvalidRequest
from core.evidence import Evidence, Unclear
from core.money import AMOUNT_MAX, minor_units
from simulator.kernel.faults import CallKind
from tests.channels.conftest import DRIVERS, httpx_response, known, opened_offline, wire_request
from tests.channels.driver import Driver
from tests.channels.httpx_carrier import responding
from tests.channels.reports import OFFLINE_URL, CallbackRequest, PaymentReport
from tests.channels.wire import WireRequest

NOW = datetime(2026, 11, 23, 4, 0, 30, tzinfo=UTC)
ROWS_MAX = 1_000
TEXT_MAX = 256


class Target(NamedTuple):
    """A parser with its name and valid input."""

    name: str
    seeds: tuple[bytes, ...]
    read: Callable[[bytes], None]


def names() -> list[str]:
    """Names of all targets: `money`, and the inputs of every channel."""
    found = ["money"]
    for driver in DRIVERS:
        kinds = ["callback", "signed_callback", "statement"] + ([] if driver.responses_cover_requests else ["answer"])
        found += [f"{driver.channel}_{kind}" for kind in kinds]
    return found


def target(name: str) -> Target:
    """The target of this name; only its channel's keys are made, because that takes long."""
    if name == "money":
        return Target(name, (b"88.88 CNY", b"100 JPY", b"1.234 KWD"), _money)
    channel, _, kind = name.partition("_")
    driver = next(driver for driver in DRIVERS if driver.channel == channel)
    make = {"callback": _unsigned, "signed_callback": _signed, "statement": _of_statement, "answer": _of_answer}
    return make[kind](name, driver)


def _unsigned(name: str, driver: Driver) -> Target:
    """Unsigned callbacks, which anybody can send: headers, NUL, the body."""
    adapter, loop, sent = opened_offline(driver), asyncio.new_event_loop(), _genuine(driver)

    def read(data: bytes) -> None:
        head, _, body = data.partition(b"\0")
        texts = head.decode("latin-1").split("\n")
        headers = sent[0].headers | dict(zip(driver.signature_headers or ("content-type",), texts, strict=False))
        _verify(loop, adapter, headers, body)

    return Target(name, tuple(b"\0" + one.body for one in sent), read)


def _signed(name: str, driver: Driver) -> Target:
    """Signed callbacks with any content."""
    adapter, loop = opened_offline(driver), asyncio.new_event_loop()

    def read(data: bytes) -> None:
        callback = driver.sign_callback(data, driver.notification_id, at=NOW.timestamp())
        _verify(loop, adapter, callback.headers, callback.body)

    return Target(name, tuple(_contents(driver)), read)


def _of_statement(name: str, driver: Driver) -> Target:
    adapter = opened_offline(driver)
    seeds = (driver.statement, *driver.same_statements().values())
    return Target(name, seeds, lambda data: _statement(adapter, data))


def _of_answer(name: str, driver: Driver) -> Target:
    adapter, question = opened_offline(driver), asyncio.run(_question(driver))
    seeds = tuple(b"\0" + driver.render(PaymentReport(status=status)) for status in sorted(driver.queries.statuses))
    return Target(name, seeds, lambda data: _answer(driver, adapter, question, data))


def _contents(driver: Driver) -> list[bytes]:
    report = [PaymentReport(status=status) for status in sorted(driver.callbacks.statuses)]
    return [driver.render_callback(one, driver.notification_id) for one in report]


def _genuine(driver: Driver) -> list[CallbackRequest]:
    return [driver.sign_callback(one, driver.notification_id, at=NOW.timestamp()) for one in _contents(driver)]


async def _question(driver: Driver) -> WireRequest:
    """A query request of the adapter."""
    requests: list[WireRequest] = []

    def respond(http_request: httpx.Request) -> httpx.Response:
        requests.append(wire_request(http_request))
        return httpx_response(driver.preceding_response(requests[-1]))

    transport = Transport(timeout_s=1, carrier=responding(respond))
    with suppress(ChannelError):
        await open_channel(driver.account(OFFLINE_URL), transport).query_payment(known(driver))
    return next(request for request in requests if driver.kind(request) is CallKind.QUERY)


def _verify(loop: asyncio.AbstractEventLoop, adapter: Channel, headers: dict[str, str], body: bytes) -> None:
    try:
        callback = loop.run_until_complete(adapter.verify_callback(headers, body, received_at=NOW))
    except ChannelError:
        return
    assert 0 < len(callback.notification_id) <= TEXT_MAX
    assert not callback.unreadable or isinstance(callback.evidence, Unclear)
    if callback.evidence is not None:
        _check(callback.evidence)


def _answer(driver: Driver, adapter: Channel, question: WireRequest, data: bytes) -> None:
    """Read a response; the first byte chooses its status."""
    status = (200, 204, 400, 404, 422)[data[0] % 5] if data else 200
    signed = driver.signed_response(question, status, data[1:])
    headers = {name.lower(): value for name, value in signed.headers.items()}
    try:
        assert isinstance(adapter, ReadsResponses)
        answer = Response(status=signed.status, headers=headers, body=signed.body)
        evidence = adapter.read_response(known(driver), answer, received_at=datetime.now(UTC))
    except ChannelError:
        return
    _check(evidence)


def _statement(adapter: Channel, data: bytes) -> None:
    assert likely_format(BytesIO(data))
    try:
        for row in islice(adapter.parse_statement(BytesIO(data)), ROWS_MAX):
            assert isinstance(row, StatedTotal) or row.line >= 1
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
    """Assert that Postgres can store it: bounded numbers, bounded texts without NUL."""
    assert evidence.amount is None or 0 <= evidence.amount <= AMOUNT_MAX
    for text in (evidence.out_trade_no, *evidence.ids, evidence.channel_account, evidence.channel_transaction_id or ""):
        assert len(text) <= TEXT_MAX
        assert "\0" not in text
        text.encode()

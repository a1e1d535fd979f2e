"""Properties: only genuine bytes become evidence, whatever comes in their place."""

from collections.abc import Callable

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from channels.adapters import open_channel
from channels.transport import Transport
from core.errors import ChannelError
from core.evidence import Evidence, Paid, Refunded, Unclear
from simulator.kernel.faults import CallKind
from tests.channels import garbage
from tests.channels.conftest import PRECEDING, each_driver, httpx_response, known, opened_offline, wire_request
from tests.channels.driver import Driver
from tests.channels.expected import expected
from tests.channels.httpx_carrier import responding
from tests.channels.reports import OFFLINE_URL, CallbackRequest, Form, PaymentReport
from tests.channels.signed_callbacks import signed_callback, signed_content, verify
from tests.channels.wire import WireRequest, WireResponse

statuses = st.sampled_from([200, 201, 204, 302, 400, 401, 404, 409, 429, 500, 503])

Answering = Callable[[WireRequest], WireResponse]


class Asking:
    """One adapter for the session, because loading its keys takes longer than a query. It only sends queries."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._row = known(driver)
        self._answering: Answering = driver.missing_response
        transport = Transport(timeout_s=5, carrier=responding(self._respond))
        self._channel = open_channel(driver.account(OFFLINE_URL), transport)

    def _respond(self, http_request: httpx.Request) -> httpx.Response:
        request = wire_request(http_request)
        kind = self._driver.kind(request)
        assert kind in (*PRECEDING, CallKind.QUERY)
        return httpx_response(
            self._driver.preceding_response(request) if kind in PRECEDING else self._answering(request)
        )

    async def __call__(self, respond_with: Answering) -> Evidence | None:
        """Evidence of a query with this response; None for a declared error, anything else raises."""
        self._answering = respond_with
        try:
            return await self._channel.query_payment(self._row)
        except ChannelError:
            return None


_asking: dict[str, Asking] = {}


async def ask(driver: Driver, respond_with: Answering) -> Evidence | None:
    if driver.channel not in _asking:
        _asking[driver.channel] = Asking(driver)
    return await _asking[driver.channel](respond_with)


@each_driver
async def test_a_genuine_response_is_evidence(driver: Driver) -> None:
    body = driver.render(PaymentReport())
    evidence = await ask(driver, lambda request: driver.signed_response(request, 200, body))
    assert evidence is not None
    assert replace(evidence, ids=()) == expected(driver, PaymentReport(), driver.queries)


@each_driver
@given(status=statuses, start=st.floats(0, 1), length=st.integers(0, 12), put=st.binary(max_size=12))
async def test_a_changed_response_is_never_other_evidence(
    driver: Driver, status: int, start: float, length: int, put: bytes
) -> None:
    """Replaced bytes: an error, or, where no signature covers them, the evidence of before.

    An unsigned response can be changed by an attacker who breaks TLS; then only its form is checked.
    """
    rendered = driver.render(PaymentReport())
    genuine: list[WireResponse] = []

    def changed(request: WireRequest) -> WireResponse:
        genuine.append(driver.signed_response(request, 200, rendered))
        at = int(start * len(genuine[-1].body))
        body = genuine[-1].body[:at] + put + genuine[-1].body[at + length :]
        return genuine[-1]._replace(status=status, body=body)

    evidence = await ask(driver, changed)
    if evidence is None or not driver.responses_are_signed:
        return
    assert replace(evidence, ids=()) == expected(driver, PaymentReport(), driver.queries)
    assert status == 200 or not driver.refusals_are_signed
    assert changed_nothing_signed(genuine[-1], start, length, put, rendered)


def changed_nothing_signed(genuine: WireResponse, start: float, length: int, put: bytes, signed_content: bytes) -> bool:
    """Whether the replaced bytes are unsigned, or equal to the original ones."""
    at = int(start * len(genuine.body))
    first = genuine.body.index(signed_content)
    is_same = genuine.body[at : at + length] == put
    return is_same or at + length <= first or at >= first + len(signed_content)


@each_driver
@given(status=statuses, body=garbage.contents)
async def test_signed_nonsense_in_a_response_is_no_evidence(driver: Driver, status: int, body: bytes) -> None:
    """Correctly signed bytes that are not the protocol."""
    evidence = await ask(driver, lambda request: driver.signed_response(request, status, body))
    assert evidence is None


@each_driver
@given(data=st.data())
async def test_a_response_with_any_field_value_is_evidence_of_it_or_an_error(
    driver: Driver, data: st.DataObject
) -> None:
    """Evidence can be stored, and *paid* has an account, an amount and an aware time."""
    body = data.draw(garbage.with_another_value(Form.JSON, driver.render(PaymentReport())))
    evidence = await ask(driver, lambda request: driver.signed_response(request, 200, body))
    if evidence is None:
        return
    assert msgspec.json.decode(msgspec.json.encode(evidence), type=type(evidence)) == evidence
    if isinstance(evidence, Paid | Refunded):
        assert evidence.at is None or evidence.at.tzinfo is not None
        assert evidence.channel_transaction_id
        assert evidence.amount >= 0


# -- callbacks ---------------------------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=120)


@each_driver
@given(data=st.data(), body=st.binary(max_size=600))
async def test_unsigned_bytes_are_never_evidence(driver: Driver, data: st.DataObject, body: bytes) -> None:
    names = st.sampled_from([*driver.signature_headers, "content-type"])
    headers = data.draw(st.dictionaries(names, texts))
    with pytest.raises(driver.rejections):
        await verify(opened_offline(driver), CallbackRequest(headers, body))


@each_driver
@given(data=st.data())
async def test_no_change_of_a_genuine_callback_is_other_evidence(driver: Driver, data: st.DataObject) -> None:
    """Any bytes replaced in the body or in a signed header.

    Where a channel allows several spellings, another spelling is the same callback.
    """
    channel, callback = opened_offline(driver), signed_callback(driver)
    where = data.draw(st.sampled_from(["body", *driver.signature_headers]))
    text = callback.body if where == "body" else callback.headers[where].encode("latin-1")
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 20)))
    changed = text[:start] + data.draw(st.binary(max_size=20)) + text[end:]
    if changed == text:
        return
    altered = (
        callback._replace(body=changed)
        if where == "body"
        else callback._replace(headers=callback.headers | {where: changed.decode("latin-1")})
    )
    try:
        evidence = await verify(channel, altered)
    except driver.rejections:
        return
    assert driver.spellings_vary, f"{where}: {changed!r}"
    assert evidence == await verify(channel, callback)


@each_driver
@given(content=garbage.contents)
async def test_signed_nonsense_in_a_callback_is_unreadable(driver: Driver, content: bytes) -> None:
    """It is genuine, so it is stored; it proves nothing."""
    try:
        callback = await verify(opened_offline(driver), signed_content(driver, content))
    except driver.nonsense_errors:
        return
    assert callback.unreadable
    assert isinstance(callback.evidence, Unclear)


@each_driver
@given(data=st.data())
async def test_a_callback_with_any_field_value_is_evidence_of_it_or_unreadable(
    driver: Driver, data: st.DataObject
) -> None:
    """Evidence can be stored: it survives JSON into the inbox and out of it."""
    good = driver.render_callback(PaymentReport(), driver.notification_id)
    content = data.draw(garbage.with_another_value(driver.form, good))
    try:
        callback = await verify(opened_offline(driver), signed_content(driver, content))
    except driver.nonsense_errors:
        return
    if callback.evidence is not None:
        again = msgspec.json.decode(msgspec.json.encode(callback.evidence), type=type(callback.evidence))
        assert again == callback.evidence

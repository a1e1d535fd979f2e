"""Evidence is never invented: of all bytes that could come in the place of genuine ones, only those are believed."""

from collections.abc import Callable

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.adapters import open_channel
from channels.transport import Transport
from core.errors import ChannelError
from core.evidence import Evidence, Paid, Refunded
from simulator.kernel.faults import CallKind
from tests.channels import garbage
from tests.channels.conftest import PRECEDING, as_asked, as_response, each_driver, known, opened_offline
from tests.channels.driver import OFFLINE_URL, Driver, Form, Said, Sent
from tests.channels.expected import expected
from tests.channels.signed_callbacks import sent, signed, verify
from tests.channels.wire import Answered, Asked

statuses = st.sampled_from([200, 201, 204, 302, 400, 401, 404, 409, 429, 500, 503])

Answering = Callable[[Asked], Answered]


class Asking:
    """One adapter for the session, for to read its keys takes longer than a query. Nothing but queries is asked."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._row = known(driver)
        self._answering: Answering = driver.missing
        transport = Transport(timeout_s=5, transport=httpx.MockTransport(self._told))
        self._channel = open_channel(driver.account(OFFLINE_URL), transport)

    def _told(self, request: httpx.Request) -> httpx.Response:
        asked = as_asked(request)
        kind = self._driver.kind(asked)
        assert kind in (*PRECEDING, CallKind.QUERY)
        return as_response(self._driver.aside(asked) if kind in PRECEDING else self._answering(asked))

    async def __call__(self, answering: Answering) -> Evidence | None:
        """What a query makes of an answer; None for a declared error, anything else raises."""
        self._answering = answering
        try:
            return await self._channel.query_payment(self._row)
        except ChannelError:
            return None


_asking: dict[str, Asking] = {}


async def ask(driver: Driver, answering: Answering) -> Evidence | None:
    if driver.channel not in _asking:
        _asking[driver.channel] = Asking(driver)
    return await _asking[driver.channel](answering)


@each_driver
async def test_the_genuine_answer_is_believed(driver: Driver) -> None:
    body = driver.render(Said())
    told = await ask(driver, lambda asked: driver.answer(asked, 200, body))
    assert told == expected(driver, Said(), driver.queries)


@each_driver
@given(status=statuses, start=st.floats(0, 1), length=st.integers(0, 12), put=st.binary(max_size=12))
async def test_a_changed_answer_is_never_other_evidence(
    driver: Driver, status: int, start: float, length: int, put: bytes
) -> None:
    """Bytes in the place of others: an error, or, where a signature does not cover them, what was said before.

    What is not signed at all can be changed by whoever breaks TLS; then nothing but the shape protects.
    """
    rendered = driver.render(Said())
    genuine: list[Answered] = []

    def changed(asked: Asked) -> Answered:
        genuine.append(driver.answer(asked, 200, rendered))
        at = int(start * len(genuine[-1].body))
        body = genuine[-1].body[:at] + put + genuine[-1].body[at + length :]
        return genuine[-1]._replace(status=status, body=body)

    told = await ask(driver, changed)
    if told is None or not driver.answers_are_signed:
        return
    assert told == expected(driver, Said(), driver.queries)
    assert status == 200 or not driver.refusals_are_signed
    assert changed_nothing_signed(genuine[-1], start, length, put, rendered)


def changed_nothing_signed(genuine: Answered, start: float, length: int, put: bytes, signed: bytes) -> bool:
    """Whether the bytes that were replaced lie outside of those that are signed, or were replaced by the same."""
    at = int(start * len(genuine.body))
    first = genuine.body.index(signed)
    is_same = genuine.body[at : at + length] == put
    return is_same or at + length <= first or at >= first + len(signed)


@each_driver
@given(status=statuses, body=garbage.contents)
async def test_genuine_nonsense_in_an_answer_is_no_evidence(driver: Driver, status: int, body: bytes) -> None:
    """Well signed, and not the protocol."""
    told = await ask(driver, lambda asked: driver.answer(asked, status, body))
    assert told is None


@each_driver
@given(data=st.data())
async def test_an_answer_with_any_value_for_a_field_is_evidence_of_that_or_an_error(
    driver: Driver, data: st.DataObject
) -> None:
    """And what is evidence can be stored, and is money only if it says whose, how much and when in an aware time."""
    body = data.draw(garbage.with_another_value(Form.JSON, driver.render(Said())))
    told = await ask(driver, lambda asked: driver.answer(asked, 200, body))
    if told is None:
        return
    assert msgspec.json.decode(msgspec.json.encode(told), type=type(told)) == told
    if isinstance(told, Paid | Refunded):
        assert told.at is None or told.at.tzinfo is not None
        assert told.channel_transaction_id
        assert told.amount >= 0


# -- callbacks ---------------------------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=120)


@each_driver
@given(data=st.data(), body=st.binary(max_size=600))
async def test_no_bytes_of_a_stranger_are_evidence(driver: Driver, data: st.DataObject, body: bytes) -> None:
    names = st.sampled_from([*driver.signature_headers, "content-type"])
    headers = data.draw(st.dictionaries(names, texts))
    with pytest.raises(driver.rejections):
        await verify(opened_offline(driver), Sent(headers, body))


@each_driver
@given(data=st.data())
async def test_no_change_of_a_genuine_callback_is_other_evidence(driver: Driver, data: st.DataObject) -> None:
    """Any bytes put in the place of any others, in the body or in a header that is signed.

    Where a channel lets one thing be spelt in several ways, another spelling is the very same callback.
    """
    channel, callback = opened_offline(driver), sent(driver)
    where = data.draw(st.sampled_from(["body", *driver.signature_headers]))
    text = callback.body if where == "body" else callback.headers[where].encode("latin-1")
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 20)))
    changed = text[:start] + data.draw(st.binary(max_size=20)) + text[end:]
    if changed == text:
        return
    spoilt = (
        callback._replace(body=changed)
        if where == "body"
        else callback._replace(headers=callback.headers | {where: changed.decode("latin-1")})
    )
    try:
        told = await verify(channel, spoilt)
    except driver.rejections:
        return
    assert driver.spellings_vary, f"{where}: {changed!r}"
    assert told == await verify(channel, callback)


@each_driver
@given(content=garbage.contents)
async def test_genuine_nonsense_is_unreadable_and_no_other_error(driver: Driver, content: bytes) -> None:
    with pytest.raises(driver.nonsense):
        await verify(opened_offline(driver), signed(driver, content))


@each_driver
@given(data=st.data())
async def test_a_genuine_callback_with_any_value_for_a_field_is_evidence_of_that_or_unreadable(
    driver: Driver, data: st.DataObject
) -> None:
    """And what is evidence can be stored: it survives the way through JSON into the inbox and out of it."""
    good = driver.render_callback(Said(), driver.notification_id)
    content = data.draw(garbage.with_another_value(driver.form, good))
    try:
        callback = await verify(opened_offline(driver), signed(driver, content))
    except driver.nonsense:
        return
    if callback.evidence is not None:
        again = msgspec.json.decode(msgspec.json.encode(callback.evidence), type=type(callback.evidence))
        assert again == callback.evidence

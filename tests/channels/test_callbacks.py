"""Callbacks: proved over their raw bytes, and only then read. Whatever else comes ends in a declared error."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.base import Callback, Channel
from core.errors import CallbackForged, CallbackRejected, CallbackStale, ChannelUnreadable
from core.evidence import Paid, Refunded
from core.lifecycle import mismatch
from core.order import CaseReason
from simulator.asgi import App, Reply, Request, Response, Route
from simulator.serve import serving
from tests.channels.conftest import DRIVERS, Far, create, opened_offline
from tests.channels.driver import AMOUNT, Driver, Key, Said, Sent, payment, without
from tests.servers import eventually

NOTIFICATION_ID = "cb_0123456789abcdef01234567"
NOW = datetime(2026, 11, 23, 4, 0, 30, tzinfo=UTC)


def sent(driver: Driver, said: Said | None = None, *, key: Key = Key.NEW, age_s: float = 0.0) -> Sent:
    body = driver.render_callback(said or Said(), NOTIFICATION_ID)
    return driver.sign_callback(body, NOTIFICATION_ID, at=NOW.timestamp() - age_s, key=key)


def signed(driver: Driver, body: bytes) -> Sent:
    return driver.sign_callback(body, NOTIFICATION_ID, at=NOW.timestamp())


def verify(channel: Channel, callback: Sent, *, received_at: datetime = NOW) -> Callback:
    return channel.verify_callback(callback.headers, callback.body, received_at=received_at)


async def test_what_the_channel_sends_verifies_and_is_acknowledged_by_it(far: Far) -> None:
    """The whole way over HTTP: created with this callback URL, paid, called back, and never sent again."""
    came: list[Callback] = []

    async def receive(request: Request) -> Reply:
        came.append(far.adapter.verify_callback(request.headers, request.body, received_at=datetime.now(UTC)))
        ack = far.adapter.acknowledge()
        return Response(status=ack.status, body=ack.body, content_type=ack.content_type)

    async with serving(App([Route("POST", "/callbacks/main", receive)])) as url:
        wanted = msgspec.structs.replace(create(payment()), callback_url=f"{url}/callbacks/main")
        await far.adapter.create_payment(wanted)
        paid = far.pay()
        await eventually(lambda: came and far.far_side.sender.under_way == 0)
        assert far.far_side.sender.tally(paid.key).last_status == 200
    (callback,) = came
    assert isinstance(callback.evidence, Paid)
    assert callback.evidence.channel_transaction_id == paid.transaction_id
    assert mismatch(payment(), callback.evidence) is None


def test_a_genuine_callback_is_evidence(driver: Driver, offline: Channel) -> None:
    callback = verify(offline, sent(driver))
    assert callback.notification_id == NOTIFICATION_ID
    assert isinstance(callback.evidence, Paid)
    assert mismatch(payment(), callback.evidence) is None


def test_a_refund_in_a_callback_was_paid(driver: Driver, offline: Channel) -> None:
    callback = verify(offline, sent(driver, Said(status="refunded", refunded=1000)))
    assert isinstance(callback.evidence, Refunded)
    assert (callback.evidence.amount, callback.evidence.refunded_amount) == (AMOUNT, 1000)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (Said(amount=AMOUNT + 1), CaseReason.AMOUNT_MISMATCH),
        (Said(amount=1), CaseReason.AMOUNT_MISMATCH),
        (Said(currency="JPY"), CaseReason.CURRENCY_MISMATCH),
        (Said(merchant="m-2002"), CaseReason.ACCOUNT_MISMATCH),
        (Said(number="0000000000000000"), CaseReason.NUMBER_MISMATCH),
    ],
    ids=str,
)
def test_a_genuine_callback_about_something_else_is_evidence_of_something_else(
    driver: Driver, offline: Channel, said: Said, reason: CaseReason
) -> None:
    found = mismatch(payment(), verify(offline, sent(driver, said)).evidence)
    assert found is not None
    assert found[0] is reason


def test_a_resend_has_the_same_notification_id_whenever_it_was_signed(driver: Driver, offline: Channel) -> None:
    """By which the inbox knows a replay."""
    first, again = verify(offline, sent(driver, age_s=200)), verify(offline, sent(driver, age_s=-10))
    assert first == again


def test_a_replay_of_the_same_bytes_says_the_same_again(driver: Driver, offline: Channel) -> None:
    callback = sent(driver)
    assert verify(offline, callback) == verify(offline, callback)


def test_callbacks_of_the_old_and_of_the_new_key_verify_while_both_are_valid(driver: Driver, offline: Channel) -> None:
    for key in (Key.OLD, Key.NEW):
        assert isinstance(verify(offline, sent(driver, key=key)).evidence, Paid)


@pytest.mark.parametrize(("ours", "theirs"), [(Key.OLD, Key.NEW), (Key.NEW, Key.OLD), (Key.NEW, Key.STRANGER)])
def test_a_callback_of_a_key_that_is_not_ours_is_forged(driver: Driver, ours: Key, theirs: Key) -> None:
    with pytest.raises(CallbackForged):
        verify(opened_offline(driver, ours), sent(driver, key=theirs))


def test_a_callback_of_another_merchants_account_is_forged(driver: Driver, offline: Channel) -> None:
    """Even when the two share a key, as they may in a test environment."""
    body = driver.render_callback(Said(), NOTIFICATION_ID)
    callback = driver.sign_callback(body, NOTIFICATION_ID, at=NOW.timestamp(), merchant="m-2002")
    with pytest.raises(CallbackForged):
        verify(offline, callback)


@pytest.mark.parametrize("side", [1, -1], ids=["past", "future"])
def test_the_tolerance_holds_on_both_sides_to_the_second(driver: Driver, offline: Channel, side: int) -> None:
    verify(offline, sent(driver, age_s=side * driver.tolerance_s))
    with pytest.raises(CallbackStale):
        verify(offline, sent(driver, age_s=side * (driver.tolerance_s + 1)))


def test_a_parked_callback_is_as_fresh_as_when_it_was_received(driver: Driver, offline: Channel) -> None:
    """Freshness is judged by `received_at` alone: an adapter that reads the clock would drop it after an outage."""
    long_ago = NOW - timedelta(days=3)
    body = driver.render_callback(Said(), NOTIFICATION_ID)
    callback = driver.sign_callback(body, NOTIFICATION_ID, at=long_ago.timestamp())
    assert isinstance(verify(offline, callback, received_at=long_ago).evidence, Paid)
    with pytest.raises(CallbackStale):
        verify(offline, callback)


def test_a_stale_callback_is_not_called_forged(driver: Driver, offline: Channel) -> None:
    """A wrong clock here must not look like an attack, nor an attack like a wrong clock."""
    with pytest.raises(CallbackStale):
        verify(offline, sent(driver, age_s=3600))
    with pytest.raises(CallbackForged):
        verify(offline, sent(driver, age_s=3600, key=Key.STRANGER))


def test_the_time_is_part_of_what_is_signed(driver: Driver, offline: Channel) -> None:
    """Otherwise an old callback could be made fresh."""
    old, new = (driver.sign_callback(sent(driver).body, NOTIFICATION_ID, at=NOW.timestamp() - age) for age in (999, 0))
    fresh, name = str(int(NOW.timestamp())), driver.signature_headers[0]
    stale = str(int(NOW.timestamp()) - 999)
    assert new.headers[name].count(fresh) == 1
    with pytest.raises(CallbackRejected):
        verify(offline, old._replace(headers=old.headers | {name: old.headers[name].replace(stale, fresh)}))


@pytest.mark.parametrize("index", range(2))
def test_a_callback_without_a_header_that_is_signed_is_forged(driver: Driver, offline: Channel, index: int) -> None:
    callback = sent(driver)
    name = driver.signature_headers[index % len(driver.signature_headers)]
    with pytest.raises(CallbackForged):
        verify(offline, callback._replace(headers=without(callback.headers, name)))
    with pytest.raises(CallbackForged):
        verify(offline, callback._replace(headers=callback.headers | {name: ""}))
    with pytest.raises(CallbackForged):
        verify(offline, callback._replace(headers={}))


@pytest.mark.parametrize(
    "value",
    [
        "v1=é",
        "t=1,k=k2,v1=é",
        "t=１７,k=k2,v1=" + "a" * 64,
        "t=1,k=k2,v0=" + "a" * 64,
        "t=-1,k=k2,v1=" + "a" * 64,
        "t=1,k=nobody,v1=" + "a" * 64,
        "t=1,k=k2,v1=" + "a" * 63,
        "t=1,k=k2,v1=" + "A" * 64,
        "t=99999999999999999999,k=k2,v1=" + "a" * 64,
        "WECHATPAY/SIGNTEST/" + "a" * 64,
        "\xff\x00\r\n",
        "中文",
        "a" * 100_000,
    ],
)
def test_a_header_that_is_no_signature_is_forged_and_never_a_type_error(
    driver: Driver, offline: Channel, value: str
) -> None:
    """`hmac.compare_digest` raises TypeError for text that is not ASCII, a 500; probes are not special."""
    callback = sent(driver)
    for name in driver.signature_headers:
        with pytest.raises(CallbackForged):
            verify(offline, callback._replace(headers=callback.headers | {name: value}))


def test_two_signatures_in_one_header_are_forged(driver: Driver, offline: Channel) -> None:
    """A header that was sent twice arrives joined by a comma."""
    callback, name = sent(driver), driver.signature_headers[0]
    doubled = f"{callback.headers[name]}, {callback.headers[name]}"
    with pytest.raises(CallbackForged):
        verify(offline, callback._replace(headers=callback.headers | {name: doubled}))


@pytest.mark.parametrize("change", ["one byte more", "one byte less", "re-serialised", "empty", "10 MiB"])
def test_the_raw_bytes_are_verified_and_not_what_they_mean(driver: Driver, offline: Channel, change: str) -> None:
    callback = sent(driver)
    body = {
        "one byte more": callback.body + b" ",
        "one byte less": callback.body[:-1],
        "re-serialised": callback.body.replace(b":", b": "),
        "empty": b"",
        "10 MiB": callback.body + b" " * (10 << 20),
    }[change]
    with pytest.raises(CallbackForged):
        verify(offline, callback._replace(body=body))


GENUINE_BUT_UNREADABLE = {
    "empty": b"",
    "null": b"null",
    "a list": b"[]",
    "an empty object": b"{}",
    "truncated": None,
    "two documents": None,
    "not UTF-8": b'{"id":"\xff"}',
    "UTF-16": '{"id":"x"}'.encode("utf-16"),
    "nested 100,000 deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "nested 100,000 deep in an unknown field": None,
    "an integer of 5,000 digits": b'{"id":' + b"1" * 5000 + b"}",
    "a key twice": None,
    "NUL": b"\x00",
    "HTML": b"<!doctype html><h1>Back soon</h1>",
}


@pytest.mark.parametrize("name", GENUINE_BUT_UNREADABLE)
def test_genuine_bytes_that_are_not_the_protocol_are_unreadable(driver: Driver, offline: Channel, name: str) -> None:
    good = driver.render_callback(Said(), NOTIFICATION_ID)
    body = {
        "truncated": good[: len(good) // 2],
        "two documents": good + good,
        "nested 100,000 deep in an unknown field": good[:-1] + b',"more":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "a key twice": good[:-1] + b"," + good[1:],
    }.get(name, GENUINE_BUT_UNREADABLE[name])
    assert body is not None
    with pytest.raises(ChannelUnreadable):
        verify(offline, signed(driver, body))


@pytest.mark.parametrize(
    "said",
    [
        Said(status="success"),
        Said(status="PAID"),
        Said(transaction=""),
        Said(transaction="a\x00b"),
        Said(amount=-1),
        Said(amount=10**30),
        Said(refunded=10**30, status="refunded"),
        Said(currency="cny"),
        Said(currency="ＣＮＹ"),
        Said(number="a\r\nb"),
        Said(number=""),
    ],
    ids=str,
)
def test_a_genuine_callback_with_values_that_cannot_be_is_unreadable(
    driver: Driver, offline: Channel, said: Said
) -> None:
    with pytest.raises(ChannelUnreadable):
        verify(offline, sent(driver, said))


def test_a_body_that_names_another_notification_than_its_header_is_unreadable(driver: Driver, offline: Channel) -> None:
    body = driver.render_callback(Said(), "cb_another_one")
    with pytest.raises(ChannelUnreadable):
        verify(offline, signed(driver, body))


def test_acknowledgement_is_the_channels_own_words_to_the_byte(driver: Driver, offline: Channel) -> None:
    """In quotes, as JSON or with a line feed it is none, and the channel sends for a day."""
    assert offline.acknowledge() == driver.acknowledgement


def test_a_rejection_tells_nothing_of_the_callback(driver: Driver, offline: Channel) -> None:
    callback = sent(driver, Said(transaction="canary"), key=Key.STRANGER)
    with pytest.raises(CallbackForged) as caught:
        verify(offline, callback)
    assert "canary" not in repr(caught.value)


# -- evidence is never invented ----------------------------------------------------------------------------------------

drivers = st.sampled_from(DRIVERS)
headers = st.dictionaries(
    st.sampled_from([*sorted({name for driver in DRIVERS for name in driver.signature_headers}), "content-type"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=120),
)
ours = {driver.channel: opened_offline(driver, Key.NEW, Key.OLD) for driver in DRIVERS}


@given(driver=drivers, given_headers=headers, body=st.binary(max_size=600))
def test_no_bytes_of_a_stranger_are_evidence(driver: Driver, given_headers: dict[str, str], body: bytes) -> None:
    with pytest.raises(CallbackRejected):
        ours[driver.channel].verify_callback(given_headers, body, received_at=NOW)


@given(driver=drivers, data=st.data())
def test_no_change_of_a_genuine_callback_is_evidence(driver: Driver, data: st.DataObject) -> None:
    """Any bytes put in the place of any others, in the body or in a header that is signed."""
    callback = sent(driver)
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
    with pytest.raises(CallbackRejected):
        verify(ours[driver.channel], spoilt)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(driver=drivers, body=st.binary(max_size=400) | json_values.map(msgspec.json.encode))
def test_genuine_nonsense_is_unreadable_and_no_other_error(driver: Driver, body: bytes) -> None:
    with pytest.raises(ChannelUnreadable):
        verify(ours[driver.channel], signed(driver, body))


@given(driver=drivers, data=st.data())
def test_a_genuine_callback_with_any_value_for_a_field_is_evidence_of_that_or_unreadable(
    driver: Driver, data: st.DataObject
) -> None:
    """And what is evidence can be stored: it survives the way through JSON into the inbox and out of it."""
    told = msgspec.json.decode(driver.render_callback(Said(), NOTIFICATION_ID))
    field = data.draw(st.sampled_from(sorted(told["payment"])))
    told["payment"][field] = data.draw(json_values | st.sampled_from(["paid", "refunded", "unpaid", "closed"]))
    try:
        callback = verify(ours[driver.channel], signed(driver, msgspec.json.encode(told)))
    except ChannelUnreadable:
        return
    again = msgspec.json.decode(msgspec.json.encode(callback.evidence), type=type(callback.evidence))
    assert again == callback.evidence

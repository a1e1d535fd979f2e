"""Callbacks: proved over their raw bytes, and only then read. Whatever else comes ends in a declared error."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from channels.base import Callback, Channel
from channels.kit.trace import recorded_checks
from core.errors import CallbackForged, CallbackRejected, CallbackStale, ChannelUnreadable
from core.evidence import Paid, Refunded, Unclear
from core.lifecycle import mismatch
from core.order import CaseReason
from simulator.kernel.ledger import Payment as LedgerPayment
from simulator.kit.asgi import App, Reply, Request, Response, Route
from simulator.kit.serve import serving
from tests.channels import garbage
from tests.channels.conftest import Far, assert_tells_no_secret, opened_offline
from tests.channels.driver import AMOUNT, OFFLINE_URL, OTHER_NUMBER, PAID_AT, Driver, Key, Said
from tests.channels.expected import expected
from tests.channels.signed_callbacks import AT, NOW, sent, signed, verify
from tests.servers import eventually


@asynccontextmanager
async def called_back(far: Far) -> AsyncIterator[list[Callback]]:
    """A payment created with a callback address that answers, and what was verified there."""
    came: list[Callback] = []

    async def receive(request: Request) -> Reply:
        came.append(await far.adapter.verify_callback(request.headers, request.body, received_at=datetime.now(UTC)))
        ack = far.adapter.acknowledge()
        return Response(status=ack.status, body=ack.body, content_type=ack.content_type)

    async with serving(App([Route("POST", "/callbacks/main", receive)])) as url:
        address = f"{url}/callbacks/main"
        far.far_side.accounts[far.account.merchant_id] = far.driver.far_account(address)
        await far.create(callback_url=address)
        yield came


async def all_is_acknowledged(far: Far, paid: LedgerPayment) -> None:
    """Nothing will be sent any more, and nothing was refused."""
    tally = far.far_side.sender.tally(paid.key)
    await eventually(lambda: tally.acknowledged and far.far_side.sender.under_way == 0)
    assert (tally.last_status, tally.refused) == (far.adapter.acknowledge().status, 0)


async def test_what_the_channel_sends_verifies_and_is_acknowledged_by_it(far: Far) -> None:
    """The whole way over HTTP: created with this callback URL, paid, called back, and never sent again."""
    async with called_back(far) as came:
        paid = await far.pay()
        await all_is_acknowledged(far, paid)
    (evidence,) = [callback.evidence for callback in came if isinstance(callback.evidence, Paid)]
    assert evidence.channel_transaction_id == getattr(await far.query(), "channel_transaction_id", "")
    assert mismatch(far.row, evidence) is None


async def test_what_the_channel_sends_of_a_refund_is_never_read_as_unpaid(far: Far) -> None:
    """Given back in part in the console: told with its sum, or as a reason to ask, or not at all."""
    async with called_back(far) as came:
        paid = await far.pay()
        await all_is_acknowledged(far, paid)
        before = len(came)
        far.refund(1000)
        await all_is_acknowledged(far, paid)
    of_the_refund = [callback.evidence for callback in came[before:]]
    assert all(isinstance(evidence, Paid | Refunded | Unclear | None) for evidence in of_the_refund)
    assert all(mismatch(far.row, evidence) is None for evidence in of_the_refund if evidence is not None)
    assert len({callback.notification_id for callback in came}) == len(came)


@pytest.mark.parametrize("status", ["unpaid", "agreed", "paid", "closed"])
async def test_a_genuine_callback_is_evidence_of_what_it_says(driver: Driver, offline: Channel, status: str) -> None:
    if status not in driver.callbacks.statuses:
        pytest.skip("this channel does not call back about it")
    said = Said(status=status)
    callback = await verify(offline, sent(driver, said))
    assert callback.notification_id == driver.notification_id
    assert callback.evidence is not None
    assert mismatch(driver.payment(), callback.evidence) is None
    if status == "paid":
        assert callback.evidence == expected(driver, said, driver.callbacks)
    assert type(callback.evidence) is type(expected(driver, said, driver.callbacks))


@pytest.mark.parametrize("given_back", [1, 1000, AMOUNT])
async def test_a_refund_in_a_callback_was_paid(driver: Driver, offline: Channel, given_back: int) -> None:
    if "refunded" not in driver.callbacks.statuses:
        pytest.skip("this channel does not call back about refunds")
    said = Said(status="refunded", refunded=given_back)
    callback = await verify(offline, sent(driver, said))
    assert callback.evidence is not None
    assert callback.evidence.at in (None, PAID_AT), "the time of the refund is not the time of the payment"
    assert replace(callback.evidence, at=PAID_AT) == replace(expected(driver, said, driver.callbacks), at=PAID_AT)
    assert callback.evidence.amount == AMOUNT


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (Said(amount=AMOUNT + 1), CaseReason.AMOUNT_MISMATCH),
        (Said(amount=1), CaseReason.AMOUNT_MISMATCH),
        (Said(amount=AMOUNT * 100), CaseReason.AMOUNT_MISMATCH),
        (Said(currency="JPY"), CaseReason.CURRENCY_MISMATCH),
        (Said(currency="HKD"), CaseReason.CURRENCY_MISMATCH),
        (Said(merchant="other"), CaseReason.ACCOUNT_MISMATCH),
        (Said(app="other"), CaseReason.ACCOUNT_MISMATCH),
        (Said(number=OTHER_NUMBER), CaseReason.NUMBER_MISMATCH),
        (Said(number="0000000000000000"), CaseReason.NUMBER_MISMATCH),
    ],
    ids=str,
)
async def test_a_genuine_callback_about_something_else_is_evidence_of_something_else(
    driver: Driver, offline: Channel, said: Said, reason: CaseReason
) -> None:
    if not driver.callbacks.can_tell(said):
        pytest.skip("this channel does not tell that in a callback")
    evidence = (await verify(offline, sent(driver, driver.meant(said)))).evidence
    assert evidence is not None
    found = mismatch(driver.payment(), evidence)
    assert found is not None
    assert found[0] is reason


async def test_a_resend_has_the_same_notification_id_whenever_it_was_signed(driver: Driver, offline: Channel) -> None:
    """By which the inbox knows a replay."""
    first, again = await verify(offline, sent(driver, age_s=200)), await verify(offline, sent(driver, age_s=-10))
    assert first == again


async def test_a_replay_of_the_same_bytes_says_the_same_again(driver: Driver, offline: Channel) -> None:
    callback = sent(driver)
    assert await verify(offline, callback) == await verify(offline, callback)


async def test_callbacks_of_the_old_and_of_the_new_key_verify_while_both_are_valid(
    driver: Driver, offline: Channel
) -> None:
    for key in (Key.OLD, Key.NEW):
        assert isinstance((await verify(offline, sent(driver, key=key))).evidence, Paid)


@pytest.mark.parametrize(("ours", "theirs"), [(Key.OLD, Key.NEW), (Key.NEW, Key.OLD), (Key.NEW, Key.STRANGER)])
async def test_a_callback_of_a_key_that_is_not_ours_is_forged(driver: Driver, ours: Key, theirs: Key) -> None:
    if theirs is not Key.STRANGER and not driver.keys_are_pinned:
        pytest.skip("an account of this channel holds no keys: it believes whom a certificate names")
    with pytest.raises(CallbackForged):
        await verify(opened_offline(driver, ours), sent(driver, key=theirs))


@pytest.mark.parametrize("side", [1, -1], ids=["past", "future"])
async def test_the_tolerance_holds_on_both_sides_to_the_second(driver: Driver, offline: Channel, side: int) -> None:
    if driver.tolerance_s is None:
        assert (await verify(offline, sent(driver, age_s=side * 86_400.0))).evidence is not None
        return
    await verify(offline, sent(driver, age_s=side * driver.tolerance_s))
    with pytest.raises(CallbackStale):
        await verify(offline, sent(driver, age_s=side * (driver.tolerance_s + 1)))


async def test_a_parked_callback_is_as_fresh_as_when_it_was_received(driver: Driver, offline: Channel) -> None:
    """Freshness is judged by `received_at` alone: an adapter that reads the clock would drop it after an outage."""
    long_ago = NOW - timedelta(days=3)
    callback = sent(driver, age_s=timedelta(days=3).total_seconds())
    assert isinstance((await verify(offline, callback, received_at=long_ago)).evidence, Paid)
    if driver.tolerance_s is not None:
        with pytest.raises(CallbackStale):
            await verify(offline, callback)


async def test_a_stale_callback_is_not_called_forged(driver: Driver, offline: Channel) -> None:
    """A wrong clock here must not look like an attack, nor an attack like a wrong clock."""
    if driver.tolerance_s is not None:
        with pytest.raises(CallbackStale):
            await verify(offline, sent(driver, age_s=driver.tolerance_s + 3600))
    with pytest.raises(CallbackForged):
        await verify(offline, sent(driver, age_s=(driver.tolerance_s or 0) + 3600, key=Key.STRANGER))


async def test_the_time_is_part_of_what_is_signed(driver: Driver, offline: Channel) -> None:
    """Otherwise an old callback could be made fresh."""
    fresh = driver.at_another_time(sent(driver, age_s=999), AT)
    if fresh is None:
        assert driver.tolerance_s is None, "a time that is checked is told somewhere"
        return
    assert fresh != sent(driver, age_s=999), "another time was claimed"
    with pytest.raises(CallbackRejected):
        await verify(offline, fresh)


async def test_a_callback_without_its_signature_is_forged(driver: Driver, offline: Channel) -> None:
    """Each part of it away, each part empty, and all of them away."""
    ways = driver.unsigned(sent(driver))
    assert len(ways) > 1
    for name, callback in ways.items():
        with pytest.raises(CallbackForged):
            pytest.fail(f"{name}: {await verify(offline, callback)}")


BAD_SIGNATURES = ("é", "\xff\x00\r\n", "中文", "a" * 100_000, "=" * 344, "WECHATPAY/SIGNTEST/" + "a" * 64, "", " ")


async def test_a_text_that_is_no_signature_is_forged_and_never_a_type_error(driver: Driver, offline: Channel) -> None:
    """`hmac.compare_digest` raises TypeError for text that is not ASCII, a 500; probes are not special."""
    for text in (*BAD_SIGNATURES, *driver.bad_signatures):
        for name, callback in driver.with_signature(sent(driver), text).items():
            with pytest.raises((CallbackForged, *driver.rejections)):
                pytest.fail(f"{name} {text[:80]!r}: {await verify(offline, callback)}")


async def test_two_signatures_in_one_place_are_forged(driver: Driver, offline: Channel) -> None:
    """A header that was sent twice arrives joined by a comma."""
    doubled = driver.doubled(sent(driver))
    if doubled is None:
        pytest.skip("this channel sends several signatures in one header")
    with pytest.raises(CallbackForged):
        await verify(offline, doubled)


@pytest.mark.parametrize("change", ["one byte more", "one byte less", "re-serialised", "empty", "10 MiB"])
async def test_the_raw_bytes_are_verified_and_not_what_they_mean(driver: Driver, offline: Channel, change: str) -> None:
    callback = sent(driver)
    changed = {
        "one byte more": callback._replace(body=callback.body + b" "),
        "one byte less": callback._replace(body=callback.body[:-1]),
        "re-serialised": driver.reserialised(callback),
        "empty": callback._replace(body=b""),
        "10 MiB": callback._replace(body=callback.body + garbage.BLANKS),
    }[change]
    if changed is None:
        pytest.skip("this channel signs what the fields mean, in any spelling")
    assert changed != callback
    with pytest.raises(CallbackForged):
        await verify(offline, changed)


async def test_what_only_this_channel_could_be_sent_by_a_forger_is_forged(driver: Driver, offline: Channel) -> None:
    for name, callback in driver.forged(at=AT).items():
        with pytest.raises(CallbackForged):
            pytest.fail(f"{name}: {await verify(offline, callback)}")


async def test_what_only_this_channel_could_send_wrongly_is_unreadable(driver: Driver, offline: Channel) -> None:
    for name, callback in driver.unreadable(at=AT).items():
        with pytest.raises(ChannelUnreadable):
            pytest.fail(f"{name}: {await verify(offline, callback)}")


async def test_a_genuine_callback_that_concerns_no_payment_carries_no_evidence(
    driver: Driver, offline: Channel
) -> None:
    """It is acknowledged, or the channel would send it for days."""
    for name, callback in driver.unrelated(at=AT).items():
        told = await verify(offline, callback)
        assert (told.evidence, bool(told.notification_id)) == (None, True), name


@pytest.mark.parametrize("name", garbage.NAMES)
async def test_genuine_bytes_that_are_not_the_protocol_are_unreadable(
    driver: Driver, offline: Channel, name: str
) -> None:
    good = driver.render_callback(Said(), driver.notification_id)
    with pytest.raises(driver.nonsense):
        await verify(offline, signed(driver, garbage.instead_of(driver.form, good, name)))


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
        Said(currency="CN"),
        Said(currency="ＣＮＹ"),
        Said(number="a\r\nb"),
        Said(number="a\x00b"),
    ],
    ids=str,
)
async def test_a_genuine_callback_with_values_that_cannot_be_is_unreadable(
    driver: Driver, offline: Channel, said: Said
) -> None:
    is_untold = said.status == "refunded" and driver.callbacks.refunded(AMOUNT) != AMOUNT
    if is_untold or not driver.callbacks.can_tell(replace(said, status="paid")):
        pytest.skip("this channel does not tell that in a callback")
    with pytest.raises(ChannelUnreadable):
        await verify(offline, sent(driver, said))


async def test_a_genuine_callback_about_money_that_does_not_name_the_transaction_is_unreadable(
    driver: Driver, offline: Channel
) -> None:
    content = driver.render_callback(Said(), driver.notification_id)
    unnamed = garbage.without_value(driver.form, content, driver.transaction)
    assert len(unnamed) < len(content)
    with pytest.raises(ChannelUnreadable):
        await verify(offline, signed(driver, unnamed))


async def test_a_genuine_callback_without_a_number_is_none_of_ours(driver: Driver, offline: Channel) -> None:
    """Where our number is a note that others leave empty it concerns no payment of ours; elsewhere it is nonsense."""
    callback = sent(driver, Said(number=""))
    try:
        told = await verify(offline, callback)
    except ChannelUnreadable:
        return
    assert told.evidence is None


async def test_acknowledgement_is_the_channels_own_words_to_the_byte(driver: Driver, offline: Channel) -> None:
    """In quotes, as JSON or with a line feed it is none, and the channel sends for a day."""
    assert offline.acknowledge() == driver.acknowledgement


async def test_a_rejection_tells_nothing_of_the_callback(driver: Driver, offline: Channel) -> None:
    callback = sent(driver, Said(transaction="canary"), key=Key.STRANGER)
    with pytest.raises(CallbackForged) as caught:
        await verify(offline, callback)
    assert "canary" not in repr(caught.value)


async def test_each_check_is_noted_with_what_was_signed_and_without_a_secret(driver: Driver, offline: Channel) -> None:
    """For the person who asks why a callback was not believed."""
    with recorded_checks() as heard:
        await verify(offline, sent(driver))
    assert heard
    assert all(one.is_good and one.string and one.key for one in heard)
    with recorded_checks() as of_a_stranger, pytest.raises(CallbackForged):
        await verify(offline, sent(driver, key=Key.STRANGER))
    assert not all(one.is_good for one in of_a_stranger)
    assert_tells_no_secret([*heard, *of_a_stranger], driver.account(OFFLINE_URL).credentials)

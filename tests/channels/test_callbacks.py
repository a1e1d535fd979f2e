"""Callbacks are verified over their raw bytes and only then read. Anything else ends in a declared error."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from channels.base import Callback, Channel, Ignored
from channels.kit.signed_message import recorded_checks
from core.errors import CallbackForged, CallbackRejected, CallbackStale
from core.evidence import Lapsed, Paid, Refunded, Unclear
from core.lifecycle import mismatch
from core.order import CaseReason
from simulator.kernel.ledger import Payment as LedgerPayment
from simulator.kit.asgi import App, Reply, Request, Response, Route
from simulator.kit.serve import serving
from tests.channels import garbage
from tests.channels.conftest import Env, assert_without_secrets, opened_offline
from tests.channels.driver import Driver
from tests.channels.expected import expected
from tests.channels.reports import AMOUNT, NUMBER, OFFLINE_URL, OTHER_NUMBER, PAID_AT, Key, PaymentReport
from tests.channels.signed_callbacks import AT, NOW, signed_callback, signed_content, verify
from tests.servers import eventually


@asynccontextmanager
async def receiving_callbacks(env: Env) -> AsyncIterator[list[Callback]]:
    """The callbacks that are verified at the address of a new payment."""
    received: list[Callback] = []

    async def receive(request: Request) -> Reply:
        received.append(await env.adapter.verify_callback(request.headers, request.body, received_at=datetime.now(UTC)))
        ack = env.adapter.acknowledge()
        return Response(status=ack.status, body=ack.body, content_type=ack.content_type)

    async with serving(App([Route("POST", "/callbacks/main", receive)])) as url:
        address = f"{url}/callbacks/main"
        env.far_side.accounts[env.account.merchant_id] = env.driver.simulator_account(address)
        await env.create(callback_url=address)
        yield received


async def all_is_acknowledged(env: Env, paid: LedgerPayment) -> None:
    """Wait until every callback is acknowledged, without a refusal."""
    tally = env.far_side.sender.tally(paid.key)
    await eventually(lambda: tally.acknowledged and env.far_side.sender.under_way == 0)
    assert (tally.last_status, tally.refused) == (env.adapter.acknowledge().status, 0)


async def test_the_simulators_callback_verifies_and_takes_the_acknowledgement(env: Env) -> None:
    """The whole way over HTTP: created with this callback URL, paid, called back, and never sent again."""
    async with receiving_callbacks(env) as received:
        paid = await env.pay()
        await all_is_acknowledged(env, paid)
    (evidence,) = [callback.evidence for callback in received if isinstance(callback.evidence, Paid)]
    assert evidence.channel_transaction_id == getattr(await env.query(), "channel_transaction_id", "")
    assert mismatch(env.row, evidence) is None


async def test_the_simulators_callback_about_a_refund_is_never_unpaid(env: Env) -> None:
    """A partial refund in the console has its amount, or is unclear, or causes no callback."""
    async with receiving_callbacks(env) as received:
        paid = await env.pay()
        await all_is_acknowledged(env, paid)
        before = len(received)
        refund_no = env.refund_in_console(1000)
        await all_is_acknowledged(env, paid)
    of_the_refund = [callback.evidence for callback in received[before:]]
    assert all(isinstance(evidence, Paid | Refunded | Unclear | None) for evidence in of_the_refund)
    assert all(mismatch(env.row, evidence) is None for evidence in of_the_refund if evidence is not None)
    assert len({callback.notification_id for callback in received}) == len(received)
    named = {evidence.refund_no for evidence in of_the_refund if isinstance(evidence, Unclear)}
    assert named <= {None, refund_no}
    numbers = {evidence.channel_refund_no for evidence in of_the_refund if isinstance(evidence, Unclear)}
    numbers |= {number for one in of_the_refund if isinstance(one, Refunded) for number in one.refund_numbers.values()}
    known = await env.adapter.query_refund(env.row, refund_no)
    assert numbers - {None} == ({known.channel_refund_no} if known is not None and env.driver.notices_number else set())


async def test_callbacks_of_the_merchants_other_systems_are_genuine_and_told_apart(env: Env) -> None:
    """As the simulated channel sends them: a sale under a number of theirs, other forms, no money, against the form."""
    await env.create()
    await env.query()  # PayPal names the address of its certificates once it was called
    channel = env.far_side.channels[env.driver.channel]
    account = env.far_side.accounts[env.account.merchant_id]
    found = {}
    for name, message in channel.elsewhere("ORD #1001", account, env.far_side.now()).items():
        found[name] = await env.adapter.verify_callback(message.headers, message.body, received_at=datetime.now(UTC))
    assert {name for name, callback in found.items() if callback.evidence is None} == {
        name for name in ("no_money", "other_world") if name in found
    }
    assert {name: callback.ignored for name, callback in found.items() if callback.evidence is None} == {
        name: Ignored(name) for name in ("no_money", "other_world") if name in found
    }
    assert {name for name, callback in found.items() if callback.unreadable} == {"unreadable"}
    assert isinstance(found["sale"].evidence, Paid)
    assert all("ORD #1001" in callback.evidence.every_id for callback in found.values() if callback.evidence)


@pytest.mark.parametrize("status", ["unpaid", "agreed", "paid", "closed"])
async def test_a_genuine_callback_is_evidence_of_its_content(driver: Driver, offline: Channel, status: str) -> None:
    if status not in driver.callbacks.statuses:
        pytest.skip("this channel does not call back about it")
    report = PaymentReport(status=status)
    callback = await verify(offline, signed_callback(driver, report))
    assert callback.notification_id == driver.notification_id
    assert callback.evidence is not None
    assert mismatch(driver.payment(), callback.evidence) is None
    if status == "paid":
        assert replace(callback.evidence, ids=()) == expected(driver, report, driver.callbacks)
    assert type(callback.evidence) is type(expected(driver, report, driver.callbacks))


@pytest.mark.parametrize("status", ["unpaid", "agreed", "paid", "refunded", "closed"])
async def test_a_callback_is_a_hint_where_the_signature_does_not_cover_its_body(
    driver: Driver, offline: Channel, status: str
) -> None:
    if status not in driver.callbacks.statuses:
        pytest.skip("this channel does not call back about it")
    report = PaymentReport(status=status, refunded=1000 if status == "refunded" else 0)
    callback = await verify(offline, signed_callback(driver, report))
    assert callback.is_hint is not driver.signs_whole_body


@pytest.mark.parametrize("given_back", [1, 1000, AMOUNT])
async def test_a_refund_in_a_callback_was_paid(driver: Driver, offline: Channel, given_back: int) -> None:
    if "refunded" not in driver.callbacks.statuses:
        pytest.skip("this channel does not call back about refunds")
    report = PaymentReport(status="refunded", refunded=given_back)
    callback = await verify(offline, signed_callback(driver, report))
    assert callback.evidence is not None
    assert callback.evidence.at in (None, PAID_AT), "the time of the refund is not the time of the payment"
    evidence = replace(callback.evidence, at=PAID_AT, ids=())
    assert evidence == replace(expected(driver, report, driver.callbacks), at=PAID_AT)
    assert callback.evidence.amount == AMOUNT


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        (PaymentReport(amount=AMOUNT + 1), CaseReason.AMOUNT_MISMATCH),
        (PaymentReport(amount=1), CaseReason.AMOUNT_MISMATCH),
        (PaymentReport(amount=AMOUNT * 100), CaseReason.AMOUNT_MISMATCH),
        (PaymentReport(currency="JPY"), CaseReason.CURRENCY_MISMATCH),
        (PaymentReport(currency="HKD"), CaseReason.CURRENCY_MISMATCH),
        (PaymentReport(merchant="other"), CaseReason.ACCOUNT_MISMATCH),
        (PaymentReport(app="other"), CaseReason.ACCOUNT_MISMATCH),
        (PaymentReport(number=OTHER_NUMBER), CaseReason.NUMBER_MISMATCH),
        (PaymentReport(number="0000000000000000"), CaseReason.NUMBER_MISMATCH),
    ],
    ids=str,
)
async def test_a_genuine_callback_about_another_payment_is_a_mismatch(
    driver: Driver, offline: Channel, report: PaymentReport, reason: CaseReason
) -> None:
    if not driver.callbacks.includes(report):
        pytest.skip("this channel does not tell that in a callback")
    evidence = (await verify(offline, signed_callback(driver, driver.with_others(report)))).evidence
    assert evidence is not None
    found = mismatch(driver.payment(), evidence)
    assert found is not None
    assert found[0] is reason


async def test_a_resend_has_the_same_notification_id_whenever_it_was_signed(driver: Driver, offline: Channel) -> None:
    """The inbox recognises a replay by it."""
    first, again = (
        await verify(offline, signed_callback(driver, age_s=200)),
        await verify(offline, signed_callback(driver, age_s=-10)),
    )
    assert first == again


async def test_a_replayed_callback_has_the_same_result(driver: Driver, offline: Channel) -> None:
    callback = signed_callback(driver)
    assert await verify(offline, callback) == await verify(offline, callback)


async def test_callbacks_of_the_old_and_of_the_new_key_verify_while_both_are_valid(
    driver: Driver, offline: Channel
) -> None:
    for key in (Key.OLD, Key.NEW):
        assert isinstance((await verify(offline, signed_callback(driver, key=key))).evidence, Paid)


@pytest.mark.parametrize(("ours", "theirs"), [(Key.OLD, Key.NEW), (Key.NEW, Key.OLD), (Key.NEW, Key.STRANGER)])
async def test_a_callback_signed_with_a_foreign_key_is_forged(driver: Driver, ours: Key, theirs: Key) -> None:
    if theirs is not Key.STRANGER and not driver.keys_are_pinned:
        pytest.skip("an account of this channel holds no keys: it believes whom a certificate names")
    with pytest.raises(CallbackForged) as forged:
        await verify(opened_offline(driver, ours), signed_callback(driver, key=theirs))
    assert forged.value.detail, "people read why it was refused"


@pytest.mark.parametrize("side", [1, -1], ids=["past", "future"])
async def test_the_tolerance_holds_on_both_sides_to_the_second(driver: Driver, offline: Channel, side: int) -> None:
    if driver.tolerance_s is None:
        assert (await verify(offline, signed_callback(driver, age_s=side * 86_400.0))).evidence is not None
        return
    await verify(offline, signed_callback(driver, age_s=side * driver.tolerance_s))
    with pytest.raises(CallbackStale, match="time"):
        await verify(offline, signed_callback(driver, age_s=side * (driver.tolerance_s + 1)))


async def test_freshness_is_judged_by_the_time_of_receipt(driver: Driver, offline: Channel) -> None:
    """Freshness depends on `received_at` only: judged by the clock, it would be dropped after an outage."""
    long_ago = NOW - timedelta(days=3)
    callback = signed_callback(driver, age_s=timedelta(days=3).total_seconds())
    assert isinstance((await verify(offline, callback, received_at=long_ago)).evidence, Paid)
    if driver.tolerance_s is not None:
        with pytest.raises(CallbackStale):
            await verify(offline, callback)


async def test_a_stale_callback_is_not_called_forged(driver: Driver, offline: Channel) -> None:
    """A wrong clock must not look like an attack, nor an attack like a wrong clock."""
    if driver.tolerance_s is not None:
        with pytest.raises(CallbackStale):
            await verify(offline, signed_callback(driver, age_s=driver.tolerance_s + 3600))
    with pytest.raises(CallbackForged):
        await verify(offline, signed_callback(driver, age_s=(driver.tolerance_s or 0) + 3600, key=Key.STRANGER))


async def test_the_signature_covers_the_time(driver: Driver, offline: Channel) -> None:
    """Otherwise an old callback could be made fresh."""
    fresh = driver.at_another_time(signed_callback(driver, age_s=999), AT)
    if fresh is None:
        assert driver.tolerance_s is None, "a time that is checked must be in the callback"
        return
    assert fresh != signed_callback(driver, age_s=999), "another time was claimed"
    with pytest.raises(CallbackRejected):
        await verify(offline, fresh)


async def test_a_callback_without_its_signature_is_forged(driver: Driver, offline: Channel) -> None:
    """Each part removed, each part empty, and all parts removed."""
    ways = driver.without_signature(signed_callback(driver))
    assert len(ways) > 1
    for name, callback in ways.items():
        with pytest.raises(CallbackForged):
            pytest.fail(f"{name}: {await verify(offline, callback)}")


BAD_SIGNATURES = ("é", "\xff\x00\r\n", "中文", "a" * 100_000, "=" * 344, "WECHATPAY/SIGNTEST/" + "a" * 64, "", " ")


async def test_a_malformed_signature_of_a_callback_is_forged_and_no_type_error(
    driver: Driver, offline: Channel
) -> None:
    """`hmac.compare_digest` raises TypeError for text that is not ASCII, a 500; probes are not special."""
    for text in (*BAD_SIGNATURES, *driver.bad_signatures):
        for name, callback in driver.with_signature(signed_callback(driver), text).items():
            with pytest.raises((CallbackForged, *driver.rejections)):
                pytest.fail(f"{name} {text[:80]!r}: {await verify(offline, callback)}")


async def test_a_repeated_signature_header_is_forged(driver: Driver, offline: Channel) -> None:
    """A repeated header arrives joined by a comma."""
    doubled = driver.doubled(signed_callback(driver))
    if doubled is None:
        pytest.skip("this channel sends several signatures in one header")
    with pytest.raises(CallbackForged):
        await verify(offline, doubled)


@pytest.mark.parametrize("change", ["one byte more", "one byte less", "re-serialised", "empty", "10 MiB"])
async def test_a_reserialised_callback_is_forged(driver: Driver, offline: Channel, change: str) -> None:
    callback = signed_callback(driver)
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


async def test_forged_callbacks_special_to_this_channel_are_forged(driver: Driver, offline: Channel) -> None:
    for name, callback in driver.forged(at=AT).items():
        with pytest.raises(CallbackForged):
            pytest.fail(f"{name}: {await verify(offline, callback)}")


def assert_unreadable(callback: Callback, name: str = "") -> None:
    """It is genuine, so it must be stored; it proves nothing, and the message is the same in a resend."""
    assert callback.unreadable, name
    assert isinstance(callback.evidence, Unclear), name
    assert callback.notification_id, name


async def test_unreadable_callbacks_special_to_this_channel_are_unreadable(driver: Driver, offline: Channel) -> None:
    for name, callback in driver.unreadable(at=AT).items():
        assert_unreadable(await verify(offline, callback), name)


async def test_a_genuine_callback_about_no_money_carries_no_evidence(driver: Driver, offline: Channel) -> None:
    """It is acknowledged; otherwise the channel would send it for days."""
    for name, callback in driver.unrelated(at=AT).items():
        verified = await verify(offline, callback)
        assert (verified.evidence, bool(verified.notification_id)) == (None, True), name
        assert (verified.ignored, verified.unreadable) == (Ignored.NO_MONEY, ""), name


async def test_a_genuine_callback_of_the_other_world_carries_no_evidence(driver: Driver, offline: Channel) -> None:
    """Test money at a live account: real money of nobody."""
    for name, callback in driver.other_world(at=AT).items():
        verified = await verify(offline, callback)
        assert (verified.evidence, verified.ignored) == (None, Ignored.OTHER_WORLD), name


@pytest.mark.parametrize("number", ["ORD #1001", "1001", "1", "订单1001", "shop/2026/42"])
async def test_a_callback_with_another_systems_number_is_evidence(
    driver: Driver, offline: Channel, number: str
) -> None:
    """Several systems may sell at one account. Refused, its callbacks would end with the channel disabling us."""
    callback = await verify(offline, signed_callback(driver, PaymentReport(number=number)))
    assert callback.evidence is not None
    assert callback.unreadable == ""
    assert number in callback.evidence.every_id
    assert driver.transaction in callback.evidence.every_id


async def test_other_forms_of_payments_are_a_question_by_every_id(driver: Driver, offline: Channel) -> None:
    """Combined orders, partners' payments, other products and states: none of them proves a payment of ours."""
    for name, (callback, ids) in driver.other_forms(at=AT).items():
        verified = await verify(offline, callback)
        assert isinstance(verified.evidence, Unclear), name
        assert (set(verified.evidence.every_id) >= set(ids), verified.unreadable) == (True, ""), name


async def test_the_end_of_an_approval_is_evidence_of_its_own(driver: Driver, offline: Channel) -> None:
    """Only a channel whose money is captured has approvals. The message says of which payment, and when."""
    callback = driver.lapsed(at=AT)
    assert (callback is not None) is driver.needs_capture
    if callback is not None:
        verified = await verify(offline, callback)
        assert isinstance(verified.evidence, Lapsed)
        assert (verified.evidence.out_trade_no, verified.evidence.amount) == (NUMBER, None)
        assert driver.reference in verified.evidence.every_id
        assert verified.evidence.at is not None
        assert verified.is_hint is not driver.signs_whole_body


async def test_an_unreadable_callback_keeps_the_ids_that_can_be_read(driver: Driver, offline: Channel) -> None:
    callback = await verify(offline, signed_callback(driver, PaymentReport(currency="cny")))
    if not driver.callbacks.includes(PaymentReport(currency="cny")) or driver.lowers_currency:
        pytest.skip("this channel does not tell the currency, or writes it in small letters")
    assert_unreadable(callback)
    assert callback.evidence is not None
    assert NUMBER in callback.evidence.every_id


@pytest.mark.parametrize("name", garbage.NAMES)
async def test_a_signed_callback_of_another_form_is_unreadable(driver: Driver, offline: Channel, name: str) -> None:
    good = driver.render_callback(PaymentReport(), driver.notification_id)
    try:
        callback = await verify(offline, signed_content(driver, garbage.instead_of(driver.form, good, name)))
    except driver.nonsense_errors:
        return
    assert_unreadable(callback, name)


@pytest.mark.parametrize(
    "report",
    [
        PaymentReport(status="success"),
        PaymentReport(status="PAID"),
        PaymentReport(transaction=""),
        PaymentReport(transaction="a\x00b"),
        PaymentReport(amount=-1),
        PaymentReport(amount=10**30),
        PaymentReport(refunded=10**30, status="refunded"),
        PaymentReport(currency="CN"),
        PaymentReport(currency="ＣＮＹ"),
    ],
    ids=str,
)
async def test_a_genuine_callback_with_impossible_values_is_unreadable(
    driver: Driver, offline: Channel, report: PaymentReport
) -> None:
    is_untold = report.status == "refunded" and driver.callbacks.refunded(AMOUNT) != AMOUNT
    if is_untold or not driver.callbacks.includes(replace(report, status="paid")):
        pytest.skip("this channel does not tell that in a callback")
    callback = await verify(offline, signed_callback(driver, report))
    assert isinstance(callback.evidence, Unclear)


async def test_a_paid_callback_without_a_transaction_id_is_unreadable(driver: Driver, offline: Channel) -> None:
    content = driver.render_callback(PaymentReport(), driver.notification_id)
    unnamed = garbage.without_value(driver.form, content, driver.transaction)
    assert len(unnamed) < len(content)
    assert_unreadable(await verify(offline, signed_content(driver, unnamed)))


async def test_a_genuine_callback_without_a_number_is_known_by_the_channels_ids(
    driver: Driver, offline: Channel
) -> None:
    verified = await verify(offline, signed_callback(driver, PaymentReport(number="")))
    assert verified.evidence is not None
    assert driver.transaction in verified.evidence.every_id


@pytest.mark.parametrize("number", ["a\r\nb", "a\x00b"])
async def test_a_text_with_control_characters_is_no_number(driver: Driver, offline: Channel, number: str) -> None:
    """Where the number is the merchant's, the payment may be known by another id; elsewhere it is unreadable."""
    evidence = (await verify(offline, signed_callback(driver, PaymentReport(number=number)))).evidence
    assert evidence is not None
    assert not {NUMBER, number} & set(evidence.every_id)


async def test_the_acknowledgement_is_exact_to_the_byte(driver: Driver, offline: Channel) -> None:
    """In quotes, as JSON or with a line feed it does not count, and the channel sends for a day."""
    assert offline.acknowledge() == driver.acknowledgement


async def test_a_rejection_shows_nothing_of_the_callback(driver: Driver, offline: Channel) -> None:
    callback = signed_callback(driver, PaymentReport(transaction="canary"), key=Key.STRANGER)
    with pytest.raises(CallbackForged) as caught:
        await verify(offline, callback)
    assert "canary" not in repr(caught.value)


async def test_each_signature_check_is_recorded_with_its_string_and_no_secret(driver: Driver, offline: Channel) -> None:
    """For people who want to know why a callback was rejected."""
    with recorded_checks() as checks:
        await verify(offline, signed_callback(driver))
    assert checks
    assert all(one.is_good and one.string and one.key for one in checks)
    with recorded_checks() as of_a_stranger, pytest.raises(CallbackForged):
        await verify(offline, signed_callback(driver, key=Key.STRANGER))
    assert not all(one.is_good for one in of_a_stranger)
    assert_without_secrets([*checks, *of_a_stranger], driver.account(OFFLINE_URL).credentials)


class _Recorded(Mapping[str, str]):
    """Headers that note which of them are read."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.read.add(name)
        return self._headers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._headers)

    def __len__(self) -> int:
        return len(self._headers)


async def test_the_verification_reads_no_header_that_is_not_stored(driver: Driver, offline: Channel) -> None:
    """The stored ones verify the callback again, as `nodrop explain` does."""
    request = signed_callback(driver)
    headers = _Recorded(request.headers)
    await offline.verify_callback(headers, request.body, received_at=NOW)
    assert headers.read <= set(offline.callback_headers)
    stored = {name: request.headers[name] for name in offline.callback_headers if name in request.headers}
    assert (await offline.verify_callback(stored, request.body, received_at=NOW)).evidence is not None

"""Queries: verified responses become evidence, everything else an error."""

from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from channels.base import ReadsResponses
from channels.transport import Response
from core.errors import ChannelError, ChannelRefused, ChannelUnreadable
from core.evidence import Approved, Closed, Missing, Paid, Refunded, Unpaid
from core.lifecycle import mismatch
from core.order import CaseReason
from simulator.kernel.faults import CallKind, FaultProfile
from tests.channels.conftest import Env, known, needs_signatures
from tests.channels.expected import expected
from tests.channels.reports import AMOUNT, NUMBER, OTHER_NUMBER, UNKNOWN_SUM, Key, PaymentReport


async def test_a_created_payment_is_unpaid(env: Env) -> None:
    await env.create()
    assert isinstance(await env.query(), Missing if env.driver.missing_until_seen else Unpaid)
    env.see()
    evidence = await env.query()
    assert isinstance(evidence, Unpaid)
    assert mismatch(env.row, evidence) is None


async def test_an_unpaid_payment_names_its_end_where_the_channel_tells_it(env: Env) -> None:
    """The end of a payment that was made elsewhere is known from here, or from the channel's longest window."""
    await env.create()
    env.see()
    evidence = await env.query()
    assert isinstance(evidence, Unpaid)
    [payment] = env.payments()
    names_end = env.driver.queries.end is not None
    assert evidence.payable_until == (payment.terms.expires_at.replace(microsecond=0) if names_end else None)
    assert not (names_end and env.adapter.longest_window)


async def test_paid_evidence_has_amount_currency_and_transaction(env: Env) -> None:
    await env.create()
    paid = await env.pay()
    evidence = await env.query()
    assert isinstance(evidence, Paid)
    assert (evidence.amount, evidence.currency, bool(evidence.channel_transaction_id)) == (
        AMOUNT,
        env.driver.currency,
        True,
    )
    if "at" not in env.driver.queries.never:
        assert evidence.at is not None
        assert paid.paid_at is not None
        assert evidence.at.replace(microsecond=0) == paid.paid_at.replace(microsecond=0)
    assert mismatch(env.row, evidence) is None


async def test_an_agreed_payment_is_approved_and_paid_after_its_capture(env: Env) -> None:
    """An approval is not money, and one that is never captured lapses."""
    if not env.driver.needs_capture:
        await env.create()
        await env.adapter.capture_payment(env.row)
        assert env.calls(CallKind.CAPTURE) == [], "there is nothing to capture at this channel"
        return
    await env.create()
    env.agree()
    evidence = await env.query()
    assert isinstance(evidence, Approved)
    assert mismatch(env.row, evidence) is None
    for _ in range(2):
        await env.adapter.capture_payment(env.row)
    assert isinstance(await env.query(), Paid)
    assert [one.status.was_paid for one in env.payments()] == [True]


async def test_a_refused_capture_raises_the_refusal(env: Env) -> None:
    if not env.driver.needs_capture:
        pytest.skip("this channel takes the money by itself")
    await env.create()
    env.agree()
    env.set_response(lambda request: env.driver.refusal_response(request, env.driver.refusal_code), to=CallKind.CAPTURE)
    with pytest.raises(ChannelRefused, match=env.driver.refusal_code):
        await env.adapter.capture_payment(env.row)


async def test_a_payment_under_way_is_unpaid(env: Env) -> None:
    """With a slow method the buyer finishes today, and the money comes next week or never."""
    env.far_side.faults.profile = FaultProfile(settles_later=1.0, settle_after_s=3600.0)
    await env.create()
    env.agree()
    evidence = await env.query()
    assert isinstance(evidence, Approved if env.driver.needs_capture else Unpaid)
    assert getattr(evidence, "under_way", False) == env.driver.reports_under_way
    assert mismatch(env.row, evidence) is None


async def test_a_closed_payment_is_closed(env: Env) -> None:
    await env.create()
    env.see()
    await env.adapter.close_payment(env.row)
    assert isinstance(await env.query(), Closed if env.driver.closes else Unpaid)


async def test_a_payment_that_does_not_exist_is_missing_and_no_failure(env: Env) -> None:
    assert await env.query() == Missing(channel_account="main", out_trade_no=NUMBER)


async def test_the_channels_not_found_response_is_missing(env: Env) -> None:
    env.set_response(env.driver.missing_response)
    assert await env.query() == Missing(channel_account="main", out_trade_no=NUMBER)


@pytest.mark.parametrize("given_back", [1, 1000, AMOUNT])
async def test_a_refund_in_part_or_in_whole_was_paid(env: Env, given_back: int) -> None:
    """Read as closed or failed, it would be a lost order."""
    await env.create()
    await env.pay()
    env.refund(given_back)
    evidence = await env.query()
    refunded = env.driver.queries.refunded(given_back)
    assert isinstance(evidence, Paid if refunded is None else Refunded)
    sum_shown = getattr(evidence, "refunded_amount", None)
    assert (evidence.amount, sum_shown) == (AMOUNT, None if refunded == UNKNOWN_SUM else refunded)
    assert mismatch(env.row, evidence) is None


@pytest.mark.parametrize("status", ["unpaid", "agreed", "paid", "closed", "refunded"])
async def test_evidence_has_every_field_of_the_response_and_no_other(env: Env, status: str) -> None:
    if status not in env.driver.queries.statuses:
        pytest.skip("this channel has no such status")
    for refunded in (1, 1000, AMOUNT) if status == "refunded" else (0,):
        report = PaymentReport(status=status, refunded=refunded)
        env.set_report(report)
        evidence, expected_evidence = await env.query(), expected(env.driver, report, env.driver.queries)
        if status not in ("paid", "refunded"):
            evidence = replace(evidence, at=None, channel_transaction_id=None)
        assert replace(evidence, ids=()) == expected_evidence


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        (PaymentReport(amount=AMOUNT + 1), CaseReason.AMOUNT_MISMATCH),
        (PaymentReport(amount=AMOUNT - 1), CaseReason.AMOUNT_MISMATCH),
        (PaymentReport(amount=0), CaseReason.AMOUNT_MISMATCH),
        (PaymentReport(amount=AMOUNT * 100), CaseReason.AMOUNT_MISMATCH),
        (PaymentReport(currency="JPY"), CaseReason.CURRENCY_MISMATCH),
        (PaymentReport(currency="HKD"), CaseReason.CURRENCY_MISMATCH),
        (PaymentReport(merchant="other"), CaseReason.ACCOUNT_MISMATCH),
        (PaymentReport(app="other"), CaseReason.ACCOUNT_MISMATCH),
        (PaymentReport(number=OTHER_NUMBER), CaseReason.NUMBER_MISMATCH),
        (PaymentReport(status="refunded", refunded=1, amount=1), CaseReason.AMOUNT_MISMATCH),
        (PaymentReport(status="unpaid", amount=1), CaseReason.AMOUNT_MISMATCH),
        (PaymentReport(status="agreed", amount=1), CaseReason.AMOUNT_MISMATCH),
        (PaymentReport(status="closed", number=OTHER_NUMBER), CaseReason.NUMBER_MISMATCH),
    ],
    ids=str,
)
async def test_a_response_about_another_payment_is_a_mismatch(
    env: Env, report: PaymentReport, reason: CaseReason
) -> None:
    """The adapter compares nothing; one function compares for all channels."""
    if not env.driver.queries.includes(report):
        pytest.skip("this channel does not tell that in an answer")
    env.set_report(env.driver.with_others(report))
    found = mismatch(env.row, await env.query())
    assert found is not None
    assert found[0] is reason


async def test_responses_of_the_old_and_of_the_new_key_verify_while_both_are_valid(env: Env) -> None:
    for key in (Key.OLD, Key.NEW):
        env.set_report(PaymentReport(), key=key)
        assert isinstance(await env.query(), Paid)


@pytest.mark.parametrize(("ours", "theirs"), [((Key.OLD,), Key.NEW), ((Key.NEW,), Key.OLD), ((Key.NEW,), Key.STRANGER)])
async def test_a_response_signed_with_a_foreign_key_is_unreadable(env: Env, ours: tuple[Key, ...], theirs: Key) -> None:
    needs_signatures(env)
    if theirs is not Key.STRANGER and not env.driver.response_keys_are_pinned:
        pytest.skip("an account of this channel holds no keys: it fetches those that are valid")
    env.set_report(PaymentReport(), key=theirs)
    with pytest.raises(ChannelUnreadable):
        await env.open(*ours).query_payment(env.row)


async def test_the_channel_accepts_either_of_our_keys_while_both_are_valid(env: Env) -> None:
    await env.create()
    env.see()
    for keys in ((Key.NEW, Key.OLD), (Key.OLD, Key.NEW)):
        assert isinstance(await env.open(*keys).query_payment(env.row), Unpaid)


@pytest.mark.parametrize("side", [-1, 1], ids=["future", "past"])
async def test_a_response_signed_outside_the_tolerance_is_unreadable(env: Env, side: int) -> None:
    """On both sides: a clock may be ahead or behind."""
    tolerance_s = env.driver.response_tolerance_s
    if tolerance_s is None:
        pytest.skip("this channel does not say when it signed an answer")
    body, now = env.driver.render(PaymentReport()), env.far_side.now().timestamp()
    for age_s in (tolerance_s + 2, 86_400):
        at = now - side * age_s
        env.set_response(lambda request, at=at: env.driver.signed_response(request, 200, body, at=at))  # type: ignore[misc]
        with pytest.raises(ChannelUnreadable):
            await env.query()
    env.set_response(lambda request: env.driver.signed_response(request, 200, body, at=now - side * (tolerance_s - 5)))
    assert isinstance(await env.query(), Paid)


@pytest.mark.parametrize("status", ["paid", "missing"])
async def test_a_response_to_another_query_is_never_evidence_for_this_one(env: Env, status: str) -> None:
    """A recorded response to the query of another order, replayed for this one.

    Where responses do not name their request, the number in them differs and is compared.
    """
    env.set_report(PaymentReport(number=OTHER_NUMBER))
    await env.adapter.query_payment(known(env.driver, OTHER_NUMBER))
    request = env.calls(CallKind.QUERY)[-1]
    body = env.driver.render(PaymentReport(number=OTHER_NUMBER))
    recorded = (
        env.driver.signed_response(request, 200, body) if status == "paid" else env.driver.missing_response(request)
    )
    env.set_response(lambda _: recorded)
    if env.driver.responses_cover_requests:
        with pytest.raises(ChannelUnreadable):
            await env.query()
    elif status == "paid":
        assert mismatch(env.row, await env.query()) is not None


async def test_a_stored_response_reads_as_the_query_does(env: Env) -> None:
    """`nodrop explain` reads stored responses; one that is bound to its request proves nothing alone."""
    env.set_report(PaymentReport())
    evidence = await env.query()
    response = env.driver.signed_response(env.calls(CallKind.QUERY)[-1], 200, env.driver.render(PaymentReport()))
    kept = Response(status=200, headers=response.headers, body=response.body)
    now = datetime.now(UTC)
    assert isinstance(env.adapter, ReadsResponses) is not env.driver.responses_cover_requests
    if not isinstance(env.adapter, ReadsResponses):
        return
    assert env.adapter.read_response(env.row, kept, received_at=now) == evidence
    with pytest.raises(ChannelError):
        env.adapter.read_response(env.row, replace(kept, body=b"<html>"), received_at=now)

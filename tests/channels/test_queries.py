"""What a channel answers, and what an adapter makes of it: evidence from what is verified, an error from all else."""

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
from tests.channels.conftest import Far, known, needs_signatures
from tests.channels.driver import AMOUNT, NUMBER, OTHER_NUMBER, Key, Said
from tests.channels.expected import expected


async def test_a_payment_that_was_created_and_not_paid_is_unpaid(far: Far) -> None:
    await far.create()
    assert isinstance(await far.query(), Missing if far.driver.missing_until_seen else Unpaid)
    far.see()
    told = await far.query()
    assert isinstance(told, Unpaid)
    assert mismatch(far.row, told) is None


async def test_a_paid_payment_is_paid_with_amount_currency_and_transaction(far: Far) -> None:
    await far.create()
    paid = await far.pay()
    told = await far.query()
    assert isinstance(told, Paid)
    assert (told.amount, told.currency, bool(told.channel_transaction_id)) == (AMOUNT, far.driver.currency, True)
    if "at" not in far.driver.queries.never:
        assert told.at is not None
        assert paid.paid_at is not None
        assert told.at.replace(microsecond=0) == paid.paid_at.replace(microsecond=0)
    assert mismatch(far.row, told) is None


async def test_what_the_buyer_agreed_to_is_approved_and_paid_once_it_is_captured(far: Far) -> None:
    """An approval taken for money would ship goods that nobody paid; one that is never captured lapses."""
    if not far.driver.needs_capture:
        await far.create()
        await far.adapter.capture_payment(far.row)
        assert far.asked(CallKind.CAPTURE) == [], "there is nothing to capture at this channel"
        return
    await far.create()
    far.agree()
    told = await far.query()
    assert isinstance(told, Approved)
    assert mismatch(far.row, told) is None
    for _ in range(2):
        await far.adapter.capture_payment(far.row)
    assert isinstance(await far.query(), Paid)
    assert [one.status.was_paid for one in far.payments()] == [True]


async def test_a_refusal_to_capture_is_told(far: Far) -> None:
    if not far.driver.needs_capture:
        pytest.skip("this channel takes the money by itself")
    await far.create()
    far.agree()
    far.answers(lambda asked: far.driver.refusal(asked, far.driver.refusal_code), to=CallKind.CAPTURE)
    with pytest.raises(ChannelRefused, match=far.driver.refusal_code):
        await far.adapter.capture_payment(far.row)


async def test_money_that_is_under_way_is_not_there(far: Far) -> None:
    """By a slow method the buyer is done today, and the money comes next week or never."""
    far.far_side.faults.profile = FaultProfile(settles_later=1.0, settle_after_s=3600.0)
    await far.create()
    far.agree()
    told = await far.query()
    assert isinstance(told, Approved if far.driver.needs_capture else Unpaid)
    assert getattr(told, "under_way", False) == far.driver.tells_under_way
    assert mismatch(far.row, told) is None


async def test_a_closed_payment_is_closed(far: Far) -> None:
    await far.create()
    far.see()
    await far.adapter.close_payment(far.row)
    assert isinstance(await far.query(), Closed if far.driver.closes else Unpaid)


async def test_a_payment_that_is_not_there_is_missing_and_that_is_not_a_failure(far: Far) -> None:
    assert await far.query() == Missing(channel_account="main", out_trade_no=NUMBER)


async def test_the_channels_answer_that_there_is_none_is_missing(far: Far) -> None:
    far.answers(far.driver.missing)
    assert await far.query() == Missing(channel_account="main", out_trade_no=NUMBER)


@pytest.mark.parametrize("given_back", [1, 1000, AMOUNT])
async def test_a_refund_in_part_or_in_whole_was_paid(far: Far, given_back: int) -> None:
    """Read as closed or as failed it would be a lost order."""
    await far.create()
    await far.pay()
    far.refund(given_back)
    told = await far.query()
    refunded = far.driver.queries.refunded(given_back)
    assert isinstance(told, Paid if refunded is None else Refunded)
    assert (told.amount, getattr(told, "refunded_amount", None)) == (AMOUNT, refunded)
    assert mismatch(far.row, told) is None


@pytest.mark.parametrize("status", ["unpaid", "agreed", "paid", "closed", "refunded"])
async def test_evidence_says_all_that_the_channel_said_and_nothing_else(far: Far, status: str) -> None:
    if status not in far.driver.queries.statuses:
        pytest.skip("this channel has no such status")
    for refunded in (1, 1000, AMOUNT) if status == "refunded" else (0,):
        said = Said(status=status, refunded=refunded)
        far.says(said)
        told, wanted = await far.query(), expected(far.driver, said, far.driver.queries)
        if status not in ("paid", "refunded"):
            told = replace(told, at=None, channel_transaction_id=None)
        assert told == wanted


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (Said(amount=AMOUNT + 1), CaseReason.AMOUNT_MISMATCH),
        (Said(amount=AMOUNT - 1), CaseReason.AMOUNT_MISMATCH),
        (Said(amount=0), CaseReason.AMOUNT_MISMATCH),
        (Said(amount=AMOUNT * 100), CaseReason.AMOUNT_MISMATCH),
        (Said(currency="JPY"), CaseReason.CURRENCY_MISMATCH),
        (Said(currency="HKD"), CaseReason.CURRENCY_MISMATCH),
        (Said(merchant="other"), CaseReason.ACCOUNT_MISMATCH),
        (Said(app="other"), CaseReason.ACCOUNT_MISMATCH),
        (Said(number=OTHER_NUMBER), CaseReason.NUMBER_MISMATCH),
        (Said(status="refunded", refunded=1, amount=1), CaseReason.AMOUNT_MISMATCH),
        (Said(status="unpaid", amount=1), CaseReason.AMOUNT_MISMATCH),
        (Said(status="agreed", amount=1), CaseReason.AMOUNT_MISMATCH),
        (Said(status="closed", number=OTHER_NUMBER), CaseReason.NUMBER_MISMATCH),
    ],
    ids=str,
)
async def test_an_answer_about_something_else_is_evidence_of_something_else(
    far: Far, said: Said, reason: CaseReason
) -> None:
    """The adapter reports what the channel said and compares nothing; the comparison is one function for all."""
    if not far.driver.queries.can_tell(said):
        pytest.skip("this channel does not tell that in an answer")
    far.says(far.driver.meant(said))
    found = mismatch(far.row, await far.query())
    assert found is not None
    assert found[0] is reason


async def test_answers_of_the_old_and_of_the_new_key_verify_while_both_are_valid(far: Far) -> None:
    for key in (Key.OLD, Key.NEW):
        far.says(Said(), key=key)
        assert isinstance(await far.query(), Paid)


@pytest.mark.parametrize(("ours", "theirs"), [((Key.OLD,), Key.NEW), ((Key.NEW,), Key.OLD), ((Key.NEW,), Key.STRANGER)])
async def test_an_answer_of_a_key_that_is_not_ours_proves_nothing(far: Far, ours: tuple[Key, ...], theirs: Key) -> None:
    needs_signatures(far)
    if theirs is not Key.STRANGER and not far.driver.answer_keys_are_pinned:
        pytest.skip("an account of this channel holds no keys: it fetches those that are valid")
    far.says(Said(), key=theirs)
    with pytest.raises(ChannelUnreadable):
        await far.open(*ours).query_payment(far.row)


async def test_a_call_signed_with_either_key_is_answered_while_both_are_valid(far: Far) -> None:
    await far.create()
    far.see()
    for keys in ((Key.NEW, Key.OLD), (Key.OLD, Key.NEW)):
        assert isinstance(await far.open(*keys).query_payment(far.row), Unpaid)


@pytest.mark.parametrize("side", [-1, 1], ids=["future", "past"])
async def test_an_answer_signed_outside_the_tolerance_is_unreadable(far: Far, side: int) -> None:
    """Both sides of it: a clock that is ahead is as wrong as one that is behind."""
    tolerance_s = far.driver.answer_tolerance_s
    if tolerance_s is None:
        pytest.skip("this channel does not say when it signed an answer")
    body, now = far.driver.render(Said()), far.far_side.now().timestamp()
    for age_s in (tolerance_s + 2, 86_400):
        at = now - side * age_s
        far.answers(lambda asked, at=at: far.driver.answer(asked, 200, body, at=at))  # type: ignore[misc]
        with pytest.raises(ChannelUnreadable):
            await far.query()
    far.answers(lambda asked: far.driver.answer(asked, 200, body, at=now - side * (tolerance_s - 5)))
    assert isinstance(await far.query(), Paid)


@pytest.mark.parametrize("what", ["paid", "missing"])
async def test_an_answer_to_another_question_is_never_an_answer_to_this_one(far: Far, what: str) -> None:
    """Recorded when another order was asked about, played back for this one.

    Where answers do not name their question, the number in them is another one, and is compared.
    """
    far.says(Said(number=OTHER_NUMBER))
    await far.adapter.query_payment(known(far.driver, OTHER_NUMBER))
    asked = far.asked(CallKind.QUERY)[-1]
    body = far.driver.render(Said(number=OTHER_NUMBER))
    recorded = far.driver.answer(asked, 200, body) if what == "paid" else far.driver.missing(asked)
    far.answers(lambda _: recorded)
    if far.driver.answers_are_bound:
        with pytest.raises(ChannelUnreadable):
            await far.query()
    elif what == "paid":
        assert mismatch(far.row, await far.query()) is not None


async def test_the_second_half_of_a_query_reads_what_the_whole_reads(far: Far) -> None:
    """`nodrop explain` is given an answer that somebody kept; one bound to its question proves nothing alone."""
    far.says(Said())
    told = await far.query()
    answered = far.driver.answer(far.asked(CallKind.QUERY)[-1], 200, far.driver.render(Said()))
    kept = Response(status=200, headers=answered.headers, body=answered.body)
    now = datetime.now(UTC)
    assert isinstance(far.adapter, ReadsResponses) is not far.driver.answers_are_bound
    if not isinstance(far.adapter, ReadsResponses):
        return
    assert far.adapter.read_response(far.row, kept, received_at=now) == told
    with pytest.raises(ChannelError):
        far.adapter.read_response(far.row, replace(kept, body=b"<html>"), received_at=now)

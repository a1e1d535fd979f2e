"""What a channel answers, and what an adapter makes of it: evidence from what is verified, an error from all else."""

import json
from collections.abc import Callable

import pytest

from channels.transport import ANSWER_BYTES_MAX
from core.errors import ChannelError, ChannelUnavailable, ChannelUnreadable, OutcomeUnknown
from core.evidence import Closed, Missing, Paid, Refunded, Unpaid
from core.lifecycle import mismatch
from core.order import CaseReason
from tests.channels.conftest import Far
from tests.channels.driver import AMOUNT, CURRENCY, NUMBER, PAID_AT, TRANSACTION, Key, Said, payment
from tests.channels.wire import Answered, Asked, http_answer

OTHER_NUMBER = NUMBER[:-1] + "9"


async def test_a_payment_that_was_created_and_not_paid_is_unpaid(far: Far) -> None:
    await far.create()
    told = await far.adapter.query_payment(payment())
    assert isinstance(told, Unpaid)
    assert mismatch(payment(), told) is None


async def test_a_paid_payment_is_paid_with_amount_currency_and_transaction(far: Far) -> None:
    await far.create()
    paid = far.pay()
    told = await far.adapter.query_payment(payment())
    assert told == Paid(
        channel_account="main",
        out_trade_no=NUMBER,
        amount=AMOUNT,
        currency=CURRENCY,
        channel_transaction_id=paid.transaction_id or "",
        at=paid.paid_at,
    )
    assert mismatch(payment(), told) is None


async def test_a_closed_payment_is_closed(far: Far) -> None:
    await far.create()
    await far.adapter.close_payment(payment())
    assert isinstance(await far.adapter.query_payment(payment()), Closed)


async def test_a_payment_that_is_not_there_is_missing_and_that_is_not_a_failure(far: Far) -> None:
    told = await far.adapter.query_payment(payment())
    assert told == Missing(channel_account="main", out_trade_no=NUMBER)


@pytest.mark.parametrize("given_back", [1, 1000, AMOUNT])
async def test_a_refund_in_part_or_in_whole_was_paid(far: Far, given_back: int) -> None:
    """Read as closed or as failed it would be a lost order."""
    await far.create()
    far.pay()
    far.refund(given_back)
    told = await far.adapter.query_payment(payment())
    assert isinstance(told, Refunded)
    assert (told.amount, told.refunded_amount) == (AMOUNT, given_back)
    assert mismatch(payment(), told) is None


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (Said(amount=AMOUNT + 1), CaseReason.AMOUNT_MISMATCH),
        (Said(amount=AMOUNT - 1), CaseReason.AMOUNT_MISMATCH),
        (Said(amount=0), CaseReason.AMOUNT_MISMATCH),
        (Said(amount=AMOUNT * 100), CaseReason.AMOUNT_MISMATCH),
        (Said(currency="JPY"), CaseReason.CURRENCY_MISMATCH),
        (Said(merchant="m-2002"), CaseReason.ACCOUNT_MISMATCH),
        (Said(number=OTHER_NUMBER), CaseReason.NUMBER_MISMATCH),
        (Said(status="refunded", refunded=1, amount=1), CaseReason.AMOUNT_MISMATCH),
        (Said(status="unpaid", amount=1), CaseReason.AMOUNT_MISMATCH),
        (Said(status="closed", number=OTHER_NUMBER), CaseReason.NUMBER_MISMATCH),
    ],
    ids=str,
)
async def test_a_signed_answer_about_something_else_is_evidence_of_something_else(
    far: Far, said: Said, reason: CaseReason
) -> None:
    """The adapter reports what the channel said and compares nothing; the comparison is one function for all."""
    far.says(said)
    told = await far.adapter.query_payment(payment())
    found = mismatch(payment(), told)
    assert found is not None
    assert found[0] is reason


async def test_evidence_says_when_it_was_paid(far: Far) -> None:
    far.says(Said())
    told = await far.adapter.query_payment(payment())
    assert (told.at, told.channel_transaction_id) == (PAID_AT, TRANSACTION)


async def test_answers_of_the_old_and_of_the_new_key_verify_while_both_are_valid(far: Far) -> None:
    for key in (Key.OLD, Key.NEW):
        far.says(Said(), key=key)
        assert isinstance(await far.adapter.query_payment(payment()), Paid)


@pytest.mark.parametrize(("ours", "theirs"), [((Key.OLD,), Key.NEW), ((Key.NEW,), Key.OLD), ((Key.NEW,), Key.STRANGER)])
async def test_an_answer_of_a_key_that_is_not_ours_proves_nothing(far: Far, ours: tuple[Key, ...], theirs: Key) -> None:
    far.says(Said(), key=theirs)
    with pytest.raises(ChannelUnreadable):
        await far.open(*ours).query_payment(payment())


async def test_a_call_signed_with_either_key_is_answered_while_both_are_valid(far: Far) -> None:
    await far.create()
    for keys in ((Key.NEW, Key.OLD), (Key.OLD, Key.NEW)):
        assert isinstance(await far.open(*keys).query_payment(payment()), Unpaid)


@pytest.mark.parametrize("age_s", [-301, 301, -86_400, 86_400])
async def test_an_answer_signed_outside_the_tolerance_is_unreadable(far: Far, age_s: int) -> None:
    """Both sides of it: a clock that is ahead is as wrong as one that is behind."""
    body = far.driver.render(Said())
    now = far.far_side.now().timestamp()
    far.answers(lambda asked: far.driver.sign_answer(asked, 200, body, at=now - age_s))
    with pytest.raises(ChannelUnreadable):
        await far.adapter.query_payment(payment())


async def test_an_answer_to_another_question_does_not_verify(far: Far) -> None:
    """Recorded when another order was paid, played back for this one."""
    if not far.driver.answers_are_bound:
        pytest.skip("this channel's answers do not name their question; the number in them is compared instead")
    far.says(Said(number=OTHER_NUMBER))
    await far.adapter.query_payment(payment(OTHER_NUMBER))
    asked, body = far.middleman.passed[-1][0], far.driver.render(Said(number=OTHER_NUMBER))
    recorded = far.driver.sign_answer(asked, 200, body)
    far.answers(lambda _: recorded)
    with pytest.raises(ChannelUnreadable):
        await far.adapter.query_payment(payment())


async def test_a_missing_answer_replayed_for_another_question_does_not_verify(far: Far) -> None:
    """Or whoever has recorded one could end any payment whose creation was refused."""
    if not far.driver.answers_are_bound:
        pytest.skip("this channel's answers do not name their question")
    await far.adapter.query_payment(payment(OTHER_NUMBER))
    recorded = far.driver.missing(far.middleman.passed[-1][0])
    far.answers(lambda _: recorded)
    with pytest.raises(ChannelUnreadable):
        await far.adapter.query_payment(payment())


Spoilt = Callable[[Far, Asked], Answered | bytes]


def _unsigned(status: int, body: bytes, content_type: str = "application/json") -> Answered:
    return Answered(status, {"content-type": content_type}, body)


def _paid(far: Far, asked: Asked) -> Answered:
    return far.driver.sign_answer(asked, 200, far.driver.render(Said()))


def _signed(far: Far, asked: Asked, body: bytes) -> Answered:
    return far.driver.sign_answer(asked, 200, body)


def _with_other_body(far: Far, asked: Asked) -> Answered:
    """An unpaid answer, altered on its way."""
    unpaid = far.driver.sign_answer(asked, 200, far.driver.render(Said(status="unpaid")))
    return unpaid._replace(body=far.driver.render(Said()))


def _said_twice(far: Far, asked: Asked) -> Answered:
    """Unpaid to a parser that takes the first, paid to one that takes the last."""
    body = far.driver.render(Said(status="unpaid"))
    return _signed(far, asked, body[:-1] + b"," + far.driver.render(Said())[1:])


def _with_more(far: Far, more: bytes) -> bytes:
    return far.driver.render(Said())[:-1] + b',"more":' + more + b"}"


UNREADABLE: dict[str, Spoilt] = {
    "unsigned 200": lambda far, _: _unsigned(200, far.driver.render(Said())),
    "unsigned 404": lambda far, _: _unsigned(404, far.driver.render_refusal("PAYMENT_NOT_EXIST")),
    "unsigned 400": lambda far, _: _unsigned(400, far.driver.render_refusal("INVALID_PARAMETER")),
    "unsigned 401": lambda far, _: _unsigned(401, far.driver.render_refusal("SIGNATURE_INVALID")),
    "body altered": _with_other_body,
    "status altered": lambda far, asked: far.driver.missing(asked)._replace(status=200),
    "HTML error page with status 200": lambda *_: _unsigned(200, b"<!doctype html><h1>Back soon</h1>", "text/html"),
    "HTML error page, signed": lambda far, asked: _signed(far, asked, b"<!doctype html><h1>Back soon</h1>"),
    "empty": lambda far, asked: _signed(far, asked, b""),
    "null": lambda far, asked: _signed(far, asked, b"null"),
    "an empty object": lambda far, asked: _signed(far, asked, b"{}"),
    "truncated JSON": lambda far, asked: _signed(far, asked, far.driver.render(Said())[:-7]),
    "two documents": lambda far, asked: _signed(far, asked, far.driver.render(Said()) * 2),
    "not UTF-8": lambda far, asked: _signed(far, asked, _with_more(far, b'"\xff\xfe"')),
    "a lone surrogate": lambda far, asked: _signed(far, asked, _with_more(far, rb'"\ud800"')),
    "NaN": lambda far, asked: _signed(far, asked, _with_more(far, b"NaN")),
    "nested 100,000 deep": lambda far, asked: _signed(far, asked, _with_more(far, b"[" * 100_000 + b"]" * 100_000)),
    "every key twice": _said_twice,
    "an unknown status": lambda far, asked: _signed(far, asked, far.driver.render(Said(status="success"))),
    "a negative amount": lambda far, asked: _signed(far, asked, far.driver.render(Said(amount=-1))),
    "an amount past all stores": lambda far, asked: _signed(far, asked, far.driver.render(Said(amount=10**30))),
    "a refund past all stores": lambda far, asked: _signed(
        far, asked, far.driver.render(Said(status="refunded", refunded=10**30))
    ),
    "paid without a transaction": lambda far, asked: _signed(far, asked, far.driver.render(Said(transaction=""))),
    "a transaction with NUL": lambda far, asked: _signed(far, asked, far.driver.render(Said(transaction="a\x00b"))),
    "an amount that is no integer": lambda far, asked: _signed(
        far, asked, far.driver.render(Said()).replace(str(AMOUNT).encode(), b"8888.5")
    ),
    "a redirect": lambda far, asked: far.driver.sign_answer(asked, 302, b""),
    "compressed": lambda far, asked: _paid(far, asked)._replace(
        headers=_paid(far, asked).headers | {"content-encoding": "gzip"}
    ),
    "oversized": lambda far, asked: _signed(far, asked, b" " * ANSWER_BYTES_MAX + far.driver.render(Said())),
    "a refusal that is no word": lambda far, asked: far.driver.sign_answer(
        asked, 400, far.driver.render_refusal("no\r\nhow")
    ),
}


@pytest.mark.parametrize("spoilt", UNREADABLE)
async def test_what_cannot_be_verified_or_read_is_unreadable_and_never_evidence(far: Far, spoilt: str) -> None:
    far.answers(lambda asked: UNREADABLE[spoilt](far, asked))
    with pytest.raises(ChannelUnreadable):
        await far.adapter.query_payment(payment())


@pytest.mark.parametrize("signature", ["v1=é", "t=1,k=k2,v1=é", "t=１２,k=k2,v1=" + "a" * 64, "\xff" * 8, "a" * 9000])
async def test_a_signature_that_is_not_ascii_is_unreadable_and_not_a_type_error(far: Far, signature: str) -> None:
    """`hmac.compare_digest` raises TypeError for text that is not ASCII."""

    def spoil(asked: Asked) -> bytes:
        told = _paid(far, asked)
        name = next(name for name in told.headers if "signature" in name or name == "sign")
        head, _, body = http_answer(told).partition(b"\r\n\r\n")
        lines = [line for line in head.split(b"\r\n") if not line.startswith(name.encode())]
        return b"\r\n".join([*lines, f"{name}: {signature}".encode(), b"", b""]) + body

    far.answers(spoil)
    with pytest.raises(ChannelUnreadable):
        await far.adapter.query_payment(payment())


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_429_and_5xx_are_unavailable_signed_or_not(far: Far, status: int) -> None:
    body = far.driver.render(Said())
    for answer in (lambda asked: far.driver.sign_answer(asked, status, body), lambda _: _unsigned(status, body)):
        far.answers(answer)
        with pytest.raises(ChannelUnavailable):
            await far.adapter.query_payment(payment())


async def test_an_answer_cut_off_is_unavailable(far: Far) -> None:
    far.answers(lambda asked: http_answer(_paid(far, asked))[:-20])
    with pytest.raises(ChannelUnavailable):
        await far.adapter.query_payment(payment())


async def test_a_signed_refusal_of_a_query_is_no_evidence(far: Far) -> None:
    """It is definite for a creation; of a query it says nothing about money."""
    refusal = far.driver.render_refusal("INVALID_PARAMETER")
    far.answers(lambda asked: far.driver.sign_answer(asked, 400, refusal))
    with pytest.raises(OutcomeUnknown):
        await far.adapter.query_payment(payment())


async def test_unknown_fields_of_an_answer_are_let_pass(far: Far) -> None:
    """Channels add fields without asking anybody."""
    body = json.dumps(json.loads(far.driver.render(Said())) | {"brand_new": {"a": [1, None]}}).encode()
    far.answers(lambda asked: far.driver.sign_answer(asked, 200, body))
    assert isinstance(await far.adapter.query_payment(payment()), Paid)


async def test_errors_of_an_answer_tell_neither_its_body_nor_its_signature(far: Far) -> None:
    far.answers(lambda asked: _signed(far, asked, b'{"payer":"canary@example.com"}'))
    with pytest.raises(ChannelError) as caught:
        await far.adapter.query_payment(payment())
    assert "canary" not in repr(caught.value)
    assert caught.value.__cause__ is None

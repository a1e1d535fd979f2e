"""Answers that are not what they should be: what is not the channel's, or cannot be read, teaches nothing."""

import json
from collections.abc import Callable

import pytest

from channels.transport import RESPONSE_BYTES_MAX, Transport
from core.errors import ChannelError, ChannelRefused, ChannelUnavailable, ChannelUnreadable, OutcomeUnknown
from simulator.kernel.faults import CallKind
from tests.channels import garbage
from tests.channels.conftest import Far, needs_signatures
from tests.channels.driver import AMOUNT, Form, Said
from tests.channels.expected import expected
from tests.channels.wire import Answered, Asked, http_answer

NO_EVIDENCE = (OutcomeUnknown, ChannelRefused)
"""What a query may end in that has learnt nothing: a refusal to answer says nothing about money either."""

Spoilt = Callable[[Far, Asked], Answered | bytes]


def _answer(far: Far, asked: Asked, body: bytes) -> Answered:
    return far.driver.answer(asked, 200, body)


def _said(**said: object) -> Spoilt:
    return lambda far, asked: _answer(far, asked, far.driver.render(Said(**said)))  # type: ignore[arg-type]


def _page(status: int) -> Answered:
    return Answered(status, {"content-type": "text/html"}, b"<!doctype html><h1>Back soon</h1>")


def _with_other_body(far: Far, asked: Asked) -> Answered:
    """An unpaid answer, altered on its way."""
    unpaid, paid = far.driver.render(Said(status="unpaid")), far.driver.render(Said())
    answered = _answer(far, asked, unpaid)
    assert unpaid in answered.body
    return answered._replace(body=answered.body.replace(unpaid, paid))


def _said_twice(far: Far, asked: Asked) -> Answered:
    """Unpaid to a parser that takes the first, paid to one that takes the last."""
    body = far.driver.render(Said(status="unpaid"))
    return _answer(far, asked, body[:-1] + b"," + far.driver.render(Said())[1:])


def _with_more(far: Far, asked: Asked, more: bytes) -> Answered:
    return _answer(far, asked, far.driver.render(Said())[:-1] + b',"more":' + more + b"}")


def _paid(far: Far, asked: Asked) -> Answered:
    return _answer(far, asked, far.driver.render(Said()))


UNSIGNED: dict[str, Spoilt] = {
    "unsigned 200": lambda far, asked: far.driver.unsigned_answer(_paid(far, asked)),
    "body altered": _with_other_body,
}

UNSIGNED_REFUSALS: dict[str, Spoilt] = {
    "unsigned missing": lambda far, asked: far.driver.unsigned_answer(far.driver.missing(asked)),
    "unsigned refusal": lambda far, asked: far.driver.unsigned_answer(
        far.driver.refusal(asked, far.driver.refusal_code)
    ),
    "unsigned 401": lambda far, asked: far.driver.unsigned_answer(
        far.driver.refusal(asked, far.driver.refusal_code)
    )._replace(status=401),
}

UNREADABLE: dict[str, Spoilt] = {
    **{f"HTML error page with status {status}": lambda *_, s=status: _page(s) for status in (200, 400, 401, 403, 404)},
    "HTML error page, signed": lambda far, asked: _answer(far, asked, b"<!doctype html><h1>Back soon</h1>"),
    "empty": lambda far, asked: _answer(far, asked, b""),
    "nothing at all": lambda *_: Answered(200, {}, b""),
    "nothing at all with status 204": lambda *_: Answered(204, {}, b""),
    "nothing at all with status 404": lambda *_: Answered(404, {}, b""),
    "null": lambda far, asked: _answer(far, asked, b"null"),
    "an empty object": lambda far, asked: _answer(far, asked, b"{}"),
    "truncated JSON": lambda far, asked: _answer(far, asked, far.driver.render(Said())[:-7]),
    "two documents": lambda far, asked: _answer(far, asked, far.driver.render(Said()) * 2),
    "not UTF-8": lambda far, asked: _with_more(far, asked, b'"\xff\xfe"'),
    "a lone surrogate": lambda far, asked: _with_more(far, asked, rb'"\ud800"'),
    "NaN": lambda far, asked: _with_more(far, asked, b"NaN"),
    "nested 100,000 deep": lambda far, asked: _with_more(far, asked, b"[" * 100_000 + b"]" * 100_000),
    "every key twice": _said_twice,
    "an unknown status": _said(status="success"),
    "a negative amount": _said(amount=-1),
    "an amount past all stores": _said(amount=10**30),
    "paid without a transaction": _said(transaction=""),
    "a transaction with NUL": _said(transaction="a\x00b"),
    "a redirect": lambda far, asked: far.driver.answer(asked, 302, b""),
    "compressed": lambda far, asked: _paid(far, asked)._replace(
        headers=_paid(far, asked).headers | {"content-encoding": "gzip"}
    ),
    "oversized": lambda far, asked: _answer(far, asked, b" " * RESPONSE_BYTES_MAX + far.driver.render(Said())),
}


@pytest.mark.parametrize("spoilt", UNSIGNED)
async def test_what_is_not_signed_by_the_channel_is_unreadable_and_never_evidence(far: Far, spoilt: str) -> None:
    needs_signatures(far)
    far.answers(lambda asked: UNSIGNED[spoilt](far, asked))
    with pytest.raises(ChannelUnreadable):
        await far.query()


@pytest.mark.parametrize("spoilt", UNSIGNED_REFUSALS)
async def test_a_refusal_that_is_not_signed_is_unreadable_where_the_channel_signs_them(far: Far, spoilt: str) -> None:
    """Or whoever is on the way could end a payment with a 404."""
    if not far.driver.refusals_are_signed:
        pytest.skip("this channel does not sign its refusals")
    far.answers(lambda asked: UNSIGNED_REFUSALS[spoilt](far, asked))
    with pytest.raises(ChannelUnreadable):
        await far.query()


@pytest.mark.parametrize("spoilt", UNREADABLE)
async def test_what_cannot_be_read_is_unreadable_and_never_evidence(far: Far, spoilt: str) -> None:
    far.answers(lambda asked: UNREADABLE[spoilt](far, asked))
    with pytest.raises(ChannelUnreadable):
        await far.query()


async def test_a_refund_past_all_stores_is_unreadable_or_not_told(far: Far) -> None:
    far.says(Said(status="refunded", refunded=10**30))
    if far.driver.queries.refunded(1) == 1:
        with pytest.raises(ChannelUnreadable):
            await far.query()
    else:
        assert await far.query() == expected(far.driver, Said(status="refunded", refunded=AMOUNT), far.driver.queries)


async def test_money_of_which_the_channel_does_not_name_the_transaction_is_unreadable(far: Far) -> None:
    """Two orders could claim it, and nobody could find it in the statement."""
    rendered = far.driver.render(Said())
    unnamed = garbage.without_value(Form.JSON, rendered, far.driver.transaction)
    assert len(unnamed) < len(rendered)
    far.answers(lambda asked: _answer(far, asked, unnamed))
    with pytest.raises(ChannelUnreadable):
        await far.query()


async def test_an_amount_with_a_fraction_of_a_minor_unit_is_unreadable(far: Far) -> None:
    """8888.5 of an integer, 88.885 of a decimal text."""
    rendered = far.driver.render(Said())
    spoilt = rendered.replace(b"88.88", b"88.885").replace(b"8888,", b"8888.5,").replace(b"8888}", b"8888.5}")
    assert spoilt != rendered
    far.answers(lambda asked: _answer(far, asked, spoilt))
    with pytest.raises(ChannelUnreadable):
        await far.query()


async def test_answers_of_this_channel_from_which_nothing_can_be_learnt_are_no_evidence(far: Far) -> None:
    await far.query()
    for name in far.driver.unclear(far.asked(CallKind.QUERY)[-1]):
        far.answers(lambda asked, name=name: far.driver.unclear(asked)[name])  # type: ignore[misc]
        with pytest.raises(NO_EVIDENCE):
            pytest.fail(f"{name}: {await far.query()}")


BAD_SIGNATURES = ("v1=é", "t=1,k=k2,v1=é", "t=１２,k=k2,v1=" + "a" * 64, "\xff" * 8, "a" * 9000, "", "=" * 344)


@pytest.mark.parametrize("signature", BAD_SIGNATURES, ids=lambda text: text[:20])
async def test_a_text_that_is_no_signature_is_unreadable_and_not_a_type_error(far: Far, signature: str) -> None:
    """`hmac.compare_digest` raises TypeError for text that is not ASCII."""
    needs_signatures(far)
    far.answers(lambda asked: far.driver.with_answer_signature(_paid(far, asked), signature))
    with pytest.raises(ChannelUnreadable):
        await far.query()


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_429_and_5xx_are_unavailable_signed_or_not(far: Far, status: int) -> None:
    body = far.driver.render(Said())
    for answer in (lambda asked: far.driver.answer(asked, status, body), lambda _: Answered(status, {}, body)):
        far.answers(answer)
        with pytest.raises(ChannelUnavailable):
            await far.query()


async def test_an_answer_cut_off_is_unavailable(far: Far) -> None:
    far.answers(lambda asked: http_answer(_paid(far, asked))[:-20])
    with pytest.raises(ChannelUnavailable):
        await far.query()


async def test_silence_is_unavailable_within_the_time_out(far: Far) -> None:
    far.answers(lambda _: None)
    async with Transport(timeout_s=0.3) as impatient:
        with pytest.raises(ChannelUnavailable, match="timed_out"):
            await far.open(transport=impatient).query_payment(far.row)


async def test_a_refusal_of_a_query_is_no_evidence(far: Far) -> None:
    """It is definite for a creation; of a query it says nothing about money."""
    code = far.driver.refusal_code
    far.answers(lambda asked: far.driver.refusal(asked, code))
    with pytest.raises(NO_EVIDENCE):
        await far.query()
    far.answers(lambda asked: far.driver.refusal(asked, code)._replace(status=404))
    with pytest.raises(NO_EVIDENCE):
        await far.query()


async def test_unknown_fields_of_an_answer_are_let_pass(far: Far) -> None:
    """Channels add fields without asking anybody."""
    body = json.dumps(json.loads(far.driver.render(Said())) | {"brand_new": {"a": [1, None]}}).encode()
    far.answers(lambda asked: _answer(far, asked, body))
    assert await far.query() == expected(far.driver, Said(), far.driver.queries)


async def test_errors_of_an_answer_tell_neither_its_body_nor_its_signature(far: Far) -> None:
    far.answers(lambda asked: _answer(far, asked, b'{"payer":"canary@example.com"}'))
    with pytest.raises(ChannelError) as caught:
        await far.query()
    assert "canary" not in repr(caught.value)
    assert caught.value.__cause__ is None


async def test_calls_name_neither_secrets_nor_keys_in_their_address(far: Far) -> None:
    """Addresses end in the logs of every proxy on the way."""
    await far.create()
    await far.query()
    secrets = [text for text in _texts(far.driver.account(far.url).credentials) if len(text) >= 32]
    for asked, _ in far.middleman.passed:
        assert not [secret for secret in secrets if secret in asked.target]


def _texts(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for inner in value.values() for text in _texts(inner)]
    if isinstance(value, list | tuple):
        return [text for inner in value for text in _texts(inner)]
    return [str(value)]

"""Responses that are not the channel's or cannot be read: they are no evidence."""

import json
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from channels.transport import RESPONSE_BYTES_MAX, Transport
from core.errors import ChannelError, ChannelRefused, ChannelUnavailable, ChannelUnreadable, OutcomeUnknown
from simulator.kernel.faults import CallKind
from tests.channels import garbage
from tests.channels.conftest import Env, needs_signatures
from tests.channels.expected import expected
from tests.channels.reports import AMOUNT, Form, PaymentReport
from tests.channels.wire import WireRequest, WireResponse, http_bytes

NO_EVIDENCE = (OutcomeUnknown, ChannelRefused)
"""The ends of a query that has learnt nothing: a refusal to answer says nothing about money either."""

Altered = Callable[[Env, WireRequest], WireResponse | bytes]


def _answer(env: Env, request: WireRequest, body: bytes) -> WireResponse:
    return env.driver.signed_response(request, 200, body)


def _said(**report: object) -> Altered:
    return lambda env, request: _answer(env, request, env.driver.render(PaymentReport(**report)))  # type: ignore[arg-type]


def _page(status: int) -> WireResponse:
    return WireResponse(status, {"content-type": "text/html"}, b"<!doctype html><h1>Back soon</h1>")


def _with_other_body(env: Env, request: WireRequest) -> WireResponse:
    """An unpaid response, altered on its way."""
    unpaid, paid = env.driver.render(PaymentReport(status="unpaid")), env.driver.render(PaymentReport())
    response = _answer(env, request, unpaid)
    assert unpaid in response.body
    return response._replace(body=response.body.replace(unpaid, paid))


def _said_twice(env: Env, request: WireRequest) -> WireResponse:
    """Unpaid to a parser that takes the first, paid to one that takes the last."""
    body = env.driver.render(PaymentReport(status="unpaid"))
    return _answer(env, request, body[:-1] + b"," + env.driver.render(PaymentReport())[1:])


def _with_more(env: Env, request: WireRequest, more: bytes) -> WireResponse:
    return _answer(env, request, env.driver.render(PaymentReport())[:-1] + b',"more":' + more + b"}")


def _paid(env: Env, request: WireRequest) -> WireResponse:
    return _answer(env, request, env.driver.render(PaymentReport()))


UNSIGNED: dict[str, Altered] = {
    "unsigned 200": lambda env, request: env.driver.unsigned_response(_paid(env, request)),
    "body altered": _with_other_body,
}

UNSIGNED_REFUSALS: dict[str, Altered] = {
    "unsigned missing": lambda env, request: env.driver.unsigned_response(env.driver.missing_response(request)),
    "unsigned refusal": lambda env, request: env.driver.unsigned_response(
        env.driver.refusal_response(request, env.driver.refusal_code)
    ),
    "unsigned 401": lambda env, request: env.driver.unsigned_response(
        env.driver.refusal_response(request, env.driver.refusal_code)
    )._replace(status=401),
}

UNREADABLE: dict[str, Altered] = {
    **{f"HTML error page with status {status}": lambda *_, s=status: _page(s) for status in (200, 400, 401, 403, 404)},
    "HTML error page, signed": lambda env, request: _answer(env, request, b"<!doctype html><h1>Back soon</h1>"),
    "empty": lambda env, request: _answer(env, request, b""),
    "nothing at all": lambda *_: WireResponse(200, {}, b""),
    "nothing at all with status 204": lambda *_: WireResponse(204, {}, b""),
    "nothing at all with status 404": lambda *_: WireResponse(404, {}, b""),
    "null": lambda env, request: _answer(env, request, b"null"),
    "an empty object": lambda env, request: _answer(env, request, b"{}"),
    "truncated JSON": lambda env, request: _answer(env, request, env.driver.render(PaymentReport())[:-7]),
    "two documents": lambda env, request: _answer(env, request, env.driver.render(PaymentReport()) * 2),
    "not UTF-8": lambda env, request: _with_more(env, request, b'"\xff\xfe"'),
    "a lone surrogate": lambda env, request: _with_more(env, request, rb'"\ud800"'),
    "NaN": lambda env, request: _with_more(env, request, b"NaN"),
    "nested 100,000 deep": lambda env, request: _with_more(env, request, b"[" * 100_000 + b"]" * 100_000),
    "every key twice": _said_twice,
    "an unknown status": _said(status="success"),
    "a negative amount": _said(amount=-1),
    "an amount past all stores": _said(amount=10**30),
    "paid without a transaction": _said(transaction=""),
    "a transaction with NUL": _said(transaction="a\x00b"),
    "a redirect": lambda env, request: env.driver.signed_response(request, 302, b""),
    "compressed": lambda env, request: _paid(env, request)._replace(
        headers=_paid(env, request).headers | {"content-encoding": "gzip"}
    ),
    "oversized": lambda env, request: _answer(
        env, request, b" " * RESPONSE_BYTES_MAX + env.driver.render(PaymentReport())
    ),
}


@pytest.mark.parametrize("altered", UNSIGNED)
async def test_a_response_that_the_channel_did_not_sign_is_unreadable(env: Env, altered: str) -> None:
    needs_signatures(env)
    env.set_response(lambda request: UNSIGNED[altered](env, request))
    with pytest.raises(ChannelUnreadable):
        await env.query()


@pytest.mark.parametrize("altered", UNSIGNED_REFUSALS)
async def test_an_unsigned_refusal_is_unreadable_where_refusals_are_signed(env: Env, altered: str) -> None:
    """Otherwise a proxy in between could end a payment with a 404."""
    if not env.driver.refusals_are_signed:
        pytest.skip("this channel does not sign its refusals")
    env.set_response(lambda request: UNSIGNED_REFUSALS[altered](env, request))
    with pytest.raises(ChannelUnreadable):
        await env.query()


@pytest.mark.parametrize("altered", UNREADABLE)
async def test_a_signed_response_of_another_form_is_unreadable(env: Env, altered: str) -> None:
    env.set_response(lambda request: UNREADABLE[altered](env, request))
    with pytest.raises(ChannelUnreadable):
        await env.query()


async def test_a_refund_beyond_the_largest_amount_is_unreadable_or_omitted(env: Env) -> None:
    env.set_report(PaymentReport(status="refunded", refunded=10**30))
    if env.driver.queries.refunded(1) == 1:
        with pytest.raises(ChannelUnreadable):
            await env.query()
    else:
        assert replace(await env.query(), ids=()) == expected(
            env.driver, PaymentReport(status="refunded", refunded=AMOUNT), env.driver.queries
        )


async def test_a_paid_response_without_a_transaction_id_is_unreadable(env: Env) -> None:
    """Two orders could claim it, and it could not be found in the statement."""
    rendered = env.driver.render(PaymentReport())
    unnamed = garbage.without_value(Form.JSON, rendered, env.driver.transaction)
    assert len(unnamed) < len(rendered)
    env.set_response(lambda request: _answer(env, request, unnamed))
    with pytest.raises(ChannelUnreadable):
        await env.query()


async def test_an_amount_with_a_fraction_of_a_minor_unit_is_unreadable(env: Env) -> None:
    """8888.5 of an integer, 88.885 of a decimal text."""
    rendered = env.driver.render(PaymentReport())
    altered = rendered.replace(b"88.88", b"88.885").replace(b"8888,", b"8888.5,").replace(b"8888}", b"8888.5}")
    assert altered != rendered
    env.set_response(lambda request: _answer(env, request, altered))
    with pytest.raises(ChannelUnreadable):
        await env.query()


async def test_inconclusive_responses_of_this_channel_are_no_evidence(env: Env) -> None:
    await env.query()
    for name in env.driver.unclear_responses(env.calls(CallKind.QUERY)[-1]):
        env.set_response(lambda request, name=name: env.driver.unclear_responses(request)[name])  # type: ignore[misc]
        with pytest.raises(NO_EVIDENCE):
            pytest.fail(f"{name}: {await env.query()}")


BAD_SIGNATURES = ("v1=é", "t=1,k=k2,v1=é", "t=１２,k=k2,v1=" + "a" * 64, "\xff" * 8, "a" * 9000, "", "=" * 344)


@pytest.mark.parametrize("signature", BAD_SIGNATURES, ids=lambda text: text[:20])
async def test_a_malformed_signature_of_a_response_is_unreadable_and_no_type_error(env: Env, signature: str) -> None:
    """`hmac.compare_digest` raises TypeError for text that is not ASCII."""
    needs_signatures(env)
    env.set_response(lambda request: env.driver.with_response_signature(_paid(env, request), signature))
    with pytest.raises(ChannelUnreadable):
        await env.query()


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_429_and_5xx_are_unavailable_signed_or_not(env: Env, status: int) -> None:
    body = env.driver.render(PaymentReport())
    for answer in (
        lambda request: env.driver.signed_response(request, status, body),
        lambda _: WireResponse(status, {}, body),
    ):
        env.set_response(answer)
        with pytest.raises(ChannelUnavailable):
            await env.query()


async def test_a_response_that_is_cut_off_is_unavailable(env: Env) -> None:
    env.set_response(lambda request: http_bytes(_paid(env, request))[:-20])
    with pytest.raises(ChannelUnavailable):
        await env.query()


async def test_no_response_is_unavailable_within_the_time_out(env: Env) -> None:
    env.set_response(lambda _: None)
    async with Transport(timeout_s=0.3) as impatient:
        with pytest.raises(ChannelUnavailable, match="timed_out"):
            await env.open(transport=impatient).query_payment(env.row)


async def test_a_refused_query_is_no_evidence(env: Env) -> None:
    """It is definite for a creation; for a query it says nothing about money."""
    code = env.driver.refusal_code
    env.set_response(lambda request: env.driver.refusal_response(request, code))
    with pytest.raises(NO_EVIDENCE):
        await env.query()
    env.set_response(lambda request: env.driver.refusal_response(request, code)._replace(status=404))
    with pytest.raises(NO_EVIDENCE):
        await env.query()


async def test_unknown_fields_of_a_response_are_ignored(env: Env) -> None:
    """Channels add fields without notice."""
    body = json.dumps(json.loads(env.driver.render(PaymentReport())) | {"brand_new": {"a": [1, None]}}).encode()
    env.set_response(lambda request: _answer(env, request, body))
    assert replace(await env.query(), ids=()) == expected(env.driver, PaymentReport(), env.driver.queries)


async def test_errors_show_neither_body_nor_signature_of_a_response(env: Env) -> None:
    env.set_response(lambda request: _answer(env, request, b'{"payer":"canary@example.com"}'))
    with pytest.raises(ChannelError) as caught:
        await env.query()
    assert "canary" not in repr(caught.value)
    assert caught.value.__cause__ is None


async def test_request_addresses_contain_no_secrets_and_no_keys(env: Env) -> None:
    """Every proxy on the way logs addresses."""
    await env.create()
    await env.query()
    secrets = [text for text in _texts(env.driver.account(env.url).credentials) if len(text) >= 32]
    for request, _ in env.proxy.exchanges:
        assert not [secret for secret in secrets if secret in request.target]


def _texts(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for inner in value.values() for text in _texts(inner)]
    if isinstance(value, list | tuple):
        return [text for inner in value for text in _texts(inner)]
    return [str(value)]

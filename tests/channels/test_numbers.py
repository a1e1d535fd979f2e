"""Numbers that people hold besides the one by which a payment is queried: the channel's own, and those of refunds."""

import pytest
from msgspec.structs import replace

from channels.base import FindsNumbers
from core.errors import ChannelError, ChannelUnavailable, ChannelUnreadable
from core.evidence import Missing, Paid, Refunded
from core.order import Origin
from simulator.paypal.wire import refund_object
from tests.channels.conftest import Env
from tests.channels.wire import WireRequest, WireResponse

BY_TRANSACTION = {"alipay", "wechatpay", "paypal"}
"""Stripe's transaction is its PaymentIntent, by which it is queried anyway."""

BY_REFUND = {"wechatpay", "stripe", "paypal"}
"""Alipay finds no refund without the number of its payment."""

UNKNOWN = {
    "alipay": "2026112322001478901234567890",
    "wechatpay": "4200000002202611230123456789",
    "stripe": "ch_nobody",
    "paypal": "8XU12345AB678901C",
}


def finding(env: Env, names: set[str]) -> FindsNumbers:
    if env.driver.channel not in names:
        pytest.skip("this channel finds no payment by such a number")
    assert isinstance(env.adapter, FindsNumbers)
    return env.adapter


async def bought(env: Env) -> str:
    """The channel's own number of a payment that is paid."""
    await env.buy()
    assert env.row.channel_transaction_id is not None
    return env.row.channel_transaction_id


async def assert_found(env: Env, named: str | None) -> None:
    """A query by what was found is about this money, as about a payment that was made elsewhere."""
    assert named is not None
    by_id = env.adapter.queries_by_reference
    row = replace(env.row, origin=Origin.WATCHED, channel_reference=named if by_id else None)
    evidence = await env.adapter.query_payment(row if by_id else replace(row, out_trade_no=named))
    assert isinstance(evidence, Paid | Refunded)
    assert evidence.channel_transaction_id == env.row.channel_transaction_id


async def test_a_payment_is_found_by_the_channels_own_number(env: Env) -> None:
    finds, number = finding(env, BY_TRANSACTION), await bought(env)
    await assert_found(env, await finds.find_number(number))


async def test_stripes_charge_leads_to_its_payment(env: Env) -> None:
    finds, number = finding(env, {"stripe"}), await bought(env)
    await assert_found(env, await finds.find_number(f"ch_{number.removeprefix('pi_')}"))
    with pytest.raises(ChannelUnreadable, match="no_channel_reference"):
        await finds.find_number("a number of no form")


@pytest.mark.parametrize("amount", [1000, None])
async def test_a_payment_is_found_by_the_number_of_a_refund(env: Env, amount: int | None) -> None:
    finds = finding(env, BY_REFUND)
    await bought(env)
    number = env.refund_in_console(amount)
    if env.driver.channel == "paypal":
        [refund] = env.far_side.ledger.refunds()
        number = refund_object(refund)["id"]
    await assert_found(env, await finds.find_number(number))


async def test_a_number_that_the_channel_does_not_know_is_none(env: Env) -> None:
    finds = finding(env, {*UNKNOWN})
    await env.create()
    assert await finds.find_number(UNKNOWN[env.driver.channel]) is None


async def test_another_merchants_number_is_none(env: Env) -> None:
    finds, number = finding(env, BY_TRANSACTION), await bought(env)
    ledger, [payment] = env.far_side.ledger, env.payments()
    del ledger._payments[payment.key]
    ledger._keep(replace(payment, merchant_id="m-9999"))
    assert await finds.find_number(number) is None


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_no_answer_is_no_conclusion(env: Env, status: int) -> None:
    finds, number = finding(env, BY_TRANSACTION), await bought(env)
    env.proxy.alter = lambda _, answer: replaced(answer, status=status)
    with pytest.raises(ChannelUnavailable):
        await finds.find_number(number)


async def test_an_answer_about_another_number_is_no_conclusion(env: Env) -> None:
    """Signed or not: the number in it is compared."""
    finds, number = finding(env, BY_TRANSACTION), await bought(env)
    other = UNKNOWN[env.driver.channel]
    answers: list[WireResponse] = []

    def keep(_: WireRequest, answer: WireResponse) -> WireResponse:
        answers.append(answer)
        return answer

    env.proxy.alter = keep
    await finds.find_number(number)
    env.proxy.alter = lambda _, __: answers[0]
    with pytest.raises(ChannelError):
        await finds.find_number(other)
    env.proxy.alter = lambda _, answer: replaced(answer, body=answer.body.replace(number.encode(), other.encode()))
    with pytest.raises(ChannelError):
        await finds.find_number(number)


def replaced(answer: WireResponse, *, status: int = 0, body: bytes = b"") -> WireResponse:
    return answer._replace(status=status or answer.status, body=body or answer.body)


async def test_a_number_of_no_form_asks_nothing_of_alipay(env: Env) -> None:
    finds = finding(env, {"alipay"})
    assert await finds.find_number("a b") is None
    assert env.proxy.exchanges == []
    evidence = await env.adapter.query_payment(replace(env.row, out_trade_no="nobody"))
    assert isinstance(evidence, Missing)

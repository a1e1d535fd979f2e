"""The simulated channels in a world: paid on their pages, their callbacks over its network at their real times."""

import asyncio
from datetime import timedelta

import pytest

from simulator.kernel.faults import FaultProfile
from simulator.kernel.ledger import Payment, Terms
from simulator.kernel.pay_page import Action
from simulator.shoppers.browser import Browser
from tests.simulation.channels import PORTS, Channels
from tests.simulation.clock import TIME, now
from tests.simulation.faults import FaultBook
from tests.simulation.in_world import in_world
from tests.simulation.network import LinkFaults, Network, Server

HOUR_S = 3600.0
API = "http://127.0.0.1:8000"
LAST_AFTER_S = {
    "sandbox": (16, 86_640),
    "alipay": (8, 24.4 * HOUR_S),
    "wechatpay": (16, 86_640),
    "stripe": (9, 56 * HOUR_S),
    "paypal": (26, 259_200),
}
"""Deliveries of a callback that nobody takes, and the time from the first to the last."""


class Deaf:
    """A server that takes no callback, and notes when each came."""

    def __init__(self) -> None:
        self.times: list[float] = []

    async def app(self, _scope: object, _receive: object, send: object) -> None:
        self.times.append(TIME.seconds)
        await send({"type": "http.response.start", "status": 503, "headers": []})  # type: ignore[operator]
        await send({"type": "http.response.body", "body": b""})  # type: ignore[operator]


async def pay(channels: Channels, network: Network, channel: str) -> Payment:
    """Create a payment at a channel and pay it on its page."""
    opened = channels.open_account(channel)
    simulation = channels.simulation
    account = next(each for each in simulation.accounts.values() if each.name == opened.name)
    terms = Terms(
        out_trade_no="01" + "ab" * 13,
        amount=100,
        currency="CNY",
        subject="W1-0",
        expires_at=now() + timedelta(hours=99),
        callback_url=f"{API}/callbacks/{channel}",
    )
    payment = simulation.create(account, terms, now())
    assert isinstance(payment, Payment)
    browser = Browser(client=network.client("shopper", "W1-0"))
    page = await browser.press(await browser.open(simulation.pay_url(payment)), Action.PAY)
    assert page.state == ("agreed" if channel == "paypal" else "paid")
    return payment


async def deliver(channel: str, profile: FaultProfile | None = None) -> tuple[list[float], list[str]]:
    """Return when a channel's callbacks came, and the faults that happened."""
    network, deaf = Network(FaultBook(3, elapsed=lambda: TIME.seconds)), Deaf()
    network.serve(8000, Server("api", app=deaf.app))
    channels = Channels(network, now=now, api_url=API)
    async with channels.simulation:
        channels.set_faults(profile or FaultProfile())
        payment = await pay(channels, network, channel)
        await asyncio.sleep(98 * HOUR_S)
        assert channels.ledger().payments[0].out_trade_no == payment.terms.out_trade_no
    network.close()
    return deaf.times, list(network.book.happened)


@pytest.mark.parametrize("channel", PORTS)
def test_callback_that_nobody_takes_comes_by_the_real_schedule(channel: str) -> None:
    times, _ = in_world(lambda: deliver(channel))
    count, last_after_s = LAST_AFTER_S[channel]
    assert len(times) == count
    assert times[-1] - times[0] == pytest.approx(last_after_s, rel=0.03)


def test_lost_callback_is_an_entry_of_the_book() -> None:
    times, faults = in_world(lambda: deliver("alipay", FaultProfile(lost=1.0)))
    assert (times, faults) == ([], ["channel lost W1-0/1 #0"])


def test_wechat_callback_has_the_name_of_its_order_although_it_is_encrypted() -> None:
    async def names() -> list[str]:
        network = Network(FaultBook(3, elapsed=lambda: TIME.seconds))
        network.set_faults({"wechatpay>api": LinkFaults(cut_before=1.0)})
        network.serve(8000, Server("api", app=Deaf().app))
        channels = Channels(network, now=now, api_url=API)
        async with channels.simulation:
            await pay(channels, network, "wechatpay")
            await asyncio.sleep(20)
        network.close()
        return list(network.book.happened)

    assert in_world(names) == [f"wechatpay>api POST /callbacks/wechatpay W1-0/1 #{nth} cut_before" for nth in (1, 2)]

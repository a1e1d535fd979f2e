"""Channels or a merchant, served until the block ends, for the commands, the demo and the tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType

from simulator.alipay.channel import Alipay
from simulator.kernel import control, dispatch, pay_page
from simulator.kernel.dispatch import ChannelServer
from simulator.kernel.ledger import PAYMENTS_MAX
from simulator.kernel.simulation import Simulation
from simulator.kit.asgi import App
from simulator.kit.serve import Tls, serving, serving_all
from simulator.merchant import control as merchant_control
from simulator.merchant.notifications import Merchant
from simulator.paypal.channel import Paypal
from simulator.sandbox.channel import Sandbox
from simulator.stripe.channel import Stripe
from simulator.wechatpay import bridge
from simulator.wechatpay.channel import WechatPay

CHANNELS: tuple[ChannelServer, ...] = (Sandbox(), Alipay(), Paypal(), WechatPay(), Stripe())
"""All channels. The sandbox is the first: it shares its address with the control API."""


@asynccontextmanager
async def serve_channels(
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    seed: int = 0,
    speed: float = 1.0,
    public_url: str | None = None,
    payments_max: int = PAYMENTS_MAX,
    callbacks_anywhere: bool = False,
    ports: Mapping[str, int] = MappingProxyType({}),
    tls: Tls | None = None,
) -> AsyncIterator[tuple[str, Simulation]]:
    """Yield the base URL and the state. Port 0 is a free one; `public_url` is the address for browsers.

    The sandbox channel shares its address with the pay pages and the control API. Every other channel has an address of
    its own, with its port in `ports`; `Simulation.urls` has them all.
    """
    simulation = Simulation(
        {channel.name: channel for channel in CHANNELS},
        seed=seed,
        speed=speed,
        payments_max=payments_max,
        callbacks_anywhere=callbacks_anywhere,
    )
    sandbox, *others = CHANNELS
    pages = [*pay_page.routes(simulation), *bridge.routes(simulation)]
    shared = [*dispatch.routes(simulation, sandbox), *pages, *control.routes(simulation)]
    app = App(shared, now=simulation.now)
    own = (
        serving(
            App(dispatch.routes(simulation, each), now=simulation.now), host=host, port=ports.get(each.name, 0), tls=tls
        )
        for each in others
    )
    async with simulation, serving_all(serving(app, host=host, port=port, tls=tls), *own) as urls:
        simulation.base_url = public_url or urls[0]
        simulation.urls |= {channel.name: url for channel, url in zip(CHANNELS, urls, strict=True)}
        yield urls[0], simulation


@asynccontextmanager
async def serve_merchant(
    *, host: str = "127.0.0.1", port: int = 0, seed: int = 0, secrets: tuple[str, ...] = ()
) -> AsyncIterator[tuple[str, Merchant]]:
    """Yield the base URL and the state; raises ValueError for a malformed secret."""
    merchant = Merchant(secrets=secrets, seed=seed)
    async with serving(App(merchant_control.routes(merchant)), host=host, port=port) as url:
        yield url, merchant

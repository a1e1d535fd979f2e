"""A channel or a merchant that serves until its block ends: what the processes, the demo and the tests all start."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from simulator import calls, control, merchant_control, pay_page
from simulator.asgi import App
from simulator.far_side import FarSide
from simulator.ledger import PAYMENTS_MAX
from simulator.merchant import Merchant
from simulator.sandbox import Sandbox
from simulator.serve import serving


@asynccontextmanager
async def running_channel(
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    seed: int = 0,
    speed: float = 1.0,
    public_url: str | None = None,
    payments_max: int = PAYMENTS_MAX,
    callbacks_anywhere: bool = False,
) -> AsyncIterator[tuple[str, FarSide]]:
    """Gives the base URL and the state behind it. Port 0 takes a free one; `public_url` is where browsers find it."""
    channel = Sandbox()
    far_side = FarSide(
        {channel.name: channel},
        seed=seed,
        speed=speed,
        payments_max=payments_max,
        callbacks_anywhere=callbacks_anywhere,
    )
    app = App([*calls.routes(far_side), *pay_page.routes(far_side), *control.routes(far_side)])
    async with far_side, serving(app, host=host, port=port) as url:
        far_side.base_url = public_url or url
        yield url, far_side


@asynccontextmanager
async def running_merchant(
    *, host: str = "127.0.0.1", port: int = 0, seed: int = 0, secrets: tuple[str, ...] = ()
) -> AsyncIterator[tuple[str, Merchant]]:
    """Gives the base URL and the state behind it; raises ValueError for a secret that is none."""
    merchant = Merchant(secrets=secrets, seed=seed)
    async with serving(App(merchant_control.routes(merchant)), host=host, port=port) as url:
        yield url, merchant

"""`python -m demo.shop`: the shop as a process. Its addresses and secrets come from the environment."""

from __future__ import annotations

import asyncio
import os
from urllib.parse import urlsplit

from demo.shop.backend import Backend
from demo.shop.books import Books
from demo.shop.handlers import Shop, routes
from simulator.kit.asgi import App
from simulator.kit.serve import on_signal, serving
from simulator.merchant.signature import secret_bytes


async def main() -> None:
    """Serve on 127.0.0.1 until SIGTERM."""
    env = os.environ
    urls = {name: env[f"{name.upper()}_URL"] for name in ("api", "channel", "shop")}
    async with Backend(
        api_url=urls["api"], api_key=env["API_KEY"], channel_url=urls["channel"], shop_url=urls["shop"]
    ) as backend:
        shop = Shop(
            backend=backend,
            books=Books(),
            keys=tuple(secret_bytes(secret) for secret in env["NOTIFY_SECRETS"].split(",")),
            origin=urls["api"],
        )
        ended = on_signal()
        async with serving(App(routes(shop)), port=urlsplit(urls["shop"]).port or 80):
            await ended.wait()


if __name__ == "__main__":
    asyncio.run(main())

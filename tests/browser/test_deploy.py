"""The pages' service worker while processes of two releases answer."""

import asyncio
import re
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from msgspec.structs import replace

from core.settings import Settings
from demo.embedded import free_port
from tests.api.conftest import environment
from tests.browser.conftest import Buyer
from tests.connections import serving
from tests.servers import Process

pytestmark = [pytest.mark.browser, pytest.mark.slow]

REGISTER = """async () => {
  const { installing } = await navigator.serviceWorker.register("/o/sw.js", {scope: "/o/"});
  return new Promise((done) => {
    const look = () => ["activated", "redundant"].includes(installing.state) && done(installing.state);
    installing.addEventListener("statechange", look);
    look();
  });
}"""
KEPT = "async () => (await caches.match(document.querySelector('link[href*=\"/shop.\"]').href)).text()"


class Router:
    """A platform's router. `older`: the beginning of the paths that still go to the release before."""

    def __init__(self, ports: tuple[int, int], older: str) -> None:
        self.ports = ports
        self.older = older

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        """One request."""
        head = await reader.readuntil(b"\r\n\r\n")
        is_older = self.older and head.split(b" ")[1].startswith(self.older.encode())
        behind, to_behind = await asyncio.open_connection("127.0.0.1", self.ports[0 if is_older else 1])
        to_behind.write(re.sub(rb"(?i)connection: keep-alive", b"Connection: close", head))
        with suppress(ConnectionError):
            while chunk := await behind.read(65536):
                writer.write(chunk)
                await writer.drain()
        to_behind.close()


@asynccontextmanager
async def two_releases(settings: Settings, router: Router, folder: Path) -> AsyncIterator[None]:
    """Two web processes whose files differ."""
    first, second = (
        Process(
            "api",
            env=environment(settings, PORT=str(port), SHOP_COLOR=color),
            log=folder / f"{color[1:]}.log",
        )
        for port, color in zip(router.ports, ("#111111", "#222222"), strict=True)
    )
    async with first, second:
        for process, port in zip((first, second), router.ports, strict=True):
            await process.wait_for_http(f"http://127.0.0.1:{port}/healthz")
        yield


@pytest.mark.parametrize("older", ["/o/static/", "/o/shell"])
async def test_a_worker_that_comes_during_a_deploy_keeps_nothing_of_the_release_before(
    settings: Settings, tmp_path: Path, buyer: Buyer, older: str
) -> None:
    """A file that is kept under the names of its own release would be served until the next one."""
    router = Router((free_port(), free_port()), older)
    async with serving(router.serve) as port:
        origin = f"http://127.0.0.1:{port}"
        async with two_releases(replace(settings, public_url=origin), router, tmp_path):
            await buyer.page.goto(f"{origin}/o/nobody-has-this-token")
            assert await buyer.page.evaluate(REGISTER) == "redundant"
            router.older = ""
            assert await buyer.page.evaluate(REGISTER) == "activated"
            assert "#222222" in await buyer.page.evaluate(KEPT)

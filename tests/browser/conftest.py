"""Our processes, a sandbox channel, and Debian's Chromium as a phone.

Chromium and its driver take a second of CPU to start: all tests share them, each with a context of its own, and so an
event loop.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from msgspec.structs import replace
from playwright.async_api import Browser, BrowserContext, Page, ViewportSize, async_playwright

from api.application import open_application
from api.console.gate import LOCAL
from api.http.server import listen, make_server
from core.operators import Role
from core.settings import Settings
from demo.service import NO_TLS
from runtime.resources import Resources, open_resources
from storage.postgres.api_keys import create_api_key
from tests.api.conftest import Channel, environment, open_channel, put_main_account, settings
from tests.api.console.conftest import open_session
from tests.browser.firefox import PROGRAM, Firefox, open_firefox
from tests.browser.shops import DESK, LIMIT_MS, STILL
from tests.servers import Process, eventually
from tests.shared_loop import share_loop

__all__ = ["settings"]

HERE = "tests/browser/"

# The toolbar as a web page takes a third of the time of a new window. This replaces what the driver disables itself.
DISABLED = (
    "InitialWebUI",
    "PreloadTopChromeWebUI",
    "WebUILocationBar",
    "WebUIReloadButton",
    "WebUIToolbar",
    "AvoidCorsURLLoaderRestartOnRedirect",
    "AvoidUnnecessaryBeforeUnloadCheckSync",
    "DestroyProfileOnBrowserClose",
    "HttpsFirstBalancedModeAutoEnable",
    "HttpsUpgrades",
    "LensOverlay",
    "MediaRouter",
    "OptimizationHints",
    "PaintHolding",
    "ThirdPartyStoragePartitioning",
)
ARGUMENTS = [
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-sync",
    f"--disable-features={','.join(DISABLED)}",
]
# A minute lasts half a second: queries come after 0.5, 2, 4.5, 8 … s.
QUICK = {"BACKOFF_UNIT_S": "0.5", "SWEEP_INTERVAL_S": "0.5", "SWEEP_GRACE_S": "0.5"}
PHONE = ViewportSize(width=390, height=760)

# Records every text of title, heading and note, also one shown for a moment, and across reloads.
RECORD_TEXTS = """
document.addEventListener("DOMContentLoaded", () => {
  const record = () => window.recordText([document.title, document.querySelector("main")?.innerText ?? ""].join("\\n"));
  new MutationObserver(record).observe(document, {subtree: true, childList: true, characterData: true});
  record();
});
"""

# The module draws its pauses, so they are no whole numbers: they take a twentieth, and all other times their own.
SHORT_PAUSES = """
const set = window.setTimeout;
window.setTimeout = (act, ms, ...rest) => set(act, Number.isInteger(ms) ? ms : ms / 20, ...rest);
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give all tests of this folder one event loop, since they share the browser."""
    share_loop(items, HERE)


@pytest.fixture(scope="package", autouse=True)
def _cheap_starts(forking: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
    with forking():
        yield


@pytest_asyncio.fixture(loop_scope="session")
async def resources(settings: Settings) -> AsyncIterator[Resources]:
    async with open_resources(settings) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="session")
async def channel() -> AsyncIterator[Channel]:
    async with open_channel() as channel:
        yield channel


@pytest_asyncio.fixture(loop_scope="session")
async def account(resources: Resources, channel: Channel) -> str:
    """A sandbox account, known here and there."""
    return await put_main_account(resources, channel)


@pytest_asyncio.fixture(loop_scope="session")
async def api(settings: Settings, tmp_path: Path) -> AsyncIterator[Process]:
    async with Process("api", env=environment(settings, **QUICK), log=tmp_path / "api.log") as process:
        await process.wait_for_http(f"{settings.public_url}/healthz")
        yield process


@pytest_asyncio.fixture(loop_scope="session")
async def worker(settings: Settings, tmp_path: Path) -> AsyncIterator[Process]:
    async with Process("worker", env=environment(settings, **QUICK), log=tmp_path / "worker.log") as process:
        await process.wait_for_line("worker_started")
        yield process


@pytest_asyncio.fixture(loop_scope="session")
async def shop(settings: Settings, resources: Resources, api: Process) -> AsyncIterator[httpx.AsyncClient]:
    """The merchant's backend."""
    _, key = await create_api_key(resources.db, "tests")
    headers = {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(
        base_url=settings.public_url, headers=headers, trust_env=False, verify=NO_TLS, timeout=60
    ) as client:
        yield client


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def browser(chromium: str) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS, timeout=LIMIT_MS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def started_firefox(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Firefox]:
    async with open_firefox(PROGRAM, tmp_path_factory.mktemp("firefox")) as firefox:
        yield firefox


@pytest_asyncio.fixture(loop_scope="session")
async def firefox(started_firefox: Firefox) -> AsyncIterator[Firefox]:
    """All tests share it: it takes seconds of CPU to start. Each has servers on an origin of its own."""
    await started_firefox.begin_anew()
    yield started_firefox


@asynccontextmanager
async def new_context(browser: Browser, **options: Any) -> AsyncIterator[BrowserContext]:
    """A device with our limit for all its waits. It is closed also when its test fails: others share the browser."""
    context = await browser.new_context(**STILL | options)
    context.set_default_timeout(LIMIT_MS)
    try:
        yield context
    finally:
        await context.close()


class Console:
    """The console under our own server in the tests' process, and browsers of operators who are signed in."""

    def __init__(self, browser: Browser, resources: Resources, contexts: AsyncExitStack) -> None:
        self.resources = resources
        self.url = resources.settings.public_url
        self.errors: list[str] = []
        self._browser = browser
        self._contexts = contexts

    async def __call__(self, role: Role, name: str = "", **options: Any) -> Page:
        """A page of a browser in which an operator of this role is signed in. `options` are those of its context."""
        page = await self.open(**options)
        cookie = await open_session(self.resources, role, name or role.value)
        await page.context.add_cookies(
            [{"name": LOCAL.session, "value": cookie, "url": self.url, "httpOnly": True, "sameSite": "Strict"}]
        )
        return page

    async def open(self, **options: Any) -> Page:
        """A page of a browser in which nobody is signed in."""
        wanted = {"viewport": DESK, "locale": "en-GB", "timezone_id": "UTC", "base_url": self.url} | options
        context = await self._contexts.enter_async_context(new_context(self._browser, **wanted))
        page = await context.new_page()
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("dialog", lambda dialog: self.errors.append(dialog.message))
        page.on("console", lambda line: self.errors.append(line.text) if "Content Security" in line.text else None)
        return page


@pytest_asyncio.fixture(loop_scope="session")
async def console(settings: Settings, browser: Browser) -> AsyncIterator[Console]:
    """The console, which is called with a role for a page of a browser that is signed in; `page.goto("/ops/audit")`.

    No page may fail or break its content policy.
    """
    own, draining = replace(settings, ops=True), asyncio.Event()
    async with (
        open_resources(own) as resources,
        open_application(resources, draining) as app,
        AsyncExitStack() as contexts,
    ):
        app._lag.end()
        server = make_server(app, own, draining)
        task = asyncio.create_task(server.serve(listen(own)))
        await eventually(lambda: server.started)
        opened = Console(browser, resources, contexts)
        yield opened
        await contexts.aclose()
        server.drain()
        await task
    assert opened.errors == []


class Buyer:
    """A phone with one page, and all texts shown on it."""

    def __init__(self, context: BrowserContext, page: Page, shown_texts: list[str], errors: list[str]) -> None:
        self.context = context
        self.page = page
        self.shown_texts = shown_texts
        self.errors = errors

    async def hurry(self) -> None:
        """Let the pages that are opened from now on rest for a twentieth of their pauses."""
        await self.context.add_init_script(SHORT_PAUSES)

    async def reads(self, title: str) -> None:
        """Wait until the heading has this text."""
        await self.page.locator("#title", has_text=title).wait_for()

    async def has_shell(self) -> None:
        """Wait until the service worker controls the page."""
        await self.page.evaluate("navigator.serviceWorker.ready.then(() => true)")
        await self.page.wait_for_function("navigator.serviceWorker.controller !== null")


@pytest_asyncio.fixture(loop_scope="session")
async def buyer(browser: Browser) -> AsyncIterator[Buyer]:
    async with new_context(browser, viewport=PHONE, locale="en-GB", timezone_id="UTC") as context:
        shown_texts: list[str] = []
        errors: list[str] = []
        await context.expose_binding("recordText", lambda _, text: shown_texts.append(text))
        await context.add_init_script(RECORD_TEXTS)
        page = await context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda line: errors.append(line.text) if "Content Security" in line.text else None)
        yield Buyer(context, page, shown_texts, errors)
        for each in context.pages:
            await each.unroute_all(behavior="ignoreErrors")

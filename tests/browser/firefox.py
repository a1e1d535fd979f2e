"""Debian's Firefox, driven by its own remote protocol (Marionette): lengths and JSON over a socket, without a driver.

Its settings are Firefox's own, offline is that of its menu, and what is blocked is blocked where its extensions do it.
"""

import asyncio
import json
import shutil
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.servers import LIMIT_S, eventually

PROGRAM = shutil.which("firefox-esr") or ""
needs_firefox = pytest.mark.skipif(not PROGRAM, reason="no Firefox here; on Debian: apt-get install firefox-esr")

QUIET = {
    "app.update.enabled": False,
    "browser.aboutwelcome.enabled": False,
    "browser.newtab.preload": False,
    "browser.newtabpage.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "extensions.webextensions.remote": False,
    "marionette.port": 0,  # a free one, which it writes into its profile
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "network.disable-localhost-when-offline": True,
    "network.manage-offline-status": False,
    "toolkit.telemetry.enabled": False,
    "ui.prefersReducedMotion": 1,
}

_BLOCKED = "tests.blocked"
_BLOCK = f"""
Services.obs.addObserver((channel) => {{
  const pattern = Services.prefs.getStringPref("{_BLOCKED}", "");
  const url = channel.QueryInterface(Ci.nsIHttpChannel).URI.spec;
  if (pattern && new RegExp(pattern).test(url)) channel.cancel(Cr.NS_ERROR_ABORT);
}}, "http-on-modify-request");
"""
_SET_OFFLINE = """
Services.io.offline = arguments[0];
if (arguments[0]) Services.obs.notifyObservers(null, "net:cancel-all-connections");
"""
_SET = """
const [name, value] = arguments;
if (value === null) Services.prefs.clearUserPref(name);
else if (typeof value === "number") Services.prefs.setIntPref(name, value);
else Services.prefs.setStringPref(name, value);
"""


class Firefox:
    """One Firefox with its tabs. Scripts run in the tab that was switched to last."""

    def __init__(self, reader: StreamReader, writer: StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._number = 0

    async def call(self, command: str, **parameters: object) -> dict[str, Any]:
        """The result of a command.

        Raises:
            AssertionError: Firefox refuses it.
        """
        self._number += 1
        message = json.dumps([0, self._number, command, parameters]).encode()
        self._writer.write(b"%d:%b" % (len(message), message))
        _, _, error, result = json.loads(await self.receive())
        assert error is None, f"{command}: {error}"
        return {"value": result} if isinstance(result, list) else dict(result or {})

    async def receive(self) -> bytes:
        async with asyncio.timeout(LIMIT_S):
            length = await self._reader.readuntil(b":")
            return await self._reader.readexactly(int(length[:-1]))

    async def open(self, url: str) -> None:
        await self.call("WebDriver:Navigate", url=url)

    async def run(self, script: str, *arguments: object) -> object:
        """The result of the script; a page's policy does not hold for it."""
        return (await self.call("WebDriver:ExecuteScript", script=script, args=arguments))["value"]

    async def run_inside(self, script: str, *arguments: object) -> object:
        """As `run`, in Firefox itself."""
        await self.call("Marionette:SetContext", value="chrome")
        try:
            return await self.run(script, *arguments)
        finally:
            await self.call("Marionette:SetContext", value="content")

    async def reads(self, text: str, selector: str = "#title") -> None:
        """Wait until the element has this text. Raises AssertionError: with what the whole page reads instead."""
        script = (
            "const e = document.querySelector(arguments[0]); return Boolean(e) && e.innerText.includes(arguments[1]);"
        )
        try:
            await eventually(lambda: self.run(script, selector, text), interval_s=0.1)
        except AssertionError:
            page = await self.run("return [navigator.onLine, document.readyState, document.body.innerText];")
            raise AssertionError(f"{selector} has no {text!r}: {page!r}") from None

    async def click(self, selector: str) -> None:
        """Click the first such element, and wait for the page that this leads to."""
        found = await self.call("WebDriver:FindElement", using="css selector", value=selector)
        (element,) = found["value"].values()
        await self.call("WebDriver:ElementClick", id=element)

    async def set_offline(self, value: bool) -> None:
        """The offline of its menu. By itself it keeps the connections to this machine, which our servers are on."""
        await self.run_inside(_SET_OFFLINE, value)

    async def block(self, pattern: str) -> None:
        """Block what matches, as an extension does."""
        await self.set(_BLOCKED, pattern)

    async def set(self, name: str, value: str | int | None) -> None:
        """Change one of its settings; None is its usual value."""
        await self.run_inside(_SET, name, value)

    async def begin_anew(self) -> None:
        """Be online, block nothing, have no cookies, and have one tab, an empty one."""
        await self.set_offline(False)
        await self.set(_BLOCKED, None)
        await self.run_inside("Services.cookies.removeAll();")
        handles = (await self.call("WebDriver:GetWindowHandles"))["value"]
        fresh = (await self.call("WebDriver:NewWindow", type="tab", focus=True))["handle"]
        for handle in handles:
            await self.switch(handle, focus=False)
            await self.call("WebDriver:CloseWindow")
        await self.switch(fresh)

    async def open_behind(self, url: str) -> str:
        """A tab that is opened behind the one in front: its handle."""
        front = (await self.call("WebDriver:GetWindowHandle"))["value"]
        handle = (await self.call("WebDriver:NewWindow", type="tab", focus=False))["handle"]
        await self.switch(handle, focus=False)
        await self.open(url)
        await self.switch(front, focus=False)
        return str(handle)

    async def switch(self, handle: str, *, focus: bool = True) -> None:
        await self.call("WebDriver:SwitchToWindow", handle=handle, focus=focus)


@asynccontextmanager
async def open_firefox(program: str, folder: Path) -> AsyncIterator[Firefox]:
    """Start one with a profile of its own in `folder`."""
    profile = folder / "profile"
    profile.mkdir()
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in QUIET.items()]
    (profile / "user.js").write_text("".join(lines))
    command = (
        program,
        "--headless",
        "--marionette",
        "-remote-allow-system-access",
        "--no-remote",
        "--profile",
        str(profile),
    )
    with (folder / "firefox.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log, env={"HOME": str(folder)})
    try:
        port = await eventually(lambda: _port(profile), interval_s=0.1)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        firefox = Firefox(reader, writer)
        await firefox.receive()
        await firefox.call("WebDriver:NewSession", capabilities={})
        await firefox.run_inside(_BLOCK)
        yield firefox
        writer.close()
    finally:
        process.kill()
        await process.wait()


def _port(profile: Path) -> int:
    """The port it listens on; 0 until then."""
    path = profile / "MarionetteActivePort"
    return int(path.read_text() or 0) if path.exists() else 0

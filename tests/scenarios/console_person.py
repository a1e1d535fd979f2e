"""A person at the console, in Chromium: reads what is on a page, follows links and sends forms, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from playwright.async_api import BrowserContext, Locator, Page

from api.console.routes import ROWS
from core.operators import Role

REASON = "looked at it, and talked to the buyer"

PATTERNS: dict[str, dict[str, re.Pattern[str]]] = {
    method: {
        row.route.pattern: re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(row.route.pattern)))
        for row in sorted(ROWS, key=lambda row: row.route.pattern.count("{"))
        if row.route.method == method
    }
    for method in ("GET", "POST")
}
"""The addresses of the console; those without parameters come first."""

ROLES: dict[tuple[str, str], Role | None] = {(row.route.method, row.route.pattern): row.route.role for row in ROWS}

BELOW: dict[Role | None, Role | None] = {Role.ADMIN: Role.OPERATOR, Role.OPERATOR: Role.VIEWER, Role.VIEWER: None}
"""The next lower role; None: nobody who is signed in."""

FETCH = """([address, csrf]) => fetch(address, {
  method: "POST", body: new URLSearchParams({csrf, reason: "a try"}), redirect: "manual",
}).then((response) => response.status)"""
EMPTY = """(form) => [...form.querySelectorAll("[required]")].filter((each) => !each.value).map((each) => each.name)"""


def row_of(method: str, address: str) -> str:
    """The pattern of the row that serves this address; empty: none does."""
    path = urlsplit(address).path
    return next((pattern for pattern, regex in PATTERNS[method].items() if regex.fullmatch(path)), "")


class Sent(NamedTuple):
    """A form that was sent: the row of its act, its address, the page that it was on, and the status of the answer."""

    act: str
    address: str
    page: str
    status: int


class Person:
    """One browser, with one page. `sent`: the forms that were sent from it; `errors`: of scripts, and of the policy."""

    def __init__(self, page: Page, name: str, role: Role | None) -> None:
        self.page = page
        self.name = name
        self.role = role
        self.sent: list[Sent] = []
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("dialog", lambda dialog: self.errors.append(dialog.message))
        page.on("console", lambda line: self.errors.append(line.text) if "Content Security" in line.text else None)

    @classmethod
    async def come(cls, context: BrowserContext, name: str, role: Role | None) -> Person:
        return cls(await context.new_page(), name, role)

    # -- reading

    @property
    def path(self) -> str:
        return urlsplit(self.page.url).path

    async def open(self, address: str, status: int = 200) -> None:
        response = await self.page.goto(address, wait_until="domcontentloaded")
        assert response is not None
        assert response.status == status, (self.name, address, await self.text())

    async def text(self) -> str:
        """All that is on the page, also in parts that are not opened."""
        return " ".join((await self.page.locator("main").text_content() or "").split())

    async def reads(self, words: str) -> None:
        assert words in await self.text(), (self.page.url, await self.text())

    async def links(self, selector: str) -> list[str]:
        """The addresses of links, in the order of the page, each once."""
        found: list[str] = await self.page.locator(selector).evaluate_all(
            "(all) => [...new Set(all.map((each) => each.getAttribute('href')))]"
        )
        return found

    # -- pressing

    async def follow(self, selector: str) -> None:
        """Follow the first of these links."""
        async with self.page.expect_navigation(wait_until="domcontentloaded"):
            await self.page.locator(selector).first.click()

    async def look(self, form: str = "main form[method=get]", **fields: str) -> None:
        """Fill in a form that only asks, and see its page."""
        await _fill(self.page.locator(form), fields)
        async with self.page.expect_navigation(wait_until="domcontentloaded"):
            await self.page.locator(form).locator("button:not([type=button])").click()

    async def send(self, action: str, *, having: str = "", **fields: str | Path) -> Sent:
        """Fill in the form whose address ends like this, with a reason where one is wanted, and send it. `having`: a
        field by which it differs from others at its address.
        """
        narrower = f":has([name={having}])" if having else ""
        form = self.page.locator(f'form[method=post][action$="{action}"]{narrower}').first
        closed = form.locator("xpath=ancestor::details[not(@open)]/summary")
        if await closed.count():
            await closed.first.click()
        await _fill(form, fields)
        for name in await form.evaluate(EMPTY):
            assert name in {"reason", "note"}, f"{self.page.url}: {name} is wanted"
            await form.locator(f"[name={name}]").fill(REASON)
        page = self.page.url
        async with (
            self.page.expect_response(lambda response: response.request.method == "POST") as answer,
            self.page.expect_navigation(wait_until="domcontentloaded"),
        ):
            await form.locator("button:not([type=button])").click()
        response = await answer.value
        self.sent.append(Sent(row_of("POST", response.url), response.url, page, response.status))
        return self.sent[-1]

    async def sign_in(self, password: str) -> None:
        await self.open("/ops")
        await self.send("/ops/signin", name=self.name, password=password)

    async def is_refused(self, sent: Sent) -> None:
        """Neither find the form where others have it, nor be heard at its address."""
        seen = await self.page.goto(sent.page, wait_until="domcontentloaded")
        assert seen is not None
        if seen.status == 200:
            address = urlsplit(sent.address).path
            assert await self.page.locator(f'form[method=post][action="{address}"]').count() == 0, sent
        else:
            assert seen.status == 403, (sent, seen.status)
        await self.open("/ops/me")
        token = await self.page.locator("[name=csrf]").first.input_value()
        assert await self.page.evaluate(FETCH, [sent.address, token]) == 403, sent


async def _fill(form: Locator, fields: dict[str, str] | dict[str, str | Path]) -> None:
    for name, text in fields.items():
        field = form.locator(f"[name={name}]")
        if isinstance(text, Path):
            await field.set_input_files(text)
        elif await field.evaluate("(each) => each.tagName") == "SELECT":
            await field.select_option(text)
        else:
            await field.fill(text)

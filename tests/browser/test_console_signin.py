"""Signing in as a person does it, by keyboard and without a script."""

import pyotp
import pytest
from playwright.async_api import Page, Route

from core.operators import Role
from runtime.passwords import hash_password
from storage.postgres.operators import insert_operator
from tests.browser.conftest import Console

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ONE_TIME, PASSWORD = "printed for somebody once", "a kettle, blue, for tea"


async def path_of(page: Page) -> str:
    path: str = await page.evaluate("location.pathname")
    return path


async def add(console: Console, name: str = "alice", role: Role = Role.ADMIN) -> None:
    await insert_operator(console.resources.db, name, role, hash_password(ONE_TIME))


async def test_an_operator_signs_in_chooses_a_password_and_sets_up_codes_by_keyboard_alone(console: Console) -> None:
    await add(console)
    page = await console.open()
    await page.goto("/ops/operators")
    assert await path_of(page) == "/ops/signin"
    await page.get_by_label("Name").focus()
    for text in ("alice", ONE_TIME):
        await page.keyboard.type(text)
        await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await page.get_by_text("Choose your own now.").wait_for()
    await page.get_by_label("Password now").focus()
    for text in (ONE_TIME, PASSWORD, PASSWORD):
        await page.keyboard.type(text)
        await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await page.get_by_text("The password is changed").wait_for()

    await page.locator("#f-password").fill(PASSWORD)
    await page.keyboard.press("Enter")
    secret = await page.locator("[data-copy]").get_attribute("data-copy")
    assert secret is not None
    code = pyotp.TOTP(secret).at(int(console.resources.clock.read()))
    await page.get_by_label("Code", exact=True).fill(code)
    await page.keyboard.press("Enter")
    await page.get_by_text("Codes are on").wait_for()

    await page.get_by_role("button", name="Sign out").press("Enter")
    await page.get_by_text("You have signed out.").wait_for()
    await page.go_back()
    await page.reload()
    assert await path_of(page) == "/ops/signin"

    await page.goto("/ops/audit?by=alice")
    later = pyotp.TOTP(secret).at(int(console.resources.clock.read()) + 30)
    await page.get_by_label("Name").fill("alice")
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_label("Code").fill(later)
    await page.keyboard.press("Enter")
    await page.get_by_role("heading", name="Audit").wait_for()
    assert page.url.endswith("/ops/audit?by=alice")


async def test_everything_works_without_a_script(console: Console) -> None:
    await add(console)
    await console.resources.db.execute("UPDATE operators SET must_change = false")
    page = await console.open(java_script_enabled=False)
    await page.goto("/ops")
    await page.get_by_label("Name").fill("alice")
    await page.get_by_label("Password").fill(ONE_TIME)
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_role("link", name="Operators").click()
    await page.get_by_label("Name").fill("bob")
    await page.get_by_label("Reason").fill("joins the team")
    await page.get_by_role("button", name="Add").click()
    await page.get_by_role("heading", name="One-time password of bob").wait_for()
    await page.get_by_role("link", name="alice").first.click()
    await page.get_by_role("button", name="Sign out").click()
    await page.get_by_text("You have signed out.").wait_for()


async def test_a_link_in_a_message_opens_its_page_for_an_operator_who_is_signed_in(console: Console) -> None:
    """The cookie does not go with a link of another site; our own page goes on with it. A form of another site never
    gets it.
    """
    page = await console(Role.ADMIN)

    async def other_site(route: Route) -> None:
        await route.fulfill(
            content_type="text/html",
            body=f'<a href="{console.url}/ops/audit?by=alice">an alert</a>'
            f'<form method="post" action="{console.url}/ops/signout"><button>press me</button></form>',
        )

    await page.route("http://chat.invalid/", other_site)
    await page.goto("http://chat.invalid/")
    await page.get_by_text("an alert").click()
    await page.get_by_role("heading", name="Audit").wait_for()
    assert page.url.endswith("/ops/audit?by=alice")
    await page.goto("http://chat.invalid/")
    await page.get_by_role("button", name="press me").click()
    await page.get_by_text("Your session has ended").wait_for()
    await page.goto("/ops/audit")
    assert await path_of(page) == "/ops/audit", "it has not: the form did nothing"


async def test_times_are_in_the_readers_zone(console: Console) -> None:
    page = await console(Role.OPERATOR, timezone_id="Asia/Shanghai")
    await console.resources.db.execute(
        "INSERT INTO audit (at, by, via, action) VALUES ('2026-01-02T20:04:05Z', 'alice', 'api', 'x')"
    )
    await page.goto("/ops/audit")
    time = page.locator("tbody time").first
    assert await time.inner_text() == "2026-01-03 04:04:05"
    assert await time.get_attribute("title") == "2026-01-02 20:04:05 UTC"

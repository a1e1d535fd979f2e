"""The pages for developers and the front page: they fit every screen, and axe has no findings."""

import pytest
from playwright.async_api import Browser

from api.http.problems import all_kinds
from core.settings import Settings
from tests.browser.conftest import new_context
from tests.browser.looks import ALL, LEAST, axe_findings, draw, looks, overflow
from tests.servers import Process

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.long]

OF_ONE_KIND = tuple(f"/problems/{slug}" for slug in all_kinds())
"""One template draws them: the first is looked at on every screen and by axe, the others' texts on the smallest."""

PAGES = ("/", "/docs", "/sdk/", "/problems", *OF_ONE_KIND)


async def test_each_page_fits_every_screen_and_axe_has_no_findings(
    browser: Browser, api: Process, settings: Settings
) -> None:
    faults: list[object] = []
    async with new_context(browser, base_url=settings.public_url) as context:
        page = await context.new_page()
        page.on("console", lambda line: faults.append(line.text) if "Content Security" in line.text else None)
        for path in PAGES:
            answer = await page.goto(path)
            assert answer is not None
            assert answer.status == 200, path
            is_like_another = path in OF_ONE_KIND[1:]
            async for look in looks(page, ALL[:1] if is_like_another else ALL):
                is_for_axe = look in LEAST and not is_like_another
                found = [*await overflow(page), *(await axe_findings(page) if is_for_axe else ())]
                faults += [(path, str(look), each) for each in found]
                await draw(page, f"{path.strip('/').replace('/', '.') or 'front'}.{look}")
    assert faults == []

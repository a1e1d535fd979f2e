"""A page on small and large screens, light and dark: what is wider than the screen, and what axe finds."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

from playwright.async_api import Page

from tests.oracles.library import python_of

_SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
_SIZES = ((360, 740), (1440, 900))


async def looks(page: Page) -> AsyncIterator[str]:
    """Give the open page each of its looks, and return the name of it."""
    for scheme in _SCHEMES:
        await page.emulate_media(color_scheme=scheme)
        for width, height in _SIZES:
            await page.set_viewport_size({"width": width, "height": height})
            yield f"{scheme}.{width}"


async def overflow(page: Page) -> list[str]:
    """Elements that are wider than the screen, or are cut off. What stands in a box that scrolls is not."""
    found: list[str] = await page.evaluate(
        """() => [...document.querySelectorAll("body *")]
        .filter((each) => each.getClientRects().length && !each.closest("svg") && !each.closest(".wide > *"))
        .map((each) => [each, each.getBoundingClientRect()])
        .filter(([, box]) => box.right > innerWidth + 0.5 || box.left < -0.5)
        .map(([each]) => each.id || each.outerHTML.slice(0, 80))"""
    )
    is_wider = await page.evaluate("document.documentElement.scrollWidth > innerWidth")
    return [*found, "the page"] if is_wider else found


async def axe_findings(page: Page) -> list[tuple[str, str]]:
    """Rule and element of each finding. Skips the test where axe is not installed."""
    package = Path(python_of("axe")).parents[1].glob("lib/python*/site-packages/axe_playwright_python")
    await page.evaluate((next(package) / "axe.min.js").read_text())
    results = await page.evaluate("axe.run()")
    assert "color-contrast" in {each["id"] for each in results["passes"]}
    return [(each["id"], node["html"]) for each in results["violations"] for node in each["nodes"]]

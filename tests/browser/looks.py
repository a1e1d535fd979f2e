"""A page on small and large screens, light and dark: what is wider than the screen, and what axe finds."""

import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from playwright.async_api import Page

from tests.oracles.library import python_of

PICTURES = os.environ.get("PICTURES", "")
"""A folder for a picture of every look, for people. To draw one takes longer than to check it."""


AXE = """axe.run({resultTypes: ["violations"]}).then((results) => [
  results.passes.map((rule) => rule.id),
  results.violations.flatMap((rule) => rule.nodes.map((node) => [rule.id, node.html])),
])"""
"""Details are asked for violations alone."""


class Look(NamedTuple):
    scheme: Literal["light", "dark"]
    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.scheme}.{self.width}"


ALL = (Look("light", 360, 740), Look("light", 1440, 900), Look("dark", 360, 740), Look("dark", 1440, 900))
LEAST = (ALL[0], ALL[3])
"""Each scheme and each size once: colours do not depend on the size, nor what is shown on the scheme."""


async def looks(page: Page, wanted: Sequence[Look] = ALL) -> AsyncIterator[Look]:
    """Give the open page each of these looks."""
    for look in wanted:
        await page.emulate_media(color_scheme=look.scheme)
        await page.set_viewport_size({"width": look.width, "height": look.height})
        yield look


async def draw(page: Page, name: str) -> None:
    """Keep a picture of the whole page where pictures are wanted."""
    if PICTURES:
        await page.screenshot(path=Path(PICTURES, f"{name}.png"), full_page=True)


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
    if not await page.evaluate("'axe' in window"):
        await page.evaluate((next(package) / "axe.min.js").read_text())
    passes, violations = await page.evaluate(AXE)
    assert "color-contrast" in passes
    return [(rule, html) for rule, html in violations]

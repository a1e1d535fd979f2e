"""`nodrop demo` as a person runs it: everything goes wrong once, and the report says that nothing was lost."""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from signal import SIGINT
from typing import NamedTuple

import httpx
import msgspec
import pytest
import pytest_asyncio

from demo.report import Report
from demo.service import NO_TLS
from tests.demo.test_up import sign_in
from tests.servers import eventually

ROOT = Path(__file__).parent.parent.parent

Visitor = Callable[[str], Awaitable[None]]
"""Comes while the demo is kept running, with what it has printed for people."""


Ended = tuple[int | None, Report]
"""Exit code and report of a demo."""


async def demo(tmp_path: Path, visitor: Visitor | None, *options: str, **env: str) -> Ended:
    """Run the demo; return its exit code and its report. With a visitor it is kept until that has left."""
    printed = tmp_path / "progress.txt"
    kept = () if visitor is None else ("--keep",)
    with printed.open("wb") as progress:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cli", "demo", "--orders", "60", "--json", *options, *kept),
            cwd=ROOT,
            env={**os.environ, **env},
            stdout=asyncio.subprocess.PIPE,
            stderr=progress,
        )
        try:
            if visitor is not None:
                await eventually(
                    lambda: process.returncode is not None or re.search(r"^ +logs ", printed.read_text(), re.MULTILINE)
                )
                await visitor(printed.read_text())
                process.send_signal(SIGINT)
            output, _ = await process.communicate()
        finally:
            with suppress(ProcessLookupError):
                process.kill()
    return process.returncode, msgspec.json.decode(output, type=Report)


class Runs(NamedTuple):
    """Two runs of the demo, at once: each waits most of the time. `urls` are those that the first one has printed."""

    harsh: asyncio.Task[Ended]
    urls: list[str]
    uncalled: asyncio.Task[Ended]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def runs(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Runs]:
    urls: list[str] = []

    async def visit(printed: str) -> None:
        urls.extend(re.findall(r"http://127\.0\.0\.1:[0-9]+", printed))
        await sign_in(urls[0], printed)

    env = {"SETTLES_AFTER_CLOSE": "1", "LOST": "1", "REFUNDED_IN_CONSOLE": "0.4", "RECONCILE_AT": "off", "SEED": "12"}
    begun = Runs(
        asyncio.create_task(demo(tmp_path_factory.mktemp("harsh"), visit, "--seed", "11")),
        urls,
        asyncio.create_task(demo(tmp_path_factory.mktemp("uncalled"), None, "--no-chaos", **env)),
    )
    yield begun
    for task in (begun.harsh, begun.uncalled):
        task.cancel()
    await asyncio.gather(begun.harsh, begun.uncalled, return_exceptions=True)


async def test_the_demo_loses_nothing_and_says_so_and_its_console_is_there_until_ctrl_c(runs: Runs) -> None:
    code, report = await runs.harsh

    assert (code, report.lost, report.false, report.violations, report.still_open) == (0, 0, 0, (), ())
    assert report.placed == 60
    assert len(report.chaos) == 3
    assert report.callback_only_lost > 0, "with 40 % of the callbacks lost, waiting for them must lose orders"
    async with httpx.AsyncClient(trust_env=False, verify=NO_TLS) as client:
        for url in runs.urls:
            with pytest.raises(httpx.ConnectError):
                await client.get(url)


async def test_queries_alone_make_every_order_definite(runs: Runs) -> None:
    """No callback arrives, closed payments get money, the merchant refunds in the console, and no statement is read."""
    code, report = await runs.uncalled

    assert (code, report.lost, report.false, report.violations, report.still_open) == (0, 0, 0, (), ())
    assert report.repaired_by["reconciliation"] == 0
    assert {"refunded_outside", "refund_amount_unknown"} <= report.cases.keys(), (
        "every order is definite, or has a case"
    )

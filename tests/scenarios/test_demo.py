"""`nodrop demo` as a person runs it: everything goes wrong once, and the report says that nothing was lost."""

import asyncio
import os
import sys
from pathlib import Path

import msgspec

from demo.report import Report

ROOT = Path(__file__).parent.parent.parent


async def demo(tmp_path: Path, *options: str, **env: str) -> tuple[int | None, Report]:
    """Run the demo; return its exit code and its report."""
    with (tmp_path / "progress.txt").open("wb") as progress:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cli", "demo", "--orders", "60", "--json", *options),
            cwd=ROOT,
            env={**os.environ, **env},
            stdout=asyncio.subprocess.PIPE,
            stderr=progress,
        )
        output, _ = await process.communicate()
    return process.returncode, msgspec.json.decode(output, type=Report)


async def test_the_demo_loses_nothing_and_says_so(tmp_path: Path) -> None:
    code, report = await demo(tmp_path, "--seed", "11")

    assert (code, report.lost, report.false, report.violations, report.still_open) == (0, 0, 0, (), ())
    assert report.placed == 60
    assert len(report.chaos) == 3
    assert report.callback_only_lost > 0, "with 40 % of the callbacks lost, waiting for them must lose orders"


async def test_queries_alone_make_every_order_definite(tmp_path: Path) -> None:
    """No callback arrives, closed payments get money, the merchant refunds in the console, and no statement is read."""
    env = {"SETTLES_AFTER_CLOSE": "1", "LOST": "1", "REFUNDED_IN_CONSOLE": "0.4", "RECONCILE_AT": "off", "SEED": "12"}
    code, report = await demo(tmp_path, "--no-chaos", **env)

    assert (code, report.lost, report.false, report.violations, report.still_open) == (0, 0, 0, (), ())
    assert report.repaired_by["reconciliation"] == 0
    assert {"refunded_outside", "refund_amount_unknown"} <= report.cases.keys(), (
        "every order is definite, or has a case"
    )

"""`nodrop demo` as a person runs it: everything goes wrong once, and the report says that nothing was lost."""

import asyncio
import sys
from pathlib import Path

import msgspec

from demo.report import Report

ROOT = Path(__file__).parent.parent.parent


async def test_the_demo_loses_nothing_and_says_so(tmp_path: Path) -> None:
    with (tmp_path / "progress.txt").open("wb") as progress:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cli", "demo", "--orders", "60", "--seed", "11", "--json"),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=progress,
        )
        output, _ = await process.communicate()

    report = msgspec.json.decode(output, type=Report)
    assert (process.returncode, report.lost, report.false, report.violations) == (0, 0, 0, ())
    assert report.placed == 60
    assert len(report.chaos) == 3
    assert report.callback_only_lost > 0, "with 40 % of the callbacks lost, waiting for them must lose orders"

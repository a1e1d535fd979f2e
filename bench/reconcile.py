"""Reconciliation of a day: rows per second of `nodrop reconcile`, and its peak memory."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import msgspec

from bench.buyer import Unexpected
from bench.clones import LATER_S, copy_orders, place_first
from bench.cpu import CpuMeter
from bench.report import MS, Figure, Result, figure
from bench.rig import ACCOUNT, Rig, open_rig
from bench.sizes import ShowProgress, Sizes
from demo.embedded import temporary_directory
from demo.service import ROOT

HOW = (
    "a statement file with a row for every payment, all of them paid here as well, so that no query is needed: "
    "`nodrop reconcile` as its own process, from its start to its end"
)
CHUNK = 20_000
KB = 1024.0

_PAY = """
WITH these AS (SELECT order_no, out_trade_no FROM payments
                WHERE order_no LIKE 'clone-%' AND status = 'open' LIMIT $1),
     paid AS (UPDATE payments p
                 SET status = 'paid', paid_at = now(), channel_transaction_id = 't-' || p.out_trade_no
                FROM these WHERE p.out_trade_no = these.out_trade_no)
UPDATE orders o
   SET status = 'paid', version = version + 1, paid_at = now(), paid_by_account = $2,
       paid_by_out_trade_no = these.out_trade_no
  FROM these WHERE o.order_no = these.order_no"""
_ROWS = """
SELECT format('payment,%s,%s,,%s,%s,%s', out_trade_no, channel_transaction_id, amount, currency,
              to_char(paid_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')) AS row
  FROM payments WHERE order_no LIKE 'clone-%' ORDER BY paid_at, out_trade_no"""


class _Ran(NamedTuple):
    seconds: float
    cpu_s: float
    peak_kb: int
    counts: dict[str, int]


async def measure(sizes: Sizes, show_progress: ShowProgress) -> Result:
    """Measure rows per second, CPU and peak memory of one run over `rows` rows."""
    began = time.monotonic()
    async with open_rig(workers=0) as rig:
        show_progress(f"{sizes.rows} payments that are paid here")
        await place_first(rig)
        await copy_orders(rig, sizes.rows, from_s=LATER_S, until_s=LATER_S)
        while await rig.db.execute(_PAY, CHUNK, ACCOUNT):
            pass
        with temporary_directory() as directory:
            path = directory / "statement.csv"
            await _write(rig, path)
            show_progress(f"a statement of {sizes.rows} rows")
            meter = CpuMeter(rig.stack)
            ran = await asyncio.to_thread(_run, rig.stack.environ, path)
        if ran.counts.get("agrees") != sizes.rows:
            raise Unexpected(f"not every one of {sizes.rows} rows agrees: {ran.counts}")
        return Result(
            benchmark="reconcile",
            how=HOW,
            settings=rig.in_force(),
            seconds=round(time.monotonic() - began, 1),
            figures=_figures(ran, sizes.rows, meter),
        )


def _figures(ran: _Ran, rows: int, meter: CpuMeter) -> tuple[Figure, ...]:
    postgres = tuple(each for each in meter.figures(rows, "row") if each.name == "cpu_postgres")
    return (
        figure("rows_per_s", rows / ran.seconds, "rows/s", rows),
        figure("peak_memory", ran.peak_kb / KB, "MiB", rows),
        figure("cpu_reconcile", ran.cpu_s / rows * MS, "CPU ms/row", rows),
        *postgres,
    )


async def _write(rig: Rig, path: Path) -> None:
    rows = [row["row"] for row in await rig.db.fetch(_ROWS)]
    header = "type,out_trade_no,transaction_id,refund_no,amount,currency,at"
    path.write_text("\n".join([header, *rows, ""]))  # noqa: ASYNC240 - nothing else runs in this loop


def _run(environ: dict[str, str], path: Path) -> _Ran:
    argv = (sys.executable, "-m", "cli", "reconcile", "--account", ACCOUNT, "--json", str(path))
    began = time.monotonic()
    with subprocess.Popen(  # noqa: S603 - our own process, no shell
        argv, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        out = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if not out:
        raise Unexpected(f"`nodrop reconcile` ended with exit code {process.returncode}")
    return _Ran(
        seconds=time.monotonic() - began,
        cpu_s=usage.ru_utime + usage.ru_stime,
        peak_kb=usage.ru_maxrss,
        counts=msgspec.json.decode(out)["run"]["counts"],
    )

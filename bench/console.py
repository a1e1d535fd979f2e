"""Time of every page of the console on top of many orders, as an operator's browser gets it from a web process.

A page is asked for over HTTP until its whole body is there: sign-in, statements, template and all. Beside the pages
stand what the worker reads for them and nobody waits for, and what the roll-ups cost an order.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from statistics import median
from urllib.parse import urlencode

import httpx

from api.console.routes import ROWS
from bench.buyer import Unexpected
from bench.console_pages import OPERATOR, TURNS, Address, find_places, find_values, pages_of
from bench.console_rows import ACCOUNTS, fill
from bench.report import MS, Figure, Result, figure
from bench.rig import Rig, open_rig
from bench.sizes import ShowProgress, Sizes
from core.operators import Role
from core.rollups import FILLED_DAYS, Step, bucket_of
from demo.service import NO_TLS
from demo.stack import Stack
from runtime.passwords import hash_password, one_time_password
from storage.postgres import rollups
from storage.postgres.alert_facts import find_broken, read_stored_facts
from storage.postgres.database import Database
from storage.postgres.operators import insert_operator

HOW = (
    "every page of the console and the lists with their filters, asked for over HTTP by a signed-in operator, one "
    "after another from one web process, on copies of two orders with their neighbours; milliseconds until the whole "
    "page is there, median and longest. worker: statements that no page waits for. roll_up_per_order: an hour of "
    "orders from the tables beside an empty one, as often as a bucket is computed"
)
PAGE_MS = 300.0
"""The promise: no page takes longer, in the middle of its turns."""

FILE_MS = 3000.0
"""The same of a file, which has up to 10,000 rows."""

TURNS_MIN = 5
TIMEOUT_S = 60.0
ROLLED_TIMES = 4.5
"""Computations that an order is in: half of the five of the current bucket, and two after its end."""

_HIDDEN = re.compile(r'name="form" value="([^"]+)"')
_CAN_SIGN_IN = "UPDATE operators SET must_change = false WHERE name = $1"
_PLACED = "SELECT count(*) FROM orders WHERE created_at >= $1 AND created_at < $2"

Work = Callable[[int], Awaitable[object]]


async def measure(sizes: Sizes, show_progress: ShowProgress) -> Result:
    """Milliseconds of each page. `missed` names those whose median is above `PAGE_MS`, and files above `FILE_MS`.

    Raises:
        Unexpected: a page is none, or its address is not known here.
    """
    began = time.monotonic()
    make_stack = partial(Stack, accounts=dict.fromkeys(ACCOUNTS, "sandbox"))
    async with open_rig(workers=0, env={"OPS": "1"}, make_stack=make_stack) as rig:
        await fill(rig, sizes.rows, show_progress)
        values, places = await find_values(rig.db, sizes.rows), await find_places(rig.db)
        figures: list[Figure] = []
        async with _signed_in(rig) as browser:
            for name, address in pages_of(ROWS, values, places).items():
                figures += await _timed(name, partial(_open, browser, address), sizes.limit_s)
                show_progress(f"{name}: {figures[-2].value:g} ms")
        missed = tuple(f"{each.name}: {each.value:g} ms" for each in figures[::2] if each.value > _limit_ms(each.name))
        for name, work in _of_the_worker(rig.db).items():
            figures += await _timed(f"worker {name}", work, sizes.limit_s)
        figures.append(await _rolled_up(rig.db))
        return Result(
            benchmark="console",
            how=HOW,
            settings=rig.in_force() | {"orders": sizes.rows, "page_ms_max": PAGE_MS, "file_ms_max": FILE_MS},
            seconds=round(time.monotonic() - began, 1),
            figures=tuple(figures),
            missed=missed,
        )


def _limit_ms(name: str) -> float:
    return FILE_MS if ".csv" in name else PAGE_MS


@asynccontextmanager
async def _signed_in(rig: Rig) -> AsyncIterator[httpx.AsyncClient]:
    """A browser of an admin, who signed in with a password."""
    password = one_time_password()
    await insert_operator(rig.db, OPERATOR, Role.ADMIN, hash_password(password))
    await rig.db.execute(_CAN_SIGN_IN, OPERATOR)
    base = rig.stack.api_url
    async with httpx.AsyncClient(base_url=base, trust_env=False, verify=NO_TLS, timeout=TIMEOUT_S) as browser:
        page = await browser.get("/ops/signin")
        hidden = _HIDDEN.search(page.text)
        if hidden is None:
            raise Unexpected(f"there is no form to sign in: {page.status_code}")
        form = urlencode({"form": hidden[1], "name": OPERATOR, "password": password})
        headers = {"content-type": "application/x-www-form-urlencoded", "origin": base}
        entered = await browser.post("/ops/signin", content=form, headers=headers)
        if entered.status_code != httpx.codes.SEE_OTHER:
            raise Unexpected(f"the operator was not let in: {entered.status_code}")
        yield browser


async def _open(browser: httpx.AsyncClient, address: Address, turn: int) -> None:
    target = address(turn)
    response = await browser.get(target)
    if response.status_code != httpx.codes.OK:
        raise Unexpected(f"{target}: {response.status_code} {response.headers.get('location', '')}")


def _of_the_worker(db: Database) -> dict[str, Work]:
    """Reads of each half minute or minute."""

    async def facts(_turn: int) -> None:
        await read_stored_facts(db)

    async def walk(_turn: int) -> None:
        await find_broken(db, ())

    async def computed(_turn: int) -> None:
        now = datetime.now(UTC)
        for step, days in ((Step.MINUTES, 2), (Step.HOUR, FILLED_DAYS), (Step.DAY, FILLED_DAYS)):
            since = bucket_of(now, Step.DAY) - timedelta(days=days)
            await rollups.find_computed(db, step, since, now)

    async def roll_up(turn: int) -> None:
        start = bucket_of(datetime.now(UTC), Step.MINUTES) - timedelta(seconds=Step.MINUTES * (3 + turn))
        await rollups.compute(db, start)

    return {"alert_facts": facts, "alert_walk": walk, "roll_up_due": computed, "roll_up": roll_up}


async def _rolled_up(db: Database) -> Figure:
    """Milliseconds of Postgres for each order, by a day's hours of orders beside as many hours without any."""
    last = bucket_of(datetime.now(UTC), Step.HOUR)
    busy = [last - timedelta(hours=number) for number in range(1, 25)]
    count = max(1, await db.fetchval(_PLACED, busy[-1], last))
    spent = []
    for starts in (busy, [start + timedelta(days=400) for start in busy]):
        await rollups.fill_hour(db, starts[0])  # so that the plan is made
        began = time.perf_counter()
        for start in starts:
            await rollups.fill_hour(db, start)
        spent.append(time.perf_counter() - began)
    each_ms = max(0.0, spent[0] - spent[1]) * MS / count
    return figure("roll_up_per_order", each_ms * ROLLED_TIMES, "ms/order", count)


async def _timed(name: str, work: Work, limit_s: float) -> tuple[Figure, Figure]:
    await work(0)  # so that plans are made
    spent: list[float] = []
    began = time.monotonic()
    while len(spent) < TURNS and (len(spent) < TURNS_MIN or time.monotonic() - began < limit_s):
        start = time.perf_counter()
        await work(len(spent))
        spent.append(time.perf_counter() - start)
    return (
        figure(f"{name} p50", median(spent) * MS, "ms", len(spent)),
        figure(f"{name} max", max(spent) * MS, "ms", len(spent)),
    )

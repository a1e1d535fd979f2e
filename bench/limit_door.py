"""The door's statements by pgbench: what Postgres does when its client costs nothing.

The statements are those that the door sends for one order, placed and paid; pgbench puts in other numbers.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
import resource
import subprocess
import time
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from bench.buyer import Unexpected
from bench.cpu import cpu_seconds
from bench.door import RULES, place_one
from core.decision import Decision
from core.evidence import Paid, Source
from core.lifecycle import on_query
from core.order import OrderState
from demo.embedded import EmbeddedPostgres, find_postgres_binaries, temporary_directory
from demo.embedded.child import children_of
from storage.postgres.address import read_address
from storage.postgres.database import Database
from storage.postgres.door.transition import transition_existing

CLIENTS = 4
"""As many as a process has connections."""

LIMIT_S = 120.0
US = 1e6
NUMBER = "BENCHNUMBER"
"""Stands for the number of an order in the recorded statements."""


_SESSION = "SELECT name, setting FROM pg_settings WHERE source = 'client' AND name NOT IN ('client_encoding')"
_NUMBERED = (
    f"replace(convert_from(decode('{{text}}', 'hex'), 'UTF8'), '{NUMBER}', :prefix || '-' || :client_id || '-' || :n)"
)


class Script(NamedTuple):
    """pgbench's script for one order, and the settings of the sessions that the statements were recorded in."""

    text: str
    settings: dict[str, str]


class _Recorder(Database):
    """A database that keeps the statements that write an order, with their arguments, however they are sent."""

    def __init__(self, url: str) -> None:
        super().__init__(read_address(url, ""))
        self.recorded: list[tuple[str, tuple[object, ...]]] = []

    async def _run(self, method: str, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - rows
        if "INSERT INTO orders" in args[0] or "UPDATE orders" in args[0]:
            self.recorded.append((args[0], args[1:]))
        return await super()._run(method, *args, **options)


async def record_script(url: str) -> Script:
    """Send one order through the door, placed and paid, and return its statements as a script.

    Raises:
        Unexpected: the door sends none, or one with an argument that is neither text nor a list of texts.
    """
    db = _Recorder(url)
    await db.open()
    try:
        key, state = await place_one(db, NUMBER)
        evidence = Paid(**key._asdict(), amount=8888, currency="CNY", channel_transaction_id=f"t-{NUMBER}")

        def decide_paid(found: OrderState) -> Decision:
            return on_query(found, key, evidence, RULES, Source.CALLBACK)

        await transition_existing(db, NUMBER, decide_paid, known=state)
        settings = {row["name"]: row["setting"] for row in await db.fetch(_SESSION)}
    finally:
        await db.close()
    if not db.recorded:
        raise Unexpected("the door sent no statement that writes an order")
    statements = [_with_numbers(sql, args) for sql, args in db.recorded]
    return Script("".join(["\\set n :n + 1\n", *(f"{each.strip()};\n" for each in statements)]), settings)


def _with_numbers(sql: str, args: Sequence[object]) -> str:
    """Put the arguments into a statement, with the number of pgbench's order in the place of ours."""
    return re.sub(r"\$(\d+)", lambda found: _expression(args[int(found[1]) - 1]), sql)


def _expression(value: object) -> str:
    if isinstance(value, list):
        return f"ARRAY[{', '.join(map(_expression, value))}]"
    if not isinstance(value, str):
        raise Unexpected(f"pgbench is given no {type(value).__name__}")
    value = re.sub(r"msg_[0-9a-f]{32}", f"msg_{NUMBER}", value)  # a notification's id is its own as well
    return _NUMBERED.format(text=value.encode().hex())  # a colon would name a variable of pgbench


async def run_pgbench(server: EmbeddedPostgres, script: Script, orders: int, turn: int) -> dict[tuple[str, str], float]:
    """Place and pay so many orders; return orders a second, and the CPU of Postgres and of pgbench for each.

    Raises:
        Unexpected: pgbench is not there, or a statement failed.
    """
    before, began = _cpu_s(server), time.monotonic()
    client_s = await asyncio.to_thread(_run, server, script, orders, turn)
    seconds, spent = time.monotonic() - began, _cpu_s(server) - before
    return {
        ("door_per_s", "orders/s"): orders / seconds,
        ("door_cpu_postgres", "CPU us/order"): spent / orders * US,
        ("door_cpu_pgbench", "CPU us/order"): client_s / orders * US,
    }


def _run(server: EmbeddedPostgres, script: Script, orders: int, turn: int) -> float:
    """Return the CPU seconds of pgbench."""
    parts = urlsplit(server.url("limit"))
    options = " ".join(f"-c {name}={value}" for name, value in script.settings.items())
    env = {"PGPASSWORD": parts.password or "", "PGOPTIONS": options, "PATH": os.environ["PATH"]}
    address = ("--host=127.0.0.1", f"--port={server.port}", "--username=nodrop", "limit")
    load = (
        f"--client={CLIENTS}",
        f"--transactions={math.ceil(orders / CLIENTS)}",
        "--protocol=prepared",
        "--no-vacuum",
    )
    numbers = ("--define=n=0", f"--define=prefix='turn{turn}'")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with temporary_directory() as directory:
        path = directory / "door.sql"
        path.write_text(script.text)
        argv = (find_postgres_binaries() / "pgbench", *load, *numbers, f"--file={path}", *address)
        done = subprocess.run(  # noqa: S603 - found with the server, no shell
            argv, env=env, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
    if done.returncode != 0:
        raise Unexpected(f"pgbench ended with exit code {done.returncode}: {done.stderr[-500:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _cpu_s(server: EmbeddedPostgres) -> float:
    return sum(map(cpu_seconds, (server.pid, *children_of(server.pid))))

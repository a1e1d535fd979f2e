"""Reads of statements, as Postgres counts them, and their plans."""

from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import msgspec

from storage.postgres.database import CONNECTIONS_MAX, Database

TABLES = (
    "orders",
    "payments",
    "pending",
    "order_events",
    "cases",
    "disputes",
    "observations_default",
    "refunds",
    "callbacks",
    "notifications",
)
"""Tables that grow with the orders."""

_READS = """
SELECT relname AS name, seq_scan, seq_tup_read + coalesce(idx_tup_fetch, 0) AS rows FROM pg_stat_user_tables
 WHERE relname = ANY($1)
UNION ALL
SELECT indexrelname, 0, idx_tup_read FROM pg_stat_user_indexes WHERE relname = ANY($1)"""

_KEPT = """
SELECT name, statement, cardinality(parameter_types) AS parameters FROM pg_prepared_statements
 WHERE statement ~ '^\\s*(SELECT|WITH|INSERT|UPDATE|DELETE)' AND name <> ''"""


class Reads(msgspec.Struct, frozen=True):
    """Sequential scans of `TABLES`, and rows and index entries that were read, by table and index."""

    scans: dict[str, int]
    rows: dict[str, int]

    def __sub__(self, before: "Reads") -> "Reads":
        return Reads(
            {name: scans - before.scans[name] for name, scans in self.scans.items() if scans > before.scans[name]},
            {name: rows - before.rows[name] for name, rows in self.rows.items() if rows > before.rows[name]},
        )


async def read_so_far(db: Database) -> Reads:
    """All reads of a database whose statements came over one connection."""
    await db.execute("SELECT pg_stat_force_next_flush()")
    rows = await db.fetch(_READS, TABLES)
    return Reads({row["name"]: row["seq_scan"] for row in rows}, {row["name"]: row["rows"] for row in rows})


async def wide_plans(db: Database) -> dict[str, list[str]]:
    """Statements whose plan, as a connection of the pool keeps it, reads a table or an index of one without a
    condition; with what it reads.
    """
    return await _found_in_plans(db, _wide_scans)


async def hashing_plans(db: Database) -> dict[str, list[str]]:
    """Statements whose kept plan makes a hash table as large as the planner guesses, with what it is for.

    A row found by `BETWEEN key AND key` is guessed to be one in two hundred of its table, and the memory for so many is
    cleared before the first row comes.
    """
    return await _found_in_plans(db, _large_hashes)


async def _found_in_plans(db: Database, search: Callable[[dict[str, Any]], Iterator[str]]) -> dict[str, list[str]]:
    found = {}
    assert db._connections is not None, "it is open"
    async with AsyncExitStack() as stack:
        for _ in range(CONNECTIONS_MAX):
            connection = await stack.enter_async_context(db._connections._pool.acquire())
            for name, statement, parameters in await connection.fetch(_KEPT):
                nulls = f"({', '.join(['NULL'] * parameters)})" if parameters else ""
                # Prepared by hand, which keeps nothing: else it takes the place of a statement whose turn is to come.
                explained = await connection.prepare(f'EXPLAIN (FORMAT JSON) EXECUTE "{name}"{nulls}')
                if parts := list(search(msgspec.json.decode(await explained.fetchval())[0]["Plan"])):
                    found[statement] = parts
    return found


_FEW = "notifications_dead"
"""An index of rows that an operator lists."""


def _wide_scans(node: dict[str, Any]) -> Iterator[str]:
    """Sequential scans of `TABLES`, and scans of indices without a condition."""
    of, kind = node.get("Relation Name") or node.get("Index Name", ""), node["Node Type"]
    is_scan = kind == "Seq Scan" or "Index" in kind
    if is_scan and "Index Cond" not in node and of.startswith(TABLES) and node.get("Index Name") != _FEW:
        yield f"{kind} of {of}"
    for child in node.get("Plans", ()):
        yield from _wide_scans(child)


async def plan_parts(connection: Any, sql: str, *args: object) -> dict[str | None, dict[str, Any]]:  # noqa: ANN401 - of asyncpg
    """The parts of a statement's plan by their names in it: `CTE name`."""
    explained = await connection.fetchval(f"EXPLAIN (FORMAT JSON) {sql}", *args)
    return {node.get("Subplan Name"): node for node in _nodes(msgspec.json.decode(explained)[0]["Plan"])}


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from _nodes(part)


def is_sorted(plan: dict[str, Any], *by: str) -> bool:
    """Whether all that a part does comes after a sort by these columns."""
    while "Sort Key" not in plan and "Plans" in plan:
        plan = plan["Plans"][0]
    return [key.rpartition(".")[2] for key in plan.get("Sort Key", ())] == [*by]


HASHED_MAX = 1000
"""More rows than a batch of callers has."""


def _large_hashes(node: dict[str, Any]) -> Iterator[str]:
    """Subplans that are hashed, whatever their size, and hash tables planned for more than `HASHED_MAX` rows."""
    yield from (text for text in node.values() if isinstance(text, str) and "hashed SubPlan" in text)
    if node["Node Type"] == "Hash" and node["Plan Rows"] > HASHED_MAX:
        yield f"Hash of {node['Plan Rows']} rows"
    for child in node.get("Plans", ()):
        yield from _large_hashes(child)

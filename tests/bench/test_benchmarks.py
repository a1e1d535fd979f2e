"""Each benchmark with tiny sizes: it works, and its figures are complete. Their values are not tested."""

import math
import sys
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from bench import console, console_rows, counts, door, growth, merchants, pages, queries, queue_run
from bench.__main__ import BENCHMARKS
from bench.peers.environment import PeerMissing
from bench.report import Result
from bench.sizes import Sizes
from channels.adapters import ADAPTERS

TINY = Sizes(
    orders=3,
    clients=(2,),
    callbacks=6,
    queries=5,
    deliveries=4,
    backlog=5,
    rows=400,
    repeats=2,
    limit_s=20.0,
    channel_queries=3,
    channel_callbacks=2,
    jobs=100,
    requests=100,
    pages=2,
    streams=4,
    queues=("lane", "lua_loop", "stock_arq"),
)

QUEUES = ("lane", "lua_loop", "stock_arq")
"""Those that need no environment of their own."""

CPU = {f"cpu_{name}" for name in ("ours", "api", "worker", "postgres", "redis", "simulator", "client")}
LATENCIES = ("p50", "p99", "max")
TIMES = {f"{name}_{which}" for name in ("place", "callback", "order") for which in LATENCIES}
SOLD = {"orders_per_s", "finished_per_s", "paid_when_acknowledged", "commits", "wal"} | TIMES | CPU
COUNTED = {"statements", "writing_transactions", "redis_commands", "redis_round_trips"}
FIGURES = {
    "orders": {f"{figure}_2" for figure in SOLD | COUNTED}
    | {f"{figure}_lone" for figure in TIMES | COUNTED}
    | {f"{figure}_open" for figure in TIMES | {"rate"}},
    "usual": {f"{name}_{figure}" for name in ("nodrop", "usual") for figure in SOLD}
    | {"ratio_cpu_ours", "ratio_finished_per_s"},
    "callbacks": {"callbacks_per_s", "paid_when_acknowledged", "open_rate", "steady_rate"}
    | {f"{name}_{which}" for name in ("closed", "open", "steady") for which in LATENCIES}
    | CPU,
    "queries": {"queries_per_s", "last_one_late", "channel_calls"} | CPU,
    "backlog": {"backlog", "beside_ideal", "busiest_second"},
    "rearm": {"notice", "rearm", "rows_per_s"} | CPU,
    "pages": {"open_p95", "back_p95", "stream_one_p95", "stream_own_p95"}
    | {f"memory_{kind}_{when}" for kind in ("one", "own") for when in ("before", "during", "after")},
    "footprint": {"redis", "redis_job", "postgres", "postgres_orders", "postgres_payments", "postgres_pending"},
    "channels": {f"{name}_{figure}" for name in ADAPTERS for figure in ("query_tls", "query_http", "callback")},
    "reconcile": {"rows_per_s", "peak_memory", "cpu_reconcile", "cpu_postgres"},
    "console": {
        f"{name} {which}"
        for name in (
            *("/ops", "/ops 90d", "/ops/orders", "/ops/orders last page", "/ops/orders rare currency"),
            *("/ops/orders/{order_no}", "/ops/orders.csv", "/ops/days/{account}/{day}", "/ops/endpoints/show"),
            *("/ops/callbacks dead", "/ops/audit person, rare act", "/ops/reconciliation/{id}", "/ops/accounts/{name}"),
            *("worker alert_facts", "worker alert_walk", "worker roll_up"),
        )
        for which in ("p50", "max")
    }
    | {"roll_up_per_order"},
    "door": {f"{name}_behind_{size}" for name in ("cpu", "scans") for size in (0, 100, 400)},
    "growth": {
        figure
        for name in ("order", "claim", "idle_sweep", "busy_sweep")
        for kind in ("analysed", "never", "grown")
        for figure in (f"{name}_{kind}_400", f"growth_{name}_{kind}")
    }
    | {f"visits_{kind}_400" for kind in ("analysed", "never", "grown")},
    "limit": {
        *(f"stored_{figure}" for figure in ("per_s", "cpu_web", "cpu_postgres")),
        *("call_raw", "call_transport"),
        *(f"door_{figure}" for figure in ("per_s", "cpu_postgres", "cpu_pgbench")),
    },
    "merchants": {
        f"{prefix}{name}_p95" for prefix in ("", "without_redis_") for name in ("usual", "one_hangs", "hundred_hang")
    },
    "queue": {
        f"{name}_{figure}" for name in QUEUES for figure in ("jobs_per_cpu_s", "jobs_per_s", "redis_cpu", "enqueued")
    }
    | {f"{name}_paced_{figure}" for name in QUEUES for figure in ("late_p50", "late_p99", "twice")}
    | {
        f"{name}_{link}_{ends}"
        for name in QUEUES
        for link in ("slow5", "slow50")
        for ends in ("left", "not_run", "twice")
    }
    | {"lane_starved_late_p99", "stock_arq_starved_late_p99", "lane_beside_lua_loop", "lane_beside_stock_arq"},
    "sweep": {f"{name}_{which}" for name in ("idle", "busy") for which in LATENCIES} | {"behind_leases"},
}


BY_NETWORK = {"usual"}
"""Benchmarks that install a peer."""

PROFILED = {"orders", "queries"}
ON_THE_STACK = FIGURES.keys() - {"channels", "door", "usual", "growth", "queue", "limit"}
"""Benchmarks of all processes together."""


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(600)  # peers are installed, which takes as long as the network does
@pytest.mark.skipif(sys.platform != "linux", reason="CPU figures come from /proc")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.network] if name in BY_NETWORK else []) for name in BENCHMARKS]
)
async def test_benchmark_gives_every_figure_with_its_unit_and_count(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And a profile, where there is one."""
    monkeypatch.setattr(merchants, "TIMEOUT_S", 1.0)
    monkeypatch.setattr(merchants, "SOON", {**merchants.SOON, "SWEEP_GRACE_S": "0.5", "BACKOFF_UNIT_S": "0.5"})
    monkeypatch.setattr(merchants, "NOISE_S", 60.0)  # two notifications have no 95th percentile
    monkeypatch.setattr(queue_run, "SPINNERS", 1)
    for module, wait in ((queue_run, "LEAD_S"), (queries, "LEAD_S"), (counts, "IDLE_S"), (pages, "SETTLE_S")):
        monkeypatch.setattr(module, wait, 0.5)
    for module, count in ((door, "ORDERS"), (growth, "ORDERS"), (growth, "CLAIMS"), (growth, "LOOKS")):
        monkeypatch.setattr(module, count, 5)
    monkeypatch.setattr(growth, "PAIRS", 1)
    monkeypatch.setattr(console, "TURNS", 1)
    monkeypatch.setattr(console_rows, "BUCKETS", dict.fromkeys(console_rows.BUCKETS, 10))
    progress: list[str] = []
    try:
        sizes = replace(TINY, repeats=TINY.repeats if name == "rearm" else 1, profile=str(tmp_path))
        result = await BENCHMARKS[name](sizes, progress.append)
    except PeerMissing as missing:
        pytest.skip(str(missing))
    figures = {figure.name: figure for figure in result.figures}
    assert len(figures) == len(result.figures), "a name stands twice"
    assert FIGURES[name] <= set(figures)
    for figure in result.figures:
        assert figure.unit
        assert figure.n >= 1
        assert math.isfinite(figure.value)
    assert result.benchmark == name
    assert result.how
    assert progress
    if name in ON_THE_STACK:
        assert result.settings["account_rate_per_s"] == (50 if name == "backlog" else 10_000)
        assert "fsync on" in str(result.settings["postgres"])
    assert msgspec.json.decode(msgspec.json.encode(result), type=Result) == result
    _check_counts(name, {each: (figures[each].value, figures[each].n) for each in figures})
    if name in PROFILED:
        _check_profile((tmp_path / f"{name}.txt").read_text())


def _check_profile(text: str) -> None:
    """Check that threads, statements, commands and functions are in it."""
    for heading in ("CPU ms each, by process", "Postgres: ", "Redis: ", "api: ", "worker: "):
        assert f"\n{heading}" in text
    assert "worker python" in text or "worker pyreqwest" in text
    assert "evalsha" in text


def _check_counts(name: str, figures: dict[str, tuple[float, int]]) -> None:
    """Check the counts, which do not depend on the machine."""
    match name:
        case "orders":
            assert figures["orders_per_s_2"][1] == TINY.orders
            assert figures["commits_2"][0] >= 1
            assert figures["statements_lone"][0] >= 1
        case "callbacks":
            assert figures["closed_p50"][1] == figures["open_p50"][1] == figures["steady_p50"][1] == TINY.callbacks / 3
        case "queries":
            assert figures["last_one_late"][1] == TINY.queries
        case "rearm":
            assert figures["rearm"][1] == TINY.rows
        case "footprint":
            assert figures["redis_job"][1] == 2 * TINY.rows, "a query and a deadline each"
        case "channels":
            assert figures["sandbox_query_tls"][1] == TINY.channel_queries
        case "reconcile":
            assert figures["rows_per_s"][1] == TINY.rows
        case "sweep":
            assert figures["behind_leases"][1] == 100, "a whole batch"

"""Parts of the benchmark of delay queues; its figures are in `test_benchmarks`."""

import asyncio
import os
import struct
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from bench.buyer import Unexpected
from bench.peers.queue.plan import Plan, Records, read_records
from bench.queue import NAMES, _figures, _part, _peers
from bench.queue_run import Load, Peer, Ran, _cpu_s, run_peer
from bench.slow_link import slow_link
from tests.connections import serving

RAN = Ran(
    measured=100, worker_s=0.5, redis_s=0.001, runs=90, seconds=3.0, enqueued_per_s=10.0,
    late_s=(0.0, 0.1, 0.2), left=4, twice=2,
)  # fmt: skip


async def test_answers_over_a_slow_link_are_late_and_in_order() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)

    async with serving(serve) as port, slow_link(port, 0.05) as link:
        assert link.used_at == 0
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        began = time.monotonic()
        for number in range(100):
            writer.write(b"%03d" % number)
            await asyncio.sleep(0)
        answer = await reader.readexactly(300)
        assert time.monotonic() - began >= 0.05
        assert answer == b"".join(b"%03d" % number for number in range(100))
        assert link.used_at > 0
        writer.close()


def test_jobs_become_due_at_the_pace_of_the_plan() -> None:
    plan = Plan("redis://", "", 12_000, 1000.0, 4.0)
    assert [plan.due_at(number) for number in (0, 1, 8)] == [1000.0, 1000.25, 1002.0]
    assert plan._replace(begin_at=0.0).due_at(8) == 0.0
    assert [len(chunk) for chunk in plan.chunks()] == [5000, 5000, 2000]


def test_records_are_read_up_to_the_last_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "records"
    assert read_records(path) == []
    Records(str(path)).add(7)
    while not path.stat().st_size:
        os.sched_yield()
    with path.open("ab") as file:
        file.write(struct.pack("dd", 8.0, 1.5) + b"half")
    assert [number for number, _ in read_records(path)] == [7, 8]


def test_figures_compare_ours_with_each_other_worker() -> None:
    runs = {("lane", "all"): [RAN], ("lua_loop", "all"): [RAN], ("lane", "slow50"): [RAN]}
    figures = {each.name: each.value for each in _figures(runs)}
    assert figures["lane_jobs_per_cpu_s"] == 200
    assert figures["lane_redis_cpu"] == 10
    assert figures["lane_beside_lua_loop"] == 1
    assert "lane_beside_lane" not in figures
    assert (figures["lane_slow50_not_run"], figures["lane_slow50_left"], figures["lane_slow50_twice"]) == (-87, 4, 2)


def test_a_worker_that_ran_nothing_within_the_limit_has_no_ratio() -> None:
    runs = {("lane", "all"): [RAN, RAN], ("saq", "all"): [RAN, replace(RAN, measured=0, runs=0)]}
    assert not {"lane_beside_saq"} & {each.name for each in _figures(runs)}


def test_slow_workers_have_a_part_of_the_jobs_that_are_due_at_once_and_all_of_the_others() -> None:
    celery = next(peer for peer in _peers(("",), ("",)) if peer.name == "celery")
    assert _part(Load(count=1000), celery).count == 100
    assert _part(Load(count=1000, per_s=5.0), celery).count == 1000
    assert {peer.name for peer in _peers((), ())} == set(NAMES) - {"saq", "taskiq", "celery", "bullmq"}


@pytest.mark.servers
@pytest.mark.parametrize("load", [Load(count=50, delay_s=0.005), Load(count=50, per_s=500.0, starved=True)])
async def test_every_job_of_a_load_runs_once_and_nothing_is_left(load: Load) -> None:
    bound = next(peer for peer in _peers((), ()) if peer.name == "lua_loop")
    ran = await run_peer(bound, load, 20.0)
    assert (ran.runs, ran.left, ran.twice) == (50, 0, 0)
    assert len(ran.late_s) == 50


@pytest.mark.servers
async def test_worker_that_cannot_enqueue_is_named_with_the_end_of_its_log() -> None:
    peer = Peer(name="broken", command=(sys.executable, "-c", "exit('no such queue')"), share=1.0, unfinished="0")
    with pytest.raises(Unexpected, match=r"broken could not enqueue: .*no such queue"):
        await run_peer(peer, Load(count=10), 1.0)


@pytest.mark.skipif(sys.platform != "linux", reason="a process's clock is Linux's")
def test_cpu_of_a_process_is_that_of_its_own_clock() -> None:
    before = time.process_time()
    shown = _cpu_s(os.getpid())
    assert before <= shown <= time.process_time()
    assert _cpu_s(2**22 + 1) == 0.0

"""Work that one worker does for all of them moves when that worker is killed."""

from pathlib import Path
from signal import SIGKILL

from tests.scenarios.scenario import Scenario
from tests.servers import Process, eventually

DUTY, STEP = "arm_ahead", "worker.loops.arm_window:before"


async def test_a_killed_workers_duty_is_done_by_another(kill_scenario: Scenario, tmp_path: Path) -> None:
    scenario, log = kill_scenario, tmp_path / "worker.log"
    held_by = "SELECT leased_by FROM duties WHERE name = $1 AND leased_at IS NOT NULL"
    ended_by = "SELECT leased_by FROM duties WHERE name = $1 AND leased_at IS NULL"
    async with scenario.frozen_workers():
        environ = scenario.stack.environ
        async with Process("tests.scenarios.kill_at_step", "worker", "--at", STEP, env=environ, log=log) as process:
            assert await process.wait() == -SIGKILL
        killed = await scenario.db.fetchval(held_by, DUTY)
        assert killed is not None, "the lease outlives its process"

    assert await eventually(lambda: scenario.db.fetchval(ended_by, DUTY)) != killed

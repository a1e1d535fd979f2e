"""Whole worlds: the service, five channels, the merchant, shoppers and faults, judged by the oracle."""

import os
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

import msgspec
import pytest

from tests.servers import ROOT
from tests.simulation.outcome import Outcome
from tests.simulation.postgres import Cluster

LIMIT_S = 300.0
Live = Callable[..., Outcome]

_numbers = count()


@pytest.fixture(scope="module")
def live(worlds: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Live:
    """Lives one world in a process."""

    def live_one(seed: int, orders: int, profile: str, only: list[str] | None = None) -> Outcome:
        options = ["--seed", str(seed), "--orders", str(orders), "--profile", profile, "--settled-h", "3"]
        options += ["--database-url", worlds.new_database(f"life_{next(_numbers)}")]
        if only is not None:
            path: Path = tmp_path_factory.mktemp("faults") / "only"
            path.write_text("\n".join(only))
            options += ["--only", str(path)]
        environ = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
        command = [sys.executable, "-m", "tests.simulation", "world", *options]
        ended = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, timeout=LIMIT_S, check=False)
        assert ended.returncode == 0, ended.stderr.decode()
        return msgspec.json.decode(ended.stdout.splitlines()[-1], type=Outcome)

    return live_one


@pytest.mark.scenario
def test_rough_world_loses_nothing_and_repeats_itself(live: Live) -> None:
    first, second = live(11, 12, "harsh"), live(11, 12, "harsh")
    assert first.found == ()
    assert first.figures.orders >= 10
    assert first.figures.paid >= 5
    assert (first.digest, first.figures) == (second.digest, second.figures)


@pytest.mark.scenario
def test_world_without_its_faults_is_calm(live: Live) -> None:
    outcome = live(11, 12, "harsh", only=[])
    assert outcome.found == ()
    assert set(outcome.figures.by) == {"callback"}

"""A short fuzzer run for every parser; a long one is `make fuzz`."""

import os
import subprocess
import sys
import sysconfig
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings

from tests.fuzz.targets import names

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".oracles" / "atheris" / "bin" / "python"
RUNS_AN_EXAMPLE = 3
"""Runs for each example that hypothesis gives a property in this session."""

RUNS_A_SECOND_MIN = 100
SECONDS_MAX = 60


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON.exists(), reason="there is no .oracles/atheris: make oracles")
@pytest.mark.parametrize("channel", sorted({name.partition("_")[0] for name in names()}))
def test_parsers_raise_declared_errors_only(channel: str, tmp_path: Path) -> None:
    if not is_atheris_usable():
        pytest.skip("there is no atheris for this machine")
    runs = RUNS_AN_EXAMPLE * settings().max_examples
    seconds_max = min(max(1, runs // RUNS_A_SECOND_MIN), SECONDS_MAX)
    options = [f"-atheris_runs={runs}", f"-max_total_time={seconds_max}", "-seed=7", "-max_len=4096"]
    targets = ",".join(name for name in names() if name.partition("_")[0] == channel)
    command = [str(PYTHON), "-m", "tests.fuzz", targets, *options, f"-artifact_prefix={tmp_path}/"]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{sysconfig.get_path('purelib', vars=_of_venv())}"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=300)
    findings = [(found.name, found.read_bytes()[:300]) for found in tmp_path.iterdir()]
    assert done.returncode == 0, f"{findings}\n{done.stderr[-3000:]}"
    assert findings == []


@cache
def is_atheris_usable() -> bool:
    return subprocess.run([PYTHON, "-c", "import atheris"], check=False, capture_output=True).returncode == 0


def _of_venv() -> dict[str, str]:
    return {"base": sys.prefix, "platbase": sys.prefix}

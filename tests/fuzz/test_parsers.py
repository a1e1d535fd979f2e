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
LIMIT_S = 570


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON.exists(), reason="there is no .oracles/atheris: make oracles")
def test_parsers_raise_declared_errors_only(tmp_path: Path) -> None:
    """All in one process: to prepare the code takes longer than the runs."""
    if not is_atheris_usable():
        pytest.skip("there is no atheris for this machine")
    runs = RUNS_AN_EXAMPLE * settings().max_examples
    seconds_max = min(max(1, runs // RUNS_A_SECOND_MIN), SECONDS_MAX)
    options = [f"-atheris_runs={runs}", f"-max_total_time={seconds_max}", "-seed=7", "-max_len=4096"]
    command = [str(PYTHON), "-m", "tests.fuzz", ",".join(names()), *options, f"-artifact_prefix={tmp_path}/"]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{sysconfig.get_path('purelib', vars=_of_venv())}"}
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=LIMIT_S
    )
    findings = [(found.name, found.read_bytes()[:300]) for found in tmp_path.iterdir()]
    assert done.returncode == 0, f"{findings}\n{done.stderr[-3000:]}"
    assert findings == []


@cache
def is_atheris_usable() -> bool:
    return subprocess.run([PYTHON, "-c", "import atheris"], check=False, capture_output=True).returncode == 0


def _of_venv() -> dict[str, str]:
    return {"base": sys.prefix, "platbase": sys.prefix}

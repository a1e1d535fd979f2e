import json
import subprocess
import sys

import pytest

from bench.__main__ import BENCHMARKS
from bench.sizes import Sizes
from tests.servers import ROOT


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.slow
def test_standard_output_is_only_json_and_the_table_is_on_standard_error() -> None:
    done = run("sweep", "--rows", "200")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert set(report) == {"command", "began_at", "seconds", "machine", "results"}
    assert report["command"] == "python -m bench sweep --rows 200"
    assert [result["benchmark"] for result in report["results"]] == ["sweep"]
    assert set(report["results"][0]) == {"benchmark", "how", "settings", "seconds", "figures"}
    assert {"name", "value", "unit", "n"} <= set(report["results"][0]["figures"][0])
    assert "idle_p50" in done.stderr


def test_help_names_every_benchmark_and_size() -> None:
    text = run("--help").stdout
    for name in (*BENCHMARKS, *(f"--{name.replace('_', '-')}" for name in Sizes.__struct_fields__)):
        assert name in text


@pytest.mark.parametrize("arguments", [("speed",), ("--orders", "0"), ("--limit-s", "1e9")])
def test_invalid_arguments_are_refused(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")

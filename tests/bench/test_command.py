import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from bench.__main__ import BENCHMARKS, main
from bench.sizes import Sizes
from tests.servers import ROOT


@pytest.mark.slow
def test_standard_output_is_only_json_and_the_table_is_on_standard_error() -> None:
    argv = [sys.executable, "-m", "bench", "sweep", "--rows", "200"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert set(report) == {"command", "began_at", "seconds", "machine", "loop_ms", "results"}
    assert report["command"] == "python -m bench sweep --rows 200"
    assert [result["benchmark"] for result in report["results"]] == ["sweep"]
    assert set(report["results"][0]) == {"benchmark", "how", "settings", "seconds", "figures"}
    assert {"name", "value", "unit", "n"} <= set(report["results"][0]["figures"][0])
    assert "idle_p50" in done.stderr


def test_help_names_every_benchmark_and_size() -> None:
    text = CliRunner().invoke(main, ["--help"]).stdout
    for name in (*BENCHMARKS, *(f"--{name.replace('_', '-')}" for name in Sizes.__struct_fields__)):
        assert name in text


@pytest.mark.parametrize("arguments", [("speed",), ("--orders", "0"), ("--limit-s", "1e9")])
def test_invalid_arguments_are_refused(arguments: tuple[str, ...]) -> None:
    done = CliRunner().invoke(main, arguments)
    assert (done.exit_code, done.stdout) == (2, "")

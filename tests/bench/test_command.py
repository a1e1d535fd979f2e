import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

import bench.__main__
from bench.__main__ import BENCHMARKS, main
from bench.report import Result, figure
from bench.sizes import ShowProgress, Sizes
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
    assert set(report["results"][0]) == {"benchmark", "how", "settings", "seconds", "figures", "missed"}
    assert {"name", "value", "unit", "n"} <= set(report["results"][0]["figures"][0])
    assert "idle_p50" in done.stderr


def test_help_names_every_benchmark_and_size() -> None:
    text = CliRunner().invoke(main, ["--help"]).stdout
    for name in (*BENCHMARKS, *(f"--{name.replace('_', '-')}" for name in Sizes.__struct_fields__)):
        assert name in text


def test_what_was_promised_and_not_kept_is_printed_with_its_figures_and_ends_in_a_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def measure(_sizes: Sizes, _show_progress: ShowProgress) -> Result:
        figures = (figure("/ops p50", 412.0, "ms", 8),)
        return Result(benchmark="console", how="", settings={}, seconds=1.0, figures=figures, missed=("/ops: 412 ms",))

    monkeypatch.setattr(bench.__main__, "BENCHMARKS", {"console": measure})
    done = CliRunner().invoke(main, ["console"])
    assert done.exit_code == 1
    assert json.loads(done.stdout)["results"][0]["missed"] == ["/ops: 412 ms"]
    assert "too slow: /ops: 412 ms" in done.stderr


@pytest.mark.parametrize("arguments", [("speed",), ("--orders", "0"), ("--limit-s", "1e9")])
def test_invalid_arguments_are_refused(arguments: tuple[str, ...]) -> None:
    done = CliRunner().invoke(main, arguments)
    assert (done.exit_code, done.stdout) == (2, "")

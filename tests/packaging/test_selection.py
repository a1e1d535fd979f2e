"""`make unit` selects each test that needs no server, without a list to keep; `make test` builds only what it needs."""

import subprocess
from pathlib import Path

import pytest

from tests.conftest import UNIT_FOLDERS

ROOT = Path(__file__).parents[2]


def test_a_test_that_uses_a_server_is_marked(request: pytest.FixtureRequest, redis_url: str) -> None:
    assert request.node.get_closest_marker("servers")


def test_a_test_that_uses_none_is_a_unit_test(request: pytest.FixtureRequest) -> None:
    assert request.node.get_closest_marker("servers") is None


def test_a_unit_test_cannot_start_a_process() -> None:
    with pytest.raises(pytest.fail.Exception, match="mark it `servers`"):
        subprocess.run(["true"], check=True)  # noqa: S607 -- never runs


def test_folders_of_unit_tests_are_there() -> None:
    assert all((ROOT / "tests" / folder).is_dir() for folder in UNIT_FOLDERS)


@pytest.mark.servers
@pytest.mark.parametrize(
    ("arguments", "builds"),
    [
        ("", True),
        ("--last-failed", True),
        ("tests", True),
        ("-x tests/oracles", True),
        ("tests/core tests/fuzz/test_parsers.py", True),
        ("tests/core", False),
        ("tests/cli/test_help.py -x", False),
    ],
)
def test_the_oracles_are_built_only_for_a_selection_that_may_need_them(arguments: str, builds: bool) -> None:
    argv = ["make", "--dry-run", "test", f"ARGS={arguments}"]
    planned = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    assert ("setup_oracles.sh" in planned.stdout) is builds


@pytest.mark.servers
def test_long_tests_and_what_installs_other_projects_run_in_ci_alone() -> None:
    argv = ["make", "--dry-run", "test"]
    planned = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    assert '-m "not (long or network)"' in planned.stdout
    runs = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if "make test" in line and "ARGS=" in line]
    assert runs
    assert all("ARGS=\"-m '' " in line for line in runs), "the last -m counts"

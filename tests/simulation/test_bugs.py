"""The bugs that worlds are to find can be put into the product as it is now."""

import ast
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.servers import ROOT
from tests.simulation import bugs
from tests.simulation.__main__ import main
from tests.simulation.bugs import BUGS, Bug
from tests.simulation.oracle import Figures, Found, Times
from tests.simulation.outcome import Outcome
from tests.simulation.profiles import PROFILES
from tests.simulation.runner import WorldFailed


@pytest.mark.parametrize("bug", BUGS, ids=[bug.name for bug in BUGS])
def test_bug_is_one_replacement_in_the_product(bug: Bug) -> None:
    text = (ROOT / bug.path).read_text()
    assert text.count(bug.old) == 1
    assert bug.profile in PROFILES
    ast.parse(text.replace(bug.old, bug.new))


def test_bugs_have_names_of_their_own() -> None:
    assert max(Counter(bug.name for bug in BUGS).values()) == 1


def _world(seed: int, *found: Found) -> Outcome:
    times = Times(n=0, p50_s=0.0, p99_s=0.0, max_s=0.0)
    figures = Figures(
        orders=80, paid=0, lost=0, false=0, by={}, times=times, by_channel={}, calls={}, calls_per_order=0.0, views=0,
    )  # fmt: skip
    return Outcome(
        seed=seed, profile="usual", orders=80, found=found, figures=figures, faults=(), digest="", cpu_s=0.0,
        real_s=0.0, virtual_s=0.0, statements=0, commands=0,
    )  # fmt: skip


_FOUND = (
    Found(invariant="I7 no secrets", order_no="", sentence="seven"),
    Found(invariant="I1 no loss", order_no="W8-0", sentence="one"),
)


@pytest.mark.parametrize(
    ("second", "by", "exit_code"),
    [
        (_world(8, *_FOUND), "| I1, I7 | 160 | 8 |", 0),
        (_world(8), "| not found | 160 |  |", 1),
        (WorldFailed("world 8 ended with -9"), "| broken: world 8 ended with -9 | 80 | 8 |", 1),
    ],
)
def test_bug_is_found_or_not_or_its_world_is_broken(
    monkeypatch: pytest.MonkeyPatch, second: Outcome | WorldFailed, by: str, exit_code: int
) -> None:
    def live(_home: Path, _profile: str, seed: int, _orders: int, _results: Path) -> Outcome:
        if seed == 7:
            return _world(7)
        if isinstance(second, WorldFailed):
            raise second
        return second

    monkeypatch.setattr(bugs, "copy_checkout", lambda _: None)
    monkeypatch.setattr(bugs, "put_in", lambda *_: None)
    monkeypatch.setattr(bugs, "live", live)
    name = BUGS[0].name
    result = CliRunner().invoke(main, ["bugs", "--seed", "7", "--worlds", "2", "--bug", name])
    assert result.stdout.splitlines()[-1] == f"| {name} {by}"
    assert result.exit_code == exit_code


def test_world_that_ends_without_an_outcome_has_failed(tmp_path: Path) -> None:
    command = tmp_path / "tests" / "simulation" / "__main__.py"
    command.parent.mkdir(parents=True)
    command.write_text("import os\nos.kill(os.getpid(), 9)\n")
    with pytest.raises(WorldFailed, match="world 7 ended with -9"):
        bugs.live(tmp_path, "usual", 7, 80, tmp_path / "results")
    command.write_text("raise SystemExit('Error: world 7 ended with 3')\n")
    with pytest.raises(WorldFailed, match="world 7 ended with 3"):
        bugs.live(tmp_path, "usual", 7, 80, tmp_path / "results")


def test_unknown_bug_is_refused() -> None:
    result = CliRunner().invoke(main, ["bugs", "--seed", "7", "--bug", "none such"])
    assert result.exit_code == 2
    assert "no such bug: none such" in result.output

"""The runner's sums and reports, of outcomes that are made up."""

from pathlib import Path
from typing import Self

import msgspec
import pytest
from click.testing import CliRunner

from tests.simulation import runner
from tests.simulation.__main__ import main
from tests.simulation.faults import Happened
from tests.simulation.oracle import Figures, Found, Times
from tests.simulation.outcome import Outcome
from tests.simulation.runner import Plan, lines, summarize

NO_TIMES = Times(n=0, p50_s=0.0, p99_s=0.0, max_s=0.0)


def outcome(seed: int, profile: str = "usual", *, found: tuple[Found, ...] = ()) -> Outcome:
    sums = Figures(
        orders=100, paid=70, lost=len(found), false=0, by={"callback": 60, "query": 10},
        times=Times(n=70, p50_s=0.1, p99_s=float(seed), max_s=300.0), by_channel={"alipay": NO_TIMES},
        calls={"alipay": 500}, calls_per_order=5.0, views=9,
    )  # fmt: skip
    faults = (Happened("redis_flushed 1.1", 5.0),)
    return Outcome(
        seed=seed, profile=profile, orders=100, found=found, figures=sums, faults=faults, digest="d", cpu_s=4.0,
        real_s=9.0, virtual_s=1e5, statements=10, commands=10, stories={"W1-0": ("1.0 api-0.1 log order_placed",)},
    )  # fmt: skip


LOSS = (Found(invariant="I1 no loss", order_no="W1-0", sentence="alipay/01aa was paid: it is open here"),)


def test_sums_by_profile_and_the_bound() -> None:
    summary = summarize([outcome(1), outcome(2), outcome(3, "harsh")], "abc")
    assert (summary.worlds, summary.orders, summary.paid, summary.orders_per_cpu_s) == (3, 300, 210, 25.0)
    assert summary.lost_below == pytest.approx(0.01)
    usual = summary.profiles["usual"]
    assert (usual.worlds, usual.p99_s, usual.by, usual.calls_per_order) == (2, 2.0, {"callback": 120, "query": 20}, 5.0)
    assert "the share lost is below 1.0e-02 at 95 %" in lines(summary)[-1]


def test_no_bound_once_something_is_lost() -> None:
    summary = summarize([outcome(1), outcome(2, found=LOSS)], "abc")
    assert (summary.lost, summary.violations, summary.lost_below) == (1, 1, None)


class _Progress:
    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def update(self, *_: object) -> None: ...

    def end_bar(self) -> None: ...


def test_worlds_that_are_finished_are_not_lived_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lived: list[int] = []

    class Worlds:
        def __init__(self, *_: object) -> None: ...

        def live_all(self, seeds: list[int]) -> list[Outcome]:
            lived.extend(seeds)
            return [outcome(seed, found=LOSS if seed == 9 else ()) for seed in seeds]

        def live(self, seed: int, only: list[str]) -> Outcome:
            return outcome(seed, found=LOSS if only else ())

    class Server:
        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(runner, "Worlds", Worlds)
    monkeypatch.setattr(runner, "cluster", lambda _: Server())
    monkeypatch.setattr(runner, "Progress", _Progress)
    results = tmp_path / "results.jsonl"
    results.write_bytes(msgspec.json.encode(outcome(7)) + b"\n")
    plan = Plan(seed=7, orders=100, profile="usual", worlds=3, jobs=1)
    assert runner.run(plan, results=results, shrinks=True, as_json=False) == 1
    assert lived == [8, 9]
    assert len(results.read_bytes().splitlines()) == 3
    report = capsys.readouterr().err
    for text in ("VIOLATION in world 9", "I1 no loss: W1-0 alipay/01aa was paid", "order_placed", "redis_flushed 1.1"):
        assert text in report


def test_command_names_its_options() -> None:
    result = CliRunner().invoke(main, ["run", "--help"])
    assert result.exit_code == 0
    for text in ("--seed", "SEED", "--profile", "--worlds", "--results", "--no-shrink"):
        assert text in result.output
    assert CliRunner().invoke(main, ["run", "--seed", "1", "--profile", "none_such"]).exit_code == 2

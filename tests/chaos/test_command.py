import json
from datetime import UTC, datetime
from typing import Any

import pytest
from click.testing import CliRunner

import tests.chaos.__main__
from demo.open_work import OpenWork
from tests.chaos import release
from tests.chaos.__main__ import DISTURBANCES, main
from tests.chaos.clock import until_leap_day_s
from tests.chaos.ground import Disturbance, Ground
from tests.chaos.probes import Answer, Callbacks, counted
from tests.chaos.run import Outcome
from tests.chaos.soak import slope


def outcome_of(disturbance: Disturbance, **more: Any) -> Outcome:
    began_at = datetime.now(UTC)
    return Outcome(name=disturbance.name, summary=disturbance.summary, seed=1, began_at=began_at, **more)


def run_without_processes(monkeypatch: pytest.MonkeyPatch, *arguments: str, **more: Any) -> Any:  # noqa: ANN401
    async def run(disturbance: Disturbance, **_: object) -> Outcome:
        return outcome_of(disturbance, **more)

    monkeypatch.setattr(tests.chaos.__main__, "run", run)
    return CliRunner().invoke(main, arguments)


def test_the_list_names_every_disturbance() -> None:
    text = CliRunner().invoke(main, ["--list"]).stdout
    assert [line.split()[0] for line in text.splitlines()] == list(DISTURBANCES)


def test_without_names_all_but_the_soak_run_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    done = run_without_processes(monkeypatch)
    assert done.exit_code == 0
    names = [outcome["name"] for outcome in json.loads(done.stdout)["outcomes"]]
    assert names == [name for name in DISTURBANCES if name != "soak"]


def test_what_is_broken_is_printed_and_ends_in_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    done = run_without_processes(monkeypatch, "kill", broken=("I1: order 7 is lost",))
    assert done.exit_code == 1
    assert "BROKEN I1: order 7 is lost" in done.stderr
    assert json.loads(done.stdout)["outcomes"][0]["broken"] == ["I1: order 7 is lost"]


def test_what_cannot_be_run_here_is_said_and_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    done = run_without_processes(monkeypatch, "disk", skipped="it needs root")
    assert done.exit_code == 0
    assert "skipped: it needs root" in done.stderr


@pytest.mark.parametrize("arguments", [("earthquake",), ("kill", "--seconds", "0"), ("kill", "--seed", "x")])
def test_invalid_arguments_are_refused(arguments: tuple[str, ...]) -> None:
    assert CliRunner().invoke(main, arguments).exit_code == 2


@pytest.mark.servers
def test_the_previous_release_is_in_the_history_and_its_migrations_are_unchanged() -> None:
    if reason := release.missing():
        pytest.skip(reason)
    assert release.edited_migrations() == []


@pytest.mark.servers
def test_an_edited_migration_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    if reason := release.missing():
        pytest.skip(reason)
    edited = f"{release.MIGRATIONS}/0004_refunds.sql"
    monkeypatch.setattr(
        release, "hash_of", lambda path, hash_of=release.hash_of: "0" if path == edited else hash_of(path)
    )
    assert release.edited_migrations() == [edited]


@pytest.mark.parametrize(
    ("now", "days"), [("2027-03-01", 365), ("2028-02-28", 1), ("2028-03-01", 1460), ("2097-01-01", 365 * 7 + 1 + 58)]
)
def test_the_next_leap_day_is_found(now: str, days: int) -> None:
    at = datetime.fromisoformat(f"{now}T12:00:00+00:00")
    assert until_leap_day_s(at) == pytest.approx(days * 86_400)


def test_growth_is_the_slope_of_the_samples() -> None:
    assert slope([(0.0, 10.0), (60.0, 11.0), (120.0, 12.0)]) == pytest.approx(1 / 60)
    assert slope([(5.0, 10.0)]) == 0.0
    assert slope([]) == 0.0


def empty_ground() -> Ground:
    ground = Ground.__new__(Ground)
    ground.figures, ground.broken, ground.db = [], [], Inbox("cb_1")  # type: ignore[assignment]  # what is used of it
    return ground


def test_times_are_measured_by_their_percentiles() -> None:
    ground = empty_ground()
    ground.measure_times("none", [])
    ground.measure_times("one", [0.5])
    ground.measure_times("many", [float(number) for number in range(101)])
    values = [(each.name, each.value, each.n) for each in ground.figures]
    assert values[:4] == [(f"one {label}", 0.5, 1) for label in ("p50", "p95", "p99", "max")]
    assert values[4:] == [("many p50", 50, 101), ("many p95", 95, 101), ("many p99", 99, 101), ("many max", 100, 101)]


def test_a_figure_is_summed_up_over_the_run() -> None:
    ground = empty_ground()
    for number in (2, 0, 5):
        ground.count("cut", number, "connections")
    assert [(each.name, each.value, each.n) for each in ground.figures] == [("cut", 7, 3)]


def test_answers_are_counted_by_status() -> None:
    answers = [Answer("a", 200, 0.1, False), Answer("b", 503, 0.1, True), Answer("c", 0, 5.0, False)]
    assert counted(answers) == "none × 1, 200 × 1, 503 × 1"


class Inbox:
    """A database whose inbox has these callbacks."""

    def __init__(self, *callback_ids: str) -> None:
        self._callback_ids = callback_ids

    async def fetch(self, _sql: str, *_: object) -> list[dict[str, str]]:
        return [{"notification_id": each} for each in self._callback_ids]


async def test_an_acknowledged_callback_that_is_not_stored_is_a_break() -> None:
    ground = empty_ground()
    callbacks = Callbacks.__new__(Callbacks)
    callbacks._ground = ground
    callbacks.answers = [Answer(f"cb_{n}", status, 0.1, False) for n, status in ((1, 200), (2, 200), (3, 503))]
    await callbacks.check_stored()
    assert ground.broken == ["I5: callback cb_2 was acknowledged and is not stored"]


async def test_work_is_behind_while_a_due_row_has_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def row(due_in_s: float, leased_for_s: float) -> OpenWork:
        return OpenWork(work="query", number="1", attempt=1, due_in_s=due_in_s, leased_for_s=leased_for_s, reason="")

    looks = [[row(-3.0, 0.0)], [row(-3.0, 5.0), row(-1.0, 0.0), row(9.0, 0.0)]]

    async def list_open_work(*_: object) -> list[OpenWork]:
        return looks.pop(0)

    monkeypatch.setattr("tests.chaos.ground.list_open_work", list_open_work)
    ground = empty_ground()
    assert not await ground._has_caught_up()
    assert await ground._has_caught_up()

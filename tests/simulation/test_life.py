"""Whole worlds: the service, five channels, the merchant, shoppers and faults, judged by the oracle."""

from collections.abc import Callable
from difflib import unified_diff
from itertools import count
from pathlib import Path

import msgspec
import pytest

from tests.simulation.conftest import run_world
from tests.simulation.outcome import Outcome
from tests.simulation.postgres import Cluster

Live = Callable[..., Outcome]

_numbers = count()


@pytest.fixture(scope="module")
def live(worlds: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Live:
    """Lives one world in a process; `events` is the file of all that happened."""

    def live_one(
        seed: int,
        orders: int,
        profile: str,
        only: list[str] | None = None,
        events: Path | None = None,
        *,
        net: str = "nodrop",
        settled_h: float = 0.2,
    ) -> Outcome:
        options = ["--seed", str(seed), "--orders", str(orders), "--profile", profile, "--settled-h", str(settled_h)]
        options += ["--net", net]
        options += ["--database-url", worlds.new_database(f"life_{next(_numbers)}")]
        if only is not None:
            path: Path = tmp_path_factory.mktemp("faults") / "only"
            path.write_text("\n".join(only))
            options += ["--only", str(path)]
        if events is not None:
            options += ["--events", str(events)]
        return msgspec.json.decode(run_world("tests.simulation", "world", *options), type=Outcome)

    return live_one


@pytest.mark.scenario
@pytest.mark.long
def test_rough_world_loses_nothing_and_is_the_same_again(live: Live, tmp_path: Path) -> None:
    files = [tmp_path / "first", tmp_path / "second"]
    first, second = (live(11, 10, "usual", events=file) for file in files)
    one, other = (file.read_text().splitlines() for file in files)
    assert list(unified_diff(one, other, lineterm="", n=0)) == []
    assert first.found == ()
    assert first.figures.orders == 10
    assert first.figures.paid >= 5
    assert (first.digest, first.figures) == (second.digest, second.figures)


@pytest.mark.scenario
@pytest.mark.long
def test_world_whose_faults_are_left_out_is_calm(live: Live) -> None:
    outcome = live(11, 10, "callbacks_never", only=[])
    assert outcome.found == ()
    assert set(outcome.figures.by) == {"callback"}


@pytest.mark.scenario
@pytest.mark.long
def test_callbacks_alone_lose_orders_and_all_measures_lose_none(live: Live) -> None:
    alone, whole = (live(5, 12, "harsh", net=net, settled_h=1.0) for net in ("callback", "nodrop"))
    assert alone.figures.orders == whole.figures.orders
    assert alone.figures.paid_orders >= 5
    assert alone.figures.lost >= 1
    assert set(alone.figures.by) <= {"callback", "api"}
    assert whole.found == ()
    assert "query" in whole.figures.by

"""Shrinking finds the few faults that break something, and the seed's schedule is the same in each run."""

from collections.abc import Sequence

import pytest

from tests.simulation import __main__ as command
from tests.simulation.faults import FaultBook
from tests.simulation.profiles import PROFILES, Part, blackouts, profile_of, schedule
from tests.simulation.shrinking import shrink

NAMES = [f"fault {number}" for number in range(200)]


@pytest.mark.parametrize("wanted", [{3}, {0, 199}, {17, 60, 61}])
def test_few_faults_are_left(wanted: set[int]) -> None:
    needed = {NAMES[number] for number in wanted}
    sizes: list[int] = []

    def is_broken(names: Sequence[str]) -> bool:
        sizes.append(len(names))
        return needed <= set(names)

    assert set(shrink(NAMES, is_broken, 200)) == needed
    assert len(sizes) <= 200


def test_world_that_breaks_without_faults_needs_none() -> None:
    assert shrink(NAMES, lambda _: True, 60) == []


def test_used_up_tries_leave_what_breaks_it() -> None:
    def is_broken(names: Sequence[str]) -> bool:
        return {NAMES[5], NAMES[150]} <= set(names)

    assert is_broken(shrink(NAMES, is_broken, 6))


@pytest.mark.parametrize("name", PROFILES)
def test_schedule_depends_on_the_seed_alone_and_ends(name: str) -> None:
    profile = PROFILES[name]
    first, second = (list(schedule(profile, FaultBook(5), 40_000.0)) for _ in range(2))
    assert first == second
    assert first != list(schedule(profile, FaultBook(6), 40_000.0)) or not profile.failing
    assert all(0 <= each.at_s <= each.until_s <= 40_000.0 for each in first)
    assert len({each.name for each in first}) == len(first)
    outages = blackouts(first)
    assert len(outages) == sum(each.part in (Part.LINKS_CUT, Part.LINKS_SILENT) for each in first)


def test_command_knows_every_profile() -> None:
    assert set(command.PROFILES) == {"mix", *PROFILES}


def test_mix_has_every_profile_but_the_one_that_is_made_of_others() -> None:
    assert {profile_of("mix", seed).name for seed in range(600)} == set(PROFILES) - {"outages"}

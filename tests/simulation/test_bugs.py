"""The bugs that worlds are to find can be put into the product as it is now."""

import ast
from collections import Counter

import pytest

from tests.servers import ROOT
from tests.simulation.bugs import BUGS, Bug, Hunt, lines
from tests.simulation.profiles import PROFILES


@pytest.mark.parametrize("bug", BUGS, ids=[bug.name for bug in BUGS])
def test_bug_is_one_replacement_in_the_product(bug: Bug) -> None:
    text = (ROOT / bug.path).read_text()
    assert text.count(bug.old) == 1
    assert bug.profile in PROFILES
    ast.parse(text.replace(bug.old, bug.new))


def test_bugs_have_names_of_their_own() -> None:
    assert max(Counter(bug.name for bug in BUGS).values()) == 1


def test_table_says_what_found_a_bug() -> None:
    hunts = [Hunt(bug="one", orders=80, seed=7, invariants=("I1", "I7")), Hunt(bug="two", orders=160)]
    assert lines(hunts)[2:] == ["| one | I1, I7 | 80 | 7 |", "| two | not found | 160 |  |"]

"""Decisions of chance: the same in every run, and each by itself."""

import msgspec
import pytest

from simulator.kernel.faults import AtFault, Fault, FaultProfile, Faults, draw

NUMBERS = [f"number-{n}" for n in range(4000)]


def faults(seed: int = 1, **shares: float) -> Faults:
    found = Faults(seed)
    found.profile = msgspec.convert(shares, FaultProfile)
    return found


def test_every_fault_is_a_share_of_the_profile() -> None:
    assert {fault for fault in Fault if getattr(FaultProfile(), fault) != 0.0} == set()


def test_same_seed_decides_the_same_in_any_order() -> None:
    forwards = [faults(lost=0.3).applies(Fault.LOST, number) for number in NUMBERS]
    backwards = [faults(lost=0.3).applies(Fault.LOST, number) for number in reversed(NUMBERS)]
    assert forwards == backwards[::-1]


def test_another_seed_decides_otherwise() -> None:
    assert [draw(1, "lost", n) for n in NUMBERS[:5]] != [draw(2, "lost", n) for n in NUMBERS[:5]]


def test_share_is_kept() -> None:
    applied = sum(faults(lost=0.2).applies(Fault.LOST, number) for number in NUMBERS)
    assert 700 < applied < 900


def test_raising_a_share_only_adds() -> None:
    few, many = faults(lost=0.1), faults(lost=0.5)
    assert all(many.applies(Fault.LOST, n) for n in NUMBERS if few.applies(Fault.LOST, n))


def test_another_share_moves_no_decision() -> None:
    alone, together = faults(lost=0.2), faults(lost=0.2, late=0.9, cut=0.5)
    assert [alone.applies(Fault.LOST, n) for n in NUMBERS] == [together.applies(Fault.LOST, n) for n in NUMBERS]


def test_occasions_are_decided_apart() -> None:
    decided = {faults(cut=0.5).applies(Fault.CUT, "number-1", nth) for nth in range(20)}
    assert decided == {True, False}


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_none_and_all_are_exact(share: float) -> None:
    assert {faults(lost=share).applies(Fault.LOST, number) for number in NUMBERS} == {share == 1.0}


def test_forced_fault_excludes_the_others_of_its_kind_only() -> None:
    found = faults(lost=1, cut=1)
    found.force("number-1", AtFault(callback="late"))
    assert not found.applies(Fault.LOST, "number-1")
    assert found.applies(Fault.LATE, "number-1")
    assert found.applies(Fault.CUT, "number-1")
    assert found.applies(Fault.LOST, "number-2")


def test_payment_can_be_spared() -> None:
    found = faults(lost=1)
    found.force("number-1", AtFault(callback="none"))
    assert not found.applies(Fault.LOST, "number-1")


@pytest.mark.parametrize(
    "wrong", [{"lost": 1.1}, {"lost": -0.1}, {"lots": 0.1}, {"hang_s": -1}, {"affected": ["pay"]}, {"down": "yes"}]
)
def test_profile_refuses_what_it_does_not_know(wrong: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(wrong), type=FaultProfile)


def test_forced_fault_must_be_one_of_its_kind() -> None:
    with pytest.raises(msgspec.ValidationError, match="is none of"):
        msgspec.json.decode(b'{"callback":"truncated"}', type=AtFault)

"""A world runs the real code in virtual time, and the same seed is the same run."""

from difflib import unified_diff

from tests.simulation.conftest import PlayScene


def test_the_same_seed_is_the_same_run_byte_for_byte(play: PlayScene) -> None:
    first, second = play("paid_without_callback", 7), play("paid_without_callback", 7)
    assert list(unified_diff(first["events"], second["events"], lineterm="", n=0)) == []
    assert first["digest"] == second["digest"]


def test_a_payment_without_callback_is_found_by_the_query_after_a_minute_of_virtual_time(play: PlayScene) -> None:
    played = play("paid_without_callback", 8)
    assert played["notified"] == ["order.paid"] * 3
    assert 60 < played["paid_at"] < 90
    assert played["real_s"] < played["paid_at"] / 4, "it waits for real time"
    assert not [line for line in played["events"] if '"level":"error"' in line]

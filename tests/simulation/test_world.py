"""A world runs the real code in virtual time, the same seed is the same run, and no order is lost in it."""

from difflib import unified_diff

import pytest

from tests.simulation.conftest import PlayScene


def test_a_payment_without_callback_is_found_by_the_query_after_a_minute_of_virtual_time(play: PlayScene) -> None:
    played = play("paid_without_callback", 8)
    assert played["notified"] == ["order.paid"] * 3
    assert 60 < played["paid_at"] < 90
    assert not [line for line in played["events"] if '"level":"error"' in line]


@pytest.mark.long
def test_processes_killed_in_the_middle_of_their_calls_lose_no_order_and_the_same_seed_is_the_same_run(
    play: PlayScene,
) -> None:
    first, second = play("killed_again_and_again", 3), play("killed_again_and_again", 3)
    assert first["crashes"] > 10
    assert first["notified"] == first["orders"]
    assert list(unified_diff(first["events"], second["events"], lineterm="", n=0)) == []
    assert first["digest"] == second["digest"]


def test_orders_are_paid_though_the_stores_refuse_hang_forget_and_take_no_writes(play: PlayScene) -> None:
    played = play("stores_in_trouble", 4)
    assert played["notified"] == played["orders"]

import pytest

from core.jobs import Lane
from runtime.resources import Resources
from tests.cli.conftest import Place
from tests.cli.nodrop import Nodrop

_BURY = """
INSERT INTO notifications (id, order_no, version, type, url, body, attempt, dead_at, last_status)
SELECT 'msg_' || v, $1, v, 'order.paid', 'https://shop.test/n', '{}', 16, now(), '500'
  FROM generate_series(101, 100 + $2::int) v"""
_DUE = "SELECT count(*) FROM notifications WHERE dead_at IS NULL AND attempt = 1 AND due_at <= now()"


@pytest.fixture
async def buried(resources: Resources, place: Place) -> list[str]:
    """Three notifications of one order that were given up."""
    await place("A-1")
    await resources.db.execute(_BURY, "A-1", 3)
    return ["msg_101", "msg_102", "msg_103"]


async def test_dead_letters_are_listed_with_the_last_answer(nodrop: Nodrop, buried: list[str]) -> None:
    rows = (await nodrop("dead-letters", "list", "--json")).json
    assert sorted(row["id"] for row in rows) == buried
    ran = await nodrop("dead-letters", "list", "--limit", "2")
    assert "500" in ran.out
    assert "there are more than these 2" in ran.err


async def test_one_is_sent_again_at_once(nodrop: Nodrop, resources: Resources, buried: list[str]) -> None:
    """Due in Postgres and armed in Redis, where a worker takes it within a moment."""
    ran = await nodrop("dead-letters", "resend", buried[0], "--reason", "they are back")
    assert ran.out == "due at once; a worker sends it\n"
    assert await resources.db.fetchval(_DUE) == 1
    assert await resources.queue.due(Lane.NOTIFICATIONS, 10) == [b"{notifications-0}n:msg_101:2"]


async def test_all_are_sent_again_one_after_another_also_without_redis(
    nodrop: Nodrop, resources: Resources, buried: list[str]
) -> None:
    command = ("dead-letters", "resend", "--all", "--reason", "they are back")
    look = await nodrop("dead-letters", "resend", "--all", "--dry-run")
    assert "3 notifications are sent again" in look.out
    assert len((await nodrop("dead-letters", "list", "--json")).json) == len(buried)
    ran = await nodrop(*command, "--yes", "--json", env={"REDIS_URL": "redis://127.0.0.1:1/0"})
    assert (ran.code, ran.json) == (0, {"resent": 3})
    assert await resources.db.fetchval("SELECT count(held_at) FROM notifications WHERE dead_at IS NULL") == 3
    assert (await nodrop("dead-letters", "list")).out == "no dead letters\n"


async def test_it_wants_a_reason_and_a_notification_that_is_there(nodrop: Nodrop, buried: list[str]) -> None:
    ran = await nodrop("dead-letters", "resend", buried[0])
    assert (ran.code, "--reason says why" in ran.err) == (2, True)
    ran = await nodrop("dead-letters", "resend", "msg_999", "--reason", "x")
    assert (ran.code, "msg_999" in ran.line) == (1, True)
    assert len((await nodrop("dead-letters", "list", "--json")).json) == len(buried)


@pytest.mark.parametrize("wrong", [(), ("msg_1", "--all")])
async def test_one_or_all_has_to_be_named(bare: Nodrop, wrong: tuple[str, ...]) -> None:
    ran = await bare("dead-letters", "resend", *wrong)
    assert (ran.code, "name one notification by its ID, or all of them by --all" in ran.err) == (2, True)

"""Notifications and endpoints on the command line: where they stand, and the acts on them with their previews."""

import pytest

from core.jobs import Lane
from runtime.resources import Resources
from tests.cli.conftest import Place
from tests.cli.nodrop import Nodrop

HOOK = "https://shop.test/hook"
DOWN = '{"no":1,"at":"2026-11-27T12:00:00.021Z","latency_ms":21,"status":"503","answer":"closed for today"}'
OK = '{"no":1,"at":"2026-11-27T12:00:00Z","latency_ms":3,"status":"200"}'
AGAIN = '{"no":1,"at":"2026-11-27T12:00:00Z","latency_ms":5,"status":"200","is_manual":true}'

_MADE = """
INSERT INTO notifications (id, order_no, version, type, url, body, attempt, due_at, attempts, last_status, dead_at,
                           delivered_at)
VALUES ('msg_open', $1, 101, 'order.paid', $2, '{"id":"msg_open"}', 2, now() + interval '4 min 1 s',
        jsonb_build_array($3::jsonb), '503', NULL, NULL),
       ('msg_dead', $1, 102, 'order.refunded', $2 || '?a=b', '{}', 16, now(),
        jsonb_build_array($3::jsonb), '503', now(), NULL),
       ('msg_done', $1, 103, 'order.paid', 'https://other.test/', '{}', 1, now(),
        jsonb_build_array($4::jsonb, $5::jsonb), '200', NULL, now())"""


@pytest.fixture
async def made(resources: Resources, place: Place) -> None:
    """A notification of each kind, of one order."""
    await place("A-1")
    await resources.db.execute(_MADE, "A-1", HOOK, DOWN, OK, AGAIN)


@pytest.mark.usefixtures("made")
async def test_a_list_says_in_three_lines_what_comes_next(nodrop: Nodrop) -> None:
    ran = await nodrop("notifications", "list")
    what, standing, url = ran.out.splitlines()
    assert (what, url) == ("msg_open  order.paid  A-1", f"  {HOOK}")
    assert standing.startswith("  undelivered, attempt 2 in 4 min; last 503 after 21 ms, ")
    assert max(map(len, ran.out.splitlines())) <= 80


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize(
    ("choice", "ids"),
    [
        ((), ["msg_open"]),
        (("--status", "dead"), ["msg_dead"]),
        (("--status", "dead", "--endpoint", f"{HOOK}?x=y"), ["msg_dead"]),
        (("--status", "dead", "--endpoint", "https://other.test/"), []),
        (("--status", "delivered", "--since", "1h"), ["msg_done"]),
        (("--status", "delivered", "--since", "2099-01-01"), []),
        (("--status", "paused"), []),
        (("--order", "A-1"), ["msg_open", "msg_dead", "msg_done"]),
        (("--order", "A-2"), []),
    ],
)
async def test_a_list_has_what_is_chosen(nodrop: Nodrop, choice: tuple[str, ...], ids: list[str]) -> None:
    rows = (await nodrop("notifications", "list", "--json", *choice)).json
    assert [row["id"] for row in rows] == ids
    if not ids:
        assert (await nodrop("notifications", "list", *choice)).out == "no such notifications\n"


@pytest.mark.usefixtures("made")
async def test_there_may_be_more_than_were_listed(nodrop: Nodrop, resources: Resources) -> None:
    await resources.db.execute("UPDATE notifications SET dead_at = now() WHERE id = 'msg_open'")
    ran = await nodrop("notifications", "list", "--status", "dead", "--limit", "1")
    assert "there are more than these 1" in ran.err


@pytest.mark.usefixtures("made")
async def test_one_is_shown_with_its_attempts_their_answers_and_its_text(nodrop: Nodrop) -> None:
    out = (await nodrop("notifications", "show", "msg_open")).out
    assert "stands        undelivered, attempt 2 in 4 min" in out
    assert "   1  2026-11-27 12:00:00.021Z  503 after 21 ms\n      closed for today\n" in out
    assert '  {\n    "id": "msg_open"\n  }\n' in out
    assert "200 after 5 ms, sent again" in (await nodrop("notifications", "show", "msg_done")).out
    shown = (await nodrop("notifications", "show", "msg_open", "--json")).json
    assert (shown["state"], shown["last_error"], shown["text"]) == ("undelivered", "503", '{"id":"msg_open"}')
    assert (await nodrop("notifications", "show", "msg_none")).line.startswith("there is no notification msg_none")


# -- sending again -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("made")
async def test_a_delivered_one_is_sent_again_after_a_look(nodrop: Nodrop, resources: Resources) -> None:
    ran = await nodrop("notifications", "resend", "msg_done", "--dry-run")
    assert "order.paid of order A-1" in ran.out
    assert "note: " in ran.out
    assert await resources.db.fetchval("SELECT count(*) FROM notifications WHERE resending_since IS NOT NULL") == 0
    ran = await nodrop("notifications", "resend", "msg_done", "--reason", "they lost it")
    assert ran.out == "due at once; a worker sends it\n"
    assert await resources.queue.due(Lane.NOTIFICATIONS, 10) == [b"{notifications-0}n:msg_done:2"]
    [act] = (await nodrop("audit", "--about", "msg_done", "--json")).json
    assert (act["action"], act["detail"]) == ("notification.resend", {"reason": "they lost it"})


@pytest.mark.usefixtures("made")
async def test_dead_ones_are_sent_again_after_a_question(nodrop: Nodrop, resources: Resources) -> None:
    argv = ("notifications", "resend", "--dead", "--reason", "they are back")
    assert (await nodrop(*argv, stdin=b"n\n")).code == 1
    assert await resources.db.fetchval("SELECT count(dead_at) FROM notifications") == 1
    ran = await nodrop(*argv, stdin=b"y\n")
    assert (ran.code, "1 are sent one after another; a worker sends them" in ran.out) == (0, True)
    assert await resources.db.fetchval("SELECT count(held_at) FROM notifications WHERE id = 'msg_dead'") == 1
    assert (await nodrop("notifications", "resend", "--dead", "--dry-run")).line == "There is none to send again."


@pytest.mark.usefixtures("made")
async def test_all_of_an_endpoint_since_a_time_are_sent_again(nodrop: Nodrop) -> None:
    choice = ("notifications", "resend", "--endpoint", HOOK, "--since", "1h")
    document = (await nodrop(*choice, "--dry-run", "--json")).json
    assert document["preview"]["lines"][0]["figures"]["count"] == 2
    ran = await nodrop(*choice, "--reason", "they restored a backup", "--yes", "--json")
    assert ran.json == {"resent": 2}
    [act] = (await nodrop("audit", "--about", HOOK, "--json")).json
    assert act["detail"]["reason"] == "they restored a backup"


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ((), "name one notification by its ID, or many"),
        (("msg_1", "--dead"), "name one notification by its ID, or many"),
        (("msg_1",), "--reason says why"),
        (("--dead",), "--reason says why"),
    ],
)
async def test_what_to_send_and_why_have_to_be_said(bare: Nodrop, wrong: tuple[str, ...], why: str) -> None:
    ran = await bare("notifications", "resend", *wrong)
    assert (ran.code, why in ran.err) == (2, True)


async def test_an_endpoint_alone_is_not_enough(nodrop: Nodrop) -> None:
    ran = await nodrop("notifications", "resend", "--endpoint", HOOK, "--reason", "why not", "--yes")
    assert ran.line == "name an endpoint and a time: all notifications for it since then are sent again"


# -- endpoints ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("made")
async def test_an_endpoint_is_paused_and_resumed(nodrop: Nodrop) -> None:
    look = await nodrop("endpoints", "pause", HOOK, "--dry-run")
    assert (look.code, HOOK in look.out) == (0, True)
    argv = ("endpoints", "pause", HOOK, "--by", "kim", "--reason", "they move house")
    assert (await nodrop(*argv)).out == "paused; `nodrop endpoints resume` ends it\n"
    assert (await nodrop(*argv)).line == "It is paused already, by kim."
    out = (await nodrop("endpoints", "list")).out
    first, second, third, fourth = out.splitlines()
    assert first == HOOK
    assert (second.startswith("  paused "), second.endswith(" by kim: they move house")) == (True, True)
    assert third.startswith("  1 undelivered, the oldest of ")
    assert third.endswith("; 1 dead letter")
    assert fourth.startswith("  last failure 503 after 21 ms, ")
    assert (await nodrop("endpoints", "show", f"{HOOK}?order=1")).out.startswith(f"{HOOK}\n  paused "), "no query"
    [row] = (await nodrop("endpoints", "list", "--json")).json
    assert (await nodrop("endpoints", "show", HOOK, "--json")).json == row
    assert (row["paused_by"], row["undelivered"], row["dead_letters"]) == ("kim", 1, 1)
    assert "paused" in (await nodrop("notifications", "list")).out

    resume = ("endpoints", "resume", HOOK, "--reason", "they are back")
    assert (await nodrop(*resume, "--dry-run")).code == 0
    assert (await nodrop(*resume)).out == "resumed; a worker sends what has waited\n"
    assert (await nodrop(*resume)).line == "It is not paused."
    acts = (await nodrop("audit", "--about", HOOK, "--json")).json
    assert [act["action"] for act in acts][-2:] == ["endpoint.pause", "endpoint.pause"]


async def test_no_endpoint_is_nothing_to_do(nodrop: Nodrop) -> None:
    assert (
        await nodrop("endpoints", "list")
    ).out == "nothing was sent in a day, nothing is paused, and all is delivered\n"
    assert (await nodrop("endpoints", "pause", "shop", "--reason", "x")).line.startswith("endpoint: ")

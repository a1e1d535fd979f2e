"""`nodrop days` and `nodrop disputes`: what they print, and what they refuse."""

from datetime import timedelta
from pathlib import Path

from flows.reconcile.requested import read_requested
from runtime.resources import Resources
from storage.postgres.orders import find_now
from tests.cli.conftest import Channel, Place
from tests.cli.nodrop import Nodrop
from tests.cli.test_reconcile import YESTERDAY, paid_yesterday

DAY = YESTERDAY.isoformat()


async def test_a_day_is_shown_signed_off_and_listed(nodrop: Nodrop, channel: Channel, place: Place) -> None:
    await paid_yesterday(channel, await place("A-1"))
    assert (await nodrop("reconcile", "--account", "main")).code == 0
    ran = await nodrop("days", "show", "main", DAY)
    assert ran.code == 0
    assert "statement read" in ran.out
    assert "88.88 in 1" in ran.out
    assert "differences: 0 open, 0 resolved" in ran.out
    assert "not signed off" in ran.out

    preview = await nodrop("days", "sign-off", "main", DAY, "--by", "alice", "--dry-run")
    assert (preview.code, "88.88 CNY" in preview.out) == (0, True)
    assert "not signed off" in (await nodrop("days", "show", "main", DAY)).out

    signed = await nodrop("days", "sign-off", "main", DAY, "--by", "alice", "--reason", "it agrees", "--json")
    assert (signed.code, signed.json["sign_off"]["by"]) == (0, "alice")
    [act, *_] = (await nodrop("audit", "--about", "main", "--json")).json
    assert (act["by"], act["action"], act["detail"]["of"]) == ("alice", "day.sign_off", DAY)
    listed = (await nodrop("days", "list", "--account", "main", "--json")).json
    assert [(day["day"], day["statement"], day["lines"][0]["net"]) for day in listed] == [(DAY, "read", 8888)]
    assert "signed off by alice" in (await nodrop("days", "list")).out


async def test_a_sign_off_wants_a_reason(nodrop: Nodrop, place: Place) -> None:
    await place("A-1")
    ran = await nodrop("days", "sign-off", "main", DAY, "--by", "alice")
    assert (ran.code, "--reason says why" in ran.err) == (2, True)
    assert "note: The statement" in (await nodrop("days", "sign-off", "main", DAY, "--by", "alice", "--dry-run")).out
    ran = await nodrop("days", "sign-off", "main", DAY, "--by", "alice", "--note", "the channel has none")
    assert "signed off by alice" in ran.out
    assert "the channel has none" in ran.out
    assert "no money on this day" in ran.out


async def test_wrong_days_are_refused(nodrop: Nodrop, place: Place, bare: Nodrop) -> None:
    await place("A-1")
    tomorrow = (YESTERDAY + timedelta(days=3)).isoformat()
    assert "has not begun" in (await nodrop("days", "show", "main", tomorrow)).line
    assert "no account nobody" in (await nodrop("days", "show", "nobody", DAY)).line
    assert (await nodrop("days", "list", "--account", "nobody")).out.startswith("no days yet")
    today = (YESTERDAY + timedelta(days=1)).isoformat()
    preview = await nodrop("days", "sign-off", "main", today, "--by", "alice", "--dry-run")
    assert "not over" in preview.err
    assert (await bare("days", "show", "main", "22.11.2026")).code == 2
    assert (await bare("days", "sign-off", "main", DAY, "--by", " ")).code == 2


_DISPUTE = """
INSERT INTO disputes (channel_account, out_trade_no, dispute_id, order_no, kind, state, amount, currency, reason,
                      respond_by, opened_at, changed_at)
VALUES ('main', $1, $2, 'A-1', 'claim', $3, 8888, 'CNY', 'not received', $4, now(), now())"""


async def test_disputes_are_listed_by_the_moment_to_answer(nodrop: Nodrop, place: Place, resources: Resources) -> None:
    number = (await place("A-1")).payments[0].out_trade_no
    now = await find_now(resources.db)
    for id_, state, days in (
        ("d-1", "open", 3),
        ("d-2", "open", -1),
        ("d-3", "lost", 1),
        ("d-4", "under_review", None),
    ):
        respond_by = None if days is None else now + timedelta(days=days)
        await resources.db.execute(_DISPUTE, number, id_, state, respond_by)
    ran = await nodrop("disputes", "list")
    assert [line.split()[-3] for line in ran.out.splitlines()[1:]] == ["d-2", "d-1", "d-4"]
    assert "OVERDUE" in ran.out.splitlines()[1]
    assert "88.88 CNY" in ran.out
    assert [row["dispute_id"] for row in (await nodrop("disputes", "list", "--state", "lost", "--json")).json] == [
        "d-3"
    ]
    assert "there are more than these 1" in (await nodrop("disputes", "list", "--limit", "1")).err
    assert (await nodrop("disputes", "list", "--account", "other")).out == "no such disputes\n"


async def test_an_account_is_shown_without_a_secret(
    nodrop: Nodrop, channel: Channel, place: Place, resources: Resources
) -> None:
    await paid_yesterday(channel, await place("A-1"))
    assert (await nodrop("reconcile", "--account", "main")).code == 0
    ran = await nodrop("accounts", "show", "main")
    assert ran.code == 0
    for text in ("channel        sandbox", "breakers       closed", " of 50 a second", "0 differences", "m-1001"):
        assert text in ran.out, text
    assert channel.secret not in ran.out
    assert "keys                     1 set" in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80
    shown = (await nodrop("accounts", "show", "main", "--json")).json
    assert (shown["settings"]["late_policy"], shown["last_callback_at"]) == ("accept", None)
    assert channel.secret not in str(shown)
    assert "no account nobody" in (await nodrop("accounts", "show", "nobody")).line
    assert resources.settings.nodrop_master_keys not in ran.out


# -- statements that a worker reads ------------------------------------------------------------------------------------


async def test_a_statement_is_asked_for_seen_and_confirmed(
    nodrop: Nodrop, channel: Channel, place: Place, resources: Resources
) -> None:
    await paid_yesterday(channel, await place("A-1"))
    requested = await nodrop("days", "request", "main", DAY, "--reason", "callbacks were lost", "--by", "alice")
    assert (requested.code, "changes nothing" in requested.out) == (0, True)
    [waiting] = (await nodrop("days", "requests", "main", DAY, "--json")).json
    assert (waiting["status"], waiting["dry_run"], waiting["requested_by"]) == ("waiting", True, "alice")
    confirm = ("days", "confirm", str(waiting["id"]), "--reason", "it is right", "--by", "bob")
    assert "this preview is waiting" in (await nodrop(*confirm)).line
    assert await read_requested(resources)
    assert (await nodrop(*confirm)).code == 0
    assert await read_requested(resources)
    listed = (await nodrop("days", "requests", "main", DAY)).out
    assert ("for real" in listed, "preview" in listed, listed.count("done")) == (True, True, 2)
    assert "paid" in (await nodrop("orders", "show", "A-1")).out
    acts = (await nodrop("audit", "--about", "main", "--json")).json
    assert [(act["by"], act["detail"]["reason"]) for act in acts[:1]] == [("bob", "it is right")]


async def test_a_file_is_given_to_a_worker_and_wrong_ones_are_refused(
    nodrop: Nodrop, place: Place, tmp_path: Path, resources: Resources
) -> None:
    await place("A-1")
    file = tmp_path / "statement.csv"
    file.write_bytes(b"")
    assert "it is empty" in (await nodrop("days", "request", "main", DAY, str(file))).line
    file.write_bytes(b"<html></html>")
    assert (await nodrop("days", "request", "main", DAY, str(file), "--json")).json["is_uploaded"] is True
    assert await read_requested(resources)
    assert "web page" in (await nodrop("days", "requests", "main", DAY)).out
    assert (await nodrop("days", "confirm", "999999", "--reason", "x")).line.startswith("no such preview")
    assert (await nodrop("days", "requests", "main", "2020-01-01")).out.startswith("no worker was asked")


async def test_a_dispute_is_shown_by_its_id(nodrop: Nodrop, place: Place, resources: Resources) -> None:
    state = await place("A-1")
    await resources.db.execute(
        "INSERT INTO disputes (channel_account, out_trade_no, dispute_id, order_no, kind, state, amount, currency,"
        " respond_by, opened_at, changed_at) VALUES ('main', $1, 'd-1', 'A-1', 'claim', 'open', 150, 'CNY',"
        " now() - interval '1 hour', now(), now())",
        state.payments[0].out_trade_no,
    )
    shown = await nodrop("disputes", "show", "d-1")
    assert shown.out.startswith("dispute d-1: claim, open\n")
    assert ("1.50 CNY" in shown.out, "OVERDUE" in shown.out) == (True, True)
    [row] = (await nodrop("disputes", "show", "d-1", "--json")).json
    assert (row["order_no"], row["amount"]) == ("A-1", 150)
    assert (await nodrop("disputes", "show", "d-2")).line.startswith("there is no dispute d-2")


async def test_a_channel_is_asked_about_a_number(nodrop: Nodrop, channel: Channel, place: Place) -> None:
    state = await place("A-1")
    number = state.payments[0].out_trade_no
    known = await nodrop("lookup", "main", number)
    assert (known.code, "nodrop knows it, as a payment of order A-1" in known.out) == (0, True)
    unknown = await nodrop("lookup", "main", "elsewhere-1", "--by", "alice", "--json")
    assert (unknown.json["order_no"], unknown.json["number"]) == (None, "elsewhere-1")
    [act, *_] = (await nodrop("audit", "--about", "main", "--json")).json
    assert (act["by"], act["detail"]) == ("alice", {"number": "elsewhere-1"})
    assert "no account nobody" in (await nodrop("lookup", "nobody", "x")).line

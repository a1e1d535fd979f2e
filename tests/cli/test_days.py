"""`nodrop days` and `nodrop disputes`: what they print, and what they refuse."""

from datetime import timedelta

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

    signed = await nodrop("days", "sign-off", "main", DAY, "--by", "alice", "--json")
    assert (signed.code, signed.json["sign_off"]["by"]) == (0, "alice")
    [act, *_] = (await nodrop("audit", "--about", "main", "--json")).json
    assert (act["by"], act["action"], act["detail"]["of"]) == ("alice", "days sign-off", DAY)
    listed = (await nodrop("days", "list", "--account", "main", "--json")).json
    assert [(day["day"], day["statement"], day["lines"][0]["net"]) for day in listed] == [(DAY, "read", 8888)]
    assert "signed off by alice" in (await nodrop("days", "list")).out


async def test_a_day_without_its_statement_wants_a_note(nodrop: Nodrop, place: Place) -> None:
    await place("A-1")
    ran = await nodrop("days", "sign-off", "main", DAY, "--by", "alice")
    assert ran.code == 1
    assert "note" in ran.line
    assert "statement" in (await nodrop("days", "sign-off", "main", DAY, "--by", "alice", "--dry-run")).err
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

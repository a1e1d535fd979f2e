"""Persons on the command line: `--by` is an operator once there is one, and what needs two wants their passwords."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

import pyotp
import pytest
from argon2 import PasswordHasher

from cli.acts import check_by
from core.operators import Role
from core.settings import Settings
from runtime import passwords
from runtime.resources import Resources
from storage.postgres.audit import list_acts
from storage.postgres.operators import disable_operator, find_operator, insert_operator
from tests.cli.conftest import Channel, Place
from tests.cli.nodrop import Nodrop
from tests.sealed import switch_codes_on

PASSWORD = "correct horse battery"
WRONG = "nodrop: the password or the code is wrong"
LIMITED = {"OPS_REFUND_ALONE_MAX": "20 CNY"}
Add = Callable[..., Awaitable[None]]


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "_hasher", PasswordHasher(1, 64, 1))


@pytest.fixture
def add(resources: Resources) -> Add:
    """Add operators who have chosen their password."""

    async def make(*names: str, role: Role = Role.OPERATOR) -> None:
        for name in names:
            await insert_operator(resources.db, name, role, passwords.hash_password(f"{PASSWORD} {name}"))
        await resources.db.execute("UPDATE operators SET must_change = false")

    return make


def typed(name: str, code: str = "") -> bytes:
    return f"{PASSWORD} {name}\n{code}\n".encode()


async def waiting(nodrop: Nodrop, place: Place, channel: Channel) -> tuple[str, ...]:
    """The command that asks for a refund above the limit."""
    number = (await place("A-1")).payments[0].out_trade_no
    await channel.pay(number)
    assert (await nodrop("orders", "refresh", "A-1", "--by", "ann", "--reason", "x")).code == 0
    return ("orders", "refund", "A-1", "--out-trade-no", number, "--reason", "sold out", "--yes", "--by")


async def test_a_name_is_free_until_there_is_an_operator_who_is_enabled(
    nodrop: Nodrop, place: Place, resources: Resources, add: Add
) -> None:
    await place("A-1")
    close = ("orders", "close", "A-1", "--reason", "x", "--by")
    assert (await nodrop(*close, "anybody at all")).code == 0
    await add("ann", "bob")
    await add("vera", role=Role.VIEWER)
    ran = await nodrop(*close, "anne")
    assert (ran.code, ran.line) == (2, "--by: there is no operator anne who is enabled; did you mean ann?")
    ran = await nodrop(*close, "xyz")
    assert (ran.code, ran.line.endswith("name one of them: ann, bob")) == (2, True)
    assert (await nodrop(*close, "vera")).line == "--by: vera is a viewer, who does not act"
    assert (await nodrop("orders", "close", "A-1", "--reason", "x")).code == 2, (
        "the user of the machine is none of them"
    )
    assert len(await list_acts(resources.db, limit=9)) == 1, "what was refused is no act"
    assert (await nodrop(*close, "ann")).code == 0
    await disable_operator(resources.db, "ann")
    assert (await nodrop(*close, "ann")).code == 2
    await disable_operator(resources.db, "bob")
    await disable_operator(resources.db, "vera")
    await check_by(resources.db, "anybody")


async def test_the_environment_may_say_who_acts(nodrop: Nodrop, place: Place, resources: Resources, add: Add) -> None:
    """An option is nearer than the environment, and an empty variable is none."""
    await add("ann", "bob")
    for order_no, options, env, by in (
        ("A-1", (), {"NODROP_BY": "ann"}, "ann"),
        ("A-2", ("--by", "bob"), {"NODROP_BY": "ann"}, "bob"),
    ):
        await place(order_no)
        ran = await nodrop("orders", "close", order_no, "--reason", "a test", *options, env=env)
        assert ran.code == 0, ran.err
        [act] = await list_acts(resources.db, limit=1)
        assert (act.action, act.subject, act.by) == ("order.close", order_no, by)
    await place("A-3")
    close = ("orders", "close", "A-3", "--reason", "a test")
    assert (await nodrop(*close, env={"NODROP_BY": "nobody"})).code == 2
    assert (await nodrop(*close, env={"NODROP_BY": ""})).code == 2, "the user of this machine is no operator"


async def test_above_the_limit_both_prove_who_they_are(
    nodrop: Nodrop, place: Place, channel: Channel, resources: Resources, add: Add
) -> None:
    await add("ann", "bob")
    refund = await waiting(nodrop, place, channel)
    ran = await nodrop(*refund, "ann", env=LIMITED)
    assert (ran.code, "--password-stdin" in ran.err) == (2, True)
    wrong = await nodrop(*refund, "ann", "--password-stdin", env=LIMITED, stdin=typed("bob"))
    assert (wrong.code, wrong.err.strip()) == (1, WRONG)
    assert (await nodrop("approvals", "list", "--json")).json == []
    requested = await nodrop(*refund, "ann", "--password-stdin", env=LIMITED, stdin=typed("ann"))
    assert "waits for a second operator" in requested.out
    [approval] = (await nodrop("approvals", "list", "--json")).json
    assert approval["requested_by"] == "ann"

    approve = ("approvals", "approve", str(approval["id"]), "--reason", "seen", "--password-stdin", "--by")
    assert (await nodrop(*approve, "bob", stdin=typed("ann"))).code == 1
    own = await nodrop(*approve, "ann", stdin=typed("ann"))
    assert own.line == "Somebody else has to decide: you have asked for this refund."
    assert (await nodrop(*approve, "bobby", stdin=typed("bob"))).code == 2
    approved = await nodrop(*approve, "bob", stdin=typed("bob"))
    assert (approved.code, approved.out.startswith("refund r")) == (0, True)
    failed = [act for act in await list_acts(resources.db, limit=30) if act.action == "sign_in.failed"]
    assert [(act.by, act.via) for act in failed] == [("bob", "command"), ("ann", "command")]


async def test_a_decision_wants_the_code_too_and_no_one_time_password(
    nodrop: Nodrop, place: Place, channel: Channel, resources: Resources, add: Add
) -> None:
    await add("ann", "bob")
    refund = await waiting(nodrop, place, channel)
    await nodrop(*refund, "ann", "--password-stdin", env=LIMITED, stdin=typed("ann"))
    [approval] = (await nodrop("approvals", "list", "--json")).json
    decline = ("approvals", "decline", str(approval["id"]), "--reason", "no", "--password-stdin", "--by", "bob")
    await resources.db.execute("UPDATE operators SET must_change = true WHERE name = 'bob'")
    assert "one-time password" in (await nodrop(*decline, stdin=typed("bob"))).line
    await resources.db.execute("UPDATE operators SET must_change = false")

    secret = await switch_codes_on(resources.db, resources.sealer, "bob")
    assert WRONG in (await nodrop(*decline, stdin=typed("bob"))).err
    code = pyotp.TOTP(secret).at(int(resources.clock.read()))
    assert (await nodrop(*decline, stdin=typed("bob", code))).code == 0


async def test_a_refund_below_the_limit_wants_no_password(
    nodrop: Nodrop, place: Place, channel: Channel, add: Add
) -> None:
    await add("ann")
    refund = await waiting(nodrop, place, channel)
    ran = await nodrop(*refund, "ann", "--amount", "12.50", "--key", "k", env=LIMITED)
    assert (ran.code, ran.out.startswith("refund r")) == (0, True)


async def test_a_case_answered_by_a_refund_above_the_limit_wants_the_password(
    nodrop: Nodrop, place: Place, channel: Channel, resources: Resources, add: Add
) -> None:
    await add("ann")
    refund = await waiting(nodrop, place, channel)
    sql = (
        "INSERT INTO cases (reason, order_no, channel_account, out_trade_no)"
        " VALUES ('double_payment', 'A-1', 'main', $1) RETURNING id"
    )
    case_id = await resources.db.fetchval(sql, refund[4])
    answer = ("cases", "resolve", str(case_id), "--choice", "refund", "--reason", "twice", "--by", "ann")
    ran = await nodrop(*answer, env=LIMITED)
    assert (ran.code, "--password-stdin" in ran.err) == (2, True)
    ran = await nodrop(*answer, "--password-stdin", env=LIMITED, stdin=typed("ann"))
    assert "waits for a second operator" in ran.out


async def test_a_key_is_an_operators(nodrop: Nodrop, add: Add, resources: Resources) -> None:
    await add("ann")
    made = await nodrop("keys", "create", "a program", "--operator", "ann", "--json")
    assert (made.code, made.json["operator"]) == (0, "ann")
    assert "ann" in (await nodrop("keys", "list")).out
    assert (await nodrop("keys", "create", "x", "--operator", "anne")).line.startswith("there is no operator anne")
    look = await nodrop("operators", "disable", "ann", "--dry-run")
    assert look.out == "Nobody signs in as ann any more.\n0 sessions end.\n1 API keys of ann open nothing any more.\n"
    await disable_operator(resources.db, "ann")
    assert [row["valid"] for row in (await nodrop("keys", "list", "--json")).json] == [False]


# -- dry runs ----------------------------------------------------------------------------------------------------------


async def test_dry_runs_say_what_would_be_done_and_do_nothing(
    nodrop: Nodrop, resources: Resources, place: Place, channel: Channel
) -> None:
    add = ("operators", "add", "ann", "--role", "viewer")
    assert (await nodrop(*add, "--dry-run")).out == "ann becomes viewer, and signs in by a one-time password.\n"
    assert await find_operator(resources.db, "ann") is None
    await nodrop(*add)
    assert (await nodrop(*add, "--dry-run")).line == "There is an operator ann already."
    for command, says in (
        (("role", "ann", "admin"), "ann is viewer and becomes admin.\n0 sessions end.\n"),
        (("reset", "ann"), "ann gets a one-time password, signs in without codes, and is enabled.\n0 sessions end.\n"),
    ):
        assert (await nodrop("operators", *command, "--dry-run")).out == says
    assert (await nodrop("operators", "role", "ann", "viewer", "--dry-run")).line == "ann is viewer already."
    assert (await nodrop("operators", "enable", "ann", "--dry-run")).line == "ann is not disabled."
    assert (await nodrop("operators", "disable", "bob", "--dry-run")).line.startswith("there is no operator bob")
    await disable_operator(resources.db, "ann")
    assert (await nodrop("operators", "disable", "ann", "--dry-run")).line == "ann is disabled already."
    assert "signs in again" in (await nodrop("operators", "enable", "ann", "--dry-run")).out

    sql = "INSERT INTO cases (reason, channel_account) VALUES ('statement_total', 'main') RETURNING id"
    case_id = await resources.db.fetchval(sql)
    look = await nodrop("cases", "assign", str(case_id), "--to", "kim", "--dry-run")
    assert look.out == f"kim has case {case_id} from now on.\n"
    await resources.db.execute("UPDATE cases SET assignee = 'lee', assigned_at = now()")
    assert "note: lee has it now." in (await nodrop("cases", "assign", str(case_id), "--to", "kim", "--dry-run")).out
    assert "Nobody has case" in (await nodrop("cases", "assign", str(case_id), "--nobody", "--dry-run")).out

    test = ("alerts", "test", "--dry-run")
    assert (await nodrop(*test)).line == "ALERT_URL is not set: nothing can be sent."
    ran = await nodrop(*test, env={"ALERT_URL": "https://alerts.example.com/x?token=secret"})
    assert ran.out == "A worker sends a test to alerts.example.com.\n"

    number = (await place("A-1")).payments[0].out_trade_no
    assert "is open" in (await nodrop("orders", "erase", "A-1", "--dry-run")).line
    await channel.pay(number)
    await nodrop("orders", "refresh", "A-1", "--reason", "x", "--by", "x")
    look = await nodrop("orders", "erase", "A-1", "--dry-run")
    assert "are gone for ever" in look.out
    assert await resources.db.fetchval("SELECT subject FROM orders") != ""


def test_a_year_is_the_least_that_the_audit_is_kept() -> None:
    assert timedelta(days=Settings().audit_keep_days) > timedelta(days=7 * 365)

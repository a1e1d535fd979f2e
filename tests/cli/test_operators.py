"""`nodrop operators`: passwords that are printed once, and what each command leaves behind."""

import pytest
from argon2 import PasswordHasher

from core.operators import Role
from runtime import passwords
from runtime.passwords import Passwords
from runtime.resources import Resources
from storage.postgres.operators import Operator, find_operator
from storage.postgres.sessions import Ends, begin_session, find_session
from tests.cli.nodrop import Nodrop


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "_hasher", PasswordHasher(1, 64, 1))


async def operator(resources: Resources, name: str = "alice") -> Operator:
    found = await find_operator(resources.db, name)
    assert found is not None
    return found


async def test_the_first_operator_gets_a_password_that_has_to_be_changed(nodrop: Nodrop, resources: Resources) -> None:
    made = await nodrop("operators", "add", "alice", "--role", "admin")
    password = made.out.strip()
    assert (made.code, len(password) >= 20) == (0, True)
    assert password not in made.err
    added = await operator(resources)
    assert (added.role, added.must_change, added.disabled_at) == (Role.ADMIN, True, None)
    assert await Passwords().verify(password, added.password) == added.password
    assert password not in added.password
    again = await nodrop("operators", "add", "alice", "--role", "viewer")
    assert (again.code, again.out) == (1, "")
    assert "there is an operator alice already" in again.err
    assert (await operator(resources)).role is Role.ADMIN


async def test_a_password_can_come_from_standard_input(nodrop: Nodrop, resources: Resources) -> None:
    made = await nodrop(
        "operators", "add", "bob", "--role", "viewer", "--password-stdin", stdin=b"a long one for bob\n"
    )
    assert (made.code, made.out) == (0, "")
    assert await Passwords().verify("a long one for bob", (await operator(resources, "bob")).password)
    for typed, says in ((b"short\n", "12 to 200"), (b"bobbobbobbob\n", "too easy"), (b"", "12 to 200")):
        refused = await nodrop("operators", "reset", "bob", "--password-stdin", stdin=typed)
        assert refused.code == 1
        assert says in refused.err


@pytest.mark.parametrize("name", ["Alice", "1a", "a b", "a" * 41, "-a", "ä"])
async def test_a_name_that_is_none_is_refused(nodrop: Nodrop, name: str) -> None:
    refused = await nodrop("operators", "add", "--role", "admin", "--", name)
    assert refused.code == 1
    assert "a name is 1 to 40 small letters" in refused.err


async def test_what_takes_rights_away_ends_every_session(nodrop: Nodrop, resources: Resources) -> None:
    await nodrop("operators", "add", "alice", "--role", "admin")
    for command in (("disable",), ("reset",), ("role", "viewer")):
        cookie = await begin_session(resources.db, "alice", (await operator(resources)).epoch, address="", device="")
        await resources.db.execute("UPDATE operators SET disabled_at = NULL")
        assert await find_session(resources.db, cookie, Ends(60, 60)) is not None
        assert (await nodrop("operators", command[0], "alice", *command[1:])).code == 0
        await resources.db.execute("UPDATE operators SET disabled_at = NULL")
        assert await find_session(resources.db, cookie, Ends(60, 60)) is None, command
    assert (await operator(resources)).role is Role.VIEWER


async def test_a_reset_takes_the_codes_away_and_enables(nodrop: Nodrop, resources: Resources) -> None:
    await nodrop("operators", "add", "alice", "--role", "admin")
    await resources.db.execute("UPDATE operators SET totp = 'x', must_change = false, disabled_at = now()")
    made = await nodrop("operators", "reset", "alice", "--json")
    assert made.json["name"] == "alice"
    after = await operator(resources)
    assert (after.totp, after.must_change, after.disabled_at) == (None, True, None)
    assert await Passwords().verify(made.json["password"], after.password)


async def test_the_list_has_no_password(nodrop: Nodrop) -> None:
    made = await nodrop("operators", "add", "alice", "--role", "operator")
    await nodrop("operators", "disable", "alice")
    (row,) = (await nodrop("operators", "list", "--json")).json
    assert (row["name"], row["role"], row["has_totp"], row["sessions"]) == ("alice", "operator", False, 0)
    assert row["disabled_at"] is not None
    listed = (await nodrop("operators", "list")).out
    assert "alice" in listed
    assert made.out.strip() not in listed
    assert "argon2" not in listed


async def test_nobody_of_that_name_is_said(nodrop: Nodrop) -> None:
    for command in (("disable",), ("enable",), ("reset",), ("role", "viewer")):
        ran = await nodrop("operators", command[0], "carol", *command[1:])
        assert ran.code == 1
        assert "there is no operator carol" in ran.err

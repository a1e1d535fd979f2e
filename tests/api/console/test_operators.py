"""The operators' page: what an admin does to others, and not to the own name."""

import re
from collections.abc import Iterator
from html import unescape

import pytest
from argon2 import PasswordHasher

from api.console.signin import PASSWORDS
from core.operators import Role
from runtime import passwords
from runtime.resources import Resources
from storage.postgres.audit import list_acts
from storage.postgres.operators import find_operator
from tests.api.console.conftest import ConsoleClient, SignedIn


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(passwords, "_hasher", PasswordHasher(1, 64, 1))
    yield
    PASSWORDS._nobodys = None


@pytest.fixture
async def admin(signed_in: SignedIn) -> ConsoleClient:
    return await signed_in(Role.ADMIN)


def password_on(page: str) -> str:
    return unescape(re.findall(r'data-copy="([^"]+)"', page)[0])


async def test_an_operator_is_added_with_a_password_that_is_shown_once(
    admin: ConsoleClient, resources: Resources
) -> None:
    added = await admin.post("/ops/operators", {"name": "bob", "role": "operator", "reason": "joins the team"})
    assert added.status == 200
    password = password_on(added.body.decode())
    bob = await find_operator(resources.db, "bob")
    assert bob is not None
    assert (bob.role, bob.must_change) == (Role.OPERATOR, True)
    assert await PASSWORDS.verify(password, bob.password)
    assert password not in (await admin.get("/ops/operators")).body.decode()
    (act,) = await list_acts(resources.db, limit=5)
    assert (act.by, act.action, act.subject) == ("admin", "operator.add", "bob")
    assert act.detail == {"role": "operator", "reason": "joins the team"}


@pytest.mark.parametrize(
    ("form", "says"),
    [
        ({"name": "Bob", "role": "viewer", "reason": "x"}, "small letters"),
        ({"name": "admin", "role": "viewer", "reason": "x"}, "there is an operator admin already"),
        ({"name": "bob", "role": "root", "reason": "x"}, "root"),
        ({"name": "bob", "role": "viewer"}, "reason"),
        ({"role": "viewer", "reason": "x"}, "name"),
        ({"name": "<script>", "role": "viewer", "reason": "x"}, "small letters"),
    ],
)
async def test_one_who_cannot_be_added_is_refused(
    admin: ConsoleClient, resources: Resources, form: dict[str, str], says: str
) -> None:
    refused = await admin.post("/ops/operators", form)
    assert refused.status == 400
    assert says in unescape(refused.body.decode())
    assert "<script>" not in refused.body.decode()
    assert await resources.db.fetchval("SELECT count(*) FROM operators") == 1


async def test_others_are_disabled_enabled_reset_and_given_a_role(
    admin: ConsoleClient, signed_in: SignedIn, resources: Resources
) -> None:
    bob = await signed_in(Role.OPERATOR, "bob")
    page = await admin.act("/ops/operators/bob/disable")
    assert "is disabled, and all sessions have ended" in page.body.decode()
    assert (await bob.get("/ops/me")).status == 303
    assert "enable" in (await admin.get("/ops/operators/bob")).body.decode()
    await admin.act("/ops/operators/bob/enable")
    assert (await bob.get("/ops/me")).status == 303, "a session that ended stays ended"
    page = await admin.act("/ops/operators/bob/role", {"role": "viewer"})
    assert re.search(r"bob.* is .*viewer.* now", page.body.decode())
    reset = await admin.post("/ops/operators/bob/reset", {"reason": "lost the phone"})
    after = await find_operator(resources.db, "bob")
    assert after is not None
    assert await PASSWORDS.verify(password_on(reset.body.decode()), after.password)
    acts = [(act.action, act.subject) for act in await list_acts(resources.db, limit=9)]
    assert acts == [(f"operator.{name}", "bob") for name in ("reset", "role", "enable", "disable")]


async def test_nobody_acts_on_the_own_name_and_so_one_admin_stays(admin: ConsoleClient, resources: Resources) -> None:
    for act in ("disable", "enable", "reset", "role"):
        refused = await admin.post(f"/ops/operators/admin/{act}", {"reason": "x", "role": "viewer"})
        assert (refused.status, "This is you" in refused.body.decode()) == (400, True), act
    assert (await admin.get("/ops/operators/admin")).status == 200
    assert await list_acts(resources.db, limit=5) == []


async def test_nobody_of_this_name_is_404(admin: ConsoleClient) -> None:
    assert (await admin.get("/ops/operators/carol")).status == 404
    for act in ("disable", "enable", "reset", "role"):
        assert (await admin.post(f"/ops/operators/carol/{act}", {"reason": "x", "role": "viewer"})).status == 404, act

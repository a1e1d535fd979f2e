"""The operator's own page: password, codes, look and sessions."""

import re
from collections.abc import Iterator
from html import unescape

import pyotp
import pytest
from argon2 import PasswordHasher

from api.console.signin import PASSWORDS
from core.operators import Role
from flows.operators import reset_operator
from runtime import passwords
from runtime.resources import Resources
from storage.postgres.audit import list_acts
from storage.postgres.operators import Operator, find_operator, open_totp, reseal_operators
from storage.sealing import Sealer, new_master_key
from tests.api.conftest import MASTER_KEYS
from tests.api.console.conftest import ConsoleClient, SignedIn

PASSWORD, NEW = "a kettle, blue, for tea", "another kettle, red"


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(passwords, "_hasher", PasswordHasher(1, 64, 1))
    monkeypatch.setattr(PASSWORDS, "_nobodys", None)
    yield
    PASSWORDS._nobodys = None


@pytest.fixture
async def alice(signed_in: SignedIn, resources: Resources) -> ConsoleClient:
    browser = await signed_in(Role.VIEWER, "alice")
    await resources.db.execute("UPDATE operators SET password = $1", passwords.hash_password(PASSWORD))
    return browser


async def stored(resources: Resources) -> Operator:
    operator = await find_operator(resources.db, "alice")
    assert operator is not None
    return operator


async def offered(resources: Resources) -> int:
    """Secrets that were shown and are not confirmed yet."""
    count: int = await resources.db.fetchval("SELECT count(*) FROM operator_sessions WHERE totp_pending IS NOT NULL")
    return count


def secrets_in(page: str) -> list[str]:
    return [unescape(each) for each in re.findall(r"data-copy=\"([A-Z2-7]{32})\"", page)]


def change(old: str = PASSWORD, new: str = NEW, again: str = NEW) -> dict[str, str]:
    return {"old": old, "new": new, "again": again}


async def test_a_password_is_changed_and_the_other_sessions_end(
    alice: ConsoleClient, signed_in: SignedIn, resources: Resources
) -> None:
    other = await signed_in(Role.VIEWER, "alice")
    await resources.db.execute("UPDATE operators SET must_change = true")
    shown = await alice.act("/ops/me/password", change())
    assert "The password is changed" in shown.body.decode()
    assert "The password is changed" not in (await alice.get("/ops/me")).body.decode(), "a notice is said once"
    assert (await other.get("/ops/me")).status == 303
    after = await stored(resources)
    assert (await PASSWORDS.verify(NEW, after.password), after.must_change) == (after.password, False)
    assert await PASSWORDS.verify(PASSWORD, after.password) is None


@pytest.mark.parametrize(
    ("form", "status", "says"),
    [
        (change(old="wrong"), 422, "The password is wrong."),
        (change(again="different"), 422, "not the same"),
        (change(new=PASSWORD, again=PASSWORD), 422, "is the old one"),
        (change(new="short", again="short"), 400, "12 to 200 characters"),
        (change(new="alicealicealice", again="alicealicealice"), 400, "too easy"),
        ({}, 400, "12 to 200 characters"),
    ],
)
async def test_a_change_that_is_none_changes_nothing(
    alice: ConsoleClient, resources: Resources, form: dict[str, str], status: int, says: str
) -> None:
    before = await stored(resources)
    refused = await alice.post("/ops/me/password", form)
    assert refused.status == status
    assert says in refused.body.decode()
    assert await stored(resources) == before


async def test_a_stolen_session_does_not_find_out_the_password(alice: ConsoleClient) -> None:
    statuses = [(await alice.post("/ops/me/password", change(old=f"wrong {number}"))).status for number in range(12)]
    assert statuses == [422] * 10 + [429] * 2


async def test_a_password_that_is_changed_while_an_admin_resets_it_is_not_in_force(
    alice: ConsoleClient, resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the new one would be chosen by somebody who knew the old one and had a session."""
    given: list[str] = []
    verify = PASSWORDS.verify

    async def verify_and_be_reset(password: str, hashed: str | None) -> str | None:
        kept = await verify(password, hashed)
        given.append(await reset_operator(resources.db, PASSWORDS, "alice"))
        return kept

    monkeypatch.setattr(PASSWORDS, "verify", verify_and_be_reset)
    refused = await alice.post("/ops/me/password", change())
    monkeypatch.undo()
    assert refused.status == 401
    after = await stored(resources)
    assert await PASSWORDS.verify(NEW, after.password) is None
    assert await PASSWORDS.verify(given[0], after.password) is not None
    assert after.must_change


async def test_codes_that_are_asked_for_while_an_admin_resets_are_not_offered_to_the_next(
    alice: ConsoleClient, resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator would confirm a secret that somebody else has seen."""
    verify = PASSWORDS.verify

    async def verify_and_be_reset(password: str, hashed: str | None) -> str | None:
        kept = await verify(password, hashed)
        await reset_operator(resources.db, PASSWORDS, "alice")
        return kept

    monkeypatch.setattr(PASSWORDS, "verify", verify_and_be_reset)
    assert (await alice.post("/ops/me/codes", {"password": PASSWORD})).status == 401
    assert await offered(resources) == 0


async def test_codes_are_set_up_with_the_password_and_a_first_code(alice: ConsoleClient, resources: Resources) -> None:
    assert (await alice.post("/ops/me/codes", {"password": "wrong"})).status == 422
    assert await offered(resources) == 0
    page = (await alice.act("/ops/me/codes", {"password": PASSWORD})).body.decode()
    assert "<svg" in page
    (secret,) = secrets_in(page)
    assert (await stored(resources)).totp is None, "not in force before a code was entered"
    assert (await alice.post("/ops/me/codes/confirm", {"code": "000000"})).status == 422
    code = pyotp.TOTP(secret).at(int(resources.clock.read()))
    shown = await alice.act("/ops/me/codes/confirm", {"code": code})
    assert "Codes are on" in shown.body.decode()
    assert secret not in shown.body.decode(), "it is not shown again"
    assert (await stored(resources)).totp is not None
    assert await offered(resources) == 0


async def test_a_secret_that_is_not_confirmed_is_seen_by_its_session_alone(
    alice: ConsoleClient, signed_in: SignedIn, resources: Resources
) -> None:
    other = await signed_in(Role.VIEWER, "alice")
    (secret,) = secrets_in((await alice.act("/ops/me/codes", {"password": PASSWORD})).body.decode())
    code = pyotp.TOTP(secret).at(int(resources.clock.read()))
    page = (await other.get("/ops/me")).body.decode()
    assert secrets_in(page) == []
    assert 'action="/ops/me/codes"' in page, "it may set up codes of its own"
    assert (await other.post("/ops/me/codes/confirm", {"code": code})).status == 404
    assert (await stored(resources)).totp is None
    (own,) = secrets_in((await other.act("/ops/me/codes", {"password": PASSWORD})).body.decode())
    assert own != secret
    assert secrets_in((await alice.get("/ops/me")).body.decode()) == [secret]
    await alice.act("/ops/me/codes/confirm", {"code": code})
    assert secrets_in((await other.get("/ops/me")).body.decode()) == []
    assert await offered(resources) == 0, "codes are on: no other secret may be put into force"


async def test_a_secret_that_is_not_confirmed_ends(alice: ConsoleClient, resources: Resources) -> None:
    (secret,) = secrets_in((await alice.act("/ops/me/codes", {"password": PASSWORD})).body.decode())
    code = pyotp.TOTP(secret).at(int(resources.clock.read()))
    await resources.db.execute("UPDATE operator_sessions SET totp_pending_at = totp_pending_at - interval '9 minutes'")
    assert secrets_in((await alice.get("/ops/me")).body.decode()) == [secret]
    await resources.db.execute("UPDATE operator_sessions SET totp_pending_at = totp_pending_at - interval '1 minute'")
    assert secrets_in((await alice.get("/ops/me")).body.decode()) == []
    assert (await alice.post("/ops/me/codes/confirm", {"code": code})).status == 404
    assert (await stored(resources)).totp is None


async def test_a_secret_whose_time_ends_while_its_code_is_checked_is_not_in_force(
    alice: ConsoleClient, resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    from api.console import me

    await alice.act("/ops/me/codes", {"password": PASSWORD})

    async def is_right(*_: object) -> bool:
        await resources.db.execute("UPDATE operator_sessions SET totp_pending_at = now() - interval '10 minutes'")
        return True

    monkeypatch.setattr(me, "check_code", is_right)
    assert (await alice.post("/ops/me/codes/confirm", {"code": "123456"})).status == 404
    assert (await stored(resources)).totp is None


async def test_a_secret_that_is_not_confirmed_is_resealed_too(alice: ConsoleClient, resources: Resources) -> None:
    (secret,) = secrets_in((await alice.act("/ops/me/codes", {"password": PASSWORD})).body.decode())
    sealer = Sealer.from_setting(f"{new_master_key('next')},{MASTER_KEYS}")
    assert await reseal_operators(resources.db, sealer) == ["alice"]
    sealed = await resources.db.fetchval("SELECT totp_pending FROM operator_sessions")
    assert sealed.startswith(b"next\0")
    assert open_totp(sealer, "alice", sealed) == secret


async def test_codes_are_switched_off_with_the_password_and_a_code(alice: ConsoleClient, resources: Resources) -> None:
    await test_codes_are_set_up_with_the_password_and_a_first_code(alice, resources)
    operator = await stored(resources)
    assert operator.totp is not None
    secret = open_totp(resources.sealer, "alice", operator.totp)
    code = pyotp.TOTP(secret).at(int(resources.clock.read()) + 30)
    assert (await alice.post("/ops/me/codes/remove", {"password": "wrong", "code": code})).status == 422
    assert (await alice.post("/ops/me/codes/remove", {"password": PASSWORD, "code": "000000"})).status == 422
    assert (
        "Codes are off."
        in (await alice.act("/ops/me/codes/remove", {"password": PASSWORD, "code": code})).body.decode()
    )
    assert (await stored(resources)).totp is None


async def test_codes_that_are_on_are_not_replaced_without_one_of_them(
    alice: ConsoleClient, resources: Resources
) -> None:
    """Somebody who has stolen session and password would else set up codes of their own."""
    await test_codes_are_set_up_with_the_password_and_a_first_code(alice, resources)
    before = await stored(resources)
    assert (await alice.post("/ops/me/codes", {"password": PASSWORD})).status == 400
    assert await stored(resources) == before


async def test_a_code_of_a_secret_that_was_replaced_meanwhile_switches_nothing_on(
    alice: ConsoleClient, resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    from api.console import me

    await alice.act("/ops/me/codes", {"password": PASSWORD})

    async def is_right(*_: object) -> bool:
        await alice.post("/ops/me/codes", {"password": PASSWORD})
        return True

    monkeypatch.setattr(me, "check_code", is_right)
    assert (await alice.post("/ops/me/codes/confirm", {"code": "123456"})).status == 404
    assert (await stored(resources)).totp is None


async def test_without_codes_there_is_nothing_to_confirm_or_to_remove(alice: ConsoleClient) -> None:
    for act in ("confirm", "remove"):
        assert (await alice.post(f"/ops/me/codes/{act}", {"code": "1", "password": PASSWORD})).status == 404


async def test_the_secret_of_codes_is_resealed_with_the_master_key(alice: ConsoleClient, resources: Resources) -> None:
    await test_codes_are_set_up_with_the_password_and_a_first_code(alice, resources)
    sealer = Sealer.from_setting(f"{new_master_key('next')},{MASTER_KEYS}")
    assert await reseal_operators(resources.db, sealer) == ["alice"]
    totp = (await stored(resources)).totp
    assert totp is not None
    assert totp.startswith(b"next\0")
    assert await reseal_operators(resources.db, sealer) == ["alice"]


async def test_language_and_colours_are_kept_with_the_operator(alice: ConsoleClient) -> None:
    page = (await alice.act("/ops/me/look", {"language": "zh", "theme": "dark"})).body.decode()
    assert '<html lang="zh" dir="ltr" data-theme="dark">' in page
    assert "已保存。" in page
    for form in ({"language": "xx"}, {"theme": "pink"}):
        assert (await alice.post("/ops/me/look", form)).status == 400
    page = (await alice.act("/ops/me/look", {"language": "", "theme": ""})).body.decode()
    assert '<html lang="en" dir="ltr">' in page
    assert 'lang="zh"' in (await alice.get("/ops/me", accept_language="zh-CN,en;q=0.5")).body.decode()


async def test_an_operator_ends_the_own_sessions_and_no_others(
    alice: ConsoleClient, signed_in: SignedIn, resources: Resources
) -> None:
    second, bob = await signed_in(Role.VIEWER, "alice"), await signed_in(Role.VIEWER, "bob")
    ids = dict(await resources.db.fetch("SELECT id, operator FROM operator_sessions ORDER BY created_at"))
    of_bob = next(session_id for session_id, name in ids.items() if name == "bob")
    assert (await alice.post(f"/ops/me/sessions/{of_bob}/end")).status == 404
    assert (await bob.get("/ops/me")).status == 200
    page = (await second.get("/ops/me")).body.decode()
    assert page.count('/end"') == 2
    assert of_bob not in page
    first = next(session_id for session_id, name in ids.items() if name == "alice")
    assert "The session has ended." in (await second.act(f"/ops/me/sessions/{first}/end")).body.decode()
    assert (await alice.get("/ops/me")).status == 303


async def test_acts_on_oneself_are_written_down(alice: ConsoleClient, resources: Resources) -> None:
    await alice.act("/ops/me/password", change())
    (act,) = await list_acts(resources.db, limit=5)
    assert (act.by, act.via, act.action, act.subject) == ("alice", "console", "operator.password", "alice")
    assert NEW not in str(act.detail)

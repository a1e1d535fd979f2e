"""Signing in and out: what a right password opens, and what guesses, planted and stolen cookies do not."""

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from html import unescape
from urllib.parse import urlencode

import pyotp
import pytest
from argon2 import PasswordHasher
from msgspec import structs

from api.application import open_application
from api.console.gate import LOCAL, SECURE, Cookies, cookies_of
from api.console.signin import PASSWORDS, safe_next
from api.context import Context
from api.http.asgi import App
from core.operators import Role
from core.settings import Settings
from flows import sign_in as flow
from flows.sign_in import find_step
from runtime import passwords
from runtime.resources import Resources
from storage.postgres.audit import list_acts
from storage.postgres.operators import (
    disable_operator,
    find_operator,
    insert_operator,
    reset_operator,
    set_role,
)
from storage.postgres.sign_in_limits import Limit
from tests.api.console.conftest import FORM, ORIGIN, SignedIn
from tests.api.driver import Client, Response
from tests.sealed import switch_codes_on

PASSWORD = "a kettle, blue, for tea"


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One pass over 64 KiB: the rules around a hash are tested here, and its parameters below."""
    monkeypatch.setattr(passwords, "_hasher", PasswordHasher(1, 64, 1))
    monkeypatch.setattr(PASSWORDS, "_nobodys", None)
    yield
    PASSWORDS._nobodys = None


class Browser:
    """A browser at the page to sign in, with its jar of cookies."""

    def __init__(self, app: App[Context], address: str = "203.0.113.9", **headers: str) -> None:
        self.client = Client(app, address=address)
        self.jar: dict[str, str] = {}
        self.headers = headers

    async def call(self, method: str, target: str, body: bytes = b"") -> Response:
        headers = {"cookie": "; ".join(f"{name}={value}" for name, value in self.jar.items())}
        form = {"content-type": FORM, "origin": ORIGIN} if method == "POST" else {}
        response = await self.client.call(method, target, body=body, headers=headers | form | self.headers)
        for each in response.set_cookies:
            self._set(each)
        return response

    def _set(self, text: str) -> None:
        pair, _, attributes = text.partition("; ")
        name, _, value = pair.partition("=")
        assert "HttpOnly" in attributes
        assert "SameSite=Strict" in attributes
        assert "Path=/" in attributes
        assert "Domain" not in attributes
        if "Max-Age=0" in attributes:
            self.jar.pop(name, None)
        else:
            self.jar[name] = value

    async def get(self, target: str) -> Response:
        return await self.call("GET", target)

    async def sign_in(self, name: str = "alice", password: str = PASSWORD, code: str = "", **more: str) -> Response:
        page = (await self.get("/ops/signin")).body.decode()
        token = re.findall(r'name="form" value="([^"]+)"', page)[0]
        form = {"form": unescape(token), "name": name, "password": password, "code": code, "next": "", **more}
        return await self.call("POST", "/ops/signin", urlencode(form).encode())

    @property
    def session(self) -> str:
        return self.jar.get(LOCAL.session, "")


@pytest.fixture
async def alice(resources: Resources) -> None:
    """An admin who has changed the password."""
    await insert_operator(resources.db, "alice", Role.ADMIN, passwords.hash_password(PASSWORD))
    await resources.db.execute("UPDATE operators SET must_change = false")


@pytest.fixture
def browser(app: App[Context]) -> Browser:
    return Browser(app)


# -- in and out --------------------------------------------------------------------------------------------------------


async def test_a_right_password_opens_a_session_and_a_wrong_one_none(
    browser: Browser, alice: None, resources: Resources
) -> None:
    for name, password in (("alice", "wrong"), ("nobody", PASSWORD), ("alice", ""), ("", ""), ("ALICE", "wrong")):
        refused = await browser.sign_in(name, password)
        assert refused.status == 401
        assert "Name, password or code is wrong." in refused.body.decode()
        assert not browser.session
    entered = await browser.sign_in("  Alice ")
    assert (entered.status, entered.headers["location"]) == (303, "/ops")
    assert browser.session
    assert LOCAL.form not in browser.jar
    assert (await browser.get("/ops/operators")).status == 200
    rows = [(act.by, act.action, act.detail.get("wrong")) for act in await list_acts(resources.db, limit=10)]
    assert rows[0] == ("alice", "sign_in", None)
    assert rows.count(("alice", "sign_in.failed", "password")) == 3
    assert rows.count(("(nobody)", "sign_in.failed", "name")) == 2
    assert "wrong" not in str([act.subject for act in await list_acts(resources.db, limit=10)])


async def test_a_cookie_that_was_planted_before_is_not_the_sessions(browser: Browser, alice: None) -> None:
    """Session fixation: whoever has put a cookie into the browser knows none that opens anything."""
    browser.jar[LOCAL.session] = planted = "A" * 43
    await browser.sign_in()
    assert browser.session not in ("", planted)
    thief = Browser(browser.client.app)
    thief.jar[LOCAL.session] = planted
    assert (await thief.get("/ops/me")).status == 303


async def test_each_sign_in_is_a_new_session_and_ends_that_of_the_same_browser(browser: Browser, alice: None) -> None:
    await browser.sign_in()
    first = browser.session
    await browser.sign_in()
    assert browser.session != first
    thief = Browser(browser.client.app)
    thief.jar[LOCAL.session] = first
    assert (await thief.get("/ops/me")).status == 303


async def test_a_stolen_cookie_opens_nothing_after_sign_out(
    browser: Browser, alice: None, resources: Resources
) -> None:
    await browser.sign_in()
    thief = Browser(browser.client.app, address="198.51.100.7")
    thief.jar = dict(browser.jar)
    assert (await thief.get("/ops/me")).status == 200
    page = (await browser.get("/ops/me")).body.decode()
    csrf = re.findall(r'name="csrf" value="([0-9a-f]{64})"', page)[0]
    out = await browser.call("POST", "/ops/signout", urlencode({"csrf": csrf}).encode())
    assert (out.status, out.headers["location"]) == (303, "/ops/signin?out=1")
    assert not browser.session
    assert (await thief.get("/ops/me")).status == 303
    assert await resources.db.fetchval("SELECT count(*) FROM operator_sessions") == 0
    assert "You have signed out." in (await browser.get("/ops/signin?out=1")).body.decode()


@pytest.mark.parametrize("taken", ["disable", "reset", "role"])
async def test_an_open_page_stops_at_the_next_request_when_rights_are_taken_away(
    signed_in: SignedIn, resources: Resources, taken: str
) -> None:
    browser = await signed_in(Role.OPERATOR, "bob")
    assert (await browser.get("/ops/audit")).status == 200
    db = resources.db
    match taken:
        case "disable":
            assert await disable_operator(db, "bob")
        case "reset":
            assert await reset_operator(db, "bob", "none")
        case "role":
            assert await set_role(db, "bob", Role.VIEWER)
    assert (await browser.get("/ops/audit")).status == 303
    assert (await browser.post("/ops/me/look", {"theme": "dark"})).status == 401
    assert (await browser.get("/ops/audit", sec_fetch_dest="empty")).status == 401, "a script reloads its page then"


async def test_a_session_that_begins_while_rights_are_taken_away_is_over(
    resources: Resources, app: App[Context]
) -> None:
    """The password was right, and then the operator was reset: the epoch of the session is that of before."""
    from storage.postgres.sessions import Ends, begin_session, find_session

    db = resources.db
    await insert_operator(db, "bob", Role.VIEWER, "none")
    before = await find_operator(db, "bob")
    assert before is not None
    await reset_operator(db, "bob", "other")
    cookie = await begin_session(db, "bob", before.epoch, address="", device="")
    assert await find_session(db, cookie, Ends(1800, 43_200)) is None


async def test_a_password_that_was_printed_opens_nothing_after_three_days(
    browser: Browser, alice: None, resources: Resources
) -> None:
    """It may lie in a chat. One that the operator has chosen stays."""
    for age, must_change, status in (("71 h", True, 303), ("73 h", True, 401), ("73 h", False, 303)):
        await resources.db.execute(
            "UPDATE operators SET must_change = $1, password_at = now() - $2::text::interval", must_change, age
        )
        assert (await browser.sign_in()).status == status, (age, must_change)
    failed = [act for act in await list_acts(resources.db, limit=9) if act.action == "sign_in.failed"]
    assert [act.detail["wrong"] for act in failed] == ["over"]


async def test_a_disabled_operator_cannot_sign_in(browser: Browser, alice: None, resources: Resources) -> None:
    await disable_operator(resources.db, "alice")
    assert (await browser.sign_in()).status == 401
    (act,) = await list_acts(resources.db, limit=5)
    assert (act.action, act.detail["wrong"]) == ("sign_in.failed", "disabled")


# -- ends --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("column", "age"), [("seen_at", "31 minutes"), ("created_at", "721 minutes")])
async def test_a_session_ends_without_requests_and_in_any_case(
    signed_in: SignedIn, resources: Resources, column: str, age: str
) -> None:
    browser = await signed_in(Role.VIEWER)
    assert (await browser.get("/ops/me")).status == 200
    await resources.db.execute(f"UPDATE operator_sessions SET {column} = now() - interval '{age}'")  # noqa: S608 - ours
    assert (await browser.get("/ops/me")).status == 303


async def test_a_request_keeps_a_session_open_and_is_noted_once_a_minute(
    signed_in: SignedIn, resources: Resources
) -> None:
    browser = await signed_in(Role.VIEWER)
    age = "SELECT extract(epoch FROM now() - seen_at)::float8 FROM operator_sessions"
    for seconds, is_noted in ((30, False), (90, True), (1700, True)):
        await resources.db.execute("UPDATE operator_sessions SET seen_at = now() - make_interval(secs => $1)", seconds)
        assert (await browser.get("/ops/me")).status == 200
        assert (await resources.db.fetchval(age) < 20) is is_noted, seconds


async def test_a_page_that_is_left_open_keeps_no_session(signed_in: SignedIn, resources: Resources) -> None:
    """Its script asks every few seconds, as long as the page is seen."""
    browser = await signed_in(Role.VIEWER)
    await resources.db.execute("UPDATE operator_sessions SET seen_at = now() - interval '29 minutes'")
    for target in ("/ops/overview/live", "/ops/me"):
        assert (await browser.get(target, sec_fetch_dest="empty")).status == 200
    age = "SELECT extract(epoch FROM now() - seen_at)::float8 FROM operator_sessions"
    assert await resources.db.fetchval(age) > 1700
    assert (await browser.get("/ops/me", sec_fetch_dest="document")).status == 200
    assert await resources.db.fetchval(age) < 20


async def test_what_has_ended_is_deleted_with_the_retention(signed_in: SignedIn, resources: Resources) -> None:
    from flows.retention import delete_old

    await signed_in(Role.VIEWER, "kept")
    await signed_in(Role.VIEWER, "ended")
    db = resources.db
    await db.execute("UPDATE operator_sessions SET seen_at = now() - interval '1 hour' WHERE operator = 'ended'")
    await db.execute(
        "INSERT INTO sign_in_limits VALUES (sha256('a'), now() - interval '1 s'), (sha256('b'), now() + interval '1 h')"
    )
    await delete_old(resources)
    assert await db.fetchval("SELECT array_agg(operator) FROM operator_sessions") == ["kept"]
    assert await db.fetchval("SELECT count(*) FROM sign_in_limits") == 1


async def test_an_operator_has_twenty_sessions_at_most(signed_in: SignedIn, resources: Resources) -> None:
    first = await signed_in(Role.VIEWER)
    *_, last = [await signed_in(Role.VIEWER) for _ in range(20)]
    assert await resources.db.fetchval("SELECT count(*) FROM operator_sessions") == 20
    assert (await first.get("/ops/me")).status == 303
    assert (await last.get("/ops/me")).status == 200


# -- cookies and where forms come from ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("public_url", "cookies"),
    [
        ("https://pay.example.com", SECURE),
        ("https://127.0.0.1:8000", SECURE),
        ("http://pay.example.com", SECURE),
        ("http://10.0.0.1", SECURE),
        ("http://127.0.0.1.example.com", SECURE),
        ("http://127.0.0.1:8000", LOCAL),
        ("http://localhost:8000/x", LOCAL),
        ("HTTP://[::1]:8000", LOCAL),
    ],
)
def test_cookies_are_secure_but_on_this_machine(public_url: str, cookies: Cookies) -> None:
    assert cookies_of(Settings(public_url=public_url)) is cookies


async def test_the_cookie_of_a_deployment_has_the_hosts_prefix(resources: Resources, alice: None) -> None:
    public = replace(resources, settings=structs.replace(resources.settings, public_url="https://pay.test"))
    async with open_application(public, asyncio.Event()) as app:
        browser = Browser(app)
        assert (await browser.sign_in()).status == 303
        assert set(browser.jar) == {"__Host-nodrop-ops"}


async def test_another_site_signs_nobody_in(browser: Browser, alice: None) -> None:
    """Neither with a token of its own browser, nor without one, nor under its own origin."""
    page = (await Browser(browser.client.app).get("/ops/signin")).body.decode()
    foreign = re.findall(r'name="form" value="([^"]+)"', page)[0]
    for token in ("", foreign):
        form = {"form": token, "name": "alice", "password": PASSWORD}
        sent = await browser.call("POST", "/ops/signin", urlencode(form).encode())
        assert sent.status == 400
        assert "https" in sent.body.decode()
    browser.headers = {"origin": "https://evil.example"}
    assert (await browser.sign_in()).status == 403
    assert not browser.session


async def test_a_link_of_another_site_leads_on_with_the_cookie(browser: Browser, alice: None) -> None:
    """`SameSite=Strict` keeps the cookie from it: our own page goes on to the same address, which has it."""
    await browser.sign_in()
    link = "/ops/audit?by=%22%3E%3Cscript%3E"
    outside = Browser(browser.client.app, **{"sec-fetch-site": "cross-site", "sec-fetch-dest": "document"})
    onward = await outside.get(link)
    assert onward.status == 200
    assert f'content="0; url={link}"' in onward.body.decode()
    inside = Browser(browser.client.app, **{"sec-fetch-site": "same-origin"})
    assert (await inside.get(link)).headers[
        "location"
    ] == "/ops/signin?next=%2Fops%2Faudit%3Fby%3D%2522%253E%253Cscript%253E"


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/ops/audit?by=alice", "/ops/audit?by=alice"),
        ("/ops", "/ops"),
        ("//evil.example", "/ops"),
        ("https://evil.example/ops/", "/ops"),
        ("/ops\\evil", "/ops"),
        ("/opsx", "/ops"),
        ("/ops/a\r\nset-cookie: x", "/ops"),
        ("/ops/signout", "/ops"),
        ("/ops/signin", "/ops"),
        ("", "/ops"),
    ],
)
def test_after_signing_in_it_goes_on_within_the_console(target: str, expected: str) -> None:
    assert safe_next(target) == expected


# -- limits ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def few_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, limit in (("PER_ADDRESS", 6), ("PER_NAME", 3), ("PER_NAME_THERE", 3), ("ALL_STRANGERS", 9)):
        monkeypatch.setattr(flow, name, Limit(limit, 60.0))


async def test_guesses_at_one_name_are_limited_from_all_addresses_together(
    app: App[Context], alice: None, few_tries: None
) -> None:
    statuses = [(await Browser(app, f"203.0.113.{number}").sign_in(password="wrong")).status for number in range(5)]
    assert statuses == [401, 401, 401, 429, 429]
    refused = await Browser(app, "203.0.113.77").sign_in()
    assert refused.status == 429, "the right password is not looked at either"
    assert 0 < int(refused.headers["retry-after"]) <= 60
    assert f"Try again in {refused.headers['retry-after']} seconds" in refused.body.decode()


async def test_guesses_of_one_address_are_limited_whatever_the_name(
    app: App[Context], alice: None, few_tries: None
) -> None:
    browser = Browser(app)
    statuses = [(await browser.sign_in(f"name{number}")).status for number in range(8)]
    assert statuses == [401] * 6 + [429] * 2
    assert (await Browser(app, "198.51.100.7").sign_in()).status == 303


async def test_strangers_do_not_keep_an_operator_out_of_a_known_place(
    app: App[Context], alice: None, few_tries: None
) -> None:
    """Guesses from elsewhere use up the tries from elsewhere."""
    assert (await Browser(app, "198.51.100.7").sign_in()).status == 303
    for number in range(12):
        await Browser(app, f"203.0.113.{number}").sign_in(password="wrong")
    assert (await Browser(app, "203.0.113.99").sign_in()).status == 429
    assert (await Browser(app, "198.51.100.7").sign_in()).status == 303


async def test_a_limit_ends_by_itself_and_success_counts_nothing(
    app: App[Context], alice: None, few_tries: None, resources: Resources
) -> None:
    browser = Browser(app)
    for _ in range(10):
        assert (await browser.sign_in()).status == 303
    for _ in range(3):
        await browser.sign_in(password="wrong")
    assert (await browser.sign_in()).status == 429
    await resources.db.execute(
        "UPDATE sign_in_limits SET until = until - interval '61 s' WHERE until < now() + interval '1 d'"
    )
    assert (await browser.sign_in()).status == 303


async def test_a_flood_of_hashes_is_refused_and_leaves_the_rest_alone(
    monkeypatch: pytest.MonkeyPatch, browser: Browser, alice: None
) -> None:
    monkeypatch.setattr(PASSWORDS, "_waiting", passwords.WAITING_MAX)
    refused = await browser.sign_in()
    assert refused.status == 429
    assert not browser.session


# -- what is stored ----------------------------------------------------------------------------------------------------


async def test_a_hash_of_other_parameters_is_made_anew_at_the_next_sign_in(
    browser: Browser, alice: None, resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passwords, "_hasher", PasswordHasher(2, 128, 1))
    assert (await browser.sign_in()).status == 303
    operator = await find_operator(resources.db, "alice")
    assert operator is not None
    assert operator.password.startswith("$argon2id$v=19$m=128,t=2,p=1$")
    assert (await browser.sign_in()).status == 303


async def test_neither_the_cookie_nor_the_password_is_stored(
    browser: Browser, alice: None, resources: Resources
) -> None:
    await browser.sign_in()
    await browser.sign_in(password="a wrong one, typed twice")
    stored = "SELECT string_agg(t::text, ' ') FROM {} t"
    for table in ("operators", "operator_sessions", "sign_in_limits", "audit"):
        text = await resources.db.fetchval(stored.format(table)) or ""
        assert browser.session not in text or not browser.session
        assert PASSWORD not in text
        assert "a wrong one" not in text


def test_the_parameters_are_the_documented_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    hashed = passwords.hash_password("x")
    assert hashed.startswith(f"$argon2id$v=19$m={passwords.MEMORY_KIB},t={passwords.PASSES},p={passwords.LANES}$")
    assert (passwords.MEMORY_KIB, passwords.PASSES, passwords.LANES) == (65_536, 3, 1)


async def test_an_unknown_name_costs_the_same_hash(
    browser: Browser, alice: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time is that of the hash: an unknown name is compared with a hash of the same parameters."""
    verified: list[str] = []
    verify: Callable[..., bool] = passwords._hasher.verify

    class Noting:
        def verify(self, hashed: str, password: str) -> bool:
            verified.append(hashed.rpartition("$")[0].rpartition("$")[0])
            return verify(hashed, password)

        def hash(self, password: str) -> str:
            return hasher.hash(password)

        def check_needs_rehash(self, _hashed: str) -> bool:
            return False

    hasher = passwords._hasher
    monkeypatch.setattr(passwords, "_hasher", Noting())
    for name in ("alice", "nobody"):
        await browser.sign_in(name, "wrong")
    assert len(verified) == 2
    assert verified[0] == verified[1]


NOON = 1_800_000_010.0
"""Ten seconds after the beginning of a step of codes."""

# -- codes -------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def secret(alice: None, resources: Resources) -> str:
    """The secret of alice's codes, which are on."""
    return await switch_codes_on(resources.db, resources.sealer, "alice")


@pytest.fixture
def set_clock(resources: Resources, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Stop the clock at a time. The application compares it with Postgres's each second, which would set it right again
    in the middle of a test that takes so long.
    """
    monkeypatch.setattr(resources.clock, "_judge", lambda: None)
    return lambda now: monkeypatch.setattr(resources.clock, "read", lambda: now)


def code_at(resources: Resources, secret: str, steps: int = 0) -> str:
    return pyotp.TOTP(secret).at(int(resources.clock.read()) + 30 * steps)


async def test_with_codes_a_password_alone_opens_nothing(
    browser: Browser, secret: str, resources: Resources, set_clock: Callable[[float], None]
) -> None:
    set_clock(NOON)
    for code in ("", "000000", code_at(resources, secret, 2), code_at(resources, secret, -2), "x" * 6):
        assert (await browser.sign_in(code=code)).status == 401
        await resources.db.execute("DELETE FROM sign_in_limits")
    code = code_at(resources, secret)
    assert (await browser.sign_in(code=f"{code[:3]} {code[3:]}")).status == 303


async def test_a_code_is_used_once_and_no_earlier_one_after_it(
    browser: Browser, secret: str, resources: Resources, set_clock: Callable[[float], None]
) -> None:
    set_clock(NOON)
    assert (await browser.sign_in(code=code_at(resources, secret))).status == 303
    for steps in (0, -1):
        assert (await browser.sign_in(code=code_at(resources, secret, steps))).status == 401, steps
    assert (await browser.sign_in(code=code_at(resources, secret, 1))).status == 303
    set_clock(NOON + 60)
    assert (await browser.sign_in(code=code_at(resources, secret))).status == 303


async def test_the_same_code_at_the_same_time_signs_one_in(
    app: App[Context], secret: str, resources: Resources, set_clock: Callable[[float], None]
) -> None:
    set_clock(NOON)
    await resources.clock.keep(resources.db)
    code = code_at(resources, secret)
    answers = await asyncio.gather(*(Browser(app).sign_in(code=code) for _ in range(4)))
    assert sorted(answer.status for answer in answers) == [303, 401, 401, 401]


async def test_codes_are_not_tried_one_after_another(
    app: App[Context], secret: str, resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five by somebody who knows the password, then one in ten minutes, and no other answer tells of that."""
    monkeypatch.setattr(flow, "PER_ADDRESS", Limit(100, 1.0))
    monkeypatch.setattr(flow, "PER_NAME", Limit(100, 1.0))
    answers = [(await Browser(app).sign_in(code="000000")).status for _ in range(7)]
    assert answers == [401] * 7
    assert (await Browser(app).sign_in(code=code_at(resources, secret))).status == 401, "a right one is not looked at"
    wrong = await resources.db.fetch("SELECT detail->>'wrong' AS wrong FROM audit WHERE action = 'sign_in.failed'")
    assert Counter(row["wrong"] for row in wrong) == {"code": 5, "codes": 3}
    await resources.db.execute("DELETE FROM sign_in_limits")
    assert (await Browser(app).sign_in(code=code_at(resources, secret))).status == 303


async def test_with_codes_no_answer_tells_whether_the_password_was_right(
    app: App[Context], secret: str, resources: Resources
) -> None:
    """Status and text of each try, until the limits and beyond them."""

    async def tries(password: str) -> list[tuple[int, str]]:
        answers = [await Browser(app).sign_in(password=password, code="000000") for _ in range(12)]
        await resources.db.execute("DELETE FROM sign_in_limits")
        return [(each.status, re.sub(r'value="[^"]*"|[0-9]+', "", each.body.decode())) for each in answers]

    assert await tries(PASSWORD) == await tries("a wrong one, as long")


@pytest.mark.parametrize(("steps", "found"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)])
def test_a_code_is_good_for_one_step_around_now(steps: int, *, found: bool) -> None:
    secret, now = pyotp.random_base32(), 1_800_000_015
    step = find_step(secret, pyotp.TOTP(secret).at(now + 30 * steps), now)
    assert step == (now // 30 + steps if found else None)

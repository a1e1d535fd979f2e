"""Parts that all pages of the console share: the policy, faults, notices, forms with files, texts and figures."""

import re
from datetime import UTC, datetime, timedelta
from html import unescape

import pytest

from api.console import assets, faults, render, texts
from api.console.forms import Upload, read_form
from api.console.routes import ROWS
from api.console.visit import Reader
from api.context import Context
from api.http.asgi import App
from api.http.errors import MethodNotAllowed, UnsupportedBody
from api.http.problems import all_kinds
from api.http.request import Request
from core.errors import DatabaseUnavailable, InvalidRequest
from core.operators import Role
from runtime.resources import Resources
from storage.postgres.sessions import digest_of, put_notice
from tests.api.console.conftest import ConsoleClient, SignedIn
from tests.api.driver import Client

NOW = datetime(2026, 11, 27, 14, 5, 9, tzinfo=UTC)
READER = Reader(lang="en", now=NOW)


@pytest.fixture
async def admin(signed_in: SignedIn) -> ConsoleClient:
    return await signed_in(Role.ADMIN)


async def test_pages_are_not_kept_and_take_nothing_from_elsewhere(admin: ConsoleClient) -> None:
    for row in ROWS:
        if row.route.method != "GET" or "{" in row.route.pattern or row.route.role is None:
            continue
        response = await admin.get(row.route.pattern)
        if response.status != 200:
            continue
        headers, page = response.headers, response.body.decode()
        assert headers["cache-control"] == "no-store", row.route.pattern
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["referrer-policy"] == "same-origin"
        assert headers["x-content-type-options"] == "nosniff"
        assert not re.search(r"<[^>]+ (style|on[a-z]+)=", page), row.route.pattern
        assert not re.search(r"<(script|style)>", page), row.route.pattern
        assert not re.search(r'(src|href|action)="(?!/ops|#|/o/)[^"]', page), row.route.pattern


async def test_every_form_of_a_page_has_its_token(admin: ConsoleClient) -> None:
    for row in ROWS:
        if row.route.method == "GET" and "{" not in row.route.pattern and row.route.role is not None:
            page = (await admin.get(row.route.pattern)).body.decode(errors="replace")
            for form in re.findall(r'<form[^>]+method="post".*?</form>', page, re.DOTALL):
                assert f'name="csrf" value="{admin.csrf}"' in form, row.route.pattern


async def test_files_are_served_for_ever_by_their_content(app: App[Context]) -> None:
    anyone = Client(app)
    page = (await anyone.get("/ops/signin")).body.decode()
    named = set(re.findall(r'"(/ops/static/[^"]+)"', page))
    assert named == {assets.url(name) for name in ("ops.css", "ops.js", "icon.svg")}
    for url in named:
        file = await anyone.get(url)
        assert (file.status, "immutable" in file.headers["cache-control"]) == (200, True)
    assert (await anyone.get("/ops/static/ops.000000000000.css")).headers["cache-control"] == "no-store"
    for name in ("nothing.000000000000.css", "..%2fgate.py", "ops.css", "x"):
        missing = await anyone.get(f"/ops/static/{name}")
        assert (missing.status, missing.headers["content-type"]) == (404, "text/html; charset=utf-8")


async def test_a_fault_is_a_page_and_never_a_problem(admin: ConsoleClient, app: App[Context]) -> None:
    for response, status in (
        (await admin.get("/ops/nothing/here"), 404),
        (await admin.post("/ops/audit", {}), 405),
        (await admin.post("/ops/me/look", {"theme": "x" * 70_000}), 413),
        (await admin.post("/ops/me/look", {"theme": "a\x00b"}), 400),
        (await admin.post("/ops/me/look", {}, content_type="text/plain"), 415),
        (await admin.get("/ops/audit?by=%ff"), 400),
        (await Client(app).get("/ops/%2e%2e/x"), 404),
    ):
        assert response.status == status, response.body
        assert response.headers["content-type"] == "text/html; charset=utf-8"
        assert "<h1>" in response.body.decode()


async def test_postgres_that_is_away_is_a_page_too(admin: ConsoleClient, monkeypatch: pytest.MonkeyPatch) -> None:
    from api.console import gate

    async def away(*_: object, **__: object) -> None:
        raise DatabaseUnavailable("a test")

    monkeypatch.setattr(gate, "find_session", away)
    response = await admin.get("/ops/me")
    assert (response.status, response.headers["retry-after"]) == (503, "15")
    page = response.body.decode()
    assert "cannot answer at this moment" in page
    assert "a test" not in page, "what is ours is not explained to the outside"
    assert re.search(r"<code>[0-9a-f]{16}</code>", page), "the number of the request is in the log"


async def test_a_bug_shows_nothing_of_itself(admin: ConsoleClient, monkeypatch: pytest.MonkeyPatch) -> None:
    from api.console import gate

    async def broken(*_: object, **__: object) -> None:
        raise KeyError("secret")

    monkeypatch.setattr(gate, "find_session", broken)
    response = await admin.get("/ops/me")
    assert response.status == 500
    assert "secret" not in response.body.decode()


async def test_a_fault_of_a_form_leads_back_to_its_page(admin: ConsoleClient) -> None:
    refused = await admin.post(
        "/ops/operators", {"name": "bob", "role": "viewer"}, referer="http://pay.test/ops/operators"
    )
    assert refused.status == 400
    assert '<a class="button primary" href="/ops/operators">Back</a>' in refused.body.decode()
    for referer in ("https://evil.example/ops/x", "http://pay.test//evil.example", "http://pay.test/o/x", ""):
        page = (await admin.post("/ops/operators", {}, referer=referer)).body.decode()
        assert ">Back<" not in page, referer


def test_every_fault_has_its_text_in_every_language() -> None:
    slugs = {*all_kinds(), *faults.OWN.values()}
    for language in texts.LANGUAGES.values():
        assert {f"error.{slug}" for slug in slugs} <= language.texts.keys()
    assert faults.slug_of(None) == "unavailable"
    assert faults.slug_of(MethodNotAllowed("GET")) == "method_not_allowed"


async def test_a_notice_of_another_release_says_nothing(admin: ConsoleClient, resources: Resources) -> None:
    await put_notice(resources.db, digest_of(admin.cookie), "no.such.text", {})
    assert 'class="notice"' not in (await admin.get("/ops/me")).body.decode()
    assert await resources.db.fetchval("SELECT notice FROM operator_sessions") is None


async def test_the_navigation_has_what_the_role_may_read(signed_in: SignedIn) -> None:
    for role in Role:
        page = (await (await signed_in(role)).get("/ops/me")).body.decode()
        for row in ROWS:
            if row.nav and row.route.role is not None:
                assert (f'<li><a href="{row.route.pattern}" data-go=' in page) is role.may(row.route.role), row
    page = (await (await signed_in(Role.ADMIN)).get("/ops/operators/viewer")).body.decode()
    assert '<a href="/ops/operators" data-go="s" class="above">' in page
    assert "aria-current" not in page, "it is a page below"
    page = (await (await signed_in(Role.ADMIN)).get("/ops/operators")).body.decode()
    assert '<a href="/ops/operators" data-go="s" aria-current="page">' in page
    assert page.count("aria-current") == 1


async def test_the_first_page_is_one_that_the_role_may_read(signed_in: SignedIn) -> None:
    for role in Role:
        browser = await signed_in(role)
        response = await browser.get("/ops")
        if response.status == 303:
            response = await browser.get(response.headers["location"])
        assert response.status == 200, role


# -- figures -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "shown"),
    [
        ("{{ 8888|money('CNY') }}", "¥88.88"),
        ("{{ (-500)|money('JPY') }}", "−JP¥500"),
        ("{{ 1234567|number }} {{ 1.25|number }}", "1,234,567 1.2"),
        ("{{ 0.99999|share }} {{ 1.0|share }} {{ 0|share }} {{ none|share }}", "99.99\u00a0% 100\u00a0% 0\u00a0% –"),
        ("{{ 200|duration }} {{ 0.0421|duration }} {{ 0|duration }}", "3 min 20 s 42 ms 0 s"),
        ("{{ 90000|duration }} {{ 3600|duration }} {{ none|duration }}", "1 d 1 h 1 h –"),
        ("{{ 86460|duration }}", "1 d"),
        ("{{ none|instant }} {{ none|ago }} {{ none|until }}", "– – –"),
        ("{{ t('base.copy') }}", "Copy"),
        ("{{ '<b>' }}", "&lt;b&gt;"),
        ("{{ t('operators.show', name='<b>') }}", "Act on <bdi>&lt;b&gt;</bdi>"),
    ],
)
def test_figures_are_written_for_readers(template: str, shown: str) -> None:
    drawn = render._environment().from_string(template).render(visit=READER)
    assert drawn == shown


def test_times_are_exact_and_said_in_words() -> None:
    names = {
        "visit": READER,
        "at": NOW - timedelta(minutes=3, seconds=20),
        "then": NOW + timedelta(hours=2, microseconds=5000),
    }
    environment = render._environment()
    assert environment.from_string("{{ at|instant }}").render(names) == (
        '<time datetime="2026-11-27T14:01:49Z">14:01:49 UTC</time>'
    )
    assert "3 min 20 s ago</time>" in environment.from_string("{{ at|ago }}").render(names)
    assert ">now</time>" in environment.from_string("{{ at|until }}").render(names)
    assert "in 2 h</time>" in environment.from_string("{{ then|until }}").render(names)
    assert 'datetime="2026-11-27T16:05:09.005Z"' in environment.from_string("{{ then|ago }}").render(names)


def test_a_name_that_a_template_does_not_get_is_an_error() -> None:
    from jinja2 import UndefinedError

    for template in ("{{ nothing }}", "{{ visit.nothing }}", "{{ t(visit.nothing) }}"):
        with pytest.raises((UndefinedError, KeyError)):
            render._environment().from_string(template).render(visit=READER)


# -- forms -------------------------------------------------------------------------------------------------------------


def request(body: bytes, content_type: str) -> Request:
    return Request(method="POST", params={}, query="", headers={"content-type": content_type}, address="", body=body)


def parts(*each: bytes, boundary: bytes = b"----x") -> bytes:
    return b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in each) + b"--" + boundary + b"--\r\n"


def field(name: str, value: bytes, file: str | None = None) -> bytes:
    file_name = "" if file is None else f'; filename="{file}"\r\nContent-Type: text/csv'
    return f'Content-Disposition: form-data; name="{name}"{file_name}\r\n\r\n'.encode() + value


MULTIPART = "multipart/form-data; boundary=----x"


def test_a_form_in_parts_has_fields_and_files_byte_for_byte() -> None:
    content = b"\r\n--\r\n\x00\xff\r--x\n"
    body = parts(
        field("csrf", b"token"), field("id", b"1"), field("id", "2 茶".encode()), field("file", content, "a b.csv")
    )
    form = read_form(request(body, MULTIPART))
    assert form.fields == {"csrf": ["token"], "id": ["1", "2 茶"]}
    assert form.uploads == {"file": Upload("a b.csv", content)}
    none_chosen = read_form(request(parts(field("file", b"", "")), 'multipart/form-data; boundary="----x"'))
    assert none_chosen.uploads == {}


@pytest.mark.parametrize(
    ("body", "content_type", "fault"),
    [
        (b"", MULTIPART, InvalidRequest),
        (b"a=b", MULTIPART, InvalidRequest),
        (parts(field("a", b"b"))[:-4], MULTIPART, InvalidRequest),
        (b"x" + parts(field("a", b"b")), MULTIPART, InvalidRequest),
        (parts(b"no head"), MULTIPART, InvalidRequest),
        (parts(b"Content-Type: text/plain\r\n\r\nx"), MULTIPART, InvalidRequest),
        (parts(field("a", b"\xff")), MULTIPART, InvalidRequest),
        (parts(field("a", b"\x00")), MULTIPART, InvalidRequest),
        (parts(field("a", b"b")), "multipart/form-data", UnsupportedBody),
        (b"{}", "application/json", UnsupportedBody),
        (b"a=%ff", "application/x-www-form-urlencoded", InvalidRequest),
        (b"a=%1b", "application/x-www-form-urlencoded", InvalidRequest),
    ],
)
def test_a_form_that_cannot_be_read_is_refused(body: bytes, content_type: str, fault: type[Exception]) -> None:
    with pytest.raises(fault):
        read_form(request(body, content_type))


def test_a_field_may_be_there_several_times_and_have_lines() -> None:
    form = read_form(request(b"id=1&id=2&note=a%0d%0ab&empty=", "application/x-www-form-urlencoded"))
    assert form.fields == {"id": ["1", "2"], "note": ["a\r\nb"], "empty": [""]}


async def test_markup_in_a_name_is_text(admin: ConsoleClient) -> None:
    page = (await admin.get("/ops/audit?by=%22%3E%3Cscript%3Ealert(1)%3C/script%3E")).body.decode()
    assert "<script>alert" not in page
    assert 'value="&#34;&gt;&lt;script&gt;alert(1)&lt;/script&gt;"' in page
    assert "alert(1)" in unescape(page)

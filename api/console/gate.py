"""The gate of the console: who may come to a handler, and what a fault looks like.

The session is read with every request, so whoever was disabled or signed out stops at the next one. A write also comes
from a page of this console: by what the browser says of its origin here, and by the token in its form at the handler.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import quote, urlsplit

import msgspec

from api.console import texts
from api.console.faults import slug_of
from api.console.render import show_fault, show_onward
from api.console.visit import Reader, back_of
from api.http.asgi import Visitor
from api.http.errors import FormForeign, PasswordChangeNeeded, RoleTooLow, SignInNeeded
from api.http.problems import Problem
from api.http.response import Response, see_other
from core.errors import NodropError
from core.operators import Role
from core.sentences import Sentence, Term
from core.settings import Settings
from runtime.resources import Resources
from storage.postgres.sessions import Ends, Session, find_session

SIGN_IN = "/ops/signin"
OWN_PAGE = "/ops/me"
READING = ("GET", "HEAD")
OPEN_WITH_ANY_PASSWORD = ("/ops/me", "/ops/me/password", "/ops/signout")
"""Pages that a password opens which was printed for somebody."""


class Cookies(NamedTuple):
    """The names and attributes of our cookies."""

    session: str
    form: str
    attributes: str


SECURE = Cookies("__Host-nodrop-ops", "__Host-nodrop-signin", "Path=/; HttpOnly; SameSite=Strict; Secure")
LOCAL = Cookies("nodrop-ops", "nodrop-signin", "Path=/; HttpOnly; SameSite=Strict")
"""Without TLS, on this machine alone: some browsers keep no `Secure` cookie there."""


def cookies_of(settings: Settings) -> Cookies:
    """Ours are `Secure`, unless PUBLIC_URL is http and of this machine."""
    url = urlsplit(settings.public_url.lower())
    return LOCAL if url.scheme == "http" and is_loopback(url.hostname or "") else SECURE


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def cookie_of(headers: Mapping[str, str], name: str) -> str:
    """The value of a cookie; empty: it was not sent, or it was sent twice, which no browser of ours does."""
    pairs = (each.strip().partition("=") for each in headers.get("cookie", "").replace(",", ";").split(";"))
    values = [value for key, _, value in pairs if key == name]
    return values[0] if len(values) == 1 else ""


def check_origin(headers: Mapping[str, str], settings: Settings) -> None:
    """Check that a page of this console sent the form.

    `Sec-Fetch-Site` is the browser's own word, which no page can set. A browser without it, or one that speaks http
    with another machine, sends `Origin`.

    Raises:
        FormForeign: another site sent it, or the browser does not say.
    """
    fetch_site = headers.get("sec-fetch-site")
    ours = {urlsplit(settings.public_url).netloc.lower(), headers.get("host", "").lower()}
    origin = headers.get("origin", "").lower().partition("://")[2]
    if not (fetch_site == "same-origin" if fetch_site is not None else origin in ours - {""}):
        raise FormForeign("forms are taken from pages of this console alone")


class Gate:
    """The gate of one process."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        settings = resources.settings
        self._cookies = cookies_of(settings)
        self._ends = Ends(settings.ops_idle_s, settings.ops_session_s)

    async def admit(self, role: Role, visitor: Visitor) -> Session:
        """The session of an operator who has the role.

        What a page fetches by itself is no use of the session: else a page that is left open would keep it for ever.

        Raises:
            SignInNeeded: the cookie opens no session; PasswordChangeNeeded: not before the password was changed.
            FormForeign: a write that another site sent.
            RoleTooLow: the operator has another role.
            DatabaseUnavailable: sessions cannot be read now.
        """
        cookie = cookie_of(visitor.headers, self._cookies.session)
        is_use = visitor.headers.get("sec-fetch-dest", "document") == "document"
        session = await find_session(self._resources.db, cookie, self._ends, is_use=is_use) if cookie else None
        if session is None:
            raise SignInNeeded("sign in")
        if visitor.method not in READING:
            check_origin(visitor.headers, self._resources.settings)
        if session.must_change and visitor.target.partition("?")[0] not in OPEN_WITH_ANY_PASSWORD:
            raise PasswordChangeNeeded("change the password first")
        if not session.role.may(role):
            needed, own = Term("role.", role), Term("role.", session.role)
            fault = "this needs the role {needed}, and {operator} is {role}"
            raise RoleTooLow(Sentence(fault, needed=needed, operator=session.operator, role=own))
        return session

    def show_fault(self, problem: Response, error: BaseException | None, visitor: Visitor) -> Response:
        """The page of a fault, with the status and the headers of its problem; for nobody, the way to sign in."""
        if isinstance(error, PasswordChangeNeeded):
            return see_other(OWN_PAGE)
        is_visit = visitor.method in READING and visitor.headers.get("sec-fetch-dest", "document") == "document"
        if isinstance(error, SignInNeeded) and is_visit:
            return _to_sign_in(visitor)
        reader = Reader(
            lang=texts.choose("", visitor.headers.get("accept-language", "")),
            now=self._resources.clock.now(),
            path=visitor.target.partition("?")[0],
            back=back_of(visitor.headers),
        )
        detail = msgspec.json.decode(problem.body, type=Problem).detail
        kept = tuple(each for each in problem.headers if each[0] in ("allow", "retry-after"))
        shown = error if detail and isinstance(error, NodropError) else NodropError(detail)
        return show_fault(reader, slug_of(error), shown, visitor.request_id, problem.status, kept)


def _to_sign_in(visitor: Visitor) -> Response:
    """The way to the page of nobody, which leads back here.

    A link of another site comes without our cookie, since that is `SameSite=Strict`. A page of ours that goes on by
    itself to the same address comes with it.
    """
    if visitor.headers.get("sec-fetch-site") == "cross-site":
        return show_onward(visitor.target)
    return see_other(SIGN_IN if visitor.target == "/ops" else f"{SIGN_IN}?next={quote(visitor.target, safe='')}")

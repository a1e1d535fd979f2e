"""The page for nobody, and the way out.

The form carries a token that its cookie has too, so no other site signs an operator in as somebody else. Whoever signs
in gets a new session under a new cookie, whatever cookie came with the form.
"""

from __future__ import annotations

import re
from hmac import compare_digest
from math import ceil
from secrets import token_urlsafe

import msgspec
from msgspec.structs import replace

from api.console import texts
from api.console.gate import Cookies, check_origin, cookie_of, cookies_of
from api.console.render import render, see_other
from api.console.visit import Reader, Visit
from api.context import Context
from api.http.fields import read_form, read_query
from api.http.request import Request
from api.http.response import Reply, Response
from core.act_names import ActName
from core.errors import TooManyRequests
from flows.sign_in import Attempt, sign_in
from runtime.passwords import Passwords
from storage.postgres.sessions import digest_of, end_session

PATH = "/ops/signin"
FORM_BYTES_MAX = 8 * 1024

PASSWORDS = Passwords()
"""Of this process: its threads start with the first password."""

_NEXT = re.compile(r"/ops(?:[/?][\x21-\x5b\x5d-\x7e]*)?", re.ASCII)
_NOT_AFTER = ("/ops/signin", "/ops/signout")


class Query(msgspec.Struct, frozen=True, kw_only=True):
    next: str = ""
    out: bool = False


class SignInForm(msgspec.Struct, frozen=True, kw_only=True):
    form: str = ""
    next: str = ""
    name: str = ""
    password: str = ""
    code: str = ""


async def show(context: Context, request: Request) -> Reply:
    """The form. Its token is new each time, and is good for this browser alone."""
    query = read_query(request, Query)
    return _form(context, request, next_=query.next, fault="signin.ended" if query.out else "")


async def enter(context: Context, request: Request) -> Reply:
    """Begin a session, or show the form again with what is wrong."""
    settings = context.resources.settings
    cookies = cookies_of(settings)
    check_origin(request.headers, settings)
    form = read_form(request, SignInForm)
    name = form.name.strip().lower()
    token = cookie_of(request.headers, cookies.form)
    if not token or not compare_digest(token.encode(), form.form.encode()):
        return _form(context, request, next_=form.next, name=name, fault="signin.no_cookie", status=400)
    attempt = Attempt(
        name=name,
        password=form.password,
        code=form.code,
        address=request.address,
        device=request.headers.get("user-agent", ""),
    )
    try:
        cookie = await sign_in(context.resources, PASSWORDS, attempt)
    except TooManyRequests as error:
        seconds = ceil(error.retry_after_s)
        return _form(context, request, next_=form.next, name=name, fault="signin.later", status=429, seconds=seconds)
    if cookie is None:
        return _form(context, request, next_=form.next, name=name, fault="signin.wrong", status=401)
    if before := cookie_of(request.headers, cookies.session):
        await end_session(context.resources.db, digest_of(before))
    return _with_cookies(see_other(safe_next(form.next)), cookies, session=cookie, form=None)


async def leave(context: Context, visit: Visit) -> Reply:
    """End the session: its cookie opens nothing from now on, whoever has it."""
    await visit.record(ActName.SIGN_OUT, visit.operator)
    await end_session(visit.db, visit.session.digest)
    cookies = cookies_of(context.resources.settings)
    return _with_cookies(see_other(f"{PATH}?out=1"), cookies, session=None)


def safe_next(target: str) -> str:
    """The page to go to: one of the console, and /ops for anything else."""
    is_ours = _NEXT.fullmatch(target) is not None and not target.startswith(_NOT_AFTER)
    return target if is_ours else "/ops"


def _form(
    context: Context,
    request: Request,
    *,
    next_: str,
    name: str = "",
    fault: str = "",
    status: int = 200,
    seconds: int = 0,
) -> Response:
    reader = Reader(
        lang=texts.choose("", request.headers.get("accept-language", "")),
        path=PATH,
        now=context.resources.clock.now(),
    )
    token = token_urlsafe(32)
    headers = (("retry-after", str(seconds)),) if seconds else ()
    words = {"seconds": seconds} if seconds else {}
    shown = render(
        reader,
        "signin/form.html",
        status=status,
        headers=headers,
        title=reader.language.texts["signin.title"],
        token=token,
        next=next_ if _NEXT.fullmatch(next_) else "",
        name=name[:40],
        fault=fault,
        words=words,
    )
    return _with_cookies(shown, cookies_of(context.resources.settings), form=token)


_KEPT = object()


def _with_cookies(
    response: Response, cookies: Cookies, *, session: str | object | None = _KEPT, form: str | object | None = _KEPT
) -> Response:
    """The response with these cookies set; None: taken away."""
    wanted = ((cookies.session, session), (cookies.form, form))
    headers = tuple(
        ("set-cookie", f"{name}={value or ''}; {cookies.attributes}" + ("" if value else "; Max-Age=0"))
        for name, value in wanted
        if value is not _KEPT
    )
    return replace(response, headers=(*response.headers, *headers))

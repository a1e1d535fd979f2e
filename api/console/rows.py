"""The rows of the console's table of routes: pages, which change nothing, and acts, which are forms.

A fault of the operator's that a handler raises becomes a page in the operator's language.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from hmac import compare_digest
from http import HTTPStatus
from typing import NamedTuple

from api.console.faults import slug_of
from api.console.forms import read_form
from api.console.render import show_fault
from api.console.visit import SeeOther, Visit, make_visit
from api.context import Context
from api.http.errors import FormForeign
from api.http.problems import kind_of
from api.http.request import Request
from api.http.response import HTML, Reply
from api.http.route import Auth, Endpoint, Media, Route
from core.errors import NodropError
from core.operators import Role
from storage.postgres import sessions
from storage.postgres.open_work import count_open_work

FORM_BYTES_MAX = 64 * 1024

Handler = Callable[[Context, Visit], Awaitable[Reply]]


class Row(NamedTuple):
    """A route, and the last part of the key of its text in the navigation; empty: it is not there."""

    route: Route[Context]
    nav: str = ""


def page(pattern: str, role: Role, handler: Handler, *, nav: str = "") -> Row:
    """A page that changes nothing."""

    async def respond(context: Context, request: Request) -> Reply:
        visit = make_visit(context, request, pattern)
        if request.headers.get("sec-fetch-dest", "document") == "document":  # a part of a page has no navigation
            visit.open_work = await count_open_work(visit.db)
        return await _call(handler, context, visit)

    return _row("GET", pattern, role, handler, respond, 0, nav)


def act(pattern: str, role: Role, handler: Handler, *, body_bytes_max: int = FORM_BYTES_MAX) -> Row:
    """An act: a POST of a form that has the token of its session."""

    async def respond(context: Context, request: Request) -> Reply:
        return await _call(_checked(handler), context, make_visit(context, request, pattern))

    return _row("POST", pattern, role, handler, respond, body_bytes_max)


def _checked(handler: Handler) -> Handler:
    """The handler, after the form was read and its token compared."""

    async def call(context: Context, visit: Visit) -> Reply:
        visit.body = read_form(visit.request)
        if not compare_digest(visit.form.get("csrf", "").encode(), visit.csrf.encode()):
            raise FormForeign("open the page again, and send its form once more")
        return await handler(context, visit)

    return call


async def _call(handler: Handler, context: Context, visit: Visit) -> Reply:
    """The reply, with the notices that it leaves and has shown; or the page of a fault that is not ours: those are
    logged where all of them are.
    """
    try:
        reply = await handler(context, visit)
        if visit.has_shown_notice and visit.session.notice is not None:
            await sessions.take_notice(visit.db, visit.session.digest, visit.session.notice)
        if isinstance(reply, SeeOther) and reply.notice is not None:
            await sessions.put_notice(visit.db, visit.session.digest, reply.notice.key, reply.notice.values)
    except NodropError as error:
        status = kind_of(error).status
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise
        return show_fault(visit, slug_of(error), error, "", status)
    return reply


def _row(
    method: str,
    pattern: str,
    role: Role,
    handler: Handler,
    respond: Callable[[Context, Request], Awaitable[Reply]],
    body_bytes_max: int,
    nav: str = "",
) -> Row:
    name = f"ops_{handler.__module__.rpartition('.')[2]}_{handler.__name__}"
    endpoint = Endpoint[Context](operation_id=name, respond=respond, body_bytes_max=body_bytes_max)
    return Row(Route(method, pattern, Auth.OPERATOR, endpoint, name, {200: Media(HTML)}, role=role), nav)

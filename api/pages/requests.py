"""Requests for order pages: the token's order, the language, and the site that sent a form."""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit

from api.context import Context
from api.http.request import Request
from api.http.response import Response, see_other
from api.pages.texts import LANGUAGES, choose
from core.errors import InvalidRequest, NotFound
from core.order import OrderState
from flows.refresh import note_return
from storage.postgres.orders import find_state_by_page_token

_TOKEN = re.compile(r"[0-9A-Za-z_\-]{16,64}", re.ASCII)
_LANG = re.compile(r"(?:^|&)lang=([a-z]{2,3})(?:&|$)", re.ASCII)


async def find_order(context: Context, request: Request) -> OrderState:
    """The order of the token. Raises NotFound, and TooManyRequests after many tokens of this address that are none."""
    with context.guesses.look_up(request.address):
        return await look_up(context, request.params["token"])


async def look_up(context: Context, token: str) -> OrderState:
    """The same, not counted as a guess: for a token that was found before.

    A return that could not be noted when it came counts now.
    """
    state = None
    if _TOKEN.fullmatch(token):
        state = await find_state_by_page_token(
            context.resources.db, token, days=context.resources.settings.page_token_days
        )
    if state is None:
        raise NotFound("this address is not valid, or not valid any more")
    if state.order.is_known_unpaid and await context.unnoted_returns.may_have(token):
        return await note_return(context.resources, state)
    return state


def check_origin(context: Context, request: Request, allowed: frozenset[str] = frozenset()) -> None:
    """Check that no site but ours and `allowed` sent the form. There is no cookie, so this only supports the token.

    `Origin: null` is what our own form sends under `no-referrer`, in browsers that do not know `Sec-Fetch-Site`.

    Raises:
        InvalidRequest: the browser says that another site sent it.
    """
    settings, fetch_site = context.resources.settings, request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin", "null")
    if origin in allowed:
        return
    if fetch_site is not None:
        is_ours = fetch_site in ("same-origin", "none")
    else:
        ours = {urlsplit(settings.public_url).netloc, request.headers.get("host", "")}
        is_ours = origin == "null" or origin.partition("://")[2] in ours
    if not is_ours:
        raise InvalidRequest("this is only taken from the order's own page")


def language_of(request: Request) -> tuple[str, str]:
    """The language to write in, and the one that the address names ("": none)."""
    match = _LANG.search(request.query)
    requested = match[1] if match and match[1] in LANGUAGES else ""
    return choose(requested, request.headers.get("accept-language", "")), requested


def to_page(request: Request, query: str = "") -> Response:
    """The order's page, of a token that may not have been looked up; only our own parameters are carried on."""
    _, requested = language_of(request)
    queries = "&".join(filter(None, (f"lang={requested}" if requested else "", query)))
    return see_other(f"/o/{quote(request.params['token'], safe='')}" + (f"?{queries}" if queries else ""))

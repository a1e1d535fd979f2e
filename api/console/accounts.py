"""Switching an account off and on: no new payments there, while everything that is open goes on."""

from __future__ import annotations

from api.console.acting import back_of_act, confirm, refused_page
from api.console.render import see_other
from api.console.visit import Visit
from api.context import Context
from api.http.response import Reply
from core.act_names import ActName
from core.errors import NotPossible
from flows.account_switch import preview_switch, switch_account


async def ask_disable(_context: Context, visit: Visit) -> Reply:
    return confirm(visit, "disable", await preview_switch(visit.db, visit.params["name"], enabled=False))


async def do_disable(_context: Context, visit: Visit) -> Reply:
    return await _switch(visit, enabled=False)


async def ask_enable(_context: Context, visit: Visit) -> Reply:
    return confirm(visit, "enable", await preview_switch(visit.db, visit.params["name"], enabled=True))


async def do_enable(_context: Context, visit: Visit) -> Reply:
    return await _switch(visit, enabled=True)


async def _switch(visit: Visit, *, enabled: bool) -> Reply:
    """Switch it; one that is switched so already is shown as it is, and nothing is written."""
    name, reason = visit.params["name"], visit.reason()
    preview = await preview_switch(visit.db, name, enabled=enabled)
    if preview.refusal is not None:
        return refused_page(visit, "enable" if enabled else "disable", NotPossible(preview.refusal))
    await visit.record(ActName.ACCOUNT_ENABLE if enabled else ActName.ACCOUNT_DISABLE, name, {"reason": reason})
    await switch_account(visit.db, name, enabled=enabled)
    return see_other(back_of_act(visit), "money.enabled" if enabled else "money.disabled", account=name)

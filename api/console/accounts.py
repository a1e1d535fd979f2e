"""Switching an account off and on: no new payments there, while everything that is open goes on."""

from __future__ import annotations

from api.console.acting import back_of_act, confirm
from api.console.render import see_other
from api.console.visit import Visit
from api.context import Context
from api.http.response import Reply
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
    name, reason = visit.params["name"], visit.reason()
    await visit.record("account.enable" if enabled else "account.disable", name, {"reason": reason})
    await switch_account(visit.db, name, enabled=enabled)
    return see_other(back_of_act(visit), "money.enabled" if enabled else "money.disabled", account=name)

"""The operators, for admins: the same acts as `nodrop operators`. Nobody acts on the own name here, so one admin stays.

A one-time password is in the answer to its form and nowhere else: neither in an address nor in the session.
"""

from __future__ import annotations

import msgspec

from api.console.render import render, see_other
from api.console.signin import PASSWORDS
from api.console.visit import Visit, path_of
from api.context import Context
from api.http.response import Reply, Response
from core.act_names import ActName
from core.errors import InvalidRequest, NotFound
from core.operators import Role
from core.sentences import Sentence
from flows.operators import add_operator, reset_operator
from storage.postgres import operators

PATH = "/ops/operators"


class AddForm(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    role: Role


class RoleForm(msgspec.Struct, frozen=True, kw_only=True):
    role: Role


async def show_all(_context: Context, visit: Visit) -> Reply:
    return await _list(visit)


async def show_one(_context: Context, visit: Visit) -> Reply:
    name = visit.params["name"]
    shown = next((row for row in await operators.list_operators(visit.db) if row.name == name), None)
    if shown is None:
        raise NotFound(Sentence("there is no operator {operator}", operator=name))
    title = visit.language.texts["operators.show"].format(name=name)
    path = path_of("/ops/operators/{name}", name=name)
    return render(visit, "operators/one.html", title=title, shown=shown, roles=tuple(Role), here=path)


async def add(_context: Context, visit: Visit) -> Reply:
    form, reason = visit.read_form(AddForm), visit.reason()
    await visit.record(ActName.OPERATOR_ADD, form.name, {"role": form.role, "reason": reason})
    password = await add_operator(visit.db, PASSWORDS, form.name, form.role)
    return await _list(visit, name=form.name, password=password)


async def reset(_context: Context, visit: Visit) -> Reply:
    name = await _begin(visit, ActName.OPERATOR_RESET)
    password = await reset_operator(visit.db, PASSWORDS, name)
    return await _list(visit, name=name, password=password)


async def disable(_context: Context, visit: Visit) -> Reply:
    name = await _begin(visit, ActName.OPERATOR_DISABLE)
    _check_there(name, is_there=await operators.disable_operator(visit.db, name))
    return see_other(PATH, "operators.disabled", name=name)


async def enable(_context: Context, visit: Visit) -> Reply:
    name = await _begin(visit, ActName.OPERATOR_ENABLE)
    _check_there(name, is_there=await operators.enable_operator(visit.db, name))
    return see_other(PATH, "operators.enabled", name=name)


async def set_role(_context: Context, visit: Visit) -> Reply:
    role = visit.read_form(RoleForm).role
    name = await _begin(visit, ActName.OPERATOR_ROLE, role=role)
    _check_there(name, is_there=await operators.set_role(visit.db, name, role))
    return see_other(PATH, "operators.role_changed", name=name, role=visit.language.texts[f"role.{role}"])


async def _begin(visit: Visit, action: ActName, **detail: str) -> str:
    """Write down what is done to whom. Raises InvalidRequest without a reason, and for the own name."""
    name, reason = visit.params["name"], visit.reason()
    if name == visit.operator:
        raise InvalidRequest(visit.language.texts["operators.is_you"])
    await visit.record(action, name, {**detail, "reason": reason})
    return name


def _check_there(name: str, *, is_there: bool) -> None:
    if not is_there:
        raise NotFound(Sentence("there is no operator {operator}", operator=name))


async def _list(visit: Visit, *, name: str = "", password: str = "") -> Response:
    return render(
        visit,
        "operators/all.html",
        title=visit.language.texts["operators.title"],
        rows=await operators.list_operators(visit.db),
        roles=tuple(Role),
        name=name,
        password=password,
    )

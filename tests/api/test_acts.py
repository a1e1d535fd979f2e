"""Every act of the console and of /v1 is written down by a name of the list: read from the handlers themselves."""

import ast
import inspect
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from api import routes
from api.console.routes import ROWS
from api.http.route import Route
from core.act_names import ActName
from storage.postgres.api_keys import Scope

CONSOLE_WITHOUT = {
    "enter": "flows.sign_in writes it, once it is known who it is",
    "begin_codes": "offers a secret, which is not in force before it is confirmed",
    "find": "a search",
    "set_look": "the operator's own language and colours",
}
"""POST rows of the console that are no acts, or are written elsewhere."""

OWN_RECORDS = [
    route
    for route in routes.table(1024)
    if route.method == "POST" and (route.has_own_record or route.endpoint.operation_id == "orders_refresh")
]


def names_written(handler: Callable[..., Any]) -> set[str]:
    """The members of ActName that the handler, and what it calls of its own module, passes to `record`."""
    module = inspect.getmodule(handler)
    assert isinstance(module, ModuleType)
    functions = {
        node.name: node
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef)
    }
    reached, left, writes, members = set[str](), [handler.__name__], False, set[str]()
    while left:
        name = left.pop()
        if name in reached or name not in functions:
            continue
        reached.add(name)
        for node in ast.walk(functions[name]):
            if isinstance(node, ast.Call):
                called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                writes = writes or called == "record"
                left.append(called)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ActName":
                members.add(node.attr)
    return members if writes else set()


def handler_of(route: Route[Any]) -> Callable[..., Any]:
    """The handler that is wrapped in the route's endpoint."""
    respond = route.endpoint.respond
    inner = [cell.cell_contents for cell in getattr(respond, "__closure__", None) or ()]
    found = next((each for each in inner if inspect.iscoroutinefunction(each)), respond)
    if found is not respond and getattr(found, "__closure__", None):
        deeper = [cell.cell_contents for cell in found.__closure__ or ()]
        found = next((each for each in deeper if inspect.iscoroutinefunction(each)), found)
    assert inspect.iscoroutinefunction(found)
    return found


def console_acts() -> Iterator[Route[Any]]:
    for row in ROWS:
        if row.route.method == "POST" and handler_of(row.route).__name__ not in CONSOLE_WITHOUT:
            yield row.route


@pytest.mark.parametrize("route", [*console_acts(), *OWN_RECORDS], ids=lambda route: route.pattern)
def test_an_act_is_written_down_by_a_name_of_the_list(route: Route[Any]) -> None:
    members = names_written(handler_of(route))
    assert members, "its handler calls `record`"
    assert members <= set(ActName.__members__)


def test_whoever_operates_by_the_api_leaves_a_record() -> None:
    for route in routes.table(1024):
        assert (route.act is not None) is (route.scope is Scope.OPERATE and not route.has_own_record), route.pattern

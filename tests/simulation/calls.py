"""Names of the calls of stores: those that statements and scripts have in the product's modules."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pkgutil import walk_packages
from types import ModuleType

import storage.postgres
import storage.redis
from storage.postgres.door.shapes import SHAPES
from storage.redis.client import Script

_SCRIPT = re.compile(rb"EVALSHA\r\n\$40\r\n([0-9a-f]{40})|EVAL\r\n")
_COMMAND = re.compile(rb"\*\d+\r\n\$\d+\r\n([A-Za-z]+)\r\n")


def name_of_statement(sql: str) -> str:
    """`inbox.insert` for `storage.postgres.inbox._INSERT`; the first words of a statement that no constant has."""
    return _statements().get(sql) or " ".join(sql.split()[:3])


def name_of_commands(packed: bytes) -> str:
    """`delay_queue.arm` for `storage.redis.delay_queue._ARM`; the name of the first command without a script."""
    match = _SCRIPT.search(packed)
    if match is not None:
        return _scripts().get((match[1] or b"").decode()) or "admission.reserve"
    command = _COMMAND.match(packed)
    return command[1].decode().lower() if command else "commands"


@cache
def _statements() -> dict[str, str]:
    found = {sql: "door.write" for shape in SHAPES for sql in (shape.alone, shape.together)}
    for module in _modules(storage.postgres):
        for name, value in vars(module).items():
            if isinstance(value, str) and name.lstrip("_").isupper():
                found.setdefault(value, _name(module, name))
    return found


@cache
def _scripts() -> dict[str, str]:
    constants = ((module, *item) for module in _modules(storage.redis) for item in vars(module).items())
    return {value.sha: _name(module, name) for module, name, value in constants if isinstance(value, Script)}


def _modules(package: ModuleType) -> Iterator[ModuleType]:
    for info in walk_packages(package.__path__, f"{package.__name__}."):
        yield import_module(info.name)


def _name(module: ModuleType, constant: str) -> str:
    return f"{module.__name__.rpartition('.')[2]}.{constant.strip('_').lower()}"

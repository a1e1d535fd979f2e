"""Modules of core read no clock, socket, file or random source, so a decision can be repeated on any machine."""

import ast
import sys
from pathlib import Path

import pytest

from tests.servers import ROOT

MODULES = sorted((ROOT / "core").rglob("*.py"))
PURE = {
    "__future__",
    "bisect",
    "collections",
    "core",
    "datetime",
    "decimal",
    "difflib",
    "enum",
    "functools",
    "hashlib",
    "inspect",
    "ipaddress",
    "itertools",
    "math",
    "msgspec",
    "re",
    "types",
    "typing",
}
CLOCKS = {"now", "utcnow", "today", "fromtimestamp"}


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_rule_depends_only_on_its_arguments(module: Path) -> None:
    nodes = list(ast.walk(ast.parse(module.read_text())))
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in imported} <= PURE
    read = {node.func.attr for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)}
    called = {node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert not read & CLOCKS
    assert not called & {"open", "input", "print"}


def test_the_checked_modules_and_libraries_exist() -> None:
    assert len(MODULES) > 10
    assert PURE - {"core", "msgspec"} <= sys.stdlib_module_names

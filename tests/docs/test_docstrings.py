"""Docstrings begin with a noun or a verb, as docs/style.md wants it, and those of large packages name their files."""

import pkgutil
import re
import tomllib
from types import ModuleType

import pytest

import channels
import flows
from tests.servers import ROOT

FOLDERS = (
    *tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["root_packages"],
    "clients",
    "examples",
    "scripts",
)
QUESTION = re.compile(r'^\s*r?"""(?:What|Who|Whoever|How|Why|Which)\b', re.MULTILINE)


def test_no_docstring_begins_with_a_question() -> None:
    found = []
    for path in (path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")):
        text = path.read_text()
        lines = (text.count("\n", 0, match.end()) + 1 for match in QUESTION.finditer(text))
        found += [f"{path.relative_to(ROOT)}:{line}" for line in lines]
    assert found == []


@pytest.mark.parametrize("package", [channels, flows], ids=["channels", "flows"])
def test_a_package_of_many_files_names_each_of_them(package: ModuleType) -> None:
    names = {module.name for module in pkgutil.iter_modules(package.__path__)}
    assert names - set(re.findall(r"\w+", package.__doc__ or "")) == set()

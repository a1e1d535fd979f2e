"""What the documentation says of names, defaults and files is true."""

import re
from importlib import import_module
from pathlib import Path

import msgspec
import pytest

from api import metrics
from core.order import CaseReason
from core.settings import Settings
from tests.servers import ROOT

DOCS = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "docs").glob("*/*.md")])
CODE = ("api", "channels", "core", "flows", "storage", "worker")
_ROW = re.compile(r"^\| `([A-Z_]+)` \|([^|]*)\|", re.MULTILINE)


def read(name: str) -> str:
    return (ROOT / name).read_text()


def test_every_setting_is_documented_with_its_default() -> None:
    documented = {name: default.strip() for name, default in _ROW.findall(read("docs/configuration.md"))}
    defaults = {field.encode_name: field.default for field in msgspec.structs.fields(Settings)}
    shown = {
        name: str(int(value)) if isinstance(value, float) and value == int(value) else str(value)
        for name, value in defaults.items()
    }
    assert documented == shown


def test_every_metric_is_documented() -> None:
    exposed = set(re.findall(r"^# HELP (nodrop_[a-z_]+) ", metrics.exposition().decode(), re.MULTILINE))
    assert set(re.findall(r"^\| `(nodrop_[a-z_]+)` \|", read("docs/operations.md"), re.MULTILINE)) == exposed


def test_every_reason_of_a_case_has_something_to_do() -> None:
    table = read("docs/operations.md").partition("| Reason |")[2].partition("\n\n")[0]
    named = [name for cell in re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", cell)]
    assert sorted(named) == sorted(CaseReason)


def test_every_log_line_that_wants_somebody_is_written_somewhere() -> None:
    """By its whole name, or by the loop's name and what became of it."""
    table = read("docs/operations.md").partition("| `event` |")[2].partition("\n\n")[0]
    source = "\n".join(path.read_text() for folder in CODE for path in (ROOT / folder).rglob("*.py"))
    for event in re.findall(r"`([a-z]+(?:_[a-z]+)+)`", table):
        loop, _, became = event.partition("_")
        written = f'"{event}"' in source or (f'"{loop}"' in source and f"_{became}\"" in source)
        assert written, event


_DOTTED = re.compile(r"`((?:api|channels|core|flows|simulator|storage|worker|cli)(?:\.[A-Za-z_][A-Za-z_0-9]*)+)`")
_PATH = re.compile(r"`((?:api|bench|channels|core|docs|flows|scripts|simulator|storage|tests|worker|cli)/[A-Za-z0-9_./-]+)`")
_LINK = re.compile(r"\]\(((?!https?:|#)[^)#\s]+)(?:#([^)\s]+))?\)")


@pytest.mark.parametrize("doc", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_page_names_is_there(doc: Path) -> None:
    """Functions by their dotted names, files by their paths, and pages with their headings by links."""
    text = doc.read_text()
    for name in _DOTTED.findall(text):
        assert resolves(name), name
    for path in _PATH.findall(text):
        assert (ROOT / path).exists(), path
    for path, heading in _LINK.findall(text):
        target = doc.parent / path
        assert target.exists(), path
        assert not heading or heading in headings(target.read_text()), f"{path}#{heading}"


def resolves(name: str) -> bool:
    """`flows.place.place_order` is a module, or what is in one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: object = import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part, None)
        return found is not None
    return False


def headings(text: str) -> set[str]:
    """As links name them: `## Redis is down` → `redis-is-down`."""
    lines = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}

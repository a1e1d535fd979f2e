"""What the documentation says of names, defaults and files is true."""

import re
from pathlib import Path

import msgspec
import pytest

from api import metrics
from core.order import CaseReason
from core.settings import Settings
from tests.servers import ROOT

DOCS = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "docs").glob("*/*.md")])
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

"""The version of nodrop: of the checkout whose code runs, or of the distribution that is installed."""

from __future__ import annotations

import re
from pathlib import Path

_VERSION = re.compile(r'^version = "([^"]+)"$', re.MULTILINE)


def nodrop_version() -> str:
    """`0.1.0`. A checkout knows its own: another nodrop may be installed beside it."""
    project = Path(__file__).parent.parent / "pyproject.toml"
    if project.is_file() and (match := _VERSION.search(project.read_text("utf-8"))):
        return match[1]
    from importlib.metadata import version

    return version("nodrop")

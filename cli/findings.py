"""Findings of `nodrop config check` and `nodrop accounts check`."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple


class Level(StrEnum):
    OK = "OK"
    WARNING = "warning"
    ERROR = "error"


class Finding(NamedTuple):
    """The subject (a variable, a store, an account), its state, and what to do if it is not well."""

    what: str
    level: Level
    says: str


def has_error(findings: Iterable[Finding]) -> bool:
    return any(finding.level is Level.ERROR for finding in findings)

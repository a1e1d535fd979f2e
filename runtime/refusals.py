"""Refused callbacks that this process has noted and not written yet. Noting costs no I/O and takes a bounded place, so
a flood of forged callbacks slows nothing: what finds no place is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import structlog
from msgspec.structs import replace

from core.errors import NodropError
from core.refusals import NO_ACCOUNT, RefusedCallback, Verdict, refused_callback, verdict_of

NOTED_MAX = 200
NOTED_OF_ACCOUNT_MAX = 100
"""Between two writings. With their first bytes, all that are noted have 1.6 MB."""

NOTED_OF_NONE_MAX = 20
"""Of accounts that do not exist."""

_Key = tuple[str, Verdict, bytes]
"""Account, verdict and hash: copies are one row."""

log = structlog.get_logger()


class Noted(NamedTuple):
    """Refused callbacks that found a place, and the number of all by account and verdict."""

    rows: list[RefusedCallback]
    counts: Counter[tuple[str, Verdict]]


class Refusals:
    """The noted ones of one process, copies counted once."""

    def __init__(self) -> None:
        self._rows: dict[_Key, RefusedCallback] = {}
        self._by_account: Counter[str] = Counter()
        self._counts: Counter[tuple[str, Verdict]] = Counter()

    def note(self, account: str, error: NodropError, headers: Mapping[str, str], body: bytes, address: str) -> None:
        """Note one. Nothing is raised: its caller is about to answer."""
        try:
            self._note(account, error, headers, body, address)
        except Exception:  # a bug here must not change the answer
            log.exception("refusal_not_noted")

    def _note(self, account: str, error: NodropError, headers: Mapping[str, str], body: bytes, address: str) -> None:
        verdict = verdict_of(error)
        of = NO_ACCOUNT if verdict is Verdict.UNKNOWN_ACCOUNT else account
        self._counts[of, verdict] += 1
        of_account_max = NOTED_OF_ACCOUNT_MAX if of else NOTED_OF_NONE_MAX
        if len(self._rows) >= NOTED_MAX or self._by_account[of] >= of_account_max:
            return
        row = refused_callback(account, error, headers, body, address)
        key = (row.account, row.verdict, row.body_hash)
        known = self._rows.get(key)
        self._rows[key] = row if known is None else replace(known, copies=known.copies + 1)
        self._by_account[of] += known is None

    def take(self) -> Noted:
        """All that was noted since the last time."""
        noted = Noted(list(self._rows.values()), self._counts)
        self._rows, self._by_account, self._counts = {}, Counter(), Counter()
        return noted

    def put_back(self, counts: Counter[tuple[str, Verdict]]) -> None:
        """Counts that could not be written."""
        self._counts.update(counts)

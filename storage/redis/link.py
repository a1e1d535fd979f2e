"""Whether Redis answers, seen from one place that keeps asking: when to ask again, and one line for each change."""

from __future__ import annotations

import structlog

BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Gaps between tries while it does not answer; the last one for ever."""

log = structlog.get_logger()


class RedisLink:
    """`of` names the place in the log, `fields` go with it. It counts as up until it is first lost."""

    def __init__(self, of: str, **fields: str) -> None:
        self._fields = {"of": of, **fields}
        self._failures = 0

    @property
    def is_up(self) -> bool:
        return self._failures == 0

    def up(self) -> None:
        """It answered."""
        if not self.is_up:
            self._failures = 0
            log.info("redis_link_restored", **self._fields)

    def lost(self, error: BaseException) -> float:
        """It did not; return the seconds to wait before asking again: 0.1, 0.2, 0.5, 1, 2, 5, 5 …"""
        if self.is_up:
            log.warning("redis_link_lost", error=type(error.__cause__ or error).__name__, **self._fields)
        gap_s = BACKOFF_S[min(self._failures, len(BACKOFF_S) - 1)]
        self._failures += 1
        return gap_s

"""State of the connection to Redis at one place: the wait before the next try, and one log line for each change."""

from __future__ import annotations

import structlog

BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Gaps between tries while Redis does not answer; the last one repeats."""

log = structlog.get_logger()


class RedisLink:
    """Connection of the place `of`, which is logged with `fields`. It counts as up until it is first lost."""

    def __init__(self, of: str, **fields: str) -> None:
        self._fields = {"of": of, **fields}
        self._failures = 0

    @property
    def is_up(self) -> bool:
        return self._failures == 0

    def up(self) -> None:
        """Redis answered."""
        if not self.is_up:
            self._failures = 0
            log.info("redis_link_restored", **self._fields)

    def lost(self, error: BaseException) -> float:
        """Redis did not answer; return the seconds to wait before the next try: 0.1, 0.2, 0.5, 1, 2, 5, 5 …"""
        if self.is_up:
            log.warning("redis_link_lost", error=type(error.__cause__ or error).__name__, **self._fields)
        gap_s = BACKOFF_S[min(self._failures, len(BACKOFF_S) - 1)]
        self._failures += 1
        return gap_s

"""Rules for wrong clocks: a process has its own, Postgres has one, and every channel tells its own in its responses."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Annotated

import msgspec

Instant = Annotated[datetime, msgspec.Meta(tz=True)]
"""A time with its zone, in what leaves this service: JSON Schema calls it a `date-time`."""

CORRECT_S = 2.0
"""From this difference to Postgres on, a process judges freshness and signs by Postgres's time."""

FAR_OFF_S = 3600.0
"""Beyond this difference a process takes no jobs: nobody can tell what else is wrong there."""

CONTRADICT_S = 60.0
"""Beyond this difference a channel contradicts Postgres. A response is at most 15 s old, its time a second long."""


class ClockVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a process's clock. `skew_s` is its time minus Postgres's; None: not compared yet.

    `is_contradicted`: more channels contradict Postgres's time than agree with it.
    """

    skew_s: float | None = None
    is_contradicted: bool = False

    @property
    def is_corrected(self) -> bool:
        """Whether Postgres's time is used instead. Contradicted by channels, it corrects no signature."""
        return self.skew_s is not None and abs(self.skew_s) > CORRECT_S and not self.is_contradicted

    @property
    def is_far_off(self) -> bool:
        return self.skew_s is not None and abs(self.skew_s) > FAR_OFF_S

    @property
    def state(self) -> str:
        """`far_off`, `contradicted`, `corrected`, `right` or `not_compared`: the gravest that holds."""
        if self.is_far_off:
            return "far_off"
        if self.is_contradicted:
            return "contradicted"
        if self.is_corrected:
            return "corrected"
        return "not_compared" if self.skew_s is None else "right"


def judge_clock(skew_s: float | None, channels: Collection[float]) -> ClockVerdict:
    """The verdict on a clock. `channels` are the channels' times minus Postgres's, in seconds."""
    contradicting = sum(abs(difference) > CONTRADICT_S for difference in channels)
    return ClockVerdict(skew_s=skew_s, is_contradicted=contradicting > len(channels) - contradicting)

"""Deliveries of notifications: the record of an attempt, where a notification stands, and the endpoint it is for."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

ANSWER_BYTES_MAX = 512
"""Bytes of an answer that are kept: enough for a sentence or the head of an error page."""

ATTEMPTS_KEPT = 50
"""Attempts that are kept of one notification, the newest: sixteen of its own, and those of people."""

REPLACED = "\ufffd"


class Attempt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One delivery that was tried. `no` counts from 1, and from 1 again when a person sends the notification again.

    `status` is the HTTP status or a short word, `answer` the beginning of the body as `readable` makes it.
    """

    no: int
    at: datetime
    latency_ms: int
    status: str
    answer: str = ""
    is_manual: bool = False

    @property
    def ok(self) -> bool:
        """Whether the receiver has acknowledged it."""
        return len(self.status) == len("200") and self.status.startswith("2")


class NotificationState(StrEnum):
    """Where a notification stands. Undelivered ones that wait are `paused` if a person has paused their endpoint, and
    `queued` if they wait for their turn among many that are sent again.
    """

    UNDELIVERED = "undelivered"
    PAUSED = "paused"
    QUEUED = "queued"
    DEAD = "dead"
    DELIVERED = "delivered"
    SUPERSEDED = "superseded"


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """All that tells where a notification stands. `resending_since`: a person has sent it again, which goes on.

    `is_held`: it is not due, because its endpoint is paused or its turn has not come. `is_under_way`: a process is
    sending it now. `is_erased`: its text is gone.
    """

    delivered_at: datetime | None = None
    superseded_at: datetime | None = None
    dead_at: datetime | None = None
    resending_since: datetime | None = None
    is_held: bool = False
    is_paused: bool = False
    is_under_way: bool = False
    is_erased: bool = False

    @property
    def state(self) -> NotificationState:
        if self.delivered_at is not None:
            return NotificationState.DELIVERED
        if self.superseded_at is not None:
            return NotificationState.SUPERSEDED
        if self.dead_at is not None:
            return NotificationState.DEAD
        if self.is_paused:
            return NotificationState.PAUSED
        return NotificationState.QUEUED if self.is_held else NotificationState.UNDELIVERED

    @property
    def is_waiting(self) -> bool:
        """Whether it will be sent without anybody doing anything."""
        is_open = self.state in (NotificationState.UNDELIVERED, NotificationState.QUEUED)
        return is_open or (self.resending_since is not None and not self.is_paused)


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """Notifications of one endpoint that a choice has, with the times of the first and the last."""

    endpoint: str
    count: int
    oldest_at: datetime
    newest_at: datetime
    is_paused: bool = False


def endpoint_of(url: str) -> str:
    """The endpoint of a URL: scheme, host, port and path, without a query and a fragment.

    `storage.postgres.endpoints.ENDPOINT` is the same in SQL.
    """
    return url.partition("?")[0].partition("#")[0]


def readable(answer: bytes) -> str:
    """The first `ANSWER_BYTES_MAX` bytes as text on one line: what is no text, and what could steer a terminal, is
    replaced.
    """
    text = answer[:ANSWER_BYTES_MAX].decode(errors="replace")
    if text.isprintable():
        return text
    return "".join(mark if mark.isprintable() else " " if mark in "\r\n\t" else REPLACED for mark in text).strip()

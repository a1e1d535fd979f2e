"""Leases of a worker that is gone: another one notices within seconds and does the work, under a new token.

Each worker counts up its beat once a second and reads the others'. A process whose beat stood still for four of our own
is gone or stalled; if it was only slow, what it schedules under its old arm numbers has no effect. Refunds and captures
are not taken over: money waits for the end of the lease.
"""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from core import jobs
from flows.commit import arm_jobs, job_of
from runtime.resources import Resources
from storage.postgres import callbacks, notifications, pending, processes

BEAT_S = 1.0

STILL_BEATS = 4
"""So many of our own beats without one of another process. Fewer would take busy processes for gone ones."""

log = structlog.get_logger()


class Peers:
    """The other processes, by their last beat and the number of our own beats since then."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, int]] = {}

    def gone(self, beats: Mapping[str, int]) -> list[str]:
        """Take in what one beat of ours has read. Returns the processes that stand still."""
        seen = {}
        for name, beat in beats.items():
            known, still = self._seen.get(name, (beat, -1))
            seen[name] = (beat, still + 1 if known == beat else 0)
        self._seen = seen
        return [name for name, (_, still) in seen.items() if still >= STILL_BEATS]


async def beat_once(resources: Resources, name: str, peers: Peers) -> int:
    """One beat, and the leases of the processes that are gone. Returns the number of rows that were taken over.

    Raises:
        DatabaseUnavailable: it counts as no beat.
    """
    beats = await processes.beat(resources.db, name)
    resources.db.process = name
    gone = peers.gone(beats)
    if not gone:
        return 0
    armed = [job_of(row) for row in await pending.take_over(resources.db, gone)]
    for take_over, job in (
        (callbacks.take_over, jobs.compensate_callback),
        (notifications.take_over, jobs.push_notification),
    ):
        armed += [job(*row) for row in await take_over(resources.db, gone)]
    await processes.forget(resources.db, gone)
    log.warning("leases_taken_over", count=len(armed), of=len(gone))
    await arm_jobs(resources, armed)
    return len(armed)

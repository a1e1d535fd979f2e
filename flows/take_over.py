"""Leases of a process that is gone: a worker notices within seconds and does the work, under a new token.

Each process counts up its beat once a second and reads the others'. One whose beat stood still for four of our own is
gone or stalled; if it was only slow, what it schedules under its old arm numbers has no effect. After a restart of
Postgres each process ends its own leases: those that it could not give back, or never heard of, would last. Refunds and
captures are not taken over: money waits for the end of the lease.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import structlog

from core import jobs
from flows.commit import arm_jobs, job_of
from runtime.resources import Resources
from storage.postgres import callbacks, notifications, pending, processes

BEAT_S = 1.0

STILL_BEATS = 4
"""So many of our own beats without one of another process. Fewer would take busy processes for gone ones."""

log = structlog.get_logger()


class Beats:
    """The beats of this process under `name`, and those of the others with the number of our own since then."""

    def __init__(self, process: str, kind: str = "worker") -> None:
        self.name = process
        self.kind = kind
        self._process = process
        self._servers: list[datetime] = []
        self._seen: dict[str, tuple[int, int]] = {}

    def gone(self, others: Mapping[str, int]) -> list[str]:
        """Take in what one beat of ours has read. Returns the processes that stand still."""
        seen = {}
        for name, beat in others.items():
            known, still = self._seen.get(name, (beat, -1))
            seen[name] = (beat, still + 1 if known == beat else 0)
        self._seen = seen
        return [name for name, (_, still) in seen.items() if still >= STILL_BEATS]

    def rename_after_restart(self, server_began_at: datetime) -> list[str]:
        """Take a new name if Postgres has been restarted. Returns the old one, whose leases are to end."""
        if server_began_at in self._servers[-1:]:
            return []
        self._servers.append(server_began_at)
        if len(self._servers) == 1:
            return []
        old, self.name = self.name, f"{self._process}-{len(self._servers)}"
        return [old]


async def beat_once(resources: Resources, beats: Beats) -> int:
    """One beat, and the leases of what is gone. Returns the number of rows that were taken over.

    Raises:
        DatabaseUnavailable: it counts as no beat.
    """
    clock = resources.clock.verdict.state
    seen = await processes.beat(resources.db, beats.name, kind=beats.kind, clock=clock)
    gone = beats.gone(seen.others) + beats.rename_after_restart(seen.server_began_at)
    resources.db.process = beats.name
    resources.admission.count_with_older(are_there=seen.protocol < processes.PROTOCOL)
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

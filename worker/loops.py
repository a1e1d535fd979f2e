"""Periodic work beside the lanes: the sweep, and the upkeep of Redis, accounts, parked callbacks and partitions.

A duty is done by one worker for all of them; every other loop runs in each.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import NamedTuple

from flows.alert import alert_duty
from flows.alert_messages import AlertSender, message_duty
from flows.closings import take_recent_days
from flows.duties import LOOK_S, Duty, do_if_due
from flows.let_go import LET_GO_S, let_go_held
from flows.notify import Notifier
from flows.parked import DRAIN_BATCH, drain_parked
from flows.rearm import arm_window, rearm_if_flushed
from flows.reconcile.daily import reconcile_due
from flows.reconcile.requested import read_requested
from flows.retention import delete_old
from flows.rollup import INTERVAL_S as ROLL_UP_INTERVAL_S
from flows.rollup import TallyWriter, roll_up
from flows.sweep import sweep_again, swept_kinds
from flows.take_over import BEAT_S, Beats, beat_once
from flows.undelivered import ask_undelivered
from flows.worlds import open_world_cases
from runtime.accounts import KEEP_CURRENT_S
from runtime.clock import CHECK_S, Clock
from runtime.loop import RunOnce
from runtime.resources import Resources
from storage.postgres.collisions import open_collision_cases
from storage.postgres.observations import keep_partitions

PARTITIONS_INTERVAL_S = 3600.0
RETENTION_INTERVAL_S = 3600.0
COLLISIONS_INTERVAL_S = 60.0
WORLDS_INTERVAL_S = 60.0
RECONCILE_INTERVAL_S = 60.0
REQUESTED_INTERVAL_S = 5.0
CLOSINGS_INTERVAL_S = 3600.0


class Loop(NamedTuple):
    """One periodic task; `run_once` returns True when there is more to do at once."""

    name: str
    interval_s: float
    run_once: RunOnce


def lane_loops(resources: Resources, process: str, tally_writer: TallyWriter) -> tuple[Loop, ...]:
    """Loops of every worker process: its beat, its clock, renewing in time what the accounts verify with, and writing
    what it counted.
    """
    return (
        Loop("beat", BEAT_S, partial(beat_once, resources, Beats(process))),
        Loop("clock", CHECK_S, partial(resources.clock.keep, resources.db)),
        Loop("keep_current", KEEP_CURRENT_S, resources.accounts.keep_current),
        Loop("tallies", ROLL_UP_INTERVAL_S, tally_writer.write_once),
    )


def upkeep_loops(resources: Resources, notifier: Notifier, stop: asyncio.Event) -> tuple[Loop, ...]:
    """Loops of a worker process that runs all lanes. The sweeps need Postgres alone, and end with `stop`."""
    settings = resources.settings
    by_clock = partial(_unless_far_off, resources.clock)
    flush_noticed_s = min(1.0, settings.sweep_interval_s)
    return (
        *(
            Loop(f"sweep_{kind.name}", settings.sweep_interval_s, by_clock(partial(sweep_again, settings, kind, stop)))
            for kind in swept_kinds(resources, notifier)
        ),
        Loop("rearm", flush_noticed_s, partial(rearm_if_flushed, resources)),
        Loop("drain", flush_noticed_s, partial(_drain, resources)),
        Loop("read_requested", REQUESTED_INTERVAL_S, by_clock(partial(read_requested, resources))),
        *(
            Loop(duty.name, min(duty.interval_s, LOOK_S), partial(do_if_due, resources, duty))
            for duty in _duties(resources)
        ),
        *(
            Loop(duty.name, min(duty.interval_s, LOOK_S), by_clock(partial(do_if_due, resources, duty)))
            for duty in _duties_by_clock(resources)
        ),
    )


def alert_loops(resources: Resources, sender: AlertSender) -> tuple[Loop, ...]:
    """Looking and telling, also by a process whose clock is far off: that is what must be told."""
    duties = (alert_duty(resources), *([message_duty(resources, sender)] if sender.is_on else []))
    return tuple(Loop(duty.name, min(duty.interval_s, LOOK_S), partial(do_if_due, resources, duty)) for duty in duties)


def _duties(resources: Resources) -> tuple[Duty, ...]:
    settings, db = resources.settings, resources.db
    horizon_s = settings.arm_horizon_s
    return (
        # A third of the horizon at a time: every job is armed before it is due.
        Duty("arm_ahead", horizon_s / 3, partial(arm_window, resources, from_s=0.0, until_s=horizon_s)),
        Duty(
            "keep_house", PARTITIONS_INTERVAL_S, partial(keep_partitions, db, keep_days=settings.observations_keep_days)
        ),
        Duty("retention", RETENTION_INTERVAL_S, partial(delete_old, resources)),
        Duty("let_go", LET_GO_S, partial(let_go_held, resources)),
        Duty("collisions", COLLISIONS_INTERVAL_S, partial(open_collision_cases, db)),
        Duty("roll_up", ROLL_UP_INTERVAL_S, partial(roll_up, resources)),
        Duty("worlds", WORLDS_INTERVAL_S, partial(open_world_cases, resources)),
        Duty("closings", CLOSINGS_INTERVAL_S, partial(take_recent_days, resources)),
    )


def _duties_by_clock(resources: Resources) -> tuple[Duty, ...]:
    """Those that a process leaves to others while its clock is far off."""
    return (
        Duty("undelivered", resources.settings.undelivered_interval_s, partial(ask_undelivered, resources)),
        Duty("reconcile", RECONCILE_INTERVAL_S, partial(reconcile_due, resources)),
    )


def _unless_far_off(clock: Clock, run_once: RunOnce) -> RunOnce:
    """The work, left to other processes while this one's clock is more than an hour off."""

    async def run() -> object:
        return False if clock.is_far_off else await run_once()

    return run


async def _drain(resources: Resources) -> bool:
    return await drain_parked(resources) >= DRAIN_BATCH

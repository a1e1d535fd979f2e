"""`python -m worker`: one arq worker for each lane, and the sweep and other periodic work beside them.

Starts without Redis and without Postgres, and survives the loss of both. On SIGTERM it claims nothing new, lets running
jobs end within `SHUTDOWN_GRACE_S`, gives the rest back, and exits with code 0.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from contextlib import suppress
from secrets import token_hex

import click
import structlog

from core.errors import ConfigurationError, NodropError
from core.jobs import Lane
from core.settings import Settings
from flows.alert_messages import AlertSender
from flows.notify import Notifier
from flows.rollup import TallyWriter
from runtime import resolver
from runtime.garbage import keep_start
from runtime.loop import run_periodically
from runtime.resources import Resources, open_resources
from runtime.start import start
from storage.redis.nudges import Nudges
from worker.jobs import FUNCTIONS
from worker.lane import LaneWorker
from worker.loops import alert_loops, lane_loops, upkeep_loops
from worker.metrics import serve_metrics

log = structlog.get_logger()

CLOSE_S = 1.0
"""Part of the grace period that closing the connections may take."""

LAST_WRITE_S = CLOSE_S / 2
"""The part of that which writing the last counts may take."""


async def run(settings: Settings, only: Lane | None) -> None:
    """Run until SIGTERM or SIGINT; with `only` that lane alone, without the sweep.

    Raises:
        ConfigurationError: names every variable that is missing or wrong.
    """
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    async with (
        open_resources(settings) as resources,
        Notifier.of_process(resources) as notifier,
        AlertSender(settings, resources.clock) as sender,
    ):
        await resources.clock.begin(resources.db)
        nudges = Nudges(resources.redis)
        lanes = _lanes(resources, notifier, nudges, only)
        tally_writer = TallyWriter(resources.db, resources.tallies)
        loops = lane_loops(resources, lanes[0].process, tally_writer)
        if only is None:
            loops += upkeep_loops(resources, notifier, stop) + alert_loops(resources, sender)
        keep_start()
        log.info("worker_started", lane=only, process=lanes[0].process)
        async with asyncio.TaskGroup() as group:
            for lane in lanes:
                group.create_task(lane.run_forever())
            listening = group.create_task(nudges.listen())
            exposing = group.create_task(serve_metrics(resources, stop))
            periodic = {group.create_task(run_periodically(*loop, stop)) for loop in loops}
            await stop.wait()
            grace_s = max(CLOSE_S, settings.shutdown_grace_s - CLOSE_S)
            await asyncio.gather(_end(periodic, grace_s), *(lane.drain(grace_s) for lane in lanes))
            await _end({listening, exposing}, 0.0)
            with suppress(NodropError, TimeoutError):
                async with asyncio.timeout(LAST_WRITE_S):
                    await tally_writer.write_once()
        log.info("worker_stopped")


async def _end(running: set[asyncio.Task[None]], timeout_s: float) -> None:
    """Let each loop finish its run. A run that takes longer is cancelled; its rows become due again."""
    _, late = await asyncio.wait(running, timeout=timeout_s)
    for task in late:
        task.cancel()


def _lanes(resources: Resources, notifier: Notifier, nudges: Nudges, only: Lane | None) -> list[LaneWorker]:
    process = f"{socket.gethostname()}-{os.getpid()}-{token_hex(3)}"
    return [
        LaneWorker(
            resources.redis,
            lane,
            functions,
            process=process,
            max_jobs=resources.settings.max_jobs,
            ctx={"resources": resources, "notifier": notifier},
            nudges=nudges,
            may_claim=lambda: not resources.clock.is_far_off,
        )
        for lane, functions in FUNCTIONS.items()
        if only in (None, lane)
    ]


@click.command(help=__doc__)
@click.option(
    "--lane", type=click.Choice([lane.value for lane in Lane]), help="Run this lane alone, without the sweep."
)
def main(lane: str | None) -> None:
    try:
        settings = start(os.environ, "notify_secrets")
        resolver.run(run(settings, None if lane is None else Lane(lane)))
    except ConfigurationError as error:
        click.echo(f"worker: {error.detail}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()

"""Nudges of lanes that sleep: a job was armed that is due before what they wait for. Scripts of `delay_queue` and
`job_claims` publish them.

A hint and nothing more. One can be lost or forged, and stock arq sends none: a lane looks by itself every `NUDGED_S`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from redis.asyncio import Redis

from core.errors import RedisUnavailable
from storage.redis.changes import listen_until_lost
from storage.redis.client import RedisLink
from storage.redis.delay_queue import NUDGES


class Nudges:
    """Listener of one process for its lanes, over one connection."""

    def __init__(self, redis: Redis) -> None:
        self.is_listening = False
        self._redis = redis
        self._wakes: dict[bytes, Callable[[], None]] = {}
        self._link = RedisLink("listening to nudges")

    def add(self, queue: str, wake: Callable[[], None]) -> None:
        """Call `wake` when a job of this queue may be due."""
        self._wakes[queue.encode()] = wake

    async def listen(self) -> None:
        """Wake lanes as nudges arrive, for ever, and reconnect after a loss."""
        while True:
            try:
                await listen_until_lost(self._redis, NUDGES, self._handle)
            except RedisUnavailable as error:
                self.is_listening = False
                self._wake_all()
                await asyncio.sleep(self._link.lost(error))

    def _handle(self, queue: bytes | None) -> None:
        if queue is None:
            self.is_listening = True
            self._link.up()
            self._wake_all()
        elif wake := self._wakes.get(queue):
            wake()

    def _wake_all(self) -> None:
        """Wake all lanes: nudges may be lost, and without any a lane looks more often."""
        for wake in self._wakes.values():
            wake()

"""Accidents during a run of the demo: the worker killed, Redis flushed, Postgres restarted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from cli.progress import Progress
from demo.stack import Stack


class Accidents:
    """Three accidents, at a quarter, a half and three quarters of the orders."""

    def __init__(self, stack: Stack, orders: int, progress: Progress) -> None:
        self.done: list[str] = []
        self._stack = stack
        self._progress = progress
        self._plan: dict[int, tuple[str, Callable[[], Awaitable[None]]]] = {
            max(1, orders // 4): ("Worker killed with SIGKILL and started again", self._kill_worker),
            max(2, orders // 2): ("Redis flushed", self._flush_redis),
            max(3, orders * 3 // 4): ("Postgres restarted", self._restart_postgres),
        }

    def start_at(self, count: int) -> asyncio.Task[None] | None:
        """Start the accident of this count of finished shoppers, if there is one."""
        if count not in self._plan:
            return None
        name, accident = self._plan[count]

        async def run() -> None:
            self._progress.write(name)
            await accident()
            self.done.append(name)

        return asyncio.create_task(run())

    async def _kill_worker(self) -> None:
        worker = self._stack.workers[0]
        await worker.kill()
        await asyncio.sleep(1.0)
        await worker.start()

    async def _flush_redis(self) -> None:
        await self._stack.flush_redis()

    async def _restart_postgres(self) -> None:
        await asyncio.to_thread(self._stack.postgres.restart)

"""The least that a web process can do for a request that is stored: no framework, one inserted row, held connections.

`python -m bench.bare PORT`, with Postgres in DATABASE_URL. POST / inserts the body, GET / answers at once.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import asyncpg
import uvicorn

CONNECTIONS = 4
_CREATE = "CREATE TABLE IF NOT EXISTS bare (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body bytea NOT NULL)"
_INSERT = "INSERT INTO bare (body) VALUES ($1) RETURNING id"

RESPONSE = b"ok"


class _Application:
    """ASGI, with as many statements at once as there are connections."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._free: asyncio.LifoQueue[Any] = asyncio.LifoQueue()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI's
        if scope["type"] == "lifespan":
            await receive()
            await self._open()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        if scope["method"] == "POST":
            await self._insert((await receive())["body"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": RESPONSE})

    async def _open(self) -> None:
        for _ in range(CONNECTIONS):
            connection = await asyncpg.connect(self._url, ssl=False)
            await connection.execute(_CREATE)
            self._free.put_nowait(await connection.prepare(_INSERT))

    async def _insert(self, body: bytes) -> None:
        statement = await self._free.get()
        try:
            await statement.fetchval(body)
        finally:
            self._free.put_nowait(statement)


if __name__ == "__main__":
    uvicorn.run(
        _Application(os.environ["DATABASE_URL"]),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        server_header=False,
        date_header=False,
        log_level="error",
    )

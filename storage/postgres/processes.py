"""Worker processes by their beats, and the end of the leases of one that is gone.

A beat is a count and no time: whoever watches it compares it with beats of its own, so neither a clock nor a Postgres
that stood still makes a living process look gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from storage.postgres.database import Database


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a beat: the beats of the other processes, the lowest protocol of any, and when this server of
    Postgres began.
    """

    others: dict[str, int]
    protocol: int
    server_began_at: datetime


PROTOCOL = 3
"""Number of the way in which processes share Redis: those of 1 and 2 count calls under other names."""


_BEAT = """
WITH own AS (
    INSERT INTO processes AS p (name, protocol, kind, clock) VALUES ($1, $2, $3, $4)
    ON CONFLICT (name) DO UPDATE SET beat = p.beat + 1, clock = $4
)
SELECT coalesce((SELECT json_object_agg(name, beat) FROM processes WHERE name <> $1), '{}')::text AS others,
       least((SELECT min(protocol) FROM processes), $2) AS protocol,
       pg_postmaster_start_time() AS server_began_at"""

_COUNT_WORKERS = "SELECT count(*) FROM processes WHERE kind = 'worker'"
_FORGET = "DELETE FROM processes WHERE name = ANY($1)"


async def beat(db: Database, name: str, *, kind: str = "worker", clock: str = "") -> Seen:
    """Count up the beat of this process. `kind` is `worker` or `web`, `clock` the state of its clock."""
    row = await db.fetchrow(_BEAT, name, PROTOCOL, kind, clock)
    assert row is not None, "a statement without WHERE has a row"
    others = msgspec.json.decode(row["others"], type=dict[str, int])
    return Seen(others=others, protocol=row["protocol"], server_began_at=row["server_began_at"])


async def forget(db: Database, names: Sequence[str]) -> None:
    """Delete processes that are gone. One that was only slow comes back with its next beat."""
    await db.execute(_FORGET, list(names))


async def count_workers(db: Database) -> int:
    """Worker processes that beat, or that nobody has missed yet."""
    count: int = await db.fetchval(_COUNT_WORKERS)
    return count

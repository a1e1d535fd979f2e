"""Worker processes by their beats, and the end of the leases of one that is gone.

A beat is a count and no time: whoever watches it compares it with beats of its own, so neither a clock nor a Postgres
that stood still makes a living process look gone.
"""

from __future__ import annotations

from collections.abc import Sequence

from storage.postgres.database import Database

_BEAT = """
WITH own AS (
    INSERT INTO processes AS p (name) VALUES ($1)
    ON CONFLICT (name) DO UPDATE SET beat = p.beat + 1
)
SELECT name, beat FROM processes WHERE name <> $1"""

_FORGET = "DELETE FROM processes WHERE name = ANY($1)"


async def beat(db: Database, name: str) -> dict[str, int]:
    """Count up the beat of this process. Returns the beats of the others."""
    return {row["name"]: row["beat"] for row in await db.fetch(_BEAT, name)}


async def forget(db: Database, names: Sequence[str]) -> None:
    """Delete processes that are gone. One that was only slow comes back with its next beat."""
    await db.execute(_FORGET, list(names))

"""Secrets of codes that were shown to operators and not confirmed by a code yet.

A secret is kept with the session that has asked for it, which alone sees it, and for ten minutes: another session of
the same operator may be somebody else's.
"""

from __future__ import annotations

from storage.postgres.database import Database
from storage.postgres.operators import seal_totp
from storage.sealing import Sealer

OFFERED_S = 600.0
"""Life of a secret that was not confirmed: the time to install an app."""

_OFFER = """
UPDATE operator_sessions SET totp_pending = $3, totp_pending_at = now() WHERE digest = $1 AND epoch = $2"""
_FIND = """
SELECT totp_pending FROM operator_sessions
 WHERE digest = $1 AND totp_pending_at > now() - make_interval(secs => $2)"""
_CONFIRM = """
WITH confirmed AS (
    UPDATE operators o SET totp = s.totp_pending FROM operator_sessions s
     WHERE s.digest = $1 AND s.totp_pending = $2 AND s.totp_pending_at > now() - make_interval(secs => $3)
       AND o.name = s.operator AND o.epoch = s.epoch AND o.totp IS NULL
 RETURNING o.name
), cleared AS (
    UPDATE operator_sessions SET totp_pending = NULL, totp_pending_at = NULL
     WHERE operator IN (SELECT name FROM confirmed) AND totp_pending IS NOT NULL
)
SELECT count(*) FROM confirmed"""


async def offer_codes(db: Database, sealer: Sealer, operator: str, secret: str, *, session: bytes, epoch: int) -> bool:
    """Store a secret that is shown in the session of this digest; it is not in force before a code of it was entered.

    False: the operator was reset since this epoch, so whoever asks for it is somebody else, maybe.
    """
    return await db.execute(_OFFER, session, epoch, seal_totp(sealer, operator, secret)) == 1


async def find_offered_codes(db: Database, session: bytes) -> bytes | None:
    """The sealed secret that this session was shown less than ten minutes ago."""
    sealed: bytes | None = await db.fetchval(_FIND, session, OFFERED_S)
    return sealed


async def confirm_codes(db: Database, session: bytes, *, sealed: bytes) -> bool:
    """Put the secret that was offered into force, and drop those of the operator's other sessions.

    False: its time is over, another one was offered since, or codes are on.
    """
    return bool(await db.fetchval(_CONFIRM, session, sealed, OFFERED_S))
